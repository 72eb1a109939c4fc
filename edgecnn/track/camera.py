"""How the camera itself moved from the picture before to this one, by sparse optical flow of the background.

Points on a grid outside of the tracks' boxes are followed (edgecnn.track.flow does it in one call with those inside),
and a rotation, a scale and a shift are fitted to those that agree (RANSAC): Aharon, Orfaig and Bobrovsky, "BoT-SORT:
Robust Associations Multi-Pedestrian Tracking", 2022, arXiv:2206.14651, section 3.2. From a moving car the road flows
by at every speed there is, so fewer need agree, and less closely, than before a flat scene.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.scene import F32, Bool

Warp = NDArray[np.float64]  # (2, 3): px of the frame before, homogeneous → px of this one

_COLUMNS, _ROWS = 12, 7  # of the grid of points
_ERROR_PX = 2.5  # of the reduced picture: a point that fits no better moves by itself
_LEAST = 12  # points that must agree, ...
_SHARE = 0.3  # ... and the share of those followed
_MOST_SCALE = 1.25  # from one frame to the next


def background(grey: NDArray[np.uint8], boxes: F32) -> F32:
    """Points (M, 2) of a grid over the picture (h, w) that lie in none of the boxes (N, 4), px of that picture."""
    height, width = grey.shape
    x = (np.arange(_COLUMNS, dtype=np.float32) + np.float32(0.5)) * np.float32(width / _COLUMNS)
    y = (np.arange(_ROWS, dtype=np.float32) + np.float32(0.5)) * np.float32(height / _ROWS)
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 1, 2)
    inside = ((points >= boxes[:, :2]) & (points <= boxes[:, 2:])).all(axis=2)  # (M, N)
    return np.asarray(points[~np.logical_or.reduce(inside, axis=1), 0], np.float32)


def fit(start: F32, there: F32, found: Bool) -> Warp | None:
    """The similarity (2, 3) that takes the points (M, 2) `start` to `there`, of those `found` (M,); None where too few
    agree on one. OpenCV draws its samples from a fixed seed, so the same points give the same answer."""
    if found.sum() < _LEAST:
        return None
    warp, agree = cv2.estimateAffinePartial2D(start[found], there[found], ransacReprojThreshold=_ERROR_PX)
    if warp is None or int(agree.sum()) < max(_LEAST, _SHARE * found.sum()):
        return None
    scale = float(np.hypot(warp[0, 0], warp[1, 0]))
    return np.asarray(warp, np.float64) if 1 / _MOST_SCALE < scale < _MOST_SCALE else None
