"""One page that tells how a bundle came about, what it costs, and what it saw: report.html, with nothing outside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecnn.bundle import Bundle, atomic
from edgecnn.report.bench import measured
from edgecnn.report.inputs import printed
from edgecnn.report.inside import inside
from edgecnn.report.page import page
from edgecnn.report.ranges import ranges
from edgecnn.report.runs import Run, fitted
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
    seen = fitted([Run.read(folder) for folder in runs])
    times = printed(bench, "bench")
    text = page(bundle, seen, times, printed(check, "check"), measured(times, history) + found)
    with atomic(out) as temporary:
        temporary.write_text(text, "utf-8")
    return out
