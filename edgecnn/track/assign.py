"""Who is who: overlap of boxes, and the best one-to-one assignment above a gate."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

F64 = NDArray[np.float64]
Index = NDArray[np.int64]


def intersection(a: NDArray[Any], b: NDArray[Any]) -> F64:
    """Common area (N, M) in px² of the boxes `a` (N, 4) and `b` (M, 4), xyxy."""
    sides = []
    for low, high in ((0, 2), (1, 3)):  # an axis at a time, in place: (N, M) arrays stay in the cache
        side = np.minimum.outer(a[:, high].astype(np.float64), b[:, high])
        side -= np.maximum.outer(a[:, low].astype(np.float64), b[:, low])
        sides.append(np.maximum(side, 0.0, out=side))
    return np.asarray(sides[0] * sides[1])


def area(boxes: NDArray[Any]) -> F64:
    """Area (N,) in px² of the boxes (N, 4), xyxy; an inverted box has none."""
    side = np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)
    return np.asarray(side[:, 0] * side[:, 1], np.float64)


def iou(a: NDArray[Any], b: NDArray[Any]) -> F64:
    """Intersection over union (N, M) of the boxes `a` (N, 4) and `b` (M, 4), xyxy; 0 where the union is empty."""
    common = intersection(a, b)
    union = area(a)[:, None] + area(b)[None, :] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def assign(similarity: F64, at_least: float, bonus: F64 | None = None) -> tuple[Index, Index]:
    """Rows and columns (K,), (K,) of the one-to-one assignment of greatest total similarity and `bonus` (N, M).

    Pairs of a similarity below `at_least` are worth nothing, so they never displace a pair above it, and they are not
    returned.
    """
    if similarity.size == 0:
        none = np.zeros(0, np.int64)
        return none, none
    allowed = similarity >= at_least
    # A pair without rivals is decided by the gate (the common case on a road); only the others need the search.
    row_count, column_count = allowed.sum(axis=1), allowed.sum(axis=0)
    rows, columns = np.nonzero(allowed & (row_count == 1)[:, None] & (column_count == 1)[None])
    row_count[rows], column_count[columns] = 0, 0
    rivals, wanted = np.flatnonzero(row_count), np.flatnonzero(column_count)
    if len(rivals):
        pairs = np.ix_(rivals, wanted)
        worth = similarity[pairs] if bonus is None else similarity[pairs] + bonus[pairs]
        i, j = linear_sum_assignment(np.where(allowed[pairs], worth, 0.0), maximize=True)
        kept = allowed[pairs][i, j]
        rows, columns = np.append(rows, rivals[i[kept]]), np.append(columns, wanted[j[kept]])
    return rows, columns
