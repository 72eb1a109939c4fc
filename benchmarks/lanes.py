"""Lanes against the truth: `python benchmarks/lanes.py [--bundle BUNDLE] [--clips FILE ...] [--picture OUT.jpg]`.

Simulated drives that nothing was tuned on (the settings were chosen on seeds 9700 to 9719), by kind of road and by
light; clips, whose camera is not known, without truth; and lane-departure warning on lanes that drift as told. Markdown
on standard output.
"""

from __future__ import annotations

import argparse
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from edgecnn.adas import Camera, Lane, LaneDetector, SceneSettings
from edgecnn.adas.departure import LaneDepartureWarning
from edgecnn.data.simulator import Drive
from edgecnn.progress import tracked
from edgecnn.scene import Frame, Picture

AT_M = np.array([0.0, 20.0, 40.0])
WRONG_M = 0.3  # a line told of that lies farther from the true one, beside the camera, is false
TILE = (480, 288)
SHOWN = {9720: 60, 9724: 50, 9729: 50}  # frames of drives in the picture: night, motorway, rain


@dataclass
class Tally:
    """Of many frames."""

    errors: list[np.ndarray] = field(default_factory=list)  # (2, 3) m, left and right at AT_M; nan = not told of
    horizon: list[tuple[float, float]] = field(default_factory=list)  # px off, and its stated deviation
    alarms: int = 0

    def row(self) -> str:
        errors = np.array(self.errors)
        told = np.isfinite(errors[..., 0])
        size = np.abs(errors)
        at = " | ".join(
            f"{np.nanmedian(size[..., k]):.2f} / {np.nanpercentile(size[..., k], 95):.2f}" for k in range(3)
        )
        false = (size[..., 0] > WRONG_M).sum() / max(told.sum(), 1)
        seen = f"{told.all(1).mean():.0%} | {told.any(1).mean():.0%}"
        return f"{len(told)} | {seen} | {false:.1%} | {at} | {self.alarms}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(9720, 9740)))
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--bundle", type=Path, help="its network is timed on the same frames")
    parser.add_argument("--clips", type=Path, nargs="*", default=[])
    parser.add_argument("--picture", type=Path, help="write a contact sheet here")
    args = parser.parse_args()
    tiles: list[Picture] = []
    simulator(args.seeds, args.frames, args.bundle, tiles)
    if args.clips:
        clips(args.clips, tiles)
    departures()
    if args.picture:
        while len(tiles) % 3:
            tiles.append(np.zeros_like(tiles[0]))
        sheet = cv2.vconcat([cv2.hconcat(tiles[i : i + 3]) for i in range(0, len(tiles), 3)])
        cv2.imwrite(str(args.picture), sheet, [cv2.IMWRITE_JPEG_QUALITY, 85])


