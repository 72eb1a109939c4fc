"""A second network names what tracked objects show: which sign, which light, which vehicle.

A classifier looks at crops of the tracked boxes, a few a frame and those first from which it learns most; each look
votes with its probabilities, and a track is named once its votes agree. So the cost has a bound, whatever the traffic,
and one blurred look renames nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.adas.memory import ById
from edgecnn.backends import Backend, open_backend
from edgecnn.bundle import Bundle, ModelSpec
from edgecnn.errors import ModelError
from edgecnn.scene import F32, I64, Picture, Tracks
from edgecnn.vision import Preprocess


@dataclass(frozen=True)
class SecondSettings:
    budget: int = 2  # looks a frame
    margin: float = 0.1  # of the box that a crop shows around it, on each side
    least_px: float = 12.0  # a box whose sqrt(wh) is smaller shows nothing yet
    looks: int = 3  # that every track gets, as soon as there is time
    again: float = 1.1  # an unsure track is looked at again when it has grown by this factor since the last look ...
    anew: float = 1.4  # ... and a named one by this
    sure: float = 0.7  # mean probability from which a name is shown ...
    agree: int = 2  # ... after so many looks
    fresh: int = 5  # frames since the detector saw the track; an older box may lie beside the object


class SecondStage:
    """Names for the tracks of one camera. `of` are classes of the first network; none: all of them.

    Raises ModelError where `model` is no classifier, or the first network (`first`) lacks one of the classes.
    """

    def __init__(
        self,
        model: ModelSpec,
        backend: Backend,
        first: ModelSpec,
        of: Sequence[str] = (),
        settings: SecondSettings | None = None,
    ) -> None:
        if model.task != "classify":
            raise ModelError(f"a second network for '{model.task}'", wanted="a classifier, to name what boxes show")
        if missing := [name for name in of if name not in first.classes]:
            raise ModelError(
                f"the detector knows no class '{missing[0]}'",
                wanted=f"of {', '.join(first.classes)}",
                do="Name its classes, or run a detector that has this one",
            )
        self.settings = settings or SecondSettings()
        self.model, self.backend, self.of = model, backend, tuple(of)
        self._wanted = np.array([not of or name in of for name in first.classes], bool)
        self._preprocess = Preprocess(model)
        self.reset()

    def reset(self) -> None:
        """Forget all tracks, as after a hard cut."""
        self._memory = ById(votes=np.zeros(len(self.model.classes)), looks=0, size=0.0)

    def step(self, bgr: Picture, tracks: Tracks, measured: F32 | None = None) -> tuple[tuple[str, ...], F32]:
        """Names (N,) of the tracks, "" where there is none yet or the class is not asked for, and their mean
        probabilities (N,); 0 where never looked at.

        `bgr` (H, W, 3) is the frame. `measured` (N, 4) px are the rows of `tracks` as detected, nan where not
        (`Tracker.measured`): a sign that we drive past moves so fast that filtered boxes lag by a fifth of its size.
        """
        memory = self._memory
        rows = memory.rows(tracks.id)
        xyxy = tracks.xyxy if measured is None else np.where(np.isnan(measured), tracks.xyxy, measured)
        size = _size(xyxy)
        for i in self._chosen(tracks, size, rows):
            row = rows[i]
            memory["votes"][row] += size[i] ** 2 * self._look(bgr, xyxy[i])  # what is to be seen grows as the area
            memory["looks"][row] += 1
            memory["size"][row] = size[i]
        score, sure = self._sure(rows)
        best = memory["votes"][rows].argmax(1)
        names = tuple(self.model.classes[k] if known else "" for k, known in zip(best, sure, strict=True))
        memory.keep(memory.among(rows))
        return names, score.astype(np.float32)

    def _sure(self, rows: I64) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Mean probability (N,) of the name with most votes, and whether (N,) it may be shown."""
        votes = self._memory["votes"][rows]
        score = votes.max(1) / np.maximum(votes.sum(1), 1e-9)
        return score, (score >= self.settings.sure) & (self._memory["looks"][rows] >= self.settings.agree)

    def _chosen(self, tracks: Tracks, size: NDArray[np.float64], rows: I64) -> NDArray[np.intp]:
        """Which tracks to look at now: new ones first, then young ones, then those that grew; the largest of each."""
        s, memory = self.settings, self._memory
        looks = memory["looks"][rows]
        grown = size / np.maximum(memory["size"][rows], 1e-9)
        _, sure = self._sure(rows)
        need = np.select([looks == 0, looks < s.looks, grown >= np.where(sure, s.anew, s.again)], [3, 2, 1])
        need[~self._wanted[tracks.label] | (size < s.least_px) | (tracks.missed > s.fresh)] = 0
        order = np.lexsort((-size, -need))[: s.budget]
        return order[need[order] > 0]

    def _look(self, bgr: Picture, xyxy: F32) -> NDArray[np.float64]:
        """Probabilities (C,) of the classes in one box."""
        tensor, _ = self._preprocess(crop(bgr, xyxy, self.model.width / self.model.height, self.settings.margin))
        (logits,) = self.backend({self.model.input.name: tensor}).values()
        power = np.exp(logits[0].astype(np.float64) - logits.max())
        return np.asarray(power / power.sum())


def open_second(bundle: Bundle, first: Bundle, of: Sequence[str] = (), *, threads: int = 0) -> SecondStage:
    """A classifier's bundle as second stage of a detector's, with what runs here. Raises BundleError, ModelError."""
    model = bundle.require_model()
    return SecondStage(model, open_backend(bundle, threads=threads), first.require_model(), of)


def crop(bgr: Picture, xyxy: NDArray[Any], aspect: float, margin: float) -> Picture:
    """The box with `margin` of its longer side around it, widened or heightened to width / height = `aspect`; beyond
    the picture its border goes on."""
    left, top, right, bottom = (float(v) for v in xyxy)
    height = max(bottom - top, (right - left) / aspect, 1.0) * (1 + 2 * margin)
    size = max(1, round(height * aspect)), max(1, round(height))
    centre = (left + right - 1) / 2, (top + bottom - 1) / 2
    return np.asarray(cv2.getRectSubPix(bgr, size, centre), np.uint8)


def _size(xyxy: F32) -> NDArray[np.float64]:
    """sqrt(wh) (N,) of boxes (N, 4)."""
    side = np.maximum(xyxy[:, 2:] - xyxy[:, :2], 0).astype(np.float64)
    return np.asarray(np.sqrt(side[:, 0] * side[:, 1]))
