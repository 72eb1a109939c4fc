"""Boxes of a frame into vectors of what is in them: crop, preprocess, network."""

from __future__ import annotations

import numpy as np

from edgecnn.backends import Backend
from edgecnn.bundle import ModelSpec
from edgecnn.errors import ModelError
from edgecnn.scene import F32, Picture
from edgecnn.vision import Preprocess


class Appearance:
    """`frame` is set before each frame's calls; `crops` counts what was looked at. Raises ModelError for a model that
    gives no vectors."""

    def __init__(self, model: ModelSpec, backend: Backend) -> None:
        if model.task != "embed":
            raise ModelError(
                f"a model for '{model.task}'", wanted="one that embeds, to tell objects apart by their looks"
            )
        self.model, self.backend, self._preprocess = model, backend, Preprocess(model)
        self.frame: Picture = np.zeros((1, 1, 3), np.uint8)
        self.crops = 0

    def __call__(self, xyxy: F32) -> F32:
        """(K, 4) px of the frame → (K, D) of length 1."""
        height, width = self.frame.shape[:2]
        limit = np.array([width, height])
        low = np.clip(np.floor(xyxy[:, :2]), 0, limit - 1).astype(int)
        high = np.clip(np.ceil(xyxy[:, 2:]), low + 1, limit).astype(int)
        rows = []
        for (left, top), (right, bottom) in zip(low.tolist(), high.tolist(), strict=True):
            tensor, _ = self._preprocess(self.frame[top:bottom, left:right])
            rows.append(next(iter(self.backend({self.model.input.name: tensor}).values()))[0])
        self.crops += len(rows)
        table = np.array(rows, np.float32).reshape(len(rows), -1)
        return np.asarray(table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-9), np.float32)
