"""What looking less costs: `python -m benchmarks.ablation BUNDLE`. Markdown on standard output.

The loop of `edgecnn run` on simulated drives that nothing was trained on, all rows on the same frames: detect in every
frame; in every k-th, LK flow between; with parts of the frame between whole ones; with the far road and the edges among
those parts; and adaptive, at several budgets. The bundle needs regions (`run.regions` in its recipe).

GMACs a frame: the network's from the manifest; the follower's and the warps' from `follower_macs` and `warp_macs`,
upper bounds, every product with its sum counted as one. AP50 and HOTA are of the tracks that the loop returns, with
their scores. Streaming AP50 (Li, Wang and Ramanan 2020, arXiv:2005.10420): the newest result that exists when a frame
arrives, on a machine that takes --latency-ms for the whole frame, in proportion to MACs for parts and FOLLOW_MS
otherwise, and skips what it can't keep up with. Delay: frames from an object's first hit in the first row to that in
this row, mean of the objects that both hit. Missed: staged drives towards a lead without a warning while the true time
to collision is at least LEAST_TTC_S; false: harmless ones with a warning.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edgecnn.adas import Camera, ScheduleSettings
from edgecnn.backends import open_backend
from edgecnn.bundle import Bundle
from edgecnn.data.simulator import Drive
from edgecnn.metrics.detection import evaluate_detections
from edgecnn.metrics.tracking import evaluate_tracks
from edgecnn.progress import tracked
from edgecnn.run import FrameResult, Pipeline, RunSettings
from edgecnn.run.loop import GREY_WIDTH, planned
from edgecnn.run.tally import share_of_regions
from edgecnn.run.timing import working_ms
from edgecnn.scene import Detections, Frame, Tracks, Truth
from edgecnn.track.assign import iou

STRIDES, BUDGETS = (2, 3, 5, 8, 10), (0.1, 0.15, 0.18, 0.2, 0.3)
DANGER, HARMLESS = ("stopped_lead", "braking_lead", "slower_lead"), ("adjacent_car", "cut_out", "oncoming")
STAGED_FRAMES = 200
LEAST_TTC_S = 2.0
FOLLOW_MS = 3.0
POINTS, WINDOW, LEVELS, STEPS = 16, 11 * 11, 3, 8  # of edgecnn.track.flow


def rows(plan: ScheduleSettings) -> dict[str, ScheduleSettings]:
    """Name → schedule, from the bundle's own."""
    fixed = replace(plan, canvas=None, budget=None, closing_s=0.0, unsure=0.0)
    parts = replace(plan, budget=None)
    return {
        "every frame": replace(fixed, every=1),
        **{f"k = {k}": replace(fixed, every=k) for k in STRIDES},
        f"k = {plan.every} + regions": replace(parts, band=0.0, sides=0.0),
        f"k = {plan.every} + regions + road band": parts,
        **{f"adaptive {budget:g}": replace(plan, budget=budget) for budget in BUDGETS},
    }


def follower_macs(tracks: int, width: int, height: int) -> float:
    """Of pyramidal Lucas-Kanade forth and back: 5 products a window pixel for the gradients' matrix, 3 (bilinear 2, sum
    1) an iteration, at most; and of the pyramid and its gradients, 22 a pixel of all levels."""
    grey = GREY_WIDTH * height * GREY_WIDTH / width if width > GREY_WIDTH else width * height
    return tracks * POINTS * 2 * LEVELS * WINDOW * (5 + 3 * STEPS) + 22 * 4 / 3 * grey


def warp_macs(side: tuple[int, int]) -> float:
    """Of laying a picture into (height, width): bilinear, 3 channels, and the subtraction of the mean."""
    return side[0] * side[1] * 3 * 5


@dataclass
class Stream:
    """What a machine of given speed shows when each frame arrives."""

    pipeline: Pipeline
    latency_s: dict[bool | None, float]  # the whole frame, parts, neither
    free_s: float = 0.0
    done: list[tuple[float, Tracks]] = field(default_factory=list)
    waiting: Frame | None = None

    def arrive(self, frame: Frame) -> Tracks:
        now_s = frame.t_ns / 1e9
        if self.waiting is not None and self.free_s <= now_s:
            self._work(self.waiting, self.free_s)
        self.waiting = frame
        shown = [tracks for ready_s, tracks in self.done if ready_s <= now_s][-1:]
        self.done = self.done[-4:]
        if self.free_s <= now_s:
            self._work(frame, now_s)
        return shown[0] if shown else Tracks.empty()

    def _work(self, frame: Frame, begins_s: float) -> None:
        result = self.pipeline.step(frame)
        self.free_s = begins_s + self.latency_s[result.whole if result.why else None]
        self.done.append((self.free_s, result.tracks))
        self.waiting = None


