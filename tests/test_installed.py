"""The package as pip installs it, without the checkout: a wheel, unpacked beside nothing, used from an empty folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
Edgecnn = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's files. Built of a copy: setuptools leaves folders beside what it builds."""
    tree, wheels, site = (tmp_path_factory.mktemp(name) for name in ("tree", "wheels", "site"))
    for name in ("edgecnn", "recipes", "calibration"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    subprocess.run([*pip, "-w", wheels, tree], check=True, timeout=300)
    (wheel,) = wheels.glob("edgecnn-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site)
    return site


@pytest.fixture
def edgecnn(site: Path, tmp_path: Path) -> Edgecnn:
    """`edgecnn ARGUMENTS`, or Python, of that wheel, in an empty folder."""

    def call(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *(("-c", code) if code else ("-m", "edgecnn")), *arguments]
        env = os.environ | {"PYTHONPATH": str(site)}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)

    return call


def test_every_shipped_recipe_is_there_and_lacks_nothing_that_ships(edgecnn: Edgecnn, site: Path) -> None:
    done = edgecnn("recipes", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert len(rows) == len([p for p in (ROOT / "recipes").rglob("*.yaml") if "scenarios" not in p.parts])
    assert all(Path(row["path"]).is_relative_to(site) for row in rows.values())
    assert rows["adas"]["lacks"] == [] and rows["adas"]["stages"][-1] == "build"
    assert rows["mnist"]["lacks"] == ["mnist_5k.csv.gz"]
    for name in ("recipes", "calibration"):  # every file of them, byte for byte
        for path in (p for p in (ROOT / name).rglob("*") if p.is_file() and "scenarios" not in p.parts):
            assert (site / "edgecnn" / name / path.relative_to(ROOT / name)).read_bytes() == path.read_bytes()


def test_a_shipped_recipe_compiles_by_its_name(edgecnn: Edgecnn, tmp_path: Path) -> None:
    done = edgecnn("quantize", "zoo/lenet5", "--json")
    assert done.returncode == 0, done.stderr
    (bundle,) = (tmp_path / "runs").iterdir()
    assert {"weights.safetensors", "model.onnx", "model.int8.onnx"} <= {path.name for path in bundle.iterdir()}
    again = edgecnn("quantize", "recipes/zoo/lenet5.yaml", "--json")  # as a checkout's path
    assert [step["outcome"] for step in json.loads(again.stdout)["steps"]] == ["kept"] * 3


def test_the_shipped_detector_and_its_calibration_list_are_reached(edgecnn: Edgecnn, tmp_path: Path) -> None:
    """The weights are taken in; of the list, whose rows say which pictures they are, the first is drawn."""
    done = edgecnn("train", "adas")
    assert done.returncode == 0, done.stderr
    code = """
from edgecnn.data.calibration import open_list
from edgecnn.recipe import load
print(open_list(load("adas").quantize.calibration)[0].bgr.shape)
"""
    done = edgecnn(code=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(384, 640, 3)\n"


def test_a_name_that_is_none_is_one_line(edgecnn: Edgecnn, tmp_path: Path) -> None:
    for name in ("adsa", "../setup", "scenarios/ccrs_30"):
        done = edgecnn("compile", name)
        assert done.returncode == 3
        assert done.stderr == f"error: no recipe at {name}. `edgecnn recipes` lists the shipped ones.\n"
    assert not list(tmp_path.iterdir())


def test_a_file_of_your_own_goes_before_a_shipped_one(edgecnn: Edgecnn, tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/adas.yaml").write_text("nonsense: true\n", "utf-8")
    done = edgecnn("compile", "recipes/adas.yaml")
    assert done.returncode == 4 and "nonsense" in done.stderr
