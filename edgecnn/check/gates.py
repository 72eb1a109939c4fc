"""Gates: figures against limits, and the report of a check. A gate is one of

least      the figure of what ships (INT8 where there is one) is at least so much       `check.gates`
drop       FP32's figure less INT8's is at most so much                                 `check.max_drop`
slim       the same of FP32 before slimming and FP32                                    `check.max_slim_drop`
baseline   what ships lost at most so much against an earlier `edgecnn check --update`  `check.baseline`

A loss misses its gate only when it is beyond the limit and, at 95 %, no accident of the pictures. Where the sample is
too small to tell, the gate is passed with a warning. Where the spread is not known (a baseline without it, an
embedding), the figure alone decides.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from xml.etree import ElementTree

from edgecnn.check.measured import Figures, Measured
from edgecnn.errors import InputError, RecipeError
from edgecnn.metrics.redraw import interval
from edgecnn.recipe import CheckSection

UNSLIMMED = "unslimmed"  # FP32 before slimming, among the precisions
COUNTS = {
    "switches",
    "hits",
    "misses",
    "false",
    "missed_warnings",
    "false_warnings",
}  # no share, and for most of them less is better: never a gate
HEADLINES = (
    "AP",
    "AP50",
    "HOTA",
    "MOTA",
    "IDF1",
    "ttc_accuracy",
    "warned_in_time",
    "quiet",
    "top1",
    "top5",
    "cosine",
    "nearest",
)  # held against a baseline


@dataclass(frozen=True)
class Gate:
    """One figure against one limit."""

    kind: Literal["least", "drop", "slim", "baseline"]
    metric: str
    precision: str
    value: float  # the figure, or for the others what was lost
    limit: float
    low: float = math.nan  # between `low` and `high` the loss lies at 95 %; nan = not known
    high: float = math.nan
    few: bool = False  # there is a sample, and it is too small for `low` and `high`

    @property
    def verdict(self) -> Literal["ok", "unsure", "missed"]:
        """nan (nothing to measure it on) passes no gate."""
        if self.kind == "least":
            return "ok" if self.value >= self.limit else "missed"
        if not self.value <= self.limit:
            return "unsure" if self.few or self.low <= 0 else "missed"
        blind = self.few or self.value - self.low > self.limit  # a loss of the limit's size would not be seen
        return "unsure" if blind and self.limit > 0 else "ok"

    @property
    def ok(self) -> bool:
        return self.verdict != "missed"

    def __str__(self) -> str:
        match self.kind:
            case "least":
                return f"{self.metric} {self.value:.4f} ({self.precision}), at least {self.limit:g}"
            case "drop" | "slim":
                by = self.precision if self.kind == "drop" else "slimming"
                return f"{self.metric} loses {self.value:.4f}{self._between} by {by}, at most {self.limit:g}"
            case _:
                return (
                    f"{self.metric} lost {self.value:.4f}{self._between} against the baseline, at most {self.limit:g}"
                )

    @property
    def _between(self) -> str:
        return (
            "" if math.isnan(self.low) else f" ({_number(self.metric, self.low)} to {_number(self.metric, self.high)})"
        )


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

    @property
    def unsure(self) -> tuple[Gate, ...]:
        """Gates that the sample is too small for."""
        return tuple(gate for gate in self.gates if gate.verdict == "unsure")

    def json(self) -> dict[str, Any]:
        gates = [{**vars(g), "verdict": g.verdict, "ok": g.ok, "text": str(g)} for g in self.gates]
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
            elif gate.verdict == "unsure":
                ElementTree.SubElement(case, "system-out").text = f"{gate}: too few pictures to tell"
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
            verdict = max((_VERDICTS[g.verdict] for g in gates), default=(0, ""))[1]
            limits = ", ".join(f"{_SIGNS[g.kind]} {g.limit:g}{_interval(g)}" for g in gates)
            delta = [_number(metric, values[-1] - values[0], "+")] if both else []
            rows.append((metric, *(_number(metric, v) for v in values), *delta, limits, verdict))
        return rows

    def markdown(self, notes: Sequence[str] = ()) -> str:
        """For a pull request: the verdict, notes, then the figures that gates hold, then all of them."""
        missed = [gate for gate in self.gates if not gate.ok]
        head = f"{len(missed)} of {len(self.gates)} gates missed" if missed else f"{len(self.gates)} gates passed"
        header, *rows = self.table()
        held = [row for row in rows if row[-1]]
        lines = [f"### edgecnn check {self.bundle}: {head}", "", f"{self.samples} pictures.", ""]
        lines += [f"- {gate}: missed" for gate in missed]
        lines += [f"- {gate}: too few pictures to tell" for gate in self.unsure]
        lines += [f"- {note}" for note in notes]
        lines += ["", *_grid(header, held), "", "<details><summary>All figures</summary>", ""]
        return "\n".join([*lines, *_grid(header, rows), "", "</details>", ""])


_VERDICTS = {"ok": (1, "ok"), "unsure": (2, "unsure"), "missed": (3, "MISSED")}
_SIGNS = {"least": "≥", "drop": "drop ≤", "slim": "slimming ≤", "baseline": "loss ≤"}


def _interval(gate: Gate) -> str:
    return "" if math.isnan(gate.low) else f" [{_number(gate.metric, gate.low)}, {_number(gate.metric, gate.high)}]"


def _grid(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ("---",) * len(header), *rows)]


def _number(metric: str, value: float, sign: str = "") -> str:
    digits = 0 if metric in COUNTS else 4
    return "–" if math.isnan(value) else f"{round(value, digits) + 0.0:{sign}.{digits}f}"  # + 0.0: no "-0.0000"


def judge(found: Measured, section: CheckSection, baseline: Measured | None = None) -> list[Gate]:
    """The gates of a `check` section, applied. The last precision is what ships, "fp32" is what it came from, and
    "unslimmed", where it was measured, what that came from.

    Raises RecipeError for a metric that was not measured, InputError for a baseline of another sample.
    """
    figures = found.figures
    shipped, whole = list(figures)[-1], "fp32"
    now = figures[shipped]
    gates = []
    for metric, least in section.gates.items():
        gates.append(Gate("least", metric, shipped, _figure(now, metric, "gates"), least))
    pairs: list[tuple[Literal["drop", "slim"], str, str, str]] = [
        ("drop", "max_drop", whole, shipped),
        ("slim", "max_slim_drop", UNSLIMMED, whole),
    ]
    for kind, key, before, after in pairs:
        if before != after and before in figures:
            for metric, most in getattr(section, key).items():
                lost = _figure(figures[before], metric, key) - figures[after][metric]
                spread = _spread(found, found, before, after, metric, lost)
                gates.append(Gate(kind, metric, after, lost, most, *spread))
    if baseline and baseline.truth and found.truth and baseline.truth != found.truth:
        raise InputError(
            f"the baseline was measured on other pictures ({baseline.samples}, now {found.samples}) or other truth",
            wanted="the same `check.data`, or none",
            do="If the data was changed on purpose, run `edgecnn check BUNDLE --update --reason ...`",
        )
    earlier = baseline.figures.get(shipped, {}) if baseline else {}
    for metric in HEADLINES:
        if baseline and metric in earlier and metric in now:
            lost = earlier[metric] - now[metric]
            spread = _spread(baseline, found, shipped, shipped, metric, lost)
            gates.append(Gate("baseline", metric, shipped, lost, section.baseline_drop, *spread))
    return gates


def _spread(
    earlier: Measured, now: Measured, before: str, after: str, metric: str, lost: float
) -> tuple[float, float, bool]:
    """`low`, `high` and `few` of a gate."""
    rows = earlier.redrawn.get(before, {}).get(metric), now.redrawn.get(after, {}).get(metric)
    if rows[0] is None or rows[1] is None or not math.isfinite(lost):
        return math.nan, math.nan, False
    low, high = interval(lost, rows[0], rows[1], now.units)
    return low, high, math.isnan(low)


def _figure(figures: Figures, metric: str, key: str) -> float:
    known = [name for name in figures if name not in COUNTS]
    if metric not in known:
        near = difflib.get_close_matches(metric, known, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
        raise RecipeError(f"check.{key} names '{metric}', which is not measured here; {hint}")
    return figures[metric]
