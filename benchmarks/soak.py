"""A hundred thousand frames through one run: `make soak`. A table; exit code 1 if memory, threads, files or times grow.

A small INT8 roadnet is compiled, and drives over three simulated roads again and again, each way in turn, with a cut at
each end: detector in every frame, tracker, scene analysis, camera health, and all sinks. Every 100 frames resident
memory, threads and open files are read from /proc; times are those of events.jsonl. The first tenth warms up.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecnn.adas import Camera
from edgecnn.compile import compile_recipe
from edgecnn.data.simulator import Drive
from edgecnn.progress import columns
from edgecnn.run import RunSettings, Source, run
from edgecnn.scene import Frame, Picture

RECIPE = """\
name: soak
model: {arch: roadnet, weights: shipped, height: 192, width: 320}
quantize: {data: {kind: sim, seed: 1, pictures: 16}}
build: null
"""
FPS, LENGTH, EVERY = 25.0, 125, 100
MIB = 1 << 20


@dataclass(frozen=True)
class Reading:
    """Of this process, at one frame."""

    frame: int
    rss: int  # bytes
    threads: int
    files: int


def reading(frame: int) -> Reading:
    rss = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return Reading(frame, rss, len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")))


class Endless:
    """A reader of the drives' frames, forwards and backwards; it takes a reading every so often."""

    live, fps, warning, name = False, FPS, "", "soak"
    camera: Camera | None = None

    def __init__(self, frames: int) -> None:
        drives = [Drive(seed, LENGTH, width=320, height=192, fps=FPS) for seed in (9500, 9501, 9502)]
        self._roads: list[list[Picture]] = [[frame.bgr for frame, _, _ in drive] for drive in drives]
        self.total: int | None = frames
        self.readings: list[Reading] = []

    def frames(self) -> Iterator[Frame]:
        for i in range(self.total or 0):
            turn, step = divmod(i, LENGTH)
            road = self._roads[turn // 2 % len(self._roads)]
            if i % EVERY == 0:
                self.readings.append(reading(i))
            yield Frame(i, round(i * 1e9 / FPS), road[step if turn % 2 == 0 else LENGTH - 1 - step])


def judge(readings: list[Reading], ms: np.ndarray) -> list[tuple[str, str, str, bool]]:
    """What, the promise, what happened, and whether it was kept."""
    warm = [r for r in readings if r.frame >= len(ms) / 10]
    frame, rss = np.array([r.frame for r in warm]), np.array([r.rss for r in warm])
    slope = float(np.polyfit(frame, rss, 1)[0]) * 1e4 / MIB
    first, last = (float(np.percentile(part, 99)) for part in (ms[len(ms) // 10 : len(ms) // 5], ms[-len(ms) // 10 :]))
    flat = {name: sorted({getattr(r, name) for r in warm}) for name in ("threads", "files")}
    return [
        (
            "resident memory",
            "grows by less than 1 MiB in 10⁴ frames",
            f"{slope:+.3f} MiB; {rss[0] / MIB:.1f} MiB after warm-up, {rss[-1] / MIB:.1f} MiB at the end",
            slope < 1,
        ),
        *(
            (name, "as many at the end as after warm-up", f"{min(seen)} to {max(seen)}", max(seen) - min(seen) <= 1)
            for name, seen in flat.items()
        ),
        (
            "p99 of a frame, decoded to warned",
            "of the last tenth at most 1.1× that of the second tenth",
            f"{first:.2f} ms, then {last:.2f} ms: {last / first:.3f}×",
            last <= 1.1 * first,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=100_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "soak.yaml").write_text(RECIPE, "utf-8")
        bundle = compile_recipe(folder / "soak.yaml", folder / "bundle").bundle
        gc.collect()
        reader = Endless(args.frames)
        settings = RunSettings.of(bundle, detect_every=1, precision="int8", threads=1)
        summary = run(bundle, Source(reader), folder / "out", settings, ("video", "events", "mot"))
        lines = (json.loads(line) for line in (folder / "out" / "events.jsonl").open(encoding="utf-8"))
        ms = np.array([line["ms"] for line in lines if line["type"] == "frame"])
    rows = judge(reader.readings, ms)
    told = [("what", "promise", "what happened", "kept"), *((*row[:3], "yes" if row[3] else "NO") for row in rows)]
    print(
        f"{summary.frames} frames in {summary.seconds / 60:.0f} min, {summary.tracks} tracks, {summary.cuts} cuts, "
        f"{len(summary.events)} events\n\n{columns(told)}"
    )
    sys.exit(not all(row[3] for row in rows))


if __name__ == "__main__":
    main()
