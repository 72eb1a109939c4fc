"""Other tools' pruning, each used alone as its documentation shows.

- torch_pruning: one magnitude ranking over the whole network (Torch-Pruning, Fang et al. 2023, arXiv:2301.12900).
- fastnas: NVIDIA Model Optimizer's search for CNNs, which prunes to a number of multiply-adds (`pip install
  nvidia-modelopt torchprofile==0.0.4 huggingface_hub requests`; no part of edgecnn needs it).

Each gives a function from the share that shall go (of the channels, of the multiply-adds) to the network without it.
"""

from __future__ import annotations

import contextlib
import copy
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from edgecnn.bundle import ModelSpec
from edgecnn.recipe import DataSection
from edgecnn.zoo.batches import Batchable

ROUND_TO = 8  # channels, for all contenders
TOGETHER = 32  # pictures that modelopt sees at once

Cutter = Callable[[float], nn.Module]  # the share that shall go, 0 to 1 -> the network without it


def torch_pruning(net: nn.Module, spec: ModelSpec, judge: DataSection) -> Cutter:
    """One global ranking by magnitude. `judge` is not looked at: magnitude needs no pictures."""
    import torch_pruning as tp  # type: ignore[import-untyped]

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

    return cut


def fastnas(net: nn.Module, spec: ModelSpec, judge: DataSection) -> Cutter:
    """Subnets ranked by the loss on the pictures of `judge`, whose statistics modelopt measures anew for each."""
    import modelopt.torch.prune as mtp  # type: ignore[import-not-found]

    data = Batchable.read(spec, judge, "pictures to judge cuts on")
    batches = [(x,) for x in torch.split(data.x, TOGETHER)]

    @torch.no_grad()
    def score(subnet: nn.Module) -> float:
        answers = torch.cat([subnet(x) for (x,) in batches])
        return -float(nn.functional.cross_entropy(answers, data.labels))

    rules = {"nn.Conv2d": {"*": {"channel_divisor": ROUND_TO}}, "nn.BatchNorm2d": {"*": {"feature_divisor": ROUND_TO}}}

    folder = tempfile.TemporaryDirectory()  # of the sensitivities, which are found once

    def cut(ratio: float) -> nn.Module:
        with open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
            slim, _ = mtp.prune(
                copy.deepcopy(net).to(memory_format=torch.contiguous_format),  # it takes no other
                mode=[("fastnas", rules)],
                constraints={"flops": f"{100 * (1 - ratio):.3f}%"},
                dummy_input=torch.zeros(spec.input.shape),
                config={
                    "data_loader": batches,
                    "score_func": score,
                    "checkpoint": str(Path(folder.name) / "sensitivity.pth"),
                    "verbose": False,
                },
            )
        return slim

    return cut
