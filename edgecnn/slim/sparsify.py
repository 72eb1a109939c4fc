"""2:4 sparsity: of every four weights in a row, two are zero (Mishra et al. 2021, arXiv:2104.08378).

In a row means along the input channels, as TensorRT reads convolutions [K, C, R, S] and linear layers [K, C]. Where C
is no multiple of four (the first layer, depthwise layers) a layer stays as it is. Boards with Ampere's sparse tensor
cores may run such layers up to twice as fast; no such board has confirmed it here.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edgecnn.bundle import ModelSpec
from edgecnn.errors import ModelError

GROUP, KEPT = 4, 2


def sparsified(net: nn.Module, spec: ModelSpec) -> tuple[nn.Module, ModelSpec, str]:
    """A copy in which, of every four weights along the input channels, the two of largest magnitude stay.

    Raises ModelError where no layer has input channels in fours.
    """
    slim = copy.deepcopy(net)
    names = eligible(slim)
    if not names:
        raise ModelError(
            f"{spec.arch} has no layer whose input channels are a multiple of {GROUP}",
            wanted="such layers, for 2:4 sparsity",
            do="Leave sparsify out of slim.steps",
        )
    zeros, total = 0, sum(layer.weight.numel() for layer in slim.modules() if isinstance(layer, nn.Conv2d | nn.Linear))
    with torch.no_grad():
        for name in names:
            weight = slim.get_parameter(name)
            weight.mul_(two_of_four(weight))
            zeros += int((weight == 0).sum())
    line = (
        f"sparsify: {len(names)} layers are 2:4 sparse, {zeros / total:.1%} of all weights zero; "
        "its speed on a board with sparse tensor cores is not verified"
    )
    return slim, spec, line


def two_of_four(weight: Tensor) -> Tensor:
    """Mask (1 stays, 0 goes) of a weight [K, C] or [K, C, R, S], C a multiple of four; of equals, the first stay."""
    rows = _fours(weight.abs())
    best = rows.argsort(stable=True, dim=-1, descending=True)[..., :KEPT]
    return _back(torch.zeros_like(rows).scatter_(-1, best, 1.0), weight)


def is_sparse(weight: Tensor) -> bool:
    """Whether every four weights along C hold two zeros at least."""
    return weight.shape[1] % GROUP == 0 and bool(((_fours(weight) == 0).sum(-1) >= GROUP - KEPT).all())


def masks(net: nn.Module) -> dict[str, Tensor]:
    """Of each 2:4 sparse weight, by name, where it is not zero."""
    found = {name: net.get_parameter(name) for name in eligible(net)}
    return {name: (weight != 0).to(weight.dtype) for name, weight in found.items() if is_sparse(weight.detach())}


def eligible(net: nn.Module) -> list[str]:
    """Names of the weights whose input channels come in fours."""
    return [
        f"{name}.weight"
        for name, layer in net.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.shape[1] % GROUP == 0
    ]


def _fours(weight: Tensor) -> Tensor:
    """[K, C, ...] → [K, ..., C/4, 4]."""
    last = weight.detach().movedim(1, -1)
    return last.reshape(*last.shape[:-1], -1, GROUP)


def _back(rows: Tensor, like: Tensor) -> Tensor:
    return rows.flatten(-2).movedim(-1, 1).reshape(like.shape)
