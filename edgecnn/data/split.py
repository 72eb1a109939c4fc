"""Which pictures of a classification set are for training, testing and validation; and what to do about broken ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgecnn.data.files import BrokenPicture
from edgecnn.data.sample import Dataset, Sample
from edgecnn.errors import InputError
from edgecnn.progress import note

Part = Literal["all", "train", "test", "validate"]

SHARES = {"train": 0.65, "test": 0.25, "validate": 0.10}  # Looney's advice, as the overview gives it
BROKEN, BROKEN_LEAST = 0.02, 10  # a set may have this share of broken pictures, and always so many


class Labelled(Dataset, Protocol):
    """A classification set, whose labels are known before its pictures are read."""

    labels: NDArray[np.int64]  # (N,)
    parts: Mapping[str, Sequence[int]]  # rows of the parts that it brings itself; empty if it brings none


def part_of(data: Labelled, part: Part, seed: int, name: str) -> Sequence[int]:
    """Rows of one part: the set's own where it brings parts, else `split` of it.

    Raises InputError where it brings parts and this is none of them, or the part is empty.
    """
    if part in data.parts:
        rows = data.parts[part]
    elif part == "all":
        rows = range(len(data))
    elif data.parts:
        raise InputError(
            f"{name} has the parts {', '.join(data.parts)}",
            wanted=f"a part {part}",
            do="Name the folder of one part as the path: it is then divided 65/25/10",
        )
    else:
        rows = split(data.labels, part, seed)
    if not len(rows):
        raise InputError(f"the part {part} of {name} holds no picture", do="Take another part, or more pictures")
    return rows


def split(labels: NDArray[np.int64], part: Part, seed: int) -> list[int]:
    """Rows of train, test or validate, ascending: 65, 25 and 10 per cent of each class, drawn by `seed`.

    The three parts share no row and leave none out. It knows nothing of pictures that show the same thing: where a set
    has many of one object, sort them into folders train/ and test/ by object.
    """
    dice = np.random.RandomState(seed)  # its stream is frozen (NEP 19), so a seed means the same parts for ever
    names = list(SHARES)
    low = sum(SHARES[name] for name in names[: names.index(part)])
    rows: list[int] = []
    for label in np.unique(labels):
        own = dice.permutation(np.flatnonzero(labels == label))
        first, last = (round(len(own) * share) for share in (low, low + SHARES[part]))
        rows += own[first:last].tolist()
    return sorted(rows)


def samples(data: Dataset) -> Iterator[Sample]:
    """Every sample whose picture can be read. A broken picture is named on standard error and left out.

    Raises InputError beyond 2 per cent of broken pictures (but never for ten or fewer), or if none is whole.
    """
    limit = max(BROKEN_LEAST, int(BROKEN * len(data)))
    broken = 0
    for i in range(len(data)):
        try:
            sample = data[i]
        except BrokenPicture as error:
            broken += 1
            note(f"left out: {error}")
            if broken > limit or broken == len(data):
                raise InputError(
                    f"{broken} of the first {i + 1} pictures are broken, the last: {error}",
                    wanted=f"at most {limit} of {len(data)}",
                    do="Copy the data again",
                ) from error
        else:
            yield sample
