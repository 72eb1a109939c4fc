"""Accuracy and time of the tracker on public detections: `python -m benchmarks.tracking ../shared/data/tracking`.

Prints markdown. MOT15: MOTChallenge's public detections and truth (rows with flag 0 are left out), each sequence by
itself and the two TUD ones together. KITTI: PointRCNN's detections; vans beside cars, seated people beside
pedestrians, and DontCare regions are ignored. The folders hold `MOT15/<sequence>/{det,gt,seqinfo.ini}` and
`KITTI/{label_02,det_pointrcnn_<class>}/<sequence>.txt`.
"""

from __future__ import annotations

import argparse
import configparser
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecnn.metrics.tracking import evaluate_tracks
from edgecnn.scene import Detections, Tracks, Truth
from edgecnn.track import Settings, Tracker

_SIMILAR = {"Car": "Van", "Pedestrian": "Person_sitting"}  # KITTI: neither hit nor miss


@dataclass(frozen=True)
class Recording:
    """Detections and truth of each frame."""

    frames: Sequence[tuple[Detections, Truth]]
    fps: float
    size: tuple[int, int]  # width, height


def mot15(folder: Path) -> Recording:
    """A sequence in MOTChallenge's text format."""
    ini = configparser.ConfigParser()
    ini.read_string((folder / "seqinfo.ini").read_text())
    info = ini["Sequence"]
    found = np.loadtxt(folder / "det" / "det.txt", delimiter=",", ndmin=2)
    true = np.loadtxt(folder / "gt" / "gt.txt", delimiter=",", ndmin=2)
    true = true[true[:, 6] != 0]
    for rows in (found, true):
        rows[:, 4:6] += rows[:, 2:4]
    frames = []
    for k in range(1, 1 + int(max(found[:, 0].max(), true[:, 0].max()))):
        f, t = found[found[:, 0] == k], true[true[:, 0] == k]
        frames.append((_detections(f[:, 2:6], f[:, 6]), _truth(t[:, 2:6], t[:, 1], np.zeros(len(t), bool))))
    return Recording(frames, float(info["frameRate"]), (int(info["imWidth"]), int(info["imHeight"])))


def kitti(folder: Path, name: str, kind: str) -> Recording:
    """A sequence of KITTI tracking, one class; the detector's score, a logit, goes through a sigmoid."""
    found = np.loadtxt(folder / f"det_pointrcnn_{kind}" / f"{name}.txt", delimiter=",", ndmin=2)
    rows = [line.split() for line in (folder / "label_02" / f"{name}.txt").read_text().splitlines()]
    frames = []
    for k in range(1 + max(int(row[0]) for row in rows)):
        f = found[found[:, 0] == k]
        mine = [row for row in rows if int(row[0]) == k and row[2] in (kind, _SIMILAR[kind], "DontCare")]
        boxes = np.array([row[6:10] for row in mine], np.float64)
        truth = _truth(boxes, np.array([int(row[1]) for row in mine]), np.array([row[2] != kind for row in mine], bool))
        frames.append((_detections(f[:, 2:6], 1 / (1 + np.exp(-f[:, 6]))), truth))
    return Recording(frames, 10.0, (1242, 375))


def play(sequence: Recording, settings: Settings | None = None) -> Iterator[tuple[Tracks, Truth]]:
    """What the tracker makes of each frame, beside the truth."""
    tracker = Tracker(settings, sequence.fps)
    for k, (detections, truth) in enumerate(sequence.frames):
        yield tracker.step(detections, round(k * 1e9 / sequence.fps), frame_size=sequence.size), truth


def frame_ms(objects: int, frames: int = 200, rounds: int = 5) -> float:
    """Median over the frames, of the best of `rounds`, with that many moving objects, 5 % of them missed in a frame."""
    random = np.random.default_rng(0)
    at, speed = random.uniform(0, [1800, 1000], (objects, 2)), random.normal(0, 60, (objects, 2))
    side = random.uniform(20, 100, (objects, 2))
    frames_ = []
    for k in range(frames):
        corner = np.mod(at + speed * k / 30, [1800, 1000])
        xyxy = np.concatenate([corner, corner + side], axis=1) + random.normal(0, 1, (objects, 4))
        kept = random.random(objects) > 0.05
        frames_.append(_detections(xyxy[kept], random.uniform(0.3, 1, objects)[kept]))
    best = np.full(frames, np.inf)
    for _ in range(rounds):
        tracker = Tracker()
        for k, detections in enumerate(frames_):
            start = time.perf_counter()
            tracker.step(detections, round(k * 1e9 / 30), frame_size=(1920, 1080))
            best[k] = min(best[k], time.perf_counter() - start)
    return 1e3 * float(np.median(best))


def _detections(xyxy: np.ndarray, score: np.ndarray) -> Detections:
    return Detections(xyxy.astype(np.float32), score.astype(np.float32), np.zeros(len(score), np.int64))


def _truth(xyxy: np.ndarray, number: np.ndarray, ignore: np.ndarray) -> Truth:
    n = len(number)
    boxes, label = xyxy.reshape(n, 4).astype(np.float32), np.zeros(n, np.int64)
    return Truth.of(boxes, label, id=number.astype(np.int64), ignore=ignore)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds MOT15/ and KITTI/")
    folder = parser.parse_args().folder
    runs = {path.name: [mot15(path)] for path in sorted((folder / "MOT15").iterdir()) if path.is_dir()}
    runs = {"TUD-Campus + TUD-Stadtmitte": [*runs["TUD-Campus"], *runs["TUD-Stadtmitte"]]} | runs
    for kind in _SIMILAR:
        names = sorted(path.stem for path in (folder / f"KITTI/det_pointrcnn_{kind}").glob("*.txt"))
        runs[f"KITTI {kind}, {' '.join(names)}"] = [kitti(folder / "KITTI", name, kind) for name in names]
    print("| sequence | HOTA | DetA | AssA | MOTA | IDF1 | switches |\n|---|---|---|---|---|---|---|")
    for name, sequences in runs.items():
        f = evaluate_tracks([play(sequence) for sequence in sequences])
        shares = " | ".join(f"{100 * f[key]:.1f}" for key in ("HOTA", "DetA", "AssA", "MOTA", "IDF1"))
        print(f"| {name} | {shares} | {f['switches']:.0f} |", flush=True)
    print("\n| objects in a frame | ms a frame |\n|---|---|")
    for objects in (10, 50, 200):
        print(f"| {objects} | {frame_ms(objects):.2f} |", flush=True)


if __name__ == "__main__":
    main()
