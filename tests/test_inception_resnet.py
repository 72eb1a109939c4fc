"""GoogLeNet, Inception v2 and v3, ResNet: published sizes, torchvision's names, auxiliary heads, ONNX, pruning."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from thin_nets import spec
from torch import Tensor, nn

from edgecnn import export, zoo
from edgecnn.slim.channels import families
from edgecnn.zoo import googlenet, inception, resnet
from edgecnn.zoo.models import IMAGENET_MEAN, IMAGENET_STD
from edgecnn.zoo.widths import apply_widths, read_widths

KEYS = Path(__file__).parent / "fixtures" / "keys"
OURS = ("googlenet", "inception_v3", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
LEAST = {"inception_v3": 75}  # px of the smallest input that v3 takes


def meta(arch: str, classes: int = 1000, *, aux: bool = False) -> nn.Module:
    with torch.device("meta"):
        return zoo.build(spec(arch, classes), aux=aux)


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("arch", OURS)
def test_names_and_shapes_are_torchvisions(arch: str) -> None:
    """The listings came from the models of torchvision 0.29.2 themselves, auxiliary heads and all."""
    wanted = [(name, tuple(shape)) for name, shape in json.loads((KEYS / f"{arch}.json").read_text("utf-8")).items()]
    assert [(name, tuple(tensor.shape)) for name, tensor in meta(arch, aux=True).state_dict().items()] == wanted


@pytest.mark.parametrize(
    ("arch", "aux", "count"),
    [
        ("googlenet", False, 6_624_904),
        ("googlenet", True, 13_004_888),
        ("googlenet_original", False, 6_998_552),
        ("googlenet_original", True, 13_378_280),  # Caffe's public model
        ("inception_v3", False, 23_834_568),
        ("inception_v3", True, 27_161_264),
    ],
)
def test_auxiliary_heads_are_counted_only_where_they_are(arch: str, aux: bool, count: int) -> None:
    assert parameters(meta(arch, aux=aux)) == count


# Figure 5 of arXiv:1502.03167: outputs; 1x1; reduction, 3x3; reduction, double 3x3; projection of the pooled branch
FIGURE_5 = (
    (256, 64, 64, 64, 64, 96, 32),
    (320, 64, 64, 96, 64, 96, 64),
    (576, 0, 128, 160, 64, 96, 0),
    (576, 224, 64, 96, 96, 128, 128),
    (576, 192, 96, 128, 96, 128, 128),
    (576, 160, 128, 160, 128, 160, 96),
    (576, 96, 128, 192, 160, 192, 96),
    (1024, 0, 128, 192, 192, 256, 0),
    (1024, 352, 192, 320, 160, 224, 128),
    (1024, 352, 192, 320, 192, 224, 128),
)


def test_inception_v2_has_the_size_of_its_table() -> None:
    kernels, channels = 3 * 64 * 49 + 64 * 64 + 64 * 192 * 9, 64 + 64 + 192  # the stem; channels under normalisation
    inputs = 192
    for outputs, one, reduce, three, reduce2, double, pooled in FIGURE_5:
        kernels += inputs * (one + reduce + reduce2 + pooled)
        kernels += 9 * (reduce * three + reduce2 * double + double * double)
        channels += one + reduce + three + reduce2 + 2 * double + pooled
        assert outputs == one + three + double + (pooled or inputs)
        inputs = outputs
    assert kernels + 2 * channels + 1000 * 1024 + 1000 == 11_194_984
    assert parameters(meta("inception_v2")) == 11_194_984


def shapes(arch: str) -> dict[str, tuple[int, ...]]:
    """Shape (C, H, W) of what every module of a network gives for one picture of its own size."""
    net, seen = meta(arch), {}

    def hook(name: str, output: Tensor) -> None:
        seen[name] = tuple(output.shape[1:])

    for name, layer in net.named_modules():
        layer.register_forward_hook(lambda _l, _i, output, name=name: hook(name, output))
    net(torch.empty(spec(arch).input.shape, device="meta"))
    return seen


@pytest.mark.parametrize(
    ("arch", "wanted"),
    [
        (
            "googlenet_original",  # table 1
            {
                "conv1": (64, 112, 112),
                "pool1": (64, 56, 56),
                "conv3": (192, 56, 56),
                "inception3a": (256, 28, 28),
                "inception3b": (480, 28, 28),
                "inception4a": (512, 14, 14),
                "inception4d": (528, 14, 14),
                "inception4e": (832, 14, 14),
                "inception5b": (1024, 7, 7),
            },
        ),
        (
            "inception_v2",  # figure 5
            {
                "conv1": (64, 112, 112),
                "pool2": (192, 28, 28),
                "inception3b": (320, 28, 28),
                "inception3c": (576, 14, 14),
                "inception4e": (1024, 7, 7),
            },
        ),
        (
            "inception_v3",  # table 1 of arXiv:1512.00567
            {
                "Conv2d_1a_3x3": (32, 149, 149),
                "Conv2d_2b_3x3": (64, 147, 147),
                "maxpool2": (192, 35, 35),
                "Mixed_5d": (288, 35, 35),
                "Mixed_6e": (768, 17, 17),
                "Mixed_7a": (1280, 8, 8),
                "Mixed_7c": (2048, 8, 8),
            },
        ),
        ("resnet50", {"maxpool": (64, 56, 56), "layer1": (256, 56, 56), "layer4": (2048, 7, 7)}),  # table 1
    ],
)
def test_maps_have_the_papers_sides(arch: str, wanted: dict[str, tuple[int, ...]]) -> None:
    seen = shapes(arch)
    assert {name: seen[name] for name in wanted} == wanted


def kernel_weights(net: nn.Module) -> int:
    return sum(layer.weight.numel() for layer in net.modules() if isinstance(layer, nn.Conv2d))


def test_what_a_bottleneck_and_a_reduction_save() -> None:
    thin, thick = kernel_weights(resnet.Bottleneck(256, 64, 1)), kernel_weights(resnet.BasicBlock(256, 256, 1))
    assert (thin, thick, round(thick / thin, 2)) == (69_632, 1_179_648, 16.94)
    reduced = googlenet.Inception(128, (1, 1, 1, 32, 256, 1), 5, norm=False).branch3
    assert (kernel_weights(reduced), kernel_weights(googlenet.Conv(128, 256, 5))) == (208_896, 819_200)


def test_the_stride_is_in_the_3x3() -> None:
    first = meta("resnet50").get_submodule("layer2.0")
    assert [first.get_submodule(f"conv{i}").stride for i in (1, 2, 3)] == [(1, 1), (2, 2), (1, 1)]


@pytest.mark.parametrize("arch", ["googlenet", "inception_v3"])
def test_public_weights_see_the_pictures_that_they_were_trained_on(arch: str) -> None:
    """torchvision normalises by ImageNet's figures; its network turns that back into -1 to 1 (`transform_input`)."""
    s, grey = spec(arch), np.arange(256.0)
    for channel, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
        assert (mean * 255, std * 255) == pytest.approx((IMAGENET_MEAN[channel], IMAGENET_STD[channel]))
        theirs = (grey / 255 - mean) / std * (std / 0.5) + (mean - 0.5) / 0.5
        assert np.allclose((grey - s.mean[channel]) / s.std[channel], theirs)


