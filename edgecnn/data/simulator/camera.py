"""The simulated camera and the shape of the road ahead of it.

World axes at one instant: x forward along the road tangent below the camera, y right, z up, in metres, origin on the
road surface below the camera. The road is a shear of a straight one: the point at arc length s and lateral d lies at
(s - s_ego, bend(s) + d - d_ego, rise(s)); for the gentle curves here a shear differs from arcs by a few per cent.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

NEAR_M = 0.35  # nothing nearer than this is drawn


@dataclass(frozen=True)
class Camera:
    """A pinhole without distortion: u = cx + fx * right / forward, v = cy + fy * down / forward, in px.

    It is mounted `height_m` above the road and looks along the road, turned DOWN by `pitch_rad`. Shake adds to this
    frame by frame and isn't part of the calibration.
    """

    fx: float  # px
    fy: float  # px
    cx: float  # px
    cy: float  # px
    height_m: float  # of the optical centre above the road
    pitch_rad: float  # positive = looking down
    width: int  # px
    height: int  # px


@dataclass(frozen=True)
class Wave:
    """Curvature A sin(ωs + φ) along the road, with its two integrals in closed form."""

    amplitude: float  # 1/m
    length_m: float
    phase: float

    def slope(self, s0: float, x: F64 | float) -> F64:
        """First integral from s0 to s0 + x: heading or grade, rad."""
        w = 2 * math.pi / self.length_m
        a = w * s0 + self.phase
        return np.asarray(self.amplitude / w * (math.cos(a) - np.cos(a + w * np.asarray(x))))

    def offset(self, s0: float, x: F64 | float) -> F64:
        """Second integral: how far the road departs from its tangent, m."""
        w = 2 * math.pi / self.length_m
        a = w * s0 + self.phase
        x = np.asarray(x)
        return np.asarray(self.amplitude / w * (x * math.cos(a) - (np.sin(a + w * x) - math.sin(a)) / w))

    def curvature(self, s: float) -> float:
        return self.amplitude * math.sin(2 * math.pi / self.length_m * s + self.phase)


@dataclass(frozen=True)
class Profile:
    """Bends (left-right) and hills of a whole road."""

    bends: tuple[Wave, ...]
    hills: tuple[Wave, ...]

    def bend(self, s0: float, x: F64 | float) -> F64:
        return _sum([w.offset(s0, x) for w in self.bends], x)

    def heading(self, s0: float, x: F64 | float) -> F64:
        return _sum([w.slope(s0, x) for w in self.bends], x)

    def rise(self, s0: float, x: F64 | float) -> F64:
        return _sum([w.offset(s0, x) for w in self.hills], x)

    def grade(self, s0: float, x: F64 | float) -> F64:
        return _sum([w.slope(s0, x) for w in self.hills], x)

    def curvature(self, s: float) -> float:
        return sum(w.curvature(s) for w in self.bends)


def _sum(terms: list[F64], x: F64 | float) -> F64:
    """Sum with the shape of x, also of no terms at all."""
    return np.asarray(sum(terms, np.zeros(np.shape(x))))


@dataclass(frozen=True)
class View:
    """One camera at one instant: where it is on the road, and how it is turned by the car and by shake."""

    camera: Camera
    profile: Profile
    s: float  # m along the road
    d: float  # m right of the road's reference line
    yaw: float = 0.0  # rad against the road's tangent, positive = looking right
    pitch: float = 0.0  # rad, shake on top of the camera's own
    roll: float = 0.0  # rad, positive = the picture turns clockwise
    lift: float = 0.0  # m, bounce of the car

    @functools.cached_property
    def to_axes(self) -> tuple[F64, F64]:
        """(3, 3) and (3,): camera axes = world @ turn + shift."""
        angle, up = self.camera.pitch_rad + self.pitch, self.camera.height_m + self.lift
        c, s = math.cos(angle), math.sin(angle)
        return np.array(((c, 0, -s), (0, 1, 0), (-s, 0, -c))), np.array((up * s, 0, up * c))

    @functools.cached_property
    def _to_pixels(self) -> tuple[F64, F64]:
        cam, c, s = self.camera, math.cos(self.roll), math.sin(self.roll)
        return np.array(((cam.fx * c, cam.fx * s), (-cam.fy * s, cam.fy * c))), np.array((cam.cx, cam.cy))

    def place(self, s: F64 | float, d: F64 | float) -> F64:
        """Road coordinates → world (…, 3)."""
        x = np.asarray(s, np.float64) - self.s
        out = np.empty((*x.shape, 3))
        out[..., 0], out[..., 1], out[..., 2] = x, self.lateral(x) + d, self.profile.rise(self.s, x)
        return out

    def lateral(self, x: F64 | float) -> F64:
        """y of the road's reference line at x, m."""
        return np.asarray(self.profile.bend(self.s, x) - self.d - math.tan(self.yaw) * np.asarray(x))

    def camera_axes(self, world: F64) -> F64:
        """World (N, 3) → forward, right, down (N, 3) of the camera, m; without roll, which is applied to pixels."""
        turn, shift = self.to_axes
        return np.asarray(world @ turn + shift)

    def pixels(self, axes: F64) -> F64:
        """Forward, right, down (N, 3), forward > 0 → u, v (N, 2) px."""
        turn, shift = self._to_pixels
        return np.asarray((axes[:, 1:] / axes[:, :1]) @ turn + shift)

    def project(self, world: F64) -> F64:
        """World (N, 3), all ahead of the camera → u, v (N, 2) px."""
        return self.pixels(self.camera_axes(world))

    def crests(self, x: F64) -> F64:
        """(N,) rows (px, without roll) below which the ground before x (N,) hides what stands there; inf = nothing."""
        near = np.arange(4.0, 240.0, 2.0)
        axes = self.camera_axes(np.stack((near, 0 * near, self.profile.rise(self.s, near)), 1))
        v = self.camera.cy + self.camera.fy * axes[:, 2] / axes[:, 0]
        highest = np.minimum.accumulate(v)
        at = np.clip(((x - 4) / 2).astype(int), 0, len(near) - 1)
        return np.where(highest[at] < v[at] - 0.25, highest[at], np.inf)


def clip_near(polygon: F64) -> F64:
    """Cut a polygon in camera axes (N, 3) at forward = NEAR_M (Sutherland and Hodgman 1974, one plane)."""
    out = []
    for a, b in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        if a[0] >= NEAR_M:
            out.append(a)
        if (a[0] >= NEAR_M) != (b[0] >= NEAR_M):
            out.append(a + (b - a) * (NEAR_M - a[0]) / (b[0] - a[0]))
    return np.array(out).reshape(-1, 3)
