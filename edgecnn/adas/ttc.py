"""Time to collision of every track from how fast it grows, braking included.

An object's size in the picture is inversely proportional to its distance Z, so ln(size) measures -ln Z up to a
constant, and the ratio of distance to closing speed needs no constant at all. A Kalman filter a track holds Z (in
metres, if the object were `size_m` large), the object's own speed and acceleration (Singer's model: accelerations
fade), and the part of the size's error that lasts. What is new in each detection's error is the larger the less sure
the detector was.

Contact is the first t > 0 at which c0 + c1 t + c2 t² = 0, with c0 = 1 now. In terms of T_m = -c0 / c1 (the time to
contact at constant closing speed) and C = dT_m/dt + 1 = 2 c0 c2 / c1² that is T = T_m (1 - sqrt(1 - 2C)) / C: Dagan,
Mano, Stein and Shashua, "Forward Collision Warning with a Single Camera", IEEE IV 2004.
Filter: Bar-Shalom, Li and Kirubarajan, "Estimation with Applications to Tracking and Navigation", 2001, sections 8.2
(coloured measurement noise) and 8.3 (Singer).
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
from edgecnn.track.flow import Growth

F64 = NDArray[np.float64]
FAR, SPEED, ACCELERATION, ERROR = range(4)  # of the state: m, m/s, m/s², of ln(size)
_LONGEST_S = 1.0  # between two frames: a longer gap tells no more


@dataclass(frozen=True)
class TtcSettings:
    forget_s: float = field(metadata=within(0.2, 10))  # a track not detected for so long starts anew
    least_boxes: float = field(metadata=within(2, 100))  # before there is an estimate ...
    least_s: float = field(metadata=within(0, 5))  # ... and the time that they span
    lasting_ratio: float = field(metadata=within(0.001, 1))  # deviation of a size, its share that lasts ...
    lasting_s: float = field(metadata=within(0.001, 5))  # ... for about so long
    side_ratio: float = field(metadata=within(0.001, 1))  # deviation of a side that is new in every detection ...
    doubt_ratio: float = field(metadata=within(0, 10))  # ... times exp(this × (1 - score)) ...
    side_px: float = field(metadata=within(0, 20))  # ... and at least this
    other_side_ratio: float = field(metadata=within(1, 100))  # of a vehicle's height to its width
    outlier_sigmas: float = field(metadata=within(1, 100))  # a size farther off than this is believed less
    acceleration_mps2: float = field(metadata=within(0.01, 20))  # deviation of an object's acceleration ...
    acceleration_s: float = field(metadata=within(0.05, 60))  # ... that lasts for about so long
    size_m: float = field(metadata=within(0.1, 10))  # of an object, sqrt(wh)
    closing_ratio: float = field(metadata=within(0, 2))  # expected closing speed of a new one, share of our own ...
    closing_spread_ratio: float = field(metadata=within(0.05, 100))  # ... and its deviation ...
    least_mps: float = field(metadata=within(0.1, 30))  # ... of this own speed at least
    closing_mps: float = field(metadata=within(0.1, 100))  # deviation where our own speed is not known
    growth_ratio: float = field(metadata=within(0, 1))  # deviation of a growth measured by flow, beside its own
    border_px: float = field(metadata=within(0, 50))  # a box this close to the picture's edge is cut off by it


@dataclass(frozen=True)
class Contact:
    """The motion of N tracks, and what follows from it; rows not `known` are too young."""

    c: F64  # (N, 3) c0, c1, c2; c0 is 1
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

        y(t) is linear in the state, so its error is Gaussian; that of the time to collision, a quotient, is not.
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
        self._memory = ById(
            state=np.zeros(4),
            covariance=np.zeros((4, 4)),
            log_side=np.zeros(2),
            whole=np.zeros(2, bool),
            log_size=np.nan,
            boxes=0,
            born_s=np.nan,
            seen_s=-np.inf,
        )
        self._now_s: float | None = None
        self._own_mps = 0.0  # that the speeds in the state are told beside; 0 while ours is not known

    def step(
        self,
        ids: I64,
        measured: F32,
        now_s: float,
        tall: Bool | None = None,
        ego: Ego | None = None,
        score: F32 | None = None,
        growth: Growth | None = None,
    ) -> Contact:
        """Of the tracks `ids` (N,) at `now_s`, rising. `measured` (N, 4) px is nan where nothing was detected now.

        `tall` (N,): whose height is the better measure than the width (of a person, that swings with the gait).
        `ego`: our speed; where it is not known, an object's speed is told beside it. `score` (N,) of the detections: a
        box of a poor one is a poor measure; without it all are taken to be sure. `growth`: of the pictures since the
        last step, of any tracks.
        """
        elapsed_s = 0.0 if self._now_s is None else min(max(now_s - self._now_s, 0.0), _LONGEST_S)
        self._now_s = now_s
        self._predict(elapsed_s, math.nan if ego is None else ego.speed_mps)
        if growth is not None and elapsed_s > 0:
            self._grow(growth, elapsed_s)
        seen = ~np.isnan(measured).any(axis=1)
        if seen.any():
            of_tall = np.zeros(len(ids), bool) if tall is None else tall
            sure = np.ones(len(ids)) if score is None else score.astype(np.float64)
            self._record(ids[seen], measured[seen].astype(np.float64), of_tall[seen], sure[seen], now_s)
        rows = self._memory.rows(ids)
        contact = self._contact(rows)
        self._memory.keep(now_s - self._memory["seen_s"] <= self.settings.forget_s)
        return contact

    def _predict(self, dt: float, own_mps: float) -> None:
        s, x, p = self.settings, self._memory["state"], self._memory["covariance"]
        own_mps = own_mps if math.isfinite(own_mps) else 0.0
        if (own_mps == 0) != (self._own_mps == 0):  # known from now on, or no longer
            x[:, SPEED] += own_mps - self._own_mps
        self._own_mps = own_mps
        fading, lasting = math.exp(-dt / s.acceleration_s), math.exp(-dt / s.lasting_s)
        f = np.eye(4)
        f[FAR, SPEED], f[FAR, ACCELERATION], f[SPEED, ACCELERATION] = dt, dt * dt / 2, dt
        f[ACCELERATION, ACCELERATION], f[ERROR, ERROR] = fading, lasting
        x[:] = x @ f.T
        x[:, FAR] = np.maximum(x[:, FAR] - own_mps * dt, 0.1)
        noise = np.zeros((4, 4))
        noise[ACCELERATION, ACCELERATION] = s.acceleration_mps2**2 * (1 - fading**2)
        noise[ERROR, ERROR] = s.lasting_ratio**2 * (1 - lasting**2)
        p[:] = f @ p @ f.T + noise

    def _record(self, ids: I64, boxes: F64, tall: Bool, score: F64, now_s: float) -> None:
        """One more size a track. A side cut off by the picture's edge says nothing: then the other counts alone."""
        s, memory = self.settings, self._memory
        side = np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0)
        limit = np.array([self._width, self._height]) - s.border_px
        whole = (boxes[:, :2] > s.border_px) & (boxes[:, 2:] < limit)  # (N, 2) width, height
        rows = memory.rows(ids)
        first = np.isnan(memory["log_size"][rows])
        log_side = np.log(side)
        usable = whole & (memory["whole"][rows] | first[:, None])
        worse = np.where(np.stack([tall, ~tall], axis=1), s.other_side_ratio, 1.0)
        sigma = worse * np.hypot(s.side_px / side, (s.side_ratio * np.exp(s.doubt_ratio * (1 - score)))[:, None])
        weight = np.where(usable, 1 / np.square(sigma), 0.0)
        total = weight.sum(axis=1)
        change = weight * (log_side - np.where(first[:, None], 0, memory["log_side"][rows]))
        change = change.sum(axis=1) / np.maximum(total, 1e-9)
        memory["log_side"][rows], memory["whole"][rows] = log_side, whole
        good = total > 0  # no side to measure: the next increment starts from here, and nothing is recorded
        at, new = rows[good], first[good]
        log_size = np.where(new, 0, memory["log_size"][at]) + change[good]
        memory["log_size"][at] = log_size
        self._begin(at[new], log_size[new], now_s)
        self._update(at, log_size, 1 / np.sqrt(total[good]))
        memory["boxes"][at] += 1
        memory["seen_s"][at] = now_s

    def _begin(self, rows: I64, log_size: F64, now_s: float) -> None:
        s, memory = self.settings, self._memory
        far = self._focal_px * s.size_m * np.exp(-log_size)
        own = max(self._own_mps, s.least_mps) if self._own_mps else 0.0
        spread = s.closing_spread_ratio * own if own else s.closing_mps
        memory["state"][rows] = np.stack(
            [far, np.full(len(rows), self._own_mps - s.closing_ratio * own), 0 * far, 0 * far], axis=1
        )
        variance = np.tile(np.square([0.0, spread, s.acceleration_mps2, s.lasting_ratio]), (len(rows), 1))
        variance[:, FAR] = np.square(far)
        memory["covariance"][rows] = variance[:, :, None] * np.eye(4)
        memory["born_s"][rows] = now_s

    def _update(self, rows: I64, log_size: F64, sigma: F64) -> None:
        """Extended Kalman update by ln(size) = ln(f size_m) - ln Z + error, with deviations `sigma` (N,)."""
        s, x = self.settings, self._memory["state"][rows]
        h = np.zeros((len(rows), 4))
        h[:, FAR], h[:, ERROR] = -1 / x[:, FAR], 1.0
        innovation = log_size - math.log(self._focal_px * s.size_m) + np.log(x[:, FAR]) - x[:, ERROR]
        self._correct(rows, h, innovation, sigma)

    def _correct(self, rows: I64, h: F64, innovation: F64, sigma: F64) -> None:
        """The Kalman filter's update: measurement matrices `h` (N, 4), innovations and deviations (N,)."""
        memory = self._memory
        x, p = memory["state"][rows], memory["covariance"][rows]
        ph = (p @ h[..., None])[..., 0]
        own = (h * ph).sum(axis=1)
        noise = np.square(sigma)
        # An outlier's noise is raised until it lies `outlier_sigmas` off, so that it pulls no harder.
        noise = np.maximum(noise, np.square(innovation / self.settings.outlier_sigmas) - own)
        gain = ph / (own + noise)[:, None]
        x = x + gain * innovation[:, None]
        x[:, FAR] = np.maximum(x[:, FAR], 0.1)
        memory["state"][rows] = x
        memory["covariance"][rows] = p - gain[:, :, None] * ph[:, None, :]

    def _grow(self, growth: Growth, dt: float) -> None:
        """Extended Kalman update by ln(Z before / Z now), of the tracks that are known already."""
        s, memory = self.settings, self._memory
        growth = growth[np.isfinite(growth.log) & np.isin(growth.id, memory.id)]
        rows = memory.rows(growth.id)
        x = memory["state"][rows]
        now, nearing = x[:, FAR], self._own_mps - x[:, SPEED]
        before = np.maximum(now + nearing * dt + x[:, ACCELERATION] * dt * dt / 2, 0.1)
        h = np.zeros((len(rows), 4))
        h[:, FAR], h[:, SPEED], h[:, ACCELERATION] = 1 / before - 1 / now, -dt / before, dt * dt / 2 / before
        self._correct(rows, h, growth.log - np.log(before / now), np.hypot(growth.sigma, s.growth_ratio))

    def _contact(self, rows: I64) -> Contact:
        s, memory = self.settings, self._memory
        x, p = memory["state"][rows], memory["covariance"][rows]
        known = (memory["boxes"][rows] >= s.least_boxes) & (
            memory["seen_s"][rows] - memory["born_s"][rows] >= s.least_s
        )
        far = np.maximum(x[:, FAR], 0.1)
        c = np.stack([np.ones(len(rows)), (x[:, SPEED] - self._own_mps) / far, x[:, ACCELERATION] / (2 * far)], axis=1)
        scale = np.array([1.0, 1.0, 0.5]) / far[:, None]
        return Contact(c, p[:, :3, :3] * scale[:, :, None] * scale[:, None, :], known)
