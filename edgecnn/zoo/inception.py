"""Inception v2 and v3, as tables of branches.

`inception_v2` is BN-Inception (Ioffe & Szegedy 2015, arXiv:1502.03167, figure 5): two 3x3 in place of each 5x5, batch
normalisation everywhere, pooling by average within the modules, strided modules without a 1x1 branch. Modules 4c and
4d pool to 96 channels: only so does the figure's column of outputs (576) come about. The first convolution is a plain
7x7, not the paper's separable one. No dropout (section 4.2.1).

`inception_v3` (Szegedy et al. 2015, arXiv:1512.00567, table 1) has the names and shapes of torchvision, whose
checkpoints load: 7x7 as 1x7 and 7x1 on the 17x17 maps (section 3.2), 1x3 beside 3x1 on the 8x8 maps, grids that shrink
by convolution and pooling side by side (section 5). Its public weights were trained on pictures from -1 to 1;
`zoo.models` gives it mean and std 127.5, so that they answer right as they are. The auxiliary head exists for
training alone; torchvision adds its loss times 0.4 to that of the output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgecnn.zoo.googlenet import Conv, initialise


@dataclass(frozen=True)
class Step:
    """Convolution, batch normalisation, ReLU."""

    name: str
    outputs: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1
    padding: int | None = None  # None: odd kernels keep the size

    def module(self, inputs: int) -> Conv:
        return Conv(inputs, self.outputs, self.kernel, self.stride, self.padding)


@dataclass(frozen=True)
class Pool:
    name: str
    kind: type[nn.MaxPool2d] | type[nn.AvgPool2d]
    stride: int
    padding: int = 0

    def module(self) -> nn.Module:
        return self.kind(3, self.stride, self.padding)


Chain: TypeAlias = tuple[Step | tuple[Step, Step], ...]  # one after the other; a pair stands side by side


@dataclass(frozen=True)
class Mix:
    """Branches side by side: the chains, of which the last comes after the pooling."""

    name: str
    pool: Pool
    chains: tuple[Chain, ...]


def v2(name: str, one: int, reduce: int, three: int, reduce_double: int, double: int, pooled: int) -> Mix:
    """A row of figure 5 as it stands there; `pooled` 0: a module of stride 2 that passes the maxima on."""
    stride = 1 if pooled else 2
    chains: tuple[Chain, ...] = (
        (Step("branch3x3_1", reduce), Step("branch3x3_2", three, 3, stride)),
        (
            Step("branch3x3dbl_1", reduce_double),
            Step("branch3x3dbl_2", double, 3),
            Step("branch3x3dbl_3", double, 3, stride),
        ),
        (Step("branch_pool", pooled),) if pooled else (),
    )
    kind = nn.AvgPool2d if pooled and name != "inception5b" else nn.MaxPool2d
    return Mix(name, Pool("pool", kind, stride, 1), ((Step("branch1x1", one),), *chains) if one else chains)


def v3_35(name: str, pooled: int) -> Mix:
    """35x35 maps: figure 5 of the paper, but for one 5x5 that torchvision keeps."""
    return Mix(
        name,
        Pool("pool", nn.AvgPool2d, 1, 1),
        (
            (Step("branch1x1", 64),),
            (Step("branch5x5_1", 48), Step("branch5x5_2", 64, 5)),
            (Step("branch3x3dbl_1", 64), Step("branch3x3dbl_2", 96, 3), Step("branch3x3dbl_3", 96, 3)),
            (Step("branch_pool", pooled),),
        ),
    )


def v3_17(name: str, inner: int) -> Mix:
    """17x17 maps, 7x7 as 1x7 and 7x1: figure 6."""
    return Mix(
        name,
        Pool("pool", nn.AvgPool2d, 1, 1),
        (
            (Step("branch1x1", 192),),
            (Step("branch7x7_1", inner), Step("branch7x7_2", inner, (1, 7)), Step("branch7x7_3", 192, (7, 1))),
            (
                Step("branch7x7dbl_1", inner),
                Step("branch7x7dbl_2", inner, (7, 1)),
                Step("branch7x7dbl_3", inner, (1, 7)),
                Step("branch7x7dbl_4", inner, (7, 1)),
                Step("branch7x7dbl_5", 192, (1, 7)),
            ),
            (Step("branch_pool", 192),),
        ),
    )


def v3_8(name: str) -> Mix:
    """8x8 maps, 1x3 beside 3x1: figure 7."""
    return Mix(
        name,
        Pool("pool", nn.AvgPool2d, 1, 1),
        (
            (Step("branch1x1", 320),),
            (Step("branch3x3_1", 384), (Step("branch3x3_2a", 384, (1, 3)), Step("branch3x3_2b", 384, (3, 1)))),
            (
                Step("branch3x3dbl_1", 448),
                Step("branch3x3dbl_2", 384, 3),
                (Step("branch3x3dbl_3a", 384, (1, 3)), Step("branch3x3dbl_3b", 384, (3, 1))),
            ),
            (Step("branch_pool", 192),),
        ),
    )


TO_17 = Mix(
    "Mixed_6a",
    Pool("pool", nn.MaxPool2d, 2),
    (
        (Step("branch3x3", 384, 3, 2, 0),),
        (Step("branch3x3dbl_1", 64), Step("branch3x3dbl_2", 96, 3), Step("branch3x3dbl_3", 96, 3, 2, 0)),
        (),
    ),
)
TO_8 = Mix(
    "Mixed_7a",
    Pool("pool", nn.MaxPool2d, 2),
    (
        (Step("branch3x3_1", 192), Step("branch3x3_2", 320, 3, 2, 0)),
        (
            Step("branch7x7x3_1", 192),
            Step("branch7x7x3_2", 192, (1, 7)),
            Step("branch7x7x3_3", 192, (7, 1)),
            Step("branch7x7x3_4", 192, 3, 2, 0),
        ),
        (),
    ),
)
V2: tuple[Step | Pool | Mix, ...] = (
    Step("conv1", 64, 7, 2),
    Pool("pool1", nn.MaxPool2d, 2, 1),
    Step("conv2", 64),
    Step("conv3", 192, 3),
    Pool("pool2", nn.MaxPool2d, 2, 1),
    v2("inception3a", 64, 64, 64, 64, 96, 32),
    v2("inception3b", 64, 64, 96, 64, 96, 64),
    v2("inception3c", 0, 128, 160, 64, 96, 0),
    v2("inception4a", 224, 64, 96, 96, 128, 128),
    v2("inception4b", 192, 96, 128, 96, 128, 128),
    v2("inception4c", 160, 128, 160, 128, 160, 96),
    v2("inception4d", 96, 128, 192, 160, 192, 96),
    v2("inception4e", 0, 128, 192, 192, 256, 0),
    v2("inception5a", 352, 192, 320, 160, 224, 128),
    v2("inception5b", 352, 192, 320, 192, 224, 128),
)
V3: tuple[Step | Pool | Mix, ...] = (
    Step("Conv2d_1a_3x3", 32, 3, 2, 0),
    Step("Conv2d_2a_3x3", 32, 3, 1, 0),
    Step("Conv2d_2b_3x3", 64, 3),
    Pool("maxpool1", nn.MaxPool2d, 2),
    Step("Conv2d_3b_1x1", 80),
    Step("Conv2d_4a_3x3", 192, 3, 1, 0),
    Pool("maxpool2", nn.MaxPool2d, 2),
    v3_35("Mixed_5b", 32),
    v3_35("Mixed_5c", 64),
    v3_35("Mixed_5d", 64),
    TO_17,
    v3_17("Mixed_6b", 128),
    v3_17("Mixed_6c", 160),
    v3_17("Mixed_6d", 160),
    v3_17("Mixed_6e", 192),
    TO_8,
    v3_8("Mixed_7b"),
    v3_8("Mixed_7c"),
)
AUX_AFTER = "Mixed_6e"


class Mixed(nn.Module):
    """(B, C, H, W) → (B, sum of the branches' outputs, H', W')."""

    def __init__(self, inputs: int, mix: Mix) -> None:
        super().__init__()
        self.chains, self.outputs = mix.chains, 0
        for chain in mix.chains:
            channels = inputs
            for step in chain:
                pair = (step,) if isinstance(step, Step) else step
                for each in pair:
                    self.add_module(each.name, each.module(channels))
                channels = sum(each.outputs for each in pair)
            self.outputs += channels
        self.pool = mix.pool.module()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            [self._run(chain, x) for chain in self.chains[:-1]] + [self._run(self.chains[-1], self.pool(x))], 1
        )

    def _run(self, chain: Chain, x: Tensor) -> Tensor:
        for step in chain:
            if isinstance(step, Step):
                x = self.get_submodule(step.name)(x)
            else:
                x = torch.cat([self.get_submodule(each.name)(x) for each in step], 1)
        return x


