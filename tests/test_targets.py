"""The boards as data: sources, computed rates against published ones, what may be built, and `edgecnn targets`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnx
import pytest
from tiny_onnx import SHAPE, tiny

from edgecnn import cli
from edgecnn.build import run_stage
from edgecnn.build.targets import TARGETS, by_hand, find, lookup, row
from edgecnn.bundle import Bundle, ModelSpec, TensorSpec
from edgecnn.errors import BuildError
from edgecnn.recipe import Recipe

JETSONS = [name for name, target in TARGETS.items() if target.dialect == "trt"]


def called(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["edgecnn", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


@pytest.mark.parametrize("name", JETSONS)
def test_every_figure_of_a_board_has_a_source(name: str) -> None:
    target = TARGETS[name]
    for field in ("sms", "clock_ghz", "bandwidth", "memory_gib", "power_w", "software", "dla"):
        assert not getattr(target, field) or target.sources[field], field
    assert (target.int8_tops is None) or target.int8
    assert bool(target.dla) == (target.dla_version is not None)
    assert list(target.power_w) == sorted(target.power_w)


# NVIDIA's own statements of the same rates: AGX Orin's brief and data sheets, halved where they count sparse matrices
@pytest.mark.parametrize(
    ("name", "rate", "published"),
    [
        ("orin", "int8_tops", 170 / 2),
        ("orin", "fp16_tflops", 85 / 2),
        ("orin-nx", "int8_tops", 60 / 2),
        ("orin-nx-8", "int8_tops", 50 / 2),
        ("orin-nano", "int8_tops", 40 / 2),
        ("orin-nano-super", "int8_tops", 67 / 2),
        ("xavier", "int8_tops", 22),
        ("xavier", "fp16_tflops", 11),
        ("nano", "fp16_tflops", 0.472),
        ("tx2", "fp16_tflops", 1.33),
    ],
)
def test_computed_rates_are_the_published_ones(name: str, rate: str, published: float) -> None:
    assert row(name)[rate] == pytest.approx(published, rel=0.03)


def test_what_no_source_tells_is_none() -> None:
    assert row("thor")["int8_tops"] is None and row("rtx-sm86")["bandwidth"] is None
    assert row("nano")["int8_tops"] is None and row("nano")["fp16_tflops"] is not None


def test_a_row_is_json_and_the_same_after_it() -> None:
    for name in TARGETS:
        assert json.loads(json.dumps(row(name))) == row(name)


# ---- what may be built


@pytest.mark.parametrize("name", ["nano", "tx2"])
def test_boards_without_int8_are_offered_fp16_in_the_same_line(name: str) -> None:
    with pytest.raises(BuildError, match=rf"no INT8.*Build FP16.*target: {name}, precision: fp16") as caught:
        find(name)
    assert "\n" not in str(caught.value)
    assert find(name, int8=False) is TARGETS[name]


@pytest.mark.parametrize("name", ["orin", "rtx-sm86", "rtx-sm75"])
def test_fp16_can_be_had_elsewhere_too(name: str) -> None:
    assert find(name, int8=False) is TARGETS[name]


def test_fp16_for_xavier_is_a_script_too() -> None:
    with pytest.raises(BuildError, match="--emit-script DIR"):
        find("xavier", int8=False)


def test_lookup_knows_every_target_and_the_nearest_to_a_misspelt_one() -> None:
    assert lookup("rtx-sm75") is TARGETS["rtx-sm75"]
    with pytest.raises(BuildError, match="did you mean 'orin-nano'"):
        lookup("orin-nanoo")


def test_by_hand_names_the_file_the_board_and_the_command() -> None:
    line = str(by_hand("tx2", Path("a.bundle/model.onnx"), 128))
    assert (
        "Jetson TX2" in line and "TensorRT 8.2.1 of JetPack 4.6" in line and "Carry a.bundle/model.onnx there" in line
    )
    assert "trtexec --onnx=model.onnx --fp16 --workspace=128 --saveEngine=model.tx2.engine" in line


def test_build_for_nano_tells_what_to_carry_and_writes_nothing(tmp_path: Path) -> None:
    onnx.save(tiny(), tmp_path / "model.onnx")
    spec = ModelSpec("onnx", "classify", tuple("0123456789"), TensorSpec("x", SHAPE))
    bundle = Bundle(tmp_path, "tiny").with_stage(
        "export", settings={}, version=1, files={"fp32": "model.onnx"}, facts={}, tools={}, model=spec
    )
    before = sorted(tmp_path.iterdir())
    build = {"target": "nano", "precision": "fp16"}
    recipe = Recipe.model_validate({"name": "tiny", "model": {"arch": "lenet5"}, "build": build})
    with pytest.raises(BuildError, match=r"Carry .*model\.onnx there and run: .*trtexec"):
        run_stage(bundle, recipe)
    assert sorted(tmp_path.iterdir()) == before


# ---- the command


def test_the_table_has_every_target(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(monkeypatch, "targets") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == list(TARGETS)
    assert called(monkeypatch, "targets", "--json") == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == list(TARGETS)


@pytest.mark.parametrize("name", list(TARGETS))
def test_one_target_in_detail(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(monkeypatch, "targets", name) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{name}: {TARGETS[name].title}\n")
    assert all(source in out for field, source in TARGETS[name].sources.items() if field != "dla")
    assert called(monkeypatch, "targets", name, "--json") == 0
    assert json.loads(capsys.readouterr().out) == row(name)


def test_an_unknown_target(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(monkeypatch, "targets", "xavierr") == BuildError.exit_code
    assert "did you mean 'xavier'?" in capsys.readouterr().err
