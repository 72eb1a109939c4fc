"""Horizon, distance and lead against the simulator's truth: `python benchmarks/geometry.py BUNDLE [--picture FILE]`.

The real loop (detector, tracker) runs over each drive once; the scene analysis then over the same tracks with every
variant. Thresholds were chosen on seeds 9600 to 9609; the default seeds are others. Markdown on standard output.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from edgecnn.adas import Camera, Lane, Scene, SceneAnalysis, SceneSettings
from edgecnn.backends import open_backend
from edgecnn.bundle import Bundle
from edgecnn.data.classes import PERSON
from edgecnn.data.simulator import Drive
from edgecnn.progress import tracked
from edgecnn.run import Pipeline, RunSettings
from edgecnn.scene import F32, Tracks, Truth
from edgecnn.track.assign import iou

BANDS = ((3, 10), (10, 20), (20, 35), (35, 60), (60, 120))
HALF_WIDTH_M, FAR_M = 0.9, 80.0  # of our car; a true lead is nearer than this


@dataclass(frozen=True)
class Look:
    """What the loop saw in one frame, and what was true."""

    t_ns: int
    tracks: Tracks
    measured: F32
    truth: Truth
    horizon_px: float
    speed_mps: float
    lane: Lane
    lead: int  # id in the truth; 0 = none


def looks(drive: Drive, bundle: Bundle, precision: str) -> list[Look]:
    backend = open_backend(bundle, precision, threads=1)
    pipeline = Pipeline(bundle.require_model(), backend, RunSettings.of(bundle), fps=drive.fps, camera=told(drive))
    found = []
    for i, (frame, truth, ego) in enumerate(drive):
        result, view, lens = pipeline.step(frame), drive.view(i), drive.camera
        horizon = lens.cy - lens.fy * math.tan(lens.pitch_rad + view.pitch)
        half = 0.5 * ego.lane_width_m
        lane = Lane(-half - ego.lane_offset_m, half - ego.lane_offset_m, -math.tan(ego.yaw_rad), ego.curvature, 60.0)
        found.append(
            Look(
                frame.t_ns,
                result.tracks,
                pipeline._tracker.measured,
                truth,
                horizon,
                ego.speed_mps,
                lane,
                true_lead(drive, i, truth),
            )
        )
    return found


def told(drive: Drive, wrong_rad: float = 0.0) -> Camera:
    lens = drive.camera
    return Camera(lens.fx, lens.fy, lens.cx, lens.cy, lens.height_m, lens.pitch_rad + wrong_rad, bumper_m=1.5)


def true_lead(drive: Drive, i: int, truth: Truth) -> int:
    """The nearest vehicle that our car, staying at its place on the road, would touch; hidden ones don't count."""
    snap, seen = drive._snapshots[i], {int(k) for k in truth.id[~truth.ignore & (truth.visibility > 0.5)]}
    ahead = [
        (thing.near(), thing.id)
        for thing in snap.things
        if thing.model.label != PERSON
        and 2.0 < thing.near() - snap.s < FAR_M
        and abs(thing.d - snap.d) < HALF_WIDTH_M + 0.5 * thing.model.width
    ]
    return min(ahead)[1] if ahead and min(ahead)[1] in seen else 0


def analysed(
    drive: Drive,
    found: list[Look],
    *,
    settings: SceneSettings | None = None,
    wrong_rad: float = 0.0,
    lane: bool = False,
) -> Iterator[tuple[Look, Scene, np.ndarray]]:
    """With the row of the truth that each track is; -1 = none."""
    lens = drive.camera
    analysis = SceneAnalysis(settings, told(drive, wrong_rad), (lens.width, lens.height))
    for look in found:
        scene = analysis.step(
            look.tracks, look.t_ns, measured=look.measured, lane=look.lane if lane else None, speed_mps=look.speed_mps
        )
        row = np.full(len(look.tracks), -1)
        if len(look.tracks) and len(look.truth):
            overlap = iou(look.tracks.xyxy, look.truth.xyxy)
            best = overlap.argmax(1)
            row = np.where((overlap.max(1) > 0.5) & (look.truth.label[best] == look.tracks.label), best, -1)
        yield look, scene, row


def distances(runs: list[tuple[Drive, list[Look]]], **variant: object) -> tuple[np.ndarray, np.ndarray]:
    """(N, 4) true, told, its deviation, and by the foot alone; (M, 2) px by which the filter and a fixed row err."""
    rows, horizon = [], []
    for drive, found in runs:
        camera = told(drive, float(variant.get("wrong_rad", 0.0)))  # type: ignore[arg-type]
        for look, scene, match in analysed(drive, found, **variant):  # type: ignore[arg-type]
            horizon.append((scene.horizon_px - look.horizon_px, camera.horizon_px - look.horizon_px))
            at = np.flatnonzero(match >= 0)
            truth = look.truth[match[at]]
            good = ~truth.ignore & (truth.visibility > 0.5) & np.isfinite(scene.distance_m[at])
            foot = np.maximum(look.tracks.xyxy[at, 3] - camera.horizon_px, 0.5)
            simple = camera.fy * camera.height_m / foot
            rows.append(np.stack([truth.distance_m, scene.distance_m[at], scene.distance_sigma_m[at], simple], 1)[good])
    return np.concatenate(rows), np.array(horizon)


