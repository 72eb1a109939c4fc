"""The road simulator as a data set: independent scenes, frames of drives, or single road users cut out."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from edgecnn.data.classes import CLASSES
from edgecnn.data.folder import whole
from edgecnn.data.sample import Sample
from edgecnn.data.simulator import Drive, still


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
