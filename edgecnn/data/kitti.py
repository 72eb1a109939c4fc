"""KITTI detection (`image_2`, `label_2`) and tracking (`label_02`): Geiger et al. 2012, formats of its devkit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecnn.data.classes import Naming
from edgecnn.data.files import Rows, parse_lines, pictures_in, read_picture
from edgecnn.data.sample import Sample
from edgecnn.errors import InputError
from edgecnn.scene import Truth

OWN = ("Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc")
VISIBLE = {0: 1.0, 1: 0.6, 2: 0.25}  # of `occluded`: fully visible, partly, largely hidden; 3 = unknown


@dataclass(frozen=True)
class _Label:
    name: str
    xyxy: tuple[float, float, float, float]
    visibility: float
    distance_m: float


def _label(words: list[str]) -> _Label:
    """type truncated occluded alpha left top right bottom height width length x y z rotation_y"""
    if len(words) < 15:
        raise ValueError(f"{len(words)} words instead of 15")
    left, top, right, bottom, _, width, length, _, _, z, turn = map(float, words[4:15])
    if right < left or bottom < top:
        raise ValueError("right < left or bottom < top")
    reach = (length * abs(math.sin(turn)) + width * abs(math.cos(turn))) / 2  # rotation_y 0 faces across the road
    occluded = int(float(words[2]))
    return _Label(
        words[0], (left, top, right, bottom), VISIBLE.get(occluded, 1.0), max(z - reach, 0.0) if z > 0 else np.nan
    )


class Kitti:
    """`path`: the folder with image_2 and label_2 (also inside training/). DontCare becomes an ignored place, label -1.

    distance_m is that of the nearest face. Raises InputError for a missing folder or label file or a malformed line.
    """

    def __init__(self, path: Path, *, raw: bool = False, classes: Mapping[str, int] | None = None) -> None:
        root = path / "training" if (path / "training").is_dir() else path
        self._labels = root / "label_2"
        if not self._labels.is_dir():
            raise InputError(f"no label_2 in {path}", wanted="a KITTI folder with image_2 and label_2")
        self._pictures = pictures_in(root / "image_2")
        self._naming = Naming.of("kitti", OWN, raw=raw, classes=classes)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._naming.classes

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, i: int) -> Sample:
        path = self._pictures[i]
        rows = Rows(self._naming)
        labels = self._labels / f"{path.stem}.txt"
        for a in parse_lines(labels, "a KITTI label of 15 words", lambda line: _label(line.split())):
            rows.add(a.name, a.xyxy, visibility=a.visibility, distance_m=a.distance_m)
        return Sample(path.stem, read_picture(path), rows.truth())


def read_tracking(path: Path, *, raw: bool = False, classes: Mapping[str, int] | None = None) -> list[Truth]:
    """One `label_02/NNNN.txt`: a Truth a frame, from frame 0 to the last labelled one.

    Raises InputError for a missing file or a malformed line.
    """
    naming = Naming.of("kitti", OWN, raw=raw, classes=classes)
    frames: dict[int, Rows] = {}

    def parse(line: str) -> tuple[int, int, _Label]:
        words = line.split()
        return int(words[0]), int(words[1]), _label(words[2:])

    for frame, id, a in parse_lines(path, "a KITTI tracking label of 17 words", parse):
        rows = frames.setdefault(frame, Rows(naming))
        rows.add(a.name, a.xyxy, id=id, visibility=a.visibility, distance_m=a.distance_m)
    return [frames.get(i, Rows(naming)).truth() for i in range(max(frames, default=-1) + 1)]
