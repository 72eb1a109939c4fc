"""How far the loop may be trusted right now, and what the driver is told of it.

    NORMAL    all is well
    REDUCED   frames come late: the detector looks less often
    WARN-OFF  not monitoring: no warning is given, and that is shown
    STOP      nothing more will come

A mode falls at once, and rises only after a quiet time, which grows while it keeps falling back. Silence is never read
as a free road: without frames the mode falls too.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from edgecnn.adas import Scene
from edgecnn.adas.event import Event

Mode = Literal["NORMAL", "REDUCED", "WARN-OFF", "STOP"]
MODES: tuple[Mode, ...] = ("NORMAL", "REDUCED", "WARN-OFF", "STOP")
NORMAL, REDUCED, WARN_OFF, STOP = range(4)
FEWEST = 5  # frames over which a share is taken, however long they took


@dataclass(frozen=True)
class ModeSettings:
    stale_s: float = 0.2  # no warning begins on a frame older than this
    window_s: float = 1.0  # over which shares of frames are taken
    some: float = 0.2  # share of late or stale frames above which the mode is REDUCED
    most: float = 0.5  # share of stale frames, or of late ones although REDUCED, above which it is WARN-OFF
    silent_s: float = 0.5  # without any frame: WARN-OFF
    invalid_s: float = 0.5  # without one valid answer of the network: WARN-OFF
    stop_s: float = 10.0  # the same: STOP
    quiet_s: float = 3.0  # without cause before the mode rises
    longest_quiet_s: float = 60.0  # the quiet time doubles with each relapse, up to this


@dataclass(frozen=True)
class Change:
    """The mode changed."""

    t_s: float
    frame: int  # index of the frame, -1 = none came
    before: Mode
    mode: Mode
    causes: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        return {**vars(self), "t_s": round(self.t_s, 3), "causes": list(self.causes)}


@dataclass(frozen=True)
class Status:
    """How things stand after one frame, for whoever shows or records it."""

    mode: Mode = "NORMAL"
    causes: tuple[str, ...] = ()
    ms: float = 0.0  # working time of the frame
    age_s: float = math.nan  # of the frame since its capture; nan for a file
    fps: float = 0.0  # frames worked on a second, lately
    late: bool = False  # past its deadline
    dropped: int = 0  # frames of the source so far, for lack of time
    change: Change | None = None  # of the mode, in this frame

    @property
    def monitoring(self) -> bool:
        return self.mode in ("NORMAL", "REDUCED")


class Modes:
    """The state machine of one stream. Times are seconds of one clock that rises."""

    def __init__(self, settings: ModeSettings | None = None) -> None:
        self.settings = settings or ModeSettings()
        self.causes: tuple[str, ...] = ()  # of the present mode
        self.seconds: dict[str, float] = dict.fromkeys(MODES, 0.0)  # spent in each mode
        self._level = NORMAL
        self._now_s: float | None = None
        self._heard_s = self._valid_s = 0.0  # the last frame, -inf = none yet; the last valid answer
        self._recent: deque[tuple[float, bool, bool]] = deque()  # time, late, stale
        self._held: dict[str, tuple[int, float]] = {}  # cause → the level that it asks for, when it last held
        self._wait_s = self.settings.quiet_s
        self._rose_s = -np.inf
        self._late_s: float | None = None  # since when frames are late although REDUCED

    @property
    def mode(self) -> Mode:
        return MODES[self._level]

    def step(
        self,
        t_s: float,
        frame: int,
        *,
        late: bool = False,
        stale: bool = False,
        faults: Collection[str] = (),
        answer: bool | None = True,
    ) -> Change | None:
        """A frame came. `late`: past its deadline; `stale`: too old; `answer`: whether the network's was valid, None
        where it was not asked."""
        s = self.settings
        first = self._now_s is None or self._heard_s == -np.inf
        if first:
            self._held.clear()  # waiting for the first frame is no fault
        if first or answer:
            self._valid_s = t_s
        self._heard_s = t_s
        self._recent.append((t_s, late, stale))
        while len(self._recent) > FEWEST and self._recent[0][0] < t_s - s.window_s:
            self._recent.popleft()
        held = dict.fromkeys(faults, WARN_OFF) | self._shares(t_s)
        if answer is False and t_s - self._valid_s >= s.invalid_s:
            held["invalid outputs"] = STOP if t_s - self._valid_s >= s.stop_s else WARN_OFF
        return self._settle(t_s, frame, held)

    def idle(self, t_s: float) -> Change | None:
        """No frame came until now."""
        if self._now_s is None:  # before the first: not monitoring yet
            self._heard_s = -np.inf
        silent = t_s - self._heard_s >= self.settings.silent_s
        return self._settle(t_s, -1, {"no frames": WARN_OFF} if silent else {})

    def stop(self, t_s: float, cause: str) -> Change | None:
        """The source is gone for good."""
        return self._settle(t_s, -1, {cause: STOP})

    def finish(self, t_s: float) -> None:
        """The last frame's time is booked."""
        self._book(t_s)

    def _shares(self, t_s: float) -> dict[str, int]:
        s, held = self.settings, dict[str, int]()
        if len(self._recent) < FEWEST:
            return held
        late, stale = (sum(frame[k] for frame in self._recent) / len(self._recent) for k in (1, 2))
        if stale > s.some:
            held["frames too old"] = WARN_OFF if stale > s.most else REDUCED
        if late > s.some:
            held["deadline missed"] = REDUCED
        if late > s.most and self._level >= REDUCED:
            self._late_s = t_s if self._late_s is None else self._late_s
            if t_s - self._late_s >= 2 * s.window_s:
                held["deadline missed"] = WARN_OFF
        else:
            self._late_s = None
        return held

    def _settle(self, t_s: float, frame: int, held: dict[str, int]) -> Change | None:
        s, before = self.settings, self._level
        self._book(t_s)
        self._held |= {cause: (level, t_s) for cause, level in held.items()}
        self._held = {
            cause: (level, when)
            for cause, (level, when) in self._held.items()
            if level == STOP or cause in held or t_s - when < self._wait_s
        }
        self._level = max((level for level, _ in self._held.values()), default=NORMAL)
        self.causes = tuple(cause for cause, (level, _) in self._held.items() if level == self._level)
        if self._level == before:
            return None
        if self._level > before:
            relapse = t_s - self._rose_s < 2 * self._wait_s
            self._wait_s = min(2 * self._wait_s, s.longest_quiet_s) if relapse else s.quiet_s
        else:
            self._rose_s = t_s
        return Change(t_s, frame, MODES[before], self.mode, self.causes)

    def _book(self, t_s: float) -> None:
        if self._now_s is not None:
            self.seconds[self.mode] += max(0.0, t_s - self._now_s)
        self._now_s = t_s if self._now_s is None else max(t_s, self._now_s)


