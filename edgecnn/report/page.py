"""The page itself: which section follows which. One style sheet, no scripts, nothing loaded from anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgecnn.bundle import Bundle
from edgecnn.report.accuracy import accuracy
from edgecnn.report.drive import drive
from edgecnn.report.html import document
from edgecnn.report.latency import latency
from edgecnn.report.making import facts, learning, search, stages
from edgecnn.report.provenance import versions
from edgecnn.report.runs import Run
from edgecnn.report.top import cards, header

Json = Mapping[str, Any]


def page(bundle: Bundle, runs: Sequence[Run], bench: Json, check: Json, inside: str = "") -> str:
    """The whole document. Sections without data are left out; `inside`: further ones, of the network."""
    body = [
        header(bundle, check),
        cards(bundle, bench, check, runs),
        *map(drive, runs),
        latency(bench),
        accuracy(check),
        inside,
        learning(bundle),
        search(bundle),
        stages(bundle),
        *(facts(name, record.facts) for name, record in bundle.stages.items()),
        versions(bundle),
    ]
    return document(f"{bundle.name} – edgecnn report", body)
