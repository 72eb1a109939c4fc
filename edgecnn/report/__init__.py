"""One page that tells how a bundle came about, what it costs, and what it saw: report.html, with nothing outside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecnn.bundle import Bundle, atomic
from edgecnn.errors import InputError
from edgecnn.report.bench import measured
from edgecnn.report.inside import inside
from edgecnn.report.page import page
from edgecnn.report.ranges import ranges
from edgecnn.report.runs import Run
from edgecnn.report.sense import sensed

__all__ = ["write_report"]


def write_report(
    bundle: Bundle,
    out: Path,
    *,
    runs: Sequence[Path] = (),
    bench: Path | None = None,
    history: Sequence[Mapping[str, Any]] = (),
    check: Path | None = None,
) -> Path:
    """Write `out` atomically and return it. `bench` and `check` are what those commands printed with --json,
    `history` the lines that `edgecnn bench --history` keeps.

    What `edgecnn sense` and `edgecnn explain` left in the bundle is in it too. Raises InputError where a run's folder
    or a JSON file is missing or damaged.
    """
    found = sensed(bundle) + inside(bundle) + ranges(bundle)
    times = _json(bench)
    more = measured(times, history)
    text = page(bundle, [Run.read(folder) for folder in runs], times, _json(check), more + found)
    with atomic(out) as temporary:
        temporary.write_text(text, "utf-8")
    return out


def _json(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable JSON ({error})", wanted="what `--json` printed") from error
    if not isinstance(data, dict):
        raise InputError(f"{path} holds {type(data).__name__}", wanted="the JSON object that `--json` printed")
    return data
