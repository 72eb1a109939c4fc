"""Sweeps: the keys that may be set, what a cell leaves, what is kept, and workers that die."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgecnn import cli
from edgecnn.bundle import Bundle
from edgecnn.compile import compile_recipe, final_key
from edgecnn.errors import InputError, RecipeError
from edgecnn.overrides import load_with, parse, parse_all
from edgecnn.recipe import DataSection, dumped, load
from edgecnn.sweep import plan, sweep
from edgecnn.workers import Workers

ROOT = Path(__file__).resolve().parents[1]
Drawn = Callable[[int], DataSection]


@pytest.fixture
def recipe(tmp_path: Path, dark_and_light: Drawn) -> Path:
    """LeNet-5 on two grey levels, without an engine: a cell takes a second."""
    data = dark_and_light(12).model_dump(mode="json", exclude_unset=True)
    text = {
        "name": "tiny",
        "model": {"arch": "lenet5", "classes": ["dark", "light"]},
        "train": {"data": data, "epochs": 1, "batch": 8},
        "slim": {"steps": [{"prune": {"macs": 0.1, "criterion": "magnitude", "round_to": 2}}]},
        "build": None,
        "check": {"data": data},
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(text), "utf-8")
    return path


# keys and values


@pytest.mark.parametrize(
    ("text", "key", "values"),
    [
        ("train.lr=0.01,0.02", "train.lr", [0.01, 0.02]),
        ("seed=0", "seed", [0]),
        ("build=null", "build", [None]),
        ("train.schedule=cosine, plateau", "train.schedule", ["cosine", "plateau"]),
        ("model.classes=[a, b],[c]", "model.classes", [["a", "b"], ["c"]]),
    ],
)
def test_values_are_yaml(text: str, key: str, values: list[Any]) -> None:
    assert parse(text) == (key, values)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["train.lr"], "--set train.lr; wanted KEY=VALUE"),
        (["=3"], "wanted KEY=VALUE"),
        (["train.lr="], "wanted KEY=VALUE"),
        (["train.lr=[1"], "not YAML"),
        (["seed=1,2,1"], "names 1 twice"),
        (["seed=1", "seed=2"], "names seed twice"),
    ],
)
def test_what_sets_nothing_is_refused(texts: list[str], words: str) -> None:
    with pytest.raises(RecipeError, match=words.replace("[", r"\[")) as error:
        parse_all(texts)
    assert "\n" not in str(error.value)


def test_a_key_is_the_way_to_its_place(recipe: Path) -> None:
    changes = {
        "train.lr": 0.5,
        "slim.steps.0.prune.macs": 0.3,
        "quantize.ranges": "max",
        "quantize.qat.epochs": 2,
        "check.gates.top1": 0.5,
        "check.gates.car/AP50.x": 0.1,
        "model.classes.1": "lamp",
    }
    found = load_with(recipe, changes)
    assert found.slim and found.slim.steps[0].prune and found.quantize.qat
    assert (found.train.lr, found.slim.steps[0].prune.macs, found.quantize.qat.epochs) == (0.5, 0.3, 2)
    assert found.quantize.ranges == {"default": "max"} and found.model.classes == ("dark", "lamp")
    assert found.check.gates == {"top1": 0.5, "car/AP50.x": 0.1}
    assert found.train.epochs == 1  # what is not set stays


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("train.lrr", 1, ["unknown key 'train.lrr'", "Did you mean 'train.lr'"]),
        ("macs", 0.3, ["unknown key 'macs'", "'slim.steps.0.prune.macs'"]),
        ("slim.0.macs", 0.3, ["unknown key 'slim.0.macs'", "'slim.steps.0.prune.macs'"]),
        ("slim.steps.1.prune.macs", 0.3, ["unknown key 'slim.steps.1.prune.macs'", "'slim.steps.0.prune.macs'"]),
        ("train.lr", "fast", ["key 'train.lr'", "came: 'fast'"]),
        ("train.epochs", -1, ["key 'train.epochs'", "came: -1"]),
    ],
)
def test_an_unknown_key_names_near_ones(recipe: Path, key: str, value: Any, words: list[str]) -> None:
    with pytest.raises(RecipeError) as error:
        load_with(recipe, {key: value})
    line = str(error.value)
    assert "\n" not in line and str(recipe) in line and all(word in line for word in words)


def test_one_seed_is_that_of_every_training_that_names_none(recipe: Path) -> None:
    raw = yaml.safe_load(recipe.read_text("utf-8"))
    raw["slim"]["steps"] += [{"finetune": {}}, {"finetune": {"seed": 5}}, {"search": {"drop": 0.1}}]
    raw["slim"]["steps"][0]["prune"]["between"] = {"epochs": 1}
    recipe.write_text(yaml.safe_dump({**raw, "quantize": {"qat": {}}}), "utf-8")
    found = load_with(recipe, {"seed": 7})
    assert found.slim and found.quantize.qat
    pruned, tuned, own, search = (getattr(s, s.model_fields_set.copy().pop()) for s in found.slim.steps)
    seeds = (found.train.seed, pruned.between.seed, tuned.seed, own.seed, search.seed, search.tune.seed)
    assert seeds == (7, 7, 7, 5, 7, 7) and found.quantize.qat.seed == 7
    assert load(recipe).train.seed == 0


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/**/*.yaml")), ids=lambda p: p.stem)
def test_a_recipe_written_down_again_is_the_same(path: Path, tmp_path: Path) -> None:
    if "scenarios" in path.parts:
        return
    (tmp_path / "again.yaml").write_text(dumped(load(path)), "utf-8")
    assert load(tmp_path / "again.yaml") == load(path)


# the plan


def test_cells_are_every_combination_in_order(recipe: Path) -> None:
    cells = plan([recipe], {"seed": [0, 1], "train.lr": [0.1, 0.2]})
    assert [cell.name for cell in cells] == [f"tiny-seed={s}-train.lr={lr}" for s in (0, 1) for lr in (0.1, 0.2)]
    assert [yaml.safe_load(cell.text)["train"]["lr"] for cell in cells] == [0.1, 0.2, 0.1, 0.2]


def test_names_of_folders_are_safe_and_differ(recipe: Path) -> None:
    values = ["../../a", "../..|a", "a" * 300, "a" * 299 + "b"]
    names = [cell.name for cell in plan([recipe], {"check.baseline": values})]
    assert len(set(names)) == 4 and all("/" not in name and len(name) < 140 for name in names)


def test_cells_that_would_be_the_same_are_refused(recipe: Path) -> None:
    raw = yaml.safe_load(recipe.read_text("utf-8"))
    recipe.write_text(yaml.safe_dump({**raw, "train": {**raw["train"], "seed": 3}}), "utf-8")
    with pytest.raises(RecipeError, match=r"tiny-seed=0 and tiny-seed=1 are the same"):
        plan([recipe], {"seed": [0, 1]})
    with pytest.raises(RecipeError, match="two recipes are called tiny"):
        plan([recipe, recipe], {"train.lr": [0.1]})


# the sweep


def test_a_cell_is_what_compile_and_check_make_of_its_recipe(recipe: Path, tmp_path: Path) -> None:
    report = sweep([recipe], {"seed": [0, 1]}, tmp_path / "out")
    assert not report.failed and report.kept == 0
    folder = tmp_path / "out" / "tiny-seed=1"
    assert sorted(p.name for p in folder.iterdir()) == ["bundle", "log.txt", "recipe.yaml", "result.json"]
    alone = compile_recipe(recipe, tmp_path / "alone", change=lambda _: load(folder / "recipe.yaml")).bundle
    made = Bundle.read(folder / "bundle")
    assert made.stages["quantize"].files == alone.stages["quantize"].files
    assert made.stages["quantize"].key == final_key(load(folder / "recipe.yaml"))
    result = json.loads((folder / "result.json").read_text("utf-8"))
    assert result == report.results[1] and result["metric"] == "top1" and 0 <= result["int8"] <= 1
    assert result["bytes_int8"] == alone.file("int8_cpu").stat().st_size
    assert result["macs"] == alone.stages["slim"].facts["after"]["macs"]
    assert "train" in (folder / "log.txt").read_text("utf-8")


def test_what_is_done_is_kept_and_what_changed_is_not(recipe: Path, tmp_path: Path) -> None:
    first = sweep([recipe], {"seed": [0, 1]}, tmp_path / "out")
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*/result.json")}
    again = sweep([recipe], {"seed": [0, 1, 2]}, tmp_path / "out")
    assert again.kept == 2 and list(again.results[:2]) == list(first.results)
    assert all(p.stat().st_mtime_ns == t for p, t in times.items())
    (next(iter(times))).write_text("{", "utf-8")  # torn, as no sweep leaves it
    assert sweep([recipe], {"seed": [0, 1, 2]}, tmp_path / "out").kept == 2
    assert sweep([recipe], {"seed": [0, 1]}, tmp_path / "out", check=False).kept == 0


def test_a_cell_that_fails_stops_no_other(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["sweep", recipe, "--set", "model.weights=none.pth,null", "--out", tmp_path / "out", "--json"]
    monkeypatch.setattr("sys.argv", ["edgecnn", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capsys.readouterr()
    bad, good = json.loads(out)["cells"]
    assert bad["exit_code"] == end.value.code == 3 and "none.pth" in bad["error"] and 0 <= good["int8"] <= 1
    assert "1 of 2 cells failed; tiny-model.weights=none.pth:" in err.splitlines()[-1]
    log = tmp_path / "out" / bad["cell"] / "log.txt"
    assert "Traceback" in log.read_text("utf-8") and not (log.parent / "result.json").exists()
    rows = (tmp_path / "out" / "results.csv").read_text("utf-8").splitlines()
    assert rows[0].startswith("cell,recipe,model.weights,macs,") and len(rows) == 3


def test_a_worker_that_does_not_see_the_folder_says_so(recipe: Path, tmp_path: Path) -> None:
    from edgecnn.sweep.cell import Task, run_cell

    result = run_cell(Task(recipe.read_text("utf-8"), tmp_path / "elsewhere" / "cell", True))
    assert result["exit_code"] == InputError.exit_code and "the same path on every worker" in result["error"]


def test_a_sweep_survives_the_kill_of_a_worker(recipe: Path, tmp_path: Path) -> None:
    """`kill -9` of one of two in the middle: every cell comes, as one process makes it, and is kept."""
    pytest.importorskip("distributed", reason="the extra `sweep` is not installed")
    sets = {"seed": [0, 1, 2, 3]}
    killed = threading.Thread(target=_kill_a_worker, args=(tmp_path / "two",))
    killed.start()
    report = sweep([recipe], sets, tmp_path / "two", workers=Workers(local=2))
    killed.join()
    alone = sweep([recipe], sets, tmp_path / "one")
    assert (tmp_path / "two" / "killed").is_file() and not report.failed
    assert [_figures(r) for r in report.results] == [_figures(r) for r in alone.results]
    assert [p.name for p in (tmp_path / "two").rglob(".*.*.*")] == []  # nothing half-written
    assert sweep([recipe], sets, tmp_path / "two").kept == 4


def _kill_a_worker(out: Path) -> None:
    """The first one that works on a cell, as soon as it is at it."""
    import psutil

    until = time.monotonic() + 120
    while time.monotonic() < until:
        for log in out.glob("*/log.txt"):
            for process in psutil.Process().children():
                if any(file.path == str(log) for file in process.open_files()):
                    process.kill()
                    (out / "killed").touch()
                    return
        time.sleep(0.01)


def _figures(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name != "seconds"}
