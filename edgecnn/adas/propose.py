"""Two lines found from nothing: points of paint vote for straight lines, and pairs that could be a lane are weighed.

A road line `side` metres to the right runs in the picture as p = side / height * (q - horizon) + slope: straight, and
the two lines of a lane meet on the horizon. Points vote in a Hough space of such lines (Duda and Hart, CACM 1972), bent
by a few curvatures.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.adas.camera import F64

_SIDES = np.linspace(-4.42, 4.42, 69)  # m to the right, of lines tried
_BIN = 0.008  # of a tangent: at 20 m, 16 cm
_SPAN = 0.72  # tangents at the middle row up to which lines are sought


@dataclass(frozen=True)
class ProposeSettings:
    width_m: float = 3.5  # of lanes, usually ...
    width_sigma_m: float = 0.4
    width_least_m: float = 2.5
    width_most_m: float = 4.6
    inside_m: float = 0.3  # a line may lie this far on the wrong side of the camera
    slope_sigma: float = 0.05  # of the lane's direction against the camera's
    least: float = 7.0  # rows with paint that a line needs
    prior: float = 5.0  # rows of paint that one squared deviation from the usual outweighs
    bends: tuple[float, ...] = (-0.003, -0.0012, 0.0, 0.0012, 0.003)  # 1/m, tried


@dataclass(frozen=True)
class Proposal:
    left_m: float  # nan = only the other was found
    right_m: float
    slope: float
    curvature: float
    horizon: float  # q of it, relative to the camera's own


def propose(
    settings: ProposeSettings,
    p: F64,
    q: F64,
    bends: tuple[float, ...],
    *,
    height_m: float,
    horizon: float,
    horizon_sigma: float,
) -> Proposal | None:
    """The best pair, or single line, of one of the curvatures `bends` through points p, q (N,), or None.

    The horizon is expected at q = `horizon`, give or take `horizon_sigma`.
    """
    if len(p) < settings.least:
        return None
    best: tuple[float, Proposal] | None = None
    middle = float(np.median(q))
    for bend in bends:
        straight = p - 0.5 * bend * height_m / np.maximum(q - horizon, 0.01)
        votes = _vote(straight, q - middle, 1.0 / height_m)
        found = _best(settings, votes, bend, middle, height_m, horizon, horizon_sigma)
        if found and (best is None or found[0] > best[0]):
            best = found
    return best[1] if best else None


def _vote(p: F64, q: F64, per_m: float) -> NDArray[np.float32]:
    """(69, bins): how many points each line p = a q + b passes."""
    bins = round(2 * _SPAN / _BIN)
    b = p[None] - (_SIDES * per_m)[:, None] * q[None]
    at = np.floor((b + _SPAN) / _BIN).astype(np.int64)
    good = (at >= 0) & (at < bins)
    flat = (at + np.arange(len(_SIDES))[:, None] * bins)[good]
    votes = np.bincount(flat, minlength=len(_SIDES) * bins).reshape(len(_SIDES), bins).astype(np.float32)
    return np.asarray(cv2.filter2D(votes, cv2.CV_32F, np.array([[0.6, 1.0, 0.6]], np.float32)))


def _best(
    s: ProposeSettings,
    votes: NDArray[np.float32],
    bend: float,
    middle: float,
    height_m: float,
    horizon: float,
    horizon_sigma: float,
) -> tuple[float, Proposal] | None:
    peak = (votes == cv2.dilate(votes, np.ones((9, 7), np.uint8))) & (votes >= s.least)
    row, column = np.nonzero(peak)
    if not len(row):
        return None
    order = np.argsort(-votes[row, column])[:24]
    row, column = row[order], column[order]
    count = votes[row, column].astype(np.float64)
    side = _SIDES[row]
    a, b = side / height_m, (column + 0.5) * _BIN - _SPAN
    curl = 2.0 * (bend / 0.003) ** 2  # a bend must be worth it
    left, right = np.flatnonzero(side < s.inside_m), np.flatnonzero(side > -s.inside_m)
    scored: list[tuple[float, Proposal]] = []
    if len(left) and len(right):
        i, j = (grid.ravel() for grid in np.meshgrid(left, right))
        width = side[j] - side[i]
        ok = (width > s.width_least_m) & (width < s.width_most_m)
        i, j, width = i[ok], j[ok], width[ok]
        level = middle - (b[j] - b[i]) / (a[j] - a[i])
        slope = b[i] + a[i] * (level - middle)
        pull = ((width - s.width_m) / s.width_sigma_m) ** 2 + ((level - horizon) / horizon_sigma) ** 2
        pull += (slope / s.slope_sigma) ** 2
        score = count[i] + count[j] - 0.5 * s.prior * pull - curl
        if len(score):
            k = int(np.argmax(score))
            pair = Proposal(float(side[i[k]]), float(side[j[k]]), float(slope[k]), bend, float(level[k]))
            scored.append((float(score[k]), pair))
    slope = b + a * (horizon - middle)
    pull = ((np.abs(side) - 0.5 * s.width_m) / (2 * s.width_sigma_m)) ** 2 + (slope / s.slope_sigma) ** 2
    score = np.where(np.abs(side) < s.width_most_m - 1, count - 0.5 * s.prior * (pull + 1) - curl, -np.inf)
    k = int(np.argmax(score))
    on_left = side[k] < 0
    at = float(side[k])
    single = Proposal(at if on_left else np.nan, np.nan if on_left else at, float(slope[k]), bend, horizon)
    scored.append((float(score[k]), single))
    top = max(scored, key=lambda entry: entry[0])
    return top if top[0] > s.least else None
