"""Recorded detections tracked beside the video that they were made from: the camera's motion and looks count too."""

from __future__ import annotations

from collections.abc import Sequence

from edgecnn.backends import open_backend
from edgecnn.bundle import Bundle
from edgecnn.errors import InputError
from edgecnn.run.appearance import Appearance
from edgecnn.run.loop import reduced
from edgecnn.run.sources import Source
from edgecnn.scene import Detections, Tracks
from edgecnn.track import Settings, Tracker
from edgecnn.track.flow import FlowShift


def open_looks(bundle: Bundle) -> Appearance:
    """Raises ModelError for a bundle whose network gives no vectors, and what open_backend raises."""
    return Appearance(bundle.require_model(), open_backend(bundle))


def follow_video(
    frames: Sequence[Detections], video: Source, settings: Settings, fps: float, looks: Appearance | None = None
) -> list[Tracks]:
    """The tracks of each frame; `video` holds those frames, and may hold more. Raises InputError where it ends before
    the detections do."""
    out: list[Tracks] = []
    tracker, tracks = Tracker(settings, fps), Tracks.empty()
    with video:
        for k, (found, frame) in enumerate(zip(frames, video, strict=False)):
            size = (frame.bgr.shape[1], frame.bgr.shape[0])
            if k == 0:
                flow = FlowShift(size[0])
            flow.remember(reduced(frame.bgr), tracks)
            if looks:
                looks.frame = frame.bgr
            t_ns = round(k * 1e9 / fps)
            tracks = tracker.step(found, t_ns, frame_size=size, camera=flow.camera, look=looks)
            out.append(tracks)
    if any(map(len, frames[len(out) :])):
        raise InputError(
            f"{video.name} ends after {len(out)} frames", wanted=f"{len(frames)}, as many as the detections speak of"
        )
    return out + [tracks[:0]] * (len(frames) - len(out))
