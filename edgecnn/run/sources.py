"""Where frames come from: a video, a picture, a folder of pictures, the simulator, a camera, a network stream.

Every source decodes in a thread of its own. A file gives every frame, through a short queue; a live source gives the
newest frame only, counts the ones it dropped, and Frame.index shows the gaps: lag never grows. A live source that ends
or falls silent is opened again, a bounded number of times, each after a longer pause.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType

from edgecnn.errors import InputError
from edgecnn.progress import note
from edgecnn.run.fields import camera_options, split_fields
from edgecnn.run.gst import GstReader, csi_pipeline
from edgecnn.run.readers import PictureReader, Reader, SimReader, VideoReader
from edgecnn.scene import Frame

PICTURES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
QUEUE = 4  # frames decoded ahead of a file's reader
SILENCE_S = 10.0  # without a frame, after which a live source counts as gone
TRIES = 8  # in a row to open a lost live source again
PAUSES_S = (0.5, 8.0)  # before the first of them, and at most; each is twice the one before
TICK_S = 0.25  # a wait for a frame is cut into pieces of this length


class Source:
    """A reader in its thread: iterate it once, in a `with` block. `decode_ns` is that of the frame given last.

    `reopen` makes a new reader for a live source that was lost; without it, its loss is its end. Frame.t_ns of a live
    source counts from the source's start, whichever reader it came from. Iterating raises InputError where no frame
    came, or a live source stays lost.
    """

    def __init__(
        self, reader: Reader, *, silence_s: float = SILENCE_S, reopen: Callable[[], Reader] | None = None
    ) -> None:
        self.name, self.live, self.fps, self.total = reader.name, reader.live, reader.fps, reader.total
        self.camera = reader.camera
        self.given = self.dropped = self.decode_ns = self.reconnects = 0
        self.over = False  # the last frame was taken
        self.wake = threading.Event()  # set when a frame is ready or the source ends; several sources may share one
        self._reader, self._silence_s = reader, silence_s
        self._reopen = reopen if reader.live else None
        self._ready: deque[tuple[Frame, int]] = deque()
        self._change = threading.Condition()
        self._ended = self._closed = False
        self._error: BaseException | None = None
        self._era = self._failed = 0  # threads started anew; failures since the last frame
        self._next_index = 0
        self._began_s = self._heard_s = time.monotonic()
        self._thread = threading.Thread(target=self._decode, args=(0,), name="decode", daemon=True)

    @property
    def warning(self) -> str:
        """What could not be used, one line, "" for nothing; known when the last frame has come."""
        return self._reader.warning

    def age_s(self, frame: Frame) -> float:
        """Time since a live source's frame was captured (as far as this machine knows: it arrived); nan for a file."""
        return max(0.0, time.monotonic() - self._began_s - frame.t_ns / 1e9) if self.live else math.nan

    def __enter__(self) -> Source:
        self._began_s = self._heard_s = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with self._change:
            self._closed = True
            self._ready.clear()
            self._change.notify_all()
        self._thread.join(timeout=1.0)  # a camera that hangs must not hang the program: the thread is a daemon

    def __iter__(self) -> Iterator[Frame]:
        while not self.over:
            frame = self.take(TICK_S)
            if frame is not None:
                yield frame

    def take(self, wait_s: float = 0.0) -> Frame | None:
        """The next frame, waited for at most `wait_s`; None where there is none yet, or no more (`over`)."""
        with self._change:
            self._change.wait_for(lambda: bool(self._ready) or self._ended, wait_s)
            if self._ready:
                frame, self.decode_ns = self._ready.popleft()
                self.given += 1
                self._change.notify_all()
                return frame
            if not self._ended:
                self._listen()
                return None
        if self._error is not None:
            raise self._error
        if not self.given:
            raise InputError(f"{self.name} holds no frame that can be decoded", wanted="a video or pictures")
        self.over = True
        return None

    def _listen(self) -> None:
        """A live source that was silent for too long: leave its thread behind and start anew, or give it up."""
        if not self.live or time.monotonic() - self._heard_s <= self._silence_s:
            return
        lost = InputError(
            f"{self.name} delivered nothing for {self._silence_s:g} s", do="Check the camera and its cable"
        )
        if self._reopen is None or self._failed >= TRIES:
            raise lost
        self._era += 1
        self._lost(lost)
        self._thread = threading.Thread(target=self._decode, args=(self._era,), name="decode", daemon=True)
        self._thread.start()

    def _lost(self, error: BaseException) -> None:
        """Count a failure and tell of it; the next sign of life is due after the pause and an answer."""
        self._failed += 1
        self._heard_s = time.monotonic() + self._pause_s()
        note(f"{error} Trying again in {self._pause_s():g} s ({self._failed} of {TRIES})")

    def _pause_s(self) -> float:
        first, longest = PAUSES_S
        return min(first * 2.0 ** (self._failed - 1), longest)

    def _decode(self, era: int) -> None:
        """Reader after reader, until the source ends or nobody wants more."""
        reader = self._reader if era == 0 else None
        while True:
            error: BaseException | None = None
            try:
                if reader is None:
                    reader = self._open_again(era)
                if reader is not None:
                    self._read(reader, era)
            except Exception as failure:  # handed to the thread that iterates, which raises it
                error = failure
            with self._change:
                if self._closed or era != self._era:
                    return
                if error is None or self._reopen is None or self._failed >= TRIES:
                    self._ended, self._error = True, error
                    self._change.notify_all()
                    self.wake.set()
                    return
                self._lost(error)
            reader = None

    def _open_again(self, era: int) -> Reader | None:
        """After a pause; None when nobody wants it any more."""
        with self._change:
            self._change.wait_for(lambda: self._closed or era != self._era, self._pause_s())
            if self._closed or era != self._era or self._reopen is None:
                return None
        reader = self._reopen()
        with self._change:
            if era == self._era:
                self._reader, self._heard_s = reader, time.monotonic()
                self.reconnects += 1
        return reader

    def _read(self, reader: Reader, era: int) -> None:
        frames = reader.frames()
        shift: tuple[int, int] | None = None  # of index and time, from this reader to the source
        while True:
            began = time.perf_counter_ns()
            frame = next(frames, None)
            spent = time.perf_counter_ns() - began
            if frame is None:
                return
            if self.live:
                if shift is None:
                    now_ns = round(1e9 * (time.monotonic() - self._began_s))
                    shift = (self._next_index - frame.index, now_ns - frame.t_ns)
                frame = Frame(frame.index + shift[0], frame.t_ns + shift[1], frame.bgr, frame.speed_mps)
            if not self._hand_on(frame, spent, era):
                return

    def _hand_on(self, frame: Frame, decode_ns: int, era: int) -> bool:
        """Queue a frame; False when nobody wants more."""
        with self._change:
            if era != self._era:
                return False
            if self.live and self._ready:
                self._ready.clear()
                self.dropped += 1
            self._change.wait_for(lambda: len(self._ready) < QUEUE or self._closed)
            self._ready.append((frame, decode_ns))
            self._failed, self._heard_s, self._next_index = 0, time.monotonic(), frame.index + 1
            self._change.notify_all()
        self.wake.set()
        return not self._closed


