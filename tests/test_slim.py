"""Slimming: fewer MACs, widths in eights, and a checkpoint that needs no explanation."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from edgecnn import zoo
from edgecnn.errors import ModelError
from edgecnn.recipe import ModelSection
from edgecnn.slim.gap import with_gap
from edgecnn.slim.prune import outputs, prune
from edgecnn.zoo.count import size
from edgecnn.zoo.widths import read_widths


@pytest.mark.parametrize("arch", ["roadnet", "resnet18"])
def test_pruned_network_is_smaller_by_what_was_asked_and_loads_back(arch: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = zoo.spec_for(ModelSection(arch=arch, height=64, width=96))
    if arch == "resnet18":
        spec = replace(spec, input=replace(spec.input, shape=(1, 3, 64, 96)))
    net = zoo.build(spec)
    weigh(net, spec.input.shape)
    slim = prune(net, spec.input.shape, 0.3, 8)
    before, after = size(net, spec.input.shape), size(slim, spec.input.shape)
    assert 0.45 * before.macs < after.macs <= 0.7 * before.macs
    kept = {id(layer) for layer in outputs(slim)}
    widths = [m.out_channels for m in slim.modules() if isinstance(m, nn.Conv2d) and id(m) not in kept]
    assert all(w % 8 == 0 for w in widths)

    described = replace(spec, widths=read_widths(slim))
    zoo.save_weights(tmp_path / "slim.safetensors", slim, described)
    again, own = zoo.load(tmp_path / "slim.safetensors", spec)
    x = torch.rand(spec.input.shape)
    for a, b in zip(flat(slim(x)), flat(again(x)), strict=True):
        assert torch.equal(a, b)
    assert own.widths == described.widths


def weigh(net: nn.Module, shape: tuple[int, ...]) -> None:
    """Gradients of some loss: the larger the outputs, the larger."""
    torch.manual_seed(1)
    torch.stack([y.square().sum() for y in flat(net(torch.rand(shape)))]).sum().backward()  # type: ignore[no-untyped-call]


def flat(answer: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


def test_the_full_network_is_left_alone() -> None:
    spec = zoo.spec_for(ModelSection(arch="roadnet", height=64, width=96))
    net = zoo.build(spec)
    weigh(net, spec.input.shape)
    widths = read_widths(net)
    prune(net, spec.input.shape, 0.2, 8)
    assert read_widths(net) == widths


def test_too_much_is_refused() -> None:
    spec = zoo.spec_for(ModelSection(arch="lenet5"))
    net = zoo.build(spec)
    weigh(net, spec.input.shape)
    with pytest.raises(ModelError, match="round_to"):
        prune(net, spec.input.shape, 0.99, 8)


def test_channels_that_do_nothing_go_first() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    last = net[2]
    assert isinstance(last, nn.Conv2d)
    last.weight.data[:, ::2] = 0  # every second channel is never read
    weigh(net, (1, 3, 16, 16))
    slim = prune(net, (1, 3, 16, 16), 0.4, 8)
    first, kept = net[0].weight, slim.get_submodule("0").weight
    assert isinstance(first, torch.Tensor) and isinstance(kept, torch.Tensor)
    came_from = [int((first - channel).abs().sum((1, 2, 3)).argmin()) for channel in kept]
    assert 8 <= len(came_from) < 32 and all(i % 2 for i in came_from)


def test_gap_keeps_the_convolutions_and_drops_the_fc() -> None:
    spec = zoo.spec_for(ModelSection(arch="lenet5", classes=tuple("abcdefghij")))
    net = zoo.build(spec)
    slim, described, line = with_gap(net, spec)
    assert "3 fully connected layers" in line and set(described.replaced) == {"avgpool", "classifier"}
    assert not any(isinstance(m, nn.Linear) for m in slim.modules())
    # by hand: 156 + 2416 + 16·10 + 10
    assert size(slim, spec.input.shape).parameters == 2742
    x = torch.rand(2, 1, 32, 32)
    assert torch.equal(net.get_submodule("features")(x), slim.get_submodule("features")(x))
    maps = slim.get_submodule("avgpool.0")(slim.get_submodule("features")(x))
    assert torch.allclose(slim(x), maps.sum((2, 3)) / math.prod(maps.shape[2:]), atol=1e-6)


def test_gap_needs_an_fc() -> None:
    spec = zoo.spec_for(ModelSection(arch="roadnet"))
    with pytest.raises(ModelError, match="no fully connected"):
        with_gap(zoo.build(spec), spec)