def small(arch: str, *, aux: bool = False, classes: int = 10) -> nn.Module:
    """Every layer in its place, with an eighth of the channels."""
    with torch.device("meta"):
        full = zoo.build(spec(arch, classes), aux=aux)
        widths = {}
        for name, (inputs, outputs) in read_widths(full).items():
            last = outputs == classes and isinstance(full.get_submodule(name), nn.Linear)
            widths[name] = (3 if inputs == 3 else inputs // 8, outputs if last else outputs // 8)
        apply_widths(full, widths)
    net = full.to_empty(device="cpu")
    torch.manual_seed(0)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
    googlenet.initialise(net)
    return net


EACH = ("googlenet", "googlenet_original", "inception_v2", "inception_v3", "resnet18", "resnet50")


@pytest.mark.parametrize("arch", EACH)
def test_every_weight_learns(arch: str) -> None:
    net, side = small(arch, aux=True).train(), LEAST.get(arch, 64)
    outputs = net(torch.randn(4, 3, side, side))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    heads = {"googlenet": 3, "googlenet_original": 3, "inception_v3": 2}.get(arch, 1)
    assert [tuple(each.shape) for each in outputs] == [(4, 10)] * heads
    sum(F.cross_entropy(each, torch.arange(4)) for each in outputs).backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not silent
    assert isinstance(net.eval()(torch.randn(1, 3, side, side)), Tensor)  # the logits alone


def test_without_auxiliary_heads_training_mode_gives_logits_alone() -> None:
    for arch in ("googlenet", "inception_v3"):
        assert small(arch).train()(torch.randn(2, 3, 75, 75)).shape == (2, 10)


@pytest.mark.parametrize("arch", ["googlenet_original", "inception_v2"])
def test_a_new_network_neither_fades_nor_explodes(arch: str) -> None:
    """What comes out of the last module has the size of what came in, with normalisation or without."""
    torch.manual_seed(0)
    net = zoo.build(spec(arch, 10)).train()
    seen: list[float] = []
    last = "inception5b"
    net.get_submodule(last).register_forward_hook(lambda _l, _i, output: seen.append(float(output.std())))
    with torch.no_grad():
        net(torch.randn(2, 3, 64, 64))
    assert 0.1 < seen[0] < 10


@pytest.mark.parametrize("arch", EACH)
def test_onnx_says_the_same_in_plain_layers(arch: str, tmp_path: Path) -> None:
    net, side, path = small(arch), LEAST.get(arch, 64), tmp_path / "net.onnx"
    s = spec(arch, height=side, width=side)
    export.write(net, s, path, 17)
    x = torch.randn(s.input.shape, generator=torch.Generator().manual_seed(1))
    (answer,) = ort.InferenceSession(path).run(None, {s.input.name: x.numpy()})
    wanted = net(x).detach().numpy()
    assert np.abs(answer - wanted).max() < 1e-4 * np.ptp(wanted)
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    plain = {"Conv", "Relu", "MaxPool", "Concat", "Add", "GlobalAveragePool", "AveragePool", "Flatten", "Gemm"}
    assert kinds - plain <= {"Identity", "Constant"} | ({"LRN"} if arch == "googlenet_original" else set())


@pytest.mark.parametrize("arch", EACH)
def test_channels_go_through_branches_and_shortcuts(arch: str) -> None:
    net, side = small(arch), LEAST.get(arch, 64)
    importance = tp.importance.MagnitudeImportance()
    known = families(net, (1, 3, side, side), importance)
    layers = sum(isinstance(layer, nn.Conv2d) for layer in net.modules())
    # without shortcuts, every convolution is its own; a stage of ResNet shares what its sums join
    joined = {"resnet18": 12, "resnet50": 37}
    assert len(known) == joined.get(arch, layers)
    before = parameters(net)
    tp.pruner.BasePruner(
        net, torch.zeros(1, 3, side, side), importance, pruning_ratio=0.5, ignored_layers=[net.fc]
    ).step()
    assert parameters(net) < 0.5 * before
    assert net(torch.zeros(1, 3, side, side)).shape == (1, 10)


def test_inception_v3s_modules_are_rows() -> None:
    """7x7 as 1x7 and 7x1 costs 2/7 of the weights."""
    mixed = inception.Mixed(768, inception.v3_17("Mixed_6b", 128))
    pair = [mixed.get_submodule(f"branch7x7dbl_{i}") for i in (2, 3)]
    assert sum(kernel_weights(each) for each in pair) * 7 == 2 * 7 * 7 * 128 * 128
