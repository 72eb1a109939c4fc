"""How the loop's detections err on simulated drives: `python benchmarks/detector_noise.py BUNDLE`.

Boxes against the truth (the best pairs of IoU >= 0.3), of what lay in the whole frames and windows that the loop looked
at. By height: errors in px as half the range that holds 68 per cent, what of them changes within a time, misses,
scores, and boxes on nobody. Then by score, as shares of the width: what edgecnn.adas.ttc takes a box to be worth.
benchmarks/false_alarms.py uses them.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np

from edgecnn.adas import Camera
from edgecnn.backends import open_backend
from edgecnn.bundle import Bundle
from edgecnn.data.simulator import Drive
from edgecnn.progress import columns, tracked
from edgecnn.run import Pipeline, RunSettings
from edgecnn.track.assign import assign, intersection, iou

FPS = 25.0
HEIGHTS = (8, 14, 20, 30, 50, 90, 400)
LAGS = (1, 3, 6, 12, 25)  # frames
SCORES = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0)
SEED, ID, FRAME, HEIGHT, LEFT, TOP, RIGHT, BOTTOM, SCORE, WHOLE, WIDE = range(11)


def spread(values: np.ndarray) -> float:
    low, high = np.quantile(values, (0.16, 0.84)) if len(values) else (np.nan, np.nan)
    return float(high - low) / 2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--precision", default="int8", choices=("fp32", "int8"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(100, 108)))
    parser.add_argument("--frames", type=int, default=125)
    args = parser.parse_args()
    bundle = Bundle.read(args.bundle)
    model, backend = bundle.require_model(), open_backend(bundle, args.precision, threads=1)
    settings = RunSettings.of(bundle)
    rows, alone, frames = [], [], 0
    for seed in tracked(args.seeds, "drives", len(args.seeds)):
        drive = Drive(seed, args.frames)
        lens = drive.camera
        camera = Camera(lens.fx, lens.fy, lens.cx, lens.cy, lens.height_m, lens.pitch_rad)
        pipeline = Pipeline(model, backend, settings, fps=drive.fps, camera=camera)
        for frame, truth, _ in drive:
            result = pipeline.step(frame)
            found = result.detections
            if found is None:
                continue
            inside = intersection(truth.xyxy, result.searched).max(1, initial=0.0)
            area = (truth.xyxy[:, 2:] - truth.xyxy[:, :2]).prod(1)
            seen = truth[~truth.ignore & (truth.visibility > 0.7) & (inside > 0.9 * area)]
            i, j = assign(iou(seen.xyxy, found.xyxy), 0.3)
            error, score = np.full((len(seen), 4), np.nan), np.zeros(len(seen))
            error[i], score[i] = found.xyxy[j] - seen.xyxy[i], found.score[j]
            limit = (frame.bgr.shape[1] - 2, frame.bgr.shape[0] - 2)
            whole = (seen.xyxy[:, :2] > 2).all(1) & (seen.xyxy[:, 2:] < limit).all(1)
            for k in range(len(seen)):
                wide, height = seen.xyxy[k, 2:] - seen.xyxy[k, :2]
                rows.append((seed, seen.id[k], frame.index, height, *error[k], score[k], whole[k], wide))
            alone += found.score[iou(found.xyxy, truth.xyxy).max(1, initial=0.0) < 0.1].tolist()
            frames += 1
    report(np.array(rows), settings.score)
    by_score(np.array(rows))
    ghosts = np.array(alone)
    strong = ghosts[ghosts >= settings.score]
    print(
        f"\nboxes on nobody, a frame: {len(strong) / frames:.3f} strong, {(len(ghosts) - len(strong)) / frames:.3f} "
        f"weak; scores of the strong: median {np.median(strong):.2f}, 90 % below {np.quantile(strong, 0.9):.2f}"
    )


def report(table: np.ndarray, strong: float) -> None:
    lags = [f"left, width after {lag / FPS:.2f} s" for lag in LAGS]
    out = [("height px", "boxes", "missed", "weak", "score", "left", "bottom", "width", "mean width", *lags)]
    for low, high in pairwise(HEIGHTS):
        part = table[(table[:, HEIGHT] >= low) & (table[:, HEIGHT] < high)]
        hit = part[(part[:, SCORE] > 0) & (part[:, WHOLE] > 0)]
        width = hit[:, RIGHT] - hit[:, LEFT]
        weak = ((part[:, SCORE] > 0) & (part[:, SCORE] < strong)).mean()
        figures = (spread(hit[:, LEFT]), spread(hit[:, BOTTOM]), spread(width), np.median(width))
        at = {tuple(row[: FRAME + 1]): k for k, row in enumerate(hit)}
        passing = []
        for lag in LAGS:
            pairs = [(k, at[then]) for k, row in enumerate(hit) if (then := (row[0], row[1], row[2] + lag)) in at]
            a, b = np.array(pairs).reshape(-1, 2).T
            change = spread(hit[b, LEFT] - hit[a, LEFT]), spread(width[b] - width[a])
            passing.append(" ".join(f"{x / 2**0.5:.2f}" for x in change))
        shares = f"{(part[:, SCORE] == 0).mean():.2f}", f"{weak:.2f}", f"{part[:, SCORE].mean():.2f}"
        out.append((f"{low} to {high}", str(len(part)), *shares, *(f"{x:.2f}" for x in figures), *passing))
    print(columns(out))


def by_score(table: np.ndarray) -> None:
    """Errors of ln(width) about the object's own median, for boxes from 14 px of height on."""
    hit = table[(table[:, SCORE] > 0) & (table[:, WHOLE] > 0) & (table[:, HEIGHT] >= 14)]
    error = np.log(np.maximum(hit[:, WIDE] + hit[:, RIGHT] - hit[:, LEFT], 1) / hit[:, WIDE])
    _, owner = np.unique(hit[:, :FRAME], axis=0, return_inverse=True)
    for k in range(owner.max(initial=-1) + 1):
        error[owner == k] -= np.median(error[owner == k])
    out = [("score", "boxes", "deviation of the width, share", "68 % within")]
    for low, high in pairwise(SCORES):
        part = error[(hit[:, SCORE] >= low) & (hit[:, SCORE] < high)]
        out.append((f"{low:g} to {high:g}", str(len(part)), f"{part.std():.3f}", f"{spread(part):.3f}"))
    print("\n" + columns(out))


if __name__ == "__main__":
    main()
