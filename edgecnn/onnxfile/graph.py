"""A view on who makes and who reads each tensor of an ONNX graph."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper, shape_inference

PAIR = ("QuantizeLinear", "DequantizeLinear")


class View:
    """Producers, readers and constants of a graph. Made anew after the graph changes."""

    def __init__(self, model: ModelProto) -> None:
        self.model, self.graph = model, model.graph
        self.outputs = {o.name for o in self.graph.output}
        self.producer: dict[str, NodeProto] = {name: node for node in self.graph.node for name in node.output if name}
        self.readers: dict[str, list[tuple[NodeProto, int]]] = defaultdict(list)
        for node in self.graph.node:
            for index, name in enumerate(node.input):
                if name:
                    self.readers[name].append((node, index))
        self.constants: dict[str, onnx.TensorProto] = {t.name: t for t in self.graph.initializer}

    def constant(self, name: str) -> NDArray[Any] | None:
        """The value of an initialiser, None for any other tensor."""
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)


def attribute(node: NodeProto, name: str, default: float | int | str) -> float | int | str:
    """A scalar attribute of a node."""
    for a in node.attribute:
        if a.name == name:
            value = helper.get_attribute_value(a)
            return value.decode() if isinstance(value, bytes) else value
    return default


def multiply_adds(model: ModelProto) -> int:
    """Of one run, in convolutions and matrix products with constant weights, Q/DQ pairs on them or not."""
    typed = shape_inference.infer_shapes(model, data_prop=True)
    view = View(typed)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in typed.graph.value_info}
    shapes |= {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in typed.graph.output}
    total = 0
    for node in typed.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        name = node.input[1]
        while name not in view.constants and name in view.producer and view.producer[name].op_type in PAIR:
            name = view.producer[name].input[0]
        weight, shape = view.constants.get(name), shapes.get(node.output[0], [])
        if weight is None or not shape:
            continue
        channels = shape[-1] if node.op_type != "Conv" else shape[1]
        total += math.prod(weight.dims) * (math.prod(shape) // max(channels, 1))
    return total


def set_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Put these nodes in place of a graph's own, and drop the constants that they do not read."""
    kept = list(nodes)
    del graph.node[:]
    graph.node.extend(kept)
    wanted = {o.name for o in graph.output} | {name for node in kept for name in node.input}
    for index in reversed([i for i, t in enumerate(graph.initializer) if t.name not in wanted]):
        del graph.initializer[index]  # one by one: to put the others back would copy VGG's half gigabyte


def sweep(model: ModelProto) -> None:
    """Drop the nodes and constants that nothing reads."""
    wanted = {o.name for o in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    set_nodes(model.graph, reversed(kept))


def without_pairs(model: ModelProto) -> ModelProto:
    """A copy whose nodes read what lies before every Q/DQ pair; the same tensors and layers by name."""
    result = ModelProto()
    result.CopyFrom(model)
    before = {n.output[0]: n.input[0] for n in result.graph.node if n.op_type in PAIR}
    kept = [n for n in result.graph.node if n.op_type not in PAIR]
    for node in kept:
        for index, name in enumerate(node.input):
            while name in before:
                name = before[name]
            node.input[index] = name
    set_nodes(result.graph, kept)
    return result
