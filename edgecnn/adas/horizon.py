"""Where the horizon is, and how far away every object stands, each with its error: one Kalman filter a camera.

A box tells its distance twice. Its foot stands on the road: with a flat road, row = horizon + g, and g is inverse to
the distance. Its size s, in pixels, is inverse to the distance as well: g = k s, where k = camera height / object size
(Hoiem, Efros and Hebert, "Putting Objects in Perspective", CVPR 2006, eq. 5). So the row at which sizes shrink to 0 is
the horizon, and a known horizon tells sizes. The filter's state is all of this at once: the horizon's mean, its sway of
the moment (a car on its springs), how much the road bends up or down, and each object's k, which starts as a weak
guess from its kind. The distance is taken from k s, and its error from the filter's covariance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgecnn.adas.bounds import within
from edgecnn.adas.camera import Camera
from edgecnn.adas.kinds import Kinds
from edgecnn.scene import F32, I64, Bool

F64 = NDArray[np.float64]

_MEAN, _SWAY, _BEND, _FIXED = 0, 1, 2, 3  # places in the state: two rows in px, 1/m; then the objects' k
_STRAY = 4.0  # deviations from what was expected, beyond which a foot is not believed: hidden, or not on the road
_FORGET_S = 1.0  # an object that is gone for so long is forgotten
_BORDER = 0.005  # of the picture's width: a side this near to its edge is cut off by it
_FAR_M = 500.0  # beyond, a distance is not told from infinity


@dataclass(frozen=True)
class RangeSettings:
    """Standard deviations of what is not known. Angles are the camera's pitch."""

    mount_rad: float = field(metadata=within(1e-5, 0.3))  # of the pitch that is told ...
    assumed_rad: float = field(metadata=within(1e-4, 0.5))  # ... or, where no camera is known, assumed
    drift_rad_per_s: float = field(metadata=within(0, 0.05))  # by which it changes within a second: load, slope
    sway_rad: float = field(metadata=within(0, 0.05))  # of the car on its springs ...
    sway_s: float = field(metadata=within(0.01, 10))  # ... and how long that lasts
    bend_per_m: float = field(metadata=within(0, 0.01))  # of a road's vertical curvature ...
    bend_s: float = field(metadata=within(0.1, 100))  # ... and how long that lasts
    foot_ratio: float = field(metadata=within(1e-4, 0.1))  # of a box's edge, share of the picture's height ...
    box_ratio: float = field(metadata=within(0, 0.3))  # ... and share of the box's height, together
    flank_ratio: float = field(metadata=within(0, 2))  # of a flank that shows beside a width, share of it
    alike_s: float = field(metadata=within(0, 10))  # errors of boxes nearer in time than this are much the same
    size_drift_ratio: float = field(
        metadata=within(0, 1)
    )  # by which an object's size in the picture strays within a second


@dataclass(frozen=True)
class Ranges:
    """Of N objects."""

    forward_m: F64  # (N,) from the camera to the nearest point, along the road; inf = its foot is above the horizon
    sigma_m: F64  # (N,) its standard deviation
    horizon_px: float  # row, freed from distortion
    horizon_sigma_px: float


