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
    """Counts for one input of `shape` (1, C, H, W), also of a network without weights on torch's meta device."""
    total = 0

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        weight = layer.weight
        assert isinstance(weight, Tensor)
        places = output.numel() // output.shape[1]  # of a batch of one
        total += weight.numel() * places

    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    training, device = net.training, next(net.parameters()).device
    # on the meta device torch spends most of its time on these, which count for nothing and change no shape
    idle = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d | nn.ReLU)] if device.type == "meta" else []
    try:
        for layer in idle:
            layer.forward = lambda input: input  # type: ignore[method-assign]
        with torch.no_grad():
            net.eval()(torch.zeros(shape, device=device))
    finally:
        for layer in idle:
            del layer.forward
        net.train(training)
        for hook in hooks:
            hook.remove()
    parameters = sum(p.numel() for p in net.parameters())
    return Size(parameters, total, 4 * parameters)
