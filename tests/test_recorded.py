"""Recorded detections and tracks as text, and the command that makes one of the other."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from edgecnn import cli
from edgecnn.data.recorded import read_detections, read_truth, write_tracks
from edgecnn.errors import InputError
from edgecnn.track import METHODS
from edgecnn.track.offline import follow

KITTI = "{} -1 Car 0 0 -10 {} 100 {} 140 1.5 1.6 4 1 1 20 0 {}\n"


def mot(frames: int, gap: range = range(0)) -> str:
    """Two objects that drive past each other; the second is not detected in `gap`."""
    lines = []
    for k in range(1, frames + 1):
        lines.append(f"{k},-1,{100 + 5 * k},50,40,80,0.9,-1,-1,-1\n")
        if k not in gap:
            lines.append(f"{k},-1,{500 - 5 * k},120,40,80,0.8,-1,-1,-1\n")
    return "".join(lines)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["edgecnn", "track", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_mot_and_kitti_lines_mean_the_same(tmp_path: Path) -> None:
    (tmp_path / "mot.txt").write_text("1,-1,10,100,30,40,0.5,-1,-1,-1\n3,-1,20,100,30,40,1,-1,-1,-1\n")
    (tmp_path / "kitti.txt").write_text(KITTI.format(0, 10, 40, 0.5) + KITTI.format(2, 20, 50, 1.0))
    one, other = (read_detections(tmp_path / f"{name}.txt") for name in ("mot", "kitti"))
    assert [len(f) for f in one.frames] == [len(f) for f in other.frames] == [1, 0, 1]
    assert one.frames[2].xyxy.tolist() == other.frames[2].xyxy.tolist() == [[20, 100, 50, 140]]
    assert one.frames[0].score.tolist() == other.frames[0].score.tolist() == [0.5]
    assert (one.classes, one.format, other.classes, other.format) == (("object",), "mot", ("Car",), "kitti")


def test_logits_of_ab3dmot_become_scores_and_other_scores_are_scaled(tmp_path: Path) -> None:
    path = tmp_path / "d.txt"
    path.write_text("0,2,1,2,3,4,0.0,1,1,1,1,1,1,1,1\n")
    recording = read_detections(path)
    assert recording.classes == ("Car",) and recording.frames[0].score.tolist() == [0.5]
    path.write_text("1,-1,0,0,9,9,-2,-1,-1,-1\n1,-1,50,0,9,9,6,-1,-1,-1\n1,-1,90,0,9,9,2,-1,-1,-1\n")
    assert read_detections(path).frames[0].score.tolist() == [0.0, 1.0, 0.5]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("1,-1,1,2\n", "line 1"),
        ("1,-1,1,2,3,4,nan,-1,-1,-1\n", "not finite"),
        ("1,-1,1,2,-3,4,0.5,-1,-1,-1\n", "negative size"),
        ("0,-1,1,2,3,4,0.5,-1,-1,-1\n", "frames 0 to 0"),
        ("9999999,-1,1,2,3,4,0.5,-1,-1,-1\n", "frames 9999999"),
        ("1,-1,1,2,3,4,0.5,-1,-1,-1\n" + KITTI.format(0, 10, 40, 0.5), "mixes"),
        ("what is this\n", "3 words instead of at least 17"),
        ("0,9,1,2,3,4,0.0,1,1,1,1,1,1,1,1\n", "line 1"),
    ],
)
def test_bad_files_are_told_by_their_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "d.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_detections(path)


def test_written_tracks_are_read_again(tmp_path: Path) -> None:
    for name, text in (("mot", mot(12)), ("kitti", "".join(KITTI.format(k, 10 + k, 50 + k, 0.9) for k in range(12)))):
        source, out = tmp_path / f"{name}.txt", tmp_path / f"{name}-tracks.txt"
        source.write_text(text)
        recording = read_detections(source)
        tracks = follow(recording.frames, METHODS["bytetrack"], 25.0)
        write_tracks(out, tracks, recording)
        again = read_detections(out)
        assert (again.format, again.classes) == (recording.format, recording.classes)
        for written, read in zip(tracks, again.frames, strict=True):
            assert read.xyxy == pytest.approx(written.xyxy, abs=0.02)


@pytest.mark.parametrize("method", list(METHODS))
def test_the_command_numbers_objects_and_scores_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, method: str
) -> None:
    (tmp_path / "det.txt").write_text(mot(30))
    gt = "".join(
        f"{k},1,{100 + 5 * k},50,40,80,1,-1,-1,-1\n{k},7,{500 - 5 * k},120,40,80,1,-1,-1,-1\n" for k in range(1, 31)
    )
    (tmp_path / "gt.txt").write_text(gt)
    out = tmp_path / "tracks.txt"
    code = run(
        monkeypatch, tmp_path / "det.txt", "--out", out, "--method", method, "--truth", tmp_path / "gt.txt", "--json"
    )
    data = json.loads(capsys.readouterr().out)
    assert code == 0 and data["tracks"] == 2 and data["frames"] == 30
    assert data["figures"]["IDF1"] > 0.9 and data["figures"]["switches"] == 0
    ids = {line.split(",")[1] for line in out.read_text().splitlines()}
    assert len(ids) == 2


def test_an_object_found_again_keeps_its_number_but_not_by_sort(tmp_path: Path) -> None:
    (tmp_path / "det.txt").write_text(mot(40, gap=range(15, 21)))
    recording = read_detections(tmp_path / "det.txt")
    many = {name: len({i for f in follow(recording.frames, s, 25.0) for i in f.id}) for name, s in METHODS.items()}
    assert many == {"bytetrack": 2, "sort": 3, "ocsort": 2}


def test_nothing_is_written_for_a_bad_truth(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "det.txt").write_text(mot(3))
    (tmp_path / "gt.txt").write_text("nonsense\n")
    code = run(monkeypatch, tmp_path / "det.txt", "--out", tmp_path / "t.txt", "--truth", tmp_path / "gt.txt")
    assert code == 3 and "gt.txt line 1" in capsys.readouterr().err and not (tmp_path / "t.txt").exists()


def test_kitti_truth_ignores_what_is_alike(tmp_path: Path) -> None:
    (tmp_path / "det.txt").write_text(KITTI.format(0, 10, 40, 0.9))
    lines = [
        KITTI.format(0, 10, 40, "").replace(" -1 Car", f" {i} {name}")
        for i, name in enumerate(("Car", "Van", "DontCare", "Cyclist"))
    ]
    (tmp_path / "gt.txt").write_text("".join(lines))
    (truth,) = read_truth(tmp_path / "gt.txt", read_detections(tmp_path / "det.txt"))
    assert truth.ignore.tolist() == [False, True, True] and truth.label.tolist() == [0, -1, -1]
    assert np.isfinite(truth.xyxy).all()
