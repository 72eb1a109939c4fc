"""How near the told times to collision are to the true ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from edgecnn.scene import Truth
from edgecnn.track.assign import iou

WITHIN_S = 10.0  # true times to collision that are looked at: later ones concern no driver


def contact_errors(xyxy: NDArray[Any], ttc_s: NDArray[Any], truth: Truth) -> tuple[float, int]:
    """The sum of the errors in one frame, and of how many objects.

    `xyxy` (N, 4) px and `ttc_s` (N,) are of tracks, nan or inf where none is told. An object that will be reached
    within `WITHIN_S` and is tracked (IoU .5) has the error |told - true| / true, at most 1, so where nothing is told.
    """
    counted = ~truth.ignore & (truth.ttc_s > 0) & (truth.ttc_s < WITHIN_S)
    overlap = iou(truth.xyxy[counted], xyxy)
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    good = overlap[rows, columns] >= 0.5
    true_s = truth.ttc_s[counted][rows[good]].astype(np.float64)
    told_s = np.asarray(ttc_s, np.float64)[columns[good]]
    error = np.where(np.isfinite(told_s), np.abs(told_s - true_s) / true_s, 1.0)
    return float(np.minimum(error, 1.0).sum()), len(error)


def contact_accuracy(frames: Iterable[tuple[float, int]], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R,) 1 - the mean error of R samples that hold the frames as often as `weight` (R, frames) says; nan = none."""
    sums, counts = np.array(list(frames), np.float64).reshape(-1, 2).T
    total = weight @ counts
    mean = np.divide(weight @ sums, total, out=np.full(len(weight), np.nan), where=total > 0)
    return np.asarray(1 - mean)
