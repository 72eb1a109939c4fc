"""How far a figure would move with another sample: the pictures are drawn anew, with replacement, many times over.

Pictures that follow one another say almost the same, so what is drawn are units: a picture alone, or a stretch of a
video (a block bootstrap: Künsch, "The Jackknife and the Bootstrap for General Stationary Observations", 1989). Two
networks measured on the same draws are compared draw by draw, so what both find hard cancels out: Efron and Tibshirani,
"An Introduction to the Bootstrap", 1993, chapter 8.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Redrawn = Mapping[str, F64]  # metric -> (DRAWS,) its value on each draw
DRAWS = 1000
LEVEL = 0.95  # of the intervals
FEWEST = 20  # units: of fewer, draws do not tell the spread


def draws(units: int, count: int = DRAWS) -> F64:
    """(count, units) how often each of the units is in each draw. The same for ever for the same number of units.

    numpy promises that of `RandomState` alone; a baseline of last year must have been drawn in the same way.
    """
    chosen = np.random.RandomState(0).randint(0, units, (count, units))
    rows = np.zeros((count, units))
    np.add.at(rows, (np.arange(count)[:, None], chosen), 1.0)
    return rows


def interval(lost: float, earlier: NDArray[Any], now: NDArray[Any], units: int) -> tuple[float, float]:
    """Between what the loss lies at `LEVEL`, when `lost` was measured and `earlier` (R,) and `now` (R,) are the same
    figure of the two on the same draws. nan where it cannot be told: fewer than `FEWEST` units, or draws without truth.

    The spread of the draws is laid about `lost`, and widened: n units redrawn have (n - 1) / n of the true variance.
    """
    apart = np.asarray(earlier, np.float64) - np.asarray(now, np.float64)
    apart = apart[np.isfinite(apart)]
    if units < FEWEST or 2 * len(apart) < len(np.atleast_1d(earlier)):
        return math.nan, math.nan
    low, high = np.quantile(apart - apart.mean(), [0.5 - LEVEL / 2, 0.5 + LEVEL / 2]) * math.sqrt(units / (units - 1))
    return lost + float(low), lost + float(high)
