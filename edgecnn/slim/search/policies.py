"""Policies: each takes a problem and the most that a network may cost, and gives a cut. POLICIES lists them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import TypeAlias

from edgecnn.errors import ModelError
from edgecnn.progress import bar, tracked
from edgecnn.recipe import PruneStep
from edgecnn.slim.channels import Family
from edgecnn.slim.prune import DEEPEST, cut_by_ratio, keep
from edgecnn.slim.search.problem import LEVELS, Problem

HALVINGS = 12  # of the share that `ranked` cuts
SENSED = (6, 4, 2, 1)  # eighths at which the loss is measured; between them it is interpolated
POPULATION, GENERATIONS = 8, 6

Policy: TypeAlias = Callable[[Problem, float], dict[str, int]]
Rises: TypeAlias = Mapping[str, list[tuple[float, float]]]


def uniform(problem: Problem, most: float) -> dict[str, int]:
    """The same share of each family: what a search has to beat. Raises ModelError where none is cheap enough."""
    for thousandth in range(1000, 0, -5):
        cut = {f.root: keep(f.size, f.size * thousandth // 1000, problem.round_to) for f in problem.families}
        if problem.price(cut) <= most:
            return cut
    raise _unreachable(problem, most)


def ranked(problem: Problem, most: float) -> dict[str, int]:
    """One ranking of all channels by the criterion: the lowest go, as many as the price asks for; no loss is measured.

    Raises ModelError where none is cheap enough.
    """
    step = PruneStep(channels=0.5, round_to=problem.round_to)  # for its scope and multiples; the share is sought here
    low, high, best = 0.0, DEEPEST, None
    for _ in range(HALVINGS):
        ratio = (low + high) / 2
        cut = cut_by_ratio(problem.families, ratio, step)
        if problem.price(cut) <= most:
            best, high = cut, ratio
        else:
            low = ratio
    if best is None:
        raise _unreachable(problem, most)
    return best


def greedy(problem: Problem, most: float) -> dict[str, int]:
    """From the whole network down: always the cut of one family whose rise of the loss, over what it saves, is least.

    The rise is that of cutting the family alone, measured at four levels; rises are taken to add up. What a cut saves
    depends on all cuts before, and is looked up anew.
    """
    rises = sensitivity(problem)
    cut = {family.root: family.size for family in problem.families}
    price = problem.price(cut)
    while price > most:
        best: tuple[float, str, int, float] | None = None
        for family in problem.families:
            now = cut[family.root]
            for level in problem.levels(family):
                if level >= now:
                    continue
                cheaper = problem.price({**cut, family.root: level})
                rise = _at(rises[family.root], level / family.size) - _at(rises[family.root], now / family.size)
                if cheaper < price and (best is None or rise / (price - cheaper) < best[0]):
                    best = rise / (price - cheaper), family.root, level, cheaper
        if best is None:
            raise _unreachable(problem, most)
        _, root, level, price = best
        cut[root] = level
    return _refilled(problem, cut, most, rises)


def evolutionary(problem: Problem, most: float) -> dict[str, int]:
    """A population of cuts that all cost at most `most`; the better half stays, and has children that differ in a few
    families. It starts from the greedy and the uniform cut, so on the pictures at hand it ends no worse than either."""
    dice = random.Random(problem.seed)
    even = _snapped(problem, uniform(problem, most))
    people = [greedy(problem, most), _repaired(problem, even, most, dice)]
    people += [_repaired(problem, _mutated(problem, people[i % 2], dice), most, dice) for i in range(POPULATION - 2)]
    with bar("evolve", POPULATION + GENERATIONS * POPULATION // 2) as advance:

        def fitness(cut: dict[str, int]) -> float:
            value = problem.loss(cut)
            advance(1)
            return value

        ranked = sorted(((fitness(cut), i, cut) for i, cut in enumerate(people)), key=lambda row: row[:2])
        count = len(ranked)
        for _ in range(GENERATIONS):
            parents = ranked[: POPULATION // 2]
            for _ in range(POPULATION // 2):
                one, other = dice.sample(parents, 2)
                child = {root: dice.choice((one, other))[2][root] for root in one[2]}
                child = _repaired(problem, _mutated(problem, child, dice), most, dice)
                count += 1
                parents = [*parents, (fitness(child), count, child)]
            ranked = sorted(parents, key=lambda row: row[:2])
    return ranked[0][2]


def sensitivity(problem: Problem) -> Rises:
    """Of each family, (share that stays, rise of the loss) when it alone is cut, the deepest cut first."""
    kept = {
        f.root: sorted({keep(f.size, f.size * left // LEVELS, problem.round_to) for left in SENSED} - {f.size})
        for f in problem.families
    }
    cuts: list[dict[str, int]] = [{}, *({root: n} for root, levels in kept.items() for n in levels)]
    if unknown := [cut for cut in cuts if not problem.knows(cut)]:
        for cut in tracked(unknown, "sensitivity", len(unknown)):
            problem.loss(cut)
    whole = problem.loss({})
    return {
        f.root: [*((n / f.size, max(0.0, problem.loss({f.root: n}) - whole)) for n in kept[f.root]), (1.0, 0.0)]
        for f in problem.families
    }


def _at(rows: list[tuple[float, float]], share: float) -> float:
    """Linear between the points; the end's value beyond them. A deeper cut never counts as the better one."""
    highest = 0.0
    monotone = []
    for x, y in reversed(rows):
        highest = max(highest, y)
        monotone.append((x, highest))
    for (right, low), (left, high) in pairwise(monotone):
        if share >= left:
            return low + (high - low) * (right - share) / (right - left)
    return monotone[-1][1]


