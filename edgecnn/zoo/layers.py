"""Layers by description: what slimming put into a network is built again from its LayerSpecs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from edgecnn.bundle import LayerSpec
from edgecnn.errors import ModelError


def describe(conv: nn.Conv2d, **changes: object) -> LayerSpec:
    """The LayerSpec of a convolution, some of its fields changed."""
    (kh, kw), (sh, sw) = conv.kernel_size, conv.stride
    assert not isinstance(conv.padding, str)  # the zoo gives numbers
    ph, pw = conv.padding
    own = LayerSpec(
        "conv", conv.in_channels, conv.out_channels, (kh, kw), (sh, sw), (ph, pw), conv.groups, conv.bias is not None
    )
    return replace(own, **changes)  # type: ignore[arg-type]


def module(layer: LayerSpec) -> nn.Module:
    """The layer itself, its weights random."""
    match layer.kind:
        case "conv":
            return nn.Conv2d(
                layer.inputs,
                layer.outputs,
                layer.kernel,
                layer.stride,
                layer.padding,
                groups=layer.groups,
                bias=layer.bias,
            )
        case "bn":
            return nn.BatchNorm2d(layer.inputs)
        case "linear":
            return nn.Linear(layer.inputs, layer.outputs, bias=layer.bias)
        case "relu":
            return nn.ReLU(inplace=True)
        case "gap":
            return nn.AdaptiveAvgPool2d(1)
        case "flatten":
            return nn.Flatten()
        case "identity":
            return nn.Identity()


def sequence(layers: Sequence[LayerSpec]) -> nn.Sequential:
    return nn.Sequential(*map(module, layers))


def put(net: nn.Module, name: str, layer: nn.Module) -> None:
    """Put a layer in the place that has this name. Raises ModelError if there is none."""
    parent, _, leaf = name.rpartition(".")
    try:
        net.get_submodule(name)
    except AttributeError:
        raise ModelError(f"the checkpoint replaces '{name}'", wanted="a layer of this architecture") from None
    setattr(net.get_submodule(parent), leaf, layer)


def apply_replaced(net: nn.Module, replaced: Mapping[str, Sequence[LayerSpec]]) -> None:
    """Put the described layers in place. What was replaced within a replacement has a longer name, and comes after."""
    for name in sorted(replaced, key=lambda n: n.count(".")):
        put(net, name, sequence(replaced[name]))
