"""Export: zoo models agree with torch; a user's network is taken in only if it fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper
from pydantic import ValidationError

from edgecnn import zoo
from edgecnn.errors import EdgecnnError, InputError, ModelError
from edgecnn.export import take_in, write
from edgecnn.recipe import ModelSection

LARGE = {name for name, entry in zoo.MODELS.items() if entry.parameters > 30_000_000 or name in ("zfnet", "vgg16c")}


@pytest.mark.parametrize("arch", [pytest.param(n, marks=[pytest.mark.slow] if n in LARGE else []) for n in zoo.NAMES])
def test_onnx_answers_as_torch_does(arch: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = zoo.spec_for(ModelSection(arch=arch))
    net = zoo.build(spec)
    write(net, spec, tmp_path / "net.onnx", 17)
    model = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert not [n for n in model.graph.node if n.op_type == "BatchNormalization"]  # folded
    x = np.random.default_rng(0).normal(0, 1, spec.input.shape).astype(np.float32)
    answers = ort.InferenceSession(tmp_path / "net.onnx").run(None, {spec.input.name: x})
    with torch.no_grad():
        wanted = net(torch.from_numpy(x))
    for a, b in zip(answers, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=1e-4, rtol=1e-4)


def classifier(shape: tuple[int | str, ...] = (1, 3, 8, 8), classes: int = 4, kind: int = TensorProto.FLOAT) -> bytes:
    weight = helper.make_tensor("w", TensorProto.FLOAT, (classes, 3, 8, 8), [0.1] * (classes * 192))
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Flatten", ["c"], ["y"])]
    batch = shape[0]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (batch, classes))],
        [weight],
    )
    data: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    return data


def section(path: Path, **changes: object) -> ModelSection:
    return ModelSection.model_validate({"onnx": path, "decode": "logits", "height": 8, "width": 8, **changes})


def test_a_users_network_is_taken_in(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(classifier())
    _, spec = take_in(section(tmp_path / "net.onnx"))
    assert (spec.arch, spec.task, spec.input.shape, spec.outputs[0].shape) == ("onnx", "classify", (1, 3, 8, 8), (1, 4))


def test_open_axes_take_the_recipes_size(tmp_path: Path) -> None:
    """Flattening by a shape that the graph computes: Shape → Gather → Concat → Reshape, as exporters write it."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, (4, 3, 8, 8), [0.1] * 768)
    zero, rest = (helper.make_tensor(name, TensorProto.INT64, (1,), [v]) for name, v in (("zero", 0), ("rest", -1)))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Shape", ["c"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["flat"], axis=0),
        helper.make_node("Reshape", ["c", "flat"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3, -1, "w"))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", "m"))
    graph = helper.make_graph(nodes, "g", [x], [y], [weight, zero, rest])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "net.onnx")
    model, spec = take_in(section(tmp_path / "net.onnx"))
    assert (spec.input.shape, spec.outputs[0].shape) == ((1, 3, 8, 8), (1, 4))
    assert [node.op_type for node in model.graph.node] == ["Conv", "Reshape"]
    assert {t.name for t in model.graph.initializer} == {"w", "flat"}
    feed = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    before, after = (
        ort.InferenceSession(m).run(None, {"x": feed})[0]
        for m in ((tmp_path / "net.onnx").read_bytes(), model.SerializeToString())
    )
    np.testing.assert_array_equal(before, after)
    assert take_in(section(tmp_path / "net.onnx"))[0] == model


def test_a_vector_is_an_embedding_of_any_length(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(classifier(classes=7))
    _, spec = take_in(section(tmp_path / "net.onnx", decode="embedding"))
    assert (spec.task, spec.classes, spec.strides, spec.outputs[0].shape) == ("embed", (), (), (1, 7))
    with pytest.raises(ValidationError, match="takes no `classes`"):
        section(tmp_path / "net.onnx", decode="embedding", classes=["a"])


@pytest.mark.parametrize(
    ("data", "changes", "kind", "text"),
    [
        (b"", {}, InputError, "no sound ONNX"),
        (b"just some text", {}, InputError, "no sound ONNX"),
        (classifier()[:-300], {}, InputError, "no sound ONNX"),
        (classifier(("batch", 3, 8, 8)), {"height": None}, ModelError, "dynamic shape"),
        (classifier(("batch", 3, 8, 8)), {"height": 16}, ModelError, "height and model.width"),
        (classifier(classes=7), {}, ModelError, r"\(1, 7\)"),
        (classifier(), {"width": 16}, ModelError, "height and model.width"),
        (classifier(), {"decode": "yolox"}, ModelError, "'yolox'"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(
    data: bytes, changes: dict[str, object], kind: type[EdgecnnError], text: str, tmp_path: Path
) -> None:
    (tmp_path / "net.onnx").write_bytes(data)
    with pytest.raises(kind, match=text) as caught:
        take_in(section(tmp_path / "net.onnx", **changes))
    assert "\n" not in str(caught.value)
