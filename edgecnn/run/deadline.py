"""What still fits into a frame's time, from how long it took before."""

from __future__ import annotations

from collections.abc import Mapping

from edgecnn.adas.schedule import BOTH, Kind, Look
from edgecnn.run.timing import working_ms

_WEIGHT = 0.2  # of the newest measurement in the running mean
_DECAY = 0.995  # a frame: what was too slow once is tried again


class TimeBudget:
    """Of one camera. `deadline_ms` 0: everything fits."""

    def __init__(self, deadline_ms: float) -> None:
        self._deadline_ms = deadline_ms
        self._ms: dict[Kind | None, float] = {}  # kind of look → running mean of the whole frame's time

    @property
    def fits(self) -> frozenset[Kind]:
        """The looks that are expected to end before the deadline; those not tried yet are."""
        if not self._deadline_ms:
            return BOTH
        return frozenset(kind for kind in BOTH if self._ms.get(kind, 0.0) <= self._deadline_ms)

    def book(self, ns: Mapping[str, int], look: Look) -> None:
        """One frame's times by stage, ns, and what was done in it."""
        kind: Kind | None = None if look.why is None else "frame" if look.tiles is None else "regions"
        ms = working_ms(ns)
        self._ms = {k: v * _DECAY for k, v in self._ms.items()}
        before = self._ms.get(kind, ms)
        self._ms[kind] = before + _WEIGHT * (ms - before)
