"""Where the network looks: a grey square goes over the picture (Zeiler and Fergus 2013, arXiv:1311.2901, section 4.2).

Where the square makes the class less probable, the picture holds what the network knows it by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgecnn.explain.features import batches, ends, look, masked
from edgecnn.progress import bar

ACROSS = 16  # places of the square along a side
COVERS = 4  # places that it covers


@dataclass(frozen=True)
class Occlusion:
    """Row i, column j: the square's centre lies in the middle of that cell of the picture."""

    size: int  # of the square, px of the input
    stride: int  # from place to place, px
    whole: float  # probability of the class without a square
    probability: NDArray[np.float32]  # (rows, columns), of the class
    answer: NDArray[np.int64]  # (rows, columns), the class that is then the most probable
    layer: str  # the last with maps
    channel: int  # its map with the largest sum
    whole_total: float  # that sum without a square
    total: NDArray[np.float32]  # (rows, columns), that map's sum


def occlude(net: nn.Module, x: Tensor, label: int, *, size: int = 0, stride: int = 0) -> Occlusion:
    """Slide a grey square of `size` px over a picture (1, C, H, W), `stride` px at a time; zero: a quarter and a
    sixteenth of the shorter side. At the borders a part of the square hangs over."""
    height, width = x.shape[2:]
    stride = stride or max(1, min(height, width) // ACROSS)
    size = size or COVERS * stride
    rows, columns = max(1, height // stride), max(1, width // stride)
    boxes = [
        (round((column + 0.5) * width / columns - size / 2), round((row + 0.5) * height / rows - size / 2), size, size)
        for row in range(rows)
        for column in range(columns)
    ]
    with torch.no_grad():
        seen = look(net, x)
        _, layer = ends(seen)
        sums = seen.maps[layer].sum((2, 3))[0]
        channel = int(sums.argmax())
        probability, answer, total = [], [], []
        with bar("occlusion", len(boxes)) as advance:
            for part in batches(torch.arange(len(boxes))):
                found = look(net, masked(x, [boxes[i] for i in part.tolist()]), (layer,))
                probability.append(found.logits.softmax(1)[:, label])
                answer.append(found.logits.argmax(1))
                total.append(found.maps[layer][:, channel].sum((1, 2)))
                advance(len(part))
    shape = (rows, columns)
    return Occlusion(
        size,
        stride,
        float(seen.logits.softmax(1)[0, label]),
        torch.cat(probability).numpy().reshape(shape),
        torch.cat(answer).numpy().reshape(shape),
        layer,
        channel,
        float(sums[channel]),
        torch.cat(total).numpy().reshape(shape),
    )
