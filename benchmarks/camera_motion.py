"""What compensating for the camera's motion is worth: `python -m benchmarks.camera_motion ../shared/data BUNDLE`.

Two scenes, each as it is and with the camera shaken by a known motion that pictures, detections and truth share:
the fixed camera of PETS09-S2L1 (vtest.avi, MOTChallenge's public detections) and simulated drives (detected by BUNDLE).
`true` gives the tracker the known motion, the best that any estimate could do. Prints markdown.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from edgecnn.backends import open_backend
from edgecnn.bundle import Bundle
from edgecnn.data.recorded import read_detections, read_truth
from edgecnn.data.simulator import Drive
from edgecnn.metrics.tracking import evaluate_tracks
from edgecnn.run.loop import RunSettings, reduced
from edgecnn.scene import Detections, Picture, Tracks, Truth
from edgecnn.track import Settings, Tracker
from edgecnn.track.camera import Warp
from edgecnn.track.flow import FlowShift
from edgecnn.vision import DecodeDetections, Preprocess


class Seen(NamedTuple):
    bgr: Picture
    found: Detections
    truth: Truth


@dataclass(frozen=True)
class Clip:
    frames: list[Seen]
    fps: float
    settings: Settings


def pets(folder: Path, frames: int = 400) -> Clip:
    """400 frames of the sequence have a public truth."""
    sequence = folder / "tracking/MOT15/PETS09-S2L1_f1-400"
    recording = read_detections(sequence / "det/det.txt")
    truth = read_truth(sequence / "gt/gt.txt", recording)
    capture = cv2.VideoCapture(str(folder / "tracking/MOT15/vtest.avi"))
    seen = [
        Seen(capture.read()[1], found, true)
        for found, true in zip(recording.frames[:frames], truth[:frames], strict=True)
    ]
    return Clip(seen, 7.0, Settings(min_hits=3))


def drive(bundle: Bundle, seed: int, frames: int) -> Clip:
    model, settings, source = bundle.require_model(), RunSettings.of(bundle), Drive(seed, frames)
    backend, preprocess = open_backend(bundle, "int8", threads=1), Preprocess(model)
    decode = DecodeDetections(model, score=settings.score / 3, iou=settings.iou)
    seen = []
    for frame, truth, _ in source:
        tensor, box = preprocess(frame.bgr)
        seen.append(Seen(frame.bgr, decode(backend({model.input.name: tensor}), box), truth))
    chosen = Settings(high=settings.score, low=settings.score / 3, birth=settings.score + 0.1)
    return Clip(seen, source.fps, chosen)


def shakes(clip: Clip, px: float, seed: int) -> list[Warp]:
    """A sway of `px` at about 1 Hz (a pan at 0.1 Hz before the slow fixed camera), a third of it at 4 times that, and
    a roll: px of the still picture → px of the shaken one."""
    random, height, width = np.random.default_rng(seed), *clip.frames[0].bgr.shape[:2]
    slow = 0.1 if clip.fps < 10 else 1.2
    t, centre = np.arange(len(clip.frames)) / clip.fps, np.array([width, height]) / 2
    x, y, roll = np.zeros((3, len(t)))
    for times, share in ((1, 1.0), (4, 0.3)):
        for axis in (x, y, roll):
            axis += share * np.sin(2 * np.pi * slow * times * random.uniform(0.7, 1.4) * t + random.uniform(0, 6))
    out = []
    for dx, dy, angle in zip(px * x, px * y, 5e-4 * px * roll, strict=True):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        out.append(np.column_stack([turn, centre - turn @ centre + (dx, dy)]))
    return out


def shaken(clip: Clip, warps: list[Warp]) -> Iterator[Seen]:
    """What leaves the picture is neither detected nor asked for."""
    height, width = clip.frames[0].bgr.shape[:2]

    def inside(boxes: np.ndarray) -> np.ndarray:
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        return ((centre > 0) & (centre < (width, height))).all(axis=1)

    for (bgr, found, truth), warp in zip(clip.frames, warps, strict=True):
        picture = cv2.warpAffine(bgr, warp, (width, height), borderMode=cv2.BORDER_REFLECT)
        seen, real = carried(found.xyxy, warp), carried(truth.xyxy, warp)
        boxes = Truth.of(real, truth.label, id=truth.id, ignore=truth.ignore)
        yield Seen(picture, Detections(seen, found.score, found.label)[inside(seen)], boxes[inside(real)])


def carried(boxes: np.ndarray, warp: Warp) -> np.ndarray:
    """Each box's centre moves, its sides stay."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    centre = centre @ warp[:, :2].T + warp[:, 2]
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


