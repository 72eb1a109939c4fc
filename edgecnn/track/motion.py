"""How boxes move: four independent constant-velocity Kalman filters a box, a column each, all tracks at once.

State of a track: cx, cy (px), ln sqrt(wh), ln(w / h), and the rate of each per second. In these coordinates the time to
collision is the inverse of a state (the rate of ln sqrt(wh)), a box can't turn inside out, and the four (value, rate)
pairs do not mix, so that a covariance is three numbers and an update a handful of array operations.
Kalman, "A New Approach to Linear Filtering and Prediction Problems", 1960; white-noise acceleration as in Bar-Shalom,
Li and Kirubarajan, "Estimation with Applications to Tracking and Navigation", 2001, sec. 6.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Noise:
    """Standard deviations; lengths are shares of the box's size sqrt(wh), so that near and far are treated alike."""

    position: float = 0.05  # of a measured centre, share of the size
    scale: float = 0.06  # of a measured ln sqrt(wh)
    aspect: float = 0.10  # of a measured ln(w / h)
    accelerate: float = 0.7  # of the centre, sizes / s² over one second
    grow: float = 0.3  # of the rate of ln sqrt(wh), 1/s² over one second
    turn: float = 0.3  # of the rate of ln(w / h), 1/s² over one second
    speed: float = 1.0  # of a new track's centre, sizes / s
    spread: float = 0.4  # of a new track's ln sqrt(wh) and ln(w / h) rates, 1/s


# from a moving car boxes grow and turn much faster than before a camera on a pole
MOVING = Noise(grow=0.6, turn=0.6)


@dataclass
class Motion:
    """Columns of N tracks. `p_xx`, `p_xv`, `p_vv` are the covariances of each (value, rate) pair."""

    value: F64  # (N, 4) cx, cy, ln sqrt(wh), ln(w / h)
    rate: F64  # (N, 4) per second
    p_xx: F64  # (N, 4)
    p_xv: F64  # (N, 4)
    p_vv: F64  # (N, 4)

    @classmethod
    def born(cls, xyxy: NDArray[Any], noise: Noise) -> Motion:
        """New tracks on the boxes (N, 4), at rest but for what `noise` allows."""
        value = coordinates(xyxy)
        size = np.exp(value[:, 2:3])
        start = _per_coordinate(size, noise.speed, noise.spread, noise.spread)
        return cls(value, np.zeros_like(value), _measured(size, noise), np.zeros_like(value), start)

    def __getitem__(self, rows: Any) -> Motion:
        return Motion(self.value[rows], self.rate[rows], self.p_xx[rows], self.p_xv[rows], self.p_vv[rows])

    def joined(self, other: Motion) -> Motion:
        """The tracks of both, these first."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in ("value", "rate", "p_xx", "p_xv", "p_vv"))
        return Motion(*(np.concatenate(pair) for pair in pairs))

    def predict(self, dt: float | F64, noise: Noise) -> None:
        """All tracks `dt` seconds on, or each its own `dt` (N, 1), in place."""
        size = np.exp(self.value[:, 2:3])
        q = _per_coordinate(size, noise.accelerate, noise.grow, noise.turn)
        self.value += self.rate * dt
        self.p_xx += dt * (2 * self.p_xv + dt * self.p_vv) + q * dt**3 / 3
        self.p_xv += dt * self.p_vv + q * dt**2 / 2
        self.p_vv += q * dt

    def push(self, field: F64) -> None:
        """The camera's own velocity changed by `field` (2, 3), px/s at a point of px (homogeneous): so did that of all
        tracks, in place. Their size is left alone: what is known of its rate is far better."""
        self.rate[:, :2] += self.value[:, :2] @ field[:, :2].T + field[:, 2]

    def update(self, rows: NDArray[Any], xyxy: NDArray[Any], noise: Noise, factor: float = 1.0) -> None:
        """The tracks `rows` (K,) were measured at `xyxy` (K, 4), with `factor` times the usual deviation."""
        value, p_xx, p_xv = self.value[rows], self.p_xx[rows], self.p_xv[rows]
        innovation = coordinates(xyxy) - value
        total = p_xx + _measured(np.exp(value[:, 2:3]), noise) * factor**2
        gain_x, gain_v = p_xx / total, p_xv / total
        self.value[rows] = value + gain_x * innovation
        self.rate[rows] += gain_v * innovation
        self.p_vv[rows] -= gain_v * p_xv
        self.p_xv[rows] = (1 - gain_x) * p_xv
        self.p_xx[rows] = (1 - gain_x) * p_xx

    def xyxy(self) -> F64:
        """Boxes (N, 4), px."""
        return box(self.value)


def coordinates(xyxy: NDArray[Any]) -> F64:
    """(N, 4) px → (N, 4) cx, cy, ln sqrt(wh), ln(w / h); a side is at least 1 px long."""
    boxes = xyxy.astype(np.float64)
    centre = 0.5 * (boxes[:, :2] + boxes[:, 2:])
    log_side = np.log(np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0))
    scale = 0.5 * (log_side[:, :1] + log_side[:, 1:])
    return np.concatenate([centre, scale, log_side[:, :1] - log_side[:, 1:]], axis=1)


def box(value: F64) -> F64:
    """(N, 4) cx, cy, ln sqrt(wh), ln(w / h) → (N, 4) px, the inverse."""
    size, half_aspect = value[:, 2:3], 0.5 * value[:, 3:4]
    half = 0.5 * np.exp(np.concatenate([size + half_aspect, size - half_aspect], axis=1))
    return np.concatenate([value[:, :2] - half, value[:, :2] + half], axis=1)


def _per_coordinate(size: F64, centre: float, scale: float, aspect: float) -> F64:
    """Variances (N, 4) from deviations: that of the centre in sizes, the two of logarithms as they are."""
    variance = np.empty((len(size), 4))
    variance[:, :2] = np.square(centre * size)
    variance[:, 2:] = scale * scale, aspect * aspect
    return variance


def _measured(size: F64, noise: Noise) -> F64:
    return _per_coordinate(size, noise.position, noise.scale, noise.aspect)
