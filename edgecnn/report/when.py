"""What happened when in a run: the mode, the detector, every track by class, the time to collision, the warnings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby

from edgecnn.report.html import figure, legend
from edgecnn.report.runs import Life, Run, Shot
from edgecnn.report.timeline import Span, Timeline

TTC_TOP_S = 10.0  # the plot's upper edge: a longer time to collision is no news
LONGEST = 40  # tracks drawn
REASONS = {  # why the detector ran
    "stride": "every k-th frame",
    "worth": "parts worth a look",
    "unsure": "unsure of a track",
    "closing": "closing in",
    "cut": "cut, or first frame",
}
MODES = {"NORMAL": "mode-normal", "REDUCED": "mode-reduced", "WARN-OFF": "mode-off", "STOP": "mode-stop"}
WARNINGS = {
    "fcw": "collision",
    "pedestrian": "pedestrian",
    "headway": "headway",
    "ldw_left": "lane departure, left,",
    "ldw_right": "lane departure, right,",
}


def timeline(run: Run) -> str:
    """The figure of a run; "" where no frame was written down."""
    shots = run.shots
    if not shots:
        return ""
    seconds = max(shots[-1].t_s, 1e-3)
    step = seconds / max(1, len(shots) - 1)
    plot = Timeline(seconds)
    if modes := _stretches(shots, lambda shot: shot.mode, step):
        plot.band(
            "mode", [(a, b, MODES.get(mode, "mode-stop"), f"{mode}: {a:.1f} to {b:.1f} s") for a, b, mode in modes]
        )
    if trouble := [(s.t_s, "warn", f"frame {s.index}: {s.trouble}") for s in shots if s.trouble]:
        plot.marks("bad frames", trouble, step)
    looks = [(s.t_s, _why(s.detector), f"frame {s.index}: {s.detector}") for s in shots if s.detector]
    plot.marks("detector", looks, step)
    colours = _colours(run)
    drawn = sorted(run.lives.values(), key=lambda life: (not life.warned, life.first_s - life.last_s))[:LONGEST]
    for label, kind in colours.items():
        if rows := [_life(life, kind, step) for life in drawn if life.label == label]:
            plot.spans(label.replace("_", " "), rows)
    level = (float(run.summary["thresholds"]["fcw_on_s"]), "warning")
    plot.curve("TTC, s", [(s.t_s, s.ttc_s) for s in shots], TTC_TOP_S, level)
    for name, words in _warned(shots).items():
        spans = _stretches(shots, lambda shot, name=name: "on" if name in shot.warnings else "", step)  # type: ignore[misc]
        plot.band(name.replace("_", " "), [(a, b, "warn", f"{words} {a:.2f} to {b:.2f} s") for a, b, _ in spans])
    plot.cuts([s.t_s for s in shots if s.cut])
    caption = (
        "TTC: the shortest time to collision in the path, up to 10 s. Red: a warning, by kind and on its track. "
        "Dotted: hard cuts, where tracks are forgotten."
    )
    if len(run.lives) > LONGEST:
        caption += f" Of {len(run.lives)} tracks those with a warning and the longest are drawn, {LONGEST} in all."
    keys = [(f"why-{why}", words) for why, words in REASONS.items()]
    keys += [(kind, f"track of a {label.replace('_', ' ')}") for label, kind in colours.items()]
    keys += [(MODES[mode], mode) for mode in dict.fromkeys(s.mode for s in shots) if mode in MODES]
    return figure(f"{plot.svg(f'Timeline of {run.source}')}{legend(keys)}", caption)


def _stretches(shots: Iterable[Shot], of: Callable[[Shot], str], step: float) -> list[tuple[float, float, str]]:
    """(from, to, value) of the neighbours that have the same; without those that have none."""
    found = []
    for value, group in groupby(shots, of):
        rows = list(group)
        if value:
            found.append((rows[0].t_s, rows[-1].t_s + step, value))
    return found


def _why(reason: str) -> str:
    return f"why-{reason}" if reason in REASONS else "why-cut"


def _warned(shots: Iterable[Shot]) -> dict[str, str]:
    """Name -> words of the warnings that were on, in the order of WARNINGS."""
    seen = dict.fromkeys(name for shot in shots for name in shot.warnings)
    return {name: WARNINGS.get(name, name) for name in sorted(seen, key=[*WARNINGS, *seen].index)}


def _colours(run: Run) -> dict[str, str]:
    """Label -> class of its tracks' bars."""
    labels = sorted({life.label for life in run.lives.values()})
    return {label: f"t{i % 6}" for i, label in enumerate(labels)}


def _life(life: Life, kind: str, step: float) -> tuple[Span, str, list[Span]]:
    tip = f"{life.label} {life.id}: {life.first_s:.2f} to {life.last_s:.2f} s"
    over = [(a, b + step, "warn", f"{life.label} {life.id}: warned of, {a:.2f} to {b:.2f} s") for a, b in life.warned]
    return (life.first_s, life.last_s + step, kind, tip), str(life.id), over
