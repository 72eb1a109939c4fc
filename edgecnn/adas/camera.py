"""From pixels to the road: range and lateral offset of what stands on flat ground, and whether it is in our path.

Axes of the road frame: forward along the car, right, down; its origin is at the camera. Flat road, no roll.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera, for undistorted pixels of the frame that it delivers."""

    fx: float  # px
    fy: float  # px
    cx: float  # px
    cy: float  # px
    height_m: float  # above the road
    pitch_rad: float = 0.0  # positive = looks down

    def __post_init__(self) -> None:
        if not (self.fx > 0 and self.fy > 0 and self.height_m > 0):
            raise InputError(
                f"a camera with fx {self.fx}, fy {self.fy}, height_m {self.height_m}", wanted="all three above 0"
            )
        if not abs(self.pitch_rad) < 0.8:
            raise InputError(f"a camera with pitch_rad {self.pitch_rad}", wanted="radians between -0.8 and 0.8")

    @classmethod
    def assumed(cls, frame_size: tuple[int, int]) -> Camera:
        """A usual dashcam for frames of (width, height) px: level, 1.3 m up, 53° wide.

        Good for lateral offsets, which depend on its horizon and height only; its ranges are guesses.
        """
        width, height = frame_size
        return cls(width, width, width / 2, height / 2, 1.3)

    @property
    def horizon_px(self) -> float:
        """The row of the picture at which the road ends."""
        return self.cy - self.fy * float(np.tan(self.pitch_rad))

    def ground(self, u: NDArray[Any], v: NDArray[Any]) -> tuple[F64, F64]:
        """Forward and right (N,), (N,) in metres of the road points seen at pixels u, v (N,), (N,).

        At and above the horizon there is no road: forward is inf and right is nan. For a level camera this is
        Z = fy H / (v - horizon) and X = (u - cx) Z / fx.
        """
        x, y = (np.asarray(u, np.float64) - self.cx) / self.fx, (np.asarray(v, np.float64) - self.cy) / self.fy
        cos, sin = np.cos(self.pitch_rad), np.sin(self.pitch_rad)
        down = y * cos + sin
        on_road = down > 1e-6
        scale = np.divide(self.height_m, down, out=np.full_like(down, np.nan), where=on_road)
        return np.where(on_road, scale * (cos - y * sin), np.inf), scale * x


@dataclass(frozen=True)
class PathSettings:
    half_width_m: float = 0.7  # of the corridor: our own, less what a glance past may lack
    look_ahead_s: float = 2.0  # it must be expected there then too, or at contact if sooner (cut-outs, bends)


@dataclass(frozen=True)
class Place:
    """Where N objects stand."""

    forward_m: F64  # (N,) inf = its foot is at or above the horizon
    right_m: F64  # (N,) of its middle; nan = unknown
    in_path: NDArray[np.bool_]  # (N,)


def place(
    camera: Camera,
    settings: PathSettings,
    xyxy: NDArray[Any],
    sideways: NDArray[Any],
    growth: NDArray[Any],
    ttc_s: NDArray[Any],
) -> Place:
    """Of boxes (N, 4) px whose centres move `sideways` (N,) px/s, that grow by `growth` (N,) 1/s (nan = unknown) and
    are reached in `ttc_s` (N,).

    In the path: the lower edge, laid on the road, reaches into the corridor now and after the look-ahead.
    """
    boxes = np.asarray(xyxy, np.float64)
    foot = boxes[:, 3]
    forward, left = camera.ground(boxes[:, 0], foot)
    _, right = camera.ground(boxes[:, 2], foot)
    middle, half = 0.5 * (left + right), 0.5 * (right - left)
    # X = (u - cx) Z / fx, so dX/dt = du/dt Z / fx + X dZ/dt / Z, and dZ/dt / Z = -growth.
    distance = np.where(np.isfinite(forward), forward, 0.0)
    drift = sideways * distance / camera.fx - middle * np.nan_to_num(growth)
    later = middle + np.minimum(ttc_s, settings.look_ahead_s) * drift
    reach = settings.half_width_m + half
    with np.errstate(invalid="ignore"):  # nan: no road under it
        in_path = (np.abs(middle) < reach) & (np.abs(later) < reach)
    return Place(forward, middle, in_path)
