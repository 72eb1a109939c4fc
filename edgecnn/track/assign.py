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
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    side = np.maximum(high - low, 0.0)
    return np.asarray(side[..., 0] * side[..., 1], np.float64)


def area(boxes: NDArray[Any]) -> F64:
    """Area (N,) in px² of the boxes (N, 4), xyxy; an inverted box has none."""
    side = np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)
    return np.asarray(side[:, 0] * side[:, 1], np.float64)


def iou(a: NDArray[Any], b: NDArray[Any]) -> F64:
    """Intersection over union (N, M) of the boxes `a` (N, 4) and `b` (M, 4), xyxy; 0 where the union is empty."""
    common = intersection(a, b)
    union = area(a)[:, None] + area(b)[None, :] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def assign(similarity: F64, at_least: float) -> tuple[Index, Index]:
    """Rows and columns (K,), (K,) of the one-to-one assignment of greatest total similarity.

    Pairs below `at_least` are worth nothing, so they never displace a pair above it, and they are not returned.
    """
    if similarity.size == 0:
        none = np.zeros(0, np.int64)
        return none, none
    allowed = similarity >= at_least
    # Where no row and no column has two candidates the gate has already decided (the common case on a road).
    if allowed.sum(axis=0).max() <= 1 and allowed.sum(axis=1).max() <= 1:
        rows, columns = np.nonzero(allowed)
        return rows, columns
    rows, columns = linear_sum_assignment(np.where(allowed, similarity, 0.0), maximize=True)
    kept = allowed[rows, columns]
    return rows[kept], columns[kept]
