"""Whole runs with faults of camera, network, clock and source: what is told, and that tracks go on."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from scripted import EVERY, FPS, PERIOD_NS, Script, lines, lit, ran, road, roads
from tiny_detector import CELLS, HEIGHT, WIDTH, lamp_picture

from edgecnn.backends import FRAME, open_backend
from edgecnn.bundle import Bundle
from edgecnn.errors import InputError, ModelError
from edgecnn.run import RunSettings, Source, run


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
        ("frozen", lambda i, p: road(20)),
    ],
)
def test_a_faulty_camera_is_told_within_a_second_and_over_after_it(
    fault: str, spoil: Any, bundle: Bundle, tmp_path: Path
) -> None:
    pictures = roads(145, lambda i, p: spoil(i, p) if 20 <= i < 55 else p)
    summary = ran(bundle, pictures, tmp_path)
    first, *rest = lines(tmp_path, "mode")
    assert (first["mode"], first["causes"]) == ("WARN-OFF", [fault])
    assert 20 < first["frame"] <= 20 + FPS
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

    script = Script(roads(110), times_ns=[i * 100_000_000 for i in range(110)])
    with pytest.raises(ModelError, match="no valid answer for 10 s"):
        run(bundle, Source(script), tmp_path, EVERY, sinks=("events",), backend=broken)  # type: ignore[arg-type]
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


def test_a_run_of_still_pictures_is_no_test_of_the_camera(bundle: Bundle, tmp_path: Path) -> None:
    """The same picture for 2 s is a frozen camera, whatever it shows."""
    summary = ran(bundle, [lamp_picture(4, 3)] * 50, tmp_path)
    assert summary.faults.keys() == {"frozen"}


def test_a_video_plays_up_to_about_where_the_recording_was_killed(tmp_path: Path) -> None:
    """`kill -9` after 100 frames at 25 a second: fragments last a second, and the encoder holds back some frames."""
    code = f"""
import os, signal
from pathlib import Path
import numpy as np
from edgecnn.run.sinks import VideoSink
sink = VideoSink(Path({str(tmp_path)!r}) / "annotated.mp4", 25.0)
for i in range(100):
    sink.write(np.full((64, 96, 3), 2 * i, np.uint8), round(i * 4e7))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code])
    assert done.returncode == -9
    (left,) = tmp_path.iterdir()
    with av.open(str(left), format="mp4") as container:
        times = [float(frame.time) for frame in container.decode(video=0)]
    assert 25 <= len(times) < 100
    # B frames stand behind the one that they look forward to: of the last ones some are missing
    np.testing.assert_allclose(np.diff(times)[:-4], 0.04, atol=1e-4)
