"""AlexNet twice, and ZFNet: five convolutions, three fully connected layers.

- alexnet: one tower without normalisation (Krizhevsky 2014, arXiv:1404.5997, footnote 1), as torchvision has it; its
  checkpoints load.
- alexnet_original: Krizhevsky, Sutskever, Hinton, NIPS 2012: two groups, local response normalisation, 227 px.
- zfnet: Zeiler & Fergus 2013, arXiv:1311.2901, figure 3: a finer first layer, and no groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgecnn.zoo.parts import GridPool, Lrn

HIDDEN = 4096  # of both fully connected layers
SIDE = 6  # of the map that they read


@dataclass(frozen=True)
class Conv:
    """One convolution, and what follows its ReLU, in order: n is normalisation, p is 3x3 max pooling by 2."""

    outputs: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    then: str = ""
    bias: float = 0.0  # at the start, where the paper says so


@dataclass(frozen=True)
class Plan:
    convs: tuple[Conv, ...]
    pool_padding: int = 0  # of the pools but the last
    std: float | None = None  # of the weights at the start; None: torch's own initialisation
    fc_bias: float = 0.0  # of the hidden layers at the start


PLANS = {
    "alexnet": Plan(
        (
            Conv(64, 11, 4, 2, then="p"),
            Conv(192, 5, 1, 2, then="p"),
            Conv(384, 3, 1, 1),
            Conv(256, 3, 1, 1),
            Conv(256, 3, 1, 1, then="p"),
        )
    ),
    "alexnet_original": Plan(  # section 5: weights of deviation .01, biases of 1 feed the ReLUs from the start
        (
            Conv(96, 11, 4, then="np"),
            Conv(256, 5, 1, 2, groups=2, then="np", bias=1.0),
            Conv(384, 3, 1, 1),
            Conv(384, 3, 1, 1, groups=2, bias=1.0),
            Conv(256, 3, 1, 1, groups=2, then="p", bias=1.0),
        ),
        std=0.01,
        fc_bias=1.0,
    ),
    "zfnet": Plan(  # 224 → 110 → 55 → 26 → 13 → 6; normalised behind the pool, not before it
        (
            Conv(96, 7, 2, 1, then="pn"),
            Conv(256, 5, 2, then="pn"),
            Conv(384, 3, 1, 1),
            Conv(384, 3, 1, 1),
            Conv(256, 3, 1, 1, then="p"),
        ),
        pool_padding=1,
        std=0.01,
    ),
}


class AlexNet(nn.Module):
    """(B, 3, H, W) → (B, classes) logits."""

    def __init__(self, plan: Plan, classes: int) -> None:
        super().__init__()
        self.features = features(plan)
        self.avgpool = GridPool(SIDE)
        self.classifier = nn.Sequential(
            nn.Dropout(0.5),
            nn.Linear(plan.convs[-1].outputs * SIDE * SIDE, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(HIDDEN, classes),
        )
        if plan.std is not None:
            start(self, plan)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
        return y


def features(plan: Plan) -> nn.Sequential:
    layers, inputs = nn.Sequential(), 3
    for conv in plan.convs:
        made = nn.Conv2d(inputs, conv.outputs, conv.kernel, conv.stride, conv.padding, groups=conv.groups)
        layers.extend([made, nn.ReLU(inplace=True)])
        padding = 0 if conv is plan.convs[-1] else plan.pool_padding
        layers.extend([Lrn() if letter == "n" else nn.MaxPool2d(3, 2, padding) for letter in conv.then])
        inputs = conv.outputs
    return layers


def start(net: AlexNet, plan: Plan) -> None:
    """Weights and biases as the paper starts them."""
    assert plan.std is not None
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    biases = [*(conv.bias for conv in plan.convs), plan.fc_bias, plan.fc_bias, 0.0]
    for layer, bias in zip(layers, biases, strict=True):
        assert layer.bias is not None
        nn.init.normal_(layer.weight, 0.0, plan.std)
        nn.init.constant_(layer.bias, bias)


def build(arch: str, classes: int) -> nn.Module:
    return AlexNet(PLANS[arch], classes)
