"""Whole runs with troubles: several streams, faults of camera, network and clock, sinks that block."""

from __future__ import annotations

import itertools
import json
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scripted import FPS, PERIOD_NS, Script, road, roads
from tiny_detector import CELLS, HEIGHT, WIDTH, lamp_picture, make_bundle

from edgecnn.backends import FRAME, open_backend
from edgecnn.bundle import Bundle
from edgecnn.errors import InputError, ModelError
from edgecnn.run import Outputs, RunSettings, RunSummary, Source, run, run_streams
from edgecnn.run.sinks import Background
from edgecnn.scene import Picture

EVERY = RunSettings(detect_every=1, threads=1)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "lamps.bundle")


def lit(picture: Picture, column: int = 4, row: int = 3) -> Picture:
    """The picture with a lamp in it."""
    out = picture.copy()
    out[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = 250
    return out


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    rows = map(json.loads, (folder / "events.jsonl").read_text("utf-8").splitlines())
    return [row for row in rows if row["type"] == kind]


def ran(bundle: Bundle, pictures: list[Picture], out: Path, **more: Any) -> RunSummary:
    return run(bundle, Source(Script(pictures, **more)), out, EVERY, sinks=("events", "mot"))


# Several streams


def test_streams_side_by_side_answer_as_each_alone(bundle: Bundle, tmp_path: Path) -> None:
    scripts = [[lit(p, 2 + i // 4) for i, p in enumerate(roads(20))], [lit(p, 8, 5) for p in roads(31)]]
    alone = []
    for name, pictures in zip("ab", scripts, strict=True):
        alone.append(ran(bundle, pictures, tmp_path / f"alone-{name}"))
    ends = run_streams(
        bundle,
        [
            (Source(Script(pictures, name=name)), Outputs(name, tmp_path / name, ("events", "mot")))
            for name, pictures in zip("ab", scripts, strict=True)
        ],
        EVERY,
    )
    assert [end.error for end in ends] == [None, None]
    for name, end, single in zip("ab", ends, alone, strict=True):
        assert (end.summary.frames, end.summary.tracks) == (single.frames, single.tracks)
        together = [row["tracks"] for row in lines(tmp_path / name, "frame")]
        assert together == [row["tracks"] for row in lines(tmp_path / f"alone-{name}", "frame")]
        assert (tmp_path / name / "tracks.txt").read_bytes() == (tmp_path / f"alone-{name}/tracks.txt").read_bytes()
        assert json.loads((tmp_path / name / "summary.json").read_text())["complete"]


def test_turns_are_fair(bundle: Bundle) -> None:
    order: list[str] = []

    class Watched(Source):
        def take(self, wait_s: float = 0.0) -> Any:
            frame = super().take(1.0)  # frames are always there
            order.append(self.name)
            return frame

    run_streams(bundle, [(Watched(Script(roads(9), name=n)), Outputs(n)) for n in "abc"], EVERY)
    assert order == list("abc") * 10


def test_a_stream_that_dies_does_not_stop_the_others(bundle: Bundle, tmp_path: Path) -> None:
    sources = [
        Source(Script(roads(5), name="dies", error="the lens fell off")),
        Source(Script(roads(40), name="lives")),
        Source(Script([], name="empty")),
    ]
    ends = run_streams(bundle, [(s, Outputs(s.name, tmp_path / s.name, ("events",))) for s in sources], EVERY)
    assert [end.summary.frames for end in ends] == [5, 40, 0]
    assert [end.summary.complete for end in ends] == [False, True, False]
    assert "lens fell off" in str(ends[0].error) and ends[1].error is None
    assert "no frame" in str(ends[2].error)
    assert lines(tmp_path / "dies", "mode")[-1]["mode"] == "STOP"
    assert lines(tmp_path / "lives", "mode") == []


def test_two_live_streams_get_their_newest_frames(bundle: Bundle) -> None:
    class Slow:
        """30 ms a frame, for two cameras that deliver one each 5 ms."""

        def __init__(self) -> None:
            self.backend = open_backend(bundle, "fp32", threads=1)

        def __call__(self, feeds: Any) -> Any:
            time.sleep(0.03)
            return self.backend(feeds)

    sources = [Source(Script(roads(60), name=n, live=True, pause_s=0.005)) for n in "ab"]
    ends = run_streams(bundle, [(s, Outputs(s.name)) for s in sources], EVERY, backend=Slow())
    for end in ends:
        s = end.summary
        assert s.frames + s.dropped == 60 and s.dropped > 20
        assert s.stages["age"]["n"] == s.frames
        assert abs(ends[0].summary.frames - s.frames) <= 2  # turn by turn


# Faults


def test_a_clear_run_has_no_fault_and_one_mode(bundle: Bundle, tmp_path: Path) -> None:
    summary = ran(bundle, roads(60), tmp_path)
    assert (summary.faults, summary.modes, summary.late, summary.invalid, summary.odd_times) == ({}, [], 0, 0, 0)
    assert summary.mode_seconds["NORMAL"] == pytest.approx(59 / FPS, abs=0.05)
    assert {row["mode"] for row in lines(tmp_path, "frame")} == {"NORMAL"}


@pytest.mark.parametrize(
    ("fault", "spoil"),
    [
        ("black", lambda i, p: np.full_like(p, i % 3)),
        ("covered", lambda i, p: np.full_like(p, 60) + np.uint8(i % 2)),
        ("noise", lambda i, p: np.random.default_rng(i).integers(0, 90, p.shape).astype(np.uint8)),
        ("blurred", lambda i, p: cv2.GaussianBlur(p, (0, 0), 6)),
        ("frozen", lambda i, p: road(40)),
    ],
)
def test_a_faulty_camera_is_told_within_a_second_and_over_after_it(
    fault: str, spoil: Any, bundle: Bundle, tmp_path: Path
) -> None:
    pictures = roads(190, lambda i, p: spoil(i, p) if 40 <= i < 80 else p)
    summary = ran(bundle, pictures, tmp_path)
    first, *rest = lines(tmp_path, "mode")
    assert (first["mode"], first["causes"]) == ("WARN-OFF", [fault])
    assert 40 < first["frame"] <= 40 + FPS
    assert [change["mode"] for change in rest] == ["NORMAL"]  # after the quiet time
    assert set(summary.faults) == {fault}
    assert [{"type": "mode", **change} for change in summary.modes] == [first, *rest]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"scores": np.full((1, CELLS, 2), np.nan)}, "nan or inf"),
        ({"boxes": np.full((1, CELLS, 4), np.inf)}, "nan or inf"),
        ({"scores": np.full((1, CELLS, 2), 40.0)}, "scores outside 0 to 1"),
        ({"boxes": np.full((1, CELLS, 4), 7.0)}, "boxes far larger than the picture"),
        ({"scores": np.full((1, CELLS, 2), 0.9)}, "objects everywhere"),
    ],
)
def test_an_answer_that_is_none_makes_tracks_coast(
    wrong: dict[str, np.ndarray], reason: str, bundle: Bundle, tmp_path: Path
) -> None:
    backend = open_backend(bundle, "fp32", threads=1)

    def broken(feeds: Any) -> Any:
        bad = 10 <= int(feeds[FRAME]) < 14
        return {**backend(feeds), **({k: v.astype(np.float32) for k, v in wrong.items()} if bad else {})}

    source = Source(Script([lit(p) for p in roads(30)]))
    summary = run(bundle, source, tmp_path, EVERY, sinks=("events",), backend=broken)  # type: ignore[arg-type]
    frames = lines(tmp_path, "frame")
    assert [row["index"] for row in frames if row["invalid"]] == [10, 11, 12, 13]
    assert {row["invalid"] for row in frames[10:14]} == {reason}
    assert summary.invalid == 4 and summary.tracks == 1
    assert all([track["id"] for track in row["tracks"]] == [1] for row in frames)
    assert [track["missed"] for row in frames[9:15] for track in row["tracks"]] == [0, 1, 2, 3, 4, 0]


