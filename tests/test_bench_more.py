"""Windows and throttling, sweeps, layers, history, and the page that shows them."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from test_cli import called
from tiny_detector import MODEL, make_bundle

from edgecnn import bench as bench_module
from edgecnn.backends.layers import layer_times, parse_profile
from edgecnn.bench import history
from edgecnn.bench.layers import ranked
from edgecnn.bench.sensors import Reading
from edgecnn.bench.sustained import throttling, windows_of
from edgecnn.bench.sweep import network, rows_of, sweep
from edgecnn.bundle import Bundle
from edgecnn.errors import InputError, ModelError
from edgecnn.report import write_report


@pytest.fixture(autouse=True)
def no_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module, "find_spec", lambda name: None)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "lamps.bundle", int8=True)


# --- minutes at full speed ----------------------------------------------------------------------------------------


def drive(slow_from: float, factor: float, mhz_from: float, mhz: float) -> list[dict[str, Any]]:
    """Windows of 120 s: frames of 20 ms with 5 % of noise, `factor` longer from `slow_from` on; a clock of 1000 MHz
    that is `mhz` from `mhz_from` on."""
    rng, at, times = np.random.default_rng(0), 0.0, []
    while at < 120:
        ms = 20 * (factor if at >= slow_from else 1) * (1 + 0.05 * rng.normal())
        times.append((at, ms))
        at += ms / 1e3
    rows = [(float(s), Reading({"gpu": mhz if s >= mhz_from else 1000.0}, {"cpu": 40.0 + s / 4})) for s in range(120)]
    return windows_of(times, rows)


def test_windows() -> None:
    windows = drive(999, 1, 999, 1000)
    assert [row["from_s"] for row in windows] == [10.0 * k for k in range(12)]
    assert all(
        row["p50"] == pytest.approx(20, rel=0.02) and row["fps"] == pytest.approx(50, rel=0.02) for row in windows
    )
    assert windows[0]["mhz"] == {"gpu": 1000.0} and windows[1]["hottest_c"] == pytest.approx(40 + 14.5 / 4)
    assert "power_w" not in windows[0]


def test_a_flat_run_is_not_flagged_and_planted_throttling_is() -> None:
    assert throttling(drive(999, 1, 999, 1000)) == {"verdict": "no", "why": []}
    both = throttling(drive(60, 1.3, 60, 700))
    assert both["verdict"] == "yes" and both["from_s"] == 60 and len(both["why"]) == 2
    assert "the gpu clock falls from 1000 to 700 MHz" in both["why"][0]
    assert throttling(drive(999, 1, 50, 800))["from_s"] == 50  # the clock alone
    slow = throttling(drive(70, 1.25, 999, 1000))
    assert slow["from_s"] == 70 and "another program" in slow["why"][0]


def test_one_bad_window_is_no_throttling_and_a_short_run_tells_nothing() -> None:
    windows = drive(999, 1, 999, 1000)
    windows[6]["p50"] *= 2
    assert throttling(windows)["verdict"] == "no"
    assert throttling(windows[:5])["verdict"] == "too short"


# --- sweeps -------------------------------------------------------------------------------------------------------


def test_threads_are_swept_and_throughput_is_of_pictures(bundle: Bundle) -> None:
    found = sweep(bundle, "sim:3", threads=(1, 2), runs=5)
    assert [(row["role"], row["threads"]) for row in found["rows"]] == [
        (role, n) for role in ("fp32", "int8_cpu") for n in (1, 2)
    ]
    assert found["rows"][0]["ratio"] == 1.0 and found["rows"][0]["ms"]["n"] == 5
    times = {("fp32", 1, 1): np.array([10.0, 20.0, 10.0]), ("fp32", 1, 4): np.array([20.0, 40.0, 20.0])}
    one, four = rows_of(times)
    assert (one["ratio"], four["ratio"]) == (1.0, 2.0)  # four pictures in the time of two
    assert four["per_s"] == pytest.approx(4 / (80 / 3) * 1e3, rel=1e-3)


def test_a_fixed_batch_is_refused_and_a_free_one_answers_as_one_by_one(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"takes 1 picture\(s\) at once, and --batch asks for 1, 2") as raised:
        sweep(bundle, "sim:3", batches=(1, 2))
    assert "Leave --batch out" in str(raised.value)
    free = onnx.load(bundle.path / "model.onnx")
    for value in (*free.graph.input, *free.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    shape = next(array for array in free.graph.initializer if array.name == "shape")
    shape.CopyFrom(onnx.numpy_helper.from_array(np.array([0, 6, -1]), "shape"))  # 0: as it comes
    onnx.save(free, tmp_path / "free.onnx")
    loaded = network(tmp_path / "free.onnx", MODEL, (1, 2), 1)
    pictures = np.random.default_rng(0).uniform(0, 255, (2, *MODEL.input.shape[1:])).astype(np.float32)
    whole = loaded({"images": pictures})
    for k in range(2):
        alone = loaded({"images": pictures[k : k + 1]})
        assert all(np.allclose(whole[name][k], alone[name][0], atol=1e-5) for name in whole)


# --- layers -------------------------------------------------------------------------------------------------------


def test_a_profile_by_hand() -> None:
    def event(name: str, ts: int, dur: int, node: str = "0") -> dict[str, Any]:
        return {"cat": "Node", "name": name, "ts": ts, "dur": dur, "args": {"op_name": "Conv", "node_index": node}}

    events = [event("a_kernel_time", 10, 9000), event("b_kernel_time", 20, 1000), event("a_kernel_time", 30, 3000)]
    events += [event("b_kernel_time", 40, 1000), {"cat": "Session", "name": "model_run", "ts": 1, "dur": 5}]
    times = parse_profile(json.dumps(events), 1)
    assert {key: list(ms) for key, ms in times.items()} == {("a", "Conv"): [3.0], ("b", "Conv"): [1.0]}
    twins = parse_profile(
        json.dumps([event("c", 1, 1), event("c_kernel_time", 2, 5, "7"), event("c_kernel_time", 3, 6, "8")]), 0
    )
    assert {key: list(ms) for key, ms in twins.items()} == {("c #7", "Conv"): [0.005], ("c #8", "Conv"): [0.006]}
    found = ranked(times)
    assert found["sum_ms"] == 4.0
    assert [(row["layer"], row["share"]) for row in found["layers"]] == [("a", 0.75), ("b", 0.25)]


def test_every_node_of_a_real_network_is_timed(bundle: Bundle) -> None:
    times = layer_times(bundle, "fp32", {"images": np.zeros(MODEL.input.shape, np.float32)}, runs=7)
    assert {op for _, op in times} >= {"AveragePool", "Conv", "Sigmoid"}
    assert {len(ms) for ms in times.values()} == {7} and all((ms >= 0).all() for ms in times.values())
    with pytest.raises(ModelError, match="openvino's layers"):
        layer_times(bundle, "openvino", {})


# --- history ------------------------------------------------------------------------------------------------------

RESULT: dict[str, Any] = {
    "name": "lamps",
    "source": "sim:1",
    "frames": 10,
    "threads": 1,
    "machine": {"cpu": "a CPU", "versions": {"edgecnn": "1"}},
    "lanes": {"fp32": {"role": "fp32", "fps": 9.0, "stages": {"frame": {"p50": 1.5}, "infer": {"p50": 1.0}}}},
}


def test_many_at_once_each_leave_a_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "history.jsonl"
    workers = [threading.Thread(target=history.append, args=(path, RESULT)) for _ in range(12)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    rows = history.read(path)
    assert len(rows) == 12 and rows[0]["lanes"]["fp32"]["frame"] == {"p50": 1.5}


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    history.append(path, RESULT)
    path.write_text(path.read_text("utf-8") + '{"at": "2026', "utf-8")
    history.append(path, RESULT)
    assert len(history.read(path)) == 2
    path.write_text("not json\n", "utf-8")
    with pytest.raises(InputError, match="line 1 is no bench"):
        history.read(path)
    with pytest.raises(InputError, match="can't be written"):
        history.append(tmp_path, RESULT)


# --- command and page ---------------------------------------------------------------------------------------------


def test_the_command_and_its_page(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    past = tmp_path / "history.jsonl"
    options = ["--source", "sim:3", "--frames", 12, "--layers", "--threads", "1,2", "--history", past, "--json"]
    for _ in range(2):
        assert called(monkeypatch, "bench", bundle.path, *options) == 0
        text = capsys.readouterr().out
    result = json.loads(text)
    assert len(result["sweep"]["rows"]) == 4 and result["layers"]["layers"] and result["memory"]["peak_mib"] > 10
    windows = drive(60, 1.3, 60, 700)
    result["sustained"] = {"minutes": 2, "role": "fp32", "windows": windows, "throttling": throttling(windows)}
    (tmp_path / "bench.json").write_text(json.dumps(result), "utf-8")
    page = tmp_path / "page.html"
    assert (
        called(monkeypatch, "report", bundle.path, "--bench", tmp_path / "bench.json", "--history", past, "--out", page)
        == 0
    )
    html = page.read_text("utf-8")
    for words in ("Minutes at full speed", "It throttles", "Layers", "Threads and batches", "Bench by bench"):
        assert words in html, words
    assert "p50 of a frame, bench by bench" in html
    plain = write_report(bundle, tmp_path / "plain.html").read_text("utf-8")
    assert "Bench by bench" not in plain and "It throttles" not in plain


@pytest.mark.parametrize("options", [["--threads", "0"], ["--threads", "1,x"], ["--batch", "2,2"], ["--minutes", "0"]])
def test_a_wrong_option_exits_2(options: list[str], bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    assert called(monkeypatch, "bench", bundle.path, *options) == 2


def test_compare_goes_with_no_other_measurement(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    assert called(monkeypatch, "bench", bundle.path, "--compare", bundle.path, "--layers") == 2
