"""Where results go: an annotated video, and one JSON object a line.

Both write under a temporary name and take their real one on closing, also after Ctrl-C or an error in mid-run: what was
written until then is kept, as a file that plays and parses.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import av
import av.error
import cv2
import numpy as np

from edgecnn.errors import MissingDependency
from edgecnn.run.loop import FrameResult
from edgecnn.scene import Picture

CLOCK = 90_000  # ticks a second of the video's time stamps
ENCODER = "libx264"
OPTIONS = {"preset": "veryfast", "crf": "23"}


class VideoSink:
    """H.264, yuv420p, index in front: plays in a browser. Time stamps are the frames' own, so a dropped frame shows as
    a pause and not as haste.

    Raises MissingDependency where PyAV was built without libx264.
    """

    def __init__(self, path: Path, fps: float) -> None:
        if ENCODER not in av.codecs_available:
            raise MissingDependency(f"PyAV {av.__version__} has no {ENCODER}", do="Run: pip install --upgrade av")
        self._path, self._part = path, _part(path)
        self._rate = Fraction(fps).limit_denominator(1001)
        self._container = av.open(str(self._part), "w", format="mp4", options={"movflags": "+faststart"})
        self._stream: Any = None
        self._first_ns = 0
        self._last = -1

    def write(self, picture: Picture, t_ns: int) -> None:
        """(H, W, 3) BGR; later pictures are brought to the size of the first."""
        if self._stream is None:
            self._first_ns = t_ns
            self._stream = self._container.add_stream(ENCODER, rate=self._rate, options=OPTIONS)
            self._stream.width, self._stream.height = picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = Fraction(1, CLOCK)
        size = (self._stream.width, self._stream.height)
        if picture.shape[:2] != size[::-1]:
            odd_edge = 0 <= picture.shape[1] - size[0] <= 1 and 0 <= picture.shape[0] - size[1] <= 1
            resized = picture[: size[1], : size[0]] if odd_edge else cv2.resize(picture, size)
            picture = np.ascontiguousarray(resized, np.uint8)
        planes = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420), np.uint8)
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        self._last = max(self._last + 1, round((t_ns - self._first_ns) * CLOCK / 1e9))
        frame.pts, frame.time_base = self._last, Fraction(1, CLOCK)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file and give it its name; with no frame written there is no file."""
        try:
            if self._stream is not None:
                self._container.mux(self._stream.encode(None))
        finally:
            if self._stream is not None:
                self._container.close()
                _name(self._part, self._path)
            else:
                self._part.unlink(missing_ok=True)


class EventSink:
    """`events.jsonl`: first {"type": "run", …}, then for each frame {"type": "frame", …} and its {"type": "event", …}.

    Boxes are px of the frame, times s, distances m; null stands for unknown and for never.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], classes: tuple[str, ...]) -> None:
        self._path, self._part, self._classes = path, _part(path), classes
        self._file: IO[str] = self._part.open("w", encoding="utf-8")
        self._line({"type": "run", **header})

    def write(self, result: FrameResult) -> None:
        tracks, scene, named = result.tracks, result.scene, bool(result.names)
        rows = [
            {
                "id": int(tracks.id[i]),
                "label": self._classes[tracks.label[i]],
                "score": round(float(tracks.score[i]), 3),
                "xyxy": [round(float(v), 1) for v in tracks.xyxy[i]],
                "velocity": [round(float(v), 1) for v in tracks.velocity[i]],
                "distance_m": number(scene.distance_m[i]),
                "ttc_s": number(scene.ttc_s[i]),
                "in_path": bool(scene.in_path[i]),
                "warned": bool(scene.warned[i]),
                "missed": int(tracks.missed[i]),
                **(
                    {"name": result.names[i] or None, "name_score": number(result.name_score[i]) or None}
                    if named
                    else {}
                ),
            }
            for i in range(len(tracks))
        ]
        self._line(
            {
                "type": "frame",
                "index": result.frame.index,
                "t_s": round(result.frame.t_ns / 1e9, 4),
                "detector": result.why,
                "cut": result.cut,
                "tracks": rows,
            }
        )
        for event in scene.warnings:
            self._line({"type": "event", **event.json()})

    def close(self) -> None:
        self._file.close()
        _name(self._part, self._path)

    def _line(self, data: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(data, allow_nan=False) + "\n")


def number(value: Any, digits: int = 2) -> float | None:
    """A JSON number; None where it is infinite or unknown."""
    return round(float(value), digits) if math.isfinite(value) else None


def _part(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.part")


def _name(part: Path, path: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
