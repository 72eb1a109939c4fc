"""What the second stage makes of signs that we drive past: `python benchmarks/signs.py SIGNS GTSRB/test`. Markdown.

SIGNS is a classifier's bundle whose classes are the folders of GTSRB/test (recipes/gtsrb.yaml). Each passage pastes one
picture into the frames of a simulated drive, on a post right of the road, 60 m to 8 m away at 15 m/s, 25 frames a
second. Without --detector its box is given to the tracker as a good detector would: sides off by 4 % of the size, one
frame in ten missed. With --detector BUNDLE a network must find it: --of names its class, --only the folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from edgecnn.backends import Backend, open_backend
from edgecnn.bundle import Bundle, ModelSpec
from edgecnn.data.simulator import Drive
from edgecnn.progress import tracked
from edgecnn.run import Pipeline, RunSettings
from edgecnn.run.second import SecondSettings, SecondStage
from edgecnn.scene import Detections, Frame, Tracks
from edgecnn.track import Tracker
from edgecnn.track.assign import iou

FPS, SPEED_MPS = 25.0, 15.0
FAR_M, NEAR_M = 60.0, 8.0
RIGHT_M, UP_M, SIGN_M = 3.6, 1.0, 0.7  # of the sign's middle, from the camera; its side
SHOWN = 0.8  # share of a GTSRB picture's side that the sign takes
NOISE, MISSED = 0.04, 0.1  # of the boxes given
BINS = ((12, 16), (16, 24), (24, 36), (36, 99))  # px, side of the sign


@dataclass
class Seen:
    """One frame of one passage in which the sign stands."""

    side: float  # px
    tracked: bool
    name: str  # by the second stage, "" = none yet
    once: str  # the name of a single look, whatever its probability
    truth: str


def passage(pictures: list[np.ndarray], sign: np.ndarray) -> Iterator[tuple[Frame, np.ndarray]]:
    """Frames with the sign pasted in, and its box xyxy (4,) px."""
    height, width = pictures[0].shape[:2]
    for i in range(int((FAR_M - NEAR_M) / SPEED_MPS * FPS)):
        z = FAR_M - i * SPEED_MPS / FPS
        u, v = width / 2 + width * RIGHT_M / z, height / 2 - width * UP_M / z
        half = width * SIGN_M / z / 2
        if u + half / SHOWN >= width or v - half / SHOWN < 0:
            return
        bgr = pictures[i % len(pictures)].copy()
        cv2.rectangle(bgr, (round(u - half / 12), round(v)), (round(u + half / 12), round(v + 5 * half)), (96,) * 3, -1)
        paste(bgr, sign, u, v, half / SHOWN)
        yield Frame(i, round(i / FPS * 1e9), bgr), np.array([u - half, v - half, u + half, v + half], np.float32)


def paste(bgr: np.ndarray, sign: np.ndarray, u: float, v: float, half: float) -> None:
    """The picture `sign`, BGR or BGRA, centred at (u, v), 2 * `half` px wide, with subpixel place and no aliasing."""
    x0, y0, n = int(u - half), int(v - half), int(2 * half) + 2
    source = sign
    while source.shape[0] > 4 * half and source.shape[0] > 8:
        source = cv2.resize(source, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    kx, ky = 2 * half / source.shape[1], 2 * half / source.shape[0]
    matrix = np.array([[kx, 0, u - half - x0 + kx / 2 - 0.5], [0, ky, v - half - y0 + ky / 2 - 0.5]])
    if source.shape[2] == 3:
        source = cv2.cvtColor(source, cv2.COLOR_BGR2BGRA)
    patch = cv2.warpAffine(source, matrix, (n, n), flags=cv2.INTER_LINEAR).astype(np.float32)
    part, alpha = bgr[y0 : y0 + n, x0 : x0 + n], patch[..., 3:] / 255
    part[:] = (part * (1 - alpha) + patch[..., :3] * alpha).round()


def given(signs: Bundle, backend: Backend, pictures: list[np.ndarray], sign: np.ndarray, truth: str) -> Iterator[Seen]:
    """Boxes as a good detector's, tracked and named."""
    first = ModelSpec("none", "detect", ("sign",), signs.require_model().input)
    second, single = (SecondStage(signs.require_model(), backend, first, settings=s) for s in (None, ONCE))
    tracker, rng = Tracker(fps=FPS), np.random.default_rng(0)
    for frame, box in passage(pictures, sign):
        side = float(box[2] - box[0])
        seen = rng.uniform() >= MISSED
        noisy = (box + rng.normal(0, NOISE * side, 4)).astype(np.float32)[None][: int(seen)]
        n = len(noisy)
        found = Detections(noisy, np.full(n, 0.9, np.float32), np.zeros(n, np.int64))
        tracks = tracker.step(found, frame.t_ns, frame_size=frame.bgr.shape[1::-1])
        names, _ = second.step(frame.bgr, tracks, tracker.measured)
        row = nearest(tracks, box)
        shown = tracks if not n else replace(tracks, xyxy=noisy[:1].repeat(len(tracks), 0))
        yield Seen(side, row >= 0, names[row] if row >= 0 else "", look(single, frame.bgr, shown, row), truth)


