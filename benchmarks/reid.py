"""What appearance is worth: `python -m benchmarks.reid ../shared/data BUNDLE`, the bundle of recipes/osnet.yaml.

PETS09-S2L1 with its video: MOTChallenge's public detections, the camera's motion taken off in both columns. The
settings of appearance were chosen on frames 1 to 200. Prints markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from benchmarks.camera_motion import Clip, pets
from edgecnn.bundle import Bundle
from edgecnn.metrics.tracking import evaluate_tracks
from edgecnn.run.appearance import Appearance
from edgecnn.run.loop import reduced
from edgecnn.run.recorded import open_looks
from edgecnn.scene import Tracks, Truth
from edgecnn.track import METHODS, Settings, Tracker
from edgecnn.track.flow import FlowShift


def follow(clip: Clip, settings: Settings, looks: Appearance | None) -> Iterator[tuple[Tracks, Truth]]:
    height, width = clip.frames[0].bgr.shape[:2]
    tracker, flow, tracks = Tracker(settings, clip.fps), FlowShift(width), Tracks.empty()
    for k, seen in enumerate(clip.frames):
        flow.remember(reduced(seen.bgr), tracks)
        if looks:
            looks.frame = seen.bgr
        t_ns = round(k * 1e9 / clip.fps)
        tracks = tracker.step(seen.found, t_ns, frame_size=(width, height), camera=flow.camera, look=looks)
        yield tracks, seen.truth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds tracking/MOT15/")
    parser.add_argument("bundle", type=Path)
    args = parser.parse_args()
    looks, clip = open_looks(Bundle.read(args.bundle)), pets(args.folder)
    parts = {"1 to 200": clip.frames[:200], "201 to 400": clip.frames[200:]}
    print("| frames | method | HOTA / IDF1 / switches without | with | crops a frame | detections a frame |")
    print("|---|---|---|---|---|---|")
    for part, frames in parts.items():
        for name, settings in METHODS.items():
            cells, looks.crops = [], 0
            for used in (None, looks):
                f = evaluate_tracks([follow(Clip(frames, clip.fps, settings), settings, used)])
                cells.append(f"{100 * f['HOTA']:.1f} / {100 * f['IDF1']:.1f} / {f['switches']:.0f}")
            crops, found = looks.crops / len(frames), sum(len(seen.found) for seen in frames) / len(frames)
            print(f"| {part} | {name} | {' | '.join(cells)} | {crops:.1f} | {found:.1f} |", flush=True)


if __name__ == "__main__":
    main()
