"""The lane detector: the two lines of our lane, found by votes, then followed by a Kalman filter.

State: left and right, metres to the right of the camera; the rate at which both move; slope and curvature, common to both;
and how far the horizon lies below the camera's own. In the directions of edgecnn.adas.marks a line at `side` runs as
p = side (q - horizon) / H + slope + curvature H / (2 (q - horizon)), so every row of paint beside a predicted line is one
measurement, and a gap between dashes is none. `side` follows from how steep the line is in the picture and the camera's
height alone; a wrong horizon hurts the curvature only, and where both lines are seen it is measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgecnn.adas.camera import F64, Camera
from edgecnn.adas.lane import Lane
from edgecnn.adas.marks import Eye, MarkSettings, between, covered
from edgecnn.adas.propose import Proposal, ProposeSettings, propose
from edgecnn.scene import Bool, Picture

LEFT, RIGHT, RATE, SLOPE, CURVATURE, HORIZON = range(6)


@dataclass(frozen=True)
class LaneSettings:
    marks: MarkSettings = field(default_factory=MarkSettings)
    propose: ProposeSettings = field(default_factory=ProposeSettings)
    near_m: float = 3.5
    far_m: float = 55.0
    rows: int = 64  # of points, from near to far
    gate_m: float = 0.45  # a line is sought this far to each side of where it is expected
    wide_m: float = 4.6  # and where nothing is expected, this far from the camera
    wide_every: int = 3  # frames: a line that is not followed is sought so often
    memory_s: float = 0.25  # over which evidence fades
    on: float = 0.16  # share of the rows beside a line that must hold paint before it is told of ...
    off: float = 0.06  # ... and until which it is
    sigma_m: float = 0.04  # of paint's middle
    sigma_px: float = 0.6
    rows_alike: float = 4.0  # neighbouring rows err together: so many count as one
    width_drift_m: float = 0.05  # of a line against the other, in a second
    # Where nothing is seen these return to their mean: (deviation, time constant in s)
    rate: tuple[float, float] = (0.5, 3.0)  # m/s
    slope: tuple[float, float] = (0.03, 1.5)
    curvature: tuple[float, float] = (0.0015, 2.0)  # 1/m
    horizon: tuple[float, float] = (0.006, 0.7)  # rad: springs and hills
    unknown_horizon: float = 0.07  # rad, deviation for a camera whose figures are not known
    horizon_learnt_s: float = 3.0  # in which such a camera's horizon becomes the mean


class LaneDetector:
    """Of one camera. `known` False: its pitch is a guess, and is learnt from the lines."""

    def __init__(self, camera: Camera, settings: LaneSettings | None = None, *, known: bool = True) -> None:
        self.camera, self.settings, self.known = camera, settings or LaneSettings(), known
        self._eye = Eye(camera, self.settings.marks)
        self.reset()

    def reset(self) -> None:
        """Forget the lane, as after a hard cut. What was learnt of the camera's horizon stays."""
        if not hasattr(self, "_mean"):
            self._mean, self._learnt = 0.0, False
        self._x = np.zeros(6)
        self._p = np.zeros((6, 6))
        self._live = np.zeros(2, bool)  # left, right: followed
        self._seen = np.zeros(2, bool)  # and told of
        self._evidence = np.zeros(2)
        self._since = np.zeros(2)  # s since it is followed
        self._reach_m = 0.0
        self._t_ns: int | None = None
        self._frame = 0

    @property
    def horizon_px(self) -> float:
        """The row at which the lines meet, px of the frame; nan = not measured now."""
        return self._eye.rows(np.array([self._x[HORIZON]]))[0] if self._seen.all() else math.nan

    @property
    def horizon_sigma_px(self) -> float:
        """Standard deviation of `horizon_px`; inf = not measured now."""
        return self.camera.fy * math.sqrt(self._p[HORIZON, HORIZON]) if self._seen.all() else math.inf

    def step(self, bgr: Picture, t_ns: int, boxes: NDArray[np.float32] | None = None) -> Lane | None:
        """The lane in this frame (H, W, 3), the size that the camera's figures hold for; None = no line is seen.

        `boxes` (N, 4) px: vehicles and people, whose edges are no paint.
        """
        boxes = np.zeros((0, 4), np.float32) if boxes is None else boxes
        dt = 0.04 if self._t_ns is None else min(max((t_ns - self._t_ns) / 1e9, 0.0), 0.5)
        self._t_ns = t_ns
        if self._live.any():
            self._predict(dt)
        if not self._live.all() and self._frame % self.settings.wide_every == 0:
            self._look_wide(bgr, boxes)
        self._frame += 1
        if self._live.any():
            self._follow(bgr, boxes, dt)
            self._change_lanes()
        if not self._seen.any():
            return None
        left, right = np.where(self._seen, self._x[:2], np.nan)
        return Lane(float(left), float(right), float(self._x[SLOPE]), float(self._x[CURVATURE]), self._reach_m)

    def _predict(self, dt: float) -> None:
        s, f, mean = self.settings, np.eye(6), np.zeros(6)
        mean[HORIZON] = self._mean
        noise = np.zeros(6)
        for at, (sigma, tau) in zip(
            (RATE, SLOPE, CURVATURE, HORIZON), (s.rate, s.slope, s.curvature, s.horizon), strict=True
        ):
            keep = math.exp(-dt / tau)
            f[at, at], noise[at] = keep, sigma * sigma * (1 - keep * keep)
        f[LEFT, RATE] = f[RIGHT, RATE] = dt
        noise[LEFT] = noise[RIGHT] = s.width_drift_m**2 * dt
        self._x = mean + f @ (self._x - mean)
        self._p = f @ self._p @ f.T + np.diag(noise)

    def _look_wide(self, bgr: Picture, boxes: NDArray[np.float32]) -> None:
        """Seek the lines that are not followed."""
        s, height_m = self.settings, self.camera.height_m
        guess = not (self.known or self._learnt)
        horizon = float(self._x[HORIZON]) if self._live.any() else self._mean
        sigma = s.unknown_horizon if guess else max(2 * s.horizon[0], 0.01)
        bottom = min(float(self._eye.down(np.array([bgr.shape[0] - 2.0]))[0]), height_m / s.near_m + horizon)
        top = height_m / 30.0 + horizon
        if bottom - top < 0.02:
            return
        q = np.linspace(top, bottom, s.rows)
        x = np.arange(-s.wide_m, s.wide_m + 1e-6, s.marks.step_m)
        distance = height_m / (q - horizon)
        centre = self._bend(q) if self._live.any() else np.zeros(s.rows)
        p = centre[:, None] + x / distance[:, None]
        response, smooth = self._eye.ridges(self._eye.sample(bgr, p, q), distance)
        peak = response > 1
        peak[:, 1:-1] &= (smooth[:, 1:-1] >= smooth[:, :-2]) & (smooth[:, 1:-1] > smooth[:, 2:])
        row, column = np.nonzero(peak)
        p, q = p[row, column], q[row]
        u, v = self._eye.columns(p, q), self._eye.rows(q)
        good = (u > 1) & (u < bgr.shape[1] - 2) & ~covered(u, v, boxes)
        found = propose(s.propose, p[good], q[good], height_m=height_m, horizon=horizon, horizon_sigma=sigma)
        if found is None:
            return
        if self._live.any():
            self._join(found)
        elif not guess or (math.isfinite(found.left_m) and math.isfinite(found.right_m)):
            self._begin(found, sigma)

    def _begin(self, found: Proposal, horizon_sigma: float) -> None:
        s = self.settings
        sides = np.array([found.left_m, found.right_m])
        self._live = np.isfinite(sides)
        self._seen = np.zeros(2, bool)
        self._evidence, self._since = np.full(2, 0.5 * (s.on + s.off)), np.zeros(2)
        other = sides[::-1] + np.array([-1, 1]) * s.propose.width_m
        self._x = np.array([*np.where(self._live, sides, other), 0.0, found.slope, found.curvature, found.horizon])
        spread = np.where(self._live, 0.15, 1.0)
        self._p = np.diag(np.square([*spread, s.rate[0], 0.02, s.curvature[0], min(horizon_sigma, 0.02)]))
        if not (self.known or self._learnt):
            self._mean = found.horizon

    def _join(self, found: Proposal) -> None:
        """Take the line that is missing, if the other agrees with the one that is followed."""
        here = int(np.flatnonzero(self._live)[0])
        sides = np.array([found.left_m, found.right_m])
        if not np.isfinite(sides).all() or abs(sides[here] - self._x[here]) > 0.35:
            return
        there = 1 - here
        self._x[there] = self._x[here] + sides[there] - sides[here]
        self._p[there, :] = self._p[:, there] = 0.0
        self._p[there, there] = 0.25**2
        self._live[there], self._since[there] = True, 0.0
        self._evidence[there] = 0.5 * (self.settings.on + self.settings.off)

    def _bend(self, q: F64) -> F64:
        """Direction p (N,) of the lane's course beside the camera itself, at q (N,)."""
        return np.asarray(self._x[SLOPE] + 0.5 * self._x[CURVATURE] * self.camera.height_m / self._below(q))

    def _below(self, q: F64) -> F64:
        """How far below the horizon, as now believed; never nearer than what lies 200 m ahead."""
        return np.maximum(q - self._x[HORIZON], self.camera.height_m / 200)

    def _follow(self, bgr: Picture, boxes: NDArray[np.float32], dt: float) -> None:
        """Paint beside each followed line corrects the state, and its share of the rows is the line's evidence."""
        s, height_m, lines = self.settings, self.camera.height_m, np.flatnonzero(self._live)
        distance = np.geomspace(s.near_m, s.far_m, s.rows)
        q = height_m / distance + self._x[HORIZON]
        reach = s.gate_m + 0.3
        x = np.arange(-reach, reach + 1e-6, s.marks.step_m)
        across = (self._x[lines, None] + x).ravel()  # m, beside one another: one look for both
        p = self._bend(q)[:, None] + across / distance[:, None]
        strips = self._eye.sample(bgr, p, q)
        v = self._eye.rows(q)
        heard = np.zeros(2)
        share = np.zeros(2)
        rows, sides, ps = [], [], []
        for k, line in enumerate(lines):
            part = slice(k * len(x), (k + 1) * len(x))
            response, _ = self._eye.ridges(strips[:, part], distance)
            response[:, np.abs(x) > s.gate_m + 1e-6] = -1.0
            column = response.argmax(axis=1)
            best = response[np.arange(s.rows), column]
            expected = p[:, part][:, len(x) // 2]
            u = self._eye.columns(expected, q)
            visible = (v < bgr.shape[0] - 1) & (u > 2) & (u < bgr.shape[1] - 3) & ~covered(u, v, boxes)
            heard[line] = visible.sum()
            hit = np.flatnonzero(visible & (best > 1))
            at = np.interp(between(response, hit, column[hit]), np.arange(len(x)), x)
            rows.append(hit)
            sides.append(np.full(len(hit), line))
            ps.append(expected[hit] + at / distance[hit])
        row, side, p_seen = np.concatenate(rows), np.concatenate(sides), np.concatenate(ps)
        inlier = self._update(q[row], p_seen, side)
        np.add.at(share, side[inlier], 1.0)
        self._judge(share, heard, dt)
        near = distance[row[inlier]]
        self._reach_m += (float(near.max(initial=0.0)) - self._reach_m) * min(1.0, dt / s.memory_s)

    def _update(self, q: F64, p: F64, side: NDArray[np.int64]) -> Bool:
        """Iterated Kalman update with points (N,) of lines `side` (N,); which of them (N,) fit.

        Outliers are weakened by Cauchy's weight: what lies beside the line by chance has no say.
        """
        s, height_m, prior = self.settings, self.camera.height_m, self._x.copy()
        information = np.linalg.inv(self._p)
        n = np.arange(len(q))
        for _ in range(4):
            below = self._below(q)
            here = self._x[side]
            expected = here * below / height_m + self._x[SLOPE] + 0.5 * self._x[CURVATURE] * height_m / below
            jacobian = np.zeros((len(q), 6))
            jacobian[n, side] = below / height_m
            jacobian[:, SLOPE], jacobian[:, CURVATURE] = 1.0, 0.5 * height_m / below
            jacobian[:, HORIZON] = -here / height_m + 0.5 * self._x[CURVATURE] * height_m / below**2
            sigma = np.hypot(s.sigma_m * below / height_m, s.sigma_px / self.camera.fx)
            pull = (p - expected) / sigma
            weighted = jacobian * (1 / (1 + np.square(pull / 1.5)) / (s.rows_alike * sigma * sigma))[:, None]
            posterior = np.linalg.inv(information + jacobian.T @ weighted)
            self._x = self._x + posterior @ (information @ (prior - self._x) + weighted.T @ (p - expected))
        self._p = posterior
        return np.asarray(np.abs(pull) < 3)

    def _judge(self, share: F64, heard: F64, dt: float) -> None:
        """Evidence rises and fades; lines begin to be told of, end, and are given up."""
        s = self.settings
        looked = self._live & (heard >= s.rows // 6)  # else a vehicle hides it: nothing learnt
        step = 1 - math.exp(-dt / s.memory_s)
        self._evidence += np.where(
            looked, step * (share / np.maximum(heard, 1) - self._evidence), -step * 0.2 * self._evidence
        )
        self._since += dt
        deviation = np.sqrt(np.diag(self._p)[:2])
        width = self._x[RIGHT] - self._x[LEFT]
        sane = (not self._live.all()) or s.propose.width_least_m - 0.2 < width < s.propose.width_most_m + 0.4
        self._seen = self._live & (self._evidence > np.where(self._seen, s.off, s.on)) & (deviation < 0.3)
        if not sane:
            weaker = int(np.argmin(self._evidence))
            self._live[weaker] = self._seen[weaker] = False
        self._live &= self._evidence > s.off
        if self._seen.all() and not self.known:
            self._learnt = True
            self._mean += (self._x[HORIZON] - self._mean) * min(1.0, dt / s.horizon_learnt_s)
        for line in np.flatnonzero(~self._live):
            self._p[line, :] = self._p[:, line] = 0.0
            self._p[line, line] = 1.0
            self._x[line] = self._x[1 - line] + (2 * line - 1) * s.propose.width_m

    def _change_lanes(self) -> None:
        """Once we are across a line, it is the other line of the next lane."""
        s = self.settings
        for line, sign in ((LEFT, 1), (RIGHT, -1)):
            if self._live[line] and sign * self._x[line] > s.propose.inside_m:
                other = 1 - line
                swap = [other, line, *range(2, 6)]
                self._x, self._p = self._x[swap], self._p[np.ix_(swap, swap)]
                self._live, self._seen = self._live[::-1].copy(), self._seen[::-1].copy()
                self._evidence, self._since = self._evidence[::-1].copy(), self._since[::-1].copy()
                self._live[line] = self._seen[line] = False
                self._p[line, :] = self._p[:, line] = 0.0
                self._p[line, line] = 1.0
                self._x[line] = self._x[other] - sign * s.propose.width_m
                return
