"""What `edgecnn bench` found beyond the times of stages: layers, sweeps, minutes at full speed, and benches before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from edgecnn.report.html import pairs, section, table
from edgecnn.report.svg import curves
from edgecnn.report.timeline import Timeline

Json = Mapping[str, Any]
SLOWEST = 20  # layers that are listed
SAME = ("name", "source", "threads", "frames")  # benches that may stand in one plot agree in these, and in the CPU


def measured(bench: Json, history: Sequence[Json]) -> str:
    """The sections there is something to say in; "" where there is none."""
    return _board(bench) + _sustained(bench) + _layers(bench) + _sweep(bench) + _history(history)


def _board(bench: Json) -> str:
    """Memory, clocks, temperatures and power during the bench. An older bench tells none."""
    memory, board = bench.get("memory", {}), bench.get("board", {})
    rows = []
    if "peak_mib" in memory:
        rows.append(("memory at most", f"{memory['peak_mib']:.0f} MiB, {memory['frames_mib']:.0f} of them frames held"))
    if "power_mode" in board:
        rows.append(("power mode", board["power_mode"]))
    words = (
        ("power_w", "power", "W"),
        ("hottest_c", "hottest sensor", "°C"),
        ("ram_mib", "memory of the board", "MiB"),
    )
    rows += [(name, _range(board[key], unit)) for key, name, unit in words if key in board]
    for kind, unit in (("mhz", "MHz"), ("celsius", "°C"), ("watts", "W")):
        rows += [(f"{name}, {unit}", _range(value, unit)) for name, value in board.get(kind, {}).items()]
    return section("The machine meanwhile", pairs(rows)) if rows else ""


def _range(value: Mapping[str, float], unit: str) -> str:
    return f"{value['min']:.4g} to {value['max']:.4g} {unit}, mean {value['mean']:.4g}"


def _sustained(bench: Json) -> str:
    found = bench.get("sustained")
    if not found or not found["windows"]:
        return ""
    windows, verdict = found["windows"], found["throttling"]
    plot = Timeline(60 * found["minutes"])

    def strip(label: str, values: Sequence[float | None], level: str) -> None:
        known = [value for value in values if value is not None]
        middles = [row["from_s"] + 5 for row in windows]
        plot.curve(label, list(zip(middles, values, strict=True)), 1.15 * max(known), (known[0], level))

    strip("p50, ms", [row["p50"] for row in windows], "at first")
    strip("p99, ms", [row["p99"] for row in windows], "at first")
    for name in dict.fromkeys(name for row in windows for name in row.get("mhz", {})):
        strip(f"{name}, MHz", [row.get("mhz", {}).get(name) for row in windows], "at first")
    for key, label in (("hottest_c", "hottest, °C"), ("power_w", "power, W")):
        if any(key in row for row in windows):
            strip(label, [row.get(key) for row in windows], "at first")
    if "from_s" in verdict:
        plot.cuts([verdict["from_s"]])
    words = {"yes": "It throttles", "no": "No throttling seen", "too short": "Too short to tell"}[verdict["verdict"]]
    why = f": {'; '.join(verdict['why'])}" if verdict["why"] else ""
    text = f"{words}{why}. {found['minutes']:g} min of {found['role']}, a point every 10 s."
    return section("Minutes at full speed", f"{plot.svg('Minutes at full speed')}<p>{escape(text)}</p>")


def _layers(bench: Json) -> str:
    found = bench.get("layers")
    if not found:
        return ""
    rows = [[r["layer"], r["op"], f"{r['p50']:.3f}", f"{r['share']:.1%}"] for r in found["layers"][:SLOWEST]]
    note = (
        f"<p>The slowest of {len(found['layers'])} layers of {escape(found['role'])}; together "
        f"{found['sum_ms']:.2f} ms by the profiler, which costs time of its own.</p>"
    )
    return section("Layers", note + table(["layer", "op", "p50 ms", "share"], rows))


def _sweep(bench: Json) -> str:
    found = bench.get("sweep")
    if not found:
        return ""
    rows = [
        [
            r["role"],
            r["threads"],
            r["batch"],
            *(f"{r['ms'][p]:.2f}" for p in ("p50", "p90", "p99")),
            f"{r['per_s']:.1f}",
            f"{r['ratio']:.2f} ×",
        ]
        for r in found["rows"]
    ]
    head = ["file", "threads", "batch", "p50 ms", "p90 ms", "p99 ms", "pictures/s", "throughput"]
    return section("Threads and batches", table(head, rows))


def _history(history: Sequence[Json]) -> str:
    """p50 of a frame, bench by bench: those that measured the same on the same CPU as the last one."""
    if not history:
        return ""
    rows = [row for row in history if _kind(row) == _kind(history[-1])]
    lanes = [name for name in rows[-1]["lanes"] if all(name in row["lanes"] for row in rows)]
    plot = ""
    if len(rows) > 1 and lanes:
        values = {name: [row["lanes"][name]["frame"]["p50"] for row in rows] for name in lanes}
        plot = curves(values, "p50 of a frame, bench by bench", "bench")
    other = len(history) - len(rows)
    note = f"p50 of a frame, ms; {len(rows)} benches of {rows[-1].get('name', '')}"
    note += f", {other} more that measured something else or elsewhere" if other else ""
    head = ["when", "edgecnn", *lanes]
    every = table(
        head,
        [
            [row["at"], _version(row), *(f"{row['lanes'][name]['frame']['p50']:.2f}" for name in lanes)]
            for row in reversed(rows)
        ],
    )
    body = f"{plot}<p>{escape(note)}.</p><details><summary>All of them</summary>{every}</details>"
    return section("Bench by bench", body)


def _kind(row: Json) -> tuple[Any, ...]:
    return (*(row.get(key) for key in SAME), row.get("machine", {}).get("cpu"))


def _version(row: Json) -> str:
    return str(row.get("machine", {}).get("versions", {}).get("edgecnn", ""))
