"""RoadNet: the board's own nano detector. Conv-BN-ReLU only, anchor-free, single stage, under 1 M parameters.

The topology is YOLOX-Nano's (Ge et al. 2021, arXiv:2107.08430: CSP backbone, SPP, path-aggregation neck, decoupled
heads, depthwise-separable 3x3) with three changes for an INT8 board: ReLU in place of SiLU (half the kernels, and a
range that u8 covers fully), one 6x6 stride-2 stem in place of the Focus slices (the same arithmetic, one kernel), and
boxes and scores as two outputs, so that no scale is ever shared between them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

# stage: output channels, bottlenecks; each halves the picture. The stem comes first.
STEM = 16
STAGES = ((32, 1), (64, 3), (128, 3), (256, 1))
HEAD = 64  # channels of the decoupled heads
STRIDES = (8, 16, 32)


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, groups: int = 1) -> nn.Sequential:
    """Conv-BN-ReLU. "Same" padding for odd kernels; 2 for the 6x6 stem."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03),
        nn.ReLU(inplace=True),
    )


def separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Depthwise 3x3, then pointwise."""
    return nn.Sequential(conv(inputs, inputs, 3, stride, groups=inputs), conv(inputs, outputs))


class Bottleneck(nn.Module):
    """1x1, separable 3x3, and the identity beside them."""

    def __init__(self, channels: int, *, shortcut: bool) -> None:
        super().__init__()
        self.reduce = conv(channels, channels)
        self.mix = separable(channels, channels)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.mix(self.reduce(x))
        return x + y if self.shortcut else y


class CSP(nn.Module):
    """Cross-stage partial block: half of the channels pass through the bottlenecks, half go by."""

    def __init__(self, inputs: int, outputs: int, blocks: int, *, shortcut: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.main, self.bypass = conv(inputs, half), conv(inputs, half)
        self.blocks = nn.Sequential(*(Bottleneck(half, shortcut=shortcut) for _ in range(blocks)))
        self.merge = conv(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        main, bypass = self.main(x), self.bypass(x)
        y: Tensor = self.merge(torch.cat([self.blocks(main), bypass], 1))
        return y


class SPP(nn.Module):
    """Spatial pyramid pooling: 5, 9 and 13 px maxima beside the map itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = conv(channels, channels // 2)
        self.pools = nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in (5, 9, 13))
        self.merge = conv(channels * 2, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        y: Tensor = self.merge(torch.cat([x, *(pool(x) for pool in self.pools)], 1))
        return y


class Head(nn.Module):
    """Decoupled head of one level: what it is, and where it is."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.stem = conv(inputs, HEAD)
        self.cls_mix = nn.Sequential(separable(HEAD, HEAD), separable(HEAD, HEAD))
        self.cls = nn.Conv2d(HEAD, classes, 1)
        self.box_mix = nn.Sequential(separable(HEAD, HEAD), separable(HEAD, HEAD))
        self.box = nn.Conv2d(HEAD, 4, 1)
        self.obj = nn.Conv2d(HEAD, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.stem(x)
        cls = self.cls(self.cls_mix(x))
        x = self.box_mix(x)
        return self.box(x), self.obj(x), cls


class RoadNet(nn.Module):
    """(B, 3, H, W), BGR less 128, H and W multiples of 32 → boxes (B, A, 4), scores (B, A, classes).

    A = H·W·(1/64 + 1/256 + 1/1024). Boxes are raw (dx, dy, ln w, ln h) in strides of their cell; scores are
    sigmoid(objectness)·sigmoid(class). `edgecnn.vision.DecodeDetections` reads both.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = conv(3, STEM, 6, 2)
        stages, channels = [], STEM
        for level, (outputs, blocks) in enumerate(STAGES):
            last = level == len(STAGES) - 1
            parts = [separable(channels, outputs, 2)]
            if last:
                parts.append(nn.Sequential(SPP(outputs)))
            parts.append(nn.Sequential(CSP(outputs, outputs, blocks, shortcut=not last)))
            stages.append(nn.Sequential(*parts))
            channels = outputs
        self.stages = nn.ModuleList(stages)
        small, middle, large = (outputs for outputs, _ in STAGES[1:])
        self.lateral_large = conv(large, middle)
        self.top_middle = CSP(middle * 2, middle, 1, shortcut=False)
        self.lateral_middle = conv(middle, small)
        self.top_small = CSP(small * 2, small, 1, shortcut=False)
        self.down_small = separable(small, small, 2)
        self.out_middle = CSP(small * 2, middle, 1, shortcut=False)
        self.down_middle = separable(middle, middle, 2)
        self.out_large = CSP(middle * 2, large, 1, shortcut=False)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.heads = nn.ModuleList(Head(c, classes) for c in (small, middle, large))

    def features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The neck's maps at strides 8, 16 and 32."""
        x = self.stages[0](self.stem(x))
        small = self.stages[1](x)
        middle = self.stages[2](small)
        large = self.lateral_large(self.stages[3](middle))
        middle = self.lateral_middle(self.top_middle(torch.cat([self.up(large), middle], 1)))
        small = self.top_small(torch.cat([self.up(middle), small], 1))
        middle = self.out_middle(torch.cat([self.down_small(small), middle], 1))
        large = self.out_large(torch.cat([self.down_middle(middle), large], 1))
        return small, middle, large

    def logits(self, features: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Raw boxes (B, A, 4), objectness logits (B, A, 1), class logits (B, A, classes)."""
        levels = [head(x) for head, x in zip(self.heads, features, strict=True)]
        box, obj, cls = (torch.cat([level[i].flatten(2) for level in levels], 2).transpose(1, 2) for i in range(3))
        return box, obj, cls

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        box, obj, cls = self.logits(self.features(x))
        return box, obj.sigmoid() * cls.sigmoid()


def init_scores(net: RoadNet, prior: float = 0.01) -> None:
    """Start every score at `prior`, or the first steps drown in the background (RetinaNet, arXiv:1708.02002, 3.3)."""
    bias = -math.log((1 - prior) / prior)
    for head in net.heads:
        for layer in (head.obj, head.cls):
            assert isinstance(layer, nn.Conv2d) and layer.bias is not None
            nn.init.constant_(layer.bias, bias)


def build(arch: str, classes: int) -> RoadNet:
    net = RoadNet(classes)
    init_scores(net)
    return net
