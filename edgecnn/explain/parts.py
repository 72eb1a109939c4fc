"""Parts of pictures, marked in a CSV: which places of different pictures show the same."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgecnn.bundle import ModelSpec
from edgecnn.data.files import read_text
from edgecnn.errors import InputError
from edgecnn.scene import Letterbox

if TYPE_CHECKING:
    from edgecnn.explain.correspondence import Box

COLUMNS = ("picture", "part", "x", "y", "width", "height")


def read_parts(
    path: Path, pictures: Sequence[Path], boxes: Sequence[Letterbox], spec: ModelSpec, fewest: int
) -> dict[str, dict[int, Box]]:
    """Part → number of the picture → its box, in px of the network's input. The CSV has px of the picture's file, which
    it names by the end of its path: a.png, or 00/a.png where several are called a.png.

    Raises InputError for a file that is no such CSV, a picture that was not given, a part outside of its picture's
    place in the input, and a part that is marked in fewer than `fewest` pictures.
    """
    reader = csv.DictReader(read_text(path, f"a CSV of {', '.join(COLUMNS)}").splitlines())
    if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
        raise InputError(f"{path} lacks the column {missing[0]}", wanted=", ".join(COLUMNS))
    found: dict[str, dict[int, Box]] = {}
    for line, row in enumerate(reader, 2):
        named = Path(row["picture"] or "?").parts
        numbers = [i for i, picture in enumerate(pictures) if picture.parts[-len(named) :] == named]
        if len(numbers) != 1:
            what = "is several of the pictures" if numbers else "is not among the pictures"
            raise InputError(f"{path} line {line}: '{row['picture']}' {what}", wanted="the end of one picture's path")
        number = numbers[0]
        try:
            x, y, width, height = (float(row[name]) for name in COLUMNS[2:])
        except (TypeError, ValueError):
            raise InputError(f"{path} line {line} has no whole box", wanted="x, y, width, height in px") from None
        frame = np.array([[x, y, x + width, y + height]], np.float32)
        limit = np.array([spec.width, spec.height] * 2)
        left, top, right, bottom = np.round(np.clip(boxes[number].to_net(frame)[0], 0, limit)).astype(int).tolist()
        if right <= left or bottom <= top:
            raise InputError(
                f"{path} line {line}: '{row['part']}' has no pixel of the network's input",
                wanted=f"a larger box inside of {row['picture']}",
            )
        found.setdefault(row["part"], {})[number] = (left, top, right - left, bottom - top)
    for part, places in found.items():
        if len(places) < fewest:
            raise InputError(f"{path} marks '{part}' in {len(places)} pictures", wanted=f"{fewest} or more")
    if not found:
        raise InputError(f"{path} marks nothing", wanted="a line a part and picture")
    return found
