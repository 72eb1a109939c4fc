"""What detecting every k-th frame costs and saves: `python benchmarks/stride.py BUNDLE`.

Simulated drives that nothing was trained on; HOTA, MOTA and IDF1 over all of them, and the share of the detector's MACs
that is not spent. Markdown on standard output.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecnn.adas import Camera
from edgecnn.backends import open_backend
from edgecnn.bundle import Bundle
from edgecnn.data.simulator import Drive
from edgecnn.metrics.tracking import evaluate_tracks
from edgecnn.progress import tracked
from edgecnn.run import Pipeline, RunSettings


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "int8"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[9500, 9501, 9502, 9503])
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--every", type=int, nargs="+", default=[1, 2, 3, 5])
    args = parser.parse_args()

    bundle = Bundle.read(args.bundle)
    model, backend = bundle.require_model(), open_backend(bundle, args.precision)
    settings = {k: RunSettings.of(bundle, detect_every=k) for k in args.every}
    sequences = {k: [] for k in args.every}
    detected = dict.fromkeys(args.every, 0)
    for seed in args.seeds:
        drive = Drive(seed, args.frames)
        lens = drive.camera
        camera = Camera(lens.fx, lens.fy, lens.cx, lens.cy, lens.height_m, lens.pitch_rad)
        pipelines = {k: Pipeline(model, backend, s, fps=drive.fps, camera=camera) for k, s in settings.items()}
        for k in args.every:
            sequences[k].append([])
        for frame, truth, _ in tracked(drive, f"drive {seed}", len(drive)):
            for k, pipeline in pipelines.items():
                result = pipeline.step(frame)
                sequences[k][-1].append((result.tracks, truth))
                detected[k] += result.detections is not None
    total = args.frames * len(args.seeds)
    print(f"{len(args.seeds)} drives of {args.frames} frames, {args.precision}\n")
    print("| detect every | HOTA | MOTA | IDF1 | detector ran in | MACs saved |")
    print("|---|---|---|---|---|---|")
    for k in args.every:
        figures = evaluate_tracks(sequences[k])
        cells = " | ".join(f"{100 * figures[name]:.1f}" for name in ("HOTA", "MOTA", "IDF1"))
        print(f"| {k} | {cells} | {detected[k]} of {total} frames | {1 - detected[k] / total:.0%} |")


if __name__ == "__main__":
    main()
