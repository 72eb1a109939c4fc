"""How well optical flow tells an object's growth, on simulated drives: `python benchmarks/growth_noise.py BUNDLE`.

The boxes of the loop's own tracks (IoU >= 0.5 with an object that is not hidden) are followed from frame to frame, and
d ln(size) is held against the ratio of true distances. By size in px: half the range that holds 68 per cent of the
errors, the same of what stands in our path, the median of what flow itself said, and errors beyond three of those.
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
from edgecnn.data.classes import PERSON
from edgecnn.data.scenario import find_scenario
from edgecnn.data.simulator import Drive
from edgecnn.progress import columns, tracked
from edgecnn.run import Pipeline, RunSettings
from edgecnn.run.loop import reduced
from edgecnn.track.assign import assign, iou
from edgecnn.track.flow import FlowShift

SCENARIOS = ("stopped_lead", "following", "braking_lead", "ccrb_12_6", "cut_in", "parked_curve", "oncoming", "cpna_40")
SIZES = (10, 16, 24, 40, 80, 400)
SIZE, LABEL, ERROR, SAID, OURS = range(5)


def rows_of(drive: Drive, pipeline: Pipeline) -> list[tuple[float, ...]]:
    rows: list[tuple[float, ...]] = []
    flow, before = FlowShift(drive.camera.width), None
    for frame, truth, _ in drive:
        result = pipeline.step(frame)
        then, tracks, ours = before or (truth, result.tracks, result.scene.in_path)
        before = truth, result.tracks, result.scene.in_path
        flow.step(reduced(frame.bgr), tracks)
        i, j = assign(iou(then.xyxy, tracks.xyxy), 0.5)
        for a, b in zip(i.tolist(), j.tolist(), strict=True):
            now = np.flatnonzero(truth.id == then.id[a])
            if then.visibility[a] < 0.9 or not len(now) or not len(flow.growth) or np.isnan(flow.growth.log[b]):
                continue
            size = float(np.sqrt((then.xyxy[a, 2:] - then.xyxy[a, :2]).prod()))
            true = np.log(then.distance_m[a] / truth.distance_m[now[0]])
            error, said = float(flow.growth.log[b] - true), float(flow.growth.sigma[b])
            rows.append((size, float(then.label[a]), error, said, float(ours[b])))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seed", type=int, default=9500)
    parser.add_argument("--traffic", type=int, default=3, help="drives of random traffic beside the scenarios")
    args = parser.parse_args()
    bundle = Bundle.read(args.bundle)
    model, backend = bundle.require_model(), open_backend(bundle, "int8", threads=1)
    drives = [Drive(args.seed, scenario=find_scenario(name)) for name in SCENARIOS]
    drives += [Drive(args.seed + k, 150) for k in range(args.traffic)]
    rows = []
    for drive in tracked(drives, "drives", len(drives)):
        lens = drive.camera
        camera = Camera(lens.fx, lens.fy, lens.cx, lens.cy, lens.height_m, lens.pitch_rad)
        rows += rows_of(drive, Pipeline(model, backend, RunSettings.of(bundle), fps=drive.fps, camera=camera))
    report(np.array(rows))


def spread(values: np.ndarray) -> str:
    return f"{(np.quantile(values, 0.84) - np.quantile(values, 0.16)) / 2:.2%}" if len(values) > 9 else "–"


def report(table: np.ndarray) -> None:
    out = [("of", "size px", "growths", "error", "in our path", "said by flow", "beyond three of that")]
    for name, of_kind in (("vehicles", table[:, LABEL] != PERSON), ("people", table[:, LABEL] == PERSON)):
        for low, high in pairwise(SIZES):
            part = table[of_kind & (table[:, SIZE] >= low) & (table[:, SIZE] < high)]
            if len(part) < 30:
                continue
            wild = (np.abs(part[:, ERROR]) > 3 * part[:, SAID]).mean()
            ours = spread(part[part[:, OURS] > 0, ERROR])
            said = f"{np.median(part[:, SAID]):.2%}"
            out.append((name, f"{low} to {high}", str(len(part)), spread(part[:, ERROR]), ours, said, f"{wild:.0%}"))
    print(columns(out))


if __name__ == "__main__":
    main()
