"""The whole line on a small network, in seconds: recipe to bundle to figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgecnn.bundle import Bundle
from edgecnn.compile import compile_recipe

RECIPE = """
name: tiny
model: {arch: lenet5}
train: {data: {kind: sim_crops, seed: 1, pictures: 160}, epochs: 40, batch: 16, lr: 0.02}
slim:
  steps:
    - gap: true
    - finetune: {data: {kind: sim_crops, seed: 1, pictures: 160}, epochs: 60, batch: 16, lr: 0.05}
  check: {kind: sim_crops, seed: 4, pictures: 40}
export: {compare: {kind: sim_crops, seed: 3, pictures: 4}}
quantize: {data: {kind: sim_crops, seed: 3, pictures: 24}}
build: {target: rtx-sm86}
check:
  data: {kind: sim_crops, seed: 4, pictures: 40}
  gates: {top1: 0.5}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    pytest.importorskip("tensorrt_rtx", reason="the engine builder is an extra: pip install 'edgecnn[rtx]'")
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.yaml").write_text(RECIPE)
    compile_recipe(folder / "tiny.yaml", folder / "tiny.bundle")
    return folder / "tiny.yaml", folder / "tiny.bundle"


def test_every_stage_left_its_files(made: tuple[Path, Path]) -> None:
    bundle = Bundle.read(made[1])
    assert list(bundle.stages) == ["train", "slim", "export", "quantize", "build"]
    for role in ("weights", "slim", "fp32", "int8", "int8_cpu", "ranges", "engine"):
        assert bundle.file(role).stat().st_size > 0
    assert "avgpool" in bundle.require_model().replaced
    facts = {name: record.facts for name, record in bundle.stages.items()}
    assert facts["slim"]["after"]["parameters"] < facts["slim"]["before"]["parameters"] / 10
    assert facts["export"]["difference"] < 1e-3
    assert facts["train"]["losses"][-1] < facts["train"]["losses"][0]


def test_nothing_is_made_twice(made: tuple[Path, Path]) -> None:
    again = compile_recipe(*made)
    assert {step.outcome for step in again.steps} == {"kept"}


def test_the_gate_is_held_by_fp32_and_int8(made: tuple[Path, Path]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgecnn", "check", str(made[1]), "--json"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["figures"]
    assert figures["fp32"]["top1"] >= 0.5  # four classes: chance is far below
    assert abs(figures["fp32"]["top1"] - figures["int8"]["top1"]) <= 0.05


def test_a_changed_byte_is_noticed_by_the_board_and_mended_by_compile(made: tuple[Path, Path]) -> None:
    path = made[1] / "model.int8.cpu.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    done = subprocess.run(
        [sys.executable, "-m", "edgecnn", "bench", str(made[1])], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 5 and "was changed" in done.stderr and "Traceback" not in done.stderr
    again = compile_recipe(*made)
    assert {step.stage for step in again.steps if step.outcome == "made"} == {"quantize", "build"}
