"""What the tracks of one frame mean for the driver."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from edgecnn.adas.camera import Camera, PathSettings, place
from edgecnn.adas.event import Event
from edgecnn.adas.fcw import FcwSettings, ForwardCollisionWarning
from edgecnn.adas.lane import Lane
from edgecnn.adas.ttc import TimeToCollision, TtcSettings
from edgecnn.scene import F32, Bool, Tracks

FOOT_PX = 1.0  # standard deviation of a box's lower edge


@dataclass(frozen=True)
class Scene:
    """Rows as those of the Tracks that it was made from, N of them."""

    ttc_s: F32  # (N,) inf = not closing in, or not known yet
    ttc_sigma_s: F32  # (N,) standard deviation of ttc_s
    distance_m: F32  # (N,) along the road; nan = no camera known, inf = its foot is not on the road
    distance_sigma_m: F32  # (N,) standard deviation of distance_m
    in_path: Bool  # (N,)
    warned: Bool  # (N,) a warning of it is on
    warnings: tuple[Event, ...]  # that began or ended in this frame
    lead: int = -1  # row of the closest vehicle in our path; -1 = none
    headway_s: float = math.nan  # time until we are where the lead is now; nan = no lead, or our speed is not known
    lane: Lane | None = None  # None = not sought
    on: tuple[str, ...] = ()  # of adas.event.WARNINGS, those that are on now


@dataclass(frozen=True)
class SceneSettings:
    ttc: TtcSettings = field(default_factory=TtcSettings)
    path: PathSettings = field(default_factory=PathSettings)
    fcw: FcwSettings = field(default_factory=FcwSettings)


class SceneAnalysis:
    """Of one camera. With `camera` None a usual dashcam is assumed for the path, and no distance is given."""

    def __init__(self, settings: SceneSettings | None, camera: Camera | None, frame_size: tuple[int, int]) -> None:
        """`frame_size` is (width, height) in px, that which the camera's figures hold for."""
        self.settings = settings or SceneSettings()
        self._known = camera is not None
        self.camera = camera or Camera.assumed(frame_size)
        self._ttc = TimeToCollision(self.settings.ttc, frame_size, self.camera.fx)
        self._fcw = ForwardCollisionWarning(self.settings.fcw)
        self._frame = -1

    def reset(self) -> None:
        """Forget all tracks, as after a hard cut; warnings that are on end without an event."""
        self._ttc.reset()
        self._fcw.reset()

    def step(
        self,
        tracks: Tracks,
        t_ns: int,
        *,
        measured: F32 | None = None,
        frame: int | None = None,
        lane: Lane | None = None,
        speed_mps: float = math.nan,
    ) -> Scene:
        """One frame, taken at `t_ns`.

        `measured` (N, 4) px are the rows of `tracks` as detected, nan where not (`Tracker.measured`). Without it the
        boxes of `tracks` are taken where `missed` is 0; if those were filtered, warnings come late or too eagerly.
        `frame` is the frame's index for the events; without it, the calls are counted from 0.
        """
        self._frame = self._frame + 1 if frame is None else frame
        if measured is None:
            measured = np.where((tracks.missed == 0)[:, None], tracks.xyxy, np.float32(np.nan))
        sideways = tracks.velocity[:, 0]
        contact = self._ttc.step(tracks.id, measured, t_ns / 1e9)
        where = place(self.camera, self.settings.path, tracks.xyxy, sideways, contact.growth, contact.ttc_s)
        distance = where.forward_m if self._known else np.full(len(tracks), np.nan)
        # Z = f H / (v - horizon), so a foot that is off by n px puts Z off by n Z² / (f H).
        sigma = FOOT_PX * np.square(distance) / (self.camera.fy * self.camera.height_m)
        lead = int(np.argmin(np.where(where.in_path, where.forward_m, np.inf))) if where.in_path.any() else -1
        warned, events = self._fcw.step(tracks, contact, where.in_path, distance, t_ns=t_ns, frame=self._frame)
        return Scene(
            ttc_s=contact.ttc_s.astype(np.float32),
            ttc_sigma_s=contact.sigma_s.astype(np.float32),
            distance_m=distance.astype(np.float32),
            distance_sigma_m=sigma.astype(np.float32),
            in_path=where.in_path,
            warned=warned,
            warnings=events,
            lead=lead,
            lane=lane,
            on=("fcw",) if warned.any() else (),
        )
