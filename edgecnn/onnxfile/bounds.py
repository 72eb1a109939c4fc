"""How much memory a network would take, from its shapes alone, and the bound above which it is refused.

Shapes come from onnx's shape inference with data propagation, which computes them and allocates no tensor. A dimension
that stays unknown counts as 1: the estimate is then a lower bound, and says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, shape_inference

from edgecnn.errors import InputError
from edgecnn.onnxfile.external import tensors
from edgecnn.onnxfile.wire import BITS

LIMIT = 4 << 30  # bytes: the memory of the smallest board that is sold today, Orin Nano 4 GB
SMALL = 4096  # elements: constants up to this size may be shapes, larger ones are passed to the inference as types


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
    sizes, unknown = _sizes(model)
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


def _sizes(model: ModelProto) -> tuple[dict[str, int], tuple[str, ...]]:
    """Bytes of each tensor that a node of the main graph makes or the user gives, and those of unknown size."""
    inferred = shape_inference.infer_shapes(_skeleton(model), data_prop=True)
    values = {v.name: v for v in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)}
    sizes, unknown = {}, []
    constants = {t.name for t in model.graph.initializer}
    names = [i.name for i in model.graph.input if i.name not in constants]
    for name in [*names, *(name for node in model.graph.node for name in node.output if name)]:
        kind = values[name].type.tensor_type if name in values else None
        dims = [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim] if kind is not None else [-1]
        if kind is None or not kind.HasField("shape") or any(d < 0 for d in dims):
            unknown.append(name)
        bits = BITS.get(kind.elem_type, 32) if kind is not None else 32
        sizes[name] = math.prod(max(d, 1) for d in dims) * bits // 8
    return sizes, tuple(unknown)


def _skeleton(model: ModelProto) -> ModelProto:
    """The graph without its large weights: their types stand as inputs."""
    result = ModelProto(ir_version=model.ir_version)
    result.opset_import.extend(model.opset_import)
    result.functions.extend(model.functions)
    graph, source = result.graph, model.graph
    graph.name = source.name or "graph"
    graph.node.extend(source.node)
    graph.output.extend(source.output)
    graph.input.extend(source.input)
    given = {i.name for i in source.input}
    for tensor in source.initializer:
        if math.prod(tensor.dims) <= SMALL:
            graph.initializer.append(tensor)
        elif tensor.name not in given:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return result


class Room:
    """How many bytes folding constants may still add: a chain of Expand nodes must not fill the memory."""

    def __init__(self, opsets: list[onnx.OperatorSetIdProto]) -> None:
        self.left, self.opsets = LIMIT, opsets

    def take(self, node: NodeProto, feeds: list[TensorProto]) -> None:
        """Count the outputs of a node that reads constants alone, before it is computed. Raises InputError."""
        outputs = [helper.make_value_info(name, onnx.TypeProto()) for name in node.output]
        model = helper.make_model(helper.make_graph([node], "one", [], outputs, feeds), opset_imports=self.opsets)
        sizes, _ = _sizes(model)
        self.left -= sum(sizes.values())
        if self.left < 0:
            raise InputError(
                f"{node.op_type} '{node.name or node.output[0]}' would make a constant of {max(sizes.values()):.3g} bytes",
                wanted=f"at most {LIMIT >> 30} GiB of constants",
            )
