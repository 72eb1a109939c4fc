"""Time to collision of every track from how fast it grows, braking included, without distance or speed.

The inverse of an object's size in the picture is proportional to its distance Z, so over a short window
y(t) = size(0) / size(t) = c0 + c1 t + c2 t² holds exactly for a constant relative acceleration, with t = 0 now.
Contact is the first t > 0 with y(t) = 0. In terms of T_m = -c0 / c1 (the time to contact at constant closing speed) and
C = dT_m/dt + 1 = 2 c0 c2 / c1² that is T = T_m (1 - sqrt(1 - 2C)) / C: Dagan, Mano, Stein and Shashua, "Forward
Collision Warning with a Single Camera", IEEE IV 2004.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgecnn.adas.bounds import within
from edgecnn.adas.ego import Ego
from edgecnn.adas.memory import ById
from edgecnn.scene import F32, I64, Bool

F64 = NDArray[np.float64]
_HANKEL = np.add.outer(np.arange(3), np.arange(3))  # which power of t stands where in the normal equations


@dataclass(frozen=True)
class TtcSettings:
    window_s: float = field(metadata=within(0.2, 10))  # of measurements that the fit looks at
    kept_boxes: int = field(metadata=within(4, 1000))  # measurements kept a track
    least_boxes: float = field(metadata=within(3, 100))  # measurements before there is an estimate ...
    least_s: float = field(metadata=within(0, 5))  # ... and the time that they span
    noise_px: float = field(metadata=within(0.01, 20))  # expected deviation of a side of a detected box ...
    noise_ratio: float = field(metadata=within(0, 0.5))  # ... together with this share of the side
    other_side_ratio: float = field(metadata=within(1, 100))  # of the deviation of a vehicle's height to its width's
    alike_s: float = field(metadata=within(0, 5))  # errors of boxes nearer in time than this are much the same
    noise_boxes: float = field(
        metadata=within(0, 100)
    )  # all that counts as much as so many residuals, which correct it
    acceleration_mps2: float = field(metadata=within(0.01, 20))  # expected deviation of the relative acceleration: ...
    size_m: float = field(metadata=within(0.1, 10))  # ... of an object of this size sqrt(wh): together they bound c2
    closing_ratio: float = field(
        metadata=within(0, 2)
    )  # expected closing speed, share of our own, where it is known ...
    closing_spread_ratio: float = field(metadata=within(0.05, 100))  # ... and its deviation ...
    least_mps: float = field(metadata=within(0.1, 30))  # ... of this own speed at least
    braking_ratio: float = field(metadata=within(0, 1))  # share of our own braking that the relative acceleration shows
    border_px: float = field(metadata=within(0, 50))  # a box this close to the picture's edge is cut off by it


@dataclass(frozen=True)
class Contact:
    """The fit of N tracks, and what follows from it; rows not `known` are too young."""

    c: F64  # (N, 3) c0, c1, c2; c0 is about 1
    covariance: F64  # (N, 3, 3)
    known: Bool  # (N,)
    touch: F64 | float = 0.0  # (N,) y at contact: 0 at the camera, (bumper's distance) / (distance now) at our bumper

    @cached_property
    def ttc_s(self) -> F64:
        """(N,) inf = not closing in, or not known yet."""
        c0, c1, c2 = self.c.T
        return np.where(self.known, contact_time(np.maximum(c0 - self.touch, 1e-3), c1, c2), np.inf)

    @cached_property
    def sigma_s(self) -> F64:
        """(N,) standard deviation of `ttc_s`, by the implicit function theorem on y(T) = 0; inf where that is inf."""
        ttc = self.ttc_s
        finite = np.isfinite(ttc)
        t = np.where(finite, ttc, 0.0)
        slope = np.abs(self.c[:, 1] + 2 * self.c[:, 2] * t)
        return np.where(finite, self._deviation(t) / np.maximum(slope, 1e-9), np.inf)

    @cached_property
    def growth(self) -> F64:
        """(N,) d ln(size) / dt now, 1/s; nan = not known yet."""
        return np.where(self.known, -self.c[:, 1] / self.c[:, 0], np.nan)

    def touching(self, y: F64) -> Contact:
        """The same, with contact where y(t) = `y` (N,): before it is at the camera."""
        return replace(self, touch=y)

    def surely_within(self, seconds: float) -> F64:
        """(N,) by how many standard deviations y is below `touch` after `seconds`: how sure contact is by then.

        y(t) is linear in the fit, so its error is Gaussian; that of the time to collision, a quotient, is not.
        """
        t = np.full(len(self.c), seconds)
        y = self.c @ np.array([1.0, seconds, seconds * seconds]) - self.touch
        return np.where(self.known, -y / np.maximum(self._deviation(t), 1e-9), -np.inf)

    def _deviation(self, t: F64) -> F64:
        """(N,) of y(t)."""
        basis = np.stack([np.ones_like(t), t, t * t], axis=1)
        return np.asarray(np.sqrt(np.einsum("ni,nij,nj->n", basis, self.covariance, basis)))


def contact_time(c0: F64, c1: F64, c2: F64) -> F64:
    """First t > 0 with c0 + c1 t + c2 t² = 0, for c0 > 0; inf where there is none.

    The form 2 c0 / (-c1 + sqrt(c1² - 4 c0 c2)) is T_m (1 - sqrt(1 - 2C)) / C without its 0 / 0 at C = 0.
    """
    root = c1 * c1 - 4 * c0 * c2
    below = -c1 + np.sqrt(np.maximum(root, 0))
    return np.divide(2 * c0, below, out=np.full_like(c0, np.inf), where=(root >= 0) & (below > 1e-9))


class TimeToCollision:
    """Estimates for the tracks of one camera, from the boxes of the frames in which each was detected."""

    def __init__(self, settings: TtcSettings, frame_size: tuple[int, int], focal_px: float) -> None:
        """`frame_size` is (width, height) in px; `focal_px` need only be about right."""
        self.settings = settings
        self._focal_px = focal_px
        self._width, self._height = frame_size
        self.reset()

    def reset(self) -> None:
        past = np.full((3, self.settings.kept_boxes), np.nan)  # time, log_size, sigma; the newest last
        self._memory = ById(past=past, log_side=np.zeros(2), whole=np.zeros(2, bool))

    def step(self, ids: I64, measured: F32, now_s: float, tall: Bool | None = None, ego: Ego | None = None) -> Contact:
        """Of the tracks `ids` (N,) at `now_s`, rising. `measured` (N, 4) px is nan where nothing was detected now.

        `tall` (N,): whose height is the better measure than the width (of a person, that swings with the gait).
        `ego`: where our speed is known, it bounds how fast anything that does not come towards us can close in.
        """
        seen = ~np.isnan(measured).any(axis=1)
        of_tall = np.zeros(len(ids), bool) if tall is None else tall
        if seen.any():
            self._record(ids[seen], measured[seen].astype(np.float64), of_tall[seen], now_s)
        rows = self._memory.rows(ids)
        contact = self._fit(rows, now_s, ego or Ego())
        age = now_s - self._memory["past"][:, 0, -1]
        self._memory.keep(age <= self.settings.window_s)
        return contact

    def _record(self, ids: I64, boxes: F64, tall: Bool, now_s: float) -> None:
        """One more size a track. A side cut off by the picture's edge says nothing: then the other counts alone."""
        s, memory = self.settings, self._memory
        side = np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0)
        limit = np.array([self._width, self._height]) - s.border_px
        whole = (boxes[:, :2] > s.border_px) & (boxes[:, 2:] < limit)  # (N, 2) width, height
        rows = memory.rows(ids)
        newest = memory["past"][rows, :, -1]
        first = np.isnan(newest[:, 0])
        log_side = np.log(side)
        usable = whole & (memory["whole"][rows] | first[:, None])
        worse = np.where(np.stack([tall, ~tall], axis=1), s.other_side_ratio, 1.0)
        variance = (np.square(s.noise_px / side) + s.noise_ratio**2) * worse**2
        weight = np.where(usable, 1 / variance, 0.0)
        total = weight.sum(axis=1)
        share = weight / np.maximum(total, 1e-9)[:, None]
        change = share * (log_side - np.where(first[:, None], 0, memory["log_side"][rows]))
        before = np.where(first, 0, newest[:, 1])
        log_size = before + change.sum(axis=1)
        elapsed = np.where(first, 1e9, now_s - newest[:, 0])
        fresh = elapsed / (elapsed + s.alike_s)
        good = total > 0  # no side to measure: the next increment starts from here, and nothing is recorded
        sigma = np.sqrt(1 / np.maximum(total * fresh, 1e-9))
        memory["log_side"][rows], memory["whole"][rows] = log_side, whole
        at = rows[good]
        memory["past"][at, :, :-1] = memory["past"][at, :, 1:]
        memory["past"][at, :, -1] = np.stack([np.full(len(rows), now_s), log_size, sigma], axis=1)[good]

    def _fit(self, rows: I64, now_s: float, ego: Ego) -> Contact:
        """Weighted least squares of the quadratic, with a prior on c1 and c2; then once more with outliers weakened."""
        s, n, past = self.settings, len(rows), self._memory["past"][rows]
        time = past[:, 0] - now_s
        used = time >= -s.window_s
        t, log_size, sigma = np.where(used, time, 0.0), np.where(used, past[:, 1], 0.0), np.where(used, past[:, 2], 1.0)
        y = np.exp(log_size[:, -1:] - log_size)
        power = np.empty((len(rows), 5, t.shape[1]))  # 1, t, ... t⁴: the normal equations hold their weighted sums
        power[:, 0], power[:, 1] = 1.0, t
        for k in (2, 3, 4):
            np.multiply(power[:, k - 1], t, out=power[:, k])
        # c2 = a / 2Z, and Z = focal length × size in metres / size in px.
        size_px = np.exp(0.5 * self._memory["log_side"][rows].sum(axis=1))
        near = size_px / (self._focal_px * s.size_m)  # 1 / Z
        mean, likely = np.zeros((n, 3)), np.full((n, 3), 1e3)
        likely[:, 2] = 0.5 * s.acceleration_mps2 * near
        if math.isfinite(ego.speed_mps):  # c1 = -closing speed / Z
            speed = max(ego.speed_mps, s.least_mps)
            mean[:, 1], likely[:, 1] = -s.closing_ratio * speed * near, s.closing_spread_ratio * speed * near
            mean[:, 2] = -0.5 * s.braking_ratio * ego.acceleration_mps2 * near
        prior = np.zeros((n, 3, 3))
        prior[:, [0, 1, 2], [0, 1, 2]] = likely**-2
        pull_to_mean = mean / likely**2

        def solve(weight: F64) -> tuple[F64, F64]:
            normal = (power @ weight[..., None])[:, _HANKEL, 0]
            covariance = np.asarray(np.linalg.inv(normal + prior), np.float64)
            moment = (power[:, :3] @ (weight * y)[..., None])[..., 0] + pull_to_mean
            return (covariance @ moment[..., None])[..., 0], covariance

        weight = used / np.square(y * sigma)
        c, _ = solve(weight)
        count = used.sum(axis=1)
        pull = np.abs(y - (c[:, None] @ power[:, :3])[:, 0]) * np.sqrt(weight)
        spread = ((pull * pull).sum(axis=1) + s.noise_boxes) / (np.maximum(count - 2, 0) + s.noise_boxes)
        huber = np.maximum(1, pull / (2 * np.sqrt(spread))[:, None])
        c, covariance = solve(weight / (huber * spread[:, None]))
        c[:, 0] = np.maximum(c[:, 0], 1e-3)
        oldest = t.min(axis=1, initial=0.0)
        known = (count >= s.least_boxes) & (time[:, -1] - oldest >= s.least_s)  # nan: never measured
        c[:, 0] = np.maximum(c[:, 0], 1e-3)
        oldest = t.min(axis=1, initial=0.0)
        known = (count >= s.least_boxes) & (time[:, -1] - oldest >= s.least_s)  # nan: never measured
        return Contact(c, covariance, known)
