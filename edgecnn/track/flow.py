"""Where tracked boxes, and the background, went since the frame before, from the picture alone.

Sparse pyramidal Lucas-Kanade on a small grid of points in each box, points that do not flow back to their start
dropped, and a median shift and a scale of the rest: the idea of Kalal, Mikolajczyk and Matas, "Forward-Backward Error:
Automatic Detection of Tracking Failures", ICPR 2010. The background's points, in the same call, tell how the camera
moved (edgecnn.track.camera).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.scene import F32, I64, Bool, Tracks, _Columns
from edgecnn.track.camera import Warp, background, fit

_GRID = 4  # points a side
_POINTS = _GRID * _GRID
_CORE = 0.7  # share of the box that the grid spans: near its border there is background
_BACK_PX = 0.7  # a point must flow back to within this, px of the reduced picture
_ENOUGH = 0.4  # share of a box's points that must do so
_LEAST_PX = 8.0  # a box must be this large in the reduced picture to carry points
_WINDOW = 11  # px a side, in which a point is sought
_NOISE_PX = 0.02  # of a point, though all agree
_TEXTURE = 2e-3  # least eigenvalue of the gradients' matrix: a background point on less is not followed


@dataclass(frozen=True)
class Growth(_Columns):
    """By how much N objects grew from one picture to the next: far more exactly than two boxes tell."""

    id: I64  # (N,) of the tracks
    log: F32  # (N,) of the ratio of sizes; nan = not measured
    sigma: F32  # (N,) standard deviation of `log`, from how well the points agree

    @classmethod
    def empty(cls) -> Growth:
        return cls(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32))


class FlowShift:
    """Follows the boxes of one camera from each grey picture to the next. `frame_width` in px of the frame.

    `camera` is how the camera moved between the last two pictures, px of the frame; None where that is not known.
    `growth` is what the boxes followed last grew by.
    """

    def __init__(self, frame_width: int) -> None:
        self._frame_width = frame_width
        self._before: NDArray[np.uint8] | None = None
        self.camera: Warp | None = None
        self.growth = Growth.empty()
        axis = np.linspace(-0.5, 0.5, _GRID, dtype=np.float32) * np.float32(_CORE)
        self._grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(1, _POINTS, 2)

    def remember(self, grey: NDArray[np.uint8], tracks: Tracks) -> None:
        """A frame in which no box need be followed, because the detector runs: only `camera` is found."""
        self.growth = Growth.empty()
        self._follow_all(grey, tracks.xyxy.astype(np.float32), np.zeros((0, 1, 2), np.float32))

    def step(self, grey: NDArray[np.uint8], tracks: Tracks) -> tuple[F32, Bool]:
        """Boxes (N, 4) in px of the frame now, and whether each was measured (N,); where not, it stands still.

        `grey` (h, w) is the frame at any reduced size, the same size each time; `tracks` holds the boxes of the frame
        before, the rows that the tracker's `step` returned.
        """
        before, xyxy = self._before, tracks.xyxy.astype(np.float32)
        n, self.growth = len(xyxy), Growth.empty()
        scale = np.float32(grey.shape[1] / self._frame_width)
        centre, side = 0.5 * scale * (xyxy[:, :2] + xyxy[:, 2:]), scale * (xyxy[:, 2:] - xyxy[:, :2])
        start = centre[:, None] + side[:, None] * self._grid  # (N, P, 2)
        flat = start.reshape(-1, 1, 2)
        there, found = self._follow_all(grey, xyxy, flat)
        if before is None or before.shape != grey.shape or n == 0:
            return xyxy, np.zeros(n, bool)
        back, returned, _ = _follow(grey, before, there)

        limit = np.array([grey.shape[1], grey.shape[0]], np.float32)
        strayed = np.abs(back - flat).max(axis=(1, 2)) > _BACK_PX
        inside = ((flat >= 0) & (flat < limit) & (there >= 0) & (there < limit)).all(axis=(1, 2))
        good = (found & returned & ~strayed & inside).reshape(n, _POINTS)
        shift = (there - flat).reshape(n, _POINTS, 2)
        middle = _median(shift, good)

        # Points that move with the majority give the scale, by least squares about their common centre.
        stray_px = np.abs(shift - middle[:, None]).max(axis=2)
        good &= stray_px < 1.0 + 0.1 * side.max(axis=1, keepdims=True)
        count = np.maximum(good.sum(axis=1), 1)[:, None].astype(np.float32)
        weight = good[..., None].astype(np.float32)
        mean = (start * weight).sum(axis=1) / count
        drift = (shift * weight).sum(axis=1) / count
        arm = (start - mean[:, None]) * weight
        spread = (arm * arm).sum(axis=(1, 2))
        about = (shift - drift[:, None]) * weight
        growth = 1 + (arm * about).sum(axis=(1, 2)) / np.maximum(spread, 1e-6)

        ok = (good.sum(axis=1) >= _ENOUGH * _POINTS) & (side.min(axis=1) >= _LEAST_PX)
        ok &= (growth > 0.8) & (growth < 1.25)
        left = about - (growth - 1)[:, None, None] * arm
        noise = np.sqrt((left * left).sum(axis=(1, 2)) / np.maximum(2 * count[:, 0] - 3, 1.0)) + _NOISE_PX
        noise *= 1 + _WINDOW / np.maximum(side.min(axis=1), 1.0)  # points whose windows overlap are no two witnesses
        log = np.where(ok, np.log(np.where(ok, growth, 1.0)), np.nan).astype(np.float32)
        self.growth = Growth(tracks.id, log, (noise / np.sqrt(np.maximum(spread, 1e-6))).astype(np.float32))
        # The shift at the box's own centre; the points that are left may lie off it.
        moved = centre + drift + (growth - 1)[:, None] * (centre - mean)
        half = 0.5 * side * growth[:, None]
        boxes = np.concatenate([moved - half, moved + half], axis=1) / scale
        return np.where(ok[:, None], boxes, xyxy).astype(np.float32), ok

    def _follow_all(self, grey: NDArray[np.uint8], xyxy: F32, points: F32) -> tuple[F32, Bool]:
        """The points (M, 1, 2) of the picture before in this one, and which were found (M,); sets `camera` on the way,
        by points outside of the boxes (N, 4), px of the frame."""
        before, self._before = self._before, grey
        self.camera = None
        if before is None or before.shape != grey.shape:
            return points, np.zeros(len(points), bool)
        scale = grey.shape[1] / self._frame_width
        around = background(grey, xyxy * np.float32(scale))
        there, found, texture = _follow(before, grey, np.concatenate([points, around[:, None]]))
        m = len(points)
        warp = fit(around, there[m:, 0], found[m:] & (texture[m:] > _TEXTURE))
        if warp is not None:
            warp[:, 2] /= scale
        self.camera = warp
        return there[:m], found[:m]


def _follow(before: NDArray[np.uint8], now: NDArray[np.uint8], points: F32) -> tuple[F32, Bool, F32]:
    """Where the points (M, 1, 2) of one picture are in the other, which (M,) were found, and their texture (M,)."""
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 8, 0.03)
    there, found, texture = cv2.calcOpticalFlowPyrLK(
        before, now, points, np.empty_like(points), winSize=(_WINDOW, _WINDOW), maxLevel=2, criteria=stop,
        flags=cv2.OPTFLOW_LK_GET_MIN_EIGENVALS,
    )  # fmt: skip
    known = np.asarray(found).reshape(-1) == 1
    return np.asarray(there, np.float32), known, np.asarray(texture, np.float32).reshape(-1)


def _median(values: F32, good: Bool) -> F32:
    """Median (N, 2) over the good points of (N, P, 2); 0 where there is none."""
    ordered = np.sort(np.where(good[..., None], values, np.float32(np.inf)), axis=1)
    count = good.sum(axis=1)
    middle = ordered[np.arange(len(values)), np.maximum(count - 1, 0) // 2]
    return np.where(count[:, None] > 0, middle, np.float32(0))
