"""Cameras that only GStreamer reaches, through OpenCV: a Jetson's CSI cameras, by fields.

The string that is handed to GStreamer is made of checked numbers alone, so an address can't smuggle an element in.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping

import cv2
import numpy as np

from edgecnn.adas import Camera
from edgecnn.errors import InputError, MissingDependency
from edgecnn.run.fields import SIZE, read_fields, split_fields
from edgecnn.scene import Frame

CSI: Mapping[str, range | tuple[str, ...]] = {**SIZE, "flip": range(8)}  # flip: nvvidconv's flip-method
DEFAULTS = {"width": "1280", "height": "720", "fps": "30", "flip": "0"}


def csi_pipeline(text: str) -> tuple[str, str, float]:
    """`csi://0?width=1280&height=720&fps=30&flip=2` → its name, the pipeline, frames a second.

    Elements and caps as in NVIDIA's "Accelerated GStreamer" guide for Jetson Linux: nvarguscamerasrc delivers NV12 in
    device memory, nvvidconv turns it and brings it to the CPU. The sink keeps the newest frame alone.
    Raises InputError.
    """
    address, given = split_fields(text)
    sensor = re.fullmatch(r"csi://([0-9])", address)
    if not sensor:
        raise InputError(
            f"source {text}", wanted="csi://N with N from 0 to 9, and fields: csi://0?width=1280&height=720"
        )
    f = DEFAULTS | read_fields(text, given, CSI)
    parts = (
        f"nvarguscamerasrc sensor-id={sensor[1]}",
        f"video/x-raw(memory:NVMM), width=(int){f['width']}, height=(int){f['height']}, "
        f"framerate=(fraction){f['fps']}/1, format=(string)NV12",
        f"nvvidconv flip-method={f['flip']}",
        "video/x-raw, format=(string)BGRx",
        "videoconvert",
        "video/x-raw, format=(string)BGR",
        "appsink drop=true max-buffers=1 sync=false",
    )
    return address, " ! ".join(parts), float(f["fps"])


def has_gstreamer() -> bool:
    """Whether this OpenCV was built with GStreamer; those on PyPI are not."""
    line = re.search(r"GStreamer:\s*(\w+)", cv2.getBuildInformation())
    return line is not None and line[1] == "YES"


class GstReader:
    """A pipeline whose sink OpenCV reads. Raises MissingDependency, or InputError where the pipeline does not start."""

    live = True
    total: int | None = None
    camera: Camera | None = None
    warning = ""

    def __init__(self, name: str, pipeline: str, *, fps: float = 0.0) -> None:
        if not has_gstreamer():
            raise MissingDependency(
                f"{name} needs GStreamer, and this OpenCV {cv2.__version__} was built without it",
                do="On a Jetson use JetPack's own OpenCV (apt install python3-opencv), not the one from PyPI",
            )
        self.name = name
        self._capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
        if not self._capture.isOpened():
            raise InputError(f"{name} does not start", wanted="a camera that GStreamer opens", do="Try gst-launch-1.0")
        self.fps = fps or self._capture.get(cv2.CAP_PROP_FPS) or 30.0

    def frames(self) -> Iterator[Frame]:
        count, began = 0, time.monotonic_ns()
        try:
            while True:
                got, bgr = self._capture.read()
                if not got:
                    raise InputError(f"{self.name} ended after {count} frames", do="Check the camera and its cable")
                yield Frame(count, time.monotonic_ns() - began, np.asarray(bgr, np.uint8))
                count += 1
        finally:
            self._capture.release()
