"""Which units to leave in float: what each of them costs, and the smallest set that keeps the metric.

Two orders, for two kinds of harm. A unit's gain is what comes back when it alone is left in float; it is hidden where
another unit ruins everything. Its cost is what is lost when it alone is INT8; it says nothing of errors that cancel or
add up. So both orders are tried: the shortest beginning of each that suffices, by bisection, from which every unit that
is not needed is then taken out again. Where one unit is enough, that is known from the gains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgecnn.sense.network import Names, Unit


@dataclass(frozen=True)
class Mark:
    """What an evaluation finds."""

    metric: float  # of the task, in [0, 1]
    divergence: float  # from FP32's answers, nats a picture


Judge = Callable[[Names], Mark]  # units in float -> mark


@dataclass(frozen=True)
class Effect:
    """What INT8 does to one unit: `cost` with it alone in INT8, `gain` with it alone in float."""

    unit: Unit
    cost: Mark  # FP32 less this: points lost; divergence that it brings
    gain: Mark  # this less all INT8: points won back; divergence that it takes away


def effects(units: Sequence[Unit], whole: Mark, judge: Judge) -> list[Effect]:
    """Of every unit, in the network's order: 2 evaluations each, and one of all INT8. `whole`: FP32's mark."""
    every, rounded = frozenset(unit.name for unit in units), judge(frozenset())
    found = []
    for unit in units:
        own = frozenset([unit.name])
        alone, without = judge(every - own), judge(own)
        cost = Mark(whole.metric - alone.metric, alone.divergence - whole.divergence)
        gain = Mark(without.metric - rounded.metric, rounded.divergence - without.divergence)
        found.append(Effect(unit, cost, gain))
    return found


def smallest(found: Sequence[Effect], judge: Judge, least: float) -> Names | None:
    """The fewest units to leave in float so that the metric is at least this much; of as few, those of fewest
    multiply-adds. None where not even all of them suffice.

    Nothing can be taken out of what comes back. Whether another set is smaller still, only brute force knows.
    """
    macs = {effect.unit.name: effect.unit.macs for effect in found}

    def enough(names: Names) -> bool:
        return judge(names).metric >= least

    if enough(frozenset()):
        return frozenset()
    if alone := [name for name in macs if enough(frozenset([name]))]:
        return frozenset([min(alone, key=macs.__getitem__)])
    if not enough(frozenset(macs)):
        return None
    sets = []
    for order in (
        sorted(found, key=lambda e: (-e.gain.divergence, -e.cost.divergence)),
        sorted(found, key=lambda e: (-e.cost.divergence, -e.gain.divergence)),
    ):
        names = [effect.unit.name for effect in order]
        sets.append(_thinned(names[: _shortest(names, enough)], enough))
    return min(sets, key=lambda names: (len(names), sum(macs[name] for name in names)))


def _shortest(names: Sequence[str], enough: Callable[[Names], bool]) -> int:
    """How many from the beginning suffice, one fewer not doing so; none is too few, all are enough."""
    few, many = 0, len(names)
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(frozenset(names[:middle])) else (middle, many)
    return many


def _thinned(names: Sequence[str], enough: Callable[[Names], bool]) -> Names:
    """Without each, from the least important on, that can be spared; again, until none can."""
    kept = list(names)
    spared = True
    while spared:
        spared = False
        for name in reversed(list(kept)):
            rest = frozenset(kept) - {name}
            if enough(rest):
                kept.remove(name)
                spared = True
    return frozenset(kept)
