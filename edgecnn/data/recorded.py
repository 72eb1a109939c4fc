"""Recorded detections and tracks as text: MOTChallenge's, KITTI tracking's, and AB3DMOT's detections.

MOTChallenge (Leal-Taixé et al. 2015, arXiv:1504.01942): frame from 1, id, left, top, width, height, score; commas.
KITTI (Geiger et al. 2012, its tracking devkit): frame from 0, id, type, three numbers, left, top, right, bottom, seven
numbers, score; spaces.
AB3DMOT's PointRCNN files: frame from 0, type, left, top, right, bottom, logit, eight numbers in 3D; commas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from edgecnn.bundle import atomic
from edgecnn.data.classes import IGNORED
from edgecnn.data.files import parse_lines
from edgecnn.data.kitti import read_tracking
from edgecnn.data.mot import MOST_FRAMES, read_gt
from edgecnn.errors import InputError
from edgecnn.scene import Detections, Tracks, Truth

Format = Literal["mot", "kitti"]
AB3DMOT = {1: "Pedestrian", 2: "Car", 3: "Cyclist"}
SIMILAR = {"Car": "Van", "Pedestrian": "Person_sitting"}  # KITTI: neither hit nor miss
AB3DMOT_WORDS, KITTI_WORDS, MOT_WORDS = 15, 17, 7
FIRST: dict[Format, int] = {"mot": 1, "kitti": 0}  # number of the first frame


class Row(NamedTuple):
    frame: int
    name: str
    xyxy: tuple[float, float, float, float]
    score: float


@dataclass(frozen=True)
class Recording:
    """Detections of each frame, those without any included."""

    frames: tuple[Detections, ...]
    classes: tuple[str, ...]
    format: Format  # in which tracks of it are written


def read_detections(path: Path) -> Recording:
    """Scores outside [0, 1] are scaled from the least to the greatest of the file; AB3DMOT's are logits.

    Raises InputError for a missing or empty file or a malformed line.
    """
    rows = list(parse_lines(path, "lines of MOTChallenge, KITTI tracking or AB3DMOT detections", _row))
    if not rows:
        raise InputError(f"{path} is empty", wanted="detections")
    format: Format = "mot" if rows[0].name == "" else "kitti"
    if any((row.name == "") != (format == "mot") for row in rows):
        raise InputError(f"{path} mixes MOTChallenge and KITTI lines", wanted="one format")
    classes = tuple(dict.fromkeys(row.name or "object" for row in rows))
    first = FIRST[format]
    least, last = min(row.frame for row in rows), max(row.frame for row in rows)
    if least < first or last > MOST_FRAMES:
        raise InputError(f"{path} speaks of frames {least} to {last}", wanted=f"frames from {first} on, at most 10⁶")
    scores = np.array([row.score for row in rows])
    low, high = (0.0, 1.0) if scores.min() >= 0 and scores.max() <= 1 else (scores.min(), scores.max())
    by_frame: list[list[int]] = [[] for _ in range(last - first + 1)]
    for i, row in enumerate(rows):
        by_frame[row.frame - first].append(i)
    boxes = np.array([row.xyxy for row in rows], np.float32)
    score = ((scores - low) / max(high - low, 1e-9)).astype(np.float32)
    label = np.array([classes.index(row.name or "object") for row in rows], np.int64)
    return Recording(tuple(Detections(boxes[i], score[i], label[i]) for i in map(_index, by_frame)), classes, format)


def read_truth(path: Path, recording: Recording) -> list[Truth]:
    """A Truth a frame of the recording, in its format and with its labels: MOTChallenge's gt.txt or KITTI's label_02.

    KITTI: what is alike (a van beside cars, a seated person beside pedestrians) and DontCare are ignored places, other
    classes are left out. Raises InputError.
    """
    if recording.format == "mot":
        frames = read_gt(path)
    else:
        names = {name: i for i, name in enumerate(recording.classes)}
        alike = {SIMILAR[name]: IGNORED for name in names if name in SIMILAR}
        frames = read_tracking(path, classes={"DontCare": IGNORED, **alike, **names})
    nothing = Truth.of(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    return frames + [nothing] * (len(recording.frames) - len(frames))


def write_tracks(path: Path, frames: Sequence[Tracks], recording: Recording) -> None:
    """A line a track and frame, in the recording's format; atomically."""
    lines = []
    for number, tracks in enumerate(frames, FIRST[recording.format]):
        if recording.format == "mot":
            lines += mot_lines(number, tracks)
            continue
        for id, (left, top, right, bottom), score, label in zip(
            tracks.id, tracks.xyxy.astype(float), tracks.score, tracks.label, strict=True
        ):
            box = f"{left:.2f} {top:.2f} {right:.2f} {bottom:.2f}"
            unknown = "-1 -1 -1 -1000 -1000 -1000 -10"
            lines.append(f"{number} {id} {recording.classes[label]} -1 -1 -10 {box} {unknown} {score:.4f}")
    with atomic(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def mot_lines(number: int, tracks: Tracks) -> list[str]:
    """MOTChallenge's text of the frame `number`, from 1: number, id, left, top, width, height, score."""
    return [
        f"{number},{id},{left:.2f},{top:.2f},{right - left:.2f},{bottom - top:.2f},{score:.4f},-1,-1,-1"
        for id, (left, top, right, bottom), score in zip(
            tracks.id, tracks.xyxy.astype(float), tracks.score, strict=True
        )
    ]


def _index(rows: list[int]) -> np.ndarray:
    return np.array(rows, np.int64)


def _row(line: str) -> Row:
    if "," not in line:
        return _kitti(line.split())
    words = [float(word) for word in line.split(",")]
    if len(words) == AB3DMOT_WORDS:
        if words[1] not in AB3DMOT:
            raise ValueError(f"type {words[1]:g} is none of {', '.join(map(str, AB3DMOT))}")
        return _checked(Row(int(words[0]), AB3DMOT[int(words[1])], _box(*words[2:6]), 1 / (1 + math.exp(-words[6]))))
    if len(words) < MOT_WORDS:
        raise ValueError(f"{len(words)} numbers instead of at least {MOT_WORDS}")
    left, top, width, height = words[2:6]
    return _checked(Row(int(words[0]), "", _box(left, top, left + width, top + height), words[6]))


def _kitti(words: list[str]) -> Row:
    if len(words) < KITTI_WORDS:
        raise ValueError(f"{len(words)} words instead of at least {KITTI_WORDS}")
    score = float(words[KITTI_WORDS]) if len(words) > KITTI_WORDS else 1.0
    return _checked(Row(int(words[0]), words[2], _box(*map(float, words[6:10])), score))


def _box(left: float, top: float, right: float, bottom: float) -> tuple[float, float, float, float]:
    return left, top, right, bottom


def _checked(row: Row) -> Row:
    if not all(map(math.isfinite, (*row.xyxy, row.score))):
        raise ValueError("not finite")
    if row.xyxy[2] < row.xyxy[0] or row.xyxy[3] < row.xyxy[1]:
        raise ValueError("a box of negative size")
    return row
