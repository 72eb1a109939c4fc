"""One class a kind of source, each of which decodes: pictures, the simulator, whatever FFmpeg opens."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import av
import av.error
import cv2
import numpy as np

from edgecnn.adas import Camera
from edgecnn.errors import InputError
from edgecnn.scene import Frame, Picture

PICTURES_FPS = 10.0  # of a folder of pictures, which does not say
ANSWER_S = 10.0  # within which a network stream must open, and then give each packet
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

    def __init__(self, text: str, *, format: str | None = None, options: Mapping[str, str] | None = None) -> None:
        """`format` and `options` are FFmpeg's, for a camera."""
        self.name, self.warning = redact(text), ""
        rtsp = text.startswith("rtsp")
        try:
            self._container = av.open(
                text,
                format=format,
                timeout=ANSWER_S if "://" in text else None,
                options={"rtsp_transport": "tcp", **(options or {})} if rtsp else dict(options or {}),
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
