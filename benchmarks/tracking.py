"""Accuracy and time of trackers on public detections: `python -m benchmarks.tracking ../shared/data/tracking`.

Prints markdown. MOT15: MOTChallenge's public detections and truth, each sequence by itself and the two TUD ones
together. KITTI: PointRCNN's detections; vans beside cars, seated people beside pedestrians, and DontCare regions are
ignored. The folders hold `MOT15/<sequence>/{det,gt,seqinfo.ini}` and
`KITTI/{label_02,det_pointrcnn_<class>}/<sequence>.txt`. With --peers other trackers that are installed take part, each
with its own defaults (see track_peers.py): HOTA / IDF1 a recording, and time, all in turn on the same made-up boxes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.track_peers import Step, here
from edgecnn.data.mot import read_seqinfo
from edgecnn.data.recorded import read_detections, read_truth
from edgecnn.metrics.tracking import Identified, evaluate_tracks
from edgecnn.scene import Detections, Tracks, Truth
from edgecnn.track import METHODS, MOVING, Settings, Tracker

KITTI = ("Car", "Pedestrian")


@dataclass(frozen=True)
class Recording:
    """Detections and truth of each frame."""

    frames: Sequence[tuple[Detections, Truth]]
    fps: float
    size: tuple[int, int]  # width, height
    moving: bool  # camera


def mot15(folder: Path) -> Recording:
    """A sequence in MOTChallenge's text format."""
    info = read_seqinfo(folder)
    return recorded(folder / "det/det.txt", folder / "gt/gt.txt", info.fps, (info.width, info.height), moving=False)


def kitti(folder: Path, name: str, kind: str) -> Recording:
    """A sequence of KITTI tracking, one class."""
    found, true = folder / f"det_pointrcnn_{kind}" / f"{name}.txt", folder / "label_02" / f"{name}.txt"
    return recorded(found, true, 10.0, (1242, 375), moving=True)


def recorded(found: Path, true: Path, fps: float, size: tuple[int, int], *, moving: bool) -> Recording:
    recording = read_detections(found)
    truth = read_truth(true, recording)
    frames = [*recording.frames, *[recording.frames[0][:0]] * (len(truth) - len(recording.frames))]
    return Recording(list(zip(frames, truth, strict=True)), fps, size, moving)


def play(sequence: Recording, settings: Settings | None = None) -> Iterator[tuple[Tracks, Truth]]:
    """What the tracker makes of each frame, beside the truth."""
    chosen = settings or Settings()
    tracker = Tracker(replace(chosen, noise=MOVING) if sequence.moving else chosen, sequence.fps)
    for k, (detections, truth) in enumerate(sequence.frames):
        yield tracker.step(detections, round(k * 1e9 / sequence.fps), frame_size=sequence.size), truth


def play_peer(sequence: Recording, start: Callable[[float], Step]) -> Iterator[tuple[Identified, Truth]]:
    step = start(sequence.fps)
    for detections, truth in sequence.frames:
        yield step(detections), truth


def moving(objects: int, frames: int = 100) -> list[Detections]:
    """That many objects, each at its own speed, and 5 % of them missed in a frame."""
    random = np.random.default_rng(0)
    at, speed = random.uniform(0, [1800, 1000], (objects, 2)), random.normal(0, 60, (objects, 2))
    side = random.uniform(20, 100, (objects, 2))
    found = []
    for k in range(frames):
        corner = np.mod(at + speed * k / 30, [1800, 1000])
        xyxy = np.concatenate([corner, corner + side], axis=1) + random.normal(0, 1, (objects, 4))
        kept = random.random(objects) > 0.05
        found.append(_detections(xyxy[kept], random.uniform(0.3, 1, objects)[kept]))
    return found


def own(fps: float) -> Step:
    tracker, t_ns = Tracker(fps=fps), iter(range(0, 10**15, round(1e9 / fps)))
    return lambda found: tracker.step(found, next(t_ns), frame_size=(1920, 1080))


def frame_ms(frames: Sequence[Detections], trackers: dict[str, Callable[[float], Step]], rounds: int = 5) -> np.ndarray:
    """(rounds, trackers): the median over the frames, the trackers taking turns."""
    out = np.zeros((rounds, len(trackers)))
    for round_ in range(rounds):
        for i, start in enumerate(trackers.values()):
            step, times = start(30.0), []
            for found in frames:
                begun = time.perf_counter()
                step(found)
                times.append(time.perf_counter() - begun)
            out[round_, i] = 1e3 * np.median(times)
    return out


def speed(peers: dict[str, Callable[[float], Step]]) -> None:
    trackers = {"edgecnn": own, **peers}
    print("\n| objects in a frame | " + " | ".join(trackers) + " |\n" + "|---" * (1 + len(trackers)) + "|")
    for objects in (10, 50, 200):
        ms = frame_ms(moving(objects), trackers)
        median, ratio = np.median(ms, axis=0), np.median(ms / ms[:, :1], axis=0)
        cells = [f"{m:.2f} ms, x {r:.1f}" for m, r in zip(median, ratio, strict=True)]
        print(f"| {objects} | " + " | ".join(cells) + " |", flush=True)


def _detections(xyxy: np.ndarray, score: np.ndarray) -> Detections:
    return Detections(xyxy.astype(np.float32), score.astype(np.float32), np.zeros(len(score), np.int64))


def beside_peers(runs: dict[str, list[Recording]], others: dict[str, Callable[[float], Step]]) -> None:
    """HOTA / IDF1 of each method and each peer on each recording."""
    print("\n| tracker | " + " | ".join(runs) + " |\n" + "|---" * (1 + len(runs)) + "|")
    own = {f"edgecnn, {name}": lambda s, m=method: play(s, m) for name, method in METHODS.items()}
    peers = {name: lambda s, p=peer: play_peer(s, p) for name, peer in others.items()}
    for name, follow in {**own, **peers}.items():
        figures = [evaluate_tracks([follow(s) for s in sequences]) for sequences in runs.values()]
        print(
            f"| {name} | " + " | ".join(f"{100 * f['HOTA']:.1f} / {100 * f['IDF1']:.1f}" for f in figures) + " |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds MOT15/ and KITTI/")
    parser.add_argument("--speed", action="store_true", help="time only")
    parser.add_argument("--peers", nargs="*", metavar="NAME", help="beside other trackers; all that are here, or these")
    args = parser.parse_args()
    peers = here(args.peers) if args.peers is not None else {}
    if args.speed:
        return speed(peers)
    folder = args.folder
    runs = {path.name: [mot15(path)] for path in sorted((folder / "MOT15").iterdir()) if path.is_dir()}
    runs = {"TUD-Campus + TUD-Stadtmitte": [*runs["TUD-Campus"], *runs["TUD-Stadtmitte"]]} | runs
    for kind in KITTI:
        names = sorted(path.stem for path in (folder / f"KITTI/det_pointrcnn_{kind}").glob("*.txt"))
        runs[f"KITTI {kind}, {' '.join(names)}"] = [kitti(folder / "KITTI", name, kind) for name in names]
    print("| sequence | HOTA | DetA | AssA | MOTA | IDF1 | switches |\n|---|---|---|---|---|---|---|")
    for name, sequences in runs.items():
        f = evaluate_tracks([play(sequence) for sequence in sequences])
        shares = " | ".join(f"{100 * f[key]:.1f}" for key in ("HOTA", "DetA", "AssA", "MOTA", "IDF1"))
        print(f"| {name} | {shares} | {f['switches']:.0f} |", flush=True)
    if peers:
        beside_peers(runs, peers)
    speed(peers)


if __name__ == "__main__":
    main()
