"""The section of one run: pictures, what happened when, how far it could be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgecnn.report.html import number, pairs, section, table
from edgecnn.report.inputs import Still
from edgecnn.report.runs import Run
from edgecnn.report.when import WARNINGS, timeline

PERCENTILES = ("p50", "p95", "p99")
EVENTS = 100  # rows of the table
Json = Mapping[str, Any]


def drive(run: Run) -> str:
    """The section of a run."""
    s = run.summary
    reasons = ", ".join(f"{count} {why}" for why, count in s["reasons"].items())
    facts = [
        ("frames", f"{s['frames']}" + (f", {s['dropped']} dropped" if s["dropped"] else "")),
        ("frames a second", f"{s['fps']:.1f}"),
        ("file that ran", s["role"]),
        ("detector ran in", f"{s['detector_frames']} frames ({reasons})"),
        ("multiply-adds saved", f"{100 * s['macs_saved']:.0f} %"),
        ("tracks", s["tracks"]),
        ("hard cuts", s["cuts"]),
        *_trust(s),
        *([("warning", s["warning"])] if s["warning"] else []),
    ]
    stills = "".join(_still(run, still) for still in run.stills)
    left = f"<p>{run.left_out} more pictures are in the run's folder: the page has no room.</p>" if run.left_out else ""
    times = table(
        ["stage", "p50 ms", "p95 ms", "p99 ms"],
        [[name, *(f"{row[p]:.2f}" for p in PERCENTILES)] for name, row in s["stages"].items()],
        "Time a stage of a frame",
    )
    return section(
        f"Run: {run.source}",
        f'<div class="stills">{stills}</div>{left}{timeline(run)}{pairs(facts)}{_events(s["events"])}'
        f"<details><summary>Time a stage</summary>{times}</details>",
    )


def _trust(s: Json) -> list[tuple[str, str]]:
    """How far the run could be trusted: the modes, and what was counted against it. Older runs don't tell."""
    seconds = [f"{value:.1f} s {mode}" for mode, value in s.get("mode_seconds", {}).items() if value]
    words = (
        ("late", "past the deadline"),
        ("stale", "too old to warn on"),
        ("invalid", "without a valid answer"),
        ("odd_times", "with odd time stamps"),
    )
    against = [f"{s[key]} {text}" for key, text in words if s.get(key)]
    faults = [f"{name} in {frames} frames" for name, frames in s.get("faults", {}).items()]
    age = s["stages"].get("age")
    rows = (
        ("modes", ", ".join(seconds)),
        ("frames counted against it", ", ".join(against)),
        ("camera faults", ", ".join(faults)),
        ("age of frames", f"p50 {age['p50']:.0f} ms, p99 {age['p99']:.0f} ms" if age else ""),
        ("opened again", f"{s['reconnects']} times" if s.get("reconnects") else ""),
    )
    return [row for row in rows if row[1]]


def _still(run: Run, still: Still) -> str:
    words = f"frame {still.frame}, {still.tracks} tracks"
    warned = ", <b>warning</b>" if still.warned else ""
    alt = f"{words}{', with a warning' if still.warned else ''}, boxes and distances drawn in"
    return f'<figure><img src="{run.picture(still)}" alt="{alt}"><figcaption>{words}{warned}</figcaption></figure>'


def _events(events: Sequence[Json]) -> str:
    if not events:
        return "<p>No warning was raised.</p>"
    rows = [
        [f"{e['t_ns'] / 1e9:.2f}", _warning(e["kind"]), e["track"] or "", number(e["ttc_s"]), number(e["distance_m"])]
        for e in events[:EVENTS]
    ]
    more = f"<p>{len(events) - EVENTS} later ones are in summary.json.</p>" if len(events) > EVENTS else ""
    return f"<h3>Events</h3>{table(['second', 'event', 'track', 'TTC, s', 'distance, m'], rows, 'Events')}{more}"


def _warning(kind: str) -> str:
    """`fcw_on` in words."""
    name, _, what = kind.rpartition("_")
    return f"{WARNINGS.get(name, name)} {'warning' if what == 'on' else 'ends'}"
