"""How the features follow a picture that is shifted, scaled or turned (Zeiler and Fergus 2013, arXiv:1311.2901,
figure 5): the first layer changes at once, the last hardly where the network has learnt not to mind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgecnn.explain.features import batches, ends, look

Kind = Literal["shift", "scale", "rotation"]
SHIFT = 60 / 224  # of the height, both ways; as in the paper, like the rest
SCALES = tuple(1 + step / 10 for step in range(9))
TURNS = tuple(float(degrees) for degrees in range(0, 361, 15))


@dataclass(frozen=True)
class Curve:
    """One picture under one kind of change."""

    kind: Kind
    amount: tuple[float, ...]  # px down; times; degrees anticlockwise
    first: NDArray[np.float32]  # Euclidean distance of the first layer's maps from the unchanged picture's
    last: NDArray[np.float32]  # the same for what the last fully connected layer is given
    probability: NDArray[np.float32]  # of the class


def invariance(net: nn.Module, x: Tensor, label: int, fill: Sequence[float]) -> list[Curve]:
    """Three curves of a picture (1, C, H, W); `fill`: what comes in at the borders, a value a channel."""
    pixels = round(SHIFT * x.shape[2])
    shifts = sorted({float(round(step / 6 * pixels)) for step in range(-6, 7)})
    amounts: dict[Kind, tuple[float, ...]] = {"shift": tuple(shifts), "scale": SCALES, "rotation": TURNS}
    return [_curve(net, x, label, fill, kind, amount) for kind, amount in amounts.items()]


def moved(x: Tensor, kind: Kind, amount: float, fill: Sequence[float]) -> Tensor:
    """(1, C, H, W) shifted down, scaled about its centre or turned about it anticlockwise; bilinear."""
    height, width = x.shape[2:]
    centre = ((width - 1) / 2, (height - 1) / 2)
    matrix = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, amount]])
    if kind != "shift":
        matrix = cv2.getRotationMatrix2D(centre, *((0, amount) if kind == "scale" else (amount, 1)))
    planes = [
        cv2.warpAffine(plane, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=value)
        for plane, value in zip(x[0].numpy(), fill, strict=True)
    ]
    return torch.from_numpy(np.stack(planes))[None]


def _curve(
    net: nn.Module, x: Tensor, label: int, fill: Sequence[float], kind: Kind, amounts: tuple[float, ...]
) -> Curve:
    first, last, probability = [], [], []
    with torch.no_grad():
        layer, _ = ends(seen := look(net, x))
        for part in batches(torch.cat([moved(x, kind, amount, fill) for amount in amounts])):
            found = look(net, part, (layer,))
            first.append((found.maps[layer] - seen.maps[layer]).flatten(1).norm(dim=1))
            last.append((found.vector - seen.vector).norm(dim=1))
            probability.append(found.logits.softmax(1)[:, label])
    return Curve(kind, amounts, *(torch.cat(each).numpy() for each in (first, last, probability)))