def test_a_network_that_never_answers_stops_the_stream(bundle: Bundle, tmp_path: Path) -> None:
    backend = open_backend(bundle, "fp32", threads=1)

    def broken(feeds: Any) -> Any:
        return {name: array * np.float32(np.nan) for name, array in backend(feeds).items()}

    pictures = roads(300)
    with pytest.raises(ModelError, match="no valid answer for 10 s"):
        run(bundle, Source(Script(pictures)), tmp_path, EVERY, sinks=("events",), backend=broken)  # type: ignore[arg-type]
    assert [change["mode"] for change in lines(tmp_path, "mode")] == ["WARN-OFF", "STOP"]


def test_another_size_in_mid_stream_is_a_new_scene(bundle: Bundle, tmp_path: Path) -> None:
    pictures = [lit(p) for p in roads(10)]
    pictures += [cv2.resize(lit(p), (2 * WIDTH, 2 * HEIGHT), interpolation=cv2.INTER_NEAREST) for p in roads(10)]
    summary = run(bundle, Source(Script(pictures)), tmp_path, EVERY, sinks=("video", "events", "mot"))
    frames = lines(tmp_path, "frame")
    assert summary.frames == 20 and [row["index"] for row in frames if row["cut"]] == [10]
    assert [track["id"] for track in frames[9]["tracks"]] == [1]
    assert [track["id"] for track in frames[19]["tracks"]] == [2]
    assert (tmp_path / "annotated.mp4").stat().st_size > 0


