"""Which layers cost the accuracy of INT8, by the task's own metric, and which to keep in float.

BUNDLE/sense/evaluations.json   every evaluation, written down at once: a second run, or one after a stop, begins there
BUNDLE/sense/sense.json         the result
BUNDLE/sense/sense.html         a page of it
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from edgecnn.bundle import Bundle, atomic, sha256
from edgecnn.errors import BundleError, ModelError
from edgecnn.memo import Memo
from edgecnn.progress import Advance, bar
from edgecnn.quantize.correct import measure
from edgecnn.quantize.graph import load
from edgecnn.quantize.insert import plan
from edgecnn.quantize.ranges import tapped
from edgecnn.recipe import CheckSection
from edgecnn.report.sense import FOLDER, write_page
from edgecnn.run.loop import RunSettings
from edgecnn.sense.exam import Exam
from edgecnn.sense.network import Names, Network
from edgecnn.sense.prefixes import ROOM, Prefixes, Values
from edgecnn.sense.search import Effect, Mark, effects, smallest

VERSION = 1  # raised when the same bundle and pictures would give other figures
MAX_DROP = 0.01  # where neither the caller nor the recipe names one
TOLD = 16  # pictures on which each kernel's own rounding is measured
SLACK = 1e-9  # the metric is a share of counted things: this much is rounding


def sense(
    bundle: Bundle,
    section: CheckSection | None = None,
    *,
    max_drop: float | None = None,
    pictures: int = 500,
    room: int = ROOM,
) -> dict[str, Any]:
    """Measure what INT8 costs each unit of a quantised bundle, and search the smallest set to keep in float.

    On at most `pictures` of the data of `section` (the recipe's own `check` unless given). `max_drop`: the most that
    top-1 or AP50 may lose against FP32; the recipe's unless given, else 0.01. `room`: bytes of activations to keep.
    Writes the files above and returns what is in sense.json. Raises BundleError where the bundle is not quantised,
    InputError where the check's data is missing or shows nothing, ModelError where FP32 itself finds nothing, or all
    units in float are not enough.
    """
    section = section or CheckSection.model_validate(bundle.settings.get("check", {}))
    model, files = bundle.require_model(), [bundle.file(role) for role in ("int8", "fp32", "ranges")]
    exam = Exam.open(model, section.data, pictures, RunSettings.of(bundle).iou)
    network = Network(load(files[0]), _correction(json.loads(files[2].read_text("utf-8"))), exam.inputs[0])
    key = hashlib.sha256(json.dumps([VERSION, *map(sha256, files), exam.digest()]).encode()).hexdigest()
    memo = Memo.open(bundle.path / FOLDER / "evaluations.json", key)
    judge = _Judge(exam, network, Prefixes(network, exam.inputs, room), bundle, memo)
    started = time.perf_counter()

    whole = judge.whole()
    allowed = section.max_drop.get(exam.metric, MAX_DROP) if max_drop is None else max_drop
    with bar("evaluate units", 2 * len(network.units) + 1) as judge.advance:
        found = effects(network.units, whole, judge)
    with bar("search", None) as judge.advance:
        chosen = smallest(found, judge, whole.metric - allowed - SLACK)
    if chosen is None:
        every = judge(frozenset(unit.name for unit in network.units))
        raise ModelError(
            f"{exam.metric} is {whole.metric:.4f} in FP32 and {every.metric:.4f} with all units in float again",
            wanted=f"a drop of at most {allowed:g}",
            do="Allow more with --max-drop",
        )
    own = bundle.stages["quantize"].settings.get("keep_float", [])
    result = {
        "bundle": bundle.name,
        "key": bundle.stages["quantize"].key,
        "metric": exam.metric,
        "data": section.data.model_dump(mode="json", exclude_none=True),
        "pictures": len(exam.inputs),
        "max_drop": allowed,
        "fp32": vars(whole),
        "int8": {**vars(judge(frozenset())), "share": network.share(frozenset())},
        "kept": {**vars(judge(chosen)), "share": network.share(chosen), "units": _ordered(network, chosen)},
        "keep_float": [*own, *_ordered(network, chosen)],
        "float_already": sorted(network.floats),
        "units": _rows(found, chosen, network, judge.sqnr()),
        "points": {kind: [list(point) for point in row] for kind, row in judge.points(chosen).items()},
        "evaluations": {"all": len(judge.seen), "now": judge.made, "brute_force": 2 ** len(network.units)},
        # share of the multiply-adds of this run's evaluations that kept activations spared; None: there were none
        "spared": 1 - judge.prefixes.done / judge.prefixes.whole if judge.prefixes.whole else None,
        "seconds": round(time.perf_counter() - started, 1),
    }
    with atomic(bundle.path / FOLDER / "sense.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1), "utf-8")
    write_page(bundle.path / FOLDER)
    return result


def table(result: Mapping[str, Any], limit: int = 20) -> list[tuple[str, ...]]:
    """Rows for a reader, the header first, the costliest units on top: points are hundredths of the metric."""
    rows: list[tuple[str, ...]] = [
        ("unit", "operators", "MACs", "SQNR dB", "cost", "gain", "cost nats", "gain nats", "")
    ]
    units = sorted(result["units"], key=lambda u: (not u["float"], -max(u["gain_nats"], u["cost_nats"])))
    for u in units[:limit]:
        rows.append(
            (
                u["unit"],
                "+".join(u["operators"]),
                f"{100 * u['share']:.1f} %",
                f"{u['sqnr_db']:.1f}",
                *(f"{100 * u[name]:+.2f}" for name in ("cost", "gain")),
                *(f"{u[name]:.2e}" for name in ("cost_nats", "gain_nats")),
                "keep in float" if u["float"] else "",
            )
        )
    return rows


def summary(result: Mapping[str, Any]) -> str:
    """What was found, in a few lines, and what to paste into the recipe."""
    metric, kept, count = result["metric"], result["kept"], result["evaluations"]
    one = f" (one is {1 / result['pictures']:.4f})" if metric == "top1" else ""
    lines = [
        f"{metric} on {result['pictures']} pictures{one}: FP32 {result['fp32']['metric']:.4f}, INT8 "
        f"{result['int8']['metric']:.4f}; may lose {result['max_drop']:g}"
    ]
    if kept["units"]:
        lines.append(
            f"with {len(kept['units'])} of {len(result['units'])} units in float, {kept['share']:.1%} of the "
            f"multiply-adds: {kept['metric']:.4f}. Paste into the recipe:"
        )
        lines.append(f"quantize: {{keep_float: [{', '.join(map(json.dumps, result['keep_float']))}]}}")
    else:
        lines.append("no unit needs to be kept in float")
    brute = count["brute_force"]
    lines.append(
        f"{count['all']} evaluations, {count['now']} of them now ({result['seconds']:.0f} s); brute force: "
        + (f"{brute}" if brute < 1e6 else f"{brute:.1e}")
        + ("" if result["spared"] is None else f". Kept activations spared {result['spared']:.0%} of the multiply-adds")
    )
    return "\n".join(lines)


class _Judge:
    """Marks of sets of units in float: from the memo, or evaluated now."""

    def __init__(self, exam: Exam, network: Network, prefixes: Prefixes, bundle: Bundle, memo: Memo) -> None:
        self.exam, self.network, self.prefixes, self.bundle, self.memo = exam, network, prefixes, bundle, memo
        self.seen: dict[Names, Mark] = {}
        self.made = 0
        self.advance: Advance = lambda _n, _text="": None

    def __call__(self, floats: Names) -> Mark:
        if floats not in self.seen:
            name = json.dumps(_ordered(self.network, floats))
            self.made += name not in self.memo.values
            self.seen[floats] = Mark(**self.memo.get(name, lambda: self._mark(self.prefixes.run(floats))))
            self.advance(1)
        return self.seen[floats]

    def whole(self) -> Mark:
        """FP32's, of the bundle's own file. Raises ModelError where it finds nothing: nothing could be lost."""
        mark = Mark(**self.memo.get("fp32", lambda: self._mark(self._answers)))
        if not mark.metric > 0:
            raise ModelError(
                f"{self.exam.metric} of the FP32 network is {mark.metric:g} on these pictures",
                wanted="more than 0: what finds nothing can lose nothing",
                do="Name other data under `check:` in the recipe, or raise --pictures",
            )
        return mark

    def sqnr(self) -> dict[str, float]:
        """Unit → dB of its output over its own rounding noise, its input exact."""

        def find() -> dict[str, float]:
            model = self.network.model
            chosen = plan(model, self.network.floats)
            rounding = measure(model, chosen, self.network.scale, self.exam.inputs[:TOLD])
            return {name: round(rounding[name].sqnr_db, 2) for name in chosen.kernels}

        return dict(self.memo.get("sqnr", find))

    def points(self, chosen: Names) -> dict[str, list[tuple[float, float]]]:
        """(share of multiply-adds in float, metric) of all that was evaluated, by kind."""
        kinds: dict[str, list[tuple[float, float]]] = {"one unit in float or INT8": [], "searched": [], "chosen": []}
        every = len(self.network.units)
        for names, mark in self.seen.items():
            ends = len(names) in (0, 1, every - 1, every)
            kind = "chosen" if names == chosen else "one unit in float or INT8" if ends else "searched"
            kinds[kind].append((self.network.share(names), mark.metric))
        return kinds

    @cached_property
    def _answers(self) -> Values:
        session = tapped(load(self.bundle.file("fp32")), ())
        names, feed = self.prefixes.outputs, session.get_inputs()[0].name
        return [dict(zip(names, session.run(names, {feed: x}), strict=True)) for x in self.exam.inputs]

    def _mark(self, answers: Values) -> dict[str, float]:
        return {"metric": self.exam.score(answers), "divergence": self.exam.divergence(self._answers, answers)}


def _correction(ranges: Mapping[str, Any]) -> dict[str, list[float]]:
    if "bias_correction" not in ranges:
        raise BundleError(
            "the bundle was quantised by an earlier edgecnn, which did not write down the corrections of biases",
            do="Run: edgecnn quantize RECIPE",
        )
    return dict(ranges["bias_correction"])


def _ordered(network: Network, names: Names) -> list[str]:
    return [unit.name for unit in network.units if unit.name in names]


def _rows(found: list[Effect], chosen: Names, network: Network, sqnr: Mapping[str, float]) -> list[dict[str, Any]]:
    return [
        {
            "unit": e.unit.name,
            "operators": list(e.unit.operators),
            "share": e.unit.macs / network.macs,
            "sqnr_db": sqnr[e.unit.name],
            "cost": e.cost.metric,
            "gain": e.gain.metric,
            "cost_nats": e.cost.divergence,
            "gain_nats": e.gain.divergence,
            "float": e.unit.name in chosen,
        }
        for e in found
    ]
