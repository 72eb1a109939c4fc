"""Warnings missed and false: scenario tests as two more figures of every network, each trial a unit of its own.

warned_in_time   share of the trials in which a warning was due and came within its window
quiet            share of all trials without a false alarm
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgecnn.backends import Backend
from edgecnn.bundle import Bundle
from edgecnn.check.measured import Measured
from edgecnn.check.scenarios import Trial, judge_trial, play
from edgecnn.data.scenario import Scenario, find_scenario
from edgecnn.data.simulator import Drive
from edgecnn.errors import RecipeError
from edgecnn.metrics.redraw import F64, FEWEST, draws
from edgecnn.progress import bar
from edgecnn.recipe import ScenarioTests
from edgecnn.run import RunSettings


def with_warnings(
    found: Measured, bundle: Bundle, backends: Mapping[str, Backend], tests: ScenarioTests, settings: RunSettings
) -> Measured:
    """`found`, and what each backend's loop warned of in the scenarios.

    Raises RecipeError for a network that is no detector, InputError for an unknown scenario.
    """
    if bundle.require_model().task != "detect":
        raise RecipeError("check.scenarios: warnings need a detector", do="Leave check.scenarios out of the recipe")
    scenarios = [find_scenario(name) for name in tests.names]
    seeds = range(tests.seed, tests.seed + tests.trials)
    told: dict[str, list[tuple[Scenario, Trial]]] = {p: [] for p in backends}
    with bar("check scenarios", len(scenarios) * len(seeds) * len(backends)) as advance:
        for scenario in scenarios:
            for seed in seeds:
                for p, backend in backends.items():
                    alerts = play(bundle, backend, settings, Drive(seed, scenario=scenario))
                    told[p].append((scenario, judge_trial(seed, alerts, scenario.expect)))
                    advance(1, scenario.name)
    figures, redrawn = dict(found.figures), dict(found.redrawn)
    for p, rows in told.items():
        figures[p] = {**figures[p], **warning_figures(rows)}
        redrawn[p] = {**redrawn.get(p, {}), **_redrawn(rows)}
    digest = hashlib.sha256(found.truth.encode())
    for scenario in scenarios:
        digest.update(f"{scenario.model_dump_json()} {seeds}".encode())
    return replace(found, figures=figures, redrawn=redrawn, truth=digest.hexdigest())


def warning_figures(rows: list[tuple[Scenario, Trial]]) -> dict[str, float]:
    """nan for the share in time where no scenario has a warning to come."""
    due, in_time, quiet = _columns(rows)
    return {
        "warned_in_time": float(in_time.sum() / due.sum()) if due.any() else float("nan"),
        "quiet": float(quiet.mean()),
        "missed_warnings": float(sum(trial.verdict == "none" for _, trial in rows)),
        "false_warnings": float(sum(len(trial.false_alarms) for _, trial in rows)),
    }


def _columns(rows: list[tuple[Scenario, Trial]]) -> tuple[F64, F64, F64]:
    """(trials,) each 0 or 1: a warning was due, it came in time, there was no false alarm."""
    due = [scenario.expect.window is not None for scenario, _ in rows]
    in_time = [trial.verdict == "in time" for _, trial in rows]
    quiet = [not trial.false_alarms for _, trial in rows]
    return np.array(due, float), np.array(in_time, float), np.array(quiet, float)


def _redrawn(rows: list[tuple[Scenario, Trial]]) -> dict[str, F64]:
    """Each figure with the trials drawn anew; nan where they are too few to tell."""
    due, in_time, quiet = _columns(rows)
    weight = draws(len(rows))
    if len(rows) < FEWEST:
        weight[:] = np.nan
    total = weight @ due
    share = np.divide(weight @ in_time, total, out=np.full(len(weight), np.nan), where=total > 0)
    return {"warned_in_time": share, "quiet": weight @ quiet / len(rows)}
