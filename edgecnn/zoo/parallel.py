"""Several processes that train one network, as `torchrun` starts them: PyTorch's DistributedDataParallel over gloo.

The batch of the recipe is the whole batch: each process computes the gradients of its share, and all take the same
step with their mean. Every process holds all pictures; only the first validates, writes and prints. Batch
normalisation is measured by each process on its own share (its synchronised form exists on GPUs only), and what the
first one measured is kept: with it, more processes are like smaller batches.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from edgecnn.errors import ModelError


@dataclass(frozen=True)
class World:
    """Which of how many processes this one is."""

    rank: int = 0
    size: int = 1

    @classmethod
    def now(cls) -> World:
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls()

    def wrapped(self, net: nn.Module) -> nn.Module:
        """The network with the first one's weights, whose backward pass averages gradients over the processes."""
        return nn.parallel.DistributedDataParallel(net) if self.size > 1 else net

    def share(self, count: int) -> tuple[Tensor, float]:
        """Which rows of a batch of `count` are this process's, and the weight of the mean of their losses.

        The weights make the average over the processes the mean over the batch. A process for which no row is left
        computes one for nothing: the others wait for it.
        """
        mine = torch.arange(self.rank, count, self.size)
        return (mine, len(mine) * self.size / count) if len(mine) else (torch.zeros(1, dtype=torch.int64), 0.0)

    def sum(self, value: float) -> float:
        """Over the processes."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total)
        return float(total)

    def from_first(self, value: float) -> float:
        """The first process's value."""
        return self.sum(value if self.rank == 0 else 0.0)

    def agree(self, value: int, what: str) -> None:
        """Raises ModelError where the processes have different values."""
        if self.from_first(value) != value or self.sum(value) != self.size * value:
            raise ModelError(
                f"the processes differ in {what}: {value} here", wanted="one folder that all see", do="Start them anew"
            )


@contextmanager
def joined() -> Iterator[None]:
    """Within, the processes that torchrun started work together; with one process, nothing happens."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()
