"""LeNet-5, as it is trained today and as it was (LeCun, Bottou, Bengio, Haffner 1998, Proc. IEEE 86(11), section II.B).

- lenet5: ReLU, max pooling, softmax.
- lenet5_original: trained subsampling, C3's sparse table, a scaled tanh, Euclidean RBF units with fixed codes.
"""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# 32x32 → C1 6@28 → S2 6@14 → C3 16@10 → S4 16@5 → C5 120 → F6 84 → classes
CONVS = ((1, 6), (6, 16))
HIDDEN = (120, 84)

# Table I: which maps of S2 each map of C3 sees; rows of one length make one grouped convolution.
TABLE = (
    ((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (4, 5, 0), (5, 0, 1)),
    ((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (3, 4, 5, 0), (4, 5, 0, 1), (5, 0, 1, 2)),
    ((0, 1, 3, 4), (1, 2, 4, 5), (2, 3, 5, 0)),
    ((0, 1, 2, 3, 4, 5),),
)

# What F6 shall look like for each digit: 7x12 pictures, # is +1.
DIGITS = """
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
..###.. ...#... .#####. .#####. ....##. ####### ..####. ####### .#####. .####..
.#...#. ..##... #.....# #.....# ...#.#. #...... .#..... #.....# #.....# #....#.
#.....# .#.#... ......# ......# ..#..#. #...... #...... .....#. #.....# #.....#
#.....# ...#... ......# ......# .#...#. #...... #...... .....#. #.....# #.....#
#.....# ...#... .....#. ..####. #....#. ######. ######. ....#.. .#####. #....##
#.....# ...#... ....#.. ......# ####### ......# #.....# ....#.. #.....# .####.#
#.....# ...#... ...#... ......# .....#. ......# #.....# ...#... #.....# ......#
#.....# ...#... ..#.... ......# .....#. ......# #.....# ...#... #.....# ......#
.#...#. ...#... .#..... #.....# .....#. #.....# #.....# ..#.... #.....# .....#.
..###.. .#####. ####### .#####. .....#. .#####. .#####. ..#.... .#####. .####..
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
"""


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


class Original(nn.Module):
    """(B, 1, 32, 32) → (B, classes) logits: minus the squared distance of F6 from each class's code.

    Cross-entropy on these is the paper's discriminative criterion (equation 9) without its constant.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        (_, c1), (_, c3) = CONVS
        c5, f6 = HIDDEN
        self.c1 = nn.Conv2d(1, c1, 5)
        self.s2 = Subsample(c1)
        self.c3 = SparseConv()
        self.s4 = Subsample(c3)
        self.c5 = nn.Conv2d(c3, c5, 5)
        self.f6 = nn.Linear(c5, f6)
        self.rbf = Rbf(classes)
        self.apply(start)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.c1, self.s2, self.c3, self.s4, self.c5):
            x = squash(layer(x))
        y: Tensor = self.rbf(squash(self.f6(torch.flatten(x, 1))))
        return y


def squash(x: Tensor) -> Tensor:
    """Appendix A: f(1) = 1, f(-1) = -1, and the curve bends most there, so units seldom saturate."""
    return 1.7159 * torch.tanh(x * (2 / 3))


class Subsample(nn.Module):
    """(B, C, H, W) → (B, C, H/2, W/2): the sum of each 2x2, times one trained coefficient a map, plus one bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        total = 4 * self.weight  # an average pool is a quarter of the sum
        return F.avg_pool2d(x, 2) * total.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class SparseConv(nn.Module):
    """(B, 6, H, W) → (B, 16, H - 4, W - 4): each output map sees the inputs that TABLE gives it; no weight is idle."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList()
        for i, rows in enumerate(TABLE):
            seen = [channel for row in rows for channel in row]
            self.register_buffer(f"seen{i}", torch.tensor(seen), persistent=False)
            self.parts.append(nn.Conv2d(len(seen), len(rows), 5, groups=len(rows)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([p(x.index_select(1, self.get_buffer(f"seen{i}"))) for i, p in enumerate(self.parts)], 1)


class Rbf(nn.Module):
    """(B, 84) → (B, classes): minus the squared distance from each class's code of +-1; nothing is trained."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("codes", codes(classes))

    def forward(self, x: Tensor) -> Tensor:
        return -(x[:, None] - self.get_buffer("codes")).square().sum(2)


def codes(classes: int) -> Tensor:
    """(classes, 84) of +-1: the digits' pictures for ten classes, else drawn once and for all."""
    if classes == 10:
        columns = zip(*(line.split() for line in DIGITS.split("\n") if line), strict=True)
        return torch.tensor([[1.0 if dot == "#" else -1.0 for dot in "".join(rows)] for rows in columns])
    draw = random.Random(1998)
    return torch.tensor([[draw.choice((-1.0, 1.0)) for _ in range(HIDDEN[-1])] for _ in range(classes)])


def start(layer: nn.Module) -> None:
    """Appendix A: uniform in +-2.4 / fan-in; a subsampling unit has four inputs."""
    match layer:
        case nn.Conv2d() | nn.Linear():
            reach = 2.4 / layer.weight[0].numel()
        case Subsample():
            reach = 2.4 / 4
        case _:
            return
    assert layer.bias is not None
    nn.init.uniform_(layer.weight, -reach, reach)
    nn.init.uniform_(layer.bias, -reach, reach)


def build(arch: str, classes: int) -> nn.Module:
    return LeNet5(classes) if arch == "lenet5" else Original(classes)
