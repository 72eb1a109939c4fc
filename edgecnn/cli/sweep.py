"""Sweeps over the settings of recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecnn.cli.common import Json, LocalWorkers, Scheduler, app, columns, crew, show
from edgecnn.errors import EdgecnnError


@app.command()
def sweep(
    recipes: Annotated[list[Path], typer.Argument(metavar="RECIPE...", help="YAML files: one recipe or several.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A folder a combination; results.json and results.csv.")],
    sets: Annotated[
        list[str],
        typer.Option(
            "--set", metavar="KEY=A,B", help="Values to try: train.lr=0.01,0.02 or seed=0,1,2; may be repeated."
        ),
    ],
    check: Annotated[bool, typer.Option("--check/--no-check", help="Measure accuracy, as `edgecnn check`.")] = True,
    workers: LocalWorkers = 0,
    scheduler: Scheduler = "",
    as_json: Json = False,
) -> None:
    """Compile and measure every combination of settings.

    What an earlier run of the same command finished is kept. Where cells fail the others go on, and the exit code is
    that of the first one's error.
    """
    from edgecnn.overrides import parse_all
    from edgecnn.sweep import sweep as run_sweep

    report = run_sweep(recipes, parse_all(sets), out, check=check, workers=crew(workers, scheduler))
    text = [columns(report.table())]
    settings = report.settings()
    if settings and len(settings) < len(report.cells):
        text.append("mean over the seeds")
    text.append(columns(report.judged()))
    show(as_json, (report.json(), "\n\n".join(text)))
    if report.failed:
        cell, result = report.failed[0]
        error = EdgecnnError(
            f"{len(report.failed)} of {len(report.cells)} cells failed; {cell.name}: {result['error']}"
        )
        error.exit_code = int(result["exit_code"])
        raise error
