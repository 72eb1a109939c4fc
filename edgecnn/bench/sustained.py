"""Minutes at full speed, in windows of ten seconds: does the machine keep what it does at first?"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgecnn.backends import Precision, choose, open_backend
from edgecnn.bench import SOURCE, WARM, lanes_of, read_frames
from edgecnn.bench.sampler import Sampler
from edgecnn.bench.sensors import summary
from edgecnn.bundle import Bundle
from edgecnn.progress import bar
from edgecnn.run import RunSettings
from edgecnn.run.timing import percentiles

WINDOW_S = 10.0
FIRST = 3  # windows that say what the machine does when cool
CLOCK_DROP = 0.10  # share of the first clock: less is the governor's
SLOWER = 0.10  # of the first windows' p50
LASTING = 3  # windows in a row that must be so


def sustained(
    bundle: Bundle,
    source: str | None = None,
    *,
    minutes: float,
    threads: int = 1,
    settings: RunSettings | None = None,
    precision: Precision = "auto",
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Run what `auto` takes, frame after frame without a pause, for `minutes`.

    → {role, windows: [{from_s, frames, fps, p50, p90, p99, mhz, hottest_c, power_w, …}], throttling}; JSON-able. Frames
    are those of the source, from the first again when they end. Raises what `bench` does.
    """
    model, settings = bundle.require_model(), settings or RunSettings.of(bundle)
    pictures, fps, _ = read_frames(source or SOURCE, 100)
    backend = open_backend(bundle, precision, threads=threads)
    (lane,) = list(lanes_of(model, {"auto": backend}, settings, fps).values())[-1:]
    step_ns, last = round(1e9 / fps), pictures[-1]
    times: list[tuple[float, float]] = []  # end, s; ms
    with bar(f"{minutes:g} min", None), Sampler() as sampler:
        began = clock()
        while (now := clock() - began) < 60 * minutes:
            number = len(times)
            picture = pictures[number % len(pictures)]
            turn = number // len(pictures)
            t_ns = picture.t_ns + turn * (last.t_ns - pictures[0].t_ns + step_ns)
            ns = lane(type(picture)(**{**vars(picture), "index": number, "t_ns": t_ns}))
            times.append((now, sum(ns.values()) / 1e6))
    windows = windows_of(times[WARM:], sampler.rows)
    return {
        "minutes": minutes,
        "role": choose(bundle, precision),
        "detect_every": settings.detect_every,
        "windows": windows,
        "throttling": throttling(windows),
    }


def windows_of(times: Sequence[tuple[float, float]], rows: Sequence[tuple[float, Any]]) -> list[dict[str, Any]]:
    """(second, ms) of frames and (second, reading) of the board → a row a window, without a last one that is short."""
    if not times:
        return []
    at, ms = np.array(times).T
    number = (at // WINDOW_S).astype(int)
    told = []
    for k in range(int(number[-1]) + 1):
        inside = ms[number == k]
        if k == number[-1] and k and at[-1] - k * WINDOW_S < WINDOW_S / 2:
            break
        if not len(inside):
            continue  # a frame took longer than a window
        board = summary(row for second, row in rows if int(second // WINDOW_S) == k)
        seconds = inside.sum() / 1e3
        figures = {name: value for name, value in percentiles(inside).items() if name in ("p50", "p90", "p99", "max")}
        row: dict[str, Any] = {
            "from_s": k * WINDOW_S,
            "frames": len(inside),
            "fps": round(float(len(inside) / seconds), 2),
            **figures,
        }
        row |= {"mhz": {name: value["mean"] for name, value in board["mhz"].items()}} if "mhz" in board else {}
        row |= {key: board[key]["mean"] for key in ("hottest_c", "power_w") if key in board}
        told.append(row)
    return told


def throttling(windows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Whether the machine slows down: a clock lower, or a p50 longer, than at first, for `LASTING` windows in a row.

    → {verdict: yes | no | too short, why: [text], from_s}. A clock that drops without a longer p50 counts too: it says
    that the governor stepped in; a longer p50 alone may be a neighbour's work, and is told as such.
    """
    if len(windows) < FIRST + LASTING:
        return {"verdict": "too short", "why": [f"{len(windows)} windows; {FIRST + LASTING} or more tell"]}
    first, later = windows[:FIRST], windows[FIRST:]
    why, since = [], []
    for name in first[0].get("mhz", {}):
        base = float(np.median([row.get("mhz", {}).get(name, np.nan) for row in first]))
        clocks = [row.get("mhz", {}).get(name, np.nan) for row in later]
        low = _lasting([value < base * (1 - CLOCK_DROP) for value in clocks])
        if low is not None:
            why.append(f"the {name} clock falls from {base:.0f} to {np.nanmin(clocks):.0f} MHz")
            since.append(later[low]["from_s"])
    base = float(np.median([row["p50"] for row in first]))
    slow = _lasting([row["p50"] > base * (1 + SLOWER) for row in later])
    if slow is not None:
        worst = max(row["p50"] for row in later)
        blame = "" if why else ", while no clock was seen to fall: heat, or another program"
        why.append(f"p50 rises from {base:.2f} to {worst:.2f} ms{blame}")
        since.append(later[slow]["from_s"])
    return {"verdict": "yes", "why": why, "from_s": min(since)} if why else {"verdict": "no", "why": []}


def _lasting(flags: Sequence[bool]) -> int | None:
    """Where `LASTING` in a row begin to be true."""
    return next((k for k in range(len(flags) - LASTING + 1) if all(flags[k : k + LASTING])), None)
