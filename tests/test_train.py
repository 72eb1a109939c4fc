"""The train stage as a user has it: a recipe, a folder, kills in between, and several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from edgecnn.bundle import Bundle
from edgecnn.compile import compile_recipe
from edgecnn.errors import EdgecnnError, ModelError
from edgecnn.report import write_report
from edgecnn.report.svg import curves
from edgecnn.zoo import read_weights
from edgecnn.zoo.train import CHECKPOINT, FILE

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "EDGECNN_DEBUG": "1"}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Two classes of noise, 24 pictures to train on and 8 to validate on; five epochs of a small network."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 4)):
        for name, level in (("dark", 90), ("light", 150)):
            folder = tmp_path / "data" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                noise = rng.normal(level, 40, (32, 32, 3)).clip(0, 255)
                cv2.imwrite(str(folder / f"{i:02}.png"), noise.astype(np.uint8))
    return written(tmp_path / "recipe.yaml")


def written(path: Path, epochs: int = 5, more: str = "") -> Path:
    path.write_text(
        "name: tiny\nmodel: {arch: lenet5, classes: [dark, light]}\n"
        "train:\n"
        "  data: {kind: classes, path: data, part: train}\n"
        "  validate_on: {kind: classes, path: data, part: validate}\n"
        f"  epochs: {epochs}\n  batch: 8\n  lr: 0.01\n  augment: {{shift: 0.1, noise: 4}}\n{more}"
    )
    return path


def facts(folder: Path) -> dict[str, Any]:
    return dict(Bundle.read(folder).stages["train"].facts)


def test_what_the_stage_leaves(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "b"
    compile_recipe(recipe, out, until="train")
    found = facts(out)
    assert len(found["losses"]) == len(found["validation"]) == len(found["rates"]) == 5
    assert found["losses"][-1] < found["losses"][0] and found["figure"] == "top-1"
    assert found["best_epoch"] == found["validation"].index(max(found["validation"])) + 1
    assert not (out / CHECKPOINT).exists() and {p.name for p in out.iterdir()} == {"manifest.json", ".lock", FILE}
    text = write_report(Bundle.read(out), tmp_path / "report.html").read_text("utf-8")
    assert "Learning curves" in text and text.count('<path class="curve"') == 3
    assert "epoch 5 of 5: loss" in capsys.readouterr().err
    first = (out / FILE).read_bytes()
    compile_recipe(recipe, tmp_path / "c", until="train")
    assert (tmp_path / "c" / FILE).read_bytes() == first  # the same seed, the same file


def test_a_curve_goes_through_its_figures() -> None:
    text = curves({"loss": [2.0, 1.0, 0.0]}, "a <title>")
    assert 'd="M110.0 6.0L405.0 48.0L700.0 90.0"' in text  # from the top of its strip to the bottom, evenly
    assert "a &lt;title&gt;" in text and text.count("<path") == 1


def test_a_run_that_broke_off_is_taken_up(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_recipe(recipe, tmp_path / "whole", until="train")
    import edgecnn.zoo.fit as fit

    def breaks(text: str) -> None:
        if text.startswith("epoch 4 of 5"):
            raise KeyboardInterrupt

    broken = tmp_path / "broken"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fit, "note", breaks)
        compile_recipe(recipe, broken, until="train")
    assert (broken / CHECKPOINT).is_file() and not (broken / FILE).exists()
    told: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(fit, "note", told.append)
        compile_recipe(recipe, broken, until="train")
    assert told[0] == "going on after epoch 3" and [line[:7] for line in told[1:]] == ["epoch 4", "epoch 5"]
    assert (broken / FILE).read_bytes() == (tmp_path / "whole" / FILE).read_bytes()
    assert {**facts(broken), "stage_seconds": 0} == {**facts(tmp_path / "whole"), "stage_seconds": 0}
    assert not (broken / CHECKPOINT).exists()


def test_a_changed_recipe_starts_anew(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import edgecnn.zoo.fit as fit

    out = tmp_path / "b"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fit, "note", lambda text: (_ for _ in ()).throw(KeyboardInterrupt) if "epoch 2" in text else None)
        compile_recipe(recipe, out, until="train")
    capsys.readouterr()
    compile_recipe(written(recipe, epochs=2, more="  momentum: 0.8\n"), out, until="train")
    told = capsys.readouterr().err
    assert "is of other settings; training starts anew" in told and "epoch 1 of 2" in told
    assert len(facts(out)["losses"]) == 2


def test_auxiliary_heads_train_and_are_not_saved(recipe: Path, tmp_path: Path) -> None:
    text = written(recipe, epochs=1).read_text()
    recipe.write_text(
        text.replace("arch: lenet5", "arch: googlenet, height: 96, width: 96").replace("batch: 8", "batch: 4")
    )
    compile_recipe(recipe, tmp_path / "b", until="train")
    state, spec = read_weights(tmp_path / "b" / FILE)
    assert spec is not None and spec.arch == "googlenet" and not [name for name in state if name.startswith("aux")]
    # 6 624 904 with a thousand classes
    assert facts(tmp_path / "b")["parameters"] == 6_624_904 - 998 * 1025


def test_a_failure_to_train_leaves_no_stage(recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(recipe.read_text().replace("[dark, light]", "[dark, light, dim]"))
    with pytest.raises(ModelError, match="only the model has dim"):
        compile_recipe(recipe, tmp_path / "b", until="train")
    recipe.write_text(recipe.read_text().replace(", dim]", "]").replace("part: validate", "part: test"))
    with pytest.raises(EdgecnnError, match="has the parts train, validate; wanted a part test"):
        compile_recipe(recipe, tmp_path / "b", until="train")
    assert Bundle.read(tmp_path / "b").stages == {}


@pytest.mark.slow
def test_a_killed_process_loses_at_most_an_epoch(recipe: Path, tmp_path: Path) -> None:
    """kill -9 at some time in training, twice, then to its end: the file is that of a run that was left alone."""
    written(recipe, epochs=60)
    command = [sys.executable, "-m", "edgecnn", "train", str(recipe), "--out"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, env=ENVIRONMENT, capture_output=True, timeout=300)
    out, done = tmp_path / "killed", 0
    for least in (5, 25):
        process = subprocess.Popen([*command, str(out)], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("going on after epoch"):
                assert int(line.split()[-1]) >= done - 1
            if line.startswith("epoch "):
                done = int(line.split()[1])
                if done >= least:
                    break
        time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
        process.stderr.close()
        assert (out / CHECKPOINT).is_file() and not (out / FILE).exists()
    end = subprocess.run([*command, str(out)], check=True, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    taken_up = next(line for line in end.stderr.splitlines() if line.startswith("going on after epoch"))
    assert int(taken_up.split()[-1]) >= done - 1 >= 24
    assert (out / FILE).read_bytes() == (tmp_path / "whole" / FILE).read_bytes()
    assert {p.name for p in out.iterdir()} == {"manifest.json", ".lock", FILE}


@pytest.mark.slow
def test_two_processes_train_as_one(recipe: Path, tmp_path: Path) -> None:
    written(recipe, epochs=4)
    compile_recipe(recipe, tmp_path / "one", until="train")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*torchrun, "-m", "edgecnn", "train", str(recipe), "--out", str(tmp_path / "two")]
    for outcome in ("made", "kept"):
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.split("\n")
        assert len(lines) == 3 and lines[0].split()[:2] == ["train", outcome], done.stdout  # one process prints
        assert done.stderr.count("epoch 4 of 4") == (outcome == "made")
    one, two = (read_weights(tmp_path / name / FILE)[0] for name in ("one", "two"))
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)
    assert facts(tmp_path / "two")["validation"] == facts(tmp_path / "one")["validation"]
    assert np.allclose(facts(tmp_path / "two")["losses"], facts(tmp_path / "one")["losses"], atol=2e-4)
    assert not (tmp_path / "two" / CHECKPOINT).exists()
