"""Forward-collision warning: when a track becomes a danger, and when it stops being one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.adas.event import Event
from edgecnn.adas.memory import ById
from edgecnn.adas.ttc import Contact
from edgecnn.scene import Bool, Tracks


@dataclass(frozen=True)
class FcwSettings:
    on_s: float = 3.2  # warn below this time to collision, braking included
    off_s: float = 4.5  # a warning lasts while it is below this
    on_frames: int = 4  # consecutive detections of danger before a warning; frames between them don't count
    off_frames: int = 8  # consecutive frames without before it ends
    sureness: float = 0.4  # standard deviations by which contact before `on_s` must be expected
    steady_s: float = 7.0  # at the present closing speed alone, contact must be nearer than this
    seen_s: float = 0.4  # a track not detected for longer is no ground for a new warning


class ForwardCollisionWarning:
    """One state machine a track: quiet → danger for `on_frames` → warned → calm for `off_frames` → quiet."""

    def __init__(self, settings: FcwSettings) -> None:
        self.settings = settings
        self.reset()

    def reset(self) -> None:
        self._memory = ById(danger=0, calm=0, warned=False, seen_s=-math.inf)

    def step(
        self,
        tracks: Tracks,
        contact: Contact,
        in_path: Bool,
        distance_m: NDArray[Any],
        *,
        t_ns: int,
        frame: int,
    ) -> tuple[Bool, tuple[Event, ...]]:
        """Which tracks (N,) are warned of now, and what began or ended in this frame."""
        s, memory, now_s = self.settings, self._memory, t_ns / 1e9
        rows = memory.rows(tracks.id)
        memory["seen_s"][rows[tracks.missed == 0]] = now_s
        fresh = (now_s - memory["seen_s"][rows] <= s.seen_s) & tracks.confirmed
        danger = (contact.surely_within(s.on_s) > s.sureness) & in_path & fresh
        danger &= contact.growth > 1 / s.steady_s
        ttc_s = contact.ttc_s
        calm = ~((ttc_s < s.off_s) & in_path)

        ttc, distance = np.full(len(memory.id), np.inf), np.full(len(memory.id), np.nan)
        ttc[rows], distance[rows] = ttc_s, distance_m
        now_calm = np.ones(len(memory.id), bool)
        now_calm[rows] = calm  # a track that is gone is calm
        memory["danger"][rows] = np.where(danger, memory["danger"][rows] + (tracks.missed == 0), 0)
        memory["calm"][:] = np.where(now_calm, memory["calm"] + 1, 0)
        begins = ~memory["warned"] & (memory["danger"] >= s.on_frames)
        ends = memory["warned"] & (memory["calm"] >= s.off_frames)
        memory["warned"][:] = (memory["warned"] | begins) & ~ends

        def event(row: np.intp, kind: str) -> Event:
            return Event(t_ns, frame, kind, int(memory.id[row]), float(ttc[row]), float(distance[row]))

        events = [event(row, "fcw_off") for row in np.flatnonzero(ends)]
        events += [event(row, "fcw_on") for row in np.flatnonzero(begins)]
        warned = memory["warned"][rows]
        memory.keep(memory.among(rows) | memory["warned"])
        return warned, tuple(events)
