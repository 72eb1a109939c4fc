"""docs/scheduler.jpg: `python scripts/scheduler_picture.py BUNDLE OUT.jpg`. What the network is shown in a frame.

Left the frame with its tracks and the windows looked at; right, at the same scale, two inputs of the network: that for
the whole frame, which would have been needed, and the canvas with the windows.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from edgecnn.adas import Camera
from edgecnn.backends import Array, Backend, open_backend
from edgecnn.bundle import Bundle, ModelSpec
from edgecnn.data.simulator import Drive
from edgecnn.run import Pipeline, RunSettings
from edgecnn.scene import Picture
from edgecnn.vision import Preprocess

ORANGE, BLUE, WHITE = (60, 150, 255), (235, 190, 60), (250, 250, 250)


class Kept:
    """Keeps what the network was shown last."""

    def __init__(self, model: ModelSpec, backend: Backend) -> None:
        self._model, self._backend = model, backend
        self.shown: Picture = np.zeros((1, 1, 3), np.uint8)

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self.shown = picture(self._model, feeds[self._model.input.name])
        return self._backend(feeds)


def picture(model: ModelSpec, tensor: Array) -> Picture:
    """(1, 3, h, w) as the preprocess makes it → (h, w, 3)."""
    planes = tensor[0] * np.array(model.std).reshape(3, 1, 1) + np.array(model.mean).reshape(3, 1, 1)
    return np.ascontiguousarray(np.clip(planes, 0, 255).astype(np.uint8).transpose(1, 2, 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=9605)
    parser.add_argument("--frame", type=int, default=60, help="the first from this one on with two windows")
    args = parser.parse_args()
    bundle = Bundle.read(args.bundle)
    model = bundle.require_model()
    kept = Kept(model, open_backend(bundle, "fp32"))
    drive = Drive(args.seed, 150)
    lens = drive.camera
    camera = Camera(lens.fx, lens.fy, lens.cx, lens.cy, lens.height_m, lens.pitch_rad)
    steps = Pipeline(model, kept, RunSettings.of(bundle), fps=drive.fps, camera=camera)
    for frame, _, _ in drive:
        result = steps.step(frame)
        if frame.index >= args.frame and not result.whole and len(result.searched) > 1:
            break
    seen = frame.bgr.copy()
    for left, top, right, bottom in result.tracks.xyxy.round().astype(int).tolist():
        cv2.rectangle(seen, (left, top), (right, bottom), BLUE, 1, cv2.LINE_AA)
    for left, top, right, bottom in result.searched.round().astype(int).tolist():
        cv2.rectangle(seen, (left, top), (right - 1, bottom - 1), ORANGE, 2, cv2.LINE_AA)
    whole = picture(model, Preprocess(model)(frame.bgr)[0])
    gap = 24
    sheet = np.full((seen.shape[0] + gap, seen.shape[1] + whole.shape[1] + gap, 3), 30, np.uint8)
    at = seen.shape[1] + gap
    sheet[gap:, : seen.shape[1]] = seen
    sheet[gap : gap + whole.shape[0], at:] = whole
    below = gap + whole.shape[0] + gap
    sheet[below : below + kept.shown.shape[0], at : at + kept.shown.shape[1]] = kept.shown
    words = (
        (f"frame {frame.index}: tracks, and the windows looked at", (4, 17)),
        (f"the whole frame would be {whole.shape[1]}x{whole.shape[0]}", (at, 17)),
        (f"this frame costs {kept.shown.shape[1]}x{kept.shown.shape[0]}", (at, below - 7)),
    )
    for text, where in words:
        cv2.putText(sheet, text, where, cv2.FONT_HERSHEY_DUPLEX, 0.45, WHITE, 1, cv2.LINE_AA)
    cv2.imwrite(str(args.out), sheet, [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
