"""The camera in the car, and where its pixels lie on the road.

Axes of the road frame: forward along the car, right, down; its origin is at the camera. Flat road, no roll.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError

F64 = NDArray[np.float64]

_LIMITS = {  # what no camera in a road vehicle exceeds
    "fx": (1.0, 1e5),
    "fy": (1.0, 1e5),
    "cx": (-1e5, 1e5),
    "cy": (-1e5, 1e5),
    "height_m": (0.2, 5.0),
    "pitch_rad": (-0.8, 0.8),
    "yaw_rad": (-0.8, 0.8),
    "lateral_m": (-2.0, 2.0),
    "bumper_m": (-1.0, 6.0),
}
_ASPECT = 0.01  # a picture of another size may differ by this share in its aspect


@dataclass(frozen=True)
class Camera:
    """Figures hold for pixels of a picture of `size`, with distortion as the lens gives it.

    Raises InputError, one line, where a figure is absurd or the horizon lies outside of the picture.
    """

    fx: float  # px
    fy: float  # px
    cx: float  # px
    cy: float  # px
    height_m: float  # above the road
    pitch_rad: float = 0.0  # positive = looks down
    yaw_rad: float = 0.0  # against the car's axis, positive = looks right
    lateral_m: float = 0.0  # right of the car's middle
    bumper_m: float = 0.0  # how far the front bumper is ahead of the camera
    distortion: tuple[float, ...] = ()  # OpenCV's k1, k2, p1, p2[, k3[, k4, k5, k6]]
    size: tuple[int, int] | None = None  # width, height in px that the figures hold for; None = whatever comes

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:  # nan too
                raise InputError(f"a camera with {name} {value:g}", wanted=f"{low:g} to {high:g}")
        if len(self.distortion) not in (0, 4, 5, 8) or not all(abs(k) < 100 for k in self.distortion):
            raise InputError(
                f"a camera with distortion {list(self.distortion)}",
                wanted="none, or OpenCV's k1, k2, p1, p2, or also k3, or also k4, k5, k6",
            )
        if self.size is not None and not 0 <= self.horizon_px <= self.size[1]:
            raise InputError(
                f"a camera whose horizon lies at row {self.horizon_px:.0f} of a picture of {self.size[1]} rows",
                wanted="a horizon inside of the picture",
                do="Check pitch_rad, fy and cy",
            )

    @classmethod
    def assumed(cls, frame_size: tuple[int, int]) -> Camera:
        """A usual dashcam for frames of (width, height) px: level, 1.3 m up, 53° wide.

        Good for lateral offsets, which depend on its horizon and height only; its ranges are guesses.
        """
        width, height = frame_size
        return cls(width, width, width / 2, height / 2, 1.3)

    @classmethod
    def from_json(cls, data: Any, name: str) -> Camera:
        """From a file's content; `name` is the file's, for the message. Keys: `picture` [width, height], fx, fy, cx,
        cy, height_m, one of pitch_rad and horizon_px, and if not 0: distortion, yaw_rad, lateral_m, bumper_m.

        Raises InputError for a key that is unknown or missing, and for a value that is no number or absurd.
        """
        needed, either = ("picture", "fx", "fy", "cx", "cy", "height_m"), ("pitch_rad", "horizon_px")
        known = {*needed, *either, "distortion", "yaw_rad", "lateral_m", "bumper_m"}
        if not isinstance(data, Mapping):
            raise InputError(f"{name} is no table of keys", wanted=f"a camera with {', '.join(needed)} and pitch_rad")
        if unknown := sorted(str(key) for key in set(data) - known):
            raise InputError(f"{name} has the key '{unknown[0]}'", wanted=f"only {', '.join(sorted(known))}")
        if missing := [key for key in needed if key not in data]:
            raise InputError(f"{name} lacks {', '.join(missing)}", wanted=f"all of {', '.join(needed)}")
        if sum(key in data for key in either) != 1:
            raise InputError(f"{name} has {'both' if set(either) <= set(data) else 'none'} of {' and '.join(either)}",
                             wanted="one of them")  # fmt: skip
        try:
            numbers: dict[str, Any] = {k: _number(k, v) for k, v in data.items() if k not in ("picture", "distortion")}
            distortion = tuple(_number("distortion", v) for v in data.get("distortion", ()))
            width, height = (_number("picture", v) for v in data["picture"])
        except (TypeError, ValueError) as error:
            raise InputError(f"{name}: {error}", wanted="numbers; picture: [width, height]") from None
        if not (width >= 16 and height >= 16 and width % 1 == 0 == height % 1):
            raise InputError(f"{name} has a picture of {width:g} x {height:g}", wanted="whole pixels, 16 or more")
        horizon = numbers.pop("horizon_px", None)
        try:
            camera = cls(**numbers, distortion=distortion)
            if horizon is not None:
                camera = camera.with_horizon(float(camera.rays(np.array([camera.cx]), np.array([horizon]))[1][0]))
            return replace(camera, size=(int(width), int(height)))
        except InputError as error:
            raise InputError(f"{name}: {error}") from None

    def fitted(self, frame_size: tuple[int, int]) -> Camera:
        """This camera for frames of (width, height) px: scaled, where its figures hold for another size.

        Raises InputError where the aspect is another: then it is not known which part of the picture was cut.
        """
        if self.size in (None, frame_size):
            return replace(self, size=frame_size)
        assert self.size is not None
        x, y = frame_size[0] / self.size[0], frame_size[1] / self.size[1]
        if abs(x / y - 1) > _ASPECT:
            raise InputError(
                f"frames of {frame_size[0]} x {frame_size[1]} from a camera that is described for "
                f"{self.size[0]} x {self.size[1]}",
                wanted="the same aspect",
                do="Describe the camera for the frames that it delivers",
            )
        return replace(self, fx=self.fx * x, fy=self.fy * y, cx=self.cx * x, cy=self.cy * y, size=frame_size)

    def with_horizon(self, slope: float) -> Camera:
        """The same camera pitched so that the road ends where `slope` = (row - cy) / fy, without distortion."""
        return replace(self, pitch_rad=-math.atan(slope))

    def at_horizon(self, row: float) -> Camera:
        """The same, pitched so that its horizon lies at `row` px (`Scene.horizon_px`); nan changes nothing.

        A row outside of the picture is taken for its edge.
        """
        if not math.isfinite(row):
            return self
        if self.size is not None:
            row = min(max(row, 0.0), float(self.size[1]))
        low, high = _LIMITS["pitch_rad"]
        return replace(self, pitch_rad=min(max(math.atan((self.cy - row) / self.fy), low), high))

    @property
    def horizon_px(self) -> float:
        """The row of the picture, freed from distortion, at which the road ends."""
        return self.cy - self.fy * math.tan(self.pitch_rad)

    def rays(self, u: NDArray[Any], v: NDArray[Any]) -> tuple[F64, F64]:
        """x / z and y / z (N,), (N,) of what is seen at pixels u, v (N,), (N,), freed from distortion.

        Inverts OpenCV's model (calib3d, "Detailed Description": radial, rational and tangential) by fixed-point
        iteration; exact to 1e-3 px for lenses up to about 120°.
        """
        x0 = (np.asarray(u, np.float64) - self.cx) / self.fx
        y0 = (np.asarray(v, np.float64) - self.cy) / self.fy
        if not any(self.distortion):
            return x0, y0
        k1, k2, p1, p2, k3, k4, k5, k6 = (*self.distortion, *(0.0,) * (8 - len(self.distortion)))
        x, y = x0, y0
        for _ in range(20):
            r = x * x + y * y
            bent = (1 + r * (k1 + r * (k2 + r * k3))) / (1 + r * (k4 + r * (k5 + r * k6)))
            dx, dy = 2 * p1 * x * y + p2 * (r + 2 * x * x), p1 * (r + 2 * y * y) + 2 * p2 * x * y
            x, y = (x0 - dx) / bent, (y0 - dy) / bent
        return x, y

    def straight(self, xyxy: NDArray[Any]) -> NDArray[Any]:
        """Boxes (N, 4) px as the same camera without distortion would see them, by the middles of their sides."""
        if not any(self.distortion):
            return xyxy
        boxes = np.asarray(xyxy, np.float64)
        middle = 0.5 * (boxes[:, :2] + boxes[:, 2:])
        left, right = (self.rays(boxes[:, k], middle[:, 1])[0] for k in (0, 2))
        top, bottom = (self.rays(middle[:, 0], boxes[:, k])[1] for k in (1, 3))
        scale, shift = np.array([self.fx, self.fy] * 2), np.array([self.cx, self.cy] * 2)
        return np.asarray(np.stack([left, top, right, bottom], axis=1) * scale + shift, xyxy.dtype)

    def ground(self, u: NDArray[Any], v: NDArray[Any]) -> tuple[F64, F64]:
        """Forward and right (N,), (N,) in metres of the road points seen at pixels u, v (N,), (N,).

        At and above the horizon there is no road: forward is inf and right is nan. For a level camera that looks
        straight ahead this is Z = fy H / (v - horizon) and X = (u - cx) Z / fx.
        """
        x, y = self.rays(u, v)
        cos, sin = math.cos(self.pitch_rad), math.sin(self.pitch_rad)
        down = y * cos + sin
        on_road = down > 1e-6
        scale = np.divide(self.height_m, down, out=np.full_like(down, np.nan), where=on_road)
        forward, right = self.turned(scale * (cos - y * sin), scale * x)
        return np.where(on_road, forward, np.inf), right

    def turned(self, forward: F64, right: F64) -> tuple[F64, F64]:
        """Points of the road (N,), (N,) m, as the camera looks, along the car's axis instead."""
        cos, sin = math.cos(self.yaw_rad), math.sin(self.yaw_rad)
        return forward * cos - right * sin, forward * sin + right * cos


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {value!r}")
    return float(value)
