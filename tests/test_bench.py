from __future__ import annotations

import io
import json
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from rich.console import Console
from tiny_detector import lamp_picture, make_bundle

from edgecnn import bench as module
from edgecnn.bench import bench
from edgecnn.bench.show import table, tail, three
from edgecnn.bundle import Bundle, ModelSpec, TensorSpec
from edgecnn.errors import InputError
from edgecnn.run import RunSettings
from edgecnn.run.timing import percentiles

STAGES = {"preprocess", "infer", "postprocess", "track", "scene", "frame"}


@pytest.fixture(autouse=True)
def no_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is installed or not."""
    monkeypatch.setattr(module, "find_spec", lambda name: None)


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    """A folder of 20 pictures of a lamp that stands still."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(20):
        cv2.imwrite(str(folder / f"{index:02d}.png"), lamp_picture(5, 3))
    return str(folder)


@pytest.fixture
def both(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "lamps.bundle", int8=True)


def test_lanes_stages_and_counts(both: Bundle, pictures: str) -> None:
    result = bench(both, pictures, frames=15, settings=RunSettings(detect_every=5))
    assert result["frames"] == 15
    assert list(result["lanes"]) == ["fp32", "int8", "int8/5"]
    assert [lane["role"] for lane in result["lanes"].values()] == ["fp32", "int8_cpu", "int8_cpu"]
    for name in ("fp32", "int8"):
        stages = result["lanes"][name]["stages"]
        assert set(stages) == STAGES
        assert {row["n"] for row in stages.values()} == {15}
    sparse = result["lanes"]["int8/5"]
    assert (sparse["stages"]["infer"]["n"], sparse["stages"]["track"]["n"]) == (3, 15)  # frames 5, 10 and 15
    assert sparse["detector_frames"] == 0.2
    assert result["decode"]["n"] == 15
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_openvino_is_timed_where_it_is_installed(both: Bundle, pictures: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    monkeypatch.setattr(module, "find_spec", find_spec)
    result = bench(both, pictures, frames=10, settings=RunSettings(detect_every=5))
    assert list(result["lanes"]) == ["fp32", "openvino", "int8", "int8/5"]
    assert result["lanes"]["openvino"]["role"] == "openvino"


def test_figures_agree_with_one_another(both: Bundle, pictures: str) -> None:
    result = bench(both, pictures, frames=15, settings=RunSettings(detect_every=5))
    for lane in result["lanes"].values():
        stages = lane["stages"]
        total = sum(row["mean"] * row["n"] for name, row in stages.items() if name != "frame")
        assert total == pytest.approx(stages["frame"]["mean"] * stages["frame"]["n"], rel=0.01)
        inference = stages["infer"]["mean"] * stages["infer"]["n"]
        assert lane["not_inference"] == pytest.approx(1 - inference / total, abs=0.01)
        for row in stages.values():
            assert row["p50"] <= row["p95"] <= row["p99"] <= row["max"]
            assert row["per_s"] == pytest.approx(1000 / row["mean"], rel=0.01)
        slowest = max(stages["frame"]["mean"], result["decode"]["mean"])
        assert lane["fps"] == pytest.approx(1000 / slowest, rel=0.01)
    assert set(result["ratios"]) == {"int8", "int8/5"}
    assert set(result["ratios"]["int8"]) == {"frame_p25", "frame_p50", "frame_p75", "frame_total", "infer_p50"}
    assert "infer_p50" not in result["ratios"]["int8/5"]  # not the same frames


def test_ratios_are_of_the_same_frame() -> None:
    """FP32 takes 2, 4, 40 ms and the other 1, 2, 4: ratios 2, 2, 10; a ratio of medians would be 2, of sums 6.57."""
    times = {"fp32": module.StageTimes(), "int8": module.StageTimes()}
    for name, values in (("fp32", (2, 4, 40)), ("int8", (1, 2, 4))):
        for ms in values:
            times[name].add({"infer": ms * 1_000_000, "frame": ms * 1_000_000})
    ratios = module._ratios(times)["int8"]
    assert (ratios["frame_p25"], ratios["frame_p50"], ratios["frame_p75"]) == (2.0, 2.0, 6.0)
    assert ratios["frame_total"] == pytest.approx(46 / 7, abs=1e-3)
    assert ratios["infer_p50"] == 2.0


def test_a_bundle_without_int8_is_timed_in_fp32(tmp_path: Path, pictures: str) -> None:
    result = bench(make_bundle(tmp_path / "b"), pictures, frames=10, settings=RunSettings(detect_every=1))
    assert list(result["lanes"]) == ["fp32"]
    assert result["ratios"] == {}


def test_a_classifier_is_timed_in_preprocess_and_infer(tmp_path: Path, pictures: str) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["logits"]),
        ],
        "brightness",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 32, 32))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 3))],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "model.onnx"
    )
    model = ModelSpec(
        "onnx", "classify", ("b", "g", "r"), TensorSpec("x", (1, 3, 32, 32)), (TensorSpec("logits", (1, 3)),)
    )
    bundle = Bundle(tmp_path, "brightness").with_stage(
        "export", settings={}, version=1, files={"fp32": "model.onnx"}, facts={}, tools={}, model=model
    )
    result = bench(bundle, pictures, frames=12)
    assert set(result["lanes"]["fp32"]["stages"]) == {"preprocess", "infer", "frame"}
    assert "preprocess" in text_of(result) and "track" not in text_of(result)


def test_too_few_frames_are_refused(both: Bundle, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), np.zeros((64, 96, 3), np.uint8))
    with pytest.raises(InputError, match=r"gave 1 frames; wanted 15 or more"):
        bench(both, str(tmp_path / "one.png"))


def test_the_table_shows_every_lane_and_stage(both: Bundle, pictures: str) -> None:
    result = bench(both, pictures, frames=10, settings=RunSettings(detect_every=2))
    text = text_of(result)
    for word in ("decode", *STAGES, "fp32", "int8", "every 2 frames", "frames/s", "not inference"):
        assert word in text, word
    assert three(result["lanes"]["fp32"]["stages"]["infer"]) in text


def test_times_are_printed_with_the_digits_that_count() -> None:
    assert three({"p50": 0.123, "p90": 9.994, "p99": 12.34}) == "0.12 / 9.99 / 12.3"


def test_the_tail_is_told_from_a_thousand_times_on() -> None:
    ms = np.arange(1.0, 1002.0)
    row = percentiles(ms)
    for name, share in (("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99), ("p999", 99.9)):
        assert row[name] == pytest.approx(np.percentile(ms, share))
    assert row["p999"] == 1000.0 and tail(row) == "1000.0"
    assert "p999" not in percentiles(ms[:999])
    assert tail(percentiles(ms[:999])) == "too few frames (999 of 1000)"


def test_a_busy_machine_is_named(
    both: Bundle, pictures: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for load, warned in ((0.1, False), (64.0 * 1024, True)):
        monkeypatch.setattr(module.os, "getloadavg", lambda load=load: (load, load, load))
        assert bench(both, pictures, frames=10)["machine"]["load"] == load
        assert ("the machine is busy" in capsys.readouterr().err) is warned


def text_of(result: dict[str, object]) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table(result))
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_simulated_drive_is_the_default(both: Bundle) -> None:
    result = bench(both, frames=10)
    assert result["source"] == "sim:1"
    assert result["lanes"]["fp32"]["stages"]["infer"]["n"] == 10
