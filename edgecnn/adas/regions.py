"""Which parts of the frame are worth a look between two full frames.

A small network needs what is around an object to know it, so a window holds one object with room around it, or several
that lie together, at a zoom at which their size suits the network. The canvas is one window or several beside each
other, without gaps, whichever is worth more. What a window is worth is the Kalman gain that a detection in it would
have for each track in it, more for what may be hit soon, and the time for which nobody looked at the far road.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.scene import F32, I64, Bool, _Columns

F64 = NDArray[np.float64]
ZOOMS = (1.5, 1.0, 0.65, 0.4, 0.25)  # canvas px a frame px
SIZES = (16.0, 80.0)  # px of the canvas: sqrt(wh) between which the network sees an object well
_CENTRES = 6  # windows are laid around so many of what is wanted most, and around the middle of each two of them
ROOM = 0.25  # of an object's sides, that must be inside the window on each side of it


@dataclass(frozen=True)
class Tiles(_Columns):
    """Windows of the frame and where each lies in the canvas, M rows."""

    source: F32  # (M, 4) xyxy px of the frame, whole numbers, inside of it
    place: I64  # (M, 4) xyxy px of the canvas

    @classmethod
    def empty(cls) -> Tiles:
        return cls(np.zeros((0, 4), np.float32), np.zeros((0, 4), np.int64))


@dataclass(frozen=True)
class Wanted:
    """What is to be looked at, N rows."""

    xyxy: F32  # (N, 4) px of the frame, as expected now
    worth: F64  # (N,)


def layouts(width: int, height: int) -> list[I64]:
    """Ways to divide a canvas: (M, 4) xyxy each. Whole, and in two halves."""
    ways = [[(0, 0, width, height)]]
    if width >= 128:
        ways.append([(0, 0, width // 2, height), (width // 2, 0, width, height)])
    return [np.array(way, np.int64) for way in ways]


def choose(wanted: Wanted, canvas: tuple[int, int], frame_size: tuple[int, int]) -> tuple[Tiles, float]:
    """The tiles for a canvas of (width, height) px, and what they are worth together."""
    best, most = Tiles.empty(), 0.0
    if not len(wanted.worth):
        return best, most
    for way in layouts(*canvas):
        left, sources, total = wanted.worth, [], 0.0
        for place in way:
            size = (int(place[2] - place[0]), int(place[3] - place[1]))
            windows = candidates(wanted.xyxy[np.argsort(-left)[:_CENTRES]], size, frame_size)
            quality = seen(wanted.xyxy, windows, size[0] / (windows[:, 2] - windows[:, 0]), frame_size)
            gain = quality @ left
            row = int(gain.argmax())
            sources.append(windows[row])
            total += float(gain[row])
            left = left * (1 - quality[row])
        if total > most:
            best, most = Tiles(np.array(sources, np.float32), way), total
    return best, most


def candidates(xyxy: F32, place: tuple[int, int], frame_size: tuple[int, int]) -> F64:
    """(K, 4) px: a window at each zoom around each box, and around each two, moved into the frame."""
    frame = np.array(frame_size, np.float64)
    centre = 0.5 * (xyxy[:, :2] + xyxy[:, 2:]).astype(np.float64)
    i, j = np.triu_indices(len(centre))
    side = np.array(place) / np.array(ZOOMS)[:, None]  # (Z, 2)
    side = np.round(side * np.minimum(1.0, (frame / side).min(1))[:, None])[:, None]
    middle = 0.5 * (centre[i] + centre[j])
    corner = np.clip(np.round(middle - side / 2), 0, frame - side)  # (Z, K, 2)
    return np.concatenate([corner, corner + side], 2).reshape(-1, 4)


def seen(xyxy: NDArray[Any], windows: NDArray[Any], zoom: F64, frame_size: tuple[int, int]) -> F64:
    """(K, N) in [0, 1]: how well the network sees each of N boxes through each of K windows at its `zoom` (K,)."""
    side = (xyxy[:, 2:] - xyxy[:, :2]).astype(np.float64)
    size = np.sqrt(np.maximum(side.prod(1), 1.0))[None] * zoom[:, None]
    small, large = SIZES
    fits = np.clip(np.minimum(np.log(2 * size / small), np.log(2 * large / size)) / np.log(2), 0, 1)
    frame = np.array(frame_size, np.float64)
    low = np.where(windows[:, :2] <= 0, -np.inf, windows[:, :2])
    high = np.where(windows[:, 2:] >= frame, np.inf, windows[:, 2:])
    near, far = xyxy[:, :2] - ROOM * side, xyxy[:, 2:] + ROOM * side
    # An axis of length two makes NumPy four times slower than the two written out.
    across = (near[:, 0] >= low[:, :1]) & (far[:, 0] <= high[:, :1])
    down = (near[:, 1] >= low[:, 1:]) & (far[:, 1] <= high[:, 1:])
    return np.asarray(fits * (across & down))


def through(xyxy: NDArray[Any], tiles: Tiles, frame_size: tuple[int, int]) -> F64:
    """(N,) how well boxes (N, 4) px are seen in any of the tiles."""
    zoom = (tiles.place[:, 2] - tiles.place[:, 0]) / (tiles.source[:, 2] - tiles.source[:, 0])
    return np.asarray(seen(xyxy, tiles.source, zoom, frame_size).max(0, initial=0.0))


def visible(xyxy: NDArray[Any], tiles: Tiles, frame_size: tuple[int, int]) -> Bool:
    """(N,) which boxes the network should find in the tiles, if they are there."""
    return np.asarray(through(xyxy, tiles, frame_size) > 0.5)
