"""Cameras and network streams: fields, GStreamer by fields, RTSP, and what happens when a stream is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
import pytest
from rtsp_server import RtspServer
from scripted import Script, roads
from tiny_detector import HEIGHT, WIDTH

from edgecnn.errors import InputError, MissingDependency
from edgecnn.run import Source, open_source, sources
from edgecnn.run.fields import camera_options
from edgecnn.run.gst import GstReader, csi_pipeline, has_gstreamer

# Fields


def test_a_csi_camera_is_a_pipeline_of_its_fields() -> None:
    name, pipeline, fps = csi_pipeline("csi://1?width=1920&height=1080&fps=60&flip=2")
    assert (name, fps) == ("csi://1", 60.0)
    assert pipeline == (
        "nvarguscamerasrc sensor-id=1 ! "
        "video/x-raw(memory:NVMM), width=(int)1920, height=(int)1080, framerate=(fraction)60/1, format=(string)NV12 ! "
        "nvvidconv flip-method=2 ! video/x-raw, format=(string)BGRx ! videoconvert ! "
        "video/x-raw, format=(string)BGR ! appsink drop=true max-buffers=1 sync=false"
    )


def test_a_csi_camera_without_fields_has_usual_ones() -> None:
    _, pipeline, fps = csi_pipeline("csi://0")
    assert "sensor-id=0" in pipeline and "width=(int)1280, height=(int)720" in pipeline and fps == 30.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("csi://", "csi://N"),
        ("csi://front", "csi://N"),
        ("csi://0/../x", "csi://N"),
        ("csi://0?width=1280", "one side of the picture"),
        ("csi://0?width=abc&height=720", "a whole number, 16 to 16384"),
        ("csi://0?width=1280&height=99999", "a whole number, 16 to 16384"),
        ("csi://0?fps=0", "1 to 1000"),
        ("csi://0?flip=8", "0 to 7"),
        ("csi://0?fps=30&fps=60", "'fps' twice"),
        ("csi://0?gain=3", "has a field 'gain'"),
        ("csi://0?fps", "name=value"),
        ("csi://0?flip=2 ! filesink location=x", "a whole number"),
        ("csi://0?flip=２", "a whole number"),  # a digit, and not an ASCII one
    ],
)
def test_a_wrong_field_is_refused_before_anything_opens(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        open_source(text)
    assert "\n" not in str(caught.value)


def test_fields_of_a_v4l2_camera_are_ffmpegs_options(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def opened(path: str, **how: Any) -> Any:
        asked.update(path=path, **how)
        raise av.error.FileNotFoundError(2, "No such device", path)

    monkeypatch.setattr(av, "open", opened)
    with pytest.raises(InputError, match="No such device"):
        open_source("/dev/null?width=1280&height=720&fps=30&format=mjpeg")  # a character device, as a camera is
    assert (asked["path"], asked["format"]) == ("/dev/null", "v4l2")
    assert asked["options"] == {"video_size": "1280x720", "framerate": "30", "input_format": "mjpeg"}


@pytest.mark.parametrize("given", ["format=avi", "width=0&height=720", "exposure=3"])
def test_a_wrong_field_of_a_v4l2_camera(given: str) -> None:
    with pytest.raises(InputError):
        camera_options(f"/dev/video0?{given}", given)


def test_a_pipeline_as_text_needs_leave() -> None:
    with pytest.raises(InputError, match="--allow-gstreamer-string"):
        open_source("gst:videotestsrc ! appsink")


@pytest.mark.skipif(has_gstreamer(), reason="this OpenCV has GStreamer")
@pytest.mark.parametrize("text", ["csi://0", "gst:videotestsrc ! appsink"])
def test_without_gstreamer_one_line_says_what_to_do(text: str) -> None:
    with pytest.raises(MissingDependency, match=r"built without it.*JetPack"):
        open_source(text, gst_strings=True)


class Capture:
    """Stands in for cv2.VideoCapture: three pictures, then none."""

    def __init__(self, pipeline: str, api: int) -> None:
        self.pipeline, self.api, self.left, self.released = pipeline, api, 3, False

    def isOpened(self) -> bool:
        return "nothing" not in self.pipeline

    def get(self, _what: int) -> float:
        return 0.0

    def read(self) -> tuple[bool, Any]:
        self.left -= 1
        return self.left >= 0, np.zeros((4, 6, 3), np.uint8)

    def release(self) -> None:
        self.released = True


def test_frames_of_gstreamer_come_through_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecnn.run.gst.has_gstreamer", lambda: True)
    monkeypatch.setattr("cv2.VideoCapture", Capture)
    reader = GstReader("csi://0", "pipeline", fps=60.0)
    seen = []
    with pytest.raises(InputError, match="ended after 3 frames"):
        seen.extend(reader.frames())
    assert [f.index for f in seen] == [0, 1, 2] and reader.live and reader.fps == 60.0
    assert reader._capture.released  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="csi://0 does not start"):
        GstReader("csi://0", "nothing")


# Live streams


def test_a_stream_over_rtsp() -> None:
    pictures = roads(40)
    with RtspServer(pictures) as server:
        reader = sources.VideoReader(server.url)
        seen = []
        with pytest.raises(InputError, match="ended after"), Source(reader) as source:
            for frame in source:
                seen.append(frame)
                assert 0 <= source.age_s(frame) < 5
    assert source.live and "secret" not in source.name
    assert len(seen) + source.dropped > 30
    assert all(frame.bgr.shape == (HEIGHT, WIDTH, 3) for frame in seen)
    best = min(float(np.abs(seen[-1].bgr.astype(int) - p).mean()) for p in pictures)
    assert best < 6


def test_a_stream_that_hangs_up_is_opened_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sources, "PAUSES_S", (0.01, 0.05))
    with RtspServer(roads(20), pause_s=0.001) as server, open_source(server.url) as source:
        seen = []
        for frame in source:
            seen.append(frame)
            if source.reconnects == 2:
                break
    assert server.clients == 3
    assert np.all(np.diff([f.index for f in seen]) > 0) and np.all(np.diff([f.t_ns for f in seen]) > 0)
    told = capsys.readouterr().err
    assert told.count("Trying again") == 2 and "secret" not in told


def test_a_stream_that_falls_silent_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PAUSES_S", (0.01, 0.05))
    made = []

    def reopen() -> Script:
        made.append(Script(roads(5), live=True, pause_s=0.01, silence_s=3.0 if len(made) == 0 else 0.0))
        return made[-1]

    first = reopen()
    with Source(first, silence_s=0.3, reopen=reopen) as source:
        frames = list(source)  # the second ends in peace
    assert (len(made), source.reconnects) == (2, 1)
    assert len(frames) + source.dropped == 10 and frames[-1].index == 9


def test_tries_are_bounded_and_their_pauses_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PAUSES_S", (0.02, 0.08))
    monkeypatch.setattr(sources, "TRIES", 5)
    tried = []

    def reopen() -> Script:
        tried.append(time.monotonic())
        raise InputError("nobody there")

    began = time.monotonic()
    with (
        pytest.raises(InputError, match="nobody there"),
        Source(Script(roads(1), live=True, error="lost"), reopen=reopen) as source,
    ):
        list(source)
    assert len(tried) == 5 and source.reconnects == 0
    assert time.monotonic() - began > 0.02 + 0.04 + 3 * 0.08
    assert np.all(np.diff([began, *tried]) >= (0.02, 0.04, 0.08, 0.08, 0.08))


def test_a_file_is_never_opened_again() -> None:
    def reopen() -> Script:
        raise AssertionError("opened again")

    with pytest.raises(InputError, match="bad end"), Source(Script(roads(2), error="bad end"), reopen=reopen) as source:
        list(source)


def test_a_source_is_left_while_it_waits_to_open_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PAUSES_S", (30.0, 30.0))
    script = Script(roads(1), live=True, error="lost")
    began = time.monotonic()
    with Source(script, reopen=lambda: script) as source:
        assert next(iter(source)).index == 0
        while source._failed == 0:
            time.sleep(0.01)
    assert time.monotonic() - began < 5 and not source._thread.is_alive()


def test_age_counts_from_capture() -> None:
    class Late(Script):
        """Its second frame was captured 300 ms before it arrived."""

        def frames(self) -> Iterator[Any]:
            first, second = super().frames()
            yield first
            time.sleep(0.3)
            yield second

    with Source(Late(roads(2), live=True, times_ns=[0, 1])) as source:
        ages = [source.age_s(frame) for frame in source]
    assert ages[0] < 0.2 and ages[1] >= 0.3
    with Source(Script(roads(1))) as source:
        assert all(np.isnan(source.age_s(frame)) for frame in source)