class Horizon:
    """Of one camera, which must be `fitted`. Distances of the first frame are there at once."""

    def __init__(self, settings: RangeSettings, camera: Camera, kinds: Kinds, *, known: bool) -> None:
        """`known` False: the camera is `Camera.assumed`."""
        assert camera.size is not None
        self.settings, self.camera, self.kinds = settings, camera, kinds
        self._width, self._height = camera.size
        mount = settings.mount_rad if known else settings.assumed_rad
        self._start = np.diag(np.square([camera.fy * mount, camera.fy * settings.sway_rad, settings.bend_per_m]))
        self._mean = np.array([camera.horizon_px, 0.0, 0.0])
        self._covariance = self._start
        self.reset()

    def reset(self) -> None:
        """Forget the objects and the sway, and keep the horizon's mean: the camera is still where it was."""
        self._mean, variance = self._mean[:_FIXED].copy(), self._covariance[_MEAN, _MEAN]
        self._mean[1:] = 0.0
        self._covariance = self._start.copy()
        self._covariance[_MEAN, _MEAN] = variance
        self._ids: I64 = np.zeros(0, np.int64)
        self._seen_s: F64 = np.zeros(0)  # as a track
        self._measured_s: F64 = np.zeros(0)  # by its foot
        self._now_s = math.inf

    def step(
        self,
        ids: I64,
        label: I64,
        xyxy: F32,
        measured: F32,
        now_s: float,
        *,
        vanishing: tuple[float, float] | None = None,
    ) -> Ranges:
        """Objects `ids` (N,) with boxes `xyxy` (N, 4) px; `measured` (N, 4) px as detected now, nan where not.

        `vanishing`: the row at which our lane's lines meet, and its deviation, px.
        """
        rows = _FIXED + self._rows(ids, label, now_s)
        if vanishing is not None:
            look = np.zeros((1, len(self._mean)))
            look[0, [_MEAN, _SWAY]] = 1.0
            self._update(look, np.array([vanishing[0]]) - look @ self._mean, np.array([vanishing[1] ** 2]))
        size, size_variance, foot_variance, whole = self._sizes(measured, label, rows)
        on = np.flatnonzero(whole & (measured[:, 3] < self._height * (1 - _BORDER)))
        if len(on):
            since = np.clip(now_s - self._measured_s[rows[on] - _FIXED], 1e-3, 1e6)
            alike = 1 + self.settings.alike_s / since
            self._measured_s[rows[on] - _FIXED] = now_s
            self._feet(rows[on], label[on], size[on], measured[on, 3], size_variance[on], foot_variance[on], alike)
        return self._ranges(rows, label, xyxy)

    def _rows(self, ids: I64, label: I64, now_s: float) -> I64:
        """Time goes on, objects come and go; where each of `ids` is kept."""
        s, elapsed = self.settings, min(max(now_s - self._now_s, 0.0), 1.0)  # 0 at first
        self._now_s = now_s
        keep = now_s - self._seen_s < _FORGET_S
        if not keep.all():
            state = np.concatenate([np.ones(_FIXED, bool), keep])
            self._mean, self._covariance = self._mean[state], self._covariance[np.ix_(state, state)]
            self._ids, self._seen_s, self._measured_s = self._ids[keep], self._seen_s[keep], self._measured_s[keep]
        fade = np.ones(len(self._mean))
        fade[_SWAY], fade[_BEND] = math.exp(-elapsed / s.sway_s), math.exp(-elapsed / s.bend_s)
        noise = np.square(s.size_drift_ratio * self._mean) * elapsed
        noise[_MEAN] = (self.camera.fy * s.drift_rad_per_s) ** 2 * elapsed
        noise[1:_FIXED] = (1 - fade[1:_FIXED] ** 2) * np.diag(self._start)[1:]
        self._mean = self._mean * fade
        self._covariance = self._covariance * np.outer(fade, fade)
        self._covariance[np.diag_indices_from(self._covariance)] += noise

        new = ~(ids[:, None] == self._ids).any(axis=1)
        if new.any():
            k = self.camera.height_m / self.kinds.size_m[label[new]]
            grown = np.zeros((len(self._mean) + len(k),) * 2)
            grown[: len(self._mean), : len(self._mean)] = self._covariance
            at = np.arange(len(self._mean), len(grown))
            grown[at, at] = np.square(k * self.kinds.spread_ratio[label[new]])
            self._mean, self._covariance = np.concatenate([self._mean, k]), grown
            self._ids, self._seen_s = np.concatenate([self._ids, ids[new]]), np.append(self._seen_s, np.zeros(len(k)))
            self._measured_s = np.append(self._measured_s, np.full(len(k), -math.inf))
        at = (ids[:, None] == self._ids).argmax(axis=1) if len(ids) else np.zeros(0, np.int64)
        self._seen_s[at] = now_s
        return np.asarray(at, np.int64)

    def _sizes(self, xyxy: F32, label: I64, rows: I64) -> tuple[F64, F64, F64, Bool]:
        """Sizes in px (N,), their variances and those of the feet (N,), and whether the size is seen whole (N,)."""
        boxes = xyxy.astype(np.float64)
        width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        tall = self.kinds.tall[label]
        edge = _BORDER * self._width
        with np.errstate(invalid="ignore"):  # nan: not measured, and so not whole
            across = (boxes[:, 0] > edge) & (boxes[:, 2] < self._width - edge)
            along = (boxes[:, 1] > edge) & (boxes[:, 3] < self._height - edge)
        whole = np.where(tall, along, across)
        # A car beside our axis shows its flank, which is no part of its width: what lies `length` farther away.
        size = np.where(tall, height, width)
        depth = self._depth(self._mean[rows] * np.maximum(np.nan_to_num(size, nan=1.0), 1.0))
        aside = np.abs(0.5 * (boxes[:, 0] + boxes[:, 2]) - self.camera.cx) / self.camera.fx * depth
        length = self.kinds.length_m[label]
        flank = np.maximum(aside - 0.5 * self.kinds.size_m[label], 0) * length / (depth + length)  # m
        shown = np.where(tall, 0.0, np.minimum(self.camera.fx / depth * flank, 0.6 * size))
        size = size - shown
        size = np.maximum(size, 1.0)
        s = self.settings
        foot = np.square(s.foot_ratio * self._height) + np.square(s.box_ratio * height)
        spread = 2 * (np.square(s.foot_ratio * self._height) + np.square(s.box_ratio * size)) + np.square(
            s.flank_ratio * shown
        )
        return size, spread, foot, whole

    def _depth(self, g: F64) -> F64:
        """Distance (N,) in m, before or behind the camera's foot, of what is g (N,) px below the horizon."""
        tan, height = math.tan(self.camera.pitch_rad), self.camera.height_m
        return np.maximum(self.camera.fy * height * (1 + tan * tan) / np.maximum(g, 1e-3) - height * tan, 0.1)

    def _feet(
        self,
        rows: I64,
        label: I64,
        size: F64,
        foot: NDArray[np.float32],
        of_size: F64,
        of_foot: F64,
        alike: F64,
    ) -> None:
        """The filter's update: row = mean + sway - fy bend Z / 2 + g of the wheels, which stand `overhang` farther.

        `alike`: of how many looks each is one, as far as its error goes.
        """
        flat = self.camera.fy * self.camera.height_m
        k, overhang = self._mean[rows], self.kinds.overhang_m[label]
        near = k * size
        shrink = flat / (flat + overhang * near)
        look = np.zeros((len(rows), len(self._mean)))
        look[:, [_MEAN, _SWAY]] = 1.0
        look[:, _BEND] = -0.5 * self.camera.fy * self._depth(near)
        look[np.arange(len(rows)), rows] = size * shrink**2
        missed = foot - (look[:, :_FIXED] @ self._mean[:_FIXED] + near * shrink)
        variance = of_foot + np.square(k * shrink**2) * of_size
        expected = np.einsum("ni,ij,nj->n", look, self._covariance, look) + variance
        stray = np.abs(missed) / np.sqrt(expected)
        believed = (stray < _STRAY) & (foot > self._mean[_MEAN] + self._mean[_SWAY])
        weaker = np.maximum(1.0, stray / 2)  # Huber's weights, where it is believed at all
        self._update(look[believed], missed[believed], (variance * weaker * alike)[believed])

    def _update(self, look: F64, missed: F64, variance: F64) -> None:
        gain = np.linalg.solve(look @ self._covariance @ look.T + np.diag(variance), look @ self._covariance).T
        self._mean = self._mean + gain @ missed
        keep = np.eye(len(self._mean)) - gain @ look  # Joseph's form: stays symmetric and positive
        self._covariance = keep @ self._covariance @ keep.T + (gain * variance) @ gain.T
        low = 0.2 * self.camera.height_m / self.kinds.largest_m
        self._mean[_FIXED:] = np.maximum(self._mean[_FIXED:], low)

    def _ranges(self, rows: I64, label: I64, xyxy: F32) -> Ranges:
        """By size and by foot, as far as the road is flat, weighted by the inverse of their variances."""
        horizon = float(self._mean[_MEAN] + self._mean[_SWAY])
        of_horizon = float(self._covariance[:_BEND, :_BEND].sum())
        size, size_variance, foot_variance, whole = self._sizes(xyxy, label, rows)
        k, foot = self._mean[rows], xyxy[:, 3].astype(np.float64) - horizon
        told = whole, xyxy[:, 3] < self._height * (1 - _BORDER)
        near = np.stack([k * size, np.maximum(foot, 1e-3)])  # (2, N) px below the horizon
        forward = self._depth(near)
        bend = 0.5 * self.camera.fy * forward[1] * math.sqrt(self._covariance[_BEND, _BEND])
        of_size = np.square(size) * self._covariance[rows, rows] + np.square(k) * size_variance
        variance = np.stack([of_size, foot_variance + of_horizon + np.square(bend)]) * np.square(forward / near)
        forward[1] -= self.kinds.overhang_m[label]
        weight = np.stack(told) / variance
        weight[1, ~told[0] & ~told[1]] = 1e-3  # cut off all around: the foot is where it ends at the latest
        total = weight.sum(axis=0)
        forward_m = np.maximum((weight * forward).sum(axis=0) / total, 0.1)
        on_road = (foot > 0) & (forward_m < _FAR_M)
        return Ranges(
            np.where(on_road, forward_m, np.inf),
            np.where(on_road, np.sqrt(1 / total), np.inf),
            horizon,
            math.sqrt(max(of_horizon, 0.0)),
        )
