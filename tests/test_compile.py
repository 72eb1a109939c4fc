"""The stage driver, with stages that only write a file: what runs again, what does not, and what is left behind."""

from __future__ import annotations

import fcntl
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgecnn import compile as driver
from edgecnn.bundle import Bundle, ModelSpec, TensorSpec, atomic
from edgecnn.compile import compile_recipe
from edgecnn.errors import BundleError, ModelError, RecipeError
from edgecnn.recipe import Recipe

MODEL = ModelSpec("lenet5", "classify", ("a", "b"), TensorSpec("image", (1, 1, 32, 32)), widths={"c1": (1, 6)})
TEXT = "name: tiny\nmodel: {arch: lenet5}\ntrain: {epochs: 1}\nslim: {steps: [{prune: {macs: 0.5}}]}\n"


class FakeStage:
    """Depends on its own recipe section; writes that section and the width it found."""

    VERSION = 1

    def __init__(self, name: str, runs: list[str]) -> None:
        self.name, self.runs, self.fails = name, runs, False

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        section = getattr(recipe, self.name)
        return {} if section is None else section.model_dump(mode="json")

    def run_stage(self, bundle: Bundle, recipe: Recipe) -> Bundle:
        self.runs.append(self.name)
        model = MODEL if self.name == "train" else bundle.require_model()
        if self.name == "slim":
            model = replace(model, widths={"c1": (1, model.widths["c1"][1] // 2)})
        with atomic(bundle.path / f"{self.name}.json") as temporary:
            temporary.write_text(json.dumps({"settings": self.settings(recipe), **model.widths}), "utf-8")
            if self.fails:
                raise ModelError("the network does not fit")
        return bundle.with_stage(
            self.name,
            settings=self.settings(recipe),
            version=self.VERSION,
            files={self.name: f"{self.name}.json"},
            facts={"width": model.widths["c1"][1]},
            tools={},
            model=model,
        )


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages that ran, in order."""
    ran: list[str] = []
    stages = {name: FakeStage(name, ran) for name in driver.STAGES}
    monkeypatch.setattr(driver, "_module", stages.__getitem__)
    return ran


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TEXT, "utf-8")
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "tiny.bundle"


def test_all_stages_run_once(recipe: Path, out: Path, runs: list[str]) -> None:
    done = compile_recipe(recipe, out)
    assert runs == ["train", "slim", "export", "quantize", "build"]
    assert [step.outcome for step in done.steps] == ["made"] * 5
    assert Bundle.read(out) == done.bundle
    assert done.bundle.settings["run"]["detect_every"] == 3
    assert all(record.facts["stage_seconds"] >= 0 for record in done.bundle.stages.values())
    runs.clear()
    before = (out / "manifest.json").stat().st_mtime_ns
    again = compile_recipe(recipe, out)
    assert runs == [] and [step.outcome for step in again.steps] == ["kept"] * 5
    assert (out / "manifest.json").stat().st_mtime_ns == before
    assert again.bundle == done.bundle


def test_up_to_a_stage(recipe: Path, out: Path, runs: list[str]) -> None:
    compile_recipe(recipe, out, until="export")
    assert runs == ["train", "slim", "export"]
    compile_recipe(recipe, out)
    assert runs == ["train", "slim", "export", "quantize", "build"]
    compile_recipe(recipe, out, until="train")  # an earlier stage that is as it was loses nothing
    assert len(Bundle.read(out).stages) == 5


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ("export: {opset: 18}\n", ["export", "quantize", "build"]),
        ("quantize: {bins: 8192}\n", ["quantize", "build"]),
        ("build: {workspace_mib: 64}\n", ["build"]),
        ("run: {score: 0.5}\n", []),
    ],
)
def test_a_changed_section_runs_its_stage_and_the_later_ones(
    recipe: Path, out: Path, runs: list[str], change: str, again: list[str]
) -> None:
    compile_recipe(recipe, out)
    runs.clear()
    recipe.write_text(TEXT + change, "utf-8")
    compile_recipe(recipe, out)
    assert runs == again


def test_run_and_check_defaults_follow_the_recipe_without_a_stage(recipe: Path, out: Path, runs: list[str]) -> None:
    compile_recipe(recipe, out)
    recipe.write_text(TEXT + "run: {score: 0.5}\n", "utf-8")
    compile_recipe(recipe, out)
    assert Bundle.read(out).settings["run"]["score"] == 0.5


def test_a_changed_byte_is_noticed_and_said(
    recipe: Path, out: Path, runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    compile_recipe(recipe, out)
    runs.clear()
    whole = (out / "export.json").read_bytes()
    (out / "export.json").write_bytes(b"?" + whole[1:])
    capsys.readouterr()
    compile_recipe(recipe, out)
    assert runs == ["export", "quantize", "build"]
    assert "export: a file was changed or lost since it was made (export.json)" in capsys.readouterr().err
    assert (out / "export.json").read_bytes() == whole


def test_a_new_version_of_a_stages_code(
    recipe: Path, out: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_recipe(recipe, out)
    runs.clear()
    monkeypatch.setattr(driver._module("quantize"), "VERSION", 2)
    compile_recipe(recipe, out)
    assert runs == ["quantize", "build"]


def test_a_damaged_manifest_is_said_and_everything_made_again(
    recipe: Path, out: Path, runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    compile_recipe(recipe, out)
    runs.clear()
    (out / "manifest.json").write_text("{", "utf-8")
    compile_recipe(recipe, out)
    assert len(runs) == 5 and "is damaged" in capsys.readouterr().err


def test_a_stage_that_fails_leaves_the_bundle_as_it_was(
    recipe: Path, out: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = compile_recipe(recipe, out)
    recipe.write_text(TEXT + "export: {opset: 18}\n", "utf-8")
    monkeypatch.setattr(driver._module("export"), "fails", True)
    with pytest.raises(ModelError):
        compile_recipe(recipe, out)
    left = Bundle.read(out)
    assert left.stages == done.bundle.stages and all(left.intact(stage) for stage in left.stages)
    assert not [p.name for p in out.iterdir() if p.name.startswith(".") and p.name != ".lock"]


def test_a_recipe_that_loses_a_stage_gets_the_model_of_the_one_before(recipe: Path, out: Path, runs: list[str]) -> None:
    assert compile_recipe(recipe, out).bundle.require_model().widths == {"c1": (1, 3)}
    recipe.write_text(TEXT.replace("slim: {steps: [{prune: {macs: 0.5}}]}\n", ""), "utf-8")
    runs.clear()
    done = compile_recipe(recipe, out).bundle
    assert runs == ["export", "quantize", "build"] and "slim" not in done.stages
    assert done.require_model().widths == {"c1": (1, 6)}


def test_slimming_again_starts_from_the_whole_network(recipe: Path, out: Path, runs: list[str]) -> None:
    compile_recipe(recipe, out)
    recipe.write_text(TEXT.replace("0.5", "0.6"), "utf-8")
    assert compile_recipe(recipe, out).bundle.require_model().widths == {"c1": (1, 3)}


@pytest.mark.parametrize(
    ("text", "stages", "refused"),
    [
        ("name: a\nmodel: {arch: lenet5}\nbuild: null\n", ["train", "export", "quantize"], "slim"),
        ("name: a\nmodel: {onnx: a.onnx, decode: yolox}\n", ["export", "quantize", "build"], "train"),
    ],
)
def test_stages_that_a_recipe_does_not_have(
    recipe: Path, out: Path, runs: list[str], text: str, stages: list[str], refused: str
) -> None:
    recipe.write_text(text, "utf-8")
    with pytest.raises(RecipeError, match=f"{refused}.*its stages are {', '.join(stages)}"):
        compile_recipe(recipe, out, until=refused)
    assert not out.exists()
    assert driver.planned(driver.load(recipe)) == stages


def test_two_compiles_in_one_folder(recipe: Path, out: Path, runs: list[str]) -> None:
    compile_recipe(recipe, out)
    with (out / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BundleError, match="another compile is at work"):
            compile_recipe(recipe, out)
    compile_recipe(recipe, out)


def test_a_folder_that_holds_something_else(recipe: Path, out: Path, runs: list[str]) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("mine", "utf-8")
    with pytest.raises(BundleError, match="is not empty and holds no bundle"):
        compile_recipe(recipe, out)
    assert [p.name for p in out.iterdir()] == ["thesis.tex"]
    with pytest.raises(BundleError, match="is a file"):
        compile_recipe(recipe, out / "thesis.tex")


def test_what_a_killed_compile_left_behind_is_swept_away(recipe: Path, out: Path, runs: list[str]) -> None:
    compile_recipe(recipe, out)
    left = out / ".model.onnx.k2x9q1ab.onnx"  # as `atomic` names them
    left.write_bytes(b"half a network")
    compile_recipe(recipe, out)
    assert not left.exists() and (out / ".lock").exists()
    assert Bundle.read(out).stages.keys() >= {"train"}
