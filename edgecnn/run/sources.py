"""Where frames come from: a video, a picture, a folder of pictures, the simulator, a camera, a network stream.

Every source decodes in a thread of its own. A file gives every frame, through a short queue; a live source gives the
newest frame only, counts the ones it dropped, and Frame.index shows the gaps: lag never grows.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import urlsplit

import av
import av.error
import cv2
import numpy as np

from edgecnn.adas import Camera
from edgecnn.errors import InputError
from edgecnn.scene import Frame, Picture

PICTURES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
PICTURES_FPS = 10.0  # of a folder of pictures, which does not say
QUEUE = 4  # frames decoded ahead of a file's reader
SILENCE_S = 10.0  # without a frame, after which a live source is given up
ROTATIONS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}


class Reader(Protocol):
    """Decodes one kind of source. `frames` runs in the decoder's thread, from the first frame to the last."""

    name: str  # for messages and results; holds no password
    live: bool
    fps: float
    total: int | None  # frames that are to be expected
    camera: Camera | None  # its figures, where the source knows them
    warning: str  # one line, once `frames` has ended: what could not be used

    def frames(self) -> Iterator[Frame]: ...


class Source:
    """A reader in its thread: iterate it once, in a `with` block. `decode_ns` is that of the frame given last.

    Iterating raises InputError where no frame came, or a live source fell silent.
    """

    def __init__(self, reader: Reader, *, silence_s: float = SILENCE_S) -> None:
        self.name, self.live, self.fps, self.total = reader.name, reader.live, reader.fps, reader.total
        self.camera = reader.camera
        self.given = self.dropped = self.decode_ns = 0
        self._reader, self._silence_s = reader, silence_s
        self._ready: deque[tuple[Frame, int]] = deque()
        self._change = threading.Condition()
        self._ended = self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._decode, name="decode", daemon=True)

    @property
    def warning(self) -> str:
        """What could not be used, one line, "" for nothing; known when the last frame has come."""
        return self._reader.warning

    def __enter__(self) -> Source:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with self._change:
            self._closed = True
            self._ready.clear()
            self._change.notify_all()
        self._thread.join(timeout=1.0)  # a camera that hangs must not hang the program: the thread is a daemon

    def __iter__(self) -> Iterator[Frame]:
        while True:
            with self._change:
                woken = self._change.wait_for(
                    lambda: bool(self._ready) or self._ended, self._silence_s if self.live else None
                )
                if not woken:
                    raise InputError(
                        f"{self.name} delivered nothing for {self._silence_s:g} s", do="Check the camera and its cable"
                    )
                if not self._ready:
                    break
                frame, self.decode_ns = self._ready.popleft()
                self._change.notify_all()
            self.given += 1
            yield frame
        if self._error is not None:
            raise self._error
        if not self.given:
            raise InputError(f"{self.name} holds no frame that can be decoded", wanted="a video or pictures")

    def _decode(self) -> None:
        frames = self._reader.frames()
        try:
            while True:
                began = time.perf_counter_ns()
                frame = next(frames, None)
                spent = time.perf_counter_ns() - began
                if frame is None or not self._hand_on(frame, spent):
                    break
        except Exception as error:  # handed to the thread that iterates, which raises it
            self._error = error
        finally:
            with self._change:
                self._ended = True
                self._change.notify_all()

    def _hand_on(self, frame: Frame, decode_ns: int) -> bool:
        """Queue a frame; False when nobody wants more."""
        with self._change:
            if self.live and self._ready:
                self._ready.clear()
                self.dropped += 1
            self._change.wait_for(lambda: len(self._ready) < QUEUE or self._closed)
            self._ready.append((frame, decode_ns))
            self._change.notify_all()
            return not self._closed


def open_source(text: str) -> Source:
    """FILE (video or picture), FOLDER of pictures, sim:SEED, sim:SCENARIO:SEED, /dev/videoN, rtsp://…, http(s)://…

    Raises InputError where it is missing, empty or of the wrong type; a missing camera or stream shows here too.
    """
    scheme, _, rest = text.partition(":")
    if scheme == "sim":
        return Source(SimReader(rest))
    if re.match(r"[a-z][a-z0-9+.-]+://", text):
        return Source(VideoReader(text))
    path = Path(text)
    if path.is_char_device():
        return Source(VideoReader(text, format="v4l2"))
    if not path.exists():
        raise InputError(
            f"no such source: {text}",
            wanted="a video, a picture, a folder of pictures, sim:SEED, /dev/videoN, rtsp://… or http://…",
        )
    if path.is_dir():
        pictures = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
        if not pictures:
            raise InputError(f"{path} holds no pictures", wanted=f"files named {', '.join(sorted(PICTURES))}")
        return Source(PictureReader(text, pictures))
    if not path.stat().st_size:
        raise InputError(f"{path} is empty", wanted="a video or a picture")
    return Source(PictureReader(text, [path]) if path.suffix.lower() in PICTURES else VideoReader(text))


