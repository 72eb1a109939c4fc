"""The way that our car will take, and which objects stand on it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.adas.bounds import within
from edgecnn.adas.camera import Camera
from edgecnn.adas.lane import Lane
from edgecnn.scene import Bool

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class PathSettings:
    half_width_m: float = field(metadata=within(0.2, 3))  # of the corridor: our own, less what a glance past may lack
    look_ahead_s: float = field(metadata=within(0, 10))  # it must be in it then too, or at contact if sooner (cut-outs)
    lead_detections: float = field(metadata=within(1, 100))  # consecutive ones in the corridor, to become a lead ...
    lead_off_s: float = field(metadata=within(0, 5))  # ... and time outside of it, to be one no longer ...
    lead_margin_m: float = field(metadata=within(0, 3))  # ... by this much


@dataclass(frozen=True)
class Path:
    """Our way on the road: it lies at `side + slope z + curvature z² / 2`, z metres ahead, right of the camera.

    Beyond `reach_m` it goes on straight: what bends there was not seen.
    """

    side_m: float
    slope: float = 0.0
    curvature: float = 0.0  # 1/m, positive = right bend
    reach_m: float = math.inf

    @classmethod
    def of(cls, camera: Camera, lane: Lane | None, *, speed_mps: float, yaw_rate_rps: float) -> Path:
        """Along our lane where its course is seen; else as we turn; else straight on."""
        side = -camera.lateral_m
        if lane is not None and math.isfinite(lane.slope + lane.curvature) and lane.reach_m > 0:
            return cls(side, lane.slope, lane.curvature, lane.reach_m)
        if math.isfinite(yaw_rate_rps) and speed_mps > 2.0:  # slower, the quotient is noise
            return cls(side, 0.0, yaw_rate_rps / speed_mps)
        return cls(side)

    def right_m(self, forward_m: NDArray[Any]) -> F64:
        """(N,) m right of the camera at `forward_m` (N,)."""
        near = np.minimum(forward_m, self.reach_m)
        bend = 0.5 * self.curvature * near * near + self.curvature * near * (forward_m - near)
        return np.asarray(self.side_m + self.slope * forward_m + bend)


@dataclass(frozen=True)
class Place:
    """Where N objects stand, and go, beside our path."""

    forward_m: F64  # (N,) from the camera to the nearest point; inf = not on the road
    aside_m: F64  # (N,) of its middle, right of our path's middle; nan = unknown
    half_m: F64  # (N,) half of what is seen of it across
    drift_mps: F64  # (N,) by which it moves right of our path
    in_path: Bool  # (N,) it reaches into the corridor now, and after the look-ahead
    near_path: Bool  # (N,) it reaches into a corridor that is wider by `lead_margin_m`, now


def beside(
    camera: Camera, path: Path, xyxy: NDArray[Any], forward_m: NDArray[Any], length_m: NDArray[Any] | float = 0.0
) -> tuple[F64, F64]:
    """Of boxes (N, 4) px at `forward_m` (N,), about `length_m` (N,) long: how far right of our path's middle their
    middle stands (N,), and half of what is seen of them across (N,), m; nan = not on the road."""
    boxes = np.asarray(xyxy, np.float64)
    distance = np.where(np.isfinite(forward_m), forward_m, np.nan)
    left, right = (camera.turned(distance, (boxes[:, k] - camera.cx) / camera.fx * distance)[1] for k in (0, 2))
    # Beside us we look along a flank: the edge of the box next to our axis is its far end, not its near one.
    stretch = 1 + length_m / np.maximum(distance, 1.0)
    left, right = (
        np.where(left > 0, np.minimum(left * stretch, right), left),
        np.where(right < 0, np.maximum(right * stretch, left), right),
    )
    return 0.5 * (left + right) - path.right_m(distance), 0.5 * (right - left)


def place(
    settings: PathSettings, forward_m: NDArray[Any], aside_m: F64, half_m: F64, drift_mps: F64, ttc_s: NDArray[Any]
) -> Place:
    """What stands as `beside` says, moves `drift_mps` (N,) to the right of our path, and is reached in `ttc_s` (N,)."""
    later = aside_m + np.minimum(ttc_s, settings.look_ahead_s) * drift_mps
    reach = settings.half_width_m + half_m
    with np.errstate(invalid="ignore"):  # nan: not on the road
        in_path = (np.abs(aside_m) < reach) & (np.abs(later) < reach)
        near_path = np.abs(aside_m) < reach + settings.lead_margin_m
    return Place(np.where(np.isfinite(forward_m), forward_m, np.inf), aside_m, half_m, drift_mps, in_path, near_path)
