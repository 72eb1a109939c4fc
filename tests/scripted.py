"""Sources whose frames, times and troubles are known, and whole runs of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tiny_detector import HEIGHT, WIDTH

from edgecnn.bundle import Bundle
from edgecnn.errors import InputError
from edgecnn.run import RunSettings, RunSummary, Source, run
from edgecnn.scene import Frame, Picture

FPS = 25.0
PERIOD_NS = round(1e9 / FPS)
EVERY = RunSettings(detect_every=1, threads=1)


class Script:
    """A reader of given pictures, `pause_s` apart; at the end it stays silent for `silence_s`, or raises `error`."""

    total = camera = None
    warning = ""

    def __init__(
        self,
        pictures: Sequence[Picture],
        *,
        name: str = "script",
        live: bool = False,
        pause_s: float = 0.0,
        times_ns: Sequence[int] | None = None,
        silence_s: float = 0.0,
        error: str = "",
    ) -> None:
        self.name, self.live, self.fps = name, live, FPS
        self._pictures, self._pause_s, self._silence_s, self._error = pictures, pause_s, silence_s, error
        self._times_ns = times_ns or [i * PERIOD_NS for i in range(len(pictures))]

    def frames(self) -> Iterator[Frame]:
        for index, (picture, t_ns) in enumerate(zip(self._pictures, self._times_ns, strict=True)):
            time.sleep(self._pause_s)
            yield Frame(index, t_ns, picture)
        time.sleep(self._silence_s)
        if self._error:
            raise InputError(self._error)


@lru_cache
def _ground(width: int, height: int) -> np.ndarray:
    """A wide (height, 4 * width) picture with detail at all scales, too dark for a lamp."""
    rng = np.random.default_rng(5)
    coarse, fine = rng.integers(8, 55, (height // 8 + 1, width)), rng.integers(-8, 15, (height // 2 + 1, 2 * width))
    large = np.repeat(np.repeat(coarse, 8, 0), 8, 1)[:height, : 4 * width]
    return np.asarray(large + np.repeat(np.repeat(fine, 2, 0), 2, 1)[:height, : 4 * width])


@lru_cache(400)
def road(index: int, *, width: int = WIDTH, height: int = HEIGHT) -> Picture:
    """What a camera sees that moves over it, with a sensor's noise."""
    left = 2 * index % (3 * width)
    noise = np.random.default_rng((6, index)).normal(0, 2, (height, width))
    grey = np.clip(_ground(width, height)[:, left : left + width] + noise, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def roads(count: int, change: Callable[[int, Picture], Picture] = lambda index, picture: picture) -> list[Picture]:
    return [change(index, road(index)) for index in range(count)]


def lit(picture: Picture, column: int = 4, row: int = 3) -> Picture:
    """The picture with a lamp in it."""
    out = picture.copy()
    out[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = 250
    return out


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    rows = map(json.loads, (folder / "events.jsonl").read_text("utf-8").splitlines())
    return [row for row in rows if row["type"] == kind]


def ran(bundle: Bundle, pictures: list[Picture], out: Path, **more: Any) -> RunSummary:
    return run(bundle, Source(Script(pictures, **more)), out, EVERY, sinks=("events", "mot"))
