"""Several streams side by side, and sinks that block, fail or wait."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import EVERY, Script, lines, lit, ran, roads

from edgecnn.backends import open_backend
from edgecnn.bundle import Bundle
from edgecnn.run import Outputs, Source, run_streams
from edgecnn.run.sinks import Background

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
