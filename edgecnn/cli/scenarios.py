"""Scenario tests of the warnings."""

from __future__ import annotations

from typing import Annotated

import typer

from edgecnn.cli.common import BundlePath, Json, LocalWorkers, Precision, Scheduler, app, columns, crew, show
from edgecnn.errors import GateFailed


@app.command()
def scenarios(
    bundle: BundlePath,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A shipped scenario or a .yaml file; may be repeated.")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Of each scenario, with seeds one after the other.")] = 7,
    seed: Annotated[int, typer.Option(min=0, help="Of the first trial.")] = 9600,
    precision: Annotated[Precision, typer.Option(help="What is loaded.")] = Precision.int8,
    workers: LocalWorkers = 0,
    scheduler: Scheduler = "",
    as_json: Json = False,
) -> None:
    """Play scenario tests and judge the warnings."""
    from edgecnn.bundle import Bundle
    from edgecnn.check.scenarios import judge_scenarios
    from edgecnn.data.scenario import find_scenario, names

    chosen = [find_scenario(name) for name in only or names()]
    report = judge_scenarios(
        Bundle.read(bundle),
        chosen,
        trials=trials,
        seed=seed,
        precision=precision.value,
        workers=crew(workers, scheduler),
    )
    show(as_json, (report.json(), columns(report.table())))
    if missed := [result.scenario.name for result in report.results if not result.ok]:
        raise GateFailed(f"{len(missed)} of {len(chosen)} scenarios failed: {', '.join(missed)}")
