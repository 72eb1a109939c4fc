"""Global average pooling in place of the fully connected layers (Lin et al. 2013, arXiv:1312.4400, section 3.2)."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import nn

from edgecnn.bundle import LayerSpec, ModelSpec
from edgecnn.errors import ModelError
from edgecnn.zoo.layers import apply_replaced


def with_gap(net: nn.Module, spec: ModelSpec) -> tuple[nn.Module, ModelSpec, str]:
    """A copy whose FC layers are one 1x1 convolution and global average pooling; the convolutions keep their weights.

    The 1x1 convolution starts as the product of the FC layers, without what lies between them, averaged over the
    places: what they say of a picture that looks the same everywhere. It needs fine-tuning all the same. Raises
    ModelError for a network with no FC to replace.
    """
    linear = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
    if len(linear) < 2 or not isinstance(getattr(net, "avgpool", None), nn.Module):
        raise ModelError(
            f"{spec.arch} has no fully connected layers before its output",
            wanted="a network such as lenet5, alexnet or vgg16",
            do="Leave gap out of slim.steps",
        )
    channels = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)][-1].out_channels
    first = linear[0]
    weight = first.weight.detach().reshape(first.out_features, channels, -1).sum(2)
    bias = first.bias.detach()
    for layer in linear[1:]:
        weight, bias = layer.weight.detach() @ weight, layer.weight.detach() @ bias + layer.bias.detach()
    classes, head = len(spec.classes), ("avgpool", "classifier")
    replaced = {
        name: layers for name, layers in spec.replaced.items() if not name.startswith(("avgpool", "classifier"))
    }
    own = {
        "avgpool": (LayerSpec("conv", channels, classes), LayerSpec("gap")),
        "classifier": (LayerSpec("identity"),),
    }
    slim = copy.deepcopy(net)
    apply_replaced(slim, own)
    with torch.no_grad():
        conv = slim.get_submodule("avgpool.0")
        assert isinstance(conv, nn.Conv2d) and conv.bias is not None
        conv.weight.copy_(weight[:, :, None, None])
        conv.bias.copy_(bias)
    widths = {name: width for name, width in spec.widths.items() if not name.startswith(head)}
    before, after = (sum(p.numel() for p in each.parameters()) for each in (net, slim))
    line = f"gap: {len(linear)} fully connected layers became one 1x1 convolution, {before:,} parameters {after:,}"
    return slim, replace(spec, replaced={**replaced, **own}, widths=widths), line
