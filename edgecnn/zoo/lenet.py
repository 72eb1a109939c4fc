"""LeNet-5 as it is trained today: ReLU, max pooling, softmax (shape: LeCun et al. 1998, Proc. IEEE 86(11), fig. 2)."""

from __future__ import annotations

from torch import Tensor, nn

# 32x32 → C1 6@28 → S2 6@14 → C3 16@10 → S4 16@5 → C5 120 → F6 84 → classes
CONVS = ((1, 6), (6, 16))
HIDDEN = (120, 84)


class LeNet5(nn.Module):
    """(B, 1, 32, 32) → (B, classes) logits.

    With `gap`, C5, F6 and the output are one 1x1 convolution and global average pooling (Lin et al. 2013,
    arXiv:1312.4400, section 3.2): 61 706 parameters become under 3 000 with ten classes.
    """

    def __init__(self, classes: int, *, gap: bool = False) -> None:
        super().__init__()
        self.features = nn.Sequential()
        for inputs, outputs in CONVS:
            self.features.extend([nn.Conv2d(inputs, outputs, 5), nn.ReLU(inplace=True), nn.MaxPool2d(2)])
        channels = CONVS[-1][1]
        if gap:
            self.classifier = nn.Sequential(nn.Conv2d(channels, classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        else:
            first, second = HIDDEN
            self.classifier = nn.Sequential(
                nn.Flatten(),
                nn.Linear(channels * 25, first),
                nn.ReLU(inplace=True),
                nn.Linear(first, second),
                nn.ReLU(inplace=True),
                nn.Linear(second, classes),
            )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(self.features(x))
        return y
