"""How fast objects move across our path: a Kalman filter a track on where they stand beside it.

Not from the box's speed in the picture, in which the camera's own turning and shaking lie: where an object stands is
told beside a lane that turns and shakes with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.adas.bounds import within
from edgecnn.adas.camera import F64
from edgecnn.adas.memory import ById
from edgecnn.scene import I64

_LONGEST_S = 1.0  # between two frames: a longer gap tells no more


@dataclass(frozen=True)
class DriftSettings:
    noise_m: float = field(metadata=within(0.01, 5))  # deviation of where an object stands beside our path, and ...
    noise_rad: float = field(metadata=within(0, 0.1))  # ... this share of its distance, by the course of our lane
    acceleration_mps2: float = field(metadata=within(0.01, 20))  # of its motion across, over one second
    speed_mps: float = field(metadata=within(0.1, 20))  # deviation of a new one's
    forget_s: float = field(metadata=within(0.1, 10))  # a track not measured for so long starts anew


class Drift:
    """Of the tracks of one camera. State: m and m/s to the right of our path."""

    def __init__(self, settings: DriftSettings) -> None:
        self.settings = settings
        self.reset()

    def reset(self) -> None:
        self._memory = ById(state=np.zeros(2), covariance=np.zeros((2, 2)), seen_s=-math.inf)
        self._now_s: float | None = None

    def step(self, ids: I64, aside_m: F64, forward_m: F64, measured: NDArray[Any], now_s: float) -> F64:
        """(N,) m/s by which the tracks `ids` (N,) move right of our path; 0 where nothing is known yet.

        They stand `aside_m` (N,) right of it, `forward_m` (N,) ahead, where `measured` (N,) now.
        """
        s, memory = self.settings, self._memory
        dt = 0.0 if self._now_s is None else min(max(now_s - self._now_s, 0.0), _LONGEST_S)
        self._now_s = now_s
        x, p = memory["state"], memory["covariance"]
        f = np.array([[1.0, dt], [0.0, 1.0]])
        x[:] = x @ f.T
        p[:] = f @ p @ f.T + s.acceleration_mps2**2 * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
        rows = memory.rows(ids)
        good = measured & np.isfinite(aside_m) & np.isfinite(forward_m)
        at, aside = rows[good], aside_m[good]
        variance = np.square(np.hypot(s.noise_m, s.noise_rad * forward_m[good]))
        new = now_s - memory["seen_s"][at] > s.forget_s
        memory["state"][at[new]] = np.stack([aside[new], np.zeros(new.sum())], axis=1)
        memory["covariance"][at[new]] = np.diag([0.0, s.speed_mps**2])
        memory["covariance"][at[new], 0, 0] = variance[new]
        old, aside, variance = at[~new], aside[~new], variance[~new]
        gain = memory["covariance"][old][:, :, 0] / (memory["covariance"][old][:, 0, 0] + variance)[:, None]
        memory["state"][old] += gain * (aside - memory["state"][old][:, 0])[:, None]
        memory["covariance"][old] -= gain[:, :, None] * memory["covariance"][old][:, None, 0, :]
        memory["seen_s"][at] = now_s
        drift = np.where(now_s - memory["seen_s"][rows] <= s.forget_s, memory["state"][rows, 1], 0.0)
        memory.keep(now_s - memory["seen_s"] <= s.forget_s)
        return drift