def simulator(seeds: list[int], frames: int, bundle: Path | None, tiles: list[Picture]) -> None:
    groups: dict[str, Tally] = {}
    detector_ms: list[float] = []
    network_ms: list[float] = []
    infer = _network(bundle) if bundle else None
    for seed in seeds:
        drive = Drive(seed, frames)
        lens, (kind, light) = drive.camera, drive.where
        camera = Camera(lens.fx, lens.fy, lens.cx, lens.cy, lens.height_m, lens.pitch_rad)
        detector, warning = LaneDetector(camera), LaneDepartureWarning(SceneSettings.read().departure)
        for i, (frame, truth, ego) in enumerate(tracked(drive, f"drive {seed}", frames)):
            since = time.process_time()
            lane = detector.step(frame.bgr, frame.t_ns, truth.xyxy[~truth.ignore])
            detector_ms.append(1e3 * (time.process_time() - since))
            if infer and i % 5 == 0:
                network_ms.append(infer(frame))
            view, half = drive.view(i), 0.5 * ego.lane_width_m
            bend = view.lateral(AT_M) + view.d
            error = np.full((2, 3), np.nan)
            if lane:
                for side, (told, true) in enumerate(((lane.left_m, -half), (lane.right_m, half))):
                    error[side] = told + lane.bend(AT_M) - (bend + true - ego.lane_offset_m)
            alarms = sum(event.kind.endswith("_on") for event in warning.step(lane, frame.t_ns, i))
            true_row = lens.cy - lens.fy * math.tan(lens.pitch_rad + view.pitch)
            for name in ("all", kind, light):
                tally = groups.setdefault(name, Tally())
                tally.errors.append(error)
                tally.alarms += alarms
                if math.isfinite(detector.horizon_px):
                    tally.horizon.append((detector.horizon_px - true_row, detector.horizon_sigma_px))
            if SHOWN.get(seed) == i:
                tiles.append(drawn(frame.bgr, camera, detector, lane, f"{kind}, {light}"))
    print(f"{len(seeds)} simulated drives of {frames} frames at 25 a second\n")
    head = "| | frames | both lines | one or both | false | at the camera | at 20 m | at 40 m | departures told of |"
    print(f"{head}\n|{'---|' * 9}")
    order = ["all", "motorway", "country", "town", "day", "overcast", "dusk", "night", "rain", "fog"]
    for name in sorted(groups, key=order.index):
        print(f"| {name} | {groups[name].row()} |")
    off, sigma = np.array(groups["all"].horizon).T
    print(
        f"\nHorizon: {np.sqrt(np.mean(off**2)):.2f} px RMS off, {np.median(np.abs(off) / sigma):.2f} of its deviation"
    )
    mine = np.array(detector_ms)
    line = f"Time: {np.median(mine):.2f} ms a frame of one core, p95 {np.percentile(mine, 95):.2f}"
    if network_ms:
        theirs = float(np.median(network_ms))
        line += f"; the network {theirs:.1f} ms: {np.median(mine) / theirs:.0%} of it"
    print(line)


