"""Pruning: four criteria, each where it can see; sums, concatenations, groups, depthwise layers; targets and rounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch_pruning as tp
from torch import Tensor, nn

from edgecnn import zoo
from edgecnn.bundle import ModelSpec
from edgecnn.errors import ModelError
from edgecnn.recipe import DataSection, LowRankStep, ModelSection, PruneStep, TrainSection
from edgecnn.slim.channels import apply_cut, families, layout, outputs
from edgecnn.slim.gap import with_gap
from edgecnn.slim.lowrank import low_ranked
from edgecnn.slim.prune import cut_by_ratio, cut_to_macs, fisher, importance, pruned, weigh
from edgecnn.zoo.count import size
from edgecnn.zoo.widths import read_widths

CRITERIA = ("taylor", "hessian", "magnitude", "bn_scale")
CLASSES = ("a", "b")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> DataSection:
    folder, rng = tmp_path_factory.mktemp("classes"), np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir()
        for i in range(4):
            cv2.imwrite(str(folder / name / f"{i}.png"), rng.integers(0, 256, (64, 64, 3)).astype(np.uint8))
    return DataSection(kind="classes", path=folder, pictures=8)


def made(arch: str, side: int = 64) -> tuple[nn.Module, ModelSpec]:
    torch.manual_seed(0)
    known = {} if arch == "roadnet" else {"classes": CLASSES}
    spec = zoo.spec_for(ModelSection.model_validate({"arch": arch, "height": side, "width": side, **known}))
    net = zoo.build(spec)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):  # as if it were trained
            layer.weight.data.uniform_(0.5, 1.5)
            layer.bias.data.uniform_(-0.5, 0.5)
    return net, spec


def flat(answer: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


SLOW = [pytest.param("roadnet", criterion, marks=pytest.mark.slow) for criterion in CRITERIA[1:]]


@pytest.mark.parametrize(("arch", "criterion"), [("roadnet", "taylor"), *(("resnet18", c) for c in CRITERIA), *SLOW])
def test_the_share_is_gone_in_eights_and_the_file_describes_itself(
    arch: str, criterion: str, pictures: DataSection, tmp_path: Path
) -> None:
    net, spec = made(arch)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    data = DataSection(kind="sim", seed=1, pictures=1) if arch == "roadnet" else pictures
    step = PruneStep.model_validate({"macs": 0.4, "criterion": criterion, "data": data, "between": {"batch": 4}})
    slim, described, line = pruned(net, spec, step, net)
    full, left = size(net, spec.input.shape), size(slim, spec.input.shape)
    assert 0.3 * full.macs < left.macs <= 0.6 * full.macs
    assert criterion in line and f"{left.macs:,}" in line
    meant = {id(layer) for layer in outputs(slim)}
    assert all(m.out_channels % 8 == 0 for m in slim.modules() if isinstance(m, nn.Conv2d) and id(m) not in meant)
    for mine, hers in zip(outputs(net), outputs(slim), strict=True):
        assert getattr(mine, "out_channels", None) == getattr(hers, "out_channels", None)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())

    zoo.save_weights(tmp_path / "slim.safetensors", slim, described)
    again, own = zoo.load(tmp_path / "slim.safetensors", spec)
    x = torch.rand(spec.input.shape)
    assert own.widths == described.widths == read_widths(slim)
    assert all(torch.equal(a, b) for a, b in zip(flat(slim(x)), flat(again(x)), strict=True))


@pytest.mark.parametrize(
    ("arch", "side", "scope"), [("resnet18", 32, "global"), ("googlenet", 64, "uniform"), ("roadnet", 64, "global")]
)
def test_a_cut_keeps_the_weights_of_what_stays(arch: str, side: int, scope: str) -> None:
    """Oracle: the same network with what goes set to zero. Through sums, concatenations and depthwise layers."""
    net, spec = made(arch, side)
    shape = spec.input.shape
    known = families(net, shape, importance("magnitude"))
    step = PruneStep.model_validate({"macs": 0.3, "scope": scope})
    cut = cut_to_macs(known, layout(net, shape), 0.7 * size(net, shape).macs, step)
    slim = apply_cut(net, shape, known, cut)
    gone = {f.root: set(f.order[: f.size - cut[f.root]]) for f in known}
    assert any(gone.values())
    silenced(net, shape, gone)
    with torch.no_grad():
        x = torch.randn(shape)
        for a, b in zip(flat(net(x)), flat(slim(x)), strict=True):
            assert torch.allclose(a, b, atol=1e-4, rtol=1e-3)


def silenced(net: nn.Module, shape: tuple[int, ...], gone: dict[str, set[int]]) -> None:
    """Zero in place all that feeds the channels which go, and all that normalises them: by the library's own graph."""
    graph = tp.DependencyGraph().build_dependency(net, torch.zeros(shape))
    for root, places in gone.items():
        if not places:
            continue
        layer = net.get_submodule(root)
        group = graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, sorted(places))
        for dep, rows in group:
            target = dep.target.module
            if isinstance(target, nn.Conv2d | nn.Linear | nn.BatchNorm2d) and graph.is_out_channel_pruning_fn(
                dep.handler
            ):
                target.weight.data[rows] = 0
                if target.bias is not None:
                    target.bias.data[rows] = 0


