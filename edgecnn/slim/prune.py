"""Channel pruning through the dependency graph (Fang et al. 2023, arXiv:2301.12900), by the library Torch-Pruning.

Channels that depend on one another (a residual sum, a concatenation, a depthwise layer and its neighbours) go
together. Those go first, anywhere in the network, whose loss would change least to first order (Molchanov et al. 2019,
arXiv:1906.10771, eq. 8): in a nano detector their size alone says nothing. Widths stay multiples of `round_to`, since
odd ones are slower.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
import torch_pruning as tp  # type: ignore[import-untyped]
from torch import nn

from edgecnn.bundle import ModelSpec
from edgecnn.errors import ModelError
from edgecnn.recipe import PruneStep
from edgecnn.zoo.count import size
from edgecnn.zoo.fit import add_gradients
from edgecnn.zoo.roadnet import Head
from edgecnn.zoo.widths import read_widths

TRIES = 8  # halvings of the interval in which the ratio is sought
DEEPEST = 0.5  # no layer loses more than this share of its channels


def pruned(net: nn.Module, spec: ModelSpec, step: PruneStep, teacher: nn.Module) -> tuple[nn.Module, ModelSpec, str]:
    """A copy with the share of the MACs gone that the step asks for."""
    assert step.macs is not None
    source = step.between if step.data is None else step.between.model_copy(update={"data": step.data})
    weighed = copy.deepcopy(net)
    add_gradients(weighed, spec, source)
    slim = prune(weighed, spec.input.shape, step.macs, step.round_to)
    before, after = (size(each, spec.input.shape).macs for each in (net, slim))
    line = f"prune: {before:,} multiply-adds became {after:,} ({1 - after / before:.1%} less) by {step.criterion}"
    return slim, replace(spec, widths=read_widths(slim)), line


def prune(net: nn.Module, shape: tuple[int, ...], share: float, round_to: int) -> nn.Module:
    """A copy with at least `share` of the MACs gone: the smallest such cut. `net` must hold gradients of its loss.

    Raises ModelError if no cut reaches the share.
    """
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
    slim = copy.deepcopy(net).eval()
    for mine, theirs in zip(slim.parameters(), net.parameters(), strict=True):
        mine.grad = None if theirs.grad is None else theirs.grad.clone()
    pruner = tp.pruner.BasePruner(
        slim,
        torch.zeros(shape),
        importance=tp.importance.GroupTaylorImportance(),
        global_pruning=True,
        pruning_ratio=ratio,
        max_pruning_ratio=DEEPEST,
        round_to=round_to,
        ignored_layers=outputs(slim),
    )
    pruner.step()
    slim.zero_grad()
    return slim


def outputs(net: nn.Module) -> list[nn.Module]:
    """Layers whose outputs mean something outside the network, and must all stay."""
    heads = [layer for head in net.modules() if isinstance(head, Head) for layer in (head.cls, head.box, head.obj)]
    if heads:
        return list(heads)
    return [[layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)][-1]]