def _refilled(problem: Problem, cut: dict[str, int], most: float, rises: Rises) -> dict[str, int]:
    """The last step may have saved more than was needed: give levels back where they help most, while there is room."""
    while True:
        gains = []
        for family in problem.families:
            now, up = cut[family.root], _moved(problem, family, cut[family.root], 1)
            if up > now and problem.price({**cut, family.root: up}) <= most:
                rows = rises[family.root]
                gains.append((_at(rows, now / family.size) - _at(rows, up / family.size), family.root, up))
        if not gains:
            return cut
        _, root, up = max(gains)
        cut = {**cut, root: up}


def _snapped(problem: Problem, cut: Mapping[str, int]) -> dict[str, int]:
    """The nearest levels below; the lowest where there is none."""
    return {
        f.root: next((n for n in problem.levels(f) if n <= cut[f.root]), problem.levels(f)[-1])
        for f in problem.families
    }


def _mutated(problem: Problem, cut: Mapping[str, int], dice: random.Random) -> dict[str, int]:
    """One family in four moves a level up or down."""
    child = dict(cut)
    for family in dice.sample(list(problem.families), -(-len(problem.families) // 4)):
        child[family.root] = _moved(problem, family, child[family.root], dice.choice((-1, 1)))
    return child


def _repaired(problem: Problem, cut: dict[str, int], most: float, dice: random.Random) -> dict[str, int]:
    """Cut families at random until the price is met, then give back what there is room for."""
    child = dict(cut)
    while problem.price(child) > most:
        room = [f for f in problem.families if child[f.root] > problem.levels(f)[-1]]
        if not room:
            raise _unreachable(problem, most)
        family = dice.choice(room)
        child[family.root] = _moved(problem, family, child[family.root], -1)
    for family in dice.sample(list(problem.families), len(problem.families)):
        more = {**child, family.root: _moved(problem, family, child[family.root], 1)}
        if problem.price(more) <= most:
            child = more
    return child


def _moved(problem: Problem, family: Family, now: int, by: int) -> int:
    """A level up (1) or down (-1), within what there is."""
    levels = problem.levels(family)
    return levels[min(max(levels.index(now) - by, 0), len(levels) - 1)]


def _unreachable(problem: Problem, most: float) -> ModelError:
    least = problem.price({f.root: problem.levels(f)[-1] for f in problem.families})
    return ModelError(
        f"no cut of {problem.spec.arch} costs {most:,.4g} or less; the deepest costs {least:,.4g}",
        do="Raise the target, or lower round_to",
    )


POLICIES: Mapping[str, Policy] = {
    "greedy": greedy,
    "evolutionary": evolutionary,
    "ranked": ranked,
    "uniform": uniform,
}
