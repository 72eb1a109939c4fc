"""Calibration lists: which pictures the INT8 ranges are measured on, by name and sha256, not the pictures themselves.

A list is JSON (and so YAML too, whatever its suffix):

    {"format": 1, "note": "…", "pictures": [
      {"sim": [9200, 0], "sha256": "…", "origin": "road simulator"},
      {"path": "frames/000001.png", "sha256": "…", "origin": "own recording, 2024-05-03"}]}

Paths count from the list's own folder. The sha256 of a still is that of its pixels, of a file that of its bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.bundle import atomic
from edgecnn.data.classes import CLASSES
from edgecnn.data.files import SUFFIXES, read_picture, read_text
from edgecnn.data.folder import Folder, Sorted
from edgecnn.data.sample import Dataset, Sample
from edgecnn.errors import InputError
from edgecnn.scene import Picture, Truth

FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """One picture of a list: either a file or a still of the simulator."""

    sha256: str
    origin: str
    path: Path | None = None
    sim: tuple[int, int] | None = None  # seed, index


def pixel_hash(bgr: Picture) -> str:
    """sha256 of shape and pixels."""
    return hashlib.sha256(repr(bgr.shape).encode() + np.ascontiguousarray(bgr).tobytes()).hexdigest()


class CalibrationList:
    """The pictures of a list. Files are held against their sha256 when they are read.

    A still whose pixels differ was drawn by another version of the simulator or of OpenCV; that is still a road, so it
    counts in `changed` instead of stopping a calibration.
    """

    classes = CLASSES

    def __init__(self, path: Path, entries: Sequence[Entry]) -> None:
        self.path, self.entries = path, tuple(entries)
        self.changed = 0

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, i: int) -> Sample:
        """Raises InputError for a file that is missing or has changed."""
        entry = self.entries[i]
        if entry.sim is not None:
            from edgecnn.data.simulator import still

            sample = still(*entry.sim)
            self.changed += pixel_hash(sample.bgr) != entry.sha256
            return sample
        assert entry.path is not None
        file = self.path.parent / entry.path
        bgr = read_picture(file)
        if hashlib.sha256(file.read_bytes()).hexdigest() != entry.sha256:
            raise InputError(f"{file} is not the picture that {self.path} lists", wanted=f"sha256 {entry.sha256[:12]}…")
        return Sample(entry.path.stem, bgr, Truth.of(np.zeros((0, 4), np.float32), np.zeros(0, np.int64)))

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))


def open_list(path: Path | str) -> CalibrationList:
    """Raises InputError where the list is missing, empty, or an entry is malformed."""
    path = Path(path)
    try:
        content = json.loads(read_text(path, "a calibration list"))
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path} line {error.lineno} is no JSON ({error.msg})", wanted="a calibration list in JSON"
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or not content.get("pictures"):
        raise InputError(f"{path} is no calibration list", wanted=f'{{"format": {FORMAT}, "pictures": […]}}')
    return CalibrationList(path, [_entry(path, n, row) for n, row in enumerate(content["pictures"], 1)])


def _entry(path: Path, number: int, row: Any) -> Entry:
    try:
        sim = tuple(int(v) for v in row["sim"]) if "sim" in row else None
        if sim is not None and len(sim) != 2:
            raise ValueError("sim is seed and index")
        file = None if sim else Path(row["path"])
        return Entry(str(row["sha256"]), str(row.get("origin", "")), file, sim)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} picture {number} is malformed ({type(error).__name__}: {error})",
            wanted='{"sim": [seed, index] or "path": …, "sha256": …, "origin": …}',
        ) from None


def write_list(path: Path, entries: Sequence[Entry], note: str) -> None:
    """Write a list, whole or not at all."""
    rows = []
    for entry in entries:
        where = {"sim": list(entry.sim)} if entry.sim is not None else {"path": (entry.path or Path()).as_posix()}
        rows.append(json.dumps({**where, "sha256": entry.sha256, "origin": entry.origin}))
    head = f'{{"format": {FORMAT}, "note": {json.dumps(note)}, "pictures": [\n'
    with atomic(path) as temporary:
        temporary.write_text(head + ",\n".join(rows) + "\n]}\n", "utf-8")


def open_pictures(path: Path) -> Dataset:
    """A calibration list; or a folder of pictures, or of one folder a class, which then are the labels.

    Raises InputError where it is neither.
    """
    if path.is_file() and path.suffix.lower() != ".zip":
        return open_list(path)
    if path.is_dir() and any(p.suffix.lower() in SUFFIXES for p in path.iterdir()):
        return Folder(path)
    return Sorted(path)


def list_stills(seed: int, indices: Sequence[int]) -> list[Entry]:
    """Entries of simulator stills with the hashes of their pixels."""
    from edgecnn.data.simulator import still

    return [Entry(pixel_hash(still(seed, i).bgr), "road simulator", sim=(seed, i)) for i in indices]


def list_files(folder: Path, files: Sequence[Path], origin: str) -> list[Entry]:
    """Entries of picture files, for a list that is written to the folder."""
    places = [Path(os.path.relpath(file, folder)) for file in files]
    return [
        Entry(hashlib.sha256(file.read_bytes()).hexdigest(), origin, path=place)
        for file, place in zip(files, places, strict=True)
    ]
