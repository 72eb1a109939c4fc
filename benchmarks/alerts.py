"""When warnings come, on staged drives through the real loop: `python benchmarks/alerts.py BUNDLE [--picture FILE]`.

The simulator's NHTSA-like tests at 20 m/s and its harmless scenes. What counts is the true time to collision at the
alert, from our bumper, with the lead's braking. Markdown on standard output; the picture is a timeline.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edgecnn.adas import Camera
from edgecnn.adas.event import WARNINGS
from edgecnn.backends import open_backend
from edgecnn.bundle import Bundle
from edgecnn.data.simulator import Drive
from edgecnn.progress import tracked
from edgecnn.run import Pipeline, RunSettings

LIMITS_S = {"stopped_lead": 2.1, "braking_lead": 2.4, "slower_lead": 2.0}
HARMLESS = ("adjacent_car", "cut_out", "oncoming")
BUMPER_M = 1.5
COLOURS = {"fcw": (48, 48, 235), "pedestrian": (200, 130, 255), "headway": (80, 200, 255), "ldw_left": (235, 190, 60),
           "ldw_right": (235, 190, 60)}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One drive, a value a frame."""

    name: str
    true_s: np.ndarray  # time to collision; inf = none
    told_s: np.ndarray  # of the lead, as estimated
    on: list[tuple[str, ...]]
    events: list[tuple[int, str]]


def run(scenario: str, seed: int, bundle: Bundle, precision: str) -> Line:
    drive, backend = Drive(seed, 250, scenario=scenario), open_backend(bundle, precision, threads=1)
    lens = drive.camera
    camera = Camera(lens.fx, lens.fy, lens.cx, lens.cy, lens.height_m, lens.pitch_rad, bumper_m=BUMPER_M)
    pipeline = Pipeline(bundle.require_model(), backend, RunSettings.of(bundle), fps=drive.fps, camera=camera)
    true_s, told_s, on, events = [], [], [], []
    for i, (frame, _, _) in enumerate(drive):
        scene = pipeline.step(frame).scene
        true_s.append(true_ttc(drive, i))
        told_s.append(scene.ttc_s[scene.lead] if scene.lead >= 0 else math.inf)
        on.append(scene.on)
        events += [(i, event.kind) for event in scene.warnings]
    return Line(f"{scenario} {seed}", np.array(true_s), np.array(told_s), on, events)


def true_ttc(drive: Drive, i: int) -> float:
    """Of the first other car, at our present speed and with its present braking."""
    now, before = drive._snapshots[i], drive._snapshots[max(i - 5, 0)]
    gap = now.things[0].near() - now.s - BUMPER_M
    closing = now.speed - now.things[0].speed
    braking = (before.things[0].speed - now.things[0].speed) * drive.fps / max(min(i, 5), 1)
    root = closing * closing + 2 * braking * gap
    if gap <= 0 or root < 0 or closing + math.sqrt(root) <= 0:
        return math.inf
    return 2 * gap / (closing + math.sqrt(root))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--precision", default="int8", choices=("fp32", "int8"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    bundle, lines = Bundle.read(args.bundle), []
    jobs = [(name, seed) for name in (*LIMITS_S, *HARMLESS) for seed in args.seeds]
    for name, seed in tracked(jobs, "drives", len(jobs)):
        lines.append(run(name, seed, bundle, args.precision))
    print("| drive | limit, s | true TTC at the first FCW, s | all warnings that began |\n|---|---|---|---|")
    for (name, _), line in zip(jobs, lines, strict=True):
        first = next((i for i, kind in line.events if kind == "fcw_on"), None)
        at = "none" if first is None else f"{line.true_s[first]:.2f}"
        began = [f"{kind.removesuffix('_on')} at {i / 25:.1f} s" for i, kind in line.events if kind.endswith("_on")]
        print(f"| {line.name} | {LIMITS_S.get(name, 'no alert')} | {at} | {', '.join(began) or 'none'} |")
    if args.picture:
        draw(lines[:: len(args.seeds)], args.picture)


def draw(lines: list[Line], path: Path) -> None:
    """Time to the right; true (white) and estimated (blue) time to collision, 0 to 6 s; bars where a warning is on."""
    width, height, left, font = 1000, 130, 150, cv2.FONT_HERSHEY_DUPLEX
    picture = np.full((height * len(lines) + 30, width, 3), (30, 26, 24), np.uint8)
    for k, line in enumerate(lines):
        top, bottom = k * height + 12, (k + 1) * height - 8
        step = (width - left - 20) / len(line.on)

        def spot(i: int, seconds: float, top: int = top, bottom: int = bottom, step: float = step) -> tuple[int, int]:
            return round(left + i * step), round(bottom - (bottom - top) * seconds / 6)

        cv2.rectangle(picture, (left, top), (width - 20, bottom), (52, 46, 42), -1)
        cv2.putText(picture, line.name.replace("_", " "), (8, top + 20), font, 0.45, (250, 250, 250), 1, cv2.LINE_AA)
        for i, on in enumerate(line.on):
            for kind in on:
                row = top + 3 + 9 * WARNINGS.index(kind)
                cv2.rectangle(picture, (spot(i, 0)[0], row), (spot(i + 1, 0)[0], row + 6), COLOURS[kind], -1)
        for values, colour in ((line.told_s, (235, 190, 60)), (line.true_s, (250, 250, 250))):
            for i in np.flatnonzero(values < 6):
                cv2.circle(picture, spot(int(i), float(values[i])), 1, colour, -1, cv2.LINE_AA)
        for seconds in (2, 4):
            at = spot(0, seconds)
            cv2.putText(picture, f"{seconds} s", (left - 32, at[1] + 5), font, 0.4, (160, 160, 160), 1, cv2.LINE_AA)
            cv2.line(picture, at, (width - 20, at[1]), (80, 74, 70), 1)
        for kind, text, row in (("fcw", "FCW", 40), ("pedestrian", "pedestrian", 54), ("headway", "headway", 68)):
            cv2.putText(picture, text, (8, top + row), font, 0.38, COLOURS[kind], 1, cv2.LINE_AA)
    text = "10 s to the right; time to collision from our bumper: white = true, blue = estimated; bars: a warning is on"
    cv2.putText(picture, text, (8, len(picture) - 10), font, 0.42, (200, 200, 200), 1, cv2.LINE_AA)
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])


if __name__ == "__main__":
    main()
