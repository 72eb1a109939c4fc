"""The recipe: what it refuses, in which words, and that every shipped one loads."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from edgecnn.errors import InputError, RecipeError
from edgecnn.recipe import Arch, DataSection, ModelSection, load
from edgecnn.zoo import NAMES

ROOT = Path(__file__).resolve().parents[1]
GOOD = "name: tiny\nmodel: {arch: lenet5}\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD + "trian: {epochs: 1}\n", ["unknown key 'trian'", "did you mean 'train'?"]),
        (GOOD + "train: {epoch: 1}\n", ["unknown key 'train.epoch'", "did you mean 'epochs'?"]),
        (
            GOOD + "slim: {steps: [{finetune: {epoch: 1}}]}\n",
            ["unknown key 'slim.steps.0.finetune.epoch'", "did you mean 'epochs'?"],
        ),
        (
            GOOD + "quantize: {data: {pictres: 3}}\n",
            ["'quantize.data.pictres'", "did you mean 'pictures'?"],
        ),
        (GOOD + "run: {xyz: 1}\n", ["unknown key 'run.xyz'", "known: score, iou"]),
        (GOOD + "train: {epochs: -1}\n", ["key 'train.epochs'", "came: -1"]),
        (GOOD + "train: {lr: fast}\n", ["key 'train.lr'", "came: 'fast'"]),
        (GOOD + "quantize: {bins: 128}\n", ["key 'quantize.bins'", "2048", "came: 128"]),
        (GOOD + "train: {data: {kind: coco}}\n", ["key 'train.data'", "needs a path"]),
        (GOOD + "train: {data: {kind: sim, path: x}}\n", ["key 'train.data'", "takes no path"]),
        ("name: tiny\nmodel: {arch: alexnett}\n", ["key 'model.arch'", "did you mean 'alexnet'?", "came: 'alexnett'"]),
        ("name: tiny\nmodel: {arch: lenet5, onnx: a.onnx}\n", ["either `arch`", "or `onnx`"]),
        ("name: tiny\nmodel: {onnx: a.onnx}\n", ["`onnx` needs `decode`"]),
        ("name: tiny\n", ["key 'model' is missing"]),
        ("name: [tiny\n", ["line 2 is not YAML"]),
        ("- a\n- b\n", ["holds list"]),
        ("", ["holds nothing"]),
    ],
)
def test_a_wrong_recipe_is_one_line_that_names_the_key(tmp_path: Path, text: str, words: list[str]) -> None:
    path = written(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        load(path)
    line = str(caught.value)
    assert "\n" not in line and str(path) in line
    for word in words:
        assert word in line


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(RecipeError, match="is not YAML"):
        load(path)


def test_a_missing_recipe_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(InputError, match="no recipe at"):
            load(path)


def test_relative_paths_count_from_the_recipes_folder(tmp_path: Path) -> None:
    recipe = load(
        written(
            tmp_path,
            "name: mine\nmodel: {onnx: nets/a.onnx, decode: yolox}\n"
            "check: {data: {kind: coco, path: /data/coco}, baseline: base.json}\n",
        )
    )
    assert recipe.model.onnx == tmp_path / "nets" / "a.onnx"
    assert recipe.check.baseline == tmp_path / "base.json"
    assert recipe.check.data.path == Path("/data/coco")
    assert load(written(tmp_path, GOOD + "train: {epochs: 3}\n")).train.epochs == 3


def test_a_yaml_tag_builds_nothing(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is not YAML"):
        load(written(tmp_path, "name: !!python/object/apply:os.getcwd []\nmodel: {arch: lenet5}\n"))


def test_every_shipped_recipe_loads() -> None:
    recipes = sorted((ROOT / "recipes").rglob("*.yaml"))
    assert "adas.yaml" in [path.name for path in recipes]
    for path in recipes:
        assert load(path).name


def test_the_recipe_and_the_zoo_know_the_same_networks() -> None:
    assert set(get_args(Arch)) == set(NAMES)


def test_imagenet_stands_for_its_thousand_classes() -> None:
    classes = ModelSection(arch="resnet18", classes="imagenet").classes  # type: ignore[arg-type]
    assert len(set(classes)) == 1000
    # known rows of public checkpoints: the first, goldfish, tabby, sports car, the last
    assert [classes[i] for i in (0, 1, 281, 817, 999)] == ["tench", "goldfish", "tabby", "sports car", "toilet tissue"]


def test_pictures_to_train_on_serve_where_no_others_are_named(tmp_path: Path) -> None:
    text = (
        GOOD
        + """
train: {data: {kind: sim_crops, seed: 5, pictures: 300}}
slim: {steps: [{prune: {macs: 0.3}}, {finetune: {epochs: 1}}, {finetune: {data: {kind: sim, seed: 9}}}]}
quantize: {data: {kind: sim, seed: 8}}
"""
    )
    recipe = load(written(tmp_path, text))
    assert recipe.slim is not None and recipe.slim.steps[0].prune is not None
    first, second = recipe.slim.steps[1].finetune, recipe.slim.steps[2].finetune
    assert first is not None and second is not None
    assert recipe.slim.steps[0].prune.data == DataSection(kind="sim_crops", seed=5, pictures=64)
    assert first.data == recipe.train.data and second.data == DataSection(kind="sim", seed=9)
    assert recipe.export.compare == DataSection(kind="sim_crops", seed=5, pictures=4)
    assert recipe.quantize.data == DataSection(kind="sim", seed=8)
    assert load(written(tmp_path, GOOD)).quantize.data == DataSection(seed=9200, pictures=64)
