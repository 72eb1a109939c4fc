"""Other tools' pruning, each used alone as its documentation shows, down to a latency measured here.

- torch_pruning: one magnitude ranking over the whole network (Torch-Pruning, Fang et al. 2023, arXiv:2301.12900).
- fastnas: NVIDIA Model Optimizer's search for CNNs, which prunes to a number of multiply-adds (`pip install
  nvidia-modelopt torchprofile==0.0.4 huggingface_hub requests`; no part of edgecnn needs it).

Each peer has one number to turn (a ratio, a share of the multiply-adds); it is halved until the latency is met.
"""

from __future__ import annotations

import contextlib
import copy
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from edgecnn import zoo
from edgecnn.bundle import ModelSpec
from edgecnn.errors import ModelError
from edgecnn.recipe import DataSection
from edgecnn.slim.latency import whole
from edgecnn.zoo.batches import Batchable
from edgecnn.zoo.widths import read_widths

ROUND_TO = 8  # channels, for all contenders
HALVINGS = 6
TOGETHER = 32  # pictures that modelopt sees at once

Cutter = Callable[[float], nn.Module]  # the share that shall go, 0 to 1 -> the network without it


def torch_pruning(net: nn.Module, spec: ModelSpec, target: float, judge: DataSection) -> tuple[nn.Module, ModelSpec]:
    """One global ranking by magnitude. `judge` is not looked at: magnitude needs no pictures."""
    import torch_pruning as tp

    def cut(ratio: float) -> nn.Module:
        slim = copy.deepcopy(net).eval()
        last = [layer for layer in slim.modules() if isinstance(layer, nn.Linear)][-1]
        pruner = tp.pruner.BasePruner(
            slim,
            torch.zeros(spec.input.shape),
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            global_pruning=True,
            pruning_ratio=ratio,
            round_to=ROUND_TO,
            ignored_layers=[last],
        )
        pruner.step()
        return slim

    return _to_latency(cut, spec, target)


def fastnas(net: nn.Module, spec: ModelSpec, target: float, judge: DataSection) -> tuple[nn.Module, ModelSpec]:
    """Subnets ranked by the loss on the pictures of `judge`, whose statistics modelopt measures anew for each."""
    import modelopt.torch.prune as mtp  # type: ignore[import-not-found]

    data = Batchable.read(spec, judge, "pictures to judge cuts on")
    batches = [(x,) for x in torch.split(data.x, TOGETHER)]

    @torch.no_grad()
    def score(subnet: nn.Module) -> float:
        answers = torch.cat([subnet(x) for (x,) in batches])
        return -float(nn.functional.cross_entropy(answers, data.labels))

    rules = {"nn.Conv2d": {"*": {"channel_divisor": ROUND_TO}}, "nn.BatchNorm2d": {"*": {"feature_divisor": ROUND_TO}}}

    with tempfile.TemporaryDirectory() as folder:

        def cut(ratio: float) -> nn.Module:
            with open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence):
                slim, _ = mtp.prune(
                    copy.deepcopy(net).to(memory_format=torch.contiguous_format),  # it takes no other
                    mode=[("fastnas", rules)],
                    constraints={"flops": f"{100 * (1 - ratio):.3f}%"},
                    dummy_input=torch.zeros(spec.input.shape),
                    config={
                        "data_loader": batches,
                        "score_func": score,
                        "checkpoint": str(Path(folder) / "sensitivity.pth"),
                        "verbose": False,
                    },
                )
            return slim

        return _to_latency(cut, spec, target)


def _to_latency(cut: Cutter, spec: ModelSpec, target: float) -> tuple[nn.Module, ModelSpec]:
    """The mildest cut found that takes at most `target` ms. Raises ModelError where none does."""
    low, high, best = 0.0, 0.95, None
    for _ in range(HALVINGS):
        ratio = (low + high) / 2
        try:
            slim = cut(ratio)
        except ValueError:  # modelopt: no subnet is so small
            high = ratio
            continue
        if whole(slim, spec.input.shape) <= target:
            best, high = slim, ratio
        else:
            low = ratio
    if best is None:
        raise ModelError(f"no cut takes {target:g} ms or less")
    described = replace(spec, widths=read_widths(best))
    plain = zoo.build(described)
    plain.load_state_dict(best.state_dict())
    return plain.eval(), described
