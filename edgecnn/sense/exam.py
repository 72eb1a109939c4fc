"""Pictures with truth, and two marks for a network's answers on them: the task's own metric, and how far the answers
are from those in FP32.

A few hundred pictures tell half a point apart at best, and most units cost less. The divergence is measured on every
class and every box of every picture, so it ranks units that the metric can't tell apart; the metric alone decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecnn.backends import Array
from edgecnn.bundle import ModelSpec
from edgecnn.check.accuracy import FAINT, Vocabulary, boxed, labelled
from edgecnn.errors import InputError, ModelError
from edgecnn.metrics.detection import evaluate_detections
from edgecnn.metrics.topk import topk
from edgecnn.progress import tracked
from edgecnn.recipe import DataSection
from edgecnn.scene import F32, Letterbox, Truth
from edgecnn.vision import DecodeDetections, Preprocess

LEAST = 1e-6  # a probability below this counts as this: a divergence stays finite


@dataclass(frozen=True)
class Exam:
    """Pictures as the network takes them, and their truth."""

    model: ModelSpec
    inputs: list[F32]  # (1, C, H, W) each
    truths: list[Truth]
    boxes: list[Letterbox]
    detector: tuple[Vocabulary, DecodeDetections] | None  # None: a classifier

    @classmethod
    def open(cls, model: ModelSpec, data: DataSection, pictures: int, iou: float) -> Exam:
        """At most so many pictures of a check's data, spread evenly over it; `iou`: of the suppression.

        Raises InputError where the data is missing or holds no picture that the network can be judged on, ModelError
        for an embedding or where its classes are not the network's.
        """
        if model.task == "embed":
            raise ModelError("an embedding, which is never right or wrong", wanted="a classifier or a detector")
        classify = model.task == "classify"
        dataset = labelled(model, data) if classify else boxed(model, data)
        words = None if classify else Vocabulary.of(model.classes, dataset.classes)
        detector = (words, DecodeDetections(model, score=FAINT, iou=iou)) if words else None
        count = min(pictures, len(dataset))
        preprocess = Preprocess(model)
        exam = cls(model, [], [], [], detector)
        for i in tracked(range(count), "pictures", count):
            sample = dataset[i * len(dataset) // count]
            truth = words.truth(sample.truth) if words else sample.truth
            if classify and not len(truth):
                continue  # of a class that the network does not tell
            tensor, box = preprocess(sample.bgr)
            exam.inputs.append(tensor.copy())
            exam.truths.append(truth)
            exam.boxes.append(box)
        if not any(len(truth) for truth in exam.truths):
            raise InputError(
                f"none of the {count} pictures of kind '{data.kind}' shows what the network knows",
                wanted="pictures with truth",
                do="Name others under `check:` in the recipe, or raise --pictures",
            )
        return exam

    @property
    def metric(self) -> str:
        return "AP50" if self.detector else "top1"

    def score(self, answers: Iterable[Mapping[str, Array]]) -> float:
        """The metric, in [0, 1], of outputs of every picture."""
        if self.detector is None:
            scores = np.stack([next(iter(row.values()))[0] for row in answers])
            return topk(scores, np.array([int(truth.label[0]) for truth in self.truths]))["top1"]
        words, decode = self.detector
        found = [words.found(decode(row, box)) for row, box in zip(answers, self.boxes, strict=True)]
        return evaluate_detections(zip(found, self.truths, strict=True), words.classes)["AP50"]

    def divergence(self, whole: Sequence[Mapping[str, Array]], answers: Sequence[Mapping[str, Array]]) -> float:
        """Mean Kullback-Leibler divergence a picture, nats, of FP32's answers from these; 0 for the same.

        A classifier: of softmax. A detector: of every score as a coin's, and of every box as a normal distribution one
        stride wide, weighed by FP32's score.
        """
        pairs = [(list(a.values()), list(b.values())) for a, b in zip(whole, answers, strict=True)]
        if self.detector is None:
            return float(np.mean([_divergence(_softmax(a[0][0]), _softmax(b[0][0])) for a, b in pairs]))
        split = self.detector[1].split
        return float(np.mean([_of_boxes(split(a), split(b)) for a, b in pairs]))

    def digest(self) -> str:
        """Hash of pictures and truth."""
        digest = hashlib.sha256()
        for x, truth in zip(self.inputs, self.truths, strict=True):
            for array in (x, truth.xyxy, truth.label, truth.ignore):
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def _of_boxes(whole: tuple[Array, Array], answer: tuple[Array, Array]) -> float:
    (placed, p), (moved, q) = whole, answer
    p, q = p.astype(np.float64), q.astype(np.float64)
    away = np.square(placed.astype(np.float64) - moved).sum(1) / 2
    return _divergence(p, q) + _divergence(1 - p, 1 - q) + float((p.max(1) * away).sum())


def _softmax(x: Array) -> Any:
    e = np.exp(x.astype(np.float64) - x.max())
    return e / e.sum()


def _divergence(p: Any, q: Any) -> float:
    p, q = np.clip(p, LEAST, 1), np.clip(q, LEAST, 1)
    return float((p * np.log(p / q)).sum())
