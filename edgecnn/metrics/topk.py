"""Share of pictures whose true class is among the k best scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError


def topk(scores: NDArray[Any], labels: NDArray[np.integer[Any]], ks: Sequence[int] = (1, 5)) -> dict[str, float]:
    """`{"top1": ..., "top5": ...}` in [0, 1] from scores (N, classes), of any monotonic kind, and labels (N,).

    A tie counts against the network: a class must score more than all but k - 1 others to be among the k best, so a
    network that gives every class the same score is right about nothing. `top5` of 5 classes or fewer is left out.

    Raises InputError where there is nothing to score or the shapes do not fit.
    """
    return {name: float(np.mean(right)) for name, right in right_by_k(scores, labels, ks).items()}


def right_by_k(
    scores: NDArray[Any], labels: NDArray[np.integer[Any]], ks: Sequence[int] = (1, 5)
) -> dict[str, NDArray[np.float64]]:
    """The same picture by picture: (N,) 1 where the network is right, else 0. Raises as `topk`."""
    if scores.ndim != 2 or len(scores) == 0 or labels.shape != (len(scores),):
        raise InputError(f"scores of shape {scores.shape} and labels of shape {labels.shape}", wanted="(N, C) and (N,)")
    classes = scores.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(
            f"labels from {labels.min()} to {labels.max()}", wanted=f"0 to {classes - 1}, as many as scores"
        )
    true = np.take_along_axis(scores, labels[:, None].astype(np.int64), axis=1)
    rank = (scores >= true).sum(axis=1)  # 1 = best; the true class counts itself
    rank = np.where(np.isnan(true[:, 0]), classes + 1, rank)
    return {f"top{k}": (rank <= k).astype(np.float64) for k in ks if k == 1 or k < classes}
