"""Widths: how a slimmed network describes itself. A width is (inputs, outputs) of a layer, by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from torch import nn

from edgecnn.errors import ModelError

Widths: TypeAlias = Mapping[str, tuple[int, int]]


def read_widths(net: nn.Module) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of every convolution, batch normalisation and linear layer."""
    found: dict[str, tuple[int, int]] = {}
    for name, layer in net.named_modules():
        match layer:
            case nn.Conv2d():
                found[name] = layer.in_channels, layer.out_channels
            case nn.BatchNorm2d():
                found[name] = layer.num_features, layer.num_features
            case nn.Linear():
                found[name] = layer.in_features, layer.out_features
    return found


def apply_widths(net: nn.Module, widths: Widths) -> None:
    """Give the named layers other widths, in place; their weights start anew. Raises ModelError for an unknown name."""
    full = read_widths(net)
    for name, (inputs, outputs) in widths.items():
        if name not in full:
            raise ModelError(f"the checkpoint gives a width for '{name}'", wanted="a layer of this architecture")
        if full[name] == (inputs, outputs):
            continue
        parent, _, leaf = name.rpartition(".")
        setattr(net.get_submodule(parent), leaf, _resized(net.get_submodule(name), inputs, outputs))


def _resized(layer: nn.Module, inputs: int, outputs: int) -> nn.Module:
    match layer:
        case nn.Conv2d():
            depthwise = layer.groups > 1 and layer.groups == layer.in_channels
            return nn.Conv2d(
                inputs,
                outputs,
                layer.kernel_size,  # type: ignore[arg-type]  # torch types them as tuple[int, ...]
                layer.stride,  # type: ignore[arg-type]
                layer.padding,  # type: ignore[arg-type]
                groups=outputs if depthwise else layer.groups,
                bias=layer.bias is not None,
            )
        case nn.BatchNorm2d():
            return nn.BatchNorm2d(outputs, eps=layer.eps, momentum=layer.momentum)
        case nn.Linear():
            return nn.Linear(inputs, outputs, bias=layer.bias is not None)
        case other:
            raise TypeError(f"{type(other).__name__} has no width")
