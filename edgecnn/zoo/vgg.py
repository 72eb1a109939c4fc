"""VGG A to E, with and without batch normalisation (Simonyan & Zisserman 2014, arXiv:1409.1556, table 1).

Names of layers are torchvision's; its checkpoints load. Configuration C exists only here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgecnn.zoo.parts import GridPool

CHANNELS = (64, 128, 256, 512, 512)  # of the five blocks, each ending in a 2x2 max pool
KERNELS = {  # of the convolutions of each block
    "vgg11": ((3,), (3,), (3, 3), (3, 3), (3, 3)),
    "vgg13": ((3, 3), (3, 3), (3, 3), (3, 3), (3, 3)),
    "vgg16c": ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1)),
    "vgg16": ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
    "vgg19": ((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3)),
}
HIDDEN = 4096  # of both fully connected layers
SIDE = 7  # of the map that they read


class Vgg(nn.Module):
    """(B, 3, H, W) → (B, classes) logits; H and W are at least 32 px."""

    def __init__(self, kernels: tuple[tuple[int, ...], ...], classes: int, norm: bool) -> None:
        super().__init__()
        self.features = nn.Sequential()
        inputs = 3
        for outputs, block in zip(CHANNELS, kernels, strict=True):
            for kernel in block:
                self.features.append(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2))
                if norm:
                    self.features.append(nn.BatchNorm2d(outputs))
                self.features.append(nn.ReLU(inplace=True))
                inputs = outputs
            self.features.append(nn.MaxPool2d(2))
        self.avgpool = GridPool(SIDE)
        self.classifier = nn.Sequential(
            nn.Linear(inputs * SIDE * SIDE, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(HIDDEN, classes),
        )
        self.apply(start)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
        return y


def start(layer: nn.Module) -> None:
    """He et al. 2015, arXiv:1502.01852: 19 layers train from scratch, where the paper grew them out of a trained A."""
    match layer:
        case nn.Conv2d():
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        case nn.Linear():
            nn.init.normal_(layer.weight, 0.0, 0.01)
        case _:
            return
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


def build(arch: str, classes: int) -> nn.Module:
    return Vgg(KERNELS[arch.removesuffix("_bn")], classes, arch.endswith("_bn"))
