"""Hysteresis for every warning: what it takes to begin, and what it takes to end, a column over tracks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.adas.event import Event
from edgecnn.adas.memory import ById
from edgecnn.scene import I64, Bool, Tracks

FRESH_S = 0.4  # a track not detected for longer is no ground for anything new


@dataclass(frozen=True)
class Change:
    """Of one frame: rows of the tracks that are on, and ids of those that began and ended."""

    on: Bool  # (N,)
    began: I64
    ended: I64

    def events(self, kind: str, ids: I64, ttc_s: NDArray[Any], distance_m: NDArray[Any], t: Moment) -> list[Event]:
        """As `kind`_off and `kind`_on, with the figures of their track; a track that is gone has none."""
        at = {int(id): row for row, id in enumerate(ids)}

        def event(id: int, suffix: str) -> Event:
            row = at.get(id)
            ttc, distance = (math.inf, math.nan) if row is None else (float(ttc_s[row]), float(distance_m[row]))
            return Event(t.t_ns, t.frame, f"{kind}_{suffix}", id, ttc, distance)

        return [event(int(id), "off") for id in self.ended] + [event(int(id), "on") for id in self.began]


@dataclass(frozen=True)
class Moment:
    """When, and whether the frame can be relied on: in one that can't, nothing begins."""

    t_ns: int
    frame: int
    valid: bool = True

    @property
    def now_s(self) -> float:
        return self.t_ns / 1e9


class Latch:
    """A track is on after `on_detections` consecutive detections in which `start` held, and off after `off_s` in which
    `stay` did not. Frames without a detection of it count neither way at the start; a track that is gone does not stay.
    """

    def __init__(self, on_detections: float, off_s: float) -> None:
        self._on_detections, self._off_s = on_detections, off_s
        self.reset()

    def reset(self) -> None:
        self._memory = ById(count=0, stayed_s=-math.inf, on=False, seen_s=-math.inf)

    @property
    def any(self) -> bool:
        """Whether any track is on, also one that is gone but has not ended."""
        return bool(self._memory["on"].any())

    def step(self, tracks: Tracks, start: Bool, stay: Bool, t: Moment) -> Change:
        """Of the tracks (N,): whether each has what it takes to begin, and to go on."""
        memory, now_s = self._memory, t.now_s
        rows = memory.rows(tracks.id)
        seen = tracks.missed == 0
        memory["seen_s"][rows[seen]] = now_s
        start = start & tracks.confirmed & (now_s - memory["seen_s"][rows] <= FRESH_S) & t.valid
        memory["count"][rows] = np.where(start, memory["count"][rows] + seen, 0)
        memory["stayed_s"][rows[stay]] = now_s
        begins = ~memory["on"] & (memory["count"] >= self._on_detections)
        memory["stayed_s"][begins] = now_s
        ends = memory["on"] & (now_s - memory["stayed_s"] >= self._off_s)
        memory["on"][:] = (memory["on"] | begins) & ~ends
        change = Change(memory["on"][rows], memory.id[begins], memory.id[ends])
        memory.keep(memory["on"] | memory.among(rows))
        return change
