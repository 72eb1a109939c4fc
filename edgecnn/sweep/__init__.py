"""Sweeps: recipes × values of their keys, each combination compiled and measured, here or by workers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from edgecnn import __version__
from edgecnn.bundle import atomic
from edgecnn.progress import bar
from edgecnn.sweep.cell import MARK, Task, finished, run_cell
from edgecnn.sweep.plan import Cell, plan
from edgecnn.sweep.table import SweepReport
from edgecnn.workers import HERE, Lost, Workers, spread

__all__ = ["Cell", "SweepReport", "plan", "sweep"]


def sweep(
    recipes: Sequence[Path],
    sets: Mapping[str, Sequence[Any]],
    out: Path,
    *,
    check: bool = True,
    workers: Workers = HERE,
) -> SweepReport:
    """Compile every combination into a folder of its own under `out`, and measure it; what is done stays done.

    results.json and results.csv in `out` hold the table. A cell that fails stops no other: look at `failed`.
    Raises RecipeError before anything is run where a key or a value is wrong, and as `spread` about workers.
    """
    cells = plan(recipes, sets)
    out = out.resolve()
    with atomic(out / MARK) as temporary:
        temporary.write_text(json.dumps({"edgecnn": __version__, "cells": [cell.name for cell in cells]}), "utf-8")
    tasks = [Task(cell.text, out / cell.name, check) for cell in cells]
    results = [finished(task) for task in tasks]
    left = [place for place, result in enumerate(results) if result is None]
    with (
        bar("sweep", len(cells)) as advance,
        closing(spread(run_cell, [tasks[place] for place in left], workers)) as made,
    ):
        advance(len(cells) - len(left))
        if left:
            for k, result in made:
                place = left[k]
                results[place] = {"error": result.why, "exit_code": 1} if isinstance(result, Lost) else result
                advance(1, cells[place].name)
    report = SweepReport(cells, [result or {} for result in results], len(cells) - len(left))
    report.write(out)
    return report
