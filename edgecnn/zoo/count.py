"""Parameters and multiply-accumulates of a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Size:
    parameters: int
    macs: int  # multiply-accumulates of one picture in convolutions and linear layers
    bytes: int  # of the FP32 parameters


def watch(net: nn.Module, shape: tuple[int, ...], note: Callable[[str, nn.Module, Tensor, Tensor], None]) -> None:
    """Run one input of `shape` (1, C, H, W) through the network, also without weights on torch's meta device: `note`
    gets every convolution and linear layer as it runs: its name, itself, its input, its output."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda layer, inputs, output: note(name, layer, inputs[0], output)

    layers = [(name, m) for name, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(hook(name)) for name, layer in layers]
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
        for each in hooks:
            each.remove()


def size(net: nn.Module, shape: tuple[int, ...]) -> Size:
    """Counts for one input of `shape` (1, C, H, W). See `watch`."""
    total = 0

    def count(_name: str, layer: nn.Module, _input: Tensor, output: Tensor) -> None:
        nonlocal total
        weight = layer.weight
        assert isinstance(weight, Tensor)
        places = output.numel() // output.shape[1]  # of a batch of one
        total += weight.numel() * places

    watch(net, shape, count)
    parameters = sum(p.numel() for p in net.parameters())
    return Size(parameters, total, 4 * parameters)
