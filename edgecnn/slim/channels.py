"""Which channels of a network can go, and what goes with them (Fang et al. 2023, arXiv:2301.12900, by the library
Torch-Pruning): a residual sum, a concatenation, a depthwise layer and its neighbours lose the same ones, or none.

A *cut* is how many channels each family keeps. What a cut makes of every layer is known without cutting.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
import torch_pruning as tp  # type: ignore[import-untyped]
from torch import Tensor, nn

from edgecnn.errors import ModelError
from edgecnn.zoo.count import watch
from edgecnn.zoo.roadnet import Head

Importance: TypeAlias = Callable[[Any], "Tensor | None"]  # a group of the library -> score of each of its channels
Cut: TypeAlias = Mapping[str, int]  # root of a family -> places that it keeps; whole where it is not named


@dataclass(frozen=True)
class Family:
    """Channels that go together, by place. One place is one channel in each group of a grouped convolution."""

    root: str  # name of the layer that makes them
    size: int  # places
    groups: int
    order: tuple[int, ...]  # places, the least important first
    scores: tuple[float, ...]  # of the places, in that order
    touches: tuple[tuple[str, bool, int], ...]  # layer, whether its outputs (else inputs), channels that a place holds


@dataclass(frozen=True)
class LayerShape:
    """All that the time of a convolution or linear layer depends on; linear is 1x1 of one place."""

    inputs: int
    outputs: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    height: int = 1  # of its input
    width: int = 1

    @property
    def depthwise(self) -> bool:
        return self.groups > 1 and self.groups == self.inputs

    @property
    def macs(self) -> int:
        rows, columns = (
            (side + 2 * pad - kernel) // stride + 1
            for side, pad, kernel, stride in zip(
                (self.height, self.width), self.padding, self.kernel, self.stride, strict=True
            )
        )
        return self.outputs * self.inputs // self.groups * self.kernel[0] * self.kernel[1] * rows * columns


Layout: TypeAlias = Mapping[str, LayerShape]


def duplicate(net: nn.Module) -> nn.Module:
    """A copy in evaluation mode, gradients and all."""
    twin = copy.deepcopy(net).eval()
    for mine, hers in zip(net.parameters(), twin.parameters(), strict=True):
        hers.grad = None if mine.grad is None else mine.grad.clone()
    return twin


def outputs(net: nn.Module) -> list[nn.Module]:
    """Layers whose outputs mean something outside the network, and must all stay."""
    heads = [layer for head in net.modules() if isinstance(head, Head) for layer in (head.cls, head.box, head.obj)]
    if heads:
        return list(heads)
    return [[layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)][-1]]


def families(net: nn.Module, shape: tuple[int, ...], importance: Importance) -> list[Family]:
    """Every family of a network that takes an input of `shape`, scored by an importance of the library.

    In the network's order. A family that the importance can't score (no batch normalisation in it, under bn_scale) is
    left out. Raises ModelError where none is left.
    """
    twin = duplicate(net)
    graph = _graph(twin, shape)
    names = {layer: name for name, layer in twin.named_modules()}
    found = []
    for group in graph.get_all_groups(ignored_layers=outputs(twin)):
        with torch.no_grad():
            scores = importance(group)
        if scores is None:
            continue
        touches: dict[tuple[str, bool], int] = {}
        groups = 1
        for dep, indices in group:
            layer = dep.target.module
            if not isinstance(layer, nn.Conv2d | nn.Linear):
                continue
            sides = [bool(graph.is_out_channel_pruning_fn(dep.handler))]
            if isinstance(layer, nn.Conv2d) and layer.groups > 1:
                if layer.groups == layer.out_channels:
                    sides = [True, False]  # depthwise: what comes in goes out
                else:
                    groups = max(groups, layer.groups)
            for side in sides:
                key = names[layer], side
                touches[key] = touches.get(key, 0) + len(indices)
        size = len(scores) // groups
        # places score the mean over groups, as the library has it
        placed = torch.nan_to_num(scores.detach().reshape(groups, size).mean(0))
        order = placed.argsort(stable=True)
        found.append(
            Family(
                names[group[0].dep.target.module],
                size,
                groups,
                tuple(order.tolist()),
                tuple(placed[order].tolist()),
                tuple((name, side, count // size) for (name, side), count in touches.items()),
            )
        )
    if not found:
        raise ModelError("no channels of this network can be cut", wanted="convolutions besides its output")
    places = {name: place for place, name in enumerate(names.values())}
    return sorted(found, key=lambda family: places[family.root])


def layout(net: nn.Module, shape: tuple[int, ...]) -> dict[str, LayerShape]:
    """The shape of every convolution and linear layer for one input of `shape`."""
    found: dict[str, LayerShape] = {}

    def note(name: str, layer: nn.Module, x: Tensor, _output: Tensor) -> None:
        if isinstance(layer, nn.Linear):
            found[name] = LayerShape(layer.in_features, layer.out_features)
            return
        assert isinstance(layer, nn.Conv2d) and not isinstance(layer.padding, str)
        found[name] = LayerShape(
            layer.in_channels,
            layer.out_channels,
            (layer.kernel_size[0], layer.kernel_size[1]),
            (layer.stride[0], layer.stride[1]),
            (layer.padding[0], layer.padding[1]),
            layer.groups,
            x.shape[2],
            x.shape[3],
        )

    watch(net, shape, note)
    return found


def after(full: Layout, known: Sequence[Family], cut: Cut) -> dict[str, LayerShape]:
    """What a cut makes of every layer, without cutting."""
    gone: dict[tuple[str, bool], int] = {}
    for family in known:
        places = family.size - cut.get(family.root, family.size)
        for name, side, count in family.touches if places else ():
            gone[name, side] = gone.get((name, side), 0) + places * count
    result = {}
    for name, was in full.items():
        inputs, made = was.inputs - gone.get((name, False), 0), was.outputs - gone.get((name, True), 0)
        result[name] = replace(was, inputs=inputs, outputs=made, groups=inputs if was.depthwise else was.groups)
    return result


def apply_cut(net: nn.Module, shape: tuple[int, ...], known: Sequence[Family], cut: Cut) -> nn.Module:
    """A copy that keeps of each family the places that score most."""
    slim = duplicate(net)
    graph = _graph(slim, shape)
    for family in known:
        lost = family.order[: family.size - cut.get(family.root, family.size)]
        if not lost:
            continue
        layer = slim.get_submodule(family.root)
        channels = sorted(place + group * family.size for group in range(family.groups) for place in lost)
        pruner = graph.get_pruner_of_module(layer)
        graph.get_pruning_group(layer, pruner.prune_out_channels, channels).prune()
    slim.zero_grad()
    return slim


def _graph(net: nn.Module, shape: tuple[int, ...]) -> Any:
    for name, layer in net.named_modules():
        own = [key for key, _ in layer.named_parameters(recurse=False)]
        if own and not isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            raise ModelError(
                f"'{name or type(layer).__name__}' has weights of its own ({own[0]}), and is no convolution",
                wanted="channels of convolutions, batch normalisation and linear layers alone",
                do="Leave prune and search out of slim.steps for this network",
            )
    trained = [parameter.requires_grad for parameter in net.parameters()]
    try:
        # a tuple: of a bare tensor the library would try its single pictures first
        graph = tp.DependencyGraph().build_dependency(net, (torch.zeros(shape),))
    except Exception as error:  # the library has no errors of its own
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise ModelError(
            f"the channels of this network can't be traced ({reason})",
            wanted="convolutions, linear layers, sums, concatenations and pooling",
        ) from error
    for parameter, flag in zip(net.parameters(), trained, strict=True):
        parameter.requires_grad_(flag)
    return graph
