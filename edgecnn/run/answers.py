"""A network's answers in little room: of a detector's thousands of cells, those whose scores can matter.

    call   {"of": "detector", "asked": [1, 3, 384, 640], "gave": {"boxes": [1, 5040, 4], ...}, "rows": 31}
    rows   which cells (31,) int32        values   the outputs at these cells, one output after the other, float32

The other cells come back as zeros, which no decoder takes for an object. `rows` null: the answer is kept whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.backends import Array, Backend
from edgecnn.bundle import ModelSpec
from edgecnn.errors import InputError
from edgecnn.run.health import nonsense
from edgecnn.scene import F32
from edgecnn.vision import DecodeDetections

MARGIN = 0.5  # of the lowest score that counts: cells above this share of it are kept, so that a looser setting replays
LARGEST = 50_000_000  # numbers in one answer: more is no network of ours
I32 = NDArray[np.int32]
Call = tuple[dict[str, Any], I32, F32]  # as above


class Listener:
    """Passes calls on to a backend and hands a copy of what it answered to `keep`. `sparse` packs a detector's."""

    def __init__(
        self,
        of: str,
        backend: Backend,
        keep: Callable[[Call], None],
        sparse: Sparse | None = None,
    ) -> None:
        self._of, self._backend, self._keep, self._sparse = of, backend, keep, sparse

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        answer = self._backend(feeds)
        asked = next(value for value in feeds.values() if value.ndim == 4)
        rows = self._sparse(answer, asked.shape) if self._sparse else None
        call = {
            "of": self._of,
            "asked": list(asked.shape),
            "gave": {name: list(value.shape) for name, value in answer.items()},
            "rows": None if rows is None else len(rows),
        }
        kept = [value if rows is None else value[0, rows] for value in answer.values()]
        values = np.concatenate([np.asarray(value, np.float32).ravel() for value in kept])
        self._keep((call, np.zeros(0, np.int32) if rows is None else rows, values))
        return answer


class Sparse:
    """The cells of a detector's answer that can matter at detections of `score` or more; None where the answer is
    nonsense, for then everything does."""

    def __init__(self, model: ModelSpec, score: float) -> None:
        sizes = (model,) if model.regions is None else (model, model.at_regions)
        self._decode = {size.input.shape: DecodeDetections(size, score=score) for size in sizes}
        self._least = MARGIN * score

    def __call__(self, answer: Mapping[str, Array], asked: tuple[int, ...]) -> I32 | None:
        decode = self._decode[asked]
        if nonsense(answer, decode):
            return None
        _, score = decode.split(list(answer.values()))
        return np.flatnonzero(score.max(1) > self._least).astype(np.int32)


def unpack(calls: list[Any], rows: I32, values: F32) -> Iterator[tuple[dict[str, Any], dict[str, Array]]]:
    """The answers to `calls`, from their rows and values strung together. Raises InputError where these do not fit."""
    at_row = at = 0
    for call in calls:
        answer: dict[str, Array] = {}
        shapes = {str(name): tuple(map(int, shape)) for name, shape in call["gave"].items()}
        if not shapes or any(min(shape, default=0) < 1 or math.prod(shape) > LARGEST for shape in shapes.values()):
            raise InputError(f"an answer of shapes {shapes}", wanted=f"at most {LARGEST} numbers")
        count = None if call["rows"] is None else int(call["rows"])
        chosen = rows[at_row : at_row + (count or 0)].astype(np.int64)
        at_row += count or 0
        for name, shape in shapes.items():
            cells = shape[1] if len(shape) == 3 else 0
            if count is not None and (
                len(chosen) != count or (count and not 0 <= chosen.min() <= chosen.max() < cells)
            ):
                raise InputError("cells that the answer does not have", wanted=f"{count} of {cells}")
            size = math.prod(shape) if count is None else count * shape[-1]
            part = values[at : at + size]
            at += size
            if len(part) != size:
                raise InputError(f"{len(part)} numbers of an answer", wanted=f"{size}")
            answer[name] = np.zeros(shape, np.float32)
            if count is None:
                answer[name][:] = part.reshape(shape)
            else:
                answer[name][0, chosen] = part.reshape(count, shape[-1])
        yield call, answer
    if (at_row, at) != (len(rows), len(values)):
        raise InputError(f"answers for {at} numbers", wanted=f"{len(values)}")
