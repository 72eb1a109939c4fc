"""A small network with all that quantisation has to place: depthwise, residual, MaxPool, Concat, pooling, Gemm."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

SHAPE = (1, 3, 32, 48)


class Sketch:
    """Collects nodes and random weights of a graph."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []

    def weight(self, name: str, *shape: int, gain: float = 1.0) -> str:
        values = self.random.normal(size=shape) * gain / np.sqrt(max(1, np.prod(shape[1:])))
        return self.constant(name, values.astype(np.float32))

    def constant(self, name: str, value: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], output, **attributes))
        return output

    def conv(
        self, x: str, name: str, outputs: int, inputs: int, kernel: int = 3, stride: int = 1, groups: int = 1
    ) -> str:
        weight = self.weight(f"{name}.w", outputs, inputs // groups, kernel, kernel)
        bias = self.weight(f"{name}.b", outputs)
        shape = {"pads": [kernel // 2] * 4, "strides": [stride] * 2, "kernel_shape": [kernel] * 2, "group": groups}
        return self.node("Conv", [x, weight, bias], name, **shape)

    def relu(self, x: str) -> str:
        return self.node("Relu", [x], f"{x}.relu")

    def model(self, outputs: dict[str, list[int]], opset: int = 17) -> ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "tiny",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(SHAPE))],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def tiny() -> ModelProto:
    """stem → depthwise → pointwise + skip → (left, MaxPool) → Concat → mix → GAP → Gemm."""
    s = Sketch()
    stem = s.relu(s.conv("x", "stem", 16, 3, stride=2))
    wide = s.relu(s.conv(stem, "depthwise", 16, 16, groups=16))
    point = s.conv(wide, "pointwise", 16, 16, kernel=1)
    joined = s.relu(s.node("Add", [point, stem], "add"))
    left = s.relu(s.conv(joined, "left", 16, 16, kernel=1))
    pool = s.node("MaxPool", [joined], "pool", kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4)
    mix = s.relu(s.conv(s.node("Concat", [left, pool], "cat", axis=1), "mix", 32, 32))
    flat = s.node("Flatten", [s.node("GlobalAveragePool", [mix], "gap")], "flat")
    s.node("Gemm", [flat, s.weight("fc.w", 32, 10), s.weight("fc.b", 10)], "fc")
    return s.model({"fc": [1, 10]})


def feeds(count: int = 16) -> list[np.ndarray]:
    return [np.random.default_rng(i).normal(size=SHAPE).astype(np.float32) for i in range(count)]


def loud(weight: np.ndarray, scale: np.ndarray, total: float, groups: int = 1) -> ModelProto:
    """A picture (1, 3, 8, 8) spread evenly over 64 channels, and a convolution of u8 and int8 that sums them up.

    `scale`: of the weights, () or (outputs,). `total`: the sum that the output's scale must hold.
    """
    constants = {
        "one": np.array(1, np.float32),
        "zero": np.array(0, np.uint8),
        "weight": weight,
        "weight_scale": scale,
        "weight_zero": np.zeros(scale.shape, np.int8),
        "large": np.array(total / 200, np.float32),
        "spread": np.ones((64, 3, 1, 1), np.float32) / 3,
    }
    by_channel = {"axis": 0} if scale.ndim else {}
    nodes = [
        helper.make_node("Conv", ["x", "spread"], ["wide"]),
        helper.make_node("QuantizeLinear", ["wide", "one", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "one", "zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["w"], **by_channel),
        helper.make_node("Conv", ["d", "w"], ["y"], group=groups),
        helper.make_node("QuantizeLinear", ["y", "large", "zero"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "large", "zero"], ["yd"]),
        helper.make_node("GlobalAveragePool", ["yd"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "sums",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, len(weight)))],
        [numpy_helper.from_array(a, name) for name, a in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
