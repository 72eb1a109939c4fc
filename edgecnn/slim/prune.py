"""Channel pruning. Four ways to say what a channel is worth, each by Torch-Pruning, over all layers of its family:

- taylor: how much the loss changes without it, to first order: the sum of |weight · gradient| (Molchanov et al. 2019,
  arXiv:1906.10771, eq. 8, by weight). In a nano detector size alone says nothing.
- hessian: to second order, at a minimum: the sum of weight² · F, F the diagonal of the empirical Fisher matrix, the
  mean over pictures of each one's squared gradient (Optimal Brain Damage, LeCun et al. 1989, eq. 5, without the half).
- magnitude: the sum of its squared weights.
- bn_scale: |gamma| of its batch normalisation (Liu et al. 2017, arXiv:1708.06519), over the family.

Scores are relative to their family's mean. `global` cuts the lowest of the whole network, `uniform` the same share of
each family. Widths stay multiples of `round_to`, since odd ones are slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch_pruning as tp  # type: ignore[import-untyped]
from torch import Tensor, nn

from edgecnn.bundle import ModelSpec
from edgecnn.errors import ModelError
from edgecnn.recipe import FinetuneStep, PruneStep, TrainSection
from edgecnn.slim.channels import Cut, Family, Importance, Layout, after, apply_cut, duplicate, families, layout
from edgecnn.slim.finetune import finetuned
from edgecnn.zoo.count import size
from edgecnn.zoo.fit import add_gradients
from edgecnn.zoo.widths import read_widths

TRIES = 8  # halvings of the interval in which the ratio is sought
DEEPEST = 0.95  # no family loses more than this share of its channels


def pruned(
    net: nn.Module, spec: ModelSpec, step: PruneStep, teacher: nn.Module, own: ModelSpec | None = None
) -> tuple[nn.Module, ModelSpec, str]:
    """A copy with the share of the MACs, or of the channels, gone that the step asks for, over `rounds` rounds.

    After each round but the last the network is fine-tuned by `between`, taught by `teacher`, whose spec is `own`.
    Raises ModelError where no cut reaches the share, or the network has nothing that the criterion weighs.
    """
    shape = spec.input.shape
    before = size(net, shape).macs
    slim, described = net, spec
    for turn in range(1, step.rounds + 1):
        weighed = weigh(slim, described, step.criterion, _source(step))
        known = families(weighed, shape, importance(step.criterion))
        if step.macs is not None:
            most = before * (1 - step.macs * turn / step.rounds)
            cut = cut_to_macs(known, layout(weighed, shape), most, step)
        else:
            assert step.channels is not None
            share = 1 - (1 - step.channels * turn / step.rounds) / (1 - step.channels * (turn - 1) / step.rounds)
            cut = cut_by_ratio(known, share, step)
        slim = apply_cut(weighed, shape, known, cut)
        described = replace(spec, widths=read_widths(slim))
        if turn < step.rounds and step.between.epochs:
            slim, described, _ = finetuned(slim, described, FinetuneStep(**dict(step.between)), teacher, own)
    left = size(slim, shape).macs
    how = f"{step.criterion}, {step.scope}" + (f", in {step.rounds} rounds" if step.rounds > 1 else "")
    return slim, described, f"prune: {before:,} multiply-adds became {left:,} ({1 - left / before:.1%} less) by {how}"


def importance(criterion: str, *, relative: bool = True) -> Importance:
    """The library's scorer; `relative` to the mean of the family, or in the criterion's own unit."""
    unit: dict[str, Any] = {} if relative else {"normalizer": None}
    scorers = {
        "taylor": tp.importance.GroupTaylorImportance,
        "hessian": tp.importance.GroupHessianImportance,
        "magnitude": tp.importance.GroupMagnitudeImportance,
        "bn_scale": tp.importance.BNScaleImportance,
    }
    scorer: Importance = scorers[criterion](**unit)
    return scorer


def weigh(net: nn.Module, spec: ModelSpec, criterion: str, section: TrainSection) -> nn.Module:
    """A copy that holds what the criterion reads in its gradients. Raises ModelError where there is nothing to read."""
    twin = duplicate(net)
    if criterion == "bn_scale" and not any(isinstance(layer, nn.BatchNorm2d) for layer in twin.modules()):
        raise ModelError(
            f"{spec.arch} has no batch normalisation, whose scale the criterion bn_scale compares",
            wanted="a network with it, such as resnet18 or vgg11_bn",
            do="Set slim.steps.prune.criterion to taylor, hessian or magnitude",
        )
    if criterion == "taylor":
        add_gradients(twin, spec, section)
    elif criterion == "hessian":
        fisher(twin, spec, section)
    return twin


def fisher(net: nn.Module, spec: ModelSpec, section: TrainSection) -> None:
    """Leave the mean over pictures of the squared gradient of each one's loss where the gradients are.

    Torch-Pruning's own accumulation keeps only the last picture's, so it is not used.
    """
    sums: dict[Tensor, Tensor] = {p: torch.zeros_like(p) for p in net.parameters()}
    count = 0

    def square(parameter: Tensor) -> None:
        assert parameter.grad is not None
        sums[parameter] += parameter.grad.square()
        parameter.grad = None

    def tick(_layer: nn.Module, _inputs: object) -> None:
        nonlocal count
        count += 1

    first = next(layer for layer in net.modules() if isinstance(layer, nn.Conv2d))
    hooks = [p.register_post_accumulate_grad_hook(square) for p in sums]  # type: ignore[no-untyped-call]
    hooks.append(first.register_forward_pre_hook(tick))
    try:
        add_gradients(net, spec, section, alone=True)
    finally:
        for hook in hooks:
            hook.remove()
    for parameter, total in sums.items():
        parameter.grad = total / count


def cut_to_macs(known: Sequence[Family], full: Layout, most: float, step: PruneStep) -> Cut:
    """The smallest cut that leaves at most so many MACs. Raises ModelError if none does."""
    low, high, best = 0.0, DEEPEST, None
    for _ in range(TRIES):
        ratio = (low + high) / 2
        cut = cut_by_ratio(known, ratio, step)
        if sum(layer.macs for layer in after(full, known, cut).values()) <= most:
            best, high = cut, ratio
        else:
            low = ratio
    if best is None:
        whole = sum(layer.macs for layer in full.values())
        raise ModelError(
            f"no cut in multiples of {step.round_to} channels takes {1 - most / whole:.0%} of the MACs away",
            do="Lower macs or round_to in slim.steps.prune",
        )
    return best


def cut_by_ratio(known: Sequence[Family], ratio: float, step: PruneStep) -> dict[str, int]:
    """A cut of this share of the channels: of all together, or of each family."""
    if step.scope == "uniform":
        lost = [family.size - int(family.size * (1 - ratio)) for family in known]
    else:
        scores = torch.tensor([score for family in known for score in family.scores])
        count = len(scores) - int(len(scores) * (1 - ratio))
        least = torch.topk(scores, count, largest=False).values[-1].item() if count else float("-inf")
        lost = [sum(score <= least for score in family.scores) for family in known]
    return {
        family.root: keep(family.size, family.size - gone, step.round_to)
        for family, gone in zip(known, lost, strict=True)
    }


def keep(size: int, left: int, round_to: int) -> int:
    """How many of `size` places stay where `left` should: a multiple of `round_to` below it, but never nothing."""
    least = min(size, max(round_to, -(-int(size * (1 - DEEPEST)) // round_to) * round_to))
    return size if left >= size else max(least, left - left % round_to)


def _source(step: PruneStep) -> TrainSection:
    return step.between if step.data is None else step.between.model_copy(update={"data": step.data})
