"""Which layers cost the accuracy of INT8, by the task's own metric, and which to keep in float.

BUNDLE/sense/evaluations.json   every evaluation, written down at once: a second run, or one after a stop, begins there
BUNDLE/sense/sense.json         the result
BUNDLE/sense/sense.html         a page of it
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from edgecnn.bundle import Bundle, atomic
from edgecnn.errors import ModelError
from edgecnn.progress import bar
from edgecnn.recipe import CheckSection
from edgecnn.report.sense import FOLDER, write_page
from edgecnn.sense.marks import Marks
from edgecnn.sense.network import Names, Network
from edgecnn.sense.prefixes import ROOM
from edgecnn.sense.search import Effect, effects, smallest

MAX_DROP = 0.01  # where neither the caller nor the recipe names one
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
    judge = Marks.open(bundle, section.data, pictures, room)
    exam, network = judge.exam, judge.network
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
        "kept": {**vars(judge(chosen)), "share": network.share(chosen), "units": network.ordered(chosen)},
        "keep_float": [*own, *network.ordered(chosen)],
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