def test_a_clock_that_leaps_ahead_is_counted_and_costs_a_frame_at_most(bundle: Bundle, tmp_path: Path) -> None:
    times = [i * PERIOD_NS + (3_600_000_000_000 if i >= 10 else 0) for i in range(20)]
    summary = ran(bundle, [lit(p) for p in roads(20)], tmp_path, times_ns=times)
    found = [len(row["tracks"]) for row in lines(tmp_path, "frame")]
    assert summary.odd_times == 1
    assert found[:10] == [1] * 10 and found[12:] == [1] * 8


@pytest.mark.parametrize(
    ("change", "odd"),
    [
        (lambda t, i: t if i != 10 else t - PERIOD_NS, 1),  # repeated
        (lambda t, i: t if i < 10 else t - 3_600_000_000_000, 1),  # an hour back, as after a clock is set
        (lambda t, i: 0, 19),
        (lambda t, i: -t, 19),
    ],
)
def test_odd_time_stamps_are_counted_and_the_track_lives(change: Any, odd: int, bundle: Bundle, tmp_path: Path) -> None:
    times = [change(i * PERIOD_NS, i) for i in range(20)]
    summary = ran(bundle, [lit(p) for p in roads(20)], tmp_path, times_ns=times)
    frames = lines(tmp_path, "frame")
    assert summary.odd_times == odd
    assert np.all(np.diff([row["t_s"] for row in frames]) > 0)
    assert all(len(row["tracks"]) == 1 for row in frames)
    assert {track["id"] for row in frames for track in row["tracks"]} == {1}


def test_a_missed_deadline_is_counted_and_reduces(bundle: Bundle, tmp_path: Path) -> None:
    settings = RunSettings(detect_every=1, threads=1, deadline_ms=0.001)
    source = Source(Script(roads(100)))
    summary = run(bundle, source, tmp_path, settings, sinks=("events",))
    assert summary.late == 100
    changes = lines(tmp_path, "mode")
    assert [change["mode"] for change in changes] == ["REDUCED", "WARN-OFF"]
    reduced = [row for row in lines(tmp_path, "frame") if row["index"] > changes[0]["frame"] + 4]
    assert {b["index"] - a["index"] for a, b in itertools.pairwise(reduced) if a["detector"]} == {1}
    looks = [row["index"] for row in reduced if row["detector"]]
    assert set(np.diff(looks)) == {4}


