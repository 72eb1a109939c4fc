"""Channel pruning through the dependency graph (Fang et al. 2023, arXiv:2301.12900), by the library Torch-Pruning.

Channels that depend on one another (a residual sum, a concatenation, a depthwise layer and its neighbours) go
together; the groups with the smallest L2 norm go first. Widths stay multiples of `round_to`: odd ones are slower.
"""

from __future__ import annotations

import copy

import torch
import torch_pruning as tp  # type: ignore[import-untyped]
from torch import nn

from edgecnn.errors import ModelError
from edgecnn.zoo.count import size
from edgecnn.zoo.roadnet import Head

TRIES = 7  # halvings of the interval in which the ratio is sought


def prune(net: nn.Module, shape: tuple[int, ...], share: float, round_to: int) -> nn.Module:
    """A copy with at least `share` of the MACs gone: the smallest such cut. Raises ModelError if there is none."""
    full = size(net, shape).macs
    low, high, best = 0.0, 0.95, None
    for _ in range(TRIES):
        ratio = (low + high) / 2
        candidate = _at(net, shape, ratio, round_to)
        if size(candidate, shape).macs <= full * (1 - share):
            best, high = candidate, ratio
        else:
            low = ratio
    if best is None:
        raise ModelError(
            f"no cut in multiples of {round_to} channels takes {share:.0%} of the MACs away",
            do="Lower slim.prune or slim.round_to",
        )
    return best


def _at(net: nn.Module, shape: tuple[int, ...], ratio: float, round_to: int) -> nn.Module:
    net = copy.deepcopy(net).eval()
    pruner = tp.pruner.BasePruner(
        net,
        torch.zeros(shape),
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        round_to=round_to,
        ignored_layers=outputs(net),
    )
    pruner.step()
    return net


def outputs(net: nn.Module) -> list[nn.Module]:
    """Layers whose outputs mean something outside the network, and must all stay."""
    heads = [layer for head in net.modules() if isinstance(head, Head) for layer in (head.cls, head.box, head.obj)]
    if heads:
        return list(heads)
    return [[layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)][-1]]
