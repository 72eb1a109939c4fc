"""The bundle: a byte that changed is noticed, and nothing is half-written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgecnn.bundle import Bundle, ModelSpec, TensorSpec, atomic, check_outputs, stage_key
from edgecnn.errors import BundleError, InputError, ModelError

MODEL = ModelSpec(
    arch="roadnet",
    task="detect",
    classes=("car", "person"),
    input=TensorSpec("image", (1, 3, 64, 96)),
    outputs=(TensorSpec("boxes", (1, 126, 4)), TensorSpec("scores", (1, 126, 2))),
    decode="roadnet",
    strides=(8, 16, 32),
    mean=(128.0, 128.0, 128.0),
    widths={"stem": (3, 16)},
)


def staged(bundle: Bundle, stage: str, **facts: Any) -> Bundle:
    """A stage that writes its own name."""
    name = f"{stage}.bin"
    (bundle.path / name).write_text(stage, "utf-8")
    return bundle.with_stage(
        stage, settings={"of": stage}, version=1, files={stage: name}, facts=facts, tools={"python": "3"}, model=MODEL
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    made = Bundle(tmp_path, "tiny", settings={"run": {"score": 0.3}})
    for stage in ("train", "export", "quantize"):
        made = staged(made, stage)
    return made


def test_what_was_written_is_read(bundle: Bundle) -> None:
    assert Bundle.read(bundle.path) == bundle
    assert bundle.require_model() == MODEL
    assert (MODEL.height, MODEL.width) == (64, 96)
    assert bundle.file("export").read_text("utf-8") == "export"
    assert bundle.roles() == {"train", "export", "quantize"}
    assert bundle.has("quantize") and not bundle.has("engine")


def test_a_changed_byte_is_refused_before_the_file_is_opened(bundle: Bundle) -> None:
    (bundle.path / "export.bin").write_text("expert", "utf-8")
    assert not bundle.intact("export") and bundle.intact("train")
    with pytest.raises(BundleError, match=r"export\.bin was changed since it was made"):
        bundle.file("export")


def test_a_missing_file_and_a_missing_stage(bundle: Bundle) -> None:
    (bundle.path / "export.bin").unlink()
    assert not bundle.intact("export") and not bundle.intact("build")
    with pytest.raises(BundleError, match="is missing"):
        bundle.file("export")
    with pytest.raises(BundleError, match=r"holds no 'engine' file.*edgecnn build"):
        bundle.file("engine")


def test_a_truncated_manifest(bundle: Bundle) -> None:
    manifest = bundle.path / "manifest.json"
    text = manifest.read_text("utf-8")
    for length in (0, 1, len(text) // 2, len(text) - 1):
        manifest.write_text(text[:length], "utf-8")
        with pytest.raises(BundleError, match="is damaged"):
            Bundle.read(bundle.path)


@pytest.mark.parametrize(
    ("forge", "words"),
    [
        (lambda m: m["stages"]["export"]["files"].update(export=["export.bin", "0" * 64]), "was changed after"),
        (lambda m: m["model"].update(classes=["person", "car"]), "was changed after"),
        (lambda m: m.update(format=99), "has format 99"),
        (lambda m: m.pop("sha256"), "is damaged"),
    ],
)
def test_a_forged_manifest(bundle: Bundle, forge: Any, words: str) -> None:
    manifest = bundle.path / "manifest.json"
    data = json.loads(manifest.read_text("utf-8"))
    forge(data)
    manifest.write_text(json.dumps(data), "utf-8")
    with pytest.raises(BundleError, match=words):
        Bundle.read(bundle.path)


@pytest.mark.parametrize("text", ["[]", "null", "3", '"manifest"', "{}"])
def test_json_that_is_no_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text, "utf-8")
    with pytest.raises(BundleError, match="is damaged"):
        Bundle.read(tmp_path)


def test_a_manifest_names_no_file_outside_of_its_folder(bundle: Bundle) -> None:
    record = bundle.stages["export"]
    outside = replace(record, files={"export": ("../secret", "0" * 64)})
    replace(bundle, stages={**bundle.stages, "export": outside}).write()  # with a digest that agrees
    with pytest.raises(BundleError, match="outside of its folder"):
        Bundle.read(bundle.path)


def test_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"holds no manifest\.json"):
        Bundle.read(tmp_path)
    with pytest.raises(InputError, match="there is nothing at"):
        Bundle.read(tmp_path / "none")
    with pytest.raises(BundleError, match="has no model yet"):
        Bundle(tmp_path).require_model()


def test_a_stage_made_again_forgets_the_later_ones(bundle: Bundle) -> None:
    again = staged(bundle, "export")
    assert list(again.stages) == ["train", "export"]
    assert not again.has("quantize")
    assert Bundle.read(bundle.path) == again


def test_a_stage_finds_the_model_as_the_one_before_left_it(bundle: Bundle) -> None:
    slimmer = replace(MODEL, widths={"stem": (3, 8)})
    (bundle.path / "slim.bin").write_text("slim", "utf-8")
    slim = bundle.with_stage(
        "slim", settings={}, version=1, files={"slim": "slim.bin"}, facts={}, tools={}, model=slimmer
    )
    assert slim.require_model().widths == {"stem": (3, 8)}
    assert slim.before("export").require_model().widths == {"stem": (3, 8)}
    assert slim.before("slim").require_model().widths == {"stem": (3, 16)}
    assert slim.before("train").model is None


def test_a_key_follows_parent_settings_and_version(bundle: Bundle) -> None:
    assert bundle.stages["quantize"].parent == bundle.stages["export"].key
    assert bundle.parent_key("build") == bundle.stages["quantize"].key
    assert bundle.parent_key("train") == ""
    keys = [
        stage_key("", {"a": 1}, 1),
        stage_key("x", {"a": 1}, 1),
        stage_key("", {"a": 2}, 1),
        stage_key("", {"a": 1}, 2),
    ]
    assert len(set(keys)) == 4
    assert stage_key("", {"a": 1, "b": Path("x")}, 1) == stage_key("", {"b": Path("x"), "a": 1}, 1)


def test_an_atomic_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    target.write_text("old", "utf-8")
    with pytest.raises(RuntimeError, match="halfway"), atomic(target) as temporary:
        temporary.write_text("new", "utf-8")
        raise RuntimeError("halfway")
    assert target.read_text("utf-8") == "old"
    assert list(tmp_path.iterdir()) == [target]
    with atomic(target) as temporary:
        temporary.write_text("new", "utf-8")
    assert target.read_text("utf-8") == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("decode", "shapes", "fits"),
    [  # 64x96 at strides 8, 16, 32: 8*12 + 4*6 + 2*3 = 126 cells
        ("roadnet", {"boxes": (1, 126, 4), "scores": (1, 126, 2)}, True),
        ("roadnet", {"boxes": (1, 126, 4), "scores": (1, 126, 3)}, False),
        ("roadnet", {"boxes": (1, 126, 4)}, False),
        ("yolox", {"output": (1, 126, 7)}, True),
        ("yolox", {"output": (1, 125, 7)}, False),
        ("logits", {"logits": (1, 2)}, True),
        ("logits", {"logits": (1, 1000)}, False),
    ],
)
def test_outputs_are_held_against_the_decoder(decode: Any, shapes: dict[str, tuple[int, ...]], fits: bool) -> None:
    model = replace(MODEL, decode=decode)
    if fits:
        check_outputs(model, shapes)
        return
    with pytest.raises(ModelError, match=f"for decoder '{decode}'"):
        check_outputs(model, shapes)
