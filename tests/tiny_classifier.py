"""A classifier of a few bytes: it names the colour of a picture by the means of its channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgecnn.bundle import Bundle, ModelSpec, TensorSpec

SIDE = 16
COLOURS = ("blue", "green", "red")
SPEC = ModelSpec(
    arch="onnx",
    task="classify",
    classes=COLOURS,
    input=TensorSpec("picture", (1, 3, SIDE, SIDE)),
    outputs=(TensorSpec("logits", (1, 3)),),
    decode="logits",
    fit="crop",
)


def make_classifier(folder: Path) -> Bundle:
    """Logits (1, 3) = the means of B, G and R, divided by 10."""
    folder.mkdir(parents=True, exist_ok=True)
    nodes = [
        helper.make_node("GlobalAveragePool", ["picture"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["means"]),
        helper.make_node("Mul", ["means", "tenth"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, (1, 3, SIDE, SIDE))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 3))],
        [numpy_helper.from_array(np.array(0.1, np.float32), "tenth")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "model.onnx")
    return Bundle(folder, "colours").with_stage(
        "export", settings={}, version=1, files={"fp32": "model.onnx"}, facts={}, tools={}, model=SPEC
    )
