"""Training after a cut, with the network before all cuts as teacher."""

from __future__ import annotations

import copy

from torch import nn

from edgecnn.bundle import ModelSpec
from edgecnn.recipe import FinetuneStep
from edgecnn.zoo.fit import fit


def finetuned(
    net: nn.Module, spec: ModelSpec, step: FinetuneStep, teacher: nn.Module
) -> tuple[nn.Module, ModelSpec, str]:
    """A copy, trained. The teacher's answers are targets beside the truth, unless `distill` is none."""
    slim = copy.deepcopy(net)
    losses = fit(slim, spec, step, guide=None if step.distill == "none" else teacher)
    taught = "" if step.distill == "none" else f", taught {step.distill} by the network before slimming"
    return slim, spec, f"finetune: {len(losses)} epochs, loss {losses[0]:.4f} -> {losses[-1]:.4f}{taught}"
