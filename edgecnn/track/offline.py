"""A whole recording at once."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edgecnn.scene import Detections, Tracks
from edgecnn.track.settings import Settings
from edgecnn.track.tracker import Tracker


def follow(frames: Iterable[Detections], settings: Settings, fps: float) -> list[Tracks]:
    """The tracks of each frame. The picture is taken to reach as far as the boxes do."""
    every = list(frames)
    reach = np.concatenate([np.ones((1, 2)), *(f.xyxy[:, 2:] for f in every)]).max(0)
    tracker, size = Tracker(settings, fps), (int(np.ceil(reach[0])), int(np.ceil(reach[1])))
    return [tracker.step(found, round(k * 1e9 / fps), frame_size=size) for k, found in enumerate(every)]
