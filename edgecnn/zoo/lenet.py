"""LeNet-5 as it is trained today: ReLU, max pooling, softmax (shape: LeCun et al. 1998, Proc. IEEE 86(11), fig. 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# 32x32 → C1 6@28 → S2 6@14 → C3 16@10 → S4 16@5 → C5 120 → F6 84 → classes
CONVS = ((1, 6), (6, 16))
HIDDEN = (120, 84)


class LeNet5(nn.Module):
    """(B, 1, 32, 32) → (B, classes) logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential()
        for inputs, outputs in CONVS:
            self.features.extend([nn.Conv2d(inputs, outputs, 5), nn.ReLU(inplace=True), nn.MaxPool2d(2)])
        self.avgpool = nn.Identity()  # where global average pooling goes in place of the fully connected layers
        first, second = HIDDEN
        self.classifier = nn.Sequential(
            nn.Linear(CONVS[-1][1] * 25, first),
            nn.ReLU(inplace=True),
            nn.Linear(first, second),
            nn.ReLU(inplace=True),
            nn.Linear(second, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
        return y


def build(arch: str, classes: int) -> nn.Module:
    return LeNet5(classes)
