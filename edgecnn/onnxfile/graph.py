"""A view on who makes and who reads each tensor of an ONNX graph."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper


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

    def constant(self, name: str) -> NDArray[np.float32] | None:
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


def sweep(model: ModelProto) -> None:
    """Drop the nodes and constants that nothing reads."""
    graph = model.graph
    wanted = {o.name for o in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    used = [t for t in graph.initializer if t.name in wanted]
    del graph.initializer[:]
    graph.initializer.extend(used)
