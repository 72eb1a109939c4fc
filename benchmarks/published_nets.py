"""Networks with published latencies, as ONNX graphs of shapes: no weights, no training code, nothing that could run.

`benchmarks/predict_table.py` predicts on them. Each is written down from its publication: widths, kernels,
strides. `PUBLISHED` holds the parameters and operations that the publications state, and tests/test_predict.py holds
the graphs against them. Batch normalisation is left out: it is merged into the convolution before an engine is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper


class Shapes:
    """Collects nodes, and weights that have a shape and no values."""

    def __init__(self, side: int) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.channels: dict[str, int] = {"x": 3}
        self.parameters = 0
        self.side = side

    def node(self, op: str, inputs: Sequence[str], channels: int = 0, outputs: int = 1, **attributes: Any) -> list[str]:
        names = [f"{op.lower()}{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, names[0], **attributes))
        self.channels |= dict.fromkeys(names, channels or self.channels[inputs[0]])
        return names

    def weight(self, *shape: int) -> str:
        self.constants.append(TensorProto(name=f"w{len(self.constants)}", dims=shape, data_type=TensorProto.FLOAT))
        self.parameters += int(np.prod(shape))
        return self.constants[-1].name

    def value(self, array: Any, dtype: type = np.int64) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def conv(
        self, x: str, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: str = "Relu", pad: int = -1
    ) -> str:
        """Convolution and activation ("": none; "Silu")."""
        weight = self.weight(outputs, self.channels[x] // groups, kernel, kernel)
        shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "group": groups}
        pads = [kernel // 2 if pad < 0 else pad] * 4
        y = self.node("Conv", [x, weight, self.weight(outputs)], outputs, pads=pads, **shape)[0]
        if act == "Silu":
            return self.node("Mul", [y, self.node("Sigmoid", [y])[0]])[0]
        return self.node(act, [y])[0] if act else y

    def add(self, a: str, b: str, act: str = "") -> str:
        y = self.node("Add", [a, b])[0]
        return self.node(act, [y])[0] if act else y

    def cat(self, tensors: Sequence[str]) -> str:
        return self.node("Concat", tensors, sum(self.channels[t] for t in tensors), axis=1)[0]

    def maxpool(self, x: str, kernel: int, stride: int) -> str:
        shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        return self.node("MaxPool", [x], **shape)[0]

    def double(self, x: str) -> str:
        scales = self.value([1, 1, 2, 2], np.float32)
        return self.node("Resize", [x, "", scales], mode="nearest", nearest_mode="floor")[0]

    def model(self, outputs: Sequence[str]) -> ModelProto:
        shape = [1, 3, self.side, self.side]
        graph = helper.make_graph(
            self.nodes,
            "shapes",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_value_info(name, onnx.TypeProto()) for name in outputs],
            self.constants,
        )
        for output in graph.output:
            output.type.tensor_type.elem_type = TensorProto.FLOAT
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# ---- classifiers and detectors of MLPerf inference


def resnet50() -> ModelProto:
    """He et al. 2016, arXiv:1512.03385, table 1, with the stride in the 3x3 (MLPerf's v1.5)."""
    s = Shapes(224)
    levels = _bottlenecks(s, s.maxpool(s.conv("x", 64, 7, 2), 3, 2), (64, 128, 256, 512), groups=1)
    flat = s.node("Flatten", s.node("GlobalAveragePool", [levels[-1]]))[0]
    return s.model(s.node("Gemm", [flat, s.weight(1000, 2048), s.weight(1000)], transB=1))


def _bottlenecks(s: Shapes, x: str, widths: Sequence[int], groups: int) -> list[str]:
    """The four stages of 3, 4, 6 and 3 blocks; each ends four times 64, 128, 256 and 512 wide."""
    levels = []
    for stage, (width, blocks) in enumerate(zip(widths, (3, 4, 6, 3), strict=True)):
        out = 256 << stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            skip = x if block else s.conv(x, out, 1, stride, act="")
            y = s.conv(s.conv(s.conv(x, width), width, 3, stride, groups), out, act="")
            x = s.add(y, skip, "Relu")
        levels.append(x)
    return levels


def retinanet() -> ModelProto:
    """MLPerf's: ResNeXt-50 32x4d, a pyramid of 256 channels, 800 px, 264 classes, 9 anchors (Lin et al. 2017,
    arXiv:1708.02002, section 4). Box decoding and suppression are not in the graph."""
    s = Shapes(800)
    backbone = _bottlenecks(s, s.maxpool(s.conv("x", 64, 7, 2), 3, 2), (128, 256, 512, 1024), groups=32)
    above, levels = "", []
    for level in reversed(backbone[1:]):
        lateral = s.conv(level, 256, act="")
        above = s.add(lateral, s.double(above)) if above else lateral
        levels.insert(0, s.conv(above, 256, 3, act=""))
    for _ in range(2):
        levels.append(s.conv(levels[-1], 256, 3, 2, act="Relu" if len(levels) == 4 else ""))
    shared = [[s.weight(out, 256, 3, 3) for out in (256, 256, 256, 256, last)] for last in (9 * 264, 9 * 4)]
    outputs = []
    for level in levels:
        for weights in shared:
            y = level
            for index, weight in enumerate(weights):
                y = s.node("Conv", [y, weight], 256, kernel_shape=[3, 3], pads=[1] * 4)[0]
                y = s.node("Relu", [y])[0] if index < 4 else y
            outputs.append(y)
    return s.model(outputs)


def ssd_mobilenet() -> ModelProto:
    """SSD with MobileNet-v1 (Howard et al. 2017, arXiv:1704.04861, table 1) at 300 px, 1x1 heads, 91 classes."""
    s = Shapes(300)
    x, taps = s.conv("x", 32, 3, 2, act="Clip"), []
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for width, stride in plan:
        if (width, stride) == (1024, 2):
            taps.append(x)
        x = s.conv(s.conv(x, s.channels[x], 3, stride, s.channels[x], act="Clip"), width, act="Clip")
    taps.append(x)
    for narrow, wide in ((256, 512), (128, 256), (128, 256), (64, 128)):
        taps.append(s.conv(s.conv(taps[-1], narrow, act="Clip"), wide, 3, 2, act="Clip"))
    anchors = (3, 6, 6, 6, 6, 6)
    return s.model([s.conv(t, a * c, act="") for t, a in zip(taps, anchors, strict=True) for c in (91, 4)])


def ssd_resnet34() -> ModelProto:
    """MLPerf's: ResNet-34's first three stages, the third with stride 1, at 1200 px, 81 classes; heads of stride 3."""
    s = Shapes(1200)
    x = s.maxpool(s.conv("x", 64, 7, 2), 3, 2)
    for width, blocks, first in ((64, 3, 1), (128, 4, 2), (256, 6, 1)):
        for block in range(blocks):
            stride = 1 if block else first
            skip = x if s.channels[x] == width else s.conv(x, width, 1, stride, act="")
            x = s.add(s.conv(s.conv(x, width, 3, stride), width, 3, act=""), skip, "Relu")
    taps = [x]
    for narrow, wide, stride, pad in (
        (256, 512, 2, 1),
        (256, 512, 2, 1),
        (128, 256, 2, 1),
        (128, 256, 2, 0),
        (128, 256, 1, 0),
    ):
        taps.append(s.conv(s.conv(taps[-1], narrow), wide, 3, stride, pad=pad))
    anchors = (4, 6, 6, 6, 4, 4)
    return s.model([s.conv(t, a * c, 3, 3, act="") for t, a in zip(taps, anchors, strict=True) for c in (81, 4)])


# ---- YOLO at 640 px, 80 classes


def _csp(s: Shapes, x: str, out: int, hidden: int, blocks: int, inner: Callable[[str], str]) -> str:
    """1x1 to two halves; a chain of blocks on the second; all of them concatenated; 1x1."""
    parts = s.node("Split", [s.conv(x, 2 * hidden, act="Silu"), s.value([hidden, hidden])], hidden, 2, axis=1)
    for _ in range(blocks):
        parts.append(inner(parts[-1]))
    return s.conv(s.cat(parts), out, act="Silu")


def _block(s: Shapes, x: str, hidden: int, shortcut: bool) -> str:
    """3x3 to `hidden` channels and 3x3 back."""
    y = s.conv(s.conv(x, hidden, 3, act="Silu"), s.channels[x], 3, act="Silu")
    return s.add(x, y) if shortcut else y


def _c3k(s: Shapes, x: str, shortcut: bool) -> str:
    """Two blocks beside a 1x1, at half the width."""
    half = s.channels[x] // 2
    y = s.conv(x, half, act="Silu")
    for _ in range(2):
        y = _block(s, y, half, shortcut)
    return s.conv(s.cat([y, s.conv(x, half, act="Silu")]), s.channels[x], act="Silu")


def _pyramid_pool(s: Shapes, x: str, out: int) -> str:
    parts = [s.conv(x, s.channels[x] // 2, act="Silu")]
    for _ in range(3):
        parts.append(s.maxpool(parts[-1], 5, 1))
    return s.conv(s.cat(parts), out, act="Silu")


def _attention(s: Shapes, x: str, blocks: int) -> str:
    """Half of the channels through `blocks` of self-attention over the 20x20 places, and a feed-forward pair."""
    half, places = s.channels[x] // 2, (s.side // 32) ** 2
    heads = half // 64
    left, y = s.node("Split", [s.conv(x, 2 * half, act="Silu"), s.value([half, half])], half, 2, axis=1)
    for _ in range(blocks):
        qkv = s.node("Reshape", [s.conv(y, 2 * half, act=""), s.value([1, heads, 128, places])])
        q, k, v = s.node("Split", [*qkv, s.value([32, 32, 64])], half, 3, axis=2)
        weights = s.node("MatMul", [s.node("Transpose", [q], perm=[0, 1, 3, 2])[0], k])
        soft = s.node("Transpose", s.node("Softmax", weights, axis=-1), perm=[0, 1, 3, 2])[0]
        shape = s.value([1, half, s.side // 32, s.side // 32])
        mixed = s.node("Reshape", [s.node("MatMul", [v, soft])[0], shape], half)[0]
        place = s.conv(s.node("Reshape", [v, shape], half)[0], half, 3, groups=half, act="")
        y = s.add(y, s.conv(s.add(mixed, place), half, act=""))
        y = s.add(y, s.conv(s.conv(y, 2 * half, act="Silu"), half, act=""))
    return s.conv(s.cat([left, y]), 2 * half, act="Silu")


def _heads(s: Shapes, levels: Sequence[str], thin: bool) -> list[str]:
    """Boxes as 4 x 16 bins, turned into 4 numbers, and 80 scores a place. `thin`: YOLO11's depthwise class branch."""
    box_width = max(16, s.channels[levels[0]] // 4, 64)
    class_width = max(s.channels[levels[0]], 80)
    rows = []
    for x in levels:
        box = s.conv(s.conv(s.conv(x, box_width, 3, act="Silu"), box_width, 3, act="Silu"), 64, act="")
        y = x
        for _ in range(2):
            if thin:
                y = s.conv(s.conv(y, s.channels[y], 3, groups=s.channels[y], act="Silu"), class_width, act="Silu")
            else:
                y = s.conv(y, class_width, 3, act="Silu")
        rows.append(s.node("Reshape", [s.cat([box, s.conv(y, 80, act="")]), s.value([1, 144, -1])], 144)[0])
    places = sum((s.side // stride) ** 2 for stride in (8, 16, 32))
    whole = s.node("Concat", rows, 144, axis=2)[0]
    box, scores = s.node("Split", [whole, s.value([64, 80])], outputs=2, axis=1)
    bins = s.node("Transpose", s.node("Reshape", [box, s.value([1, 4, 16, places])]), perm=[0, 2, 1, 3])
    weighed = s.node("Conv", [s.node("Softmax", bins, 16, axis=1)[0], s.weight(1, 16, 1, 1)], 1, kernel_shape=[1, 1])
    corners = s.node("Mul", [s.node("Reshape", [*weighed, s.value([1, 4, places])])[0], s.value([[[8.0]]], np.float32)])
    return s.node("Concat", [*corners, *s.node("Sigmoid", [scores])], axis=1)


def yolov8n() -> ModelProto:
    """Widths 16 to 256, blocks 1, 2, 2, 1 (Yaseen 2024, arXiv:2408.15857)."""
    s = Shapes(640)

    def stage(x: str, out: int, blocks: int, shortcut: bool) -> str:
        return _csp(s, x, out, out // 2, blocks, lambda y: _block(s, y, out // 2, shortcut))

    x, taps = s.conv("x", 16, 3, 2, act="Silu"), []
    for width, blocks in ((32, 1), (64, 2), (128, 2), (256, 1)):
        x = stage(s.conv(x, width, 3, 2, act="Silu"), width, blocks, True)
        taps.append(x)
    top = _pyramid_pool(s, x, 256)
    middle = stage(s.cat([s.double(top), taps[2]]), 128, 1, False)
    low = stage(s.cat([s.double(middle), taps[1]]), 64, 1, False)
    middle = stage(s.cat([s.conv(low, 64, 3, 2, act="Silu"), middle]), 128, 1, False)
    top = stage(s.cat([s.conv(middle, 128, 3, 2, act="Silu"), top]), 256, 1, False)
    return s.model(_heads(s, [low, middle, top], thin=False))


def yolo11(width: float, most: int, depth: int, deep: bool) -> ModelProto:
    """Khanam and Hussain 2024, arXiv:2410.17725. `deep`: the nested blocks everywhere, as in sizes m to x."""
    s = Shapes(640)

    def wide(channels: int) -> int:
        return int(-(-min(channels, most) * width // 8) * 8)

    def stage(x: str, channels: int, nested: bool, share: float = 0.5) -> str:
        hidden = int(wide(channels) * share)
        if nested or deep:
            return _csp(s, x, wide(channels), hidden, depth, lambda y: _c3k(s, y, True))
        return _csp(s, x, wide(channels), hidden, depth, lambda y: _block(s, y, hidden // 2, True))

    def down(x: str, channels: int) -> str:
        return s.conv(x, wide(channels), 3, 2, act="Silu")

    x = stage(down(down("x", 64), 128), 256, False, 0.25)
    low = stage(down(x, 256), 512, False, 0.25)
    middle = stage(down(low, 512), 512, True)
    x = stage(down(middle, 1024), 1024, True)
    top = _attention(s, _pyramid_pool(s, x, wide(1024)), depth)
    up = stage(s.cat([s.double(top), middle]), 512, False)
    low = stage(s.cat([s.double(up), low]), 256, False)
    middle = stage(s.cat([down(low, 256), up]), 512, False)
    top = stage(s.cat([down(middle, 512), top]), 1024, True)
    return s.model(_heads(s, [low, middle, top], thin=True))


NETWORKS: Mapping[str, Callable[[], ModelProto]] = {
    "ResNet-50": resnet50,
    "RetinaNet": retinanet,
    "SSD-MobileNet": ssd_mobilenet,
    "SSD-ResNet34": ssd_resnet34,
    "YOLOv8n": yolov8n,
    "YOLO11n": lambda: yolo11(0.25, 1024, 1, False),
    "YOLO11s": lambda: yolo11(0.5, 1024, 1, False),
    "YOLO11m": lambda: yolo11(1.0, 512, 1, True),
    "YOLO11x": lambda: yolo11(1.5, 512, 2, True),
}

# parameters in millions, operations (two a multiply-accumulate) in billions, as published:
# MLPerf Inference (Reddi et al. 2020, arXiv:1911.02549, table 1); Ultralytics' model tables at 640 px
PUBLISHED: Mapping[str, tuple[float, float]] = {
    "ResNet-50": (25.6, 8.2),
    "SSD-MobileNet": (6.91, 2.47),
    "SSD-ResNet34": (36.3, 433.0),
    "YOLOv8n": (3.2, 8.7),
    "YOLO11n": (2.6, 6.5),
    "YOLO11s": (9.4, 21.5),
    "YOLO11m": (20.1, 68.0),
    "YOLO11x": (56.9, 194.9),
}
