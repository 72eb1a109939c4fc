"""Two bundles side by side on one machine: which is faster, and whether that is more than chance.

Both run every frame of one source in one process, in turns whose order changes, so that a clock that drops hits both.
The ratio is that of the sums of their times; its interval comes from drawing stretches of frames anew, for frames that
follow one another take equally long.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.backends import open_backend
from edgecnn.bench import SOURCE, WARM, lanes_of, precisions_of, read_frames
from edgecnn.bench.show import three
from edgecnn.bundle import Bundle
from edgecnn.cpu import cpu
from edgecnn.errors import ModelError
from edgecnn.metrics.redraw import LEVEL, draws
from edgecnn.progress import tracked
from edgecnn.run import RunSettings
from edgecnn.run.tally import versions
from edgecnn.run.timing import StageTimes, percentiles

if TYPE_CHECKING:
    from rich.table import Table

STRETCH = 5  # frames that are drawn together
F64 = NDArray[np.float64]


def compare(
    ours: Bundle, other: Bundle, source: str | None = None, *, frames: int = 100, threads: int = 1
) -> dict[str, Any]:
    """Times of what both bundles can run, and how many times faster `other` is than `ours`.

    → {lanes: {name: {ours, other: percentiles of a frame in ms, frame, infer: {ratio, low, high}}}, ...}; JSON-able.
    Raises ModelError for networks of different tasks, InputError where the source gives too few frames.
    """
    tasks = [bundle.require_model().task for bundle in (ours, other)]
    if tasks[0] != tasks[1]:
        raise ModelError(f"a network to {tasks[0]} beside one to {tasks[1]}", wanted="two for the same task")
    pictures, fps, _ = read_frames(source or SOURCE, frames)
    sides = {}
    for side, bundle in (("ours", ours), ("other", other)):
        backends = {name: open_backend(bundle, name, threads=threads) for name in precisions_of(bundle)}
        sides[side] = lanes_of(bundle.require_model(), backends, RunSettings.of(bundle), fps)
    both = [name for name in sides["ours"] if name in sides["other"]]
    jobs = [(side, name) for name in both for side in sides]
    times = {job: StageTimes() for job in jobs}
    rng = np.random.default_rng(0)
    for count, frame in enumerate(tracked(pictures, "bench", len(pictures))):
        for k in rng.permutation(len(jobs)):
            side, name = jobs[k]
            ns = sides[side][name](frame)
            if count >= WARM:
                times[side, name].add({**ns, "frame": sum(ns.values())})
    return {
        "ours": str(ours.path),
        "other": str(other.path),
        "source": source or SOURCE,
        "frames": len(pictures) - WARM,
        "threads": threads,
        "machine": {"cpu": cpu()[0], "cores": os.cpu_count(), "versions": versions()},
        "lanes": {name: _lane(times["ours", name], times["other", name]) for name in both},
    }


def _lane(ours: StageTimes, other: StageTimes) -> dict[str, Any]:
    row: dict[str, Any] = {"ours": percentiles(ours.ms("frame")), "other": percentiles(other.ms("frame"))}
    row["frame"] = faster(ours.ms("frame"), other.ms("frame"))
    if len(ours.ms("infer")) == len(other.ms("infer")):
        row["infer"] = faster(ours.ms("infer"), other.ms("infer"))
    return row


def faster(ours: F64, other: F64) -> dict[str, float]:
    """How many times faster the other is, from times (N,) on the same frames, and the interval at `LEVEL`; nan from
    fewer than two stretches."""
    at = np.arange(len(ours)) // STRETCH
    sums = [np.bincount(at, weights=ms) for ms in (ours, other)]
    ratio = float(sums[0].sum() / sums[1].sum())
    low = high = float("nan")
    if len(sums[0]) > 1:
        weight = draws(len(sums[0]))
        low, high = np.quantile((weight @ sums[0]) / (weight @ sums[1]), [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return {"ratio": round(ratio, 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def verdict(row: Mapping[str, float]) -> str:
    """What an interval says of the other bundle."""
    return "faster" if row["low"] > 1 else "slower" if row["high"] < 1 else "no difference shown"


def versus_table(result: Mapping[str, Any]) -> Table:
    """The answer of `compare` for people."""
    from rich.table import Table

    shown = Table(
        title=f"{result['other']} against {result['ours']}: {result['frames']} frames of {result['source']}, "
        f"{result['threads']} thread(s), {result['machine']['cpu']}",
        caption="a frame in ms, p50 / p90 / p99; times faster, and where that lies at 95 %",
    )
    for title in ("", result["ours"], result["other"], "frame", "infer", "the second is"):
        shown.add_column(title, justify="left" if not title else "right")
    for name, lane in result["lanes"].items():
        times = [three(lane[side]) for side in ("ours", "other")]
        ratios = [_ratio(lane[stage]) if stage in lane else "" for stage in ("frame", "infer")]
        shown.add_row(name, *times, *ratios, verdict(lane["frame"]))
    return shown


def _ratio(row: Mapping[str, float]) -> str:
    return f"{row['ratio']:.2f}x [{row['low']:.2f}, {row['high']:.2f}]"
