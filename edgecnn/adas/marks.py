"""Where paint is on the road: narrow strips brighter, or yellower, than the road on both sides of them.

The road is looked at in points that lie evenly on it, not in pixels: a line is then as wide far away as near. Only
those points are ever computed, so the price doesn't depend on the frame's size.

Directions are tangents: `p` to the right and `q` downwards from the camera's own horizon, both without the camera's
pitch, so that a point of flat road `z` metres ahead has q = height / z and p = right / z.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.adas.camera import F64, Camera
from edgecnn.scene import Bool, Picture

# White paint keeps its grey level, and yellow paint becomes as bright as white: in plain grey it vanishes on concrete.
_PAINT = np.array([[-0.25, 0.4, 0.85]], np.float32)  # of B, G, R
_SMOOTH = np.array([0.25, 0.5, 0.25], np.float32)


@dataclass(frozen=True)
class MarkSettings:
    step_m: float = 0.05  # between points across the road
    side_m: float = 0.15  # from the middle of a line to the road beside it, half a line's width and a bit more
    side_px: float = 1.6  # the same where a line is narrower than the picture can show
    contrast: float = 4.0  # grey levels by which paint must stand out at least ...
    noise: float = 2.5  # ... and deviations of the road's own grain


class Eye:
    """Looks at road points through a camera."""

    def __init__(self, camera: Camera, settings: MarkSettings) -> None:
        self.camera, self.settings = camera, settings
        self._cos, self._sin = float(np.cos(camera.pitch_rad)), float(np.sin(camera.pitch_rad))

    def rows(self, q: F64) -> F64:
        """Picture rows (N,) of directions q (N,)."""
        return np.asarray(self.camera.cy + self.camera.fy * np.tan(np.arctan(q) - self.camera.pitch_rad))

    def columns(self, p: F64, q: F64) -> F64:
        """Picture columns of directions p, q of the same shape or broadcast."""
        y = np.tan(np.arctan(q) - self.camera.pitch_rad)
        return np.asarray(self.camera.cx + self.camera.fx * p * (self._cos - y * self._sin))

    def down(self, v: F64) -> F64:
        """Directions q (N,) of picture rows v (N,): the inverse of `rows`."""
        return np.asarray(np.tan(np.arctan((v - self.camera.cy) / self.camera.fy) + self.camera.pitch_rad))

    def sample(self, bgr: Picture, p: F64, q: F64) -> NDArray[np.float32]:
        """Brightness of paint (R, C), grey levels, at directions p (R, C), q (R,); outside the frame its border."""
        u = self.columns(p, q[:, None]).astype(np.float32) - np.float32(0.5)  # OpenCV counts from the pixel's middle
        v = np.broadcast_to(self.rows(q)[:, None].astype(np.float32) - np.float32(0.5), u.shape)
        points = cv2.remap(bgr, u, np.ascontiguousarray(v), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(cv2.transform(points.astype(np.float32), _PAINT), np.float32).reshape(u.shape)

    def ridges(self, strips: NDArray[np.float32], distance_m: F64) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of strips (R, C), points `step_m` apart in rows `distance_m` (R,) away: how far each stands out (R, C), in
        multiples of what paint must, above 1 it may be a line; and the strips, smoothed.

        Paint is brighter than the road to its left and to its right: Bertozzi and Broggi, "GOLD", IEEE Transactions on
        Image Processing 7(1), 1998.
        """
        s = self.settings
        smooth = cv2.sepFilter2D(strips, cv2.CV_32F, _SMOOTH, np.ones(1, np.float32), borderType=cv2.BORDER_REPLICATE)
        side_m = np.maximum(s.side_m, s.side_px * distance_m / self.camera.fx)
        shift = np.maximum(np.rint(side_m / s.step_m), 1).astype(int)
        at = np.arange(strips.shape[1])
        last = strips.shape[1] - 1
        row = np.arange(strips.shape[0])[:, None]
        left = smooth[row, np.maximum(at - shift[:, None], 0)]
        right = smooth[row, np.minimum(at + shift[:, None], last)]
        step = smooth - left
        grain = 1.48 * np.median(np.abs(step), axis=1, keepdims=True)
        least = np.maximum(s.noise * grain, s.contrast)
        response = np.minimum(step, smooth - right) / least
        response[:, :1] = response[:, last:] = -1.0
        return np.asarray(response, np.float32), np.asarray(smooth, np.float32)


def covered(u: F64, v: F64, boxes: NDArray[np.float32], margin: float = 0.05) -> Bool:
    """Which points (N,) px lie in one of boxes (M, 4) px, widened by a share of their size."""
    if not len(boxes):
        return np.zeros(len(u), bool)
    wide = (boxes[:, 2:] - boxes[:, :2]) * margin
    low, high = boxes[:, :2] - wide, boxes[:, 2:] + wide
    points = np.stack([u, v], axis=1)[:, None]
    inside: Bool = np.all((points > low) & (points < high), axis=2)  # (N, M)
    return np.asarray(inside.any(axis=1), bool)


def between(response: NDArray[np.float32], row: NDArray[np.int64], column: NDArray[np.int64]) -> F64:
    """Where in fractions of a point the ridge's top lies (N,), by a parabola through it and its neighbours."""
    at = np.clip(column, 1, response.shape[1] - 2)
    low, middle, high = response[row, at - 1], response[row, at], response[row, at + 1]
    bow = low - 2 * middle + high
    shift = np.divide(0.5 * (low - high), bow, out=np.zeros(len(row), np.float32), where=bow < -1e-6)
    return np.asarray(at + np.clip(shift, -0.5, 0.5), np.float64)
