"""The same scales for onnxruntime on a CPU, whose fast kernels take unsigned activations.

What can't be negative gets zero point 0, everything else 128. With 128 the integers are those of TensorRT's form plus
128, so results agree bit for bit; with 0 a value above the calibrated maximum keeps up to twice the range before it
saturates.

onnxruntime computes in integers only between two pairs, where TensorRT fuses a convolution with its SiLU or its
residual Add: there, and only there, this form has pairs that TensorRT's has not. A convolution with no pair behind it,
such as a detector's last, runs in float: its rounded weights are float constants, or onnxruntime would scale them back
for every picture.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from edgecnn.onnxfile import set_nodes
from edgecnn.quantize.graph import View
from edgecnn.quantize.insert import ABSORBED, KERNELS, LEVELS, POOLS, Plan, copies, insert
from edgecnn.scene import F32

MIDDLE, TOP = 128, 255


def cpu_form(model: ModelProto, plan: Plan, scale: Mapping[str, float]) -> ModelProto:
    """The prepared FP32 graph → the file for onnxruntime."""
    points = {name: plan.points.get(name, []) + plan.cpu_points.get(name, []) for name in plan.tensors}
    own = {name: scale[name] * LEVELS / TOP for name in finer(model, plan)}
    return pack(to_unsigned(insert(model, points, {**scale, **own}, plan.kernels)))


def unsigned(model: ModelProto, plan: Plan) -> frozenset[str]:
    """Tensors of the plan that can't be negative: zero point 0 here."""
    signs = _Signs(View(model))
    return frozenset(name for name in plan.tensors if signs.positive(name))


def finer(model: ModelProto, plan: Plan) -> frozenset[str]:
    """Tensors that only onnxruntime reads and that can't be negative: all of its 255 levels may serve them."""
    tied = {name for tie in plan.ties for name in tie}
    return unsigned(model, plan) - {*plan.points, *tied}


def to_unsigned(model: ModelProto, *, relu_zero: bool = True) -> ModelProto:
    """A copy of a network in TensorRT's form with uint8 activations; `relu_zero=False`: zero point 128 everywhere."""
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
    """A copy with weights as int8 constants and biases as int32 constants of scale (input scale × weight scale).

    Weights of convolutions that onnxruntime runs in float are float constants, rounded likewise.
    """
    result = ModelProto()
    result.CopyFrom(model)
    graph, view = result.graph, View(result)
    for q in [n for n in graph.node if n.op_type == "QuantizeLinear"]:
        weight, scale = view.constant(q.input[0]), view.constant(q.input[1])
        if weight is None or scale is None:
            continue
        steps = scale.reshape(-1, *[1] * (weight.ndim - 1))
        whole = np.clip(np.rint(weight / steps), -128, 127).astype(np.int8)
        dq = view.readers[q.output[0]][0][0]
        kernel, index = view.readers[dq.output[0]][0]
        graph.node.remove(q)
        if kernel.op_type == "Conv" and not _meets_pair(view, kernel.output[0]):
            view.constants[q.input[0]].CopyFrom(numpy_helper.from_array(whole * steps, q.input[0]))
            kernel.input[index] = q.input[0]
            graph.node.remove(dq)
            continue
        view.constants[q.input[0]].CopyFrom(numpy_helper.from_array(whole, q.input[0]))
        dq.input[0] = q.input[0]
        bias = view.constant(kernel.input[2]) if len(kernel.input) > 2 else None
        x_scale = view.constant(view.producer[kernel.input[0]].input[1])
        if bias is None or x_scale is None or kernel.op_type not in KERNELS:
            continue
        _whole_bias(graph, kernel, bias, x_scale * scale)
    set_nodes(graph, graph.node)
    return result


def _whole_bias(graph: GraphProto, kernel: NodeProto, bias: F32, steps: F32) -> None:
    parts = [f"{kernel.name}.bias_{part}" for part in ("int", "scale", "zero")]
    values = (np.rint(bias / steps).astype(np.int32), steps, np.zeros(steps.shape, np.int32))
    graph.initializer.extend(numpy_helper.from_array(value, name) for value, name in zip(values, parts, strict=True))
    output, name = f"{kernel.name}.bias_dq", f"{kernel.name}.bias_DQ"
    graph.node.insert(0, helper.make_node("DequantizeLinear", parts, [output], name, axis=0))
    kernel.input[2] = output


def _meets_pair(view: View, tensor: str) -> bool:
    """Whether all that is read of a tensor is its quantised form, as onnxruntime's integer convolution wants it."""
    readers = [node for node, _ in view.readers[tensor]]
    if len(readers) == 1 and readers[0].op_type in ABSORBED:
        return _meets_pair(view, readers[0].output[0])
    return bool(readers) and all(node.op_type == "QuantizeLinear" for node in readers) and tensor not in view.outputs


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
        if node.op_type in POOLS or copies(node):
            return all(self.positive(name) for name in inputs)
        return False
