"""Where results go: an annotated video, one JSON object a line, MOTChallenge text; each in a thread behind a queue.

All write under a temporary name and take their real one on closing, also after Ctrl-C or an error in mid-run: what was
written until then is kept, as a file that plays and parses.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

import av
import av.error
import cv2
import numpy as np

from edgecnn.data.recorded import mot_lines
from edgecnn.errors import MissingDependency
from edgecnn.progress import note
from edgecnn.run.loop import FrameResult
from edgecnn.run.modes import Status
from edgecnn.scene import Picture

CLOCK = 90_000  # ticks a second of the video's time stamps
ENCODER = "libx264"
OPTIONS = {"preset": "veryfast", "crf": "23"}
# While it is written, a video is a row of fragments of a second, each whole by itself: what was written before a power
# cut or kill -9 plays. The index goes in front when it ends.
FRAGMENTS = {
    "movflags": "+frag_keyframe+delay_moov+default_base_moof",
    "frag_duration": "1000000",
    "flush_packets": "1",
}
CLOSE_S = 5.0  # for a sink that was told to end

T = TypeVar("T")


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
        self._container = av.open(str(self._part), "w", format="mp4", options=FRAGMENTS)
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
                _index(self._part)
                _name(self._part, self._path)
            else:
                self._part.unlink(missing_ok=True)


Item = tuple[FrameResult | None, Status]  # None: the mode changed, and no frame came


class EventSink:
    """`events.jsonl`: first {"type": "run", …}, then the lines of each item (`event_lines`)."""

    def __init__(self, path: Path, header: Mapping[str, Any], classes: tuple[str, ...]) -> None:
        self._path, self._part, self._classes = path, _part(path), classes
        self._file: IO[str] = self._part.open("w", encoding="utf-8")
        self._file.write(_line({"type": "run", **header}))

    def put(self, item: Item) -> None:
        """A frame and how things stood after it; or a change of mode alone, where no frame came."""
        self._file.writelines(event_lines(item, self._classes))

    def close(self) -> None:
        self._file.close()
        _name(self._part, self._path)


def event_lines(item: Item, classes: tuple[str, ...]) -> list[str]:
    """For a frame {"type": "frame", …} and its {"type": "event", …}. {"type": "mode", …} stands before the frame in
    which the mode changed, or by itself where none came.

    Boxes are px of the frame, times s, distances m; null stands for unknown and for never.
    """
    result, status = item
    lines = [_line({"type": "mode", **status.change.json()})] if status.change else []
    if result is not None:
        lines.append(_line(_frame(result, status, classes)))
        lines += [_line({"type": "event", **event.json()}) for event in result.scene.warnings]
    return lines


def _frame(result: FrameResult, status: Status, classes: tuple[str, ...]) -> dict[str, Any]:
    tracks, scene, named = result.tracks, result.scene, bool(result.names)
    rows = [
        {
            "id": int(tracks.id[i]),
            "label": classes[tracks.label[i]],
            "score": round(float(tracks.score[i]), 3),
            "xyxy": [round(float(v), 1) for v in tracks.xyxy[i]],
            "velocity": [round(float(v), 1) for v in tracks.velocity[i]],
            "distance_m": number(scene.distance_m[i]),
            "ttc_s": number(scene.ttc_s[i]),
            "in_path": bool(scene.in_path[i]),
            "warned": bool(scene.warned[i]),
            "missed": int(tracks.missed[i]),
            **({"name": result.names[i] or None, "name_score": number(result.name_score[i]) or None} if named else {}),
        }
        for i in range(len(tracks))
    ]
    return {
        "type": "frame",
        "index": result.frame.index,
        "t_s": round(result.frame.t_ns / 1e9, 4),
        "mode": status.mode,
        "ms": round(status.ms, 2),
        "age_ms": number(1e3 * status.age_s, 1),
        "late": status.late,
        "dropped": status.dropped,
        "invalid": result.invalid,
        "detector": result.why,
        "cut": result.cut,
        "warnings": list(scene.on),
        "tracks": rows,
    }


def _line(data: Mapping[str, Any]) -> str:
    return json.dumps(data, allow_nan=False) + "\n"


class MotSink:
    """`tracks.txt`: a line a track and frame, as the MOTChallenge has it; the first frame of the source is 1."""

    def __init__(self, path: Path) -> None:
        self._path, self._part = path, _part(path)
        self._file: IO[str] = self._part.open("w", encoding="utf-8")

    def put(self, item: Item) -> None:
        result, _ = item
        if result is None:
            return
        self._file.writelines(f"{line}\n" for line in mot_lines(result.frame.index + 1, result.tracks))

    def close(self) -> None:
        self._file.close()
        _name(self._part, self._path)


class Background(Generic[T]):
    """A sink's `write` in a thread of its own, behind a bounded queue, so that a slow disk or network costs no frame.

    When the queue is full, a `patient` one waits, as is right for a recording; any other drops the item and counts.
    A sink that fails is given up: a patient one's error is raised by the next `put` or `close`, any other's is told
    once and kept in `failed`.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[T], None],
        close: Callable[[], None] = lambda: None,
        *,
        depth: int = 8,
        patient: bool = False,
    ) -> None:
        self.name, self.written, self.dropped, self.failed = name, 0, 0, ""
        self.busy_s = 0.0
        self._write, self._close, self._depth, self._patient = write, close, depth, patient
        self._items: deque[T] = deque()
        self._change = threading.Condition()
        self._closing = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name=f"sink {name}", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        with self._change:
            if self._patient:
                self._change.wait_for(lambda: len(self._items) < self._depth or self.failed)
            if self.failed or len(self._items) >= self._depth:
                self.dropped += 1
            else:
                self._items.append(item)
            self._change.notify_all()
        self._raise()

    def close(self) -> None:
        """Let it finish what is queued; one that takes longer than CLOSE_S, and is not patient, is left behind."""
        with self._change:
            self._closing = True
            self._change.notify_all()
        self._thread.join(None if self._patient else CLOSE_S)
        if self._thread.is_alive():
            self._give_up(TimeoutError(f"still busy after {CLOSE_S:g} s"))
        self._raise()

    def facts(self) -> dict[str, Any]:
        mean = 1e3 * self.busy_s / self.written if self.written else 0.0
        return {"written": self.written, "dropped": self.dropped, "ms": round(mean, 3), "failed": self.failed}

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None and self._patient:
            raise error

    def _give_up(self, error: Exception) -> None:
        with self._change:
            if not self.failed and not self._patient:
                note(f"warning: the sink {self.name} is given up: {' '.join(str(error).split())[:200]}")
            self._error = self._error or error
            self.failed = self.failed or f"{type(error).__name__}: {error}"[:200]
            self.dropped += len(self._items)
            self._items.clear()
            self._change.notify_all()

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: bool(self._items) or self._closing)
                if not self._items:
                    break
                item = self._items.popleft()
                self._change.notify_all()
            began = time.perf_counter()
            try:
                self._write(item)
                self.written += 1
            except Exception as error:  # one broken sink must not end the run
                self._give_up(error)
            self.busy_s += time.perf_counter() - began
        try:
            self._close()
        except Exception as error:
            self._give_up(error)


def number(value: Any, digits: int = 2) -> float | None:
    """A JSON number; None where it is infinite or unknown."""
    return round(float(value), digits) if math.isfinite(value) else None


def _part(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.part")


def _index(part: Path) -> None:
    """Fragments become one film with its index in front, as browsers want it; no picture is coded again."""
    whole = part.with_name(f"{part.name}.whole")
    try:
        with (
            av.open(str(part)) as source,
            av.open(str(whole), "w", format="mp4", options={"movflags": "+faststart"}) as to,
        ):
            stream = to.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:  # the last one is empty
                    packet.stream = stream
                    to.mux(packet)
        whole.replace(part)
    finally:
        whole.unlink(missing_ok=True)


def _name(part: Path, path: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