class PictureReader:
    """Pictures in the order of their names; one that can't be read is left out, and told of at the end."""

    live = False
    fps = PICTURES_FPS
    camera: Camera | None = None

    def __init__(self, name: str, paths: list[Path]) -> None:
        self.name, self._paths, self.warning = name, paths, ""
        self.total: int | None = len(paths)

    def frames(self) -> Iterator[Frame]:
        bad: list[Path] = []
        for index, path in enumerate(self._paths):
            data = np.fromfile(path, np.uint8)
            bgr: Any = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
            if bgr is None:
                bad.append(path)
            else:
                yield Frame(index, round(index / self.fps * 1e9), bgr)
        if bad:
            self.warning = f"{self.name}: {len(bad)} of {self.total} pictures can't be read (first: {bad[0].name})"


class SimReader:
    """The road simulator, drawn as it is asked for: `SEED` or `SCENARIO:SEED`."""

    live = False

    def __init__(self, text: str) -> None:
        from edgecnn.data.simulator import Drive
        from edgecnn.data.simulator.traffic import CAMERA_TO_BUMPER

        scenario, _, seed = text.rpartition(":")
        if not seed.isdecimal():
            raise InputError(f"source sim:{text}", wanted="sim:SEED or sim:SCENARIO:SEED, SEED a whole number")
        self.name, self.warning = f"sim:{text}", ""
        self._drive = Drive(int(seed), scenario=scenario or "traffic")
        lens = self._drive.camera
        self.camera: Camera | None = Camera(
            lens.fx, lens.fy, lens.cx, lens.cy, lens.height_m, lens.pitch_rad, bumper_m=CAMERA_TO_BUMPER
        )
        self.fps = self._drive.fps
        self.total: int | None = len(self._drive)

    def frames(self) -> Iterator[Frame]:
        for frame, _truth, _ego in self._drive:
            yield frame


class VideoReader:
    """Anything that FFmpeg opens: a file, a camera, a stream. A damaged or truncated file gives what can be decoded."""

    camera: Camera | None = None

    def __init__(self, text: str, *, format: str | None = None) -> None:
        self.name, self.warning = redact(text), ""
        rtsp = text.startswith("rtsp")
        try:
            self._container = av.open(
                text,
                format=format,
                timeout=SILENCE_S if "://" in text else None,
                options={"rtsp_transport": "tcp"} if rtsp else {},
            )
        except (av.error.FFmpegError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(
                f"{self.name} does not open as a video ({reason})", wanted="a video or stream that FFmpeg reads"
            ) from error
        if self._container.format.name == "tty":  # FFmpeg would draw its letters
            raise InputError(f"{self.name} is text", wanted="a video or a picture")
        if not self._container.streams.video:
            raise InputError(f"{self.name} holds no picture stream", wanted="a video")
        self._stream = self._container.streams.video[0]
        self.live = format is not None or rtsp or ("://" in text and self._container.duration is None)
        self.fps = float(self._stream.average_rate or self._stream.guessed_rate or 25)
        self.total: int | None = self._stream.frames or None
        if not self.live:
            self._stream.thread_type = "AUTO"  # frames in parallel cost latency: for files only

    def frames(self) -> Iterator[Frame]:
        count, broken = 0, ""
        began = time.monotonic_ns()
        with self._container as container:
            packets = container.demux(self._stream)
            while True:
                try:
                    packet = next(packets, None)
                    if packet is None:
                        break
                    pictures = packet.decode()
                except av.error.FFmpegError as error:  # a broken packet; the next may be whole
                    broken = broken or error.strerror or str(error)
                    continue
                for picture in pictures:
                    if self.live:
                        t_ns = time.monotonic_ns() - began
                    else:
                        t_ns = round(1e9 * (count / self.fps if picture.time is None else picture.time))
                    yield Frame(count, t_ns, to_bgr(picture))
                    count += 1
        if self.live:
            raise InputError(f"{self.name} ended after {count} frames ({broken or 'end of stream'})")
        if broken or (self.total and count < self.total):
            of, why = f" of {self.total}" if self.total else "", broken or "file too short"
            self.warning = f"{self.name} is damaged or ends early: {count}{of} frames came ({why})"


def to_bgr(picture: Any) -> Picture:
    """A decoded av.VideoFrame as (H, W, 3) BGR, turned upright.

    The usual limited-range yuv420p goes through OpenCV, 1.1 times faster than cv2.VideoCapture; others through FFmpeg.
    """
    even = picture.width % 2 == 0 and picture.height % 2 == 0
    bgr: Picture
    if picture.format.name == "yuv420p" and picture.color_range != 2 and even:  # 2: full range
        bgr = np.asarray(cv2.cvtColor(picture.to_ndarray(), cv2.COLOR_YUV2BGR_I420), np.uint8)
    else:
        bgr = picture.to_ndarray(format="bgr24")
    turn = ROTATIONS.get(picture.rotation % 360)
    return bgr if turn is None else np.asarray(cv2.rotate(bgr, turn), np.uint8)


def redact(text: str) -> str:
    """An address without its user name and password: it lands in logs and reports."""
    if "://" not in text or "@" not in urlsplit(text).netloc:
        return text
    parts = urlsplit(text)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
