"""Headway warning: too close behind the lead for our speed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgecnn.adas.bounds import within
from edgecnn.scene import Bool


@dataclass(frozen=True)
class HeadwaySettings:
    on_s: float = field(metadata=within(0.2, 5))  # warn below this time until we are where the lead is
    off_s: float = field(metadata=within(0.2, 6))  # a warning lasts while it is below this
    on_mps: float = field(metadata=within(0, 70))  # active from this own speed on ...
    off_mps: float = field(metadata=within(0, 70))  # ... until it is below this one
    least_age_s: float = field(metadata=within(0, 10))  # of the lead's track: before, it may be a ghost
    on_detections: float = field(metadata=within(1, 100))
    calm_s: float = field(metadata=within(0, 5))


class Headway:
    """Whether the warning is active at all depends on our speed, with a hysteresis of its own."""

    def __init__(self, settings: HeadwaySettings) -> None:
        self.settings = settings
        self._active = False

    def step(self, gap_m: NDArray[np.float64], lead: int, speed_mps: float) -> tuple[float, Bool, Bool]:
        """Headway in s (nan = no lead, standing, or speed unknown); which of N tracks are reason to begin a warning,
        and to let one go on. `gap_m` (N,) is from our bumper; `lead` a row, or -1."""
        s, none = self.settings, np.zeros(len(gap_m), bool)
        self._active = speed_mps >= (s.off_mps if self._active else s.on_mps)  # nan: not active
        if lead < 0 or not speed_mps > 0 or not math.isfinite(gap_m[lead]):
            return math.nan, none, none
        headway, is_lead = max(float(gap_m[lead]), 0.0) / speed_mps, np.arange(len(gap_m)) == lead
        return headway, is_lead & (self._active and headway < s.on_s), is_lead & (self._active and headway < s.off_s)
