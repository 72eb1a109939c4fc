"""Other layers in place of some: nearest for their rank, smaller, described by the spec, and the input untouched."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgecnn import slim, zoo
from edgecnn.bundle import LayerSpec, ModelSpec, TensorSpec
from edgecnn.data import Sample
from edgecnn.data.narrow import Narrowed
from edgecnn.errors import ModelError
from edgecnn.recipe import (
    BottleneckStep,
    ClassesStep,
    FactorizeStep,
    LowRankStep,
    ModelSection,
    ReduceStep,
    SlimStep,
)
from edgecnn.scene import Truth
from edgecnn.slim.bottleneck import bottlenecked, find_pairs
from edgecnn.slim.classes import with_classes
from edgecnn.slim.factorize import factorized, spatial_weights, split
from edgecnn.slim.gap import with_gap
from edgecnn.slim.lowrank import low_rank_layers, low_ranked, reduced, reduced_weights, truncated, tucker2
from edgecnn.slim.pick import cost, rounded
from edgecnn.zoo.batches import Batchable
from edgecnn.zoo.count import size
from edgecnn.zoo.layers import describe, sequence
from edgecnn.zoo.widths import read_widths

DIGITS = tuple("0123456789")


def network(arch: str, side: int | None = None) -> tuple[nn.Module, ModelSpec]:
    """With random weights, and statistics of normalisation as if it had been trained."""
    torch.manual_seed(0)
    spec = zoo.spec_for(ModelSection.model_validate({"arch": arch, "classes": DIGITS, "height": side, "width": side}))
    net = zoo.build(spec)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.running_mean, layer.running_var, layer.weight, layer.bias):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)
    return net, spec


def small(*layers: nn.Module, shape: tuple[int, ...]) -> tuple[nn.Module, ModelSpec]:
    spec = ModelSpec("small", "classify", DIGITS, TensorSpec("picture", shape))
    return nn.Sequential(*layers).eval(), spec


def flat(answer: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


def energy(tensor: Tensor) -> float:
    return float(tensor.detach().double().square().sum())


# --- every step: the spec describes what came about, and what went in stays -----------------------------------------

STEPS = {
    "low_rank": SlimStep(low_rank=LowRankStep()),
    "reduce": SlimStep(reduce=ReduceStep(round_to=2)),
    "bottleneck": SlimStep(bottleneck=BottleneckStep()),
    "stack": SlimStep(factorize=FactorizeStep(form="stack")),
    "spatial": SlimStep(factorize=FactorizeStep(form="spatial")),
    "separable": SlimStep(factorize=FactorizeStep(form="separable")),
    "classes": SlimStep(classes=ClassesStep(keep=("7", "1"))),
    "gap": SlimStep(gap=True),
}
APPLIES = [
    ("lenet5", None, ("low_rank", "reduce", "stack", "spatial", "separable", "classes", "gap")),
    ("lenet5_original", None, ("low_rank", "reduce", "spatial", "separable", "classes")),
    ("resnet18", 64, ("reduce", "bottleneck", "separable", "classes")),
    ("roadnet", 64, ("low_rank", "classes")),
]


@pytest.mark.parametrize(("arch", "side", "name"), [(a, side, n) for a, side, names in APPLIES for n in names])
def test_a_step_describes_what_it_made_and_leaves_what_it_got(
    arch: str, side: int | None, name: str, tmp_path: Path
) -> None:
    net, spec = network(arch, side)
    spec = replace(spec, widths=read_widths(net))  # pruning notes every width, also where nothing was cut
    before, described = copy.deepcopy(net), copy.deepcopy(spec)
    made, new, line = slim.apply(net, spec, STEPS[name], net)

    assert spec == described and str(net) == str(before)
    unchanged = before.state_dict()
    for key, tensor in net.state_dict().items():
        assert torch.equal(tensor, unchanged[key]), key
    wanted = {key: tensor.shape for key, tensor in zoo.build(new).state_dict().items()}
    assert {key: tensor.shape for key, tensor in made.state_dict().items()} == wanted
    assert size(made, new.input.shape).macs <= size(net, spec.input.shape).macs
    assert f"{size(made, new.input.shape).macs:,}" in line

    zoo.save_weights(tmp_path / "slim.safetensors", made, new)
    again, own = zoo.load(tmp_path / "slim.safetensors", new)
    assert own == new
    x = torch.rand(new.input.shape)
    for a, b in zip(flat(made(x)), flat(again(x)), strict=True):
        assert torch.equal(a, b)


def test_steps_build_on_one_another(tmp_path: Path) -> None:
    net, spec = network("lenet5")
    steps = [
        SlimStep(factorize=FactorizeStep(layers=("features.3",), form="spatial")),
        SlimStep(low_rank=LowRankStep(layers=("classifier.0", "features.3.*"), rank=0.5, round_to=2)),
        SlimStep(classes=ClassesStep(keep=("3", "4"))),
        SlimStep(gap=True),
    ]
    made, new = net, spec
    for step in steps:
        made, new, _ = slim.apply(made, new, step, net)
    # a column and a row, either of which can become smaller yet
    assert (
        {"features.3", "avgpool", "classifier"}
        < set(new.replaced)
        <= {
            "features.3",
            "features.3.0",
            "features.3.1",
            "avgpool",
            "classifier",
        }
    )
    zoo.save_weights(tmp_path / "slim.safetensors", made, new)
    again, _ = zoo.load(tmp_path / "slim.safetensors", new)
    x = torch.rand(1, 1, 32, 32)
    assert torch.equal(made(x), again(x)) and made(x).shape == (1, 2)


# --- which layers ---------------------------------------------------------------------------------------------------


def test_a_share_is_rounded_to_multiples_and_stays_within_the_layer() -> None:
    table = {
        (64, 0.5, 8): 32,
        (64, 0.01, 8): 8,
        (6, 0.5, 8): 6,
        (100, 0.5, 8): 48,
        (100, 1.0, 8): 100,
        (20, 0.5, 1): 10,
    }
    assert {key: rounded(*key) for key in table} == table


def test_cost_by_hand() -> None:
    # 5x5 on 14x14: 6·16·25 weights at 10x10 places
    assert cost((LayerSpec("conv", 6, 16, (5, 5)),), (14, 14)) == (2400, 240_000)
    # 3x3 stride 2, padded: 16 places of 8x8; grouped in two; then 1x1
    layers = (LayerSpec("conv", 4, 8, (3, 3), (2, 2), (1, 1), 2), LayerSpec("relu"), LayerSpec("conv", 8, 2))
    assert cost(layers, (8, 8)) == (144 + 16, (144 + 16) * 16)
    net, _ = network("lenet5")
    conv = net.get_submodule("features.3")
    assert isinstance(conv, nn.Conv2d)
    assert cost((describe(conv),), (14, 14))[1] == 240_000


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (SlimStep(low_rank=LowRankStep(layers=("features.33",))), "has no layer 'features.33'"),
        (SlimStep(low_rank=LowRankStep(layers=("features.1",))), "features.1.*ReLU, no plain"),
        (SlimStep(low_rank=LowRankStep(layers=("features.3",), rank=1.0)), "features.3.*keeps all"),
        (SlimStep(low_rank=LowRankStep(layers=("classifier.?",), rank=1.0)), "no layer.*parameters where it has"),
        (SlimStep(reduce=ReduceStep(layers=("features.0",))), "features.0.*none of which can go"),
        (SlimStep(reduce=ReduceStep(layers=("classifier.0",))), "classifier.0.*1x1 already"),
        (SlimStep(bottleneck=BottleneckStep()), "no layer of lenet5 fits"),
        (
            SlimStep(factorize=FactorizeStep(layers=("features.0",), form="stack")),
            "features.0.*parameters where it has",
        ),
        (SlimStep(factorize=FactorizeStep(layers=("classifier.0",), form="spatial")), "classifier.0.*two dimensions"),
        (SlimStep(factorize=FactorizeStep(layers=("nothing*",), form="separable")), r"fits nothing\*"),
        (SlimStep(classes=ClassesStep(keep=("1", "cat"))), "no class 'cat'"),
        (SlimStep(classes=ClassesStep(keep=("1", "1"))), "twice"),
        (SlimStep(classes=ClassesStep(keep=())), "keeps no class"),
        (SlimStep(classes=ClassesStep(keep=DIGITS)), "keeps all classes"),
        (SlimStep(classes=ClassesStep(keep=("1",), height=64)), "32x32"),
    ],
)
def test_what_does_not_fit_is_named(step: SlimStep, said: str) -> None:
    net, spec = network("lenet5")
    with pytest.raises(ModelError, match=said):
        slim.apply(net, spec, step, net)


def test_a_detectors_outputs_and_depthwise_layers_are_left_alone() -> None:
    net, spec = network("roadnet", 64)
    with pytest.raises(ModelError, match="output of the detector"):
        low_ranked(net, spec, LowRankStep(layers=("heads.0.box",), rank=0.1, round_to=1))
    with pytest.raises(ModelError, match="depthwise"):
        factorized(net, spec, FactorizeStep(layers=("stages.0.0.0.0",), form="spatial"))


# --- low rank -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (9, 9)])
def test_truncation_has_the_error_of_eckart_and_young(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    first, second = truncated(matrix, 5)
    assert first.shape == (5, shape[1]) and second.shape == (shape[0], 5)
    assert energy(second @ first - matrix) == pytest.approx(energy(torch.linalg.svdvals(matrix)[5:]), rel=1e-9)
    assert torch.allclose(first.norm(dim=1), second.norm(dim=0))


def test_truncation_of_zeros_is_zero() -> None:
    first, second = truncated(torch.zeros(4, 6, dtype=torch.float64), 2)
    assert torch.equal(second @ first, torch.zeros(4, 6, dtype=torch.float64))


def tucker_error(weight: Tensor, first: Tensor, core: Tensor, last: Tensor) -> float:
    return energy(weight - torch.einsum("or,rshw,si->oihw", last[:, :, 0, 0], core, first[:, :, 0, 0]))


def test_tucker_is_no_worse_than_hosvd_and_far_better_than_chance() -> None:
    torch.manual_seed(0)
    for _ in range(5):
        weight = torch.randn(24, 16, 3, 3, dtype=torch.float64)
        weight += 2 * torch.einsum(
            "or,rshw,si->oihw", *(torch.randn(s).double() for s in ((24, 6), (6, 6, 3, 3), (6, 16)))
        )
        error = tucker_error(weight, *tucker2(weight, 6, 6))
        out = torch.linalg.svd(weight.flatten(1)).U[:, :6]
        into = torch.linalg.svd(weight.transpose(0, 1).flatten(1)).U[:, :6]
        core = torch.einsum("oihw,or,is->rshw", weight, out, into)
        hosvd = tucker_error(weight, into.T[:, :, None, None], core, out[:, :, None, None])
        # no Tucker-2 of these ranks can beat either unfolding's own tail
        tails = [energy(torch.linalg.svdvals(weight.transpose(0, m).flatten(1))[6:]) for m in (0, 1)]
        assert max(tails) * (1 - 1e-9) <= error <= hosvd * (1 + 1e-9)
        out, into = (torch.linalg.qr(torch.randn(n, 6, dtype=torch.float64)).Q for n in (24, 16))
        core = torch.einsum("oihw,or,is->rshw", weight, out, into)
        chance = tucker_error(weight, into.T[:, :, None, None], core, out[:, :, None, None])
        assert error < 0.25 * chance


CONVS = [
    nn.Conv2d(12, 20, 3, padding=1),
    nn.Conv2d(12, 20, 3, stride=2, padding=1, bias=False),
    nn.Conv2d(12, 20, (3, 5), stride=(1, 2), padding=(0, 2)),
    nn.Conv2d(12, 20, 5, padding=2, groups=2),
    nn.Conv2d(12, 20, 1, stride=2),
]


@pytest.mark.parametrize("conv", CONVS, ids=lambda c: str(describe(c).kernel))
def test_full_rank_is_the_layer(conv: nn.Conv2d) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 12, 11, 9)
    weight = conv.weight.detach().double()
    parts = [tucker2(part, 12 // conv.groups, 20 // conv.groups) for part in weight.chunk(conv.groups)]
    first, core, last = (torch.cat(same).float() for same in zip(*parts, strict=True))
    y = F.conv2d(F.conv2d(x, first, groups=conv.groups), core, None, conv.stride, conv.padding, 1, conv.groups)
    assert torch.allclose(F.conv2d(y, last, conv.bias, groups=conv.groups), conv(x), atol=1e-5)
    if conv.kernel_size == (1, 1):
        layers = low_rank_layers(conv, 1.0, 8)
        assert not isinstance(layers, str)
        chain, pair = sequence(layers), truncated(weight[:, :, 0, 0], 12)
        chain.load_state_dict(
            {f"{i}.weight": w[:, :, None, None].float() for i, w in enumerate(pair)} | {"1.bias": conv.bias}
        )
        assert torch.allclose(chain(x), conv(x), atol=1e-5)


@pytest.mark.parametrize("conv", [c for c in CONVS if c.kernel_size != (1, 1)], ids=lambda c: str(describe(c).kernel))
@pytest.mark.parametrize("form", ["low_rank", "reduce", "spatial", "separable"])
def test_a_layer_of_that_form_is_found_again(conv: nn.Conv2d, form: str) -> None:
    """Strides, paddings, groups and bias included: the answer is the same to 1e-4 of its size."""
    torch.manual_seed(0)
    conv = copy.deepcopy(conv)
    outputs, inputs, height, width = conv.weight.shape
    parts = []
    for _ in range(conv.groups):
        out = outputs // conv.groups
        match form:
            case "low_rank":
                core = torch.einsum("or,rshw->oshw", torch.randn(out, 3), torch.randn(3, 3, height, width))
                part = torch.einsum("oshw,si->oihw", core, torch.randn(3, inputs))
            case "reduce":
                part = torch.einsum("oshw,si->oihw", torch.randn(out, 3, height, width), torch.randn(3, inputs))
            case "spatial":
                part = torch.einsum("orw,rih->oihw", torch.randn(out, 3, width), torch.randn(3, inputs, height))
            case _:
                part = torch.einsum("oi,ihw->oihw", torch.randn(out, inputs), torch.randn(inputs, height, width))
        parts.append(part)
    conv.weight.data = torch.cat(parts)
    net, spec = small(conv, shape=(1, 12, 16, 16))
    match form:
        case "low_rank":
            made, _, _ = low_ranked(net, spec, LowRankStep(layers=("0",), rank=0.5, round_to=1))
        case "reduce":
            made, _, _ = reduced(net, spec, ReduceStep(layers=("0",), share=0.5, round_to=1))
        case "spatial" | "separable":
            made, _, _ = factorized(net, spec, FactorizeStep.model_validate({"layers": ("0",), "form": form}))
    x = torch.randn(2, 12, 16, 16)
    with torch.no_grad():
        assert float((made(x) - net(x)).abs().max()) < 1e-4 * float(net(x).abs().max())
    assert size(made, (1, 12, 16, 16)).parameters < size(net, (1, 12, 16, 16)).parameters


def test_the_colours_get_no_reduction_before_them() -> None:
    net, spec = small(nn.Conv2d(3, 64, 7, 2, 3), shape=(1, 3, 32, 32))
    made, _, _ = low_ranked(net, spec, LowRankStep())
    assert [tuple(layer.weight.shape) for layer in made.get_submodule("0")] == [(32, 3, 7, 7), (64, 32, 1, 1)]  # type: ignore[union-attr]


# --- 1x1 before, factors, stacks ------------------------------------------------------------------------------------


def test_reduction_has_the_least_error() -> None:
    torch.manual_seed(0)
    weight = torch.randn(10, 12, 3, 5, dtype=torch.float64)
    layers = (LayerSpec("conv", 12, 4), LayerSpec("conv", 4, 10, (3, 5)))
    first, second = reduced_weights(weight, layers)
    made = torch.einsum("orhw,ri->oihw", second, first[:, :, 0, 0])
    tail = torch.linalg.svdvals(weight.transpose(0, 1).flatten(1))[4:]
    assert energy(made - weight) == pytest.approx(energy(tail), rel=1e-9)


def test_googlenets_reduction_by_its_numbers() -> None:
    """128 → (1x1 to 32) → 5x5 → 256: 208 896 weights where 5x5 alone has 819 200."""
    net, spec = small(nn.Conv2d(128, 256, 5, padding=2, bias=False), shape=(1, 128, 8, 8))
    assert size(net, spec.input.shape).parameters == 819_200
    made, _, _ = reduced(net, spec, ReduceStep(share=0.25))
    assert size(made, spec.input.shape).parameters == 208_896


def test_column_and_row_have_the_least_error() -> None:
    torch.manual_seed(0)
    weight = torch.randn(10, 12, 3, 5, dtype=torch.float64)
    layers = (LayerSpec("conv", 12, 7, (3, 1)), LayerSpec("conv", 7, 10, (1, 5)))
    column, row = spatial_weights(weight, layers)
    assert column.shape == (7, 12, 3, 1) and row.shape == (10, 7, 1, 5)
    made = torch.einsum("orw,rih->oihw", row[:, :, 0], column[..., 0])
    tail = torch.linalg.svdvals(weight.permute(0, 3, 1, 2).reshape(50, 36))[7:]
    assert energy(made - weight) == pytest.approx(energy(tail), rel=1e-9)


def test_separable_has_the_least_error() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 10, 3, padding=1)
    net, spec = small(conv, shape=(1, 6, 8, 8))
    made, new, _ = factorized(net, spec, FactorizeStep(form="separable"))
    depthwise, point = (made.get_submodule(f"0.{i}").weight for i in range(2))
    assert isinstance(depthwise, Tensor) and isinstance(point, Tensor)
    assert new.replaced["0"][0].groups == 6
    rebuilt = torch.einsum("oi,ihw->oihw", point[:, :, 0, 0], depthwise[:, 0])
    tails = sum(energy(torch.linalg.svdvals(conv.weight[:, i].flatten(1).double())[1:]) for i in range(6))
    assert energy(rebuilt.detach() - conv.weight.detach()) == pytest.approx(tails, rel=1e-5)


@pytest.mark.parametrize(("kernel", "was", "now"), [(5, 25, 18), (7, 49, 27)])
def test_stacks_by_their_numbers(kernel: int, was: int, now: int) -> None:
    """27C² weights for 49C², over the same field."""
    torch.manual_seed(0)
    net, spec = small(nn.Conv2d(8, 8, kernel, padding=kernel // 2, bias=False), shape=(1, 8, 15, 15))
    made, new, _ = factorized(net, spec, FactorizeStep(form="stack"))
    convs = [layer for layer in new.replaced["0"] if layer.kind == "conv"]
    assert sum(c.inputs * c.outputs * 9 for c in convs) == now * 64
    assert net.get_submodule("0").get_parameter("weight").numel() == was * 64
    x = torch.rand(1, 8, 15, 15, requires_grad=True)
    made(x)[0, :, 7, 7].sum().backward()
    assert x.grad is not None
    seen = x.grad.abs().sum((0, 1)).nonzero()
    assert seen.min() == 7 - kernel // 2 and seen.max() == 7 + kernel // 2


def compose(first: Tensor, second: Tensor) -> Tensor:
    """The one kernel that does what two do, one after the other."""
    return F.conv_transpose2d(second, first)


def test_a_stacks_start_is_better_than_the_centre_of_the_kernel() -> None:
    torch.manual_seed(0)
    weight = F.avg_pool2d(torch.randn(10, 8, 7, 7, dtype=torch.float64), 3, 1)  # smooth, as trained kernels are
    first, second = split(weight, 8)
    assert bool((first >= 0).all()) and first.shape == (8, 8, 3, 3) and second.shape == (10, 8, 3, 3)
    error = energy(compose(first, second) - weight)
    centre = energy(weight) - energy(weight[:, :, 1:-1, 1:-1])
    assert error < 0.7 * centre


def test_a_stack_answers_as_its_composition_where_nothing_is_negative() -> None:
    torch.manual_seed(0)
    net, spec = small(nn.Conv2d(8, 8, 5), shape=(1, 8, 12, 12))
    made, _, _ = factorized(net, spec, FactorizeStep(form="stack"))
    first, second = (made.get_submodule(f"0.{i}").get_parameter("weight") for i in (0, 2))
    x = torch.rand(2, 8, 12, 12)
    bias = net.get_submodule("0").get_parameter("bias")
    assert torch.allclose(made(x), F.conv2d(x, compose(first, second), bias), atol=1e-5)


def test_a_stack_keeps_the_size_of_strided_and_unpadded_maps() -> None:
    for stride, padding in ((1, 0), (2, 2), (2, 1), (1, 3)):
        conv = nn.Conv2d(8, 8, 5, stride, padding)
        net, spec = small(conv, shape=(1, 8, 17, 14))
        try:
            made, _, _ = factorized(net, spec, FactorizeStep(form="stack"))
        except ModelError as error:  # at stride 2 the first 3x3 sees four times the places
            assert stride == 2 and "multiply-accumulates where it has" in str(error)
        else:
            assert stride == 1 and made(torch.rand(1, 8, 17, 14)).shape == net(torch.rand(1, 8, 17, 14)).shape


# --- bottlenecks ----------------------------------------------------------------------------------------------------


def test_the_overviews_bottleneck() -> None:
    """69 632 weights for two 3x3 of 256 channels with 1 179 648: 16.94 times fewer."""
    pair = [nn.Conv2d(256, 256, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(256, 256, 3, padding=1, bias=False)]
    net, spec = small(*pair, shape=(1, 256, 4, 4))
    made, _, line = bottlenecked(net, spec, BottleneckStep(share=0.25))
    assert size(net, spec.input.shape).parameters == 1_179_648
    assert size(made, spec.input.shape).parameters == 69_632 and "1 pairs" in line
    assert round(1_179_648 / 69_632, 2) == 16.94


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_pair_that_is_a_bottleneck_already_is_found_again(norm: bool, stride: int) -> None:
    """Only some channels and the centre taps of the second count: to 1e-4 the answer is the same."""
    torch.manual_seed(0)
    first = nn.Conv2d(16, 16, 3, stride, 1, bias=not norm)
    second = nn.Conv2d(16, 16, 3, 1, 1)
    used, read = torch.arange(3, 16, 4), torch.arange(0, 16, 4)
    first.weight.data[:, [i for i in range(16) if i not in read]] = 0
    centre = second.weight.data[:, :, 1, 1].clone()
    second.weight.data.zero_()
    second.weight.data[:, used, 1, 1] = centre[:, used]
    between = [nn.BatchNorm2d(16, eps=1e-3)] if norm else []
    for layer in between:
        for tensor in (layer.running_mean, layer.running_var, layer.weight, layer.bias):
            assert tensor is not None
            nn.init.uniform_(tensor, 0.5, 1.5)
    net, spec = small(first, *between, nn.ReLU(), second, shape=(1, 16, 9, 9))
    made, _, _ = bottlenecked(net, spec, BottleneckStep(share=0.25))
    x = torch.rand(2, 16, 9, 9)
    assert made(x).shape == net(x).shape and torch.allclose(made(x), net(x), atol=1e-4)


def test_pairs_of_a_residual_network_are_its_blocks() -> None:
    net, spec = network("resnet18", 64)
    pairs = find_pairs(net, spec)
    assert len(pairs) == 8
    assert all(
        p.second == p.first.replace("conv1", "conv2") and p.norm == p.first.replace("conv1", "bn1")
        for p in pairs.values()
    )
    made, new, _ = bottlenecked(net, spec, BottleneckStep(layers=("layer3.*",)))
    assert set(new.replaced) == {f"layer3.{b}.{n}" for b in range(2) for n in ("conv1", "bn1", "conv2")}
    assert str(made.get_submodule("layer3.0.downsample")) == str(net.get_submodule("layer3.0.downsample"))


def test_pairs_of_vgg_do_not_overlap() -> None:
    def three(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]

    net, spec = small(
        *three(3, 16), *three(16, 16), *three(16, 16), nn.MaxPool2d(2), *three(16, 16), shape=(1, 3, 8, 8)
    )
    made, new, _ = bottlenecked(net, spec, BottleneckStep())
    assert set(new.replaced) == {"2", "4"}  # not at the colours, not across the pool
    with pytest.raises(ModelError, match=r"'0'.*has 3 inputs"):
        bottlenecked(net, spec, BottleneckStep(layers=("0",)))
    with pytest.raises(ModelError, match=r"'7'.*no 3x3 with ReLU"):
        bottlenecked(net, spec, BottleneckStep(layers=("7",)))
    assert made(torch.rand(1, 3, 8, 8)).shape == (1, 16, 4, 4)


# --- classes, global average pooling --------------------------------------------------------------------------------


@pytest.mark.parametrize(("arch", "side"), [("lenet5", None), ("lenet5_original", None), ("resnet18", 64)])
def test_logits_of_the_kept_classes_stay(arch: str, side: int | None) -> None:
    net, spec = network(arch, side)
    made, new, line = with_classes(net, spec, ClassesStep(keep=("7", "1", "4")))
    x = torch.rand(2, *spec.input.shape[1:])
    # one matrix product of another size: the last bits may differ
    assert torch.allclose(made(x), net(x)[:, [7, 1, 4]], rtol=1e-5, atol=1e-5)
    assert new.classes == ("7", "1", "4") and new.outputs[0].shape == (1, 3) and "3 of 10 classes" in line


@pytest.mark.parametrize("first", [SlimStep(gap=True), SlimStep(low_rank=LowRankStep(layers=("classifier.*",)))])
def test_classes_after_another_step(first: SlimStep) -> None:
    net, spec = network("lenet5")
    net, spec, _ = slim.apply(net, spec, first, net)
    made, new, _ = with_classes(net, replace(spec, widths=read_widths(net)), ClassesStep(keep=("2", "0")))
    x = torch.rand(2, 1, 32, 32)
    assert torch.allclose(made(x), net(x)[:, [2, 0]], rtol=1e-5, atol=1e-5)
    assert zoo.build(new)(x).shape == (2, 2)


def test_a_detector_keeps_its_boxes_and_the_scores_of_its_classes() -> None:
    net, spec = network("roadnet", 64)
    made, new, line = with_classes(net, spec, ClassesStep(keep=("9", "2")))
    x = torch.randn(1, 3, 64, 64) * 50
    assert torch.equal(made(x)[0], net(x)[0])
    assert torch.allclose(made(x)[1], net(x)[1][..., [9, 2]], rtol=1e-5, atol=1e-6)
    assert [t.shape for t in new.outputs] == [(1, 84, 4), (1, 84, 2)] and "prune next" in line


def test_another_input() -> None:
    net, spec = network("roadnet", 64)
    made, new, line = with_classes(net, spec, ClassesStep(keep=DIGITS, height=96))
    assert [t.shape for t in new.outputs] == [(1, 126, 4), (1, 126, 10)] and "64x96 and was 64x64" in line
    assert made(torch.zeros(new.input.shape))[0].shape == (1, 126, 4)
    with pytest.raises(ModelError, match="multiples of 32"):
        with_classes(net, spec, ClassesStep(keep=DIGITS, height=70))


@dataclass(frozen=True)
class Labels:
    """Pictures that each show one thing, grey as their label."""

    classes = DIGITS
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> Sample:
        truth = Truth.of(np.array([[0, 0, 32, 32]], np.float32), np.array([self.labels[i]]))
        return Sample(str(i), np.full((32, 32, 3), self.labels[i], np.uint8), truth)


def test_data_of_more_classes_teaches_the_kept_ones() -> None:
    net, spec = network("lenet5")
    _, new, _ = with_classes(net, spec, ClassesStep(keep=("7", "1")))
    data = Batchable.of(new, Narrowed(Labels((1, 2, 7, 7, 3, 1)), new.classes), 6, "pictures")
    assert data.labels.tolist() == [1, 0, 0, 1]
    assert data.pictures[:, 0, 0, 0].tolist() == [1, 7, 7, 1]


def test_boxes_to_ignore_stay_when_their_class_goes() -> None:
    class Boxes(Labels):
        def __getitem__(self, i: int) -> Sample:
            labels, ignore = np.array([3, 5, -1, 5]), np.array([False, False, True, True])
            boxes = np.arange(16, dtype=np.float32).reshape(4, 4)
            return Sample("", np.zeros((8, 8, 3), np.uint8), Truth.of(boxes, labels, ignore=ignore))

    truth = Narrowed(Boxes((0,)), ("4", "3"))[0].truth
    assert truth.label.tolist() == [1, 0, 0] and truth.ignore.tolist() == [False, True, True]
    assert truth.xyxy[:, 0].tolist() == [0, 8, 12]


def test_gap_takes_the_fc_of_a_network_whose_fc_were_slimmed_before() -> None:
    net, spec = network("lenet5")
    thin, described, _ = low_ranked(net, spec, LowRankStep(layers=("classifier.0",), rank=0.6, round_to=1))
    made, new, line = with_gap(thin, described)
    assert "4 fully connected" in line and set(new.replaced) == {"avgpool", "classifier"}
    assert size(made, spec.input.shape).parameters == 2742


@pytest.mark.parametrize("thin", [False, True])
def test_gap_starts_as_the_fc_without_their_relus(thin: bool) -> None:
    """On maps that look the same everywhere, each ReLU replaced by a half; two layers by SVD have none between."""
    net, spec = network("lenet5")
    if thin:
        net, spec, _ = low_ranked(net, spec, LowRankStep(layers=("classifier.*",), rank=0.5))
    made, _, _ = with_gap(net, spec)
    maps = torch.rand(2, 16, 1, 1).expand(2, 16, 5, 5)
    wanted = maps.flatten(1)
    for layer in net.get_submodule("classifier").children():
        wanted = wanted / 2 if isinstance(layer, nn.ReLU) else layer(wanted)
    assert torch.allclose(made.get_submodule("avgpool")(maps).flatten(1), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_vgg16_loses_most_of_its_parameters_with_its_fc() -> None:
    spec = zoo.spec_for(ModelSection(arch="vgg16", classes=tuple(map(str, range(1000))), height=32, width=32))
    net = zoo.build(spec)
    made, _, _ = with_gap(net, spec)
    # by hand: 14 714 688 in the convolutions, 512·1000 + 1000 in the 1x1
    assert size(net, spec.input.shape).parameters == 138_357_544
    assert size(made, spec.input.shape).parameters == 15_227_688 < 0.15 * 138_357_544
