"""Gates: figures against limits, and the report of a check. A gate is one of

least      the figure of what ships (INT8 where there is one) is at least so much       `check.gates`
drop       FP32's figure less INT8's is at most so much                                 `check.max_drop`
baseline   what ships lost at most so much against an earlier `edgecnn check --json`    `check.baseline`
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from edgecnn.errors import InputError, RecipeError
from edgecnn.recipe import CheckSection

Figures = Mapping[str, float]  # metric -> value; shares in [0, 1] but for the counts
COUNTS = {"switches", "hits", "misses", "false"}  # no share, and for most of them less is better: never a gate
HEADLINES = ("AP", "AP50", "HOTA", "MOTA", "IDF1", "top1", "top5", "cosine", "nearest")  # held against a baseline


@dataclass(frozen=True)
class Gate:
    """One figure against one limit."""

    kind: Literal["least", "drop", "baseline"]
    metric: str
    precision: str
    value: float  # the figure, or for drop and baseline what was lost
    limit: float

    @property
    def ok(self) -> bool:
        """nan (nothing to measure it on) passes no gate."""
        return self.value >= self.limit if self.kind == "least" else self.value <= self.limit

    def __str__(self) -> str:
        match self.kind:
            case "least":
                return f"{self.metric} {self.value:.4f} ({self.precision}), at least {self.limit:g}"
            case "drop":
                return f"{self.metric} loses {self.value:.4f} by {self.precision}, at most {self.limit:g}"
            case _:
                return f"{self.metric} lost {self.value:.4f} against the baseline, at most {self.limit:g}"


@dataclass(frozen=True)
class CheckReport:
    """What `edgecnn check` found. Metrics stand in the order in which they were measured."""

    bundle: str
    data: Mapping[str, Any]  # the recipe's check.data
    samples: int  # pictures looked at
    figures: Mapping[str, Figures]  # precision -> metric -> value
    gates: tuple[Gate, ...]

    @property
    def ok(self) -> bool:
        return all(gate.ok for gate in self.gates)

    def json(self) -> dict[str, Any]:
        gates = [{**vars(gate), "ok": gate.ok, "text": str(gate)} for gate in self.gates]
        return {**vars(self), "gates": gates, "ok": self.ok}

    def junit(self) -> str:
        """XML with a testcase a gate, as CI systems read it."""
        missed = [gate for gate in self.gates if not gate.ok]
        suite = ElementTree.Element(
            "testsuite", name=f"edgecnn check {self.bundle}", tests=str(len(self.gates)), failures=str(len(missed))
        )
        for gate in self.gates:
            case = ElementTree.SubElement(suite, "testcase", classname=self.bundle, name=f"{gate.metric} {gate.kind}")
            if not gate.ok:
                ElementTree.SubElement(case, "failure", message=str(gate))
        ElementTree.indent(suite)
        return ElementTree.tostring(suite, "unicode", xml_declaration=True) + "\n"

    def table(self) -> list[tuple[str, ...]]:
        """Rows for a reader, the header first: metric, a column a precision, delta, limit, verdict."""
        precisions = list(self.figures)
        both = len(precisions) > 1
        rows = [("metric", *precisions, *(["delta"] if both else []), "limit", "verdict")]
        for metric in next(iter(self.figures.values())):
            values = [self.figures[p][metric] for p in precisions]
            gates = [gate for gate in self.gates if gate.metric == metric]
            verdict = "" if not gates else "ok" if all(g.ok for g in gates) else "MISSED"
            limits = ", ".join(f"{_SIGNS[g.kind]} {g.limit:g}" for g in gates)
            delta = [_number(metric, values[-1] - values[0], "+")] if both else []
            rows.append((metric, *(_number(metric, v) for v in values), *delta, limits, verdict))
        return rows


_SIGNS = {"least": "≥", "drop": "drop ≤", "baseline": "loss ≤"}


def _number(metric: str, value: float, sign: str = "") -> str:
    return "–" if math.isnan(value) else f"{value:{sign}.{0 if metric in COUNTS else 4}f}"


def judge(
    figures: Mapping[str, Figures], section: CheckSection, baseline: Mapping[str, Figures] | None = None
) -> list[Gate]:
    """The gates of a `check` section, applied. The last precision is what ships, the first is what it came from.

    Raises RecipeError for a metric that was not measured.
    """
    shipped, whole = list(figures)[-1], next(iter(figures))
    now = figures[shipped]
    gates = []
    for metric, least in section.gates.items():
        gates.append(Gate("least", metric, shipped, _figure(now, metric, "gates"), least))
    for metric, most in section.max_drop.items():
        if shipped != whole:
            lost = _figure(figures[whole], metric, "max_drop") - now[metric]
            gates.append(Gate("drop", metric, shipped, lost, most))
    earlier = (baseline or {}).get(shipped, {})
    for metric in HEADLINES:
        if metric in earlier and metric in now:
            gates.append(Gate("baseline", metric, shipped, earlier[metric] - now[metric], section.baseline_drop))
    return gates


def _figure(figures: Figures, metric: str, key: str) -> float:
    known = [name for name in figures if name not in COUNTS]
    if metric not in known:
        near = difflib.get_close_matches(metric, known, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
        raise RecipeError(f"check.{key} names '{metric}', which is not measured here; {hint}")
    return figures[metric]


def read_baseline(path: Path) -> dict[str, dict[str, float]]:
    """The figures of an earlier report; null, which stands for nan there, is left out."""
    try:
        figures = json.loads(path.read_text("utf-8"))["figures"]
        return {p: {m: float(v) for m, v in values.items() if v is not None} for p, values in figures.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"the baseline {path} is not readable ({error})", wanted="a file that `edgecnn check --json` printed"
        ) from error
