"""The one preprocess, the decoders and NMS: quantize, check, bench and run all call these same functions.

Boxes are decoded after the score threshold, so that a quiet road costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.bundle import ModelSpec
from edgecnn.errors import InputError, ModelError
from edgecnn.scene import F32, Detections, Letterbox, Picture


class Preprocess:
    """Lays a BGR picture into the network's input: resize, pad, channel order, (x - mean) / std.

    Keeps its buffers between frames, so one instance serves one stream (state lives in instances).
    """

    def __init__(self, model: ModelSpec) -> None:
        self.model = model
        depth = 1 if model.channels == "grey" else 3
        if model.input.shape[1] != depth:
            raise ModelError(
                f"input {model.input.name} has shape {model.input.shape}", wanted=f"(1, {depth}, height, width)"
            )
        self._canvas = np.full((model.height, model.width, 3), model.pad, np.uint8)
        self._planes = np.empty(model.input.shape[1:], np.uint8)
        self._tensor = np.empty(model.input.shape, np.float32)
        self._mean, self._std = (np.array(v[:depth], np.float32)[:, None, None] for v in (model.mean, model.std))
        self._letterbox: Letterbox | None = None

    def __call__(self, bgr: Picture) -> tuple[F32, Letterbox]:
        """(H, W, 3) uint8 → (1, C, height, width) float32 and the map back. The array is reused by the next call."""
        if bgr.ndim != 3 or bgr.shape[2] != 3 or bgr.dtype != np.uint8 or 0 in bgr.shape:
            raise InputError(f"a picture of shape {bgr.shape} and type {bgr.dtype}", wanted="(H, W, 3) uint8, BGR")
        model, (height, width) = self.model, bgr.shape[:2]
        box = fit(model, width, height)
        if box != self._letterbox:  # another picture size: old pixels must not stay in the border
            self._canvas[:] = model.pad
            self._letterbox = box
        inner_width, inner_height = max(1, round(width * box.scale_x)), max(1, round(height * box.scale_y))
        # Far smaller: halve by area first, which OpenCV does twenty times faster than one INTER_AREA to any size.
        while bgr.shape[0] > 2 * inner_height and bgr.shape[1] > 2 * inner_width:
            bgr = cv2.resize(
                bgr[: bgr.shape[0] & ~1, : bgr.shape[1] & ~1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA
            )  # type: ignore[assignment]
        resized = cv2.resize(bgr, (inner_width, inner_height), interpolation=cv2.INTER_LINEAR)
        left, top = int(box.left), int(box.top)
        if model.fit == "crop":
            self._canvas[:] = resized[-top : model.height - top, -left : model.width - left]
        else:
            self._canvas[top : top + inner_height, left : left + inner_width] = resized
        self._to_tensor()
        return self._tensor, box

    def _to_tensor(self) -> None:
        if self.model.channels == "grey":
            cv2.cvtColor(self._canvas, cv2.COLOR_BGR2GRAY, self._planes[0])
        else:  # into planes that are there already: 30 times faster than into new ones
            cv2.split(self._canvas, list(self._planes[::-1] if self.model.channels == "rgb" else self._planes))
        np.subtract(self._planes, self._mean, out=self._tensor[0])
        if (self._std != 1).any():
            self._tensor[0] /= self._std


def fit(model: ModelSpec, width: int, height: int) -> Letterbox:
    """How a picture of (width, height) px lies in the network's input; a letterbox pads right and below."""
    across, down = model.width / width, model.height / height
    if model.fit == "stretch":
        return Letterbox(across, down, 0.0, 0.0, width, height)
    scale = min(across, down) if model.fit == "letterbox" else max(across, down)
    left = top = 0.0
    if model.fit == "crop":
        left = -float((round(width * scale) - model.width) // 2)
        top = -float((round(height * scale) - model.height) // 2)
    return Letterbox(scale, scale, left, top, width, height)


def grid(model: ModelSpec) -> tuple[F32, F32]:
    """(A, 2) cell corners in net px and (A,) strides, level by level, row by row: the order of both box decoders."""
    cells, strides = [], []
    for stride in model.strides:
        rows, columns = -(-model.height // stride), -(-model.width // stride)
        y, x = np.mgrid[:rows, :columns]
        cells.append(np.stack([x.ravel(), y.ravel()], 1) * stride)
        strides.append(np.full(rows * columns, stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)


class DecodeDetections:
    """Network outputs → Detections in frame px. YOLOX, arXiv:2107.08430, section 2.1: centre = (cell + d) * stride,
    size = exp(s) * stride; score = objectness * class."""

    def __init__(self, model: ModelSpec, *, score: float = 0.3, iou: float = 0.5, limit: int = 100) -> None:
        self.model, self.score, self.iou, self.limit = model, score, iou, limit
        self._cell, self.strides = grid(model)

    def __call__(self, outputs: Mapping[str, NDArray[Any]], box: Letterbox) -> Detections:
        found = self.raw(outputs)
        xyxy = box.to_frame(found.xyxy)
        # a box that lies wholly in the padding has no area in the frame
        kept = (xyxy[:, 2] - xyxy[:, 0] > 1) & (xyxy[:, 3] - xyxy[:, 1] > 1)
        return nms(replace(found, xyxy=xyxy)[kept], self.iou, self.limit)

    def raw(self, outputs: Mapping[str, NDArray[Any]]) -> Detections:
        """All that scores above the threshold, before suppression, in px of the network's input."""
        raw, score = self.split(list(outputs.values()))
        rows = np.flatnonzero(score > self.score) // score.shape[1]  # a row comes once for each class above
        if not len(rows):
            return Detections.empty()
        rows = rows[np.diff(rows, prepend=-1) > 0]
        score = score[rows]
        best = score.max(1)
        stride = self.strides[rows, None]
        centre = self._cell[rows] + raw[rows, :2] * stride
        half = np.exp(np.clip(raw[rows, 2:], -8, 8)) * stride / 2
        xyxy = np.concatenate([centre - half, centre + half], 1).astype(np.float32)
        found: Detections = Detections(xyxy, best.astype(np.float32), score.argmax(1))[best > self.score]
        return found  # without those of which one class is nan: then the best is

    def split(self, outputs: list[NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
        """→ (A, 4) raw boxes in strides, (A, C) scores. Raises ModelError where the decoder gives no boxes."""
        match self.model.decode:
            case "roadnet":
                return outputs[0][0], outputs[1][0]
            case "yolox":
                return outputs[0][0, :, :4], outputs[0][0, :, 4:5] * outputs[0][0, :, 5:]
            case other:
                raise ModelError(f"decoder '{other}' gives no boxes", wanted="roadnet or yolox")


def nms(found: Detections, iou: float, limit: int) -> Detections:
    """Class-aware non-maximum suppression, best score first; at most `limit` rows."""
    if not len(found):
        return found
    wh = np.concatenate([found.xyxy[:, :2], found.xyxy[:, 2:] - found.xyxy[:, :2]], 1)
    kept = np.asarray(
        cv2.dnn.NMSBoxesBatched(wh.tolist(), found.score.tolist(), found.label.tolist(), 0.0, iou), np.int64
    ).ravel()
    kept = kept[np.argsort(-found.score[kept], kind="stable")][:limit]
    result: Detections = found[kept]
    return result
