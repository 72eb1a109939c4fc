"""Plots as inline SVG, drawn by hand: they take the page's colours, so light and dark both read well.

Numbers are user units of the viewBox, about CSS pixels on a wide screen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH = 720


def svg(height: float, body: Sequence[str], title: str) -> str:
    """The picture: `body` in a viewBox WIDTH wide, named for who can't see it."""
    inner = "".join(body)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{inner}</svg>"
    )


def rect(x: float, y: float, width: float, height: float, kind: str, tip: str = "") -> str:
    inside = f"<title>{escape(tip)}</title>" if tip else ""
    place = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.8):.1f}" height="{height:.1f}"'
    return f'<rect class="{escape(kind)}" {place}>{inside}</rect>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def ticks(top: float, about: int = 5) -> list[float]:
    """Round numbers from 0 to at least `top`: steps of 1, 2 or 5 times a power of ten."""
    if top <= 0 or not math.isfinite(top):
        return [0.0, 1.0]
    rough = top / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    return [i * step for i in range(math.ceil(top / step - 1e-9) + 1)]


def bars(rows: Sequence[tuple[str, Mapping[str, Mapping[str, float]]]], kinds: Sequence[str], title: str) -> str:
    """A group of bars a row: p50 as the bar, p95 and p99 as whiskers, one bar a kind. Values in ms.

    rows: (label, kind -> {"p50", "p95", "p99"}); a kind that a row lacks leaves its place empty.
    """
    left, right, bar, gap = 130.0, 70.0, 13.0, 12.0
    group = bar * len(kinds) + gap
    marks = ticks(max((figures["p99"] for _, group_ in rows for figures in group_.values()), default=1.0))
    scale = (WIDTH - left - right) / marks[-1]
    height = group * len(rows) + 34
    body = []
    for mark in marks:
        x = left + mark * scale
        body += [line(x, 0, x, height - 24, "grid"), text(x, height - 8, f"{mark:g}", "axis", "middle")]
    body.append(text(WIDTH - right + 24, height - 8, "ms", "axis"))
    for number, (label, figures_of) in enumerate(rows):
        top = number * group + gap / 2
        body.append(text(left - 8, top + bar * len(kinds) / 2 + 4, label, "", "end"))
        for place, kind in enumerate(kinds):
            figures = figures_of.get(kind)
            if figures is None:
                continue
            y, p50, p95, p99 = top + place * bar, figures["p50"], figures["p95"], figures["p99"]
            tip = f"{label} {kind}: p50 {p50:.2f} ms, p95 {p95:.2f} ms, p99 {p99:.2f} ms"
            middle = y + bar / 2 - 1
            body += [
                rect(left, y, p50 * scale, bar - 2, f"s{place}", tip),
                line(left + p50 * scale, middle, left + p99 * scale, middle, "whisker"),
                line(left + p95 * scale, middle - 4, left + p95 * scale, middle + 4, "whisker"),
                line(left + p99 * scale, middle - 4, left + p99 * scale, middle + 4, "whisker"),
                text(left + max(p99, p50) * scale + 6, y + bar - 3, f"{p50:.2f}", "axis"),
            ]
    return svg(height, body, title)


def curves(rows: Mapping[str, Sequence[float]], title: str, unit: str = "epoch") -> str:
    """A strip a row of figures, one figure a unit, each against 0 to its own largest; the axis counts from 1."""
    left, right, height, gap = 110.0, 20.0, 84.0, 16.0
    count = max(map(len, rows.values()))
    step = (WIDTH - left - right) / max(count - 1, 1)
    body, top = [], 6.0
    for label, values in rows.items():
        marks = ticks(max(values, default=0.0), 3)
        low = top + height
        body.append(text(left - 8, top + 12, label, "", "end"))
        for mark in marks[:-1]:
            y = low - mark / marks[-1] * height
            body += [line(left, y, WIDTH - right, y, "grid"), text(left - 8, y + 4, f"{mark:g}", "axis", "end")]
        places = (f"{left + i * step:.1f} {low - value / marks[-1] * height:.1f}" for i, value in enumerate(values))
        body.append(f'<path class="curve" d="M{"L".join(places)}"/>')
        body.append(text(WIDTH - right, low - values[-1] / marks[-1] * height - 6, f"{values[-1]:.4g}", "axis", "end"))
        top = low + gap
    for mark in ticks(count, 8):
        if 1 <= mark <= count and mark == int(mark):
            body.append(text(left + (mark - 1) * step, top + 2, f"{mark:g}", "axis", "middle"))
    body.append(text(left - 8, top + 2, unit, "axis", "end"))
    return svg(top + 8, body, title)