def leads(runs: list[tuple[Drive, list[Look]]], *, lane: bool) -> tuple[float, float, float]:
    """Precision, recall, and changes of the lead a minute."""
    right = said = true = changes = frames = 0
    for drive, found in runs:
        before = 0
        for look, scene, match in analysed(drive, found, lane=lane):
            row = match[scene.lead] if scene.lead >= 0 else -1
            hit = row >= 0 and look.truth.id[row] == look.lead
            said, true, right = said + (scene.lead >= 0), true + (look.lead > 0), right + hit
            now = int(look.tracks.id[scene.lead]) if scene.lead >= 0 else 0
            changes, before, frames = changes + (now != before), now, frames + 1
    return right / max(said, 1), right / max(true, 1), 60 * changes / (frames / runs[0][0].fps)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--precision", default="int8", choices=("fp32", "int8"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[9701, 9702, 9704, 9705, 9708])
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--picture", type=Path, help="draw distances and horizon on a frame of the first drive")
    args = parser.parse_args()
    bundle, runs = Bundle.read(args.bundle), []
    for seed in tracked(args.seeds, "drives", len(args.seeds)):
        drive = Drive(seed, args.frames)
        runs.append((drive, looks(drive, bundle, args.precision)))
    if args.picture:
        draw(*runs[0], args.picture)

    table, _ = distances(runs)
    print(f"{len(runs)} drives of {args.frames} frames, {args.precision}; {len(table)} distances\n")
    print("| m | n | median error | 90 % within | foot alone: median | 90 % | within 1 sigma | within 2 |")
    print("|---|---|---|---|---|---|---|---|")
    for low, high in (*BANDS, (BANDS[0][0], BANDS[-1][1])):
        band = table[(table[:, 0] >= low) & (table[:, 0] < high)]
        if not len(band):
            continue
        true, said, sigma, simple = band.T
        off, plain = np.abs(said - true), np.abs(simple - true) / true
        cells = [f"{v:.1%}" for v in (*np.quantile(off / true, (0.5, 0.9)), *np.quantile(plain, (0.5, 0.9)))]
        inside = [f"{(off < k * sigma).mean():.0%}" for k in (1, 2)]
        print(f"| {low}-{high} | {len(true)} | {' | '.join(cells + inside)} |")
    print("\n| pitch off by | mount_rad | horizon error, rms px: told | followed | distance: median error | 90 % |")
    print("|---|---|---|---|---|---|")
    shipped = SceneSettings.read()
    for degrees in (0.0, 0.3, 1.0):
        for mount in (shipped.range.mount_rad, 0.015):
            settings = replace(shipped, range=replace(shipped.range, mount_rad=mount))
            table, horizon = distances(runs, settings=settings, wrong_rad=math.radians(degrees))
            rms = np.sqrt((horizon**2).mean(0))
            far = table[table[:, 0] >= 3]
            share = np.quantile(np.abs(far[:, 1] / far[:, 0] - 1), (0.5, 0.9))
            print(f"| {degrees:g}° | {mount:g} | {rms[1]:.2f} | {rms[0]:.2f} | {share[0]:.1%} | {share[1]:.1%} |")
    print("\n| path | precision of the lead | recall | changes a minute |\n|---|---|---|---|")
    for name, lane in (("straight on", False), ("true lane lines", True)):
        precision, recall, changes = leads(runs, lane=lane)
        print(f"| {name} | {precision:.1%} | {recall:.1%} | {changes:.1f} |")


def draw(drive: Drive, found: list[Look], path: Path) -> None:
    """Of the frame with a lead and the most objects: told distance ± its deviation, the true one, both horizons."""
    results = list(analysed(drive, found))
    count = [
        (scene.lead >= 0) * int((np.isfinite(scene.distance_m) & (match >= 0)).sum()) for _, scene, match in results
    ]
    i = int(np.argmax(count))
    look, scene, match = results[i]
    picture = cv2.resize(drive.render(i)[0].bgr, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    width, font = picture.shape[1], cv2.FONT_HERSHEY_DUPLEX
    for row, colour, name, x in (
        (look.horizon_px, (255, 255, 255), "true horizon", width - 170),
        (scene.horizon_px, (90, 220, 255), "horizon followed", 8),
    ):
        cv2.line(picture, (0, round(2 * row)), (width, round(2 * row)), colour, 1, cv2.LINE_AA)
        cv2.putText(picture, name, (x, round(2 * row) - 6), font, 0.5, colour, 1, cv2.LINE_AA)
    for k in np.argsort(-scene.distance_m):
        if not np.isfinite(scene.distance_m[k]):
            continue
        left, top, right, bottom = (round(2 * float(v)) for v in look.tracks.xyxy[k])
        colour = (80, 200, 255) if k == scene.lead else (150, 220, 90)
        cv2.rectangle(picture, (left, top), (right, bottom), colour, 2 if k == scene.lead else 1, cv2.LINE_AA)
        true = f" ({look.truth.distance_m[match[k]]:.0f})" if match[k] >= 0 else ""
        text = f"{scene.distance_m[k]:.0f}+-{scene.distance_sigma_m[k]:.0f} m{true}"
        (w, h), _ = cv2.getTextSize(text, font, 0.45, 1)
        cv2.rectangle(picture, (left, bottom), (left + w + 6, bottom + h + 8), (25, 22, 20), -1)
        cv2.putText(picture, text, (left + 3, bottom + h + 4), font, 0.45, colour, 1, cv2.LINE_AA)
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