class Gate:
    """Between the analysis and the driver: which warnings are given.

    One that begins in a frame which is no ground for it waits for the next good frame; while nothing is monitored,
    those that are on end, and none begins.
    """

    def __init__(self) -> None:
        self._on: dict[tuple[str, int], Event] = {}  # in the analysis
        self._told: set[tuple[str, int]] = set()

    def step(self, scene: Scene, *, t_ns: int, frame: int, cut: bool, hold: bool, off: bool) -> Scene:
        """The scene as it may be told. `cut`: the analysis forgot all, and ended its warnings without an event;
        `hold`: nothing new on this frame; `off`: not monitoring."""
        events: list[Event] = []

        def tell(key: tuple[str, int], what: str) -> None:
            events.append(replace(self._on[key], t_ns=t_ns, frame=frame, kind=f"{key[0]}_{what}"))

        def forget(key: tuple[str, int]) -> None:
            if key in self._told:
                tell(key, "off")
            self._told.discard(key)
            self._on.pop(key, None)

        for key in list(self._on) if cut else ():
            forget(key)
        for event in scene.warnings:
            name, _, what = event.kind.rpartition("_")
            key = name, event.track
            if what == "on":
                self._on[key] = event
            else:  # a warning of the lane or of the gap may end with another track than it began with
                key = key if key in self._on else next((k for k in self._on if k[0] == name), key)
                if key in self._told:
                    events.append(event)
                self._told.discard(key)
                self._on.pop(key, None)
        if off:
            for key in sorted(self._told):
                tell(key, "off")
            self._told.clear()
        elif not hold:
            for key in [key for key in self._on if key not in self._told]:
                self._told.add(key)
                tell(key, "on")
        kinds = {name for name, _ in self._told}
        on = tuple(kind for kind in scene.on if kind in kinds)
        return replace(scene, warnings=tuple(events), on=on, warned=scene.warned & bool(on))
