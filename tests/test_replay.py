"""A recorded run replays to the same bytes; what changed shows as a table; a damaged recording is one clear line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scripted import EVERY, Script, lines, lit, roads

from edgecnn import cli
from edgecnn.backends import open_backend
from edgecnn.bundle import Bundle
from edgecnn.errors import InputError
from edgecnn.run import Outputs, RunSettings, Source, run_streams
from edgecnn.run import sinks as sink_file
from edgecnn.run.record import HEADER, digest
from edgecnn.run.recording import Recording
from edgecnn.run.replay import replay
from edgecnn.track.tracker import Tracker

ROOT = Path(__file__).resolve().parents[1]
REFERENCES = sorted((ROOT / "tests/fixtures/recordings").iterdir())


def recorded(bundle: Bundle, folder: Path, source: Source, settings: RunSettings = EVERY, backend: Any = None) -> Path:
    """A run with its events in `folder`/out, recorded into `folder`/rec."""
    outputs = Outputs("0", folder / "out", ("events",), record=folder / "rec")
    run_streams(bundle, [(source, outputs)], settings, backend=backend)
    return folder / "rec"


def script(count: int = 90, **more: Any) -> Source:
    return Source(Script([lit(p, 2 + i // 12) for i, p in enumerate(roads(count))], **more))


@pytest.fixture
def recording(bundle: Bundle, tmp_path: Path) -> Path:
    return recorded(bundle, tmp_path, script())


def said(folder: Path) -> bytes:
    """events.jsonl without its first line, which is about the run."""
    return (folder / "events.jsonl").read_bytes().split(b"\n", 1)[1]


# The same bytes


@pytest.mark.parametrize("folder", REFERENCES, ids=lambda folder: folder.name)
def test_reference_recordings_replay_to_the_same_bytes(folder: Path) -> None:
    result = replay(Recording(folder))
    assert result.rows == [] and result.same and result.ended == ""
    assert result.frames > 100 and result.lines > result.frames  # warnings are among them


def test_reference_recordings_are_small() -> None:
    assert sum(file.stat().st_size for folder in REFERENCES for file in folder.iterdir()) < 300_000


def test_a_run_replays_to_the_same_bytes_twice(recording: Path, tmp_path: Path) -> None:
    for again in ("one", "two"):
        result = replay(Recording(recording), out=tmp_path / again)
        assert result.same and (result.frames, result.pictures, result.versions) == (90, 0, {})
        assert said(tmp_path / again) == said(tmp_path / "out")
    assert len(list(recording.glob("*.npz"))) == len(list(recording.glob("*.mkv"))) == 2


def test_clocks_are_recorded(bundle: Bundle, tmp_path: Path) -> None:
    """A live camera, a slow network, a deadline that is missed, a silence, and the end by an error."""
    backend = open_backend(bundle, "fp32", threads=1)

    def slow(feeds: Any) -> Any:
        time.sleep(0.06)
        return backend(feeds)

    source = script(60, live=True, pause_s=0.02, silence_s=0.7, error="unplugged")
    folder = recorded(bundle, tmp_path, source, replace(EVERY, deadline_ms=5.0), slow)
    modes = {line["mode"] for line in lines(tmp_path / "out", "mode")}
    assert {"REDUCED", "WARN-OFF", "STOP"} <= modes and source.dropped > 0
    result = replay(Recording(folder), out=tmp_path / "again")
    assert result.same and result.ended.startswith("unplugged")
    assert said(tmp_path / "again") == said(tmp_path / "out")


def test_invalid_answers_are_recorded_whole(bundle: Bundle, tmp_path: Path) -> None:
    backend, calls = open_backend(bundle, "fp32", threads=1), iter(range(1000))

    def broken(feeds: Any) -> Any:
        answer = backend(feeds)
        return {k: v * np.float32("nan") for k, v in answer.items()} if next(calls) % 9 == 5 else answer

    result = replay(Recording(recorded(bundle, tmp_path, script(40), backend=broken)))
    assert result.same
    assert sum(line["invalid"] != "" for line in lines(tmp_path / "out", "frame")) == 4


def test_a_file_is_named_by_its_hash_and_may_have_moved(bundle: Bundle, tmp_path: Path) -> None:
    from edgecnn.run import open_source

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i, picture in enumerate(roads(12)):
        cv2.imwrite(str(pictures / f"{i:02}.png"), lit(picture))
    folder = recorded(bundle, tmp_path, open_source(str(pictures)))
    assert replay(Recording(folder)).same and not list(folder.glob("*.mkv"))
    pictures.rename(tmp_path / "moved")
    with pytest.raises(InputError, match="--source PATH"):
        replay(Recording(folder))
    assert replay(Recording(folder), source=str(tmp_path / "moved")).same
    cv2.imwrite(str(tmp_path / "moved/03.png"), roads(1)[0])
    with pytest.raises(InputError, match="is not what was recorded"):
        replay(Recording(folder), source=str(tmp_path / "moved"))


def test_a_network_can_answer_anew(recording: Path, bundle: Bundle) -> None:
    assert replay(Recording(recording), bundle).same


# Differences


def test_a_changed_tracker_shows_track_and_field(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Tracker.step

    def shifted(self: Tracker, *args: Any, **more: Any) -> Any:
        tracks = step(self, *args, **more)
        return replace(tracks, xyxy=tracks.xyxy + 1) if len(tracks) else tracks

    monkeypatch.setattr(Tracker, "step", shifted)
    result = replay(Recording(recording))
    assert not result.same
    row = next(row for row in result.rows if row.field == "xyxy")
    np.testing.assert_allclose(np.array(row.now) - row.recorded, 1, atol=0.11)
    assert row.track == 1


def test_the_command_prints_a_table_and_exits_with_9(
    recording: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def called(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["edgecnn", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0)
        raise AssertionError

    assert called("replay", recording) == 0
    assert "same bytes: 90 lines of 90 frames" in capsys.readouterr().out
    frame = sink_file._frame
    monkeypatch.setattr(sink_file, "_frame", lambda *a: {**frame(*a), "late": True})
    assert called("replay", recording) == 9
    told = capsys.readouterr()
    assert [line.split() for line in told.out.splitlines()[:2]] == [
        ["frame", "track", "field", "recorded", "now"],
        ["0", "-", "late", "False", "True"],
    ]
    assert "and 70 more" in told.out and told.err.splitlines()[-1].startswith("error:") and "90 differences" in told.err
    assert called("replay", recording, "--json") == 9
    assert json.loads(capsys.readouterr().out)["differences"] == 90


def test_a_question_that_was_not_asked_ends_the_replay_and_says_so(bundle: Bundle, tmp_path: Path) -> None:
    folder = recorded(bundle, tmp_path, script(30), replace(EVERY, detect_every=3))
    header = json.loads((folder / HEADER).read_text())
    header["settings"]["detect_every"] = 1
    header["sha256"] = digest(header)
    (folder / HEADER).write_text(json.dumps(header))
    result = replay(Recording(folder))
    assert not result.same and result.rows[-1].field == "run" and "did not ask" in result.rows[-1].now


# Damage


def test_truncated_and_flipped_parts_are_one_clear_line(recording: Path, tmp_path: Path) -> None:
    original = (recording / "000000.npz").read_bytes()
    rng = np.random.default_rng(0)
    broken = [original[: int(n)] for n in rng.integers(0, len(original), 15)]
    for at in rng.integers(0, len(original), 40):
        flipped = bytearray(original)
        flipped[at] ^= 1 << int(rng.integers(8))
        broken.append(bytes(flipped))
    refused = 0
    for data in broken:
        (recording / "000000.npz").write_bytes(data)
        try:
            assert replay(Recording(recording)).same  # a bit that no reader looks at
        except InputError as error:
            refused += 1
            assert "000000.npz" in str(error) and "\n" not in str(error)
    assert refused > 45


def test_hostile_recordings_are_refused(recording: Path) -> None:
    part = recording / "000000.npz"
    columns = dict(np.load(part))
    cases: list[tuple[dict[str, Any], str]] = [
        ({**columns, "turns": np.array([{"a": 1}], object)}, "000000.npz"),  # would have to be unpickled
        ({**columns, "values": columns["values"][:-1]}, "numbers of an answer"),
        ({**columns, "rows": columns["rows"] + np.int32(10**6)}, "cells that the answer does not have"),
        ({**columns, "turns": np.frombuffer(b"[1]\n", np.uint8)}, "damaged"),
        ({**columns, "more": columns["rows"]}, "wanted turns, said, rows, values"),
        ({**columns, "values": np.zeros(70 << 20, np.float32)}, "in bytes"),  # 280 MB in 270 kB
    ]
    for made, words in cases:
        np.savez_compressed(part, **made)
        with pytest.raises(InputError, match=words):
            replay(Recording(recording))


def test_headers_that_were_changed_or_forged_are_refused(recording: Path, tmp_path: Path) -> None:
    path = recording / HEADER
    good = json.loads(path.read_text())
    path.write_text(json.dumps({**good, "fps": 7.0}))
    with pytest.raises(InputError, match="changed after it was written"):
        Recording(recording)
    for key, value in (
        ("settings", {"score": 9}),
        ("settings", 3),
        ("model", {}),
        ("versions", []),
        ("camera", {"a": 1}),
    ):
        body = {**good, key: value}
        path.write_text(json.dumps({**body, "sha256": digest(body)}))
        with pytest.raises(InputError, match=HEADER):
            Recording(recording)
    for text in ("", "[", "null", '{"format": 2}'):
        path.write_text(text)
        with pytest.raises(InputError, match=HEADER):
            Recording(recording)
    with pytest.raises(InputError, match="is no recording"):
        Recording(tmp_path / "nowhere")


def test_a_missing_part_a_lost_film_and_a_second_recording_are_told(recording: Path, bundle: Bundle) -> None:
    (recording / "000001.mkv").write_bytes(b"no film")
    with pytest.raises(InputError, match=r"000001.mkv has no picture for frame 64"):
        replay(Recording(recording))
    (recording / "000000.npz").unlink()
    with pytest.raises(InputError, match="is missing, though later parts are there"):
        replay(Recording(recording))
    with pytest.raises(InputError, match="holds a recording already"):
        recorded(bundle, recording.parent, script(3))


def test_what_kill_9_leaves_replays(bundle: Bundle, tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from pathlib import Path; from edgecnn.bundle import Bundle; from test_replay import recorded, script\n"
        "recorded(Bundle.read(sys.argv[1]), Path(sys.argv[2]), script(400, pause_s=0.01))"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(bundle.path), str(tmp_path)], cwd=ROOT)
    while not (tmp_path / "rec/000001.npz").exists():
        assert child.poll() is None
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    result = replay(Recording(tmp_path / "rec"))
    assert result.same and result.ended == "cut short" and 128 <= result.frames < 400
    shutil.rmtree(tmp_path / "rec")
