"""Global average pooling in place of the fully connected layers (Lin et al. 2013, arXiv:1312.4400, section 3.2)."""

from __future__ import annotations

import torch
from torch import nn

from edgecnn.bundle import LayerSpec, ModelSpec
from edgecnn.errors import ModelError
from edgecnn.slim.pick import Swap, install, line
from edgecnn.zoo.count import size


def with_gap(net: nn.Module, spec: ModelSpec) -> tuple[nn.Module, ModelSpec, str]:
    """A copy whose FC layers are one 1x1 convolution and global average pooling; the convolutions keep their weights.

    The 1x1 convolution starts as the product of the FC layers, added up over the places, and halved for each ReLU
    between: what they say of a picture that looks the same everywhere, if of every two hidden units one is at rest.
    It needs fine-tuning all the same: lenet5 on 1500 digits and three seeds is right in 74 to 77 % of cases after four
    epochs from there, 64 to 72 % from random weights, 60 to 76 % without the halving. Raises ModelError for a network
    with no FC to replace.
    """
    head = getattr(net, "classifier", None)
    layers = [] if head is None else [layer for layer in head.modules() if isinstance(layer, nn.ReLU | nn.Linear)]
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    if len(linear) < 2 or not isinstance(getattr(net, "avgpool", None), nn.Module):
        raise ModelError(
            f"{spec.arch} has no fully connected layers before its output",
            wanted="a network such as lenet5, alexnet or vgg16",
            do="Leave gap out of slim.steps",
        )
    channels = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)][-1].out_channels
    first = linear[0]
    with torch.no_grad():
        weight = first.weight.reshape(first.out_features, channels, -1).sum(2)
        bias = first(weight.new_zeros(first.in_features))
        for layer in layers[layers.index(first) + 1 :]:
            if isinstance(layer, nn.ReLU):
                weight, bias = weight / 2, bias / 2
            else:
                weight, bias = layer.weight @ weight, layer(bias)
    conv = LayerSpec("conv", channels, len(spec.classes))
    slim, described = install(
        net,
        spec,
        {
            "avgpool": Swap((conv, LayerSpec("gap")), {"0.weight": weight[:, :, None, None], "0.bias": bias}),
            "classifier": Swap((LayerSpec("identity"),), {}),
        },
    )
    was, now = (size(each, spec.input.shape) for each in (net, slim))
    what = f"{len(linear)} fully connected layers became one 1x1 convolution"
    return slim, described, line("gap", what, was, now)
