"""Parameters and multiply-accumulates of a network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Size:
    parameters: int
    macs: int  # multiply-accumulates of one picture in convolutions and linear layers
    bytes: int  # of the FP32 parameters


def size(net: nn.Module, shape: tuple[int, ...]) -> Size:
    """Counts for one input of `shape` (1, C, H, W). A network on torch's meta device is counted as well, in no time."""
    total = 0

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        weight = layer.weight
        assert isinstance(weight, Tensor)
        places = output.numel() // output.shape[1]  # of a batch of one
        total += weight.numel() * places

    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    training = net.training
    try:
        with torch.no_grad():
            net.eval()(torch.zeros(shape, device=next(net.parameters()).device))
    finally:
        net.train(training)
        for hook in hooks:
            hook.remove()
    parameters = sum(p.numel() for p in net.parameters())
    return Size(parameters, total, 4 * parameters)
