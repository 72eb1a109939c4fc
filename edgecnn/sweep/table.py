"""The table of a sweep: every cell; and the settings judged against one another, over their seeds."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

from edgecnn.bundle import atomic
from edgecnn.sweep.plan import Cell

MEASURES = ("macs", "bytes_fp32", "bytes_int8", "fp32", "int8", "seconds")
COSTS = ("macs", "bytes_int8")
Mark = Literal["best", "pareto", ""]


@dataclass(frozen=True)
class Setting:
    """Cells that differ in their seeds only: the mean of each measure."""

    recipe: str
    values: Mapping[str, Any]  # without the seeds
    seeds: int  # cells that succeeded
    means: Mapping[str, float]  # of MEASURES
    spread: float | None  # standard deviation of the INT8 accuracy over the seeds; None: fewer than two
    mark: Mark = ""

    def beats(self, other: Setting) -> bool:
        """No worse in accuracy and in both costs, and better in one of them."""
        ours, theirs = self._rank(), other._rank()
        return ours != theirs and all(a >= b for a, b in zip(ours, theirs, strict=True))

    def _rank(self) -> tuple[float, ...]:
        return (self.means["int8"], *(-self.means[cost] for cost in COSTS))


@dataclass(frozen=True)
class SweepReport:
    """What `edgecnn sweep` found."""

    cells: Sequence[Cell]
    results: Sequence[Mapping[str, Any]]  # of `run_cell`, one a cell
    kept: int  # cells that an earlier run had finished

    @property
    def failed(self) -> list[tuple[Cell, Mapping[str, Any]]]:
        return [(c, r) for c, r in zip(self.cells, self.results, strict=True) if "error" in r]

    def settings(self) -> list[Setting]:
        """Marked `best` where INT8 accuracy is highest (of equals, the cheapest), `pareto` where no other setting beats
        it in accuracy, MACs and bytes taken together. Without accuracy nothing is marked."""
        groups: dict[str, list[tuple[Cell, Mapping[str, Any]]]] = {}
        for cell, result in zip(self.cells, self.results, strict=True):
            if "error" not in result:
                groups.setdefault(json.dumps([cell.recipe, _plain(cell)], sort_keys=True), []).append((cell, result))
        found = []
        for group in groups.values():
            cell = group[0][0]
            means = {m: mean(r[m] for _, r in group) for m in MEASURES if all(r.get(m) is not None for _, r in group)}
            accuracies = [r["int8"] for _, r in group] if "int8" in means else []
            spread = stdev(accuracies) if len(accuracies) > 1 else None
            found.append(Setting(cell.recipe, _plain(cell), len(group), means, spread))
        judged = [s for s in found if "int8" in s.means]
        best = max(judged, key=Setting._rank, default=None)

        def mark(setting: Setting) -> Mark:
            if setting is best:
                return "best"
            return "pareto" if setting in judged and not any(o.beats(setting) for o in judged) else ""

        return [Setting(**{**vars(setting), "mark": mark(setting)}) for setting in found]

    def table(self) -> list[tuple[str, ...]]:
        """A row a cell for a reader, the header first."""
        keys = self._keys()
        header = ("recipe", *keys, *self._titles(), "")
        rows = [
            (c.recipe, *(_told(c.values.get(k)) for k in keys), *(_shown(r, m) for m in MEASURES), r.get("error", ""))
            for c, r in zip(self.cells, self.results, strict=True)
        ]
        return [header, *rows]

    def judged(self) -> list[tuple[str, ...]]:
        """A row a setting for a reader, the header first."""
        keys = [key for key in self._keys() if not _seed(key)]
        header = ("recipe", *keys, "seeds", *self._titles(), "± (INT8)", "")
        rows = [
            (
                s.recipe,
                *(_told(s.values.get(k)) for k in keys),
                str(s.seeds),
                *(_shown(s.means, m) for m in MEASURES),
                "–" if s.spread is None else f"{s.spread:.4f}",
                s.mark,
            )
            for s in self.settings()
        ]
        return [header, *rows]

    def json(self) -> dict[str, Any]:
        cells = [
            {"cell": c.name, "recipe": c.recipe, "set": dict(c.values), **r}
            for c, r in zip(self.cells, self.results, strict=True)
        ]
        return {"kept": self.kept, "cells": cells, "settings": [vars(setting) for setting in self.settings()]}

    def csv(self) -> str:
        """A row a cell; empty where there is no figure."""
        keys, text = self._keys(), io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["cell", "recipe", *keys, *MEASURES, "error"])
        for c, r in zip(self.cells, self.results, strict=True):
            figures = ("" if r.get(m) is None else r[m] for m in MEASURES)
            writer.writerow([c.name, c.recipe, *(_told(c.values.get(k)) for k in keys), *figures, r.get("error", "")])
        return text.getvalue()

    def write(self, out: Path) -> None:
        """results.json and results.csv."""
        for name, text in (("results.json", json.dumps(self.json(), indent=1) + "\n"), ("results.csv", self.csv())):
            with atomic(out / name) as temporary:
                temporary.write_text(text, "utf-8")

    def _keys(self) -> list[str]:
        return list(self.cells[0].values)

    def _titles(self) -> tuple[str, ...]:
        metric = next((r["metric"] for r in self.results if "metric" in r), "accuracy")
        return ("MACs", "FP32 bytes", "INT8 bytes", f"{metric} FP32", f"{metric} INT8", "s")


def _seed(key: str) -> bool:
    return key.rpartition(".")[2] == "seed"


def _plain(cell: Cell) -> dict[str, Any]:
    """A cell's values without its seeds."""
    return {key: value for key, value in cell.values.items() if not _seed(key)}


def _shown(measures: Mapping[str, Any], name: str) -> str:
    """A share with four digits, seconds with one, counts whole."""
    value = measures.get(name)
    digits = {"fp32": ".4f", "int8": ".4f", "seconds": ".1f"}.get(name, ",.0f")
    return "–" if value is None else f"{value:{digits}}"


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
