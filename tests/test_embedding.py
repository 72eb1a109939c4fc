"""A network that answers with a vector: taken in, quantised, checked by likeness, refused where a task needs more."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import helper
from tiny_onnx import SHAPE, Sketch

from edgecnn.bench import bench
from edgecnn.bundle import Bundle, check_outputs
from edgecnn.check import check
from edgecnn.compile import compile_recipe
from edgecnn.data import open_dataset
from edgecnn.errors import InputError, ModelError
from edgecnn.metrics.likeness import likeness
from edgecnn.quantize.audit import audit
from edgecnn.recipe import DataSection
from edgecnn.run import RunSettings
from edgecnn.run.loop import Pipeline
from edgecnn.sense import sense

LENGTH = 6


def embedding() -> onnx.ModelProto:
    s = Sketch(4)
    wide = s.relu(s.conv("x", "first", 16, 3, stride=2))
    wide = s.relu(s.conv(wide, "second", 16, 16))
    flat = s.node("Flatten", [s.node("GlobalAveragePool", [wide], "gap")], "flat")
    s.node("Gemm", [flat, s.weight("fc.w", 16, LENGTH), s.weight("fc.b", LENGTH)], "fc")
    return s.model({"fc": [1, LENGTH]})


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty of one colour each, and noise."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i, colour in enumerate(random.uniform(40, 215, (20, 3))):
        bgr = np.clip(colour + random.normal(0, 12, (*SHAPE[2:], 3)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{i:02}.png"), bgr)
    return folder


@pytest.fixture(scope="module")
def bundle(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("recipe")
    onnx.save(embedding(), folder / "net.onnx")
    data = {"kind": "folder", "path": str(pictures)}
    model = {"onnx": "net.onnx", "decode": "embedding", "height": SHAPE[2], "width": SHAPE[3], "fit": "stretch"}
    model |= {"mean": [127.5] * 3, "std": [60.0] * 3}
    check = {"data": data, "gates": {"cosine": 0.99}}
    recipe = {"name": "alike", "model": model, "quantize": {"data": data}, "check": check, "build": None}
    (folder / "r.yaml").write_text(json.dumps(recipe))
    return compile_recipe(folder / "r.yaml", folder / "b").bundle


def test_likeness_by_hand() -> None:
    """In the plane, at 0, 10 and 50 degrees. The first turned to 40: it and the third are then nearest neighbours."""

    def at(*degrees: float) -> np.ndarray:
        turned = np.radians(degrees)
        return np.stack([np.cos(turned), np.sin(turned)], 1)

    wanted = at(0, 10, 50)
    assert likeness(7 * wanted, wanted) == pytest.approx({"cosine": 1.0, "nearest": 1.0})
    moved = likeness(at(40, 10, 50), wanted)  # the second's nearest is still the first
    assert moved == pytest.approx({"cosine": (np.cos(np.radians(40)) + 2) / 3, "nearest": 1 / 3})
    assert likeness(wanted[:2], wanted[:2]) == pytest.approx({"cosine": 1.0})
    assert likeness(0 * wanted, wanted)["cosine"] == 0
    for shapes in (((0, 3), (0, 3)), ((2, 3), (3, 3)), ((3,), (3,))):
        with pytest.raises(InputError, match="vectors of shape"):
            likeness(*map(np.ones, shapes))


def test_it_is_checked_by_its_likeness_to_fp32(bundle: Bundle) -> None:
    model = bundle.require_model()
    assert (model.task, model.classes, model.decode) == ("embed", (), "embedding")
    report = check(bundle)
    assert report.samples == 20 and report.figures["fp32"] == pytest.approx({"cosine": 1, "nearest": 1})
    assert report.ok and 0.99 < report.figures["int8"]["cosine"] < 1


def test_its_calibration_is_audited_without_classes(bundle: Bundle, pictures: Path) -> None:
    found = audit(bundle, open_dataset(DataSection(kind="folder", path=pictures)), None)
    told = {check.name: check for check in found.checks}
    assert "tells none" in told["classes"].saw and "names nothing" in told["preprocess"].saw


def test_it_is_timed_like_a_classifier(bundle: Bundle, pictures: Path) -> None:
    assert set(bench(bundle, str(pictures), frames=10)["lanes"]) >= {"fp32", "int8"}


def test_a_task_that_needs_answers_refuses_it(bundle: Bundle) -> None:
    with pytest.raises(ModelError, match="never right or wrong"):
        sense(bundle)
    with pytest.raises(ModelError, match="'embed'; wanted a detector"):
        Pipeline(bundle.require_model(), lambda _feeds: {}, RunSettings(), fps=25)


@pytest.mark.parametrize("shapes", [{}, {"a": (1, 6), "b": (1, 6)}, {"a": (1, 6, 1, 1)}, {"a": (6,)}, {"a": (2, 6)}])
def test_one_vector_and_nothing_else(bundle: Bundle, shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ModelError, match="decoder 'embedding'"):
        check_outputs(bundle.require_model(), shapes)
    check_outputs(bundle.require_model(), {"a": (1, 2048)})


def test_a_vector_still_shaped_as_a_picture_is_refused(tmp_path: Path) -> None:
    """Who exports without the flatten is told which shape is wanted."""
    model = embedding()
    del model.graph.node[-2:]
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("gap", onnx.TensorProto.FLOAT, [1, 16, 1, 1]))
    onnx.save(model, tmp_path / "net.onnx")
    recipe = {"name": "a", "model": {"onnx": "net.onnx", "decode": "embedding", "height": 32, "width": 48}}
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    with pytest.raises(ModelError, match=r"wanted \[\(1, 16\)\]"):
        compile_recipe(tmp_path / "r.yaml", tmp_path / "b", until="export")