class Auxiliary(nn.Module):
    """(B, C, 17, 17) → (B, classes) logits from the middle of the network (section 4)."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.conv0 = Conv(inputs, 128, 1)
        self.conv1 = Conv(128, 768, 5, 1, 0)
        self.fc = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        # maps of a smaller input than 299 px would leave conv1 less than its 5x5
        x = F.avg_pool2d(x, 5, 3) if min(x.shape[2:]) >= 17 else F.adaptive_avg_pool2d(x, 5)
        x = F.adaptive_avg_pool2d(self.conv1(self.conv0(x)), 1)
        y: Tensor = self.fc(torch.flatten(x, 1))
        return y


class Inception(nn.Module):
    """(B, 3, H, W) RGB → (B, classes) logits; with `aux` in training mode, (logits, auxiliary logits)."""

    def __init__(self, parts: tuple[Step | Pool | Mix, ...], classes: int, *, dropout: float, aux: bool) -> None:
        super().__init__()
        self.order, channels = tuple(part.name for part in parts), 3
        for part in parts:
            match part:
                case Step():
                    self.add_module(part.name, part.module(channels))
                    channels = part.outputs
                case Pool():
                    self.add_module(part.name, part.module())
                case Mix():
                    mixed = Mixed(channels, part)
                    self.add_module(part.name, mixed)
                    channels = mixed.outputs
            if aux and part.name == AUX_AFTER:
                self.AuxLogits = Auxiliary(channels, classes)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        auxiliary = None
        for name in self.order:
            x = self.get_submodule(name)(x)
            if self.training and name == AUX_AFTER and hasattr(self, "AuxLogits"):
                auxiliary = self.AuxLogits(x)
        y: Tensor = self.fc(self.dropout(torch.flatten(self.avgpool(x), 1)))
        return y if auxiliary is None else (y, auxiliary)


def build(arch: str, classes: int, aux: bool = False) -> Inception:
    """`inception_v2` has no auxiliary head, whatever `aux` says."""
    if arch == "inception_v2":
        net = Inception(V2, classes, dropout=0.0, aux=False)
    else:
        net = Inception(V3, classes, dropout=0.5, aux=aux)
    initialise(net)
    return net
