"""Which pixels made a map answer: the deconvnet (Zeiler and Fergus 2013, arXiv:1311.2901, section 2.1).

The strongest answer of a map goes back to the picture: through max pooling by its switches, through ReLU by ReLU,
through convolutions by their transposed filters, all else in the layer being zero. That is a backward pass in which
ReLU's own rule is exchanged (Springenberg et al. 2014, arXiv:1412.6806, section 3.4), so it needs no second network
and goes through shortcuts and branches as well. Where pooling windows overlap, signals for one pixel add up. Layers
that the paper does not speak of go back by their derivative: batch normalisation, local response normalisation,
average pooling.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgecnn.errors import ModelError
from edgecnn.explain.features import Seen, look

MANY = 6  # layers; of a deeper network only the last at each size of map


@dataclass(frozen=True)
class Projection:
    """One map's strongest answer, and the pixels that made it."""

    layer: str
    channel: int
    value: float  # the answer
    place: tuple[int, int]  # its row and column in the map
    signal: Tensor  # (C, H, W), of the network's input


def project(net: nn.Module, x: Tensor, *, layers: tuple[str, ...] = (), top: int = 9) -> list[Projection]:
    """Project the `top` strongest maps of each layer, by their largest answer to the picture (1, C, H, W).

    Without `layers`: all of them, or in a network of more than six the last at each size of map. Maps that do not
    answer at all are left out. Raises ModelError for a network without ReLU, whose way back has no rule, and for a
    name that is no convolution with a ReLU after it.
    """
    start = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        seen = look(net, start)
    if not seen.rectified:
        raise ModelError("the network has no ReLU", wanted="convolutions with ReLU: the deconvnet goes back by it")
    if unknown := [name for name in layers if name not in seen.maps]:
        raise ModelError(f"'{unknown[0]}' has no maps after a ReLU", wanted=f"one of {', '.join(seen.maps)}")
    found = []
    for name in layers or chosen(seen):
        maps = seen.maps[name]
        value, at = maps[0].detach().flatten(1).max(1)
        for channel in value.argsort(descending=True, stable=True)[:top].tolist():
            if value[channel] <= 0:
                break
            row, column = divmod(int(at[channel]), maps.shape[3])
            alone = torch.zeros_like(maps)
            alone[0, channel, row, column] = value[channel]
            (signal,) = torch.autograd.grad(maps, start, alone, retain_graph=True)
            found.append(Projection(name, channel, float(value[channel]), (row, column), signal[0].detach()))
    return found


def chosen(seen: Seen) -> list[str]:
    """The layers to show: all of a small network, of a deep one the last at each size of map."""
    if len(seen.maps) <= MANY:
        return list(seen.maps)
    last = {tuple(output.shape[2:]): name for name, output in seen.maps.items()}
    return [name for name in seen.maps if name in last.values()]
