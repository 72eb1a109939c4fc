"""Asking a classifier more than once about a picture: AlexNet's ten crops, and VGG's dense test on the whole of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from edgecnn.bundle import ModelSpec
from edgecnn.errors import ModelError
from edgecnn.scene import F32, Picture
from edgecnn.vision import Preprocess

Method = Literal["centre", "ten_crop", "dense"]
MARGIN = 256 / 224  # both papers scale the shorter side to 256 px for crops of 224


@torch.no_grad()
def predict(net: nn.Module, spec: ModelSpec, bgr: Picture, method: Method) -> F32:
    """(H, W, 3) uint8 → (classes,) probabilities. `net` is in evaluation mode.

    centre: the one look that a board takes, the spec's own preprocessing. ten_crop: Krizhevsky et al. 2012, section
    4.1: the mean over ten crops. dense: Simonyan & Zisserman 2014, section 3.2: the whole picture and its mirror image.
    Raises ModelError where a network has no dense form, InputError for what is no picture.
    """
    if method == "centre":
        x = torch.from_numpy(Preprocess(spec)(bgr)[0])
    elif method == "ten_crop":
        x = ten_crop(middle(whole(spec, bgr), *_enlarged(spec)), spec.height, spec.width)
    else:
        x = whole(spec, bgr)
        x, net = torch.cat([x, x.flip(3)]), dense(net, spec)
    probabilities: F32 = net(x).softmax(1).mean(0).numpy()
    return probabilities


def whole(spec: ModelSpec, bgr: Picture) -> Tensor:
    """(1, C, H, W): the whole picture, normalised, at the scale at which a crop leaves a margin of 1/8 uncovered."""
    height, width = _enlarged(spec)
    scale = max(height / bgr.shape[0], width / bgr.shape[1])
    shape = 1, spec.input.shape[1], round(bgr.shape[0] * scale), round(bgr.shape[1] * scale)
    return torch.from_numpy(Preprocess(replace(spec, input=replace(spec.input, shape=shape), fit="stretch"))(bgr)[0])


def middle(x: Tensor, height: int, width: int) -> Tensor:
    """(B, C, height, width): the middle of a larger map or picture."""
    top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
    return x[:, :, top : top + height, left : left + width]


def ten_crop(x: Tensor, height: int, width: int) -> Tensor:
    """(1, C, H, W) → (10, C, height, width): the corners, upper left first, and the middle; then the five mirrored."""
    tall, wide = slice(x.shape[2] - height, None), slice(x.shape[3] - width, None)
    low, short = slice(0, height), slice(0, width)
    corners = [x[:, :, rows, columns] for rows in (low, tall) for columns in (short, wide)]
    five = torch.cat([*corners, middle(x, height, width)])
    return torch.cat([five, five.flip(3)])


class Dense(nn.Module):
    """(B, C, H, W) → (B, classes): the mean of the class scores over all places. H and W are at least the crop's."""

    def __init__(self, features: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.features, self.classifier = features, classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(x).mean((2, 3))

    def scores(self, x: Tensor) -> Tensor:
        """(B, classes, rows, columns): one place for each step of the features' stride.

        A place has the logits of the crop that lies there where the features pad nothing, as LeNet's; where they pad,
        a crop has zeros around it and a place of the whole has its neighbours, so that they differ near the crop's
        border. For an input of the crop's own size, the one place is the crop network's answer in any case.
        """
        y: Tensor = self.classifier(self.features(x))
        return y


def dense(net: nn.Module, spec: ModelSpec) -> nn.Module:
    """The same network for pictures of any size: its first FC layer a convolution over the map, the others 1x1.

    Weights are shared with `net`. A network that ends in global average pooling is its own dense form, since averaging
    and the last layer may change places. Raises ModelError for any other without `features` and FC layers behind them,
    and where the FC layers read a resampled map: no convolution does that.
    """
    if any(isinstance(m, nn.AdaptiveAvgPool2d) and m.output_size in (1, (1, 1)) for m in net.modules()):
        return net
    features, head = getattr(net, "features", None), getattr(net, "classifier", None)
    layers = [m for m in head.modules() if not list(m.children())] if isinstance(head, nn.Module) else []
    linear = [m for m in layers if isinstance(m, nn.Linear)]
    if not isinstance(features, nn.Module) or not linear:
        raise ModelError(f"{spec.arch} has no dense form", wanted="a network such as lenet5, alexnet or vgg16")
    rows, columns, channels = _map(features, spec)
    side = math.isqrt(linear[0].in_features // channels)
    if (rows, columns) != (side, side):
        raise ModelError(
            f"{spec.arch} at {spec.width}x{spec.height} averages its {columns}x{rows} map to {side}x{side}",
            wanted=f"an input for which the map is {side}x{side} already, as the zoo's own",
            do="Test it by ten_crop",
        )
    kernels = [side, *(1 for _ in linear[1:])]
    swapped = {id(m): _convolution(m, kernel) for m, kernel in zip(linear, kernels, strict=True)}
    return Dense(features, nn.Sequential(*(swapped.get(id(m), m) for m in layers))).train(net.training)


def _convolution(linear: nn.Linear, kernel: int) -> nn.Conv2d:
    channels = linear.in_features // kernel**2
    with torch.device("meta"):  # VGG's first has 100 million weights: don't make others only to drop them
        conv = nn.Conv2d(channels, linear.out_features, kernel)
    conv.weight = nn.Parameter(linear.weight.detach().view(linear.out_features, channels, kernel, kernel))
    conv.bias = linear.bias
    return conv


def _map(features: nn.Module, spec: ModelSpec) -> tuple[int, int, int]:
    """Rows, columns and channels of the features of one crop; nothing is computed."""
    state = {name: tensor.to("meta") for name, tensor in features.state_dict().items()}
    shape = torch.func.functional_call(features, state, torch.empty(spec.input.shape, device="meta")).shape
    return shape[2], shape[3], shape[1]


def _enlarged(spec: ModelSpec) -> tuple[int, int]:
    return round(spec.height * MARGIN), round(spec.width * MARGIN)