@dataclass
class Row:
    """What one schedule came to."""

    plan: ScheduleSettings
    frames: int = 0
    macs: float = 0.0
    searched: float = 0.0
    ms: float = 0.0
    missed: int = 0
    false: int = 0
    sequences: list[list[tuple[Tracks, Truth]]] = field(default_factory=list)
    streamed: list[tuple[Detections, Truth]] = field(default_factory=list)
    first: dict[tuple[int, int], int] = field(default_factory=dict)  # (drive, object) → frame of the first hit

    def add(self, result: FrameResult, truth: Truth, model_macs: tuple[float, float], seed: int) -> None:
        self.frames += 1
        self.ms += working_ms(result.ns)
        if result.why:
            self.macs += model_macs[0] if result.whole else model_macs[1]
            self.searched += result.searched_share
        if not result.whole or self.plan.canvas:
            height, width = result.frame.bgr.shape[:2]
            self.macs += follower_macs(len(result.tracks), width, height)
        self.sequences[-1].append((result.tracks, truth))
        hit = (iou(truth.xyxy, result.tracks.xyxy) >= 0.5).any(1) & ~truth.ignore
        for id in truth.id[hit].tolist():
            self.first.setdefault((seed, id), result.frame.index)


def as_detections(tracks: Tracks) -> Detections:
    return Detections(tracks.xyxy, tracks.score, tracks.label)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "int8"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(9500, 9508)))
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--staged", type=int, nargs="*", default=[9500, 9501], help="seeds of each staged drive")
    parser.add_argument("--latency-ms", type=float, default=60.0, help="of the whole frame, for streaming AP")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    bundle = Bundle.read(args.bundle)
    model, backend = bundle.require_model(), open_backend(bundle, args.precision, threads=args.threads)
    settings = RunSettings.of(bundle)
    cost, facts = share_of_regions(bundle), bundle.stages["export"].facts
    warp = warp_macs((model.height, model.width))
    macs = (facts["macs"] + warp, facts.get("macs_regions", 0) + warp * cost)
    seconds = {
        True: args.latency_ms / 1e3,
        False: args.latency_ms * cost / 1e3 + FOLLOW_MS / 1e3,
        None: FOLLOW_MS / 1e3,
    }
    table = {name: Row(plan) for name, plan in rows(planned(model, settings)).items()}

    def pipelines(drive: Drive) -> dict[str, Pipeline]:
        lens = drive.camera
        camera = Camera(lens.fx, lens.fy, lens.cx, lens.cy, lens.height_m, lens.pitch_rad)
        return {
            name: Pipeline(model, backend, settings, fps=drive.fps, camera=camera, schedule=row.plan)
            for name, row in table.items()
        }

    for seed in args.seeds:
        drive = Drive(seed, args.frames)
        steps = pipelines(drive)
        streams = {name: Stream(pipeline, seconds) for name, pipeline in pipelines(drive).items()}
        for row in table.values():
            row.sequences.append([])
        for frame, truth, _ in tracked(drive, f"drive {seed}", len(drive)):
            for name, row in table.items():
                row.add(steps[name].step(frame), truth, macs, seed)
                row.streamed.append((as_detections(streams[name].arrive(frame)), truth))
    for scenario in (*DANGER, *HARMLESS):
        for seed in args.staged:
            drive = Drive(seed, STAGED_FRAMES, scenario=scenario)
            steps, warned = pipelines(drive), dict.fromkeys(table, False)
            for frame, truth, _ in tracked(drive, f"{scenario} {seed}", len(drive)):
                nearest = float(np.nanmin(np.where(truth.ttc_s > 0, truth.ttc_s, np.inf), initial=np.inf))
                for name, pipeline in steps.items():
                    scene = pipeline.step(frame).scene
                    in_time = scenario in HARMLESS or nearest >= LEAST_TTC_S
                    warned[name] |= in_time and any(event.kind == "fcw_on" for event in scene.warnings)
            for name, row in table.items():
                row.missed += scenario in DANGER and not warned[name]
                row.false += scenario in HARMLESS and warned[name]
    show(table, model.classes, f"{len(args.seeds)} drives of {args.frames} frames, {args.precision}")


def show(table: dict[str, Row], classes: tuple[str, ...], what: str) -> None:
    """The table, the first row being what the others are held against."""
    print(f"{what}\n")
    head = (
        "schedule | GMACs a frame | fewer | pixels | frames/s | AP50 | streaming AP50 | HOTA | delay | found | missed"
    )
    print(f"| {head} | false |\n" + "|---" * 12 + "|")
    reference = next(iter(table.values()))
    for name, row in table.items():
        pairs = [(as_detections(tracks), truth) for sequence in row.sequences for tracks, truth in sequence]
        ap, streaming = (100 * evaluate_detections(p, classes)["AP50"] for p in (pairs, row.streamed))
        hota = 100 * evaluate_tracks(row.sequences)["HOTA"]
        both = [row.first[key] - frame for key, frame in reference.first.items() if key in row.first]
        fewer = (reference.macs / reference.frames) / (row.macs / row.frames)
        print(
            f"| {name} | {row.macs / row.frames / 1e9:.4f} | {fewer:.1f}x | {row.searched / row.frames:.0%} "
            f"| {1e3 * row.frames / row.ms:.0f} | {ap:.1f} | {streaming:.1f} | {hota:.1f} "
            f"| {np.mean(both) if both else np.nan:+.1f} | {len(row.first)} | {row.missed} | {row.false} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
