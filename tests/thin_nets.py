"""Zoo networks with few channels: the real layers, names and strides, a thousandth of the weights."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from edgecnn import zoo
from edgecnn.bundle import ModelSpec
from edgecnn.recipe import ModelSection
from edgecnn.zoo.widths import read_widths

CHANNELS, HIDDEN = 8, 16


def spec(arch: str, classes: int = 10, **sides: int) -> ModelSpec:
    return zoo.spec_for(ModelSection(arch=arch, classes=tuple(f"c{i}" for i in range(classes)), **sides))


def meta(arch: str, classes: int = 1000) -> nn.Module:
    """Shapes without memory."""
    with torch.device("meta"):
        return zoo.build(spec(arch, classes))


def thin(arch: str, **sides: int) -> tuple[nn.Module, ModelSpec]:
    """Ten classes, and the widths that a slimmer would leave; `spec.widths` says them."""
    widths, inputs, seen = {}, 3, 0
    full = meta(arch, 10)
    for name, (_, outputs) in read_widths(full).items():
        layer = full.get_submodule(name)
        if isinstance(layer, nn.Linear):
            places = layer.in_features // seen if seen else 1  # of the map, for the first one
            widths[name] = (inputs * places, HIDDEN if outputs > 10 else 10)
            inputs, seen = HIDDEN, 0
        else:
            widths[name] = (CHANNELS if isinstance(layer, nn.BatchNorm2d) else inputs, CHANNELS)
            inputs, seen = CHANNELS, outputs
    s = replace(spec(arch, **sides), widths=widths)
    with torch.device("meta"):
        net = zoo.build(s)
    net.to_empty(device="cpu")
    torch.manual_seed(0)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            layer.reset_parameters()
    return net, s
