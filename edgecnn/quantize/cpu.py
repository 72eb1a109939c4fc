"""The same scales for onnxruntime on a CPU, whose fast kernels take unsigned activations.

Only activation zero points and types change: what can't be negative gets zero point 0, everything else 128. With 128 the
integers are those of TensorRT's form plus 128, so results agree bit for bit; with 0 a value above the calibrated maximum
keeps up to twice the range before it saturates.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from edgecnn.quantize.graph import View, attribute
from edgecnn.quantize.insert import copies

MIDDLE = 128


def to_unsigned(model: ModelProto, *, relu_zero: bool = True) -> ModelProto:
    """A copy of a Q/DQ network with uint8 activations, int8 weight constants and int32 biases.

    `relu_zero=False` uses zero point 128 everywhere.
    """
    result = ModelProto()
    result.CopyFrom(model)
    view = View(result)
    signs = _Signs(view)
    for q in [n for n in result.graph.node if n.op_type == "QuantizeLinear"]:
        if q.input[0] in view.constants:
            continue
        zero = 0 if relu_zero and signs.positive(q.input[0]) else MIDDLE
        view.constants[q.input[2]].CopyFrom(numpy_helper.from_array(np.array(zero, np.uint8), q.input[2]))
    return result


def pack(model: ModelProto) -> ModelProto:
    """A copy in which weights are int8 constants, and biases of integer kernels are int32 constants behind a DQ."""
    result = ModelProto()
    result.CopyFrom(model)
    graph, view = result.graph, View(result)
    for q in [n for n in graph.node if n.op_type == "QuantizeLinear"]:
        weight, scale = view.constant(q.input[0]), view.constant(q.input[1])
        if weight is None or scale is None:
            continue
        shape = (-1, *[1] * (weight.ndim - 1))
        whole = np.clip(np.rint(weight / scale.reshape(shape)), -128, 127).astype(np.int8)
        view.constants[q.input[0]].CopyFrom(numpy_helper.from_array(whole, q.input[0]))
        view.readers[q.output[0]][0][0].input[0] = q.input[0]
        graph.node.remove(q)
    return result


class _Signs:
    """Which tensors can't be negative."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.known: dict[str, bool] = {}

    def positive(self, tensor: str) -> bool:
        if tensor not in self.known:
            node = self.view.producer.get(tensor)
            self.known[tensor] = node is not None and self._positive(node)
        return self.known[tensor]

    def _positive(self, node: NodeProto) -> bool:
        inputs = [name for name in node.input if name and name not in self.view.constants]
        if node.op_type == "Clip":
            low = self.view.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else None
            return low is not None and bool(low >= 0)
        if node.op_type in ("Relu", "Sigmoid", "HardSigmoid", "Softmax"):
            return True
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            return self.positive(node.input[0])
        if node.op_type in ("Add", "Mul"):
            return len(inputs) == 2 and all(self.positive(name) for name in inputs)
        if node.op_type in ("GlobalAveragePool", "AveragePool", "ReduceMean") or copies(node):
            return all(self.positive(name) for name in inputs)
        return False


__all__ = ["attribute", "pack", "to_unsigned"]