def test_frames_that_are_too_old_end_in_not_monitoring(bundle: Bundle, tmp_path: Path) -> None:
    backend = open_backend(bundle, "fp32", threads=1)

    def slow(feeds: Any) -> Any:
        time.sleep(0.25)
        return backend(feeds)

    times = [i * 20_000_000 for i in range(90)]
    source = Source(Script(roads(90), live=True, pause_s=0.02, times_ns=times))
    summary = run(bundle, source, tmp_path, EVERY, sinks=("events",), backend=slow)  # type: ignore[arg-type]
    frames = lines(tmp_path, "frame")
    assert 0 < summary.stale <= summary.frames < 40
    assert all(row["age_ms"] > 200 for row in frames if row["detector"])
    assert summary.stages["age"]["max"] > 250 and frames[-1]["dropped"] > 0
    last = lines(tmp_path, "mode")[-1]
    assert (last["mode"], last["causes"]) == ("WARN-OFF", ["frames too old"])


def test_a_live_source_that_falls_silent_is_shown_as_not_monitored(bundle: Bundle, tmp_path: Path) -> None:
    source = Source(Script(roads(10), live=True, pause_s=0.01, silence_s=5.0), silence_s=1.0)
    with pytest.raises(InputError, match="delivered nothing for 1 s"):
        run(bundle, source, tmp_path, EVERY, sinks=("events",))
    changes = lines(tmp_path, "mode")
    assert changes[-2]["mode"] == "WARN-OFF" and changes[-2]["causes"] == ["no frames"] and changes[-2]["frame"] == -1
    assert changes[-1]["mode"] == "STOP"
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["mode_seconds"]["WARN-OFF"] > 0.3


# Sinks


def test_tracks_are_written_as_the_motchallenge_has_them(bundle: Bundle, tmp_path: Path) -> None:
    ran(bundle, [lit(p) for p in roads(4)], tmp_path)
    table = np.loadtxt(tmp_path / "tracks.txt", delimiter=",")
    assert table[:, 0].tolist() == [1, 2, 3, 4] and set(table[:, 1]) == {1}
    np.testing.assert_allclose(table[0, 2:6], (28, 20, 16, 16), atol=0.5)
    assert (table[:, 7:] == -1).all()


def test_a_sink_that_blocks_drops_and_counts_and_costs_no_time() -> None:
    gate, got = threading.Event(), list[int]()

    def write(item: int) -> None:
        gate.wait(10)
        got.append(item)

    sink = Background("slow", write, depth=4)
    began = time.perf_counter()
    for i in range(100):
        sink.put(i)
    assert time.perf_counter() - began < 1.0
    gate.set()
    sink.close()
    assert sink.dropped == 100 - len(got) >= 95 and got == sorted(got)
    assert sink.facts()["written"] == len(got)


def test_a_patient_sink_gets_everything() -> None:
    got = list[int]()

    def write(item: int) -> None:
        time.sleep(0.001)
        got.append(item)

    sink = Background("whole", write, depth=2, patient=True)
    for i in range(50):
        sink.put(i)
    sink.close()
    assert got == list(range(50)) and sink.dropped == 0


def test_a_broken_sink_ends_a_recording_but_no_live_run(capsys: pytest.CaptureFixture[str]) -> None:
    def write(item: int) -> None:
        raise OSError("no space left")

    patient = Background("video", write, patient=True)
    with pytest.raises(OSError, match="no space left"):
        for i in range(100):
            patient.put(i)
            time.sleep(0.001)
        patient.close()
    live = Background("video", write)
    for i in range(5):
        live.put(i)
    live.close()
    assert "no space left" in live.facts()["failed"]
    assert capsys.readouterr().err.count("given up") == 1


def test_a_sink_that_never_ends_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecnn.run.sinks.CLOSE_S", 0.1)
    gate = threading.Event()
    sink = Background("stuck", lambda item: gate.wait(10) and None, depth=2)
    sink.put(1)
    sink.close()
    assert "still busy" in sink.facts()["failed"]
    gate.set()


def test_a_run_of_still_pictures_is_no_test_of_the_camera(bundle: Bundle, tmp_path: Path) -> None:
    """The same picture for 2 s is a frozen camera, whatever it shows."""
    summary = ran(bundle, [lamp_picture(4, 3)] * 50, tmp_path)
    assert summary.faults.keys() == {"frozen"}
