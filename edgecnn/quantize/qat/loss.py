"""How far the student's answers are from the teacher's: noise over power, every part of the answer alike.

A classifier: its logits. A detector: its scores by their square roots (as in Hellinger's distance), since a faint score
that doubles matters more than a strong one that grows as much; its boxes, those of the background hardly, by the same
roots of the teacher's scores.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from edgecnn.bundle import Decoder

TINY = 1e-12
FAINT = 1e-3  # scores well below this are all alike


def noise(student: Tensor, teacher: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """Power of the difference over that of the teacher, both over the whole batch."""
    power = (weight * teacher.square()).sum()
    return (weight * (student - teacher).square()).sum() / (power + TINY)


def parts(decode: Decoder, outputs: list[Tensor]) -> tuple[Tensor, Tensor] | None:
    """A detector's (B, A, 4) boxes and (B, A, ...) scores of all kinds, 0 to 1."""
    match decode:
        case "roadnet":
            return outputs[0], outputs[1]
        case "yolox":
            return outputs[0][..., :4], outputs[0][..., 4:]
        case _:
            return None


def distance(decode: Decoder, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """The mean over the parts of the answer; 0 where both agree."""
    ours, theirs = parts(decode, student), parts(decode, teacher)
    if ours is None or theirs is None:
        return torch.stack([noise(s, t) for s, t in zip(student, teacher, strict=True)]).mean()
    (boxes, scores), (wanted, believed) = ours, theirs
    belief = believed[..., :1] if decode == "yolox" else believed.amax(-1, keepdim=True)
    return (noise(boxes, wanted, root(belief)) + noise(root(scores), root(believed))) / 2


def root(scores: Tensor) -> Tensor:
    """0 at 0, with a finite slope there."""
    return (scores.clamp(min=0) + FAINT).sqrt() - math.sqrt(FAINT)
