"""Lane-departure warning: when a wheel is about to cross a line of our lane, or has.

What is judged is the wheel's distance to the line and how fast it shrinks, both from a straight line fitted to the last
fraction of a second. Turn signals are not known, so a meant lane change is warned of as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from edgecnn.adas.bounds import within
from edgecnn.adas.camera import F64
from edgecnn.adas.event import NOBODY, Event
from edgecnn.adas.lane import Lane
from edgecnn.scene import Bool

KINDS = ("ldw_left", "ldw_right")


@dataclass(frozen=True)
class DepartureSettings:
    half_width_m: float = field(metadata=within(0.3, 1.5))  # from the car's middle to the outside of a front wheel
    crossing_s: float = field(metadata=within(0, 5))  # warn if the wheel will be on the line within this ...
    near_m: float = field(metadata=within(0, 2))  # ... and is nearer than this
    back_m: float = field(
        metadata=within(0, 2)
    )  # it ends when the wheel is this far inside and moves back, or beyond `near_m`
    rearm_m: float = field(metadata=within(0, 2))  # none follows on that side before the wheel was this far inside
    leaving_mps: float = field(metadata=within(0, 5))  # a wheel over the line that comes back faster is not warned of
    on_frames: int = field(metadata=within(1, 100))  # in a row that must say so
    window_s: float = field(metadata=within(0.1, 5))  # of distances that the fit looks at
    least_s: float = field(metadata=within(0.05, 5))  # the time that they must span
    jump_m: float = field(metadata=within(0.1, 5))  # a line that moves farther in one frame is another line
    lost_s: float = field(metadata=within(0.1, 10))  # it ends when the line was not seen for this long; >= window_s
    on_mps: float = field(metadata=within(0, 70))  # active from this speed on, where our speed is known ...
    off_mps: float = field(metadata=within(0, 70))  # ... and until it falls below this


class LaneDepartureWarning:
    """Of one car. Two state machines, left and right: armed → on → off → armed again once well inside."""

    def __init__(self, settings: DepartureSettings, lateral_m: float = 0.0) -> None:
        """`lateral_m`: how far right of the car's middle the camera sits."""
        self.settings = settings
        self._wheel_m = settings.half_width_m + lateral_m * np.array([1.0, -1.0])  # left, right of the camera
        self.reset()

    def reset(self) -> None:
        """Forget all, as after a hard cut; warnings that are on end without an event."""
        self._t: F64 = np.zeros(0)  # (K,) s
        self._distance: F64 = np.zeros((0, 2))  # (K, 2) m from the wheel to the line; nan = not seen
        self._last = np.full(2, np.nan)  # m, when it was seen last
        self._armed = np.ones(2, bool)
        self._on = np.zeros(2, bool)
        self._count = np.zeros(2, np.int64)
        self._fast = False

    @property
    def on(self) -> tuple[str, ...]:
        """The warnings that are on now, of adas.event.WARNINGS."""
        return tuple(kind for kind, on in zip(KINDS, self._on, strict=True) if on)

    def step(self, lane: Lane | None, t_ns: int, frame: int, speed_mps: float = math.nan) -> tuple[Event, ...]:
        """What begins or ends in this frame, taken at `t_ns`. `speed_mps` nan = not known: then it is active."""
        s, now_s = self.settings, t_ns / 1e9
        if len(self._t) and now_s <= self._t[-1]:  # the clock stands, or runs back: no speed follows from it
            return ()
        seen = np.full(2, np.nan) if lane is None else np.array([-lane.left_m, lane.right_m]) - self._wheel_m
        jumped = self._record(now_s, seen)
        distance, closing = self._fit(now_s)
        self._fast = not speed_mps < (s.off_mps if self._fast else s.on_mps)
        with np.errstate(invalid="ignore"):  # nan: not seen, or not for long enough
            danger = (distance < s.near_m) & (distance < np.maximum(closing * s.crossing_s, 0))
            danger &= closing > -s.leaving_mps
            inside = ((distance > s.back_m) & (closing < 0)) | (distance > s.near_m)
            well_inside = distance > s.rearm_m
        self._count = np.where(danger, self._count + 1, 0)
        lost = jumped | ~np.isfinite(self._distance).any(axis=0)
        begins = (self._count >= s.on_frames) & self._armed & ~self._on & self._fast
        ends = self._on & (inside | lost | (not self._fast))
        self._on = (self._on | begins) & ~ends
        self._armed = ((self._armed & ~jumped) | well_inside) & ~(begins | ends | self._on)
        return tuple(
            Event(
                t_ns,
                frame,
                f"{KINDS[side]}_{'on' if begins[side] else 'off'}",
                NOBODY,
                math.inf,
                float(distance[side]),
            )
            for side in np.flatnonzero(begins | ends)
        )

    def _record(self, now_s: float, seen: F64) -> Bool:
        """Keep distances (2,); whether each is that of another line than before, whose distances are then forgotten."""
        keep = now_s - self._t <= self.settings.lost_s
        jumped = np.asarray(np.abs(seen - self._last) > self.settings.jump_m)
        self._last = np.where(np.isfinite(seen), seen, self._last)
        self._t = np.append(self._t[keep], now_s)
        self._distance = np.vstack([np.where(jumped, np.nan, self._distance[keep]), seen])
        return jumped

    def _fit(self, now_s: float) -> tuple[F64, F64]:
        """Distance now, m (2,), and the speed at which it shrinks, m/s (2,), by least squares; nan = not known."""
        s = self.settings
        t = (self._t - now_s)[:, None]
        used = np.isfinite(self._distance) & (t >= -s.window_s)
        count = used.sum(axis=0)
        y, t = np.where(used, self._distance, 0.0), np.where(used, t, 0.0)
        known = used[-1] & (count >= 4) & (-t.min(axis=0) >= s.least_s)
        n = np.maximum(count, 1)
        mean_t, mean_y = t.sum(axis=0) / n, y.sum(axis=0) / n
        spread = np.square(t - mean_t, where=used, out=np.zeros_like(t)).sum(axis=0)
        slope = (y * (t - mean_t) * used).sum(axis=0) / np.maximum(spread, 1e-9)
        return np.where(known, mean_y - slope * mean_t, np.nan), np.where(known, -slope, np.nan)
