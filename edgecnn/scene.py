"""What passes from stage to stage on the board: frames, detections, tracks, and the map between net and frame pixels.

Boxes are columns, `xyxy` = left, top, right, bottom in pixels of the FRAME, float32, never of the network's input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
Picture = NDArray[np.uint8]  # (H, W, 3), BGR as OpenCV has it


class _Columns:
    """Rows selected together: `columns[mask]`, `len(columns)`."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))  # type: ignore[arg-type]

    def __getitem__(self, rows: Any) -> Any:
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})  # type: ignore[type-var, arg-type]

    def _check(self) -> None:
        lengths = {f.name: len(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{type(self).__name__} columns differ in length: {lengths}")


@dataclass(frozen=True)
class Frame:
    """One picture of a source."""

    index: int  # from the source; a gap means dropped frames
    t_ns: int  # capture time, monotonic within the source
    bgr: Picture  # (H, W, 3) uint8
    speed_mps: float = math.nan  # our own, where the source knows it


@dataclass(frozen=True)
class Detections(_Columns):
    """What the detector sees in one frame, N rows."""

    xyxy: F32  # (N, 4) px of the frame
    score: F32  # (N,) in [0, 1]
    label: I64  # (N,) into ModelSpec.classes

    def __post_init__(self) -> None:
        if self.xyxy.ndim != 2 or self.xyxy.shape[1] != 4:
            raise ValueError(f"xyxy has shape {self.xyxy.shape}, not (N, 4)")
        self._check()

    @classmethod
    def empty(cls) -> Detections:
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


@dataclass(frozen=True)
class Tracks(_Columns):
    """The tracker's belief after one frame, N rows."""

    id: I64  # (N,) unique within one tracker, from 1
    xyxy: F32  # (N, 4) px of the frame
    score: F32  # (N,) of the last matched detection
    label: I64  # (N,) into ModelSpec.classes
    velocity: F32  # (N, 2) of the centre, px/s
    growth: F32  # (N,) d ln sqrt(wh) / dt, 1/s: its inverse is the time to contact at constant closing speed
    age_s: F32  # (N,) since birth
    missed: I64  # (N,) frames since a detection was matched; 0 = seen in this frame
    confirmed: Bool  # (N,)

    def __post_init__(self) -> None:
        self._check()

    @classmethod
    def empty(cls) -> Tracks:
        f, i = np.zeros(0, np.float32), np.zeros(0, np.int64)
        return cls(i, np.zeros((0, 4), np.float32), f, i, np.zeros((0, 2), np.float32), f, f, i, np.zeros(0, bool))


@dataclass(frozen=True)
class Truth(_Columns):
    """What is really there in one picture, N rows. Unknown: id -1, visibility 1, distance and ttc nan."""

    xyxy: F32  # (N, 4) px, the visible or full extent as the data set defines it
    label: I64  # (N,) into the data set's classes
    id: I64  # (N,) the same object has the same id through a sequence; -1 = not known
    visibility: F32  # (N,) share of the object that is not hidden, in [0, 1]
    ignore: Bool  # (N,) neither a hit nor a miss ("DontCare", crowd, too small)
    distance_m: F32  # (N,) from the camera along the road
    ttc_s: F32  # (N,) true time to collision; inf = not closing

    def __post_init__(self) -> None:
        self._check()

    @classmethod
    def of(
        cls,
        xyxy: F32,
        label: I64,
        *,
        id: I64 | None = None,
        visibility: F32 | None = None,
        ignore: Bool | None = None,
        distance_m: F32 | None = None,
        ttc_s: F32 | None = None,
    ) -> Truth:
        """Boxes (N, 4) and labels (N,), the other columns filled with "unknown"."""
        n = len(label)
        nan = np.full(n, np.nan, np.float32)
        return cls(
            np.asarray(xyxy, np.float32).reshape(n, 4),
            np.asarray(label, np.int64),
            np.full(n, -1, np.int64) if id is None else id,
            np.ones(n, np.float32) if visibility is None else visibility,
            np.zeros(n, bool) if ignore is None else ignore,
            nan if distance_m is None else distance_m,
            nan if ttc_s is None else ttc_s,
        )


@dataclass(frozen=True)
class Letterbox:
    """How a frame was laid into the network's input: `net = frame * (scale_x, scale_y) + (left, top)`."""

    scale_x: float  # net px per frame px
    scale_y: float
    left: float  # net px
    top: float
    width: int  # of the frame, px
    height: int

    def to_frame(self, xyxy: F32) -> F32:
        """(N, 4) net px → (N, 4) frame px, clipped to the frame. The one place where boxes change pixels."""
        offset = np.array([self.left, self.top] * 2, np.float32)
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        boxes = (xyxy - offset) / scale
        limit = np.array([self.width, self.height] * 2, np.float32)
        clipped: F32 = np.clip(boxes, 0, limit).astype(np.float32)
        return clipped

    def to_net(self, xyxy: F32) -> F32:
        """(N, 4) frame px → (N, 4) net px."""
        offset = np.array([self.left, self.top] * 2, np.float32)
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        return (xyxy * scale + offset).astype(np.float32)
