"""The graph as the rules see it: constants of both kinds, pairs, shapes, and which tensors live among INT8 kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgecnn.onnxfile import View, attribute
from edgecnn.onnxfile.bounds import Shapes

Q, DQ = "QuantizeLinear", "DequantizeLinear"
KERNELS = ("Conv", "Gemm", "MatMul", "ConvTranspose")
ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Elu", "Mish")
COPIES = ("MaxPool", "Concat", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Resize")
POOLS = ("GlobalAveragePool", "AveragePool", "ReduceMean")
PASSING = (*ACTIVATIONS, *COPIES, *POOLS, "Add", "Mul", "Sub", "BatchNormalization", "Identity", "Dropout", Q, DQ)


class Net(View):
    """A View with what the rules ask for. Made anew after the graph changes."""

    def __init__(self, model: ModelProto) -> None:
        super().__init__(model)
        for node in self.graph.node:
            for a in node.attribute:
                if node.op_type == "Constant" and a.name == "value":
                    self.constants[node.output[0]] = a.t
        self.order = {name: i for i, node in enumerate(self.graph.node) for name in node.output}
        self._shapes: Shapes | None = None

    def scale(self, node: NodeProto) -> NDArray[Any] | None:
        """Of a Q or DQ node."""
        return self.constant(node.input[1])

    def zero(self, node: NodeProto) -> NDArray[Any] | None:
        return self.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None

    def pair(self, tensor: str) -> tuple[NodeProto, NodeProto] | None:
        """(Q, DQ) whose DQ makes the tensor."""
        dq = self.producer.get(tensor)
        q = self.producer.get(dq.input[0]) if dq is not None and dq.op_type == DQ else None
        return (q, dq) if q is not None and dq is not None and q.op_type == Q else None

    def before(self, tensor: str) -> str:
        """The tensor without the pair that may be on it."""
        pair = self.pair(tensor)
        return pair[0].input[0] if pair else tensor

    def paired(self, tensor: str) -> str:
        """Output of a pair of one scale on the tensor, "" if it has none."""
        for q, _ in self.readers[tensor]:
            scale = self.scale(q) if q.op_type == Q else None
            if scale is not None and scale.size == 1:
                for dq, _ in self.readers[q.output[0]]:
                    if dq.op_type == DQ:
                        return str(dq.output[0])
        return ""

    def constant_feed(self, node: NodeProto) -> bool:
        """Whether a Q or DQ works on weights: a constant, or a constant's pair."""
        maker = self.producer.get(node.input[0])
        source = maker.input[0] if maker is not None and maker.op_type == Q else node.input[0]
        return source in self.constants

    def data_inputs(self, node: NodeProto) -> list[str]:
        return [name for name in node.input if name and name not in self.constants]

    def dims(self, tensor: str) -> list[int]:
        """The shape, -1 for an unknown dimension, [-1] for an unknown rank."""
        if self._shapes is None:
            self._shapes = Shapes(self.model)
            for node in self.graph.node:
                self._shapes.pass_through(node)
        return self._shapes.dims(tensor)

    def among(self) -> tuple[set[str], set[str]]:
        """Tensors that come from an INT8 kernel, and tensors that lead to one, through nothing that stops INT8."""
        kernels = {id(n) for n in self.graph.node if is_int8(self, n)}
        rooted: set[str] = set()
        leading: set[str] = set()
        for node in self.graph.node:
            if id(node) in kernels or (node.op_type in PASSING and rooted.intersection(node.input)):
                rooted.update(node.output)
        for node in reversed(self.graph.node):
            if id(node) in kernels or (node.op_type in PASSING and leading.intersection(node.output)):
                leading.update(node.input)
        return rooted, leading


def is_int8(net: Net, node: NodeProto) -> bool:
    """A kernel whose data and weights both come out of a DequantizeLinear."""
    if node.op_type not in KERNELS:
        return False
    makers = [net.producer.get(name) for name in node.input[:2]]
    return all(maker is not None and maker.op_type == DQ for maker in makers)


def label(node: NodeProto) -> str:
    return node.name or f"{node.op_type} that makes {node.output[0]}"


def axis_of(node: NodeProto, rank: int) -> int:
    """Axis of a Q or DQ node with several scales."""
    axis = int(attribute(node, "axis", 1))
    return axis + rank if axis < 0 else axis


def along(vector: NDArray[Any], axis: int, rank: int) -> NDArray[Any]:
    """A vector shaped so that it broadcasts along one axis."""
    return (
        vector.reshape([-1 if i == axis else 1 for i in range(rank)]) if vector.size > 1 else vector.reshape([1] * rank)
    )


def dequantised(net: Net, node: NodeProto) -> NDArray[np.float32] | None:
    """The value of a DequantizeLinear on a constant, or on a constant's Q."""
    levels, scale, zero = net.constant(node.input[0]), net.scale(node), net.zero(node)
    maker = net.producer.get(node.input[0])
    if levels is None and maker is not None and maker.op_type == Q:
        levels = _levels(net, maker)
    if levels is None or scale is None:
        return None
    axis = axis_of(node, levels.ndim)
    shift = 0 if zero is None else along(zero.astype(np.float64), axis, levels.ndim)
    value: NDArray[np.float32] = ((levels - shift) * along(scale.astype(np.float64), axis, levels.ndim)).astype("f4")
    return value


def _levels(net: Net, q: NodeProto) -> NDArray[Any] | None:
    """What a QuantizeLinear makes of a constant."""
    value, scale, zero = net.constant(q.input[0]), net.scale(q), net.zero(q)
    if value is None or scale is None:
        return None
    axis = axis_of(q, value.ndim)
    low, high = (0, 255) if zero is None or zero.dtype == np.uint8 else (-128, 127)
    shift = 0 if zero is None else along(zero.astype(np.float64), axis, value.ndim)
    levels: NDArray[Any] = np.clip(np.round(value / along(scale, axis, value.ndim)) + shift, low, high)
    return levels


def hides_relu(net: Net, q: NodeProto) -> bool:
    """Whether a Q is the only thing that keeps a tensor from being negative.

    Where the lowest level stands for 0, a quantiser may drop the Relu before it (onnxruntime's does): the level cannot
    go lower. A pair around 0 can.
    """
    zero = net.zero(q)
    at = 0 if zero is None else int(zero.ravel()[0])
    return at == (0 if zero is None or zero.dtype == np.uint8 else -128) and not _positive(net, q.input[0])


def _positive(net: Net, tensor: str) -> bool:
    node = net.producer.get(tensor)
    while node is not None and node.op_type in (*COPIES, *POOLS, DQ) and node.op_type != "Concat":
        node = net.producer.get(node.input[0])
        if node is not None and node.op_type == Q:
            return True  # a pair before it has the same lowest level, or hides a Relu of its own
    return node is not None and node.op_type in ("Relu", "Sigmoid", "Softmax", "HardSigmoid")


def tensor(name: str, value: NDArray[Any]) -> TensorProto:
    return numpy_helper.from_array(np.asarray(value, order="C"), name)  # ascontiguousarray would make scalars vectors


def list_attribute(node: NodeProto, name: str) -> list[int]:
    """A list of integers, empty if it is not there."""
    for a in node.attribute:
        if a.name == name:
            value = helper.get_attribute_value(a)
            return [int(v) for v in value] if isinstance(value, list | tuple) else []
    return []
