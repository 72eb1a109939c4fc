"""How much memory a network would take, from its shapes alone, and the bound above which it is refused.

Shapes come from onnx's shape inference, one node at a time, and constants are computed along the way only while they
are small: onnx 1.23's own data propagation fills the memory with the values of a Range of 2^40 numbers. A dimension
that stays unknown counts as 1: the estimate is then a lower bound, and says so. Graphs inside of nodes are not
estimated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from edgecnn.errors import InputError
from edgecnn.onnxfile.external import tensors
from edgecnn.onnxfile.wire import BITS

LIMIT = 4 << 30  # bytes: the memory of the smallest board that is sold today, Orin Nano 4 GB
SMALL = 4096  # elements: constants up to this size may be shapes and are computed


@dataclass(frozen=True)
class Memory:
    """Bytes of the weights, of the activations that live at once at worst, and of the largest one."""

    weights: int
    peak: int
    largest: int
    where: str  # the largest tensor
    unknown: tuple[str, ...]  # tensors of the main graph with a dimension that nobody knows before the network runs

    @property
    def total(self) -> int:
        return self.weights + self.peak

    def __str__(self) -> str:
        least = "at least " if self.unknown else ""
        return f"weights {self.weights / 2**20:.1f} MiB, activations {least}{self.peak / 2**20:.1f} MiB at once"


def memory(model: ModelProto) -> Memory:
    """The estimate, as if the graph ran in FP32 node by node, each tensor freed behind its last reader."""
    shapes = Shapes(model)
    for node in model.graph.node:
        shapes.pass_through(node)
    sizes = {name: shapes.size(name) for name in shapes.types if name not in shapes.given}
    unknown = tuple(name for name in sizes if not shapes.known(name))
    last: dict[str, int] = {name: i for i, node in enumerate(model.graph.node) for name in node.input}
    kept = {o.name for o in model.graph.output}
    weights = sum(math.prod(t.dims) * BITS.get(t.data_type, 8) // 8 for t in tensors(model))
    alive = {i.name: sizes.get(i.name, 0) for i in model.graph.input}
    now = peak = sum(alive.values())
    for i, node in enumerate(model.graph.node):
        for name in node.output:
            alive[name] = sizes.get(name, 0)
            now += alive[name]
        peak = max(peak, now)
        for name in {*node.input, *node.output}:
            if name not in kept and last.get(name, -1) <= i:
                now -= alive.pop(name, 0)
    where = max(sizes, key=lambda name: sizes[name], default="")
    return Memory(weights, peak, sizes.get(where, 0), where, unknown)


class Shapes:
    """Types of the tensors of a graph, and the values of its small constants, node by node."""

    def __init__(self, model: ModelProto) -> None:
        self.opsets, self.functions = list(model.opset_import), list(model.functions)
        self.given = {t.name for t in model.graph.initializer}
        self.values: dict[str, NDArray[Any]] = {}
        self.types: dict[str, TypeProto] = {i.name: i.type for i in model.graph.input}
        for tensor in model.graph.initializer:
            self.constant(tensor)

    def constant(self, tensor: TensorProto) -> None:
        self.types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
        if math.prod(tensor.dims) <= SMALL:
            self.values[tensor.name] = numpy_helper.to_array(tensor)

    def pass_through(self, node: NodeProto) -> None:
        """Learn what a node makes."""
        outputs = [name for name in node.output if name]
        feeds = [name for name in dict.fromkeys(node.input) if name]
        one = self.alone(node, feeds, outputs)
        try:
            inferred = shape_inference.infer_shapes(one)
        except shape_inference.InferenceError:
            inferred = one  # its shapes contradict each other, or it reads a tensor from outside: unknown
        for value in inferred.graph.output:
            self.types[value.name] = value.type
        if node.op_type in ("Shape", "Size") and self.known(feeds[0]):
            dims = np.array(self.dims(feeds[0]), np.int64)
            span = slice(*(next((a.i for a in node.attribute if a.name == key), None) for key in ("start", "end")))
            self.values[outputs[0]] = dims[span] if node.op_type == "Shape" else np.array(dims.prod(), np.int64)
        elif all(name in self.values for name in feeds) and all(self.few(name) for name in outputs):
            self.compute(one, feeds, outputs)

    def alone(self, node: NodeProto, feeds: Iterable[str], outputs: Iterable[str]) -> ModelProto:
        """A network of this node, its inputs as small constants or as types."""
        inputs = [helper.make_value_info(n, self.types[n]) for n in feeds if n not in self.values and n in self.types]
        small = [numpy_helper.from_array(self.values[name], name) for name in feeds if name in self.values]
        results = [helper.make_value_info(name, TypeProto()) for name in outputs]
        graph = helper.make_graph([node], "one", inputs, results, small)
        return helper.make_model(graph, opset_imports=self.opsets, functions=self.functions)

    def compute(self, one: ModelProto, feeds: Iterable[str], outputs: list[str]) -> None:
        node = one.graph.node[0]
        if node.domain not in ("", "ai.onnx") or node.op_type.startswith("Random"):
            return
        if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
            return
        try:
            with np.errstate(all="ignore"):
                found = ReferenceEvaluator(one).run(None, {})
        except Exception:  # whatever onnx's evaluator lacks or trips over: the value stays unknown
            return
        self.values.update({name: np.asarray(value) for name, value in zip(outputs, found, strict=True)})

    def dims(self, name: str) -> list[int]:
        """Dimensions, -1 where unknown; [-1] for an unknown rank."""
        kind = self.types[name].tensor_type if name in self.types else TypeProto().tensor_type
        if not kind.HasField("shape"):
            return [-1]
        return [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim]

    def known(self, name: str) -> bool:
        return all(d >= 0 for d in self.dims(name))

    def few(self, name: str) -> bool:
        return self.known(name) and math.prod(self.dims(name)) <= SMALL

    def size(self, name: str) -> int:
        """Bytes; an unknown dimension counts as 1."""
        bits = BITS.get(self.types[name].tensor_type.elem_type, 32)
        return math.prod(max(d, 1) if d else 0 for d in self.dims(name)) * bits // 8


class Room:
    """How many bytes folding constants may still add: a chain of Expand nodes must not fill the memory."""

    def __init__(self, model: ModelProto) -> None:
        self.left, self.shapes = LIMIT, Shapes(model)

    def take(self, node: NodeProto) -> None:
        """Count the outputs of a node that reads constants alone, before it is computed. Raises InputError."""
        self.shapes.pass_through(node)
        sizes = [self.shapes.size(name) for name in node.output if name]
        self.left -= sum(sizes)
        if self.left < 0:
            raise InputError(
                f"{node.op_type} '{node.name or node.output[0]}' would make a constant of {max(sizes):.3g} bytes",
                wanted=f"at most {LIMIT >> 30} GiB of constants",
            )
