"""Ways to carry boxes on without a detector, side by side: `python -m benchmarks.carry ../shared/data/sot/Car4`.

Each starts on true boxes. Objects of simulated drives are followed for some frames (mean IoU with the truth in the
last of them) and Car4 to its end (mean IoU over all frames). Time is the least of a 1280x720 picture with 1 and with 10
objects, its reduction to grey included. `flow` is what the loop uses; OpenCV's KCF and CSRT take part where
opencv-contrib-python-headless is installed. Prints markdown.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from edgecnn.data.files import pictures_in, read_picture
from edgecnn.data.simulator import Drive
from edgecnn.run.loop import reduced
from edgecnn.scene import Picture, Tracks, Truth
from edgecnn.track.assign import iou
from edgecnn.track.correlation import Correlation
from edgecnn.track.flow import FlowShift

Step = Callable[[Picture], np.ndarray]  # the next picture → boxes (N, 4), px
Start = Callable[[Picture, np.ndarray], Step]
HORIZONS = (3, 5, 10, 25)  # frames
TALL, SEEN = 24, 0.7  # px; visibility: what is followed


def stay(bgr: Picture, boxes: np.ndarray) -> Step:
    return lambda _: boxes


def flow(bgr: Picture, boxes: np.ndarray) -> Step:
    shift, at = FlowShift(bgr.shape[1]), boxes
    shift.remember(reduced(bgr), Tracks.empty())

    def step(picture: Picture) -> np.ndarray:
        nonlocal at
        at, _ = shift.step(reduced(picture), tracks(at))
        return at

    return step


def tracks(boxes: np.ndarray) -> Tracks:
    n = len(boxes)
    f, i, xyxy = np.zeros(n, np.float32), np.zeros(n, np.int64), boxes.astype(np.float32)
    return Tracks(i, xyxy, f, i, np.zeros((n, 2), np.float32), f, f, i, np.ones(n, bool))


def correlation(bgr: Picture, boxes: np.ndarray) -> Step:
    grey = reduced(bgr)
    scale = grey.shape[1] / bgr.shape[1]
    filters = Correlation(grey, boxes * scale)
    return lambda picture: filters.step(reduced(picture))[0] / scale


def opencv(name: str) -> Start:
    create = getattr(cv2, name).create

    def start(bgr: Picture, boxes: np.ndarray) -> Step:
        each = [create() for _ in boxes]
        for tracker, (left, top, right, bottom) in zip(each, boxes.round().astype(int).tolist(), strict=True):
            tracker.init(bgr, (left, top, max(right - left, 2), max(bottom - top, 2)))
        at = boxes.astype(np.float64)

        def step(picture: Picture) -> np.ndarray:
            for i, tracker in enumerate(each):
                found, (x, y, w, h) = tracker.update(picture)
                if found:
                    at[i] = x, y, x + w, y + h
            return at

        return step

    return start


WAYS: dict[str, Start] = {
    "stay where it was": stay,
    "edgecnn flow": flow,
    "edgecnn correlation": correlation,
    **{
        f"OpenCV {name[7:]}": opencv(name) for name in ("TrackerMIL", "TrackerKCF", "TrackerCSRT") if hasattr(cv2, name)
    },
}


def drive(seed: int, frames: int) -> list[tuple[Picture, Truth]]:
    return [(frame.bgr, truth) for frame, truth, _ in Drive(seed, frames)]


def carried(clip: list[tuple[Picture, Truth]], start: Start, every: int = 25) -> dict[int, list[float]]:
    """Horizon → IoU of every object that is well visible at the start and still there at the horizon."""
    out: dict[int, list[float]] = {h: [] for h in HORIZONS}
    for first in range(0, len(clip) - HORIZONS[-1], every):
        bgr, truth = clip[first]
        tall = truth.xyxy[:, 3] - truth.xyxy[:, 1]
        whole = (truth.xyxy[:, :2] > 1).all(1) & (truth.xyxy[:, 2:] < (bgr.shape[1] - 1, bgr.shape[0] - 1)).all(1)
        begun = truth[(tall >= TALL) & (truth.visibility >= SEEN) & ~truth.ignore & whole]
        if not len(begun):
            continue
        step = start(bgr, begun.xyxy)
        for k in range(1, HORIZONS[-1] + 1):
            picture, now = clip[first + k]
            boxes = step(picture)
            if k in out:
                seen = now[(now.visibility >= SEEN) & ~now.ignore]
                i, j = np.nonzero(begun.id[:, None] == seen.id)
                out[k] += np.diag(iou(boxes[i], seen.xyxy[j])).tolist()
    return out


def whole_life(folder: Path) -> tuple[list[Picture], np.ndarray]:
    lines = (folder / "groundtruth_rect.txt").read_text("utf-8").split("\n")
    boxes = np.array([re.split(r"[,\s]+", line.strip()) for line in lines if line.strip()], np.float64)
    boxes[:, 2:] += boxes[:, :2]
    return [read_picture(path) for path in pictures_in(folder / "img")], boxes


def time_ms(start: Start, objects: int, frames: int = 15) -> float:
    """Least time of a step on 1280x720 pictures of a texture that moves by 2 px: other work here can only add to it."""
    texture = cv2.resize(np.random.default_rng(0).integers(0, 256, (100, 170, 3), np.uint8), (1360, 800))
    x = np.linspace(60, 1100, objects)
    step = start(texture[:720, :1280], np.stack([x, x * 0 + 300, x + 80, x * 0 + 380], axis=1))
    times = []
    for k in range(1, frames):
        picture = np.ascontiguousarray(texture[2 * k : 2 * k + 720, 2 * k : 2 * k + 1280])
        begun = time.perf_counter()
        step(picture)
        times.append(time.perf_counter() - begun)
    return 1e3 * min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="Car4: img/ and groundtruth_rect.txt")
    parser.add_argument("--seeds", type=int, nargs="+", default=[9700, 9701, 9702, 9703], help="of drives")
    parser.add_argument("--frames", type=int, default=101, help="of each drive")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    pictures, truth = whole_life(args.folder)
    clips = [drive(seed, args.frames) for seed in args.seeds]
    cells = " | ".join(f"{h} frames" for h in HORIZONS)
    print(f"| | {cells} | Car4, {len(pictures)} frames | 1 object, ms | 10 objects, ms |\n" + "|---" * 8 + "|")
    for name, start in WAYS.items():
        found = [carried(clip, start) for clip in clips]
        means = [np.mean([value for f in found for value in f[h]]) for h in HORIZONS]
        step = start(pictures[0], truth[:1])
        life = [float(iou(step(p), t[None])[0, 0]) for p, t in zip(pictures[1:], truth[1:], strict=True)]
        ms = [time_ms(start, n) for n in (1, 10)]
        row = [*(f"{m:.3f}" for m in means), f"{np.mean([1.0, *life]):.3f}", *(f"{m:.1f}" for m in ms)]
        print(f"| {name} | {' | '.join(row)} |", flush=True)
    print(f"\n{sum(len(f[HORIZONS[0]]) for f in found)} starts, objects at least {TALL} px tall")


if __name__ == "__main__":
    main()
