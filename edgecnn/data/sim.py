"""The road simulator as a data set: independent scenes, frames of drives, single road users cut out, or windows."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import lru_cache

import cv2
import numpy as np

from edgecnn.data.classes import CLASSES
from edgecnn.data.folder import whole
from edgecnn.data.sample import Sample
from edgecnn.data.simulator import Drive, still
from edgecnn.scene import Picture, Truth


class SimStills:
    """`count` independent random scenes."""

    classes = CLASSES

    def __init__(self, seed: int, count: int, *, width: int = 640, height: int = 384) -> None:
        self._seed, self._count, self._width, self._height = seed, count, width, height

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> Sample:
        return still(self._seed, range(self._count)[i], self._width, self._height)


class SimDrives:
    """All frames of `drives` drives, one after the other: seeds seed, seed + 1, …"""

    classes = CLASSES

    def __init__(self, seed: int, frames: int, drives: int) -> None:
        self._frames, self._drives = frames, drives
        self._open = lru_cache(2)(lambda k: Drive(seed + k, frames))

    def __len__(self) -> int:
        return self._frames * self._drives

    def __getitem__(self, i: int) -> Sample:
        k, frame = divmod(range(len(self))[i], self._frames)
        picture, truth, _ = self._open(k).render(frame)
        return Sample(f"drive-{k}-{frame}", picture.bgr, truth)


class SimCrops:
    """`count` well visible road users cut out of random scenes, for classification; classes in turn."""

    classes = CLASSES
    TRIES = 40

    def __init__(self, seed: int, count: int) -> None:
        self._seed, self._count = seed, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> Sample:
        i = range(self._count)[i]
        wanted = i % len(CLASSES)
        for k in range(self.TRIES):
            scene = still(self._seed, i * self.TRIES + k)
            truth = scene.truth
            tall = truth.xyxy[:, 3] - truth.xyxy[:, 1]
            rows = np.flatnonzero((truth.label == wanted) & ~truth.ignore & (truth.visibility > 0.8) & (tall > 24))
            if len(rows):
                left, top, right, bottom = truth.xyxy[rows[np.argmax(tall[rows])]]
                crop = scene.bgr[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))]
                return Sample(f"{scene.name}-{CLASSES[wanted]}", np.ascontiguousarray(crop), whole(crop, wanted))
        raise AssertionError(f"no {CLASSES[wanted]} in {self.TRIES} scenes of seed {self._seed}")


class SimWindows:
    """`count` pictures, every other one a random scene, the others four windows of scenes beside each other.

    As `edgecnn run` shows them to a network between two whole frames (edgecnn.run.regions): around an object, at a zoom
    at which it is 16 to 80 px large, cut where the window ends.
    """

    classes = CLASSES
    SIZES = (16.0, 80.0)  # px of the picture: sqrt(wh) of the object in the middle
    CUT = 0.3  # an object of which a window holds less is neither a hit nor a miss

    def __init__(self, seed: int, count: int, *, width: int = 416, height: int = 256) -> None:
        self._seed, self._count, self._width, self._height = seed, count, width, height

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> Sample:
        i = range(self._count)[i]
        if i % 2 == 0:
            return still(self._seed, i)
        rng = np.random.default_rng((self._seed, i, 3))
        picture, truths = np.empty((self._height, self._width, 3), np.uint8), []
        for row in range(2):
            top, bottom = (self._height * k // 2 for k in (row, row + 1))
            parts = rng.choice((1, 2))
            scene = still(self._seed, self._count + 2 * i + row)
            for column in range(2 * parts):
                left, right = (self._width * k // (2 * parts) for k in (column, column + 1))
                picture[top:bottom, left:right], truth = self._window(rng, scene, right - left, bottom - top)
                truths.append(replace(truth, xyxy=truth.xyxy + np.array([left, top] * 2, np.float32)))
        return Sample(f"windows-{self._seed}-{i}", picture, joined(truths))

    def _window(self, rng: np.random.Generator, scene: Sample, width: int, height: int) -> tuple[Picture, Truth]:
        """A part of the scene, (height, width, 3), and what is in it, px of that part."""
        truth, frame = scene.truth, np.array(scene.bgr.shape[1::-1])
        rows = np.flatnonzero(~truth.ignore)
        box = truth.xyxy[rng.choice(rows)] if len(rows) else np.array([*frame / 2, *frame / 2])
        size = max(float(np.sqrt((box[2:] - box[:2]).prod())), 8.0)
        zoom = float(np.clip(np.exp(rng.uniform(*np.log(self.SIZES))) / size, 0.25, 1.5))
        side = np.array([width, height]) / zoom
        side = np.maximum(side * min(1.0, float((frame / side).min())), 2).astype(int)
        middle = 0.5 * (box[:2] + box[2:]) + rng.uniform(-0.25, 0.25, 2) * side
        corner = np.clip(middle - side / 2, 0, frame - side).astype(int)
        part = scene.bgr[corner[1] : corner[1] + side[1], corner[0] : corner[0] + side[0]]
        shrunk = cv2.INTER_AREA if part.shape[1] > width else cv2.INTER_LINEAR
        scale = np.array([width, height] / side, np.float32)
        xyxy = (truth.xyxy - np.tile(corner, 2)) * np.tile(scale, 2)
        inside = np.clip(xyxy, 0, (width, height) * 2)
        left = (inside[:, 2:] - inside[:, :2]).prod(1) / np.maximum((xyxy[:, 2:] - xyxy[:, :2]).prod(1), 1e-6)
        there = replace(truth, xyxy=inside.astype(np.float32), ignore=truth.ignore | (left < self.CUT))[left > 0]
        return np.asarray(cv2.resize(part, (width, height), interpolation=shrunk), np.uint8), there


def joined(truths: list[Truth]) -> Truth:
    """All rows, one after the other."""
    return Truth(*(np.concatenate([getattr(truth, f.name) for truth in truths]) for f in fields(Truth)))
