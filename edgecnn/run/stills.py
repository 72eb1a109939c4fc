"""The few pictures of a run that are worth keeping: warnings that begin, then many tracks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from edgecnn.bundle import atomic
from edgecnn.run.loop import FrameResult
from edgecnn.scene import Picture

LIMIT = 6
GAP_NS = 1_000_000_000  # between two of them


@dataclass(frozen=True)
class _Still:
    rank: tuple[bool, bool, int]
    frame: int
    t_ns: int
    tracks: int
    warned: bool
    jpeg: bytes


class Stills:
    """The best so far. One thread at a time."""

    def __init__(self) -> None:
        self._kept: list[_Still] = []

    def wants(self, result: FrameResult) -> bool:
        """Whether this frame is among the best so far; not two in a second."""
        rank = _rank(result)
        near = [s for s in self._kept if abs(s.t_ns - result.frame.t_ns) < GAP_NS]
        if near:
            return len(near) == 1 and rank > near[0].rank
        return len(self._kept) < LIMIT or rank > min(s.rank for s in self._kept)

    def add(self, result: FrameResult, picture: Picture) -> None:
        done, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 88])
        if not done:
            raise RuntimeError("OpenCV could not encode a still as JPEG")
        frame, t_ns = result.frame.index, result.frame.t_ns
        kept = [s for s in self._kept if abs(s.t_ns - t_ns) >= GAP_NS]
        kept.sort(key=lambda s: s.rank, reverse=True)
        warned = bool(result.scene.on)
        new = _Still(_rank(result), frame, t_ns, len(result.tracks), warned, jpeg.tobytes())
        self._kept = sorted([*kept[: LIMIT - 1], new], key=lambda s: s.frame)

    def write(self, folder: Path) -> list[dict[str, Any]]:
        """The files, and what is on them: path, frame, tracks, warned."""
        written = []
        for still in self._kept:
            path = folder / f"{still.frame:06d}.jpg"
            with atomic(path) as temporary:
                temporary.write_bytes(still.jpeg)
            written.append({"path": str(path), "frame": still.frame, "tracks": still.tracks, "warned": still.warned})
        return written


def _rank(result: FrameResult) -> tuple[bool, bool, int]:
    begins = any(event.kind.endswith("_on") for event in result.scene.warnings)
    return begins, bool(result.scene.on), len(result.tracks)
