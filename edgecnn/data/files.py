"""What every reader does the same way: pictures, lines, and rows that become a Truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from edgecnn.data.classes import DROPPED, IGNORED, Naming
from edgecnn.errors import InputError
from edgecnn.scene import Picture, Truth

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp")
T = TypeVar("T")


class BrokenPicture(InputError):
    """One picture that can't be read; who reads many of them may go on without it."""


def read_picture(path: Path) -> Picture:
    """(H, W, 3) BGR. Raises BrokenPicture for a missing, empty, truncated or foreign file."""
    if not path.is_file():
        raise BrokenPicture(f"no picture at {path}")
    return decode(path.read_bytes(), str(path))


def decode(data: bytes, name: str) -> Picture:
    """(H, W, 3) BGR from the bytes of a picture file. Raises BrokenPicture for an empty, truncated or foreign one."""
    if not data:
        raise BrokenPicture(f"{name} is empty", wanted="a picture")
    # The decoders fill the missing part of a cut file with grey and say so on stderr only.
    end = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND"}.get(data[:2])
    if end and end not in data[-4096:]:
        raise BrokenPicture(f"{name} is truncated: its last {end!r} is missing", do="Copy the file again")
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise BrokenPicture(f"{name} is no picture that OpenCV reads", wanted=", ".join(s[1:] for s in SUFFIXES))
    return np.asarray(bgr, np.uint8)


def pictures_in(folder: Path) -> list[Path]:
    """All pictures of a folder, by name. Raises InputError if there is no folder, or none in it."""
    if not folder.is_dir():
        raise InputError(f"no folder {folder}", wanted="a folder of pictures")
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not found:
        raise InputError(f"no picture in {folder}", wanted=", ".join(s[1:] for s in SUFFIXES))
    return found


def read_text(path: Path, what: str) -> str:
    """Raises InputError for a missing or binary file."""
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise InputError(f"there is no {path}", wanted=what) from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise InputError(f"{path} is not text", wanted=what) from None


def parse_lines(path: Path, what: str, parse: Callable[[str], T]) -> Iterator[T]:
    """`parse` of every line that is not blank. ValueError and IndexError become an InputError with file and line."""
    for number, line in enumerate(read_text(path, what).splitlines(), 1):
        if line.strip():
            try:
                yield parse(line)
            except (ValueError, IndexError) as error:
                raise InputError(f"{path} line {number}: {line.strip()[:60]!r} ({error})", wanted=what) from None


class Rows:
    """Objects of one picture, collected row by row."""

    def __init__(self, naming: Naming) -> None:
        self._naming = naming
        self._boxes: list[tuple[float, float, float, float]] = []
        self._columns: list[tuple[int, int, float, bool, float]] = []

    def add(
        self,
        name: str,
        xyxy: tuple[float, float, float, float],
        *,
        id: int = -1,
        visibility: float = 1.0,
        ignore: bool = False,
        distance_m: float = np.nan,
    ) -> None:
        """One object under its name in the file; those that are no road users are left out."""
        label = self._naming.label(name)
        if label == DROPPED:
            return
        self._boxes.append(xyxy)
        if label == IGNORED:
            label, ignore = -1, True
        self._columns.append((label, id, visibility, ignore, distance_m))

    def truth(self) -> Truth:
        """Ignored places without a class have label -1."""
        label, id, visibility, ignore, distance = zip(*self._columns, strict=True) if self._columns else ((),) * 5
        return Truth.of(
            np.array(self._boxes, np.float32),
            np.array(label, np.int64),
            id=np.array(id, np.int64),
            visibility=np.array(visibility, np.float32),
            ignore=np.array(ignore, bool),
            distance_m=np.array(distance, np.float32),
        )
