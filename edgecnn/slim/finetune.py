"""Training after a cut, with the network before all cuts as teacher."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from edgecnn.bundle import ModelSpec
from edgecnn.recipe import FinetuneStep
from edgecnn.slim.sparsify import masks
from edgecnn.zoo.fit import fit
from edgecnn.zoo.teach import Teacher


def finetuned(
    net: nn.Module, spec: ModelSpec, step: FinetuneStep, teacher: nn.Module, own: ModelSpec | None = None
) -> tuple[nn.Module, ModelSpec, str]:
    """A copy, trained. The teacher's answers (`own`: its spec, where its classes are others) are targets beside the
    truth, and with `features` its maps too, unless `distill` is none. Weights that are 2:4 sparse stay so."""
    slim = copy.deepcopy(net)
    with _held(slim):
        if step.distill == "none":
            losses = fit(slim, spec, step)
        else:
            with Teacher(teacher, slim, spec, step.distill == "features", own) as guide:
                losses = fit(slim, spec, step, guide)
    if not losses:
        return slim, spec, "finetune: 0 epochs"
    taught = "" if step.distill == "none" else f", taught {step.distill} by the network before slimming"
    return slim, spec, f"finetune: {len(losses)} epochs, loss {losses[0]:.4f} -> {losses[-1]:.4f}{taught}"


@contextmanager
def _held(net: nn.Module) -> Iterator[None]:
    """Within, what is zero in 2:4 weights gets no gradient: SGD, its momentum and weight decay then leave it zero."""
    kept = masks(net)
    hooks = [
        net.get_parameter(name).register_hook(lambda grad, m=mask: grad * m)  # type: ignore[no-untyped-call]
        for name, mask in kept.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def mean_statistics(net: nn.Module, batches: Iterator[Tensor]) -> None:
    """Measure batch normalisation's means and variances anew, in place: the plain average over the batches.

    After a cut the old ones are of channels that are gone (Li et al. 2020, arXiv:2007.02491, section 3.3).
    """
    layers = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch: cumulative average
        layer.train()
    with torch.no_grad():
        for x in batches:
            net(x)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
