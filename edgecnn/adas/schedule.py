"""When the detector must look: every k-th frame, and at once where something happens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgecnn.adas.scene import Scene
from edgecnn.errors import InputError
from edgecnn.scene import Tracks

Reason = Literal["first", "cut", "stride", "closing", "unsure"]


@dataclass(frozen=True)
class ScheduleSettings:
    every: int = 1  # frames from one detection to the next at most
    closing_s: float = 4.0  # an object in the path with a shorter time to collision is looked at in every frame
    unsure: float = 0.3  # a track in the path whose last detection scored lower is looked for in the next frame


class Schedule:
    """Of one camera; call it once a frame, before deciding whether to run the detector."""

    def __init__(self, settings: ScheduleSettings) -> None:
        if settings.every < 1:
            raise InputError(f"a detection every {settings.every} frames", wanted="1 or more")
        self.settings = settings
        self.reset()

    def reset(self) -> None:
        self._since: int | None = None  # frames since the detector ran

    def due(self, *, cut: bool, tracks: Tracks, scene: Scene | None) -> Reason | None:
        """Why the detector must run in this frame, or None. `tracks` and `scene` are those of the frame before."""
        since = None if self._since is None else self._since + 1
        reason = self._reason(since, cut, tracks, scene)
        self._since = since if reason is None else 0
        return reason

    def _reason(self, since: int | None, cut: bool, tracks: Tracks, scene: Scene | None) -> Reason | None:
        s = self.settings
        if since is None:
            return "first"
        if cut:
            return "cut"
        if since >= s.every:
            return "stride"
        if scene is None:
            return None
        if (scene.in_path & (scene.ttc_s < s.closing_s)).any():
            return "closing"
        # In the path, and missed by the last detection or only just found in it. Elsewhere a look again can wait.
        if (scene.in_path & ((tracks.missed >= since) | (tracks.score < s.unsure))).any():
            return "unsure"
        return None