def open_source(text: str, *, gst_strings: bool = False) -> Source:
    """FILE (video or picture), FOLDER of pictures, sim:SEED, sim:SCENARIO:SEED, /dev/videoN, csi://N, rtsp://…,
    http(s)://…; with `gst_strings` also gst:PIPELINE, handed to GStreamer as it is. Cameras take fields: docs/run.md.

    Raises InputError where it is missing, empty or of the wrong type; a missing camera or stream shows here too.
    Raises MissingDependency for GStreamer where OpenCV was built without it.
    """
    scheme, _, rest = text.partition(":")
    if scheme == "sim":
        return Source(SimReader(rest))
    if scheme == "gst":
        if not gst_strings:
            raise InputError(
                "a source gst:PIPELINE runs whatever stands in it",
                wanted="csi://N with fields, or the leave to do so",
                do="Add --allow-gstreamer-string",
            )
        return _live(partial(GstReader, "gst", rest))
    if scheme == "csi":
        name, pipeline, fps = csi_pipeline(text)
        return _live(partial(GstReader, name, pipeline, fps=fps))
    if re.match(r"[a-z][a-z0-9+.-]+://", text):
        return _live(partial(VideoReader, text))
    device, given = split_fields(text)
    if Path(device).is_char_device():
        return _live(partial(VideoReader, device, format="v4l2", options=camera_options(text, given)))
    path = Path(text)
    if not path.exists():
        raise InputError(
            f"no such source: {text}",
            wanted="a video, a picture, a folder of pictures, sim:SEED, /dev/videoN, csi://N, rtsp://… or http://…",
        )
    if path.is_dir():
        pictures = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
        if not pictures:
            raise InputError(f"{path} holds no pictures", wanted=f"files named {', '.join(sorted(PICTURES))}")
        return Source(PictureReader(text, pictures))
    if not path.stat().st_size:
        raise InputError(f"{path} is empty", wanted="a video or a picture")
    return Source(PictureReader(text, [path]) if path.suffix.lower() in PICTURES else VideoReader(text))


def _live(reopen: Callable[[], Reader]) -> Source:
    return Source(reopen(), reopen=reopen)
