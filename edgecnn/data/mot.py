"""MOTChallenge sequences: seqinfo.ini, gt/gt.txt, img1 (Leal-Taixé et al. 2015, arXiv:1504.01942)."""

from __future__ import annotations

import configparser
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecnn.data.classes import CLASSES, PERSON
from edgecnn.data.files import parse_lines, read_picture, read_text
from edgecnn.data.sample import Sample
from edgecnn.errors import InputError
from edgecnn.scene import Truth

MOST_FRAMES = 10**6  # a frame number beyond is a wrong column
PEDESTRIAN, DISTRACTORS = 1, (2, 7, 8, 12)  # classes of MOT16 and later; 12 = reflection


@dataclass(frozen=True)
class SequenceInfo:
    """What seqinfo.ini says."""

    name: str
    fps: float
    frames: int
    width: int  # px
    height: int  # px
    pictures: str  # folder
    suffix: str


def read_seqinfo(folder: Path) -> SequenceInfo:
    """Raises InputError where the file is missing or lacks a key."""
    path = folder / "seqinfo.ini"
    parser = configparser.ConfigParser()
    try:
        parser.read_string(read_text(path, "a MOTChallenge seqinfo.ini"))
        section = parser["Sequence"]
        return SequenceInfo(
            section.get("name", folder.name), section.getfloat("frameRate", 25.0), int(section["seqLength"]),
            int(section["imWidth"]), int(section["imHeight"]), section.get("imDir", "img1"),
            section.get("imExt", ".jpg"),
        )  # fmt: skip
    except (configparser.Error, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path} is malformed ({reason})", wanted="[Sequence] with seqLength, imWidth, imHeight"
        ) from None


class Mot:
    """`path`: the folder of one sequence. Everything in it is a person.

    Rows flagged 0 are left out (2015) or ignored places (later), as are MOT16's static or reflected people.

    Raises InputError for a missing folder, a malformed line, or, when a picture is asked for, a missing picture.
    """

    classes = CLASSES

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise InputError(f"no folder {path}", wanted="a MOTChallenge sequence")
        self.path, self.info = path, read_seqinfo(path)
        self._truth: list[Truth] | None = None

    def __len__(self) -> int:
        return self.info.frames

    def __getitem__(self, i: int) -> Sample:
        if self._truth is None:
            self._truth = self.truth()
        name = f"{range(len(self))[i] + 1:06d}"
        return Sample(name, read_picture(self.path / self.info.pictures / f"{name}{self.info.suffix}"), self._truth[i])

    def truth(self) -> list[Truth]:
        """A Truth a frame, without pictures."""
        path = self.path / "gt" / "gt.txt"
        frames = read_gt(path)
        if len(frames) > len(self):
            raise InputError(f"{path} speaks of frame {len(frames)}", wanted=f"frames 1 to {len(self)} (seqLength)")
        return frames + [_truth([])] * (len(self) - len(frames))


def read_gt(path: Path) -> list[Truth]:
    """A gt.txt by itself: a Truth a frame, from frame 1 to the last labelled one. Raises InputError."""
    frames: dict[int, list[tuple[float, ...]]] = {}
    for row in parse_lines(path, "frame,id,left,top,width,height,flag,…", _numbers):
        if not 1 <= row[0] <= MOST_FRAMES:
            raise InputError(f"{path} speaks of frame {row[0]:g}", wanted="frames from 1 on, at most 10⁶")
        frames.setdefault(int(row[0]), []).append(row)
    return [_truth(frames.get(k, [])) for k in range(1, max(frames, default=0) + 1)]


def _numbers(line: str) -> tuple[float, ...]:
    row = tuple(float(word) for word in line.split(","))
    if len(row) < 7:
        raise ValueError(f"{len(row)} numbers instead of at least 7")
    return row


def _xyxy(table: np.ndarray) -> np.ndarray:
    return np.concatenate((table[:, 2:4], table[:, 2:4] + table[:, 4:6]), 1)


def _truth(rows: list[tuple[float, ...]]) -> Truth:
    """The 2015 files have 10 columns without class and visibility, later ones 9 with both.

    What is flagged 0 is left out of the former and an ignored place in the latter, as MOTChallenge's evaluation has it.
    """
    later = [row for row in rows if len(row) == 9]
    rows = [row for row in rows if (int(row[7]) in (PEDESTRIAN, *DISTRACTORS) if len(row) == 9 else row[6] != 0)]
    table = np.array([row[:7] for row in rows], np.float32).reshape(-1, 7)
    kind = np.array([int(row[7]) if later else PEDESTRIAN for row in rows], np.int64)
    visible = np.array([row[8] if later else 1.0 for row in rows], np.float32)
    return Truth.of(
        _xyxy(table),
        np.full(len(rows), PERSON, np.int64),
        id=table[:, 1].astype(np.int64),
        visibility=visible,
        ignore=(table[:, 6] == 0) | (kind != PEDESTRIAN),
    )
