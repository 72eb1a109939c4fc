"""A detector of a few bytes: every 8x8 cell that is bright is a `lamp`, 16 px square. Its answers can be worked out by
hand, so tests can hold the whole loop against them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgecnn.bundle import Bundle, ModelSpec, TensorSpec

HEIGHT, WIDTH, STRIDE = 64, 96, 8
CELLS = (HEIGHT // STRIDE) * (WIDTH // STRIDE)
SIDE = 16.0  # px, of every box
CLASSES = ("lamp", "never")
MODEL = ModelSpec(
    arch="onnx",
    task="detect",
    classes=CLASSES,
    input=TensorSpec("images", (1, 3, HEIGHT, WIDTH)),
    outputs=(TensorSpec("boxes", (1, CELLS, 4)), TensorSpec("scores", (1, CELLS, 2))),
    decode="roadnet",
    strides=(STRIDE,),
    pad=0,
)


def write_network(path: Path, *, input_name: str = "images", width: int = WIDTH) -> None:
    """boxes (1, A, 4) = (.5, .5, ln 2, ln 2); scores (1, A, 2) = sigmoid of the cell's mean brightness, and 0."""
    cells = (HEIGHT // STRIDE) * (width // STRIDE)
    weight = np.zeros((6, 3, 1, 1), np.float32)
    weight[4] = 1 / 30
    bias = np.array([0.5, 0.5, np.log(SIDE / STRIDE), np.log(SIDE / STRIDE), -10, -20], np.float32)
    arrays = {
        "weight": weight,
        "bias": bias,
        "shape": np.array([1, 6, -1]),
        "split": np.array([4, 2]),
    }
    nodes = [
        helper.make_node("AveragePool", [input_name], ["mean"], kernel_shape=[STRIDE] * 2, strides=[STRIDE] * 2),
        helper.make_node("Conv", ["mean", "weight", "bias"], ["maps"]),
        helper.make_node("Reshape", ["maps", "shape"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["cells"], perm=[0, 2, 1]),
        helper.make_node("Split", ["cells", "split"], ["boxes", "raw"], axis=2),
        helper.make_node("Sigmoid", ["raw"], ["scores"]),
    ]

    def value(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes,
        "lamps",
        [value(input_name, (1, 3, HEIGHT, width))],
        [value("boxes", (1, cells, 4)), value("scores", (1, cells, 2))],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def make_bundle(folder: Path, *, int8: bool = False) -> Bundle:
    """A bundle with the network as fp32; `int8` adds it once more under that role, to try the plumbing."""
    folder.mkdir(parents=True, exist_ok=True)
    write_network(folder / "model.onnx")
    bundle = Bundle(folder, "lamps").with_stage(
        "export", settings={}, version=1, files={"fp32": "model.onnx"}, facts={}, tools={}, model=MODEL
    )
    if int8:
        shutil.copy(folder / "model.onnx", folder / "model.int8.cpu.onnx")
        bundle = bundle.with_stage(
            "quantize", settings={}, version=1, files={"int8_cpu": "model.int8.cpu.onnx"}, facts={}, tools={}
        )
    return bundle


def lamp_picture(column: int, row: int) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) uint8: a textured dark ground, and the cell at (column, row) lit."""
    bgr = np.random.default_rng(0).integers(0, 90, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    bgr[row * STRIDE : (row + 1) * STRIDE, column * STRIDE : (column + 1) * STRIDE] = 250
    return bgr


def lamp_box(column: int, row: int) -> np.ndarray:
    """xyxy of the one detection in such a picture, px."""
    x, y = (column + 0.5) * STRIDE, (row + 0.5) * STRIDE
    return np.array([x - SIDE / 2, y - SIDE / 2, x + SIDE / 2, y + SIDE / 2], np.float32)
