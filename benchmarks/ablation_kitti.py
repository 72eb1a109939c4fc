"""The scheduler on real drives: `python -m benchmarks.ablation_kitti ../shared/data/tracking/KITTI`. Markdown.

Recorded detections of a strong detector (PointRCNN, from AB3DMOT) stand in for the network: a look at the whole frame
returns them all, a look at windows those that the scheduler expects to be seen through them
(edgecnn.adas.regions.visible). Without pictures there is no optical flow: between looks boxes follow the motion model
alone. Multiply-adds are by area: a network of NET px, windows in a canvas of CANVAS px, both (width, height).
Distance to the road's end is that of a usual camera; cars, pedestrians and cyclists are tracked together.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.tracking import kitti
from edgecnn.adas import Schedule, ScheduleSettings
from edgecnn.adas.regions import visible
from edgecnn.metrics.detection import evaluate_detections
from edgecnn.metrics.tracking import evaluate_tracks
from edgecnn.scene import Detections, Tracks, Truth
from edgecnn.track import MOVING, Settings, Tracker

CLASSES = ("Car", "Pedestrian", "Cyclist")
NET, CANVAS = (832, 256), (256, 96)
COST = CANVAS[0] * CANVAS[1] / (NET[0] * NET[1])
SIZE, FPS = (1242, 375), 10.0
STRIDES, BUDGETS, EVERY = (1, 2, 3, 5, 8, 10), (0.1, 0.15, 0.2, 0.3), 20


def rows() -> dict[str, ScheduleSettings]:
    parts = ScheduleSettings(every=EVERY, canvas=CANVAS, cost=COST)
    fixed = {f"k = {k}" if k > 1 else "every frame": ScheduleSettings(every=k) for k in STRIDES}
    return {
        **fixed,
        f"k = {EVERY} + regions": replace(parts, band=0.0, sides=0.0),
        f"k = {EVERY} + regions + road band": parts,
        **{f"adaptive {budget:g}": replace(parts, budget=budget) for budget in BUDGETS},
    }


def sequence(folder: Path, name: str) -> list[tuple[Detections, list[Truth]]]:
    """Each frame's detections, labels into CLASSES, and the truth of each class by itself."""
    each = [kitti(folder, name, kind).frames for kind in CLASSES]
    frames = []
    for parts in zip(*each, strict=False):
        found = [replace(d, label=np.full(len(d), label)) for label, (d, _) in enumerate(parts)]
        columns = {c: np.concatenate([getattr(d, c) for d in found]) for c in ("xyxy", "score", "label")}
        frames.append((Detections(**columns), [truth for _, truth in parts]))
    return frames


def play(frames: list[tuple[Detections, list[Truth]]], plan: ScheduleSettings) -> Iterator[tuple[Tracks, float, float]]:
    """Tracks, cost in whole frames and share of the pixels searched, frame by frame."""
    tracker = Tracker(Settings(noise=MOVING, coast_looks=1 if plan.canvas else 0), FPS)
    schedule, tracks = Schedule(plan, None, SIZE), Tracks.empty()
    for k, (found, _) in enumerate(frames):
        t_ns = round(k * 1e9 / FPS)
        expected = tracker.expected(t_ns, (tracks.xyxy, np.zeros(len(tracks), bool)))
        look = schedule.due(cut=False, tracks=tracks, scene=None, t_ns=t_ns, expected=expected, hidden=tracker.hidden)
        if look.why is None:
            tracks, cost, searched = tracker.step(None, t_ns, frame_size=SIZE), 0.0, 0.0
        elif look.tiles is None:
            tracks, cost, searched = tracker.step(found, t_ns, frame_size=SIZE), 1.0, 1.0
        else:
            tiles = look.tiles
            side = tiles.source[:, 2:] - tiles.source[:, :2]
            tracks = tracker.step(
                found[visible(found.xyxy, tiles, SIZE)],
                t_ns,
                frame_size=SIZE,
                looked=lambda xyxy, tiles=tiles: visible(xyxy, tiles, SIZE),
            )
            cost, searched = plan.cost, float(side.prod(1).sum()) / (SIZE[0] * SIZE[1])
        yield tracks, cost, searched


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds label_02/ and det_pointrcnn_<class>/")
    parser.add_argument("--names", nargs="+", help="sequences; all of them")
    args = parser.parse_args()
    names = args.names or sorted(path.stem for path in (args.folder / "det_pointrcnn_Car").glob("*.txt"))
    drives = [sequence(args.folder, name) for name in names]
    print(f"KITTI tracking {' '.join(names)}, {sum(map(len, drives))} frames\n")
    heads = [f"{figure} {kind.lower()}" for kind in CLASSES[:2] for figure in ("HOTA", "MOTA", "AP50")]
    print(f"| schedule | cost | fewer | pixels | {' | '.join(heads)} |\n" + "|---" * (4 + len(heads)) + "|")
    for name, plan in rows().items():
        played = [list(play(frames, plan)) for frames in drives]
        cost, searched = (float(np.mean([step[i] for steps in played for step in steps])) for i in (1, 2))
        cells = []
        for label, kind in enumerate(CLASSES[:2]):
            pairs = [
                [
                    (tracks[tracks.label == label], truths[label])
                    for (tracks, *_), (_, truths) in zip(steps, frames, strict=True)
                ]
                for steps, frames in zip(played, drives, strict=True)
            ]
            figures = evaluate_tracks(pairs)
            flat = [
                (Detections(t.xyxy, t.score, t.label * 0), replace(truth, label=np.where(truth.ignore, -1, 0)))
                for steps in pairs
                for t, truth in steps
            ]
            cells += [figures["HOTA"], figures["MOTA"], evaluate_detections(flat, (kind,))["AP50"]]
        shares = " | ".join(f"{100 * value:.1f}" for value in cells)
        print(f"| {name} | {cost:.3f} | {1 / cost:.1f}x | {searched:.0%} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