def follow(clip: Clip, warps: list[Warp], every: int, mode: str) -> Iterator[tuple[Tracks, Truth]]:
    """The loop without its schedule: detect in every k-th frame, follow by flow between."""
    width, height = clip.frames[0].bgr.shape[1], clip.frames[0].bgr.shape[0]
    tracker, flow, tracks = Tracker(clip.settings, clip.fps), FlowShift(width), Tracks.empty()
    whole = [np.vstack([warp, (0, 0, 1)]) for warp in warps]
    for k, seen in enumerate(shaken(clip, warps)):
        t_ns, grey, true = round(k * 1e9 / clip.fps), reduced(seen.bgr), (whole[k] @ np.linalg.inv(whole[k - 1]))[:2]
        if k % every:
            boxes, ok = flow.step(grey, tracks)
        else:
            flow.remember(grey, tracks)
        camera = {"off": None, "on": flow.camera, "true": true if k else None}[mode]
        if k % every:
            tracks = tracker.step(None, t_ns, frame_size=(width, height), flow=(boxes, ok), camera=camera)
        else:
            tracks = tracker.step(seen.found, t_ns, frame_size=(width, height), camera=camera)
        yield tracks, seen.truth


def cost_ms(clip: Clip) -> tuple[float, float]:
    """Median time of a detector frame's flow (the camera alone), and of one between (camera and boxes)."""
    greys, flow = [reduced(seen.bgr) for seen in clip.frames], FlowShift(clip.frames[0].bgr.shape[1])
    tracker, times = Tracker(clip.settings, clip.fps), ([], [])
    for k, (grey, seen) in enumerate(zip(greys, clip.frames, strict=True)):
        size = (seen.bgr.shape[1], seen.bgr.shape[0])
        tracks = tracker.step(seen.found, round(k * 1e9 / clip.fps), frame_size=size)
        start = time.perf_counter()
        flow.remember(grey, tracks) if k % 2 else flow.step(grey, tracks)
        times[k % 2].append(time.perf_counter() - start)
    return 1e3 * float(np.median(times[1])), 1e3 * float(np.median(times[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds tracking/MOT15/")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[9700, 9701, 9702, 9703], help="of drives")
    parser.add_argument("--frames", type=int, default=150, help="of each drive")
    args = parser.parse_args()
    bundle = Bundle.read(args.bundle)
    scenes = {
        "PETS09-S2L1": ([pets(args.folder)], (0, 20, 60), (1, 3)),
        "drives": ([drive(bundle, seed, args.frames) for seed in args.seeds], (0, 5, 10), (1, 3, 5)),
    }
    print("| scene | sway, px | detect every | HOTA / IDF1 / switches without | with | with the true motion |")
    print("|---|---|---|---|---|---|")
    for name, (clips, sways, strides) in scenes.items():
        for px in sways:
            moves = [shakes(clip, px, seed) for seed, clip in enumerate(clips)]
            for every in strides:
                cells = []
                for mode in ("off", "on", "true"):
                    pairs = zip(clips, moves, strict=True)
                    f = evaluate_tracks([follow(clip, warps, every, mode) for clip, warps in pairs])
                    cells.append(f"{100 * f['HOTA']:.1f} / {100 * f['IDF1']:.1f} / {f['switches']:.0f}")
                print(f"| {name} | {px} | {every} | {' | '.join(cells)} |", flush=True)
    for name, (clips, _, _) in scenes.items():
        alone, both = cost_ms(clips[0])
        print(f"\n{name}: {alone:.2f} ms a detector frame, {both:.2f} ms a frame between (boxes followed as well)")


if __name__ == "__main__":
    main()
