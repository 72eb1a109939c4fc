"""What a search over cuts needs to know: what a cut costs, and how good the network is after it.

Cost is known without cutting. Goodness is the loss on pictures kept apart, after batch normalisation's statistics were
measured anew: without training this ranks cuts as training would (Li et al. 2020, arXiv:2007.02491). Each value found
is written down at once, so a search that is stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgecnn.bundle import ModelSpec
from edgecnn.memo import Memo
from edgecnn.slim.channels import Cut, Family, LayerShape, Layout, after, apply_cut
from edgecnn.slim.finetune import mean_statistics
from edgecnn.slim.prune import keep
from edgecnn.zoo.batches import Batchable
from edgecnn.zoo.fit import loss_of
from edgecnn.zoo.roadnet import RoadNet

LEVELS = 8  # a family keeps eighths of its channels
TOGETHER = 64  # pictures that a network sees at once

Cost = Callable[[LayerShape], float]


@dataclass(frozen=True)
class Problem:
    """One network, its families of channels, the price of layers, and pictures to judge cuts on."""

    net: nn.Module
    spec: ModelSpec
    families: Sequence[Family]
    full: Layout
    cost: Cost
    data: Batchable
    memo: Memo
    round_to: int
    seed: int = 0

    def levels(self, family: Family) -> list[int]:
        """How many places a family may keep, the most first."""
        eighths = (keep(family.size, family.size * left // LEVELS, self.round_to) for left in range(LEVELS, 0, -1))
        return sorted(set(eighths), reverse=True)

    def price(self, cut: Cut) -> float:
        """The sum of the layers' costs."""
        return sum(self.cost(layer) for layer in after(self.full, self.families, cut).values())

    def network(self, cut: Cut) -> nn.Module:
        """The network after a cut; a classifier's statistics measured anew.

        A detector's stay: the pictures at hand are seldom those that they were measured on.
        """
        net = apply_cut(self.net, self.spec.input.shape, self.families, cut)
        if self.spec.task == "classify":
            mean_statistics(net, (x for x, _ in self.batches()))
        return net

    def loss(self, cut: Cut) -> float:
        """Mean loss over the pictures after a cut."""
        return float(self.memo.get(self._name(cut), lambda: self._loss(self.network(cut))))

    def knows(self, cut: Cut) -> bool:
        """Whether the loss after this cut was found before."""
        return self._name(cut) in self.memo.values

    def _name(self, cut: Cut) -> str:
        whole = {family.root: family.size for family in self.families}
        return "loss " + json.dumps({root: n for root, n in sorted(cut.items()) if n < whole[root]})

    def _loss(self, net: nn.Module) -> float:
        total = 0.0
        labels = self.data.labels if self.spec.task == "classify" else torch.zeros(len(self.data), dtype=torch.int64)
        with torch.no_grad():
            for x, rows in self.batches():
                outputs = net.logits(net.features(x)) if isinstance(net, RoadNet) else net(x)
                loss = loss_of(outputs, self.spec, self.data, rows, labels[rows], mirrored=False)
                total += float(loss) * len(rows)
        return total / len(self.data)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Pictures as the network takes them, and their rows."""
        for rows in torch.split(torch.arange(len(self.data)), TOGETHER):
            yield self.data.normalised(self.data.pictures[rows]), rows


def fingerprint(net: nn.Module, *settings: object) -> str:
    """A hash of a network's weights and of all else that a search depends on."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in net.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def described(cut: Mapping[str, int], families: Sequence[Family]) -> str:
    """A cut in a line: each family's share that stays, per cent."""
    return ", ".join(f"{f.root} {100 * cut.get(f.root, f.size) / f.size:.0f}" for f in families)
