"""A search over where to cut: which share of each family of channels stays, so that a target is met and the network is
as good as can be. The target is a latency measured here, a number of multiply-adds, or the loss of accuracy that is
allowed; what channels go within a family is decided as in pruning.

The price of a cut is looked up layer by layer (NetAdapt, Yang et al. 2018, arXiv:1804.03230, section 3.3), then the
whole network is measured; where the sum promised too much or too little, the price is corrected.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from edgecnn.bundle import ModelSpec, atomic
from edgecnn.errors import ModelError
from edgecnn.memo import Memo
from edgecnn.progress import note
from edgecnn.recipe import SearchStep, TrainSection
from edgecnn.slim.channels import LayerShape, families, layout
from edgecnn.slim.finetune import finetuned
from edgecnn.slim.latency import LatencyTable, whole
from edgecnn.slim.prune import importance, weigh
from edgecnn.slim.search.policies import POLICIES, greedy, uniform
from edgecnn.slim.search.problem import Cost, Problem, described, fingerprint
from edgecnn.zoo.batches import Batchable
from edgecnn.zoo.count import size
from edgecnn.zoo.evaluate import accuracy
from edgecnn.zoo.widths import read_widths

JUDGED = 128  # pictures on which cuts are judged, unless the recipe names its own data
SEARCHES = 4  # a network that came out too slow or too fast is cut anew, with the price corrected, so many times in all
UNDER, OVER = 0.95, 1.02  # of the wanted latency: near enough, as measurements go
BUDGETS = 8  # parts of the price at which the plot has points; twice as many are what --max-drop chooses among
STATE, POINTS = "search.json", "pareto.json"


@dataclass(frozen=True)
class _Found:
    net: nn.Module
    spec: ModelSpec
    cut: Mapping[str, int]
    told: str  # what came of the target


def searched(
    net: nn.Module,
    spec: ModelSpec,
    step: SearchStep,
    teacher: nn.Module,
    own: ModelSpec | None = None,
    folder: Path | None = None,
    table: LatencyTable | None = None,
) -> tuple[nn.Module, ModelSpec, str]:
    """A copy, cut to the step's target and fine-tuned by `tune`, taught by `teacher`, whose spec is `own`.

    In `folder` it keeps its state, to go on from after a stop, and pareto.json: price and loss of cuts of several
    sizes, searched and uniform. Raises ModelError where no cut reaches the target.
    """
    shape = spec.input.shape
    section = step.data or step.tune.data.model_copy(update={"pictures": min(step.tune.data.pictures, JUDGED)})
    weighed = weigh(net, spec, step.criterion, TrainSection(data=section))
    table = table or LatencyTable()
    full = layout(weighed, shape)
    base = whole(weighed, shape)
    factor = base / table.total(full)
    note(f"latency: {base:.3f} ms measured whole, {base / factor:.3f} ms as the sum of its layers ({table.machine})")
    by_time = step.macs is None
    state = fingerprint(net, section.model_dump(mode="json"), step.criterion, step.round_to)
    problem = Problem(
        weighed,
        spec,
        families(weighed, shape, importance(step.criterion)),
        full,
        _timed(table, factor) if by_time else _counted,
        Batchable.read(spec, section, "pictures to judge cuts on"),
        Memo.open(None if folder is None else folder / STATE, state),
        step.round_to,
        step.seed,
    )
    if step.drop is not None:
        found = _to_drop(problem, step, teacher, own)
    elif step.latency is not None:
        found = _tuned(problem, step, _to_latency(problem, step, step.latency), teacher, own)
    else:
        assert step.macs is not None
        most = step.macs if step.macs >= 1 else step.macs * problem.price({})
        found = _tuned(problem, step, POLICIES[step.policy](problem, most), teacher, own)
    table.save()
    predicted, measured = factor * table.total(layout(found.net, shape)), whole(found.net, shape)
    counts = [size(each, shape).macs for each in (net, found.net)]
    line = (
        f"search: {step.policy}, {counts[0]:,} multiply-adds became {counts[1]:,}; {base:.3f} ms became {measured:.3f} "
        f"({predicted:.3f} predicted by the table){found.told}; kept, %: {described(found.cut, problem.families)}"
    )
    if folder is not None:
        facts = {
            "unit": "ms" if by_time else "multiply-adds",
            "machine": table.machine,
            "latency_ms": {"before": base, "after": measured, "predicted": predicted, "layers_times": factor},
            "kept": dict(found.cut),
            "points": _points(problem, found.cut, step.policy),
        }
        with atomic(folder / POINTS) as temporary:
            temporary.write_text(json.dumps(facts, indent=1), "utf-8")
    return found.net, found.spec, line


def _counted(layer: LayerShape) -> float:
    return float(layer.macs)


def _timed(table: LatencyTable, factor: float) -> Cost:
    return lambda layer: factor * table(layer)


def _to_latency(problem: Problem, step: SearchStep, target: float) -> dict[str, int]:
    """A cut whose whole network was measured to take `target` ms: not longer, and not much less."""
    most, best, fastest = target, None, float("inf")
    for _ in range(SEARCHES):
        cut = POLICIES[step.policy](problem, most)
        measured = whole(problem.network(cut), problem.spec.input.shape)
        note(f"latency: {measured:.3f} ms measured, {problem.price(cut):.3f} predicted; wanted {target:g}")
        fastest = min(fastest, measured)
        if measured <= target * OVER and (best is None or measured > best[0]):
            best = measured, cut
        if target * UNDER <= measured <= target * OVER:
            break
        most = min(most * target / measured, problem.price({}))
    if best is None:
        raise ModelError(
            f"{problem.spec.arch} takes {fastest:.3f} ms here, the best of {SEARCHES} searches",
            wanted=f"{target:g} ms",
            do="Raise the target, or measure while the machine is quiet",
        )
    return best[1]


def _tuned(
    problem: Problem, step: SearchStep, cut: Mapping[str, int], teacher: nn.Module, own: ModelSpec | None
) -> _Found:
    net = problem.network(cut)
    spec = replace(problem.spec, widths=read_widths(net))
    if step.tune.epochs:
        net, spec, _ = finetuned(net, spec, step.tune, teacher, own)
    return _Found(net, spec, cut, "")


def _to_drop(problem: Problem, step: SearchStep, teacher: nn.Module, own: ModelSpec | None) -> _Found:
    """The cheapest network that, fine-tuned, loses at most `drop` of its figure on the pictures at hand: by halving."""
    assert step.drop is not None
    before = accuracy(problem.net, problem.spec, problem.data)
    price, best = problem.price({}), None
    good, bad = 2 * BUDGETS, 0  # parts of the price: all of it is good, none of it is not
    while good - bad > 1:
        part = (good + bad) // 2
        try:
            cut = POLICIES[step.policy](problem, price * part / (2 * BUDGETS))
        except ModelError:  # no cut is so cheap
            bad = part
            continue
        found = _tuned(problem, step, cut, teacher, own)
        figure = accuracy(found.net, found.spec, problem.data)
        note(f"at {part / (2 * BUDGETS):.0%} of the price: {figure:.4f}, {before:.4f} before")
        if figure >= before - step.drop:
            good, best = part, replace(found, told=f"; figure on the pictures at hand {before:.4f} -> {figure:.4f}")
        else:
            bad = part
    if best is None:
        raise ModelError(
            f"every cut of {problem.spec.arch} loses more than {step.drop:g}",
            do="Allow more, or fine-tune for longer (slim.steps.search.tune)",
        )
    return best


def _points(problem: Problem, cut: Mapping[str, int], policy: str) -> dict[str, list[dict[str, Any]]]:
    """Price, and loss before fine-tuning, of searched and uniform cuts of several sizes, and of the one chosen."""
    price = problem.price({})

    def row(each: Mapping[str, int]) -> dict[str, Any]:
        return {"price": problem.price(each), "loss": problem.loss(each)}

    points: dict[str, list[dict[str, Any]]] = {"greedy": [], "uniform": []}
    for name, search in (("greedy", greedy), ("uniform", uniform)):
        for part in range(BUDGETS, 0, -1):
            try:
                points[name].append(row(search(problem, price * part / BUDGETS)))
            except ModelError:  # nothing is so cheap: the curve ends
                break
    return {**points, f"chosen ({policy})": [row(cut)]}
