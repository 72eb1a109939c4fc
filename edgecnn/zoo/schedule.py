"""How the rate goes, and when training ends: read off the epochs so far, so that a resumed run needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgecnn.recipe import TrainSection

WARMUP = 20  # steps in which the rate rises to the recipe's


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to."""

    loss: float  # mean over the pictures
    rate: float  # at its end
    figure: float | None = None  # on the pictures to validate on: top-1 or AP50


def rate(section: TrainSection, step: int, steps: int, epochs: Sequence[Epoch]) -> float:
    """The rate of step `step` of `steps` in all, after these epochs. All schedules begin with the same warm-up.

    cosine: half a wave from `lr` to nothing (Loshchilov & Hutter 2016, arXiv:1608.03983, eq. 5, one cycle).
    plateau: a tenth after each `patience` epochs without a better figure. constant: `lr`.
    """
    base = section.lr * min(1.0, (step + 1) / WARMUP)
    match section.schedule:
        case "cosine":
            return base * 0.5 * (1 + math.cos(math.pi * step / steps))
        case "plateau":
            return base * 0.1 ** drops([epoch.figure or 0.0 for epoch in epochs], section.patience)
        case "constant":
            return base


def drops(figures: Sequence[float], patience: int) -> int:
    """How often `patience` epochs in a row passed without a figure better than all before."""
    best, waited, count = -math.inf, 0, 0
    for figure in figures:
        waited += 1
        if figure > best:
            best, waited = figure, 0
        elif waited == patience:
            count, waited = count + 1, 0
    return count


def best_epoch(epochs: Sequence[Epoch]) -> int | None:
    """The first epoch with the best figure, counted from 0; None where none was validated."""
    figures = [-math.inf if epoch.figure is None else epoch.figure for epoch in epochs]
    return figures.index(max(figures)) if figures and max(figures) > -math.inf else None


def finished(section: TrainSection, epochs: Sequence[Epoch]) -> bool:
    """Whether all epochs are done, or `stop_after` of them passed since the best."""
    best = best_epoch(epochs)
    stale = 0 if best is None else len(epochs) - 1 - best
    return len(epochs) >= section.epochs or (section.stop_after is not None and stale >= section.stop_after)
