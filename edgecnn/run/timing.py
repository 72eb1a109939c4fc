"""How long each stage takes, frame by frame."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

STAGES = (
    "decode",
    "preprocess",
    "infer",
    "postprocess",
    "track",
    "scene",
    "second",
    "health",
    "sink",
)  # in the order of the frame's way
TAIL = 1000  # times, for p99.9 to be told
WORKING = STAGES[1:-1]  # those that follow one another from a decoded frame to its tracks and warnings


def working_ms(ns: Mapping[str, int]) -> float:
    """Time from a decoded frame to its tracks and warnings, ms, from ns by stage."""
    return sum(ns.get(stage, 0) for stage in WORKING) / 1e6


class Laps:
    """A stopwatch for one frame: `lap(stage)` books the ns since the last lap, added up where a stage comes twice."""

    def __init__(self) -> None:
        self.ns: dict[str, int] = {}
        self._since = time.perf_counter_ns()

    def lap(self, stage: str) -> None:
        now = time.perf_counter_ns()
        self.ns[stage] = self.ns.get(stage, 0) + now - self._since
        self._since = now


class Watch:
    """Every clock that the decisions of one stream depend on, read through one hand: a recording keeps what was read
    in a turn (`seen`), a replay says it again."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self.seen: list[float] = []  # by now_s, in this turn

    def start(self) -> None:
        self._began_s = time.monotonic()

    def turn(self) -> None:
        """Another turn of the stream begins."""
        self.seen = []

    def now_s(self) -> float:
        """Since the stream began."""
        self.seen.append(time.monotonic() - self._began_s)
        return self.seen[-1]

    def laps(self) -> Laps:
        """A stopwatch for a frame, or for a part of one."""
        return Laps()


class StageTimes:
    """Columns of stage times over many frames. A stage counts only in the frames in which it ran.

    `last`: so many of the newest times are kept of each stage, and percentiles are of those; a run of days must not
    fill the memory. None: all of them. How many there were, their mean and their maximum are those of all.
    """

    def __init__(self, last: int | None = None) -> None:
        self._last = last
        self._ns: dict[str, deque[int]] = {}
        self._all: dict[str, tuple[int, int, int]] = {}  # count, sum, largest

    def add(self, ns: Mapping[str, int]) -> None:
        for stage, value in ns.items():
            self._ns.setdefault(stage, deque(maxlen=self._last)).append(value)
            count, total, largest = self._all.get(stage, (0, 0, 0))
            self._all[stage] = (count + 1, total + value, max(largest, value))

    def ms(self, stage: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """(N,) ms, one for each frame that is kept and in which the stage ran."""
        return np.array(self._ns.get(stage, ()), np.float64) / 1e6

    def table(self) -> dict[str, dict[str, float]]:
        """stage → n, mean, percentiles, max, in ms; JSON-able."""
        return {s: self._row(s) for s in (*filter(self._ns.__contains__, STAGES), *(self._ns.keys() - set(STAGES)))}

    def _row(self, stage: str) -> dict[str, float]:
        count, total, largest = self._all[stage]
        whole = {"n": count, "mean": round(total / count / 1e6, 4), "max": round(largest / 1e6, 4)}
        return {**percentiles(self.ms(stage)), **whole}


def percentiles(ms: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    """Count, mean and percentiles (linear interpolation) of one or more times in ms. `p999` (99.9 %) is there from
    `TAIL` times on: of fewer, it would be the largest and nothing else."""
    names = ("p50", "p90", "p95", "p99", *(("p999",) if len(ms) >= TAIL else ()))
    values = np.percentile(ms, [99.9 if name == "p999" else float(name[1:]) for name in names])
    told = {"mean": ms.mean(), **dict(zip(names, values, strict=True)), "max": ms.max()}
    return {"n": len(ms), **{name: round(float(value), 4) for name, value in told.items()}}
