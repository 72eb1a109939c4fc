"""Parts of the frame, each at a zoom of its own, packed into one small picture that the same network looks at.

A launch costs the same however many tiles there are, as in the mosaic of Bochkovskiy et al. 2020, arXiv:2004.10934,
which is for training; here every tile keeps the map back to the frame.
"""

from __future__ import annotations

import cv2
import numpy as np

from edgecnn.adas.regions import Tiles
from edgecnn.backends import FRAME, Backend
from edgecnn.bundle import ModelSpec
from edgecnn.run.health import nonsense
from edgecnn.run.timing import Laps
from edgecnn.scene import Detections, Letterbox, Picture
from edgecnn.vision import DecodeDetections, Preprocess, nms

EDGE_PX = 1.5  # of the canvas: a box that comes so near to its tile's edge may be cut off by it


class RegionDetector:
    """The network at its second input size. Raises ModelError for a model that has none."""

    def __init__(self, model: ModelSpec, backend: Backend, *, score: float, iou: float) -> None:
        self._model, self._backend = model.at_regions, backend
        self._iou = iou
        self._preprocess = Preprocess(self._model)
        self._decode = DecodeDetections(self._model, score=score, iou=iou)
        self._canvas = np.empty((self._model.height, self._model.width, 3), np.uint8)

    def __call__(self, bgr: Picture, tiles: Tiles, frame: int, laps: Laps) -> tuple[Detections | None, str]:
        """What is seen in the tiles of a picture (H, W, 3), in px of the frame.

        None, and why, where the network's answer is no answer.
        """
        tensor, _ = self._preprocess(self.canvas(bgr, tiles))
        laps.lap("preprocess")
        outputs = self._backend({self._model.input.name: tensor, FRAME: np.array(frame, np.int64)})
        laps.lap("infer")
        invalid = nonsense(outputs, self._decode)
        found = None if invalid else self.to_frame(self._decode.raw(outputs), tiles, (bgr.shape[1], bgr.shape[0]))
        laps.lap("postprocess")
        return found, invalid

    def canvas(self, bgr: Picture, tiles: Tiles) -> Picture:
        """(height, width, 3): each tile's source where it belongs, grey between. The next call reuses it."""
        self._canvas[:] = self._model.pad
        for (left, top, right, bottom), (x0, y0, x1, y1) in zip(
            tiles.source.round().astype(int).tolist(), tiles.place.tolist(), strict=True
        ):
            part = bgr[top:bottom, left:right]
            while part.shape[0] > 2 * (y1 - y0) and part.shape[1] > 2 * (x1 - x0):
                part = cv2.resize(part, (part.shape[1] // 2, part.shape[0] // 2), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
            cv2.resize(part, (x1 - x0, y1 - y0), dst=self._canvas[y0:y1, x0:x1], interpolation=cv2.INTER_LINEAR)
        return self._canvas

    def to_frame(self, found: Detections, tiles: Tiles, frame_size: tuple[int, int]) -> Detections:
        """Boxes in px of the canvas → in px of the frame (width, height).

        A box belongs to the tile in which its centre lies. One that reaches the tile's edge is dropped, unless that is
        the frame's edge too: there is more of the object than was seen.
        """
        width, height = frame_size
        centre = 0.5 * (found.xyxy[:, :2] + found.xyxy[:, 2:])
        parts = []
        for source, place in zip(tiles.source.round(), tiles.place.astype(np.float32), strict=True):
            inside = (centre >= place[:2]).all(1) & (centre < place[2:]).all(1)
            open_side = np.array([source[0] <= 0, source[1] <= 0, source[2] >= width, source[3] >= height])
            far = np.concatenate([found.xyxy[:, :2] - place[:2], place[2:] - found.xyxy[:, 2:]], 1) > EDGE_PX
            part = found[inside & (far | open_side).all(1)]
            scale = (place[2:] - place[:2]) / (source[2:] - source[:2])
            left, top = place[:2] - source[:2] * scale
            box = Letterbox(float(scale[0]), float(scale[1]), float(left), float(top), width, height)
            parts.append(Detections(box.to_frame(part.xyxy), part.score, part.label))
        if not parts:
            return Detections.empty()
        merged = Detections(
            np.concatenate([p.xyxy for p in parts]),
            np.concatenate([p.score for p in parts]),
            np.concatenate([p.label for p in parts]),
        )
        return nms(merged, self._iou, 100)
