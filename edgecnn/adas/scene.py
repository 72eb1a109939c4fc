"""What the tracks of one frame mean for the driver."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgecnn.adas.camera import Camera
from edgecnn.adas.departure import LaneDepartureWarning
from edgecnn.adas.drift import Drift
from edgecnn.adas.ego import Ego
from edgecnn.adas.event import Event
from edgecnn.adas.fcw import fcw
from edgecnn.adas.headway import Headway
from edgecnn.adas.horizon import Horizon
from edgecnn.adas.kinds import CLASSES, Kinds
from edgecnn.adas.lane import Lane
from edgecnn.adas.latch import Latch, Moment
from edgecnn.adas.path import Path, beside, place
from edgecnn.adas.pedestrian import arrival_s, pedestrian
from edgecnn.adas.thresholds import SceneSettings
from edgecnn.adas.ttc import TimeToCollision
from edgecnn.scene import F32, Bool, Tracks
from edgecnn.track.flow import Growth


@dataclass(frozen=True)
class Scene:
    """Rows as those of the Tracks that it was made from, N of them."""

    ttc_s: F32  # (N,) from our bumper; inf = not closing in, or not known yet
    ttc_sigma_s: F32  # (N,) standard deviation of ttc_s
    distance_m: F32  # (N,) from the camera to its nearest point, along the road; nan = no camera known, inf = not on it
    distance_sigma_m: F32  # (N,) standard deviation of distance_m
    in_path: Bool  # (N,)
    warned: Bool  # (N,) a collision or pedestrian warning of it is on
    warnings: tuple[Event, ...]  # that began or ended in this frame
    lead: int = -1  # row of the closest vehicle in our path; -1 = none
    headway_s: float = math.nan  # time until we are where the lead is now; nan = no lead, or our speed is not known
    lane: Lane | None = None  # None = not sought
    on: tuple[str, ...] = ()  # of adas.event.WARNINGS, those that are on now
    horizon_px: float = math.nan  # row of the frame, freed from distortion


class SceneAnalysis:
    """Of one camera. With `camera` None a usual dashcam is assumed for the path, and no distance is given."""

    def __init__(
        self,
        settings: SceneSettings | None,
        camera: Camera | None,
        frame_size: tuple[int, int],
        *,
        classes: tuple[str, ...] = CLASSES,
    ) -> None:
        """`frame_size` is (width, height) of the frames in px; `classes` names the labels of the tracks.

        Raises InputError where the camera's figures hold for a picture of another aspect.
        """
        self.settings = s = settings or SceneSettings.read()
        self._known = camera is not None
        self.camera = (camera or Camera.assumed(frame_size)).fitted(frame_size)
        self._kinds = Kinds(s.kinds, classes)
        self._horizon = Horizon(s.range, self.camera, self._kinds, known=self._known)
        self._ttc = TimeToCollision(s.ttc, frame_size, self.camera.fx)
        self._ego, self._headway = Ego(), Headway(s.headway)
        self._lead = Latch(s.path.lead_detections, s.path.lead_off_s)
        self._latches = {
            "fcw": Latch(s.fcw.on_detections, s.fcw.calm_s),
            "pedestrian": Latch(s.pedestrian.on_detections, s.pedestrian.calm_s),
            "headway": Latch(s.headway.on_detections, s.headway.calm_s),
        }
        self._drift = Drift(s.drift)
        self._departure = LaneDepartureWarning(s.departure, self.camera.lateral_m)
        self._frame = -1
        self.speed_known = False  # our own speed was told of at least once; without it there is no headway warning

    def reset(self) -> None:
        """Forget all tracks, as after a hard cut; warnings that are on end without an event."""
        self._ttc.reset()
        self._horizon.reset()
        self._ego.reset()
        for latch in (self._lead, *self._latches.values()):
            latch.reset()
        self._drift.reset()
        self._departure.reset()

    def step(
        self,
        tracks: Tracks,
        t_ns: int,
        *,
        measured: F32 | None = None,
        frame: int | None = None,
        lane: Lane | None = None,
        vanishing: tuple[float, float] | None = None,
        speed_mps: float = math.nan,
        yaw_rate_rps: float = math.nan,
        growth: Growth | None = None,
        valid: bool = True,
    ) -> Scene:
        """One frame, taken at `t_ns`.

        `measured` (N, 4) px are the rows of `tracks` as detected, nan where not (`Tracker.measured`). Without it the
        boxes of `tracks` are taken where `missed` is 0; if those were filtered, warnings come late or too eagerly.
        `frame` is the frame's index for the events; without it, the calls are counted from 0.
        `vanishing`: the row at which our lane's lines meet, and its deviation, px. `yaw_rate_rps`: how fast we turn to
        the right.
        `growth`: by how much objects grew since the frame before (`FlowShift.growth`).
        `valid` False: the frame cannot be relied on; nothing is measured in it, and no warning begins.
        """
        self._frame = self._frame + 1 if frame is None else frame
        t, s, kinds = Moment(t_ns, self._frame, valid), self.settings, self._kinds
        if measured is None:
            measured = np.where((tracks.missed == 0)[:, None], tracks.xyxy, np.float32(np.nan))
        if not valid:
            measured, vanishing, growth = np.full_like(measured, np.nan), None, None
        label, xyxy = tracks.label, self.camera.straight(tracks.xyxy)
        ranges = self._horizon.step(
            tracks.id, label, xyxy, self.camera.straight(measured), t.now_s, vanishing=vanishing
        )
        forward, bumper = ranges.forward_m, self.camera.bumper_m
        self._ego.step(speed_mps, t.now_s)
        self.speed_known |= math.isfinite(self._ego.speed_mps)
        contact = self._ttc.step(tracks.id, measured, t.now_s, kinds.tall[label], self._ego, tracks.score, growth)
        contact = contact.touching(bumper / np.maximum(forward, 2 * abs(bumper) + 0.1))
        path = Path.of(self.camera, lane, speed_mps=speed_mps, yaw_rate_rps=yaw_rate_rps)
        ttc_s, seen = contact.ttc_s, np.asarray(np.isfinite(measured).all(axis=1))
        aside, half = beside(self.camera, path, xyxy, forward, kinds.length_m[label])
        drift = self._drift.step(tracks.id, aside, forward, seen, t.now_s)
        where = place(s.path, forward, aside, half, drift, ttc_s)

        gap = forward - bumper
        leading = self._lead.step(tracks, where.in_path & kinds.vehicle[label], where.near_path, t).on
        ahead = np.where(leading & np.isfinite(forward), forward, np.inf)
        lead = int(np.argmin(ahead)) if np.isfinite(ahead).any() else -1
        headway_s, close, still_close = self._headway.step(gap, lead, self._ego.speed_mps)
        person, rider = kinds.person[label], kinds.two_wheeler[label]
        time_s = arrival_s(contact, gap, person, self._ego)
        reasons = {
            "fcw": fcw(s.fcw, contact, kinds.vehicle[label], where.in_path, tracks.score, self._ego),
            "pedestrian": pedestrian(s.pedestrian, where, contact, time_s, person, rider, tracks.age_s, self._ego),
            "headway": (close & (tracks.age_s >= s.headway.least_age_s), still_close),
        }
        shown_gap = gap if self._known else np.full(len(tracks), np.nan)
        shown_s = {"fcw": ttc_s, "pedestrian": time_s, "headway": ttc_s}
        changes = {kind: self._latches[kind].step(tracks, *reasons[kind], t) for kind in reasons}
        events = [
            event
            for kind, change in changes.items()
            for event in change.events(kind, tracks.id, shown_s[kind], shown_gap, t)
        ]
        events += self._departure.step(lane if valid else None, t_ns, self._frame, speed_mps)
        on = [kind for kind, latch in self._latches.items() if latch.any]
        distance, sigma = (v if self._known else np.full(len(tracks), np.nan) for v in (forward, ranges.sigma_m))
        return Scene(
            ttc_s=ttc_s.astype(np.float32),
            ttc_sigma_s=contact.sigma_s.astype(np.float32),
            distance_m=distance.astype(np.float32),
            distance_sigma_m=sigma.astype(np.float32),
            in_path=where.in_path,
            warned=changes["fcw"].on | changes["pedestrian"].on,
            warnings=tuple(events),
            lead=lead,
            headway_s=headway_s if self._known else math.nan,
            lane=lane,
            on=(*on, *self._departure.on),
            horizon_px=ranges.horizon_px,
        )