def test_groups_of_a_grouped_convolution_lose_the_same_places() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3, groups=2), nn.ReLU(), nn.Conv2d(64, 4, 1))
    shape = (1, 3, 16, 16)
    known = families(net, shape, importance("magnitude"))
    assert [(f.root, f.size, f.groups) for f in known] == [("0", 16, 2), ("2", 32, 2)]
    cut = cut_by_ratio(known, 0.5, PruneStep(channels=0.5, scope="uniform"))
    slim = apply_cut(net, shape, known, cut)
    widths = read_widths(slim)
    assert widths == {"0": (3, 16), "2": (16, 32), "4": (32, 4)}
    lost = set(known[0].order[: 16 - cut["0"]])
    kept = [group * 16 + place for group in range(2) for place in range(16) if place not in lost]
    first, was = slim.get_parameter("0.weight"), net.get_parameter("0.weight")
    assert torch.equal(first, was[kept]) and slim(torch.zeros(shape)).shape == (1, 4, 12, 12)


def planted() -> nn.Module:
    """Every second channel of the first convolution: never read, never written, its scale zero."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).eval()
    net.get_parameter("1.weight").data.uniform_(0.5, 1.5)
    for name, rows in (("0.weight", slice(None, None, 2)), ("1.weight", slice(None, None, 2))):
        net.get_parameter(name).data[rows] = 0
    net.get_parameter("3.weight").data[:, ::2] = 0
    return net


def squared(net: nn.Module, criterion: str) -> None:
    """Fisher information of one picture is its squared gradient."""
    for parameter in net.parameters() if criterion == "hessian" else ():
        assert parameter.grad is not None
        parameter.grad.square_()


@pytest.mark.parametrize("criterion", CRITERIA)
def test_channels_that_do_nothing_go_first(criterion: str) -> None:
    net, shape = planted(), (1, 3, 16, 16)
    net(torch.rand(shape)).square().sum().backward()
    squared(net, criterion)
    (family,) = families(net, shape, importance(criterion))
    assert set(family.order[:16]) == set(range(0, 32, 2))
    slim = apply_cut(net, shape, [family], {"0": 16})
    x = torch.rand(shape)
    assert torch.allclose(net(x), slim(x), atol=1e-6)


@pytest.mark.parametrize("criterion", ["taylor", "hessian"])
def test_what_is_only_never_read_is_seen_by_the_loss_and_not_by_size(criterion: str) -> None:
    net, shape = planted(), (1, 3, 16, 16)
    net.get_parameter("0.weight").data.normal_(0, 5)
    net.get_parameter("1.weight").data.fill_(1)
    net(torch.randn(shape)).square().sum().backward()
    squared(net, criterion)
    (seen,) = families(net, shape, importance(criterion))
    assert set(seen.order[:16]) == set(range(0, 32, 2))
    (size_only,) = families(net, shape, importance("bn_scale"))
    assert set(size_only.order[:16]) != set(range(0, 32, 2))


def test_fisher_is_the_mean_of_squared_gradients_of_single_pictures(pictures: DataSection) -> None:
    net, spec = made("resnet18", 32)
    fisher(net, spec, TrainSection(data=pictures, batch=2))
    own, _ = made("resnet18", 32)
    from edgecnn.zoo.batches import Batchable

    data = Batchable.read(spec, pictures, "pictures")
    wanted = torch.zeros_like(own.get_parameter("fc.weight"))
    for x, label in zip(data.x, data.labels, strict=True):
        own.zero_grad()
        nn.functional.cross_entropy(own(x[None]), label[None]).backward()
        grad = own.get_parameter("fc.weight").grad
        assert grad is not None
        wanted += grad.square() / len(data)
    came = net.get_parameter("fc.weight").grad
    assert came is not None and torch.allclose(came, wanted, rtol=1e-3, atol=1e-7)


def test_global_taylor_is_the_librarys_own_pruner() -> None:
    """The same widths, where rounding leaves every family something: the library passes over one it would empty."""
    net, spec = made("resnet18", 32)
    torch.stack([y.square().sum() for y in flat(net(torch.rand(spec.input.shape)))]).sum().backward()
    shape = spec.input.shape
    full, known = read_widths(net), families(net, shape, importance("taylor"))
    mine = read_widths(apply_cut(net, shape, known, cut_by_ratio(known, 0.3, PruneStep(channels=0.3))))
    tp.pruner.BasePruner(
        net,
        torch.zeros(shape),
        importance=tp.importance.GroupTaylorImportance(),
        global_pruning=True,
        pruning_ratio=0.3,
        round_to=8,
        ignored_layers=outputs(net),
    ).step()
    assert mine == read_widths(net) != full


def test_a_share_of_the_channels_uniformly() -> None:
    net, spec = made("resnet18", 32)
    step = PruneStep(channels=0.5, scope="uniform", criterion="magnitude")
    slim, _, _ = pruned(net, spec, step, net)
    full = read_widths(net)
    for name, (_, made_) in read_widths(slim).items():
        assert made_ == (full[name][1] if name == "fc" else full[name][1] // 2)


def test_rounds_reach_the_same_share_and_train_between(pictures: DataSection) -> None:
    net, spec = made("resnet18", 32)
    between = {"data": pictures, "epochs": 1, "batch": 4, "lr": 0.01}
    step = PruneStep.model_validate({"macs": 0.5, "rounds": 2, "criterion": "bn_scale", "between": between})
    slim, _, line = pruned(net, spec, step, net, spec)
    assert size(slim, spec.input.shape).macs <= 0.5 * size(net, spec.input.shape).macs and "in 2 rounds" in line
    still = step.model_copy(update={"between": step.between.model_copy(update={"epochs": 0})})
    untrained, _, _ = pruned(net, spec, still, net, spec)
    own, same, other = (set(each.get_parameter("fc.weight").flatten().tolist()) for each in (net, untrained, slim))
    assert same <= own and not other <= own


def test_bn_scale_needs_batch_normalisation() -> None:
    spec = zoo.spec_for(ModelSection(arch="lenet5", classes=CLASSES))
    with pytest.raises(ModelError, match="lenet5 has no batch normalisation"):
        pruned(zoo.build(spec), spec, PruneStep(macs=0.2, criterion="bn_scale"), nn.Identity())


def test_too_much_is_refused() -> None:
    spec = zoo.spec_for(ModelSection(arch="lenet5", classes=CLASSES))
    with pytest.raises(ModelError, match="round_to"):
        pruned(zoo.build(spec), spec, PruneStep(macs=0.99, criterion="magnitude"), nn.Identity())


def test_a_layer_that_is_none_of_ours_is_named() -> None:
    spec = zoo.spec_for(ModelSection(arch="lenet5_original", classes=tuple("0123456789")))
    with pytest.raises(ModelError, match="'s2' has weights of its own"):
        weighed = weigh(zoo.build(spec), spec, "magnitude", TrainSection())
        families(weighed, spec.input.shape, importance("magnitude"))


def test_layers_that_slimming_put_in_are_pruned_and_described(tmp_path: Path) -> None:
    net, spec = made("resnet18", 32)
    thin, between, _ = low_ranked(net, spec, LowRankStep(layers=("layer1.*",), rank=0.5))
    assert between.replaced
    slim, described, _ = pruned(thin, between, PruneStep(macs=0.3, criterion="magnitude"), net, spec)
    assert described.replaced == between.replaced and any(name.endswith(".2") for name in described.widths)
    zoo.save_weights(tmp_path / "slim.safetensors", slim, described)
    again, _ = zoo.load(tmp_path / "slim.safetensors", replace(spec))
    x = torch.rand(spec.input.shape)
    assert torch.equal(slim(x), again(x))


SIDES = {"googlenet": 64, "googlenet_original": 64, "inception_v2": 64, "inception_v3": 96, "alexnet": 64}
SIDES |= {"alexnet_original": 67, "zfnet": 64, "vgg11_bn": 32, "resnet50": 64}


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "side"), SIDES.items())
def test_every_family_of_the_zoo(arch: str, side: int) -> None:
    net, spec = made(arch, side)
    slim, described, _ = pruned(net, spec, PruneStep(macs=0.4, criterion="magnitude"), net)
    assert size(slim, spec.input.shape).macs <= 0.6 * size(net, spec.input.shape).macs
    again = zoo.build(described)
    again.load_state_dict(slim.state_dict())
    x = torch.randn(spec.input.shape)
    assert torch.equal(again(x), slim(x))


def test_a_network_without_fully_connected_layers_is_cut_too() -> None:
    spec = zoo.spec_for(ModelSection(arch="lenet5"))
    net, spec, _ = with_gap(zoo.build(spec), spec)
    assert [f.root for f in families(net, spec.input.shape, importance("magnitude"))] == ["features.0", "features.3"]