ONCE = SecondSettings(looks=1, agree=1, sure=0.0, least_px=0.0)


def look(single: SecondStage, bgr: np.ndarray, tracks: Tracks, row: int) -> str:
    single.reset()
    return single.step(bgr, tracks[row : row + 1])[0][0] if row >= 0 else ""


def found(
    signs: Bundle, backend: Backend, pictures: list[np.ndarray], sign: np.ndarray, truth: str,
    detector: Bundle, network: Backend, of: str,
) -> Iterator[Seen]:  # fmt: skip
    """A network looks for the sign in every frame."""
    model = detector.require_model()
    second, single = (SecondStage(signs.require_model(), backend, model, (of,), s) for s in (None, ONCE))
    pipeline = Pipeline(model, network, RunSettings.of(detector, detect_every=1), fps=FPS, second=second)
    for frame, box in passage(pictures, sign):
        result = pipeline.step(frame)
        rows = np.flatnonzero(result.tracks.label == model.classes.index(of))
        row = nearest(result.tracks[rows], box)
        name = result.names[rows[row]] if row >= 0 else ""
        once = look(single, frame.bgr, result.tracks[rows], row)
        yield Seen(float(box[2] - box[0]), row >= 0, name, once, truth)


def nearest(tracks: Tracks, box: np.ndarray) -> int:
    """The row of the track that lies on the sign, -1 for none."""
    overlap = iou(tracks.xyxy, box[None])[:, 0]
    return int(overlap.argmax()) if len(overlap) and overlap.max() > 0.3 else -1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("signs", type=Path)
    parser.add_argument("pictures", type=Path, help="a folder of folders named as the classes")
    parser.add_argument("--detector", type=Path)
    parser.add_argument("--of", default="stop sign")
    parser.add_argument("--only", nargs="*", help="folders; all unless given")
    parser.add_argument("--each", type=int, default=4, help="pictures of each folder")
    parser.add_argument("--seed", type=int, default=9320, help="of the drive that is the background")
    args = parser.parse_args()

    signs = Bundle.read(args.signs)
    backend = open_backend(signs, "int8", threads=1)
    detector = Bundle.read(args.detector) if args.detector else None
    network = open_backend(detector, "fp32", threads=1) if detector else None
    background = [frame.bgr for frame, _, _ in Drive(args.seed, 90)]
    seen: list[Seen] = []
    for name in tracked(args.only or signs.require_model().classes, "passages", None):
        files = sorted((args.pictures / name).iterdir())
        for file in files[:: max(1, len(files) // args.each)][: args.each]:
            sign = cv2.imread(str(file))
            if detector and network:
                seen += found(signs, backend, background, sign, name, detector, network, args.of)
            else:
                seen += given(signs, backend, background, sign, name)
    report(seen)


def report(seen: list[Seen]) -> None:
    print("| side of the sign, px | frames | tracked | one look right | named | of these right |")
    print("|---|---|---|---|---|---|")
    for low, high in BINS:
        these = [s for s in seen if low <= s.side < high]
        boxed = [s for s in these if s.tracked]
        named = [s for s in boxed if s.name]
        cells = (
            (len(boxed), len(these)),
            (sum(s.once == s.truth for s in boxed), len(boxed)),
            (len(named), len(boxed)),
            (sum(s.name == s.truth for s in named), len(named)),
        )
        shares = " | ".join(f"{a / b:.1%}" if b else "-" for a, b in cells)
        print(f"| {low}-{high} | {len(these)} | {shares} |")


if __name__ == "__main__":
    main()
