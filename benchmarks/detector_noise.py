"""How a detector errs on simulated drives, frame by frame: `python benchmarks/detector_noise.py BUNDLE --out noise.npz`.

Every detector frame's boxes against the truth (IoU >= 0.3, the best): errors of the sides in px, their correlation from
one time to the next, misses by height, and boxes that lie on nobody. The figures in benchmarks/false_alarms.py are its.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from edgecnn.backends import open_backend
from edgecnn.bundle import Bundle
from edgecnn.data.simulator import Drive
from edgecnn.progress import columns, tracked
from edgecnn.run import RunSettings
from edgecnn.track.assign import assign, iou
from edgecnn.vision import DecodeDetections, Preprocess

FPS = 25.0


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
    preprocess, decode = Preprocess(model), DecodeDetections(model, score=settings.score / 3, iou=settings.iou)
    rows, false, frames = [], [], 0
    for seed in tracked(args.seeds, "drives", len(args.seeds)):
        for frame, truth, _ in Drive(seed, args.frames):
            tensor, box = preprocess(frame.bgr)
            found = decode(backend({model.input.name: tensor}), box)
            frames += 1
            seen = truth[~truth.ignore & (truth.visibility > 0.7)]
            overlap = iou(seen.xyxy, found.xyxy)
            i, j = assign(overlap, 0.3)
            error, score = np.full((len(seen), 4), np.nan), np.zeros(len(seen))
            error[i], score[i] = found.xyxy[j] - seen.xyxy[i], found.score[j]
            inside = (seen.xyxy[:, :2] > 2).all(1) & (seen.xyxy[:, 2:] < (frame.bgr.shape[1] - 2, frame.bgr.shape[0] - 2)).all(1)
            side = seen.xyxy[:, 2:] - seen.xyxy[:, :2]
            for k in range(len(seen)):
                rows.append((seed, seen.id[k], frame.index, *side[k], *error[k], score[k], inside[k]))
            free = iou(found.xyxy, truth.xyxy).max(1, initial=0.0) < 0.1
            false += found.score[free].tolist()
    table = np.array(rows)
    np.savez("/tmp/w-scen-work/noise.npz", table=table, false=np.array(false), frames=frames)
    report(table, np.array(false), frames, settings.score)


def report(table: np.ndarray, false: np.ndarray, frames: int, strong: float) -> None:
    height = table[:, 4]
    out = [("height px", "n", "width error px", "height error px", "left", "bottom", "missed", "weak")]
    for low, high in ((8, 14), (14, 20), (20, 30), (30, 50), (50, 90), (90, 400)):
        part = table[(height >= low) & (height < high)]
        hit = part[(part[:, 9] > 0) & (part[:, 10] > 0)]
        e = hit[:, 5:9]
        spread = [np.nanstd(x) for x in (e[:, 2] - e[:, 0], e[:, 3] - e[:, 1], e[:, 0], e[:, 3])]
        missed, weak = (part[:, 9] == 0).mean(), ((part[:, 9] > 0) & (part[:, 9] < strong)).mean()
        out.append((f"{low} to {high}", str(len(part)), *(f"{x:.2f}" for x in spread), f"{missed:.2f}", f"{weak:.2f}"))
    print(columns(out))
    print()
    lags = (1, 2, 3, 6, 9, 12, 25)
    out = [("lag s", "left", "top", "right", "bottom", "width", "height", "missed")]
    order = np.lexsort((table[:, 2], table[:, 1], table[:, 0]))
    t = table[order]
    t = t[(t[:, 4] > 20) & (t[:, 10] > 0)]
    for lag in lags:
        pairs = []
        key = {tuple(r[:3]): k for k, r in enumerate(t)}
        pairs = [(k, key[n]) for k, r in enumerate(t) if (n := (r[0], r[1], r[2] + lag)) in key]
        a, b = t[[p[0] for p in pairs]], t[[p[1] for p in pairs]]
        both = (a[:, 9] > 0) & (b[:, 9] > 0)
        columns_ = [a[:, 5 + c] for c in range(4)] + [a[:, 7] - a[:, 5], a[:, 8] - a[:, 6]]
        other = [b[:, 5 + c] for c in range(4)] + [b[:, 7] - b[:, 5], b[:, 8] - b[:, 6]]
        share = [np.corrcoef(x[both], y[both])[0, 1] for x, y in zip(columns_, other, strict=True)]
        share.append(np.corrcoef(a[:, 9] == 0, b[:, 9] == 0)[0, 1])
        out.append((f"{lag / FPS:.2f}", *(f"{x:.2f}" for x in share)))
    print(columns(out))
    print(f"\nboxes on nobody: {(false >= strong).sum() / frames:.3f} strong, {(false < strong).sum() / frames:.3f} weak a frame")


if __name__ == "__main__":
    main()
