"""GoogLeNet, Inception v1 (Szegedy et al. 2014, arXiv:1409.4842, table 1): 22 layers with weights, nine modules.

`googlenet` has the names and shapes of torchvision, whose checkpoints load: batch normalisation, and 3x3 kernels
where the paper has 5x5. Its public weights were trained on pictures from -1 to 1, not on ImageNet's mean and standard
deviation; `zoo.models` gives it mean and std 127.5, so that they answer right as they are.
`googlenet_original` is the paper's: 5x5 kernels, biases, local response normalisation, no batch normalisation.

The two auxiliary heads exist for training alone: the paper adds their losses, each times 0.3, to that of the output.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn

from edgecnn.zoo.parts import Lrn

# module: outputs of 1x1; reduction and outputs of 3x3; reduction and outputs of 5x5; outputs of the pooled branch.
Widths: TypeAlias = tuple[int, int, int, int, int, int]
STAGES: tuple[dict[str, Widths], ...] = (
    {"3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64)},
    {
        "4a": (192, 96, 208, 16, 48, 64),
        "4b": (160, 112, 224, 24, 64, 64),
        "4c": (128, 128, 256, 24, 64, 64),
        "4d": (112, 144, 288, 32, 64, 64),
        "4e": (256, 160, 320, 32, 128, 128),
    },
    {"5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128)},
)
AUX_AFTER = {"4a": "aux1", "4d": "aux2"}


class Conv(nn.Module):
    """Convolution, batch normalisation (or a bias in its place), ReLU. Without `padding`, odd kernels keep the size."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | None = None,
        *,
        norm: bool = True,
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        around = (height // 2, width // 2) if padding is None else (padding, padding)
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, around, bias=not norm)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3) if norm else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.bn(self.conv(x)))
        return y


class Branches(nn.Module):
    """Branches side by side, their channels one after the other: (B, C, H, W) → (B, sum of outputs, H', W')."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], 1)


class Inception(Branches):
    """1x1; 1x1 → 3x3; 1x1 → 5x5; 3x3 max pooling → 1x1 (figure 2b)."""

    def __init__(self, inputs: int, widths: Widths, kernel: int, norm: bool) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, pooled = widths
        self.branch1 = Conv(inputs, one, 1, norm=norm)
        self.branch2 = nn.Sequential(Conv(inputs, reduce3, 1, norm=norm), Conv(reduce3, three, 3, norm=norm))
        self.branch3 = nn.Sequential(Conv(inputs, reduce5, 1, norm=norm), Conv(reduce5, five, kernel, norm=norm))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), Conv(inputs, pooled, 1, norm=norm))


class Auxiliary(nn.Module):
    """(B, C, H, W) → (B, classes) logits from the middle of the network (section 5).

    4x4 places, which at an input of 224 px are the paper's 5x5 pooling with stride 3 but for the windows' overlap.
    """

    def __init__(self, inputs: int, classes: int, norm: bool) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.conv = Conv(inputs, 128, 1, norm=norm)
        self.fc1 = nn.Linear(2048, 1024)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(1024, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(self.conv(self.pool(x)), 1)
        y: Tensor = self.fc2(self.dropout(self.relu(self.fc1(x))))
        return y


class GoogLeNet(nn.Module):
    """(B, 3, H, W) RGB → (B, classes) logits; with `aux` in training mode, (logits, aux1, aux2)."""

    def __init__(self, classes: int, *, norm: bool, aux: bool) -> None:
        super().__init__()
        self.conv1 = Conv(3, 64, 7, 2, norm=norm)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        # the paper gives no constants: these are of the public Caffe model
        self.norm1 = nn.Identity() if norm else Lrn(alpha=2e-5, k=1.0)
        self.conv2 = Conv(64, 64, 1, norm=norm)
        self.conv3 = Conv(64, 192, 3, norm=norm)
        self.norm2 = nn.Identity() if norm else Lrn(alpha=2e-5, k=1.0)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        channels, heads = 192, {}
        for stage in STAGES:
            for name, widths in stage.items():
                self.add_module(f"inception{name}", Inception(channels, widths, 3 if norm else 5, norm))
                channels = widths[0] + widths[2] + widths[4] + widths[5]
                if aux and name in AUX_AFTER:
                    heads[AUX_AFTER[name]] = Auxiliary(channels, classes, norm)
        self.pool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        # torchvision's fourth pooling is 2x2; both halve the 14x14 map
        self.pool4 = nn.MaxPool2d(2 if norm else 3, 2, ceil_mode=True)
        for name, head in heads.items():
            self.add_module(name, head)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2 if norm else 0.4)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        x = self.norm1(self.pool1(self.conv1(x)))
        x = self.pool2(self.norm2(self.conv3(self.conv2(x))))
        auxiliary: list[Tensor] = []
        for stage, pool in zip(STAGES, (self.pool3, self.pool4, None), strict=True):
            for name in stage:
                x = self.get_submodule(f"inception{name}")(x)
                head = getattr(self, AUX_AFTER.get(name, ""), None)
                if self.training and head is not None:
                    auxiliary.append(head(x))
            if pool is not None:
                x = pool(x)
        y: Tensor = self.fc(self.dropout(torch.flatten(self.avgpool(x), 1)))
        return (y, *auxiliary) if auxiliary else y


def initialise(net: nn.Module) -> None:
    """Convolutions as He et al. 2015 (arXiv:1502.01852, eq. 10) for ReLU; linear layers normal, σ .01, cut at 2 σ."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)


def build(arch: str, classes: int, aux: bool = False) -> GoogLeNet:
    net = GoogLeNet(classes, norm=arch == "googlenet", aux=aux)
    initialise(net)
    return net
