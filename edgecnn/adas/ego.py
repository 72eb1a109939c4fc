"""Our own motion, from the speed that the source knows."""

from __future__ import annotations

import math

_SMOOTH_S = 0.4  # over which the acceleration is taken
_GAP_S = 1.0  # after a longer silence it starts anew


class Ego:
    """Speed in m/s (nan = not known) and acceleration in m/s² (0 until it is known)."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.speed_mps, self.acceleration_mps2 = math.nan, 0.0
        self._t_s = -math.inf

    def step(self, speed_mps: float, now_s: float) -> None:
        """The speed at `now_s`; one that is negative or not finite is not known."""
        before, elapsed = self.speed_mps, now_s - self._t_s
        if not (math.isfinite(speed_mps) and speed_mps >= 0):
            self.reset()
            return
        if math.isnan(before) or not 0 < elapsed < _GAP_S:
            self.acceleration_mps2 = 0.0 if elapsed >= _GAP_S else self.acceleration_mps2
        else:
            share = 1 - math.exp(-elapsed / _SMOOTH_S)
            self.acceleration_mps2 += share * ((speed_mps - before) / elapsed - self.acceleration_mps2)
        self.speed_mps, self._t_s = speed_mps, now_s