def clips(paths: list[Path], tiles: list[Picture]) -> None:
    print("\nClips; the camera is assumed level, 1.3 m up\n")
    print("| clip | frames | both lines | width m: median, 5 to 95 % | horizon px: median, deviation |")
    print("|---|---|---|---|---|")
    for path in paths:
        video = cv2.VideoCapture(str(path))
        detector: LaneDetector | None = None
        rows: list[tuple[float, float]] = []
        count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        while True:
            found, bgr = video.read()
            if not found:
                break
            camera = Camera.assumed((bgr.shape[1], bgr.shape[0]))
            detector = detector or LaneDetector(camera, known=False)
            lane = detector.step(np.asarray(bgr, np.uint8), round(len(rows) * 4e7))
            rows.append((lane.right_m - lane.left_m if lane else math.nan, detector.horizon_px))
            if len(rows) in (count // 4, 3 * count // 4):
                tiles.append(drawn(np.asarray(bgr, np.uint8), camera, detector, lane, re.split(r"_\d", path.stem)[0]))
        width, horizon = np.array(rows).T
        low, middle, high = np.nanpercentile(width, [5, 50, 95])
        figures = f"{middle:.2f}, {low:.2f} to {high:.2f} | {np.nanmedian(horizon):.0f}, {np.nanstd(horizon):.1f}"
        print(f"| {path.name} | {len(rows)} | {np.isfinite(width).mean():.0%} | {figures} |")


def departures(trials: int = 50, noise_m: float = 0.03, hours: float = 1.0) -> None:
    """Without pictures: a lane 3.6 m wide, wheels 0.9 m from the camera, and noise that is alike over some frames."""
    random = np.random.default_rng(0)
    print(f"\nDepartures: {trials} trials a row, {1e3 * noise_m:.0f} mm noise, 25 frames a second\n")
    print(
        "| drift m/s | wheel to line at the alert, m: least, median, most | missed | told of twice |\n|---|---|---|---|"
    )
    for rate in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
        at: list[float] = []
        missed = twice = 0
        for trial in range(trials):
            sign = 1 if trial % 2 else -1
            times = np.arange(0, 1 + 1.2 / rate, 0.04)
            offset = sign * rate * np.maximum(times - 1, 0)
            on = _alerts(times, offset, _alike(random, len(times), noise_m))
            missed += not on
            twice += len(on) > 1
            at += [0.9 - abs(offset[k]) for k in on[:1]]
        figures = ", ".join(f"{value:+.2f}" for value in (min(at), float(np.median(at)), max(at)))
        print(f"| {rate} | {figures} | {missed} | {twice} |")
    times = np.arange(0, 3600 * hours, 0.04)
    wander = 0.1 * np.sin(times / 1.3) + 0.05 * np.sin(times / 0.45)  # at most 0.15: the wheels stay 0.75 m inside
    alarms = len(_alerts(times, wander, _alike(random, len(times), noise_m)))
    print(f"\nAlarms in {hours:g} h of wandering with the wheels 0.75 m inside or more: {alarms}")


def _alerts(times: np.ndarray, offset: np.ndarray, error: np.ndarray) -> list[int]:
    """Frames in which a warning began."""
    warning, on = LaneDepartureWarning(SceneSettings.read().departure), []
    for k, (t, middle) in enumerate(zip(times, error - offset, strict=True)):
        lane = Lane(middle - 1.8, middle + 1.8, 0.0, 0.0, 40.0)
        on += [k for event in warning.step(lane, round(t * 1e9), k) if event.kind.endswith("_on")]
    return on


def _alike(random: np.random.Generator, count: int, sigma: float, keep: float = 0.7) -> np.ndarray:
    noise = random.normal(0, sigma * math.sqrt(1 - keep * keep), count)
    for k in range(1, count):
        noise[k] += keep * noise[k - 1]
    return noise


def _network(path: Path) -> Callable[[Frame], float]:
    """A function that times one run of the bundle's INT8 network on a frame, ms of one core."""
    from edgecnn.backends import FRAME, open_backend
    from edgecnn.bundle import Bundle
    from edgecnn.vision import Preprocess

    bundle = Bundle.read(path)
    model, backend = bundle.require_model(), open_backend(bundle, "int8", threads=1)
    preprocess = Preprocess(model)

    def infer(frame: Frame) -> float:
        tensor, _ = preprocess(frame.bgr)
        feeds = {model.input.name: tensor, FRAME: np.array(frame.index, np.int64)}
        since = time.process_time()
        backend(feeds)
        return 1e3 * (time.process_time() - since)

    return infer


def drawn(bgr: Picture, camera: Camera, detector: LaneDetector, lane: Lane | None, title: str) -> Picture:
    """A tile: the lines told of as far as they were seen, and the horizon that follows from them."""
    picture = bgr.copy()
    row = detector.horizon_px
    if math.isfinite(row):
        camera = replace(camera, pitch_rad=math.atan((camera.cy - row) / camera.fy))
        cv2.line(picture, (0, round(row)), (picture.shape[1], round(row)), (255, 90, 200), 1, cv2.LINE_AA)
    if lane:
        z = np.geomspace(3.5, max(lane.reach_m, 5.0), 40)
        for side, colour in ((lane.left_m, (60, 60, 255)), (lane.right_m, (90, 230, 60))):
            if math.isfinite(side):
                points = _project(camera, z, side + lane.bend(z))
                thick = max(2, bgr.shape[1] // 300)
                cv2.polylines(picture, [np.int32(points * 16)], False, colour, thick, cv2.LINE_AA, 4)
    tile = cv2.resize(picture, TILE, interpolation=cv2.INTER_AREA)
    figures = "none" if lane is None else f"{lane.left_m:+.2f}  {lane.right_m:+.2f} m"
    for shift, colour in ((1, (20, 20, 20)), (0, (250, 250, 250))):
        at = 8 + shift, 18 + shift
        cv2.putText(tile, f"{title}   {figures}", at, cv2.FONT_HERSHEY_DUPLEX, 0.45, colour, 1, cv2.LINE_AA)
    return np.asarray(tile, np.uint8)


def _project(camera: Camera, forward: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(N, 2) px of points on the road: Camera.ground the other way round."""
    cos, sin = math.cos(camera.pitch_rad), math.sin(camera.pitch_rad)
    depth = forward * cos + camera.height_m * sin
    v = camera.cy + camera.fy * (camera.height_m * cos - forward * sin) / depth
    return np.stack([camera.cx + camera.fx * right / depth, v], axis=1)


if __name__ == "__main__":
    main()