def scatter(rows: Mapping[str, Sequence[tuple[float, float]]], across: str, up: str, title: str) -> str:
    """Points (x, y) of several kinds, colours s0, s1, ... in the order of the rows; both axes begin at 0."""
    left, right, height = 60.0, 20.0, 260.0
    points = [point for row in rows.values() for point in row]
    xs, ys = (ticks(max((point[axis] for point in points), default=0.0)) for axis in (0, 1))
    wide = (WIDTH - left - right) / xs[-1]
    high = (height - 20) / ys[-1]
    body = []
    for mark in ys:
        y = height - mark * high
        body += [line(left, y, WIDTH - right, y, "grid"), text(left - 8, y + 4, f"{mark:g}", "axis", "end")]
    body += [text(left + mark * wide, height + 16, f"{mark:g}", "axis", "middle") for mark in xs]
    body += [text(left, 12, up, "axis"), text(WIDTH - right, height + 32, across, "axis", "end")]
    for kind, (name, row) in enumerate(rows.items()):
        for x, y in row:
            place = f'cx="{left + x * wide:.1f}" cy="{height - y * high:.1f}"'
            tip = escape(f"{name}: {across} {x:.4g}, {up} {y:.4g}")
            body.append(f'<circle class="s{kind}" {place} r="5"><title>{tip}</title></circle>')
    return svg(height + 38, body, title)


def frontier(
    rows: Mapping[str, Sequence[tuple[float, float]]], level: tuple[float, str], across: str, up: str, title: str
) -> str:
    """Points (per cent, value) of several kinds, as `scatter`, but values from the least to the largest, a line through
    the best that no point with fewer per cent reaches, and a named level across."""
    left, right, height = 70.0, 20.0, 260.0
    points = sorted((point for row in rows.values() for point in row), key=lambda point: (point[0], -point[1]))
    values = [*(y for _, y in points), level[0]]
    step = ticks(max(max(values) - min(values), 1e-4))[1]
    low, count = math.floor(min(values) / step), math.ceil(max(values) / step - math.floor(min(values) / step)) or 1
    wide, high = (WIDTH - left - right) / 100, (height - 30) / count

    def place(x: float, y: float) -> tuple[float, float]:
        return left + x * wide, height - (y / step - low) * high

    body = []
    for i in range(count + 1):
        value = (low + i) * step
        y = place(0, value)[1]
        body += [line(left, y, WIDTH - right, y, "grid"), text(left - 8, y + 4, f"{value:.4g}", "axis", "end")]
    body += [text(place(x, 0)[0], height + 16, str(x), "axis", "middle") for x in range(0, 101, 20)]
    body += [text(left, 12, up, "axis"), text(WIDTH - right, height + 32, across, "axis", "end")]
    y = place(0, level[0])[1]
    body += [line(left, y, WIDTH - right, y, "level"), text(WIDTH - right, y - 4, level[1], "axis", "end")]
    best: list[tuple[float, float]] = []
    for point in points:
        if not best or point[1] > best[-1][1]:
            best.append(point)
    body.append(f'<path class="curve" d="M{"L".join("{:.1f} {:.1f}".format(*place(*point)) for point in best)}"/>')
    for kind, (name, row) in enumerate(rows.items()):
        for point in row:
            cx, cy = place(*point)
            tip = escape(f"{name}: {point[0]:.1f} {across}, {up} {point[1]:.4g}")
            body.append(f'<circle class="s{kind}" cx="{cx:.1f}" cy="{cy:.1f}" r="5"><title>{tip}</title></circle>')
    return svg(height + 38, body, title)


def histograms(rows: Mapping[str, tuple[Sequence[int], float, float]], title: str) -> str:
    """Small plots, two beside one another: name → (counts in equal bins from 0, the end of the last, a value to mark).

    Counts are drawn on a logarithmic scale: ReLU's zeros would hide all else.
    """
    wide, high, gap, letters = 340.0, 70.0, 44.0, 50
    body = []
    for number, (name, (counts, reach, mark)) in enumerate(rows.items()):
        left, top = number % 2 * (WIDTH - wide), number // 2 * (high + gap) + 18
        low, most = top + high, math.log1p(max(counts, default=0)) or 1.0
        shown = name if len(name) <= letters else f"…{name[1 - letters :]}"
        body.append(text(left, top - 6, shown, "axis"))
        step = wide / max(len(counts), 1)
        for place, count in enumerate(counts):
            if count:
                tall = math.log1p(count) / most * high
                tip = f"{place * reach / len(counts):.4g} to {(place + 1) * reach / len(counts):.4g}: {count}"
                body.append(rect(left + place * step, low - tall, step - 0.5, tall, "s1", tip))
        x = left + min(mark / reach, 1.0) * wide if reach else left
        end = "end" if x > left + wide / 2 else "start"
        body += [line(left, low, left + wide, low, "grid"), line(x, top, x, low + 4, "level")]
        body.append(text(x, low + 15, f"{mark:.4g}", "axis", end))
    return svg(-(-len(rows) // 2) * (high + gap), body, title)
