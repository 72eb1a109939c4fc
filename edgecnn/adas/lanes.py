"""The lane detector: the two lines of our lane, found by votes, then followed by a Kalman filter.

State: left and right, metres to the right of the camera; the rate at which both move; slope and curvature, common to
both; how far the horizon lies below the camera's own; and how the road bends upwards. In the directions of
edgecnn.adas.marks, with b = q - horizon, a line at `side` runs to first order as
p = side (b / H + hill / 2b) + slope + curvature H / 2b. Every row of paint beside a predicted line is one measurement
of it, and a gap between dashes is none. `side` follows from the camera's height and how steep the line is in the image
alone: a wrong horizon hurts the curvature only, and where both lines are seen it is measured.
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

LEFT, RIGHT, RATE, SLOPE, CURVATURE, HORIZON, HILL = range(7)


@dataclass(frozen=True)
class LaneSettings:
    marks: MarkSettings = field(default_factory=MarkSettings)
    propose: ProposeSettings = field(default_factory=ProposeSettings)
    near_m: float = 3.5
    far_m: float = 55.0
    rows: int = 64  # of points, from near to far
    gate_m: float = 0.45  # a line is sought this far to each side of where it is expected
    wide_m: float = 4.6  # and where nothing is expected, this far from the camera
    wide_every: int = 4  # frames: a line that is not followed is sought so often
    memory_s: float = 0.25  # over which evidence fades
    least_rows: float = 0.15  # share of the rows that must be in sight, else nothing is seen
    on: float = 0.16  # share of the rows beside a line that must hold paint before it is told of ...
    off: float = 0.06  # ... and until which it is
    sigma_m: float = 0.04  # of paint's middle
    sigma_px: float = 0.6
    doubt: float = 1.5  # deviations from which on a point is taken for something else than this line
    iterations: int = 3
    rows_alike: float = 4.0  # neighbouring rows err together: so many count as one
    width_drift_m: float = 0.05  # of a line against the other, in a second
    # Where nothing is seen these return to their mean: (deviation, time constant in s)
    rate: tuple[float, float] = (0.5, 3.0)  # m/s
    slope: tuple[float, float] = (0.03, 1.5)
    curvature: tuple[float, float] = (0.0015, 2.0)  # 1/m
    horizon: tuple[float, float] = (0.006, 0.7)  # rad: springs and hills
    hill: tuple[float, float] = (0.0003, 2.0)  # 1/m, how the road bends upwards
    unknown_horizon: float = 0.07  # rad, deviation for a camera whose figures are not known
    horizon_learnt_s: float = 3.0  # in which such a camera's horizon becomes the mean


class LaneDetector:
    """Of one camera. `known` False: its pitch is a guess, and is learnt from the lines."""

    def __init__(self, camera: Camera, settings: LaneSettings | None = None, *, known: bool = True) -> None:
        self.camera, self.settings, self.known = camera, settings or LaneSettings(), known
        self._eye = Eye(camera, self.settings.marks)
        self._mean, self._learnt = 0.0, known  # of the horizon, as a direction q
        self.reset()

    def reset(self) -> None:
        """Forget the lane, as after a hard cut. What was learnt of the camera's horizon stays."""
        self._x = np.zeros(7)
        self._p = np.zeros((7, 7))
        self._live = np.zeros(2, bool)  # left, right: followed
        self._seen = np.zeros(2, bool)  # and told of
        self._evidence = np.zeros(2)
        self._reach_m = 0.0
        self._t_ns: int | None = None
        self._frame = 0

    @property
    def horizon_px(self) -> float:
        """The row at which the lines meet, px of the frame; nan = not measured now."""
        return float(self._eye.rows(self._x[[HORIZON]])[0]) if self._seen.all() else math.nan

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
        s, f, mean = self.settings, np.eye(7), np.zeros(7)
        mean[HORIZON] = self._mean
        noise = np.zeros(7)
        for at, (sigma, tau) in zip(
            (RATE, SLOPE, CURVATURE, HORIZON, HILL),
            (s.rate, s.slope, s.curvature, s.horizon, s.hill),
            strict=True,
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
        guess = not self._learnt
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
        # With one line followed, the bend is known; with no idea of the horizon, a bend can't be told from it.
        bends = (float(self._x[CURVATURE]),) if self._live.any() else (0.0,) if guess else s.propose.bends
        found = propose(s.propose, p[good], q[good], bends, height_m=height_m, horizon=horizon, horizon_sigma=sigma)
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
        self._evidence = np.full(2, 0.5 * (s.on + s.off))
        other = sides[::-1] + np.array([-1, 1]) * s.propose.width_m
        self._x = np.array([*np.where(self._live, sides, other), 0.0, found.slope, found.curvature, found.horizon, 0.0])
        spread = np.where(self._live, 0.15, 1.0)
        self._p = np.diag(np.square([*spread, s.rate[0], 0.02, s.curvature[0], min(horizon_sigma, 0.02), s.hill[0]]))
        if not self._learnt:
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
        self._live[there] = True
        self._evidence[there] = 0.5 * (self.settings.on + self.settings.off)

    def _bend(self, q: F64) -> F64:
        """Direction p (N,) of the lane's course beside the camera itself, at q (N,)."""
        return np.asarray(self._x[SLOPE] + 0.5 * self._x[CURVATURE] * self.camera.height_m / self._below(q))

    def _below(self, q: F64) -> F64:
        """How far below the horizon, as now believed; never nearer than what lies 200 m ahead."""
        return np.asarray(np.maximum(q - self._x[HORIZON], self.camera.height_m / 200))

    def _closeness(self, q: F64) -> F64:
        """One over the distance (N,), 1/m, of what is seen at q (N,), on a road that bends upwards with HILL."""
        below, height_m = self._below(q), self.camera.height_m
        return np.asarray(np.maximum(below / height_m + 0.5 * self._x[HILL] / below, 0.3 * below / height_m))

    def _follow(self, bgr: Picture, boxes: NDArray[np.float32], dt: float) -> None:
        """Paint beside each followed line corrects the state, and its share of the rows is the line's evidence."""
        s, height_m, lines = self.settings, self.camera.height_m, np.flatnonzero(self._live)
        distance = np.geomspace(s.near_m, s.far_m, s.rows)
        q = height_m / distance + self._x[HORIZON]
        reach = s.gate_m + 2 * s.marks.side_m
        x = np.arange(-reach, reach + 1e-6, s.marks.step_m)
        across = (self._x[lines, None] + x).ravel()  # m; the strips beside one another are one look
        strips = self._eye.sample(bgr, self._bend(q)[:, None] + across * self._closeness(q)[:, None], q)
        strips = strips.reshape(s.rows, len(lines), len(x)).swapaxes(0, 1).reshape(-1, len(x))
        # From here on a row of one strip is a row: N = lines * rows.
        side, distance, q = np.repeat(lines, s.rows), np.tile(distance, len(lines)), np.tile(q, len(lines))
        response, _ = self._eye.ridges(strips, distance)
        response[:, np.abs(x) > s.gate_m + 1e-6] = -1.0
        column = _innermost(response, side)
        expected = self._x[side] * self._closeness(q) + self._bend(q)
        u, v = self._eye.columns(expected, q), self._eye.rows(q)
        visible = (v < bgr.shape[0] - 1) & (u > 2) & (u < bgr.shape[1] - 3)
        visible &= ~covered(u, v, boxes)
        hit = np.flatnonzero(visible & (response[np.arange(len(column)), column] > 1))
        shift = between(response, hit, column[hit]) * s.marks.step_m + x[0]
        fits = self._update(q[hit], expected[hit] + shift * self._closeness(q[hit]), side[hit])
        hit = hit[fits]
        self._judge(np.bincount(side[hit], minlength=2), np.bincount(side[visible], minlength=2), dt)
        far = float(distance[hit].max(initial=0.0))
        self._reach_m += (far - self._reach_m) * (1 - math.exp(-dt / s.memory_s))

    def _update(self, q: F64, p: F64, side: NDArray[np.int64]) -> Bool:
        """Iterated Kalman update with points (N,) of lines `side` (N,); which of them (N,) fit.

        Outliers are weakened by Cauchy's weight: what lies beside the line by chance has no say.
        """
        s, height_m, prior = self.settings, self.camera.height_m, self._x.copy()
        information = np.linalg.inv(self._p)
        jacobian = np.zeros((len(q), 7))
        for _ in range(s.iterations):
            below, here, curvature = self._below(q), self._x[side], self._x[CURVATURE]
            close = self._closeness(q)
            expected = here * close + self._x[SLOPE] + 0.5 * curvature * height_m / below
            jacobian[:, LEFT], jacobian[:, RIGHT] = (side == LEFT) * close, (side == RIGHT) * close
            jacobian[:, SLOPE], jacobian[:, CURVATURE] = 1.0, 0.5 * height_m / below
            jacobian[:, HORIZON] = 0.5 * curvature * height_m / below**2 - here / height_m
            jacobian[:, HILL] = 0.5 * here / below
            sigma = np.hypot(s.sigma_m * below / height_m, s.sigma_px / self.camera.fx)
            pull = (p - expected) / sigma
            weight = 1 / ((1 + np.square(pull / s.doubt)) * s.rows_alike * sigma * sigma)
            weighted = jacobian * weight[:, None]
            posterior = np.linalg.inv(information + jacobian.T @ weighted)
            self._x = self._x + posterior @ (information @ (prior - self._x) + weighted.T @ (p - expected))
        self._p = posterior
        return np.asarray(np.abs(pull) < 2 * s.doubt)

    def _judge(self, painted: NDArray[np.int64], looked_at: NDArray[np.int64], dt: float) -> None:
        """Evidence rises and fades with the rows (2,) painted, of those looked at; lines begin and cease to be seen."""
        s = self.settings
        share = np.where(looked_at >= s.rows * s.least_rows, painted / np.maximum(looked_at, 1), 0.0)
        self._evidence += (share - self._evidence) * (1 - math.exp(-dt / s.memory_s))
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
            self._forget(int(line))

    def _forget(self, line: int) -> None:
        """It may be a usual lane's width beside the other."""
        self._x[line] = self._x[1 - line] + (2 * line - 1) * self.settings.propose.width_m
        self._p[line, :] = self._p[:, line] = 0.0
        self._p[line, line] = 1.0

    def _change_lanes(self) -> None:
        """Once we are across a line, it is the other line of the next lane."""
        for line, across_m in ((LEFT, self._x[LEFT]), (RIGHT, -self._x[RIGHT])):
            if self._live[line] and across_m > self.settings.propose.inside_m:
                swap = np.array([RIGHT, LEFT, RATE, SLOPE, CURVATURE, HORIZON, HILL])
                self._x, self._p = self._x[swap], self._p[np.ix_(swap, swap)]
                self._live, self._seen, self._evidence = self._live[::-1], self._seen[::-1], self._evidence[::-1]
                self._live[line] = self._seen[line] = False
                self._forget(line)
                return


def _innermost(response: NDArray[np.float32], side: NDArray[np.int64]) -> NDArray[np.int64]:
    """The column (N,) of the ridge in each row (N, C) that is nearest to the lane's middle, of those that are not much
    weaker than the row's strongest: of a double line we keep to the inner one, and don't hop."""
    inward = np.where((side == LEFT)[:, None], response[:, ::-1], response)
    top = inward >= np.maximum(0.5 * inward.max(axis=1, keepdims=True), 1)
    top[:, 1:-1] &= (inward[:, 1:-1] >= inward[:, :-2]) & (inward[:, 1:-1] >= inward[:, 2:])
    column = top.argmax(axis=1)
    return np.asarray(np.where(side == LEFT, response.shape[1] - 1 - column, column))
