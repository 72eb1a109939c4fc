"""What `bench` found, as tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgecnn.run.timing import TAIL, WORKING

if TYPE_CHECKING:
    from rich.table import Table

PERCENTILES = ("p50", "p90", "p99")


def table(result: Mapping[str, Any]) -> Table:
    """The answer of `bench` as a table for people: p50 / p90 / p99 in ms."""
    from rich.table import Table

    lanes = result["lanes"]
    size, net = "x".join(map(str, result["picture"])), "x".join(map(str, result["input"]))
    shown = Table(
        title=f"{result['name']}: {result['frames']} frames {size} of {result['source']}, input {net}, "
        f"{result['threads']} thread(s), {result['machine']['cpu']}",
        caption="ms, p50 / p90 / p99; decode has a thread of its own; "
        + "; ".join(f"{name} {row['frame_total']:.2f}x fp32" for name, row in result["ratios"].items()),
    )
    shown.add_column("stage")
    for name, lane in lanes.items():
        every = f"\nevery {lane['detect_every']} frames" if lane["detect_every"] > 1 else ""
        shown.add_column(f"{name.partition('/')[0]}{every}", justify="right")
    shown.add_row("decode", *[three(result["decode"])] * len(lanes))
    for stage in (*WORKING, "frame"):
        rows = [lane["stages"].get(stage) for lane in lanes.values()]
        if any(rows):
            shown.add_row(stage, *(three(row) if row else "" for row in rows), end_section=stage == "scene")
    shown.add_row("frame, p99.9", *(tail(lane["stages"]["frame"]) for lane in lanes.values()))
    shown.add_row("frames/s", *(f"{lane['fps']:.1f}" for lane in lanes.values()))
    shown.add_row("detector ran in", *(f"{lane['detector_frames']:.0%}" for lane in lanes.values()))
    shown.add_row("not inference", *(f"{lane['not_inference']:.0%}" for lane in lanes.values()))
    return shown


def three(row: Mapping[str, float]) -> str:
    """Percentiles of times in ms, with the digits that count."""
    return " / ".join(digits(row[p]) for p in PERCENTILES)


def tail(row: Mapping[str, float]) -> str:
    """p99.9, or why it is not told."""
    return digits(row["p999"]) if "p999" in row else f"too few frames ({row['n']} of {TAIL})"


def digits(ms: float) -> str:
    return f"{ms:.2f}" if ms < 10 else f"{ms:.1f}"


def board_lines(result: Mapping[str, Any]) -> str:
    """Memory, and what the machine told of itself, line by line; only what it told."""
    memory, board = result["memory"], result["board"]
    lines = []
    if "peak_mib" in memory:
        lines.append(f"memory: {memory['peak_mib']:.0f} MiB at most, {memory['frames_mib']:.0f} of them frames held")
    if "ram_mib" in board:
        lines.append(f"memory of the board, all programs: {board['ram_mib']['max']:.0f} MiB at most")
    for key, words, unit in (("power_w", "power", "W"), ("hottest_c", "hottest sensor", "°C")):
        if key in board:
            lines.append(f"{words}: {board[key]['mean']:.1f} {unit}, {board[key]['max']:.1f} at most")
    for name, clock in board.get("mhz", {}).items():
        lines.append(f"{name} clock: {clock['min']:.0f} to {clock['max']:.0f} MHz")
    if "power_mode" in board:
        lines.append(f"power mode: {board['power_mode']}")
    return "\n".join(lines)


def sustained_table(found: Mapping[str, Any]) -> Table:
    """A row a window; the verdict below."""
    from rich.table import Table

    verdict = found["throttling"]
    words = {"yes": "THROTTLES", "no": "no throttling seen", "too short": "too short to tell"}[verdict["verdict"]]
    shown = Table(
        title=f"{found['minutes']:g} min of {found['role']}, in windows of 10 s",
        caption=f"{words}{': ' if verdict['why'] else ''}{'; '.join(verdict['why'])}"
        + (f", from second {verdict['from_s']:g} on" if "from_s" in verdict else ""),
    )
    windows = found["windows"]
    clocks = list(dict.fromkeys(name for row in windows for name in row.get("mhz", {})))
    known = [key for key in ("hottest_c", "power_w") if any(key in row for row in windows)]
    for title in ("s", "frames/s", "p50 / p90 / p99 ms", *(f"{name} MHz" for name in clocks)):
        shown.add_column(title, justify="right")
    for key in known:
        shown.add_column({"hottest_c": "°C", "power_w": "W"}[key], justify="right")
    for row in windows:
        cells = [f"{row['mhz'][name]:.0f}" if name in row.get("mhz", {}) else "" for name in clocks]
        cells += [f"{row[key]:.1f}" if key in row else "" for key in known]
        shown.add_row(f"{row['from_s']:g}", f"{row['fps']:.1f}", three(row), *cells)
    return shown
