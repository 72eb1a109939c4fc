"""Whether what comes in can be trusted: the camera's picture, the time stamps, the network's answer.

Thresholds were set on drives and dashcam videos at the size of a thumbnail; docs/run.md has what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.vision import DecodeDetections

Fault = Literal["frozen", "black", "covered", "blurred", "noise"]
WIDTH = 240  # px of the thumbnail that is judged


@dataclass(frozen=True)
class HealthSettings:
    """Grey levels are of 255; a detail is the deviation of the band between blurs of 2 and 4 px of the thumbnail."""

    black: float = 20.0  # without detail, and 99 % of the pixels darker than this: black; else covered
    detail: float = 0.6  # less is none; clear pictures have above 2, a lens behind a hand 0.2
    fine: float = 0.5  # detail between 1 and 2 px over that between 2 and 4 px: a lens out of focus has less
    alike: float = 0.1  # correlation of pixels 3 apart; any scene has above 0.6, noise 0
    still: float = 0.05  # mean change from frame to frame: a sensor's own noise is more
    after_s: float = 0.5  # a fault is told when it has lasted this long
    frozen_s: float = 0.8  # the same of a picture that does not change
    frames: int = 3  # and for as many frames
    every_s: float = 0.1  # the picture is judged this often; whether it changes, in every frame


class CameraHealth:
    """Of one camera: looks at each frame's grey picture, tells what has been wrong with it for a while."""

    def __init__(self, settings: HealthSettings | None = None) -> None:
        self.settings = settings or HealthSettings()
        self._before: NDArray[np.uint8] | None = None
        self._looked_s = -np.inf
        self._look: Fault | None = None  # what was wrong when it was looked at last
        self._since: dict[Fault, tuple[float, int]] = {}  # when it began, and frames since

    def step(self, grey: NDArray[np.uint8], t_s: float) -> tuple[Fault, ...]:
        """(h, w) grey of any size, and a time that rises → the faults that last."""
        s, small, before = self.settings, grey, self._before
        if grey.shape[1] > WIDTH:
            height = max(1, round(grey.shape[0] * WIDTH / grey.shape[1]))
            small = np.asarray(cv2.resize(grey, (WIDTH, height), interpolation=cv2.INTER_AREA), np.uint8)
        self._before = small
        if t_s - self._looked_s >= s.every_s:
            self._looked_s, self._look = t_s, self._judge(small)
        now: list[Fault] = [self._look] if self._look else []
        if before is not None and before.shape == small.shape and cv2.mean(cv2.absdiff(small, before))[0] < s.still:
            now.append("frozen")
        new = (t_s, 0)
        self._since = {fault: (self._since.get(fault, new)[0], self._since.get(fault, new)[1] + 1) for fault in now}
        return tuple(
            fault
            for fault, (since, frames) in self._since.items()
            if t_s - since >= (s.frozen_s if fault == "frozen" else s.after_s) and frames >= s.frames
        )

    def _judge(self, small: NDArray[np.uint8]) -> Fault | None:
        s, picture = self.settings, small.astype(np.float32)
        blurred = [cv2.GaussianBlur(picture, (0, 0), sigma) for sigma in (1.0, 2.0, 4.0)]
        detail = float((blurred[1] - blurred[2]).std())
        if detail < s.detail:
            return "black" if float(np.percentile(small, 99)) < s.black else "covered"
        centred = picture - picture.mean()
        if float((centred[:, 3:] * centred[:, :-3]).mean()) < s.alike * float(centred.var()):
            return "noise"
        return "blurred" if float((blurred[0] - blurred[1]).std()) < s.fine * detail else None


class Clock:
    """Time stamps made to rise: one that repeats or goes back is taken for one period later, and counted."""

    def __init__(self, fps: float, *, longest_s: float = 10.0) -> None:
        self._period_ns, self._longest_ns = round(1e9 / fps), round(1e9 * longest_s)
        self._last: tuple[int, int] | None = None  # as it came, and as it was given
        self.odd = 0  # repeated, backward, or leaping ahead by more than `longest_s`

    def __call__(self, t_ns: int) -> int:
        """A step of more than `longest_s` becomes that long, so that no filter overflows."""
        if self._last is None:
            given = t_ns
        else:
            elapsed = t_ns - self._last[0]
            self.odd += not 0 < elapsed <= self._longest_ns
            given = self._last[1] + (min(elapsed, self._longest_ns) if elapsed > 0 else self._period_ns)
        self._last = t_ns, given
        return given


def nonsense(outputs: Mapping[str, NDArray[Any]], decode: DecodeDetections) -> str:
    """Why a detector's outputs can't be an answer, "" where they can: nan or inf, a score that is none, boxes far
    larger than the picture, or objects in more than half of all cells."""
    if not all(np.isfinite(array).all() for array in outputs.values()):
        return "nan or inf"
    raw, score = decode.split(list(outputs.values()))
    if score.size and not (score.min() > -0.01 and score.max() < 1.01):
        return "scores outside 0 to 1"
    best = score.max(1)
    rows = best > decode.score
    side = decode.model.width + decode.model.height
    if rows.any() and float((np.exp(np.clip(raw[rows, 2:], -8, 8)) * decode.strides[rows, None]).max()) > 4 * side:
        return "boxes far larger than the picture"
    if int((best > 0.5).sum()) > 0.5 * len(best):
        return "objects everywhere"
    return ""
