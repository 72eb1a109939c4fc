"""Slimming's other steps: global average pooling, 2:4 sparsity, fine-tuning that keeps it, and steps in a row."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from edgecnn import zoo
from edgecnn.bundle import ModelSpec
from edgecnn.errors import ModelError
from edgecnn.export import write
from edgecnn.quantize.stage import quantize
from edgecnn.recipe import DataSection, FinetuneStep, ModelSection, QuantizeSection, SlimStep
from edgecnn.slim import apply
from edgecnn.slim.finetune import finetuned, mean_statistics
from edgecnn.slim.gap import with_gap
from edgecnn.slim.sparsify import eligible, is_sparse, masks, sparsified, two_of_four
from edgecnn.zoo.count import size


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> DataSection:
    folder, rng = tmp_path_factory.mktemp("classes"), np.random.default_rng(0)
    for name in "ab":
        (folder / name).mkdir()
        for i in range(6):
            cv2.imwrite(str(folder / name / f"{i}.png"), rng.integers(0, 256, (32, 32, 3)).astype(np.uint8))
    return DataSection(kind="classes", path=folder, pictures=12)


@pytest.fixture(scope="module")
def lenet() -> tuple[nn.Module, ModelSpec]:
    torch.manual_seed(0)
    spec = zoo.spec_for(ModelSection(arch="lenet5", classes=("a", "b")))
    return zoo.build(spec), spec


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


@pytest.mark.parametrize(
    ("weights", "stay"),
    [
        ([1.0, -4.0, 3.0, 2.0], [0, 1, 1, 0]),
        ([0.0, 0.0, 0.0, 5.0], [1, 0, 0, 1]),  # of equals, the first stay
        ([-1.0, -1.0, -1.0, -1.0], [1, 1, 0, 0]),
        ([0.1, 0.2, 0.3, 0.4, 9.0, 1.0, 8.0, 7.0], [0, 0, 1, 1, 1, 0, 1, 0]),
    ],
)
def test_two_of_four_by_hand(weights: list[float], stay: list[int]) -> None:
    row = torch.tensor([weights])
    assert two_of_four(row).tolist() == [stay]
    # the same along the input channels of a kernel, its other places of their own
    kernel = torch.stack([row, row.flip(1)], -1)[..., None]  # [1, C, 2, 1]
    assert two_of_four(kernel)[0, :, 0, 0].tolist() == stay
    assert is_sparse(kernel * two_of_four(kernel))


def test_sparsify_takes_layers_in_fours_and_leaves_the_rest() -> None:
    torch.manual_seed(0)
    spec = zoo.spec_for(ModelSection(arch="roadnet", height=64, width=96))
    net = zoo.build(spec)
    slim, described, line = sparsified(net, spec)
    assert described == spec and "not verified" in line
    for name, layer in slim.named_modules():
        if isinstance(layer, nn.Conv2d):
            was = net.get_parameter(f"{name}.weight")
            if was.shape[1] % 4:  # the stem and depthwise layers
                assert torch.equal(layer.weight, was)
            else:
                assert is_sparse(layer.weight) and float((layer.weight == 0).float().mean()) == 0.5
                kept = layer.weight != 0
                assert torch.equal(layer.weight[kept], was[kept])
    zeros = sum(int((slim.get_parameter(name) == 0).sum()) for name in eligible(net))
    total = sum(layer.weight.numel() for layer in net.modules() if isinstance(layer, nn.Conv2d))
    assert f"{len(eligible(net))} layers" in line and f"{zeros / total:.1%}" in line


def test_sparsify_needs_channels_in_fours() -> None:
    spec = zoo.spec_for(ModelSection(arch="lenet5"))
    with pytest.raises(ModelError, match="multiple of 4"):
        sparsified(nn.Sequential(nn.Conv2d(1, 6, 5), nn.Conv2d(6, 3, 5)), spec)


@pytest.mark.parametrize("distill", ["none", "logits", "features"])
def test_fine_tuning_keeps_what_is_sparse(
    lenet: tuple[nn.Module, ModelSpec], pictures: DataSection, distill: str
) -> None:
    net, spec = lenet
    slim, _, _ = sparsified(net, spec)
    before = masks(slim)
    assert set(before) == {"classifier.0.weight", "classifier.2.weight", "classifier.4.weight"}
    step = FinetuneStep.model_validate({"data": pictures, "epochs": 2, "batch": 6, "lr": 0.05, "distill": distill})
    tuned, _, line = finetuned(slim, spec, step, net)
    assert line.startswith("finetune: 2 epochs") and ("taught" in line) == (distill != "none")
    for name, mask in before.items():
        weight = tuned.get_parameter(name)
        assert torch.equal((weight != 0).float(), mask)  # no other, and none less
        assert not torch.equal(weight, slim.get_parameter(name))
    assert not masks(net) and not tuned._forward_hooks


def test_what_was_dense_stays_dense(lenet: tuple[nn.Module, ModelSpec], pictures: DataSection) -> None:
    net, spec = lenet
    tuned, _, _ = finetuned(net, spec, FinetuneStep(data=pictures, epochs=1, batch=6), net)
    assert not masks(tuned)


def test_2_4_survives_folding_and_rounding(tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = zoo.spec_for(ModelSection(arch="roadnet", height=64, width=64))
    net, _, _ = sparsified(zoo.build(spec), spec)
    mean_statistics(net, iter([torch.randn(spec.input.shape) * 60 for _ in range(2)]))  # else folding changes nothing
    write(net, spec, tmp_path / "net.onnx", 17)
    model = onnx.load(tmp_path / "net.onnx")
    wanted = len(eligible(net))
    kernels = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if len(t.dims) == 4}
    assert sum(sparse(kernel) for kernel in kernels.values()) == wanted

    rng = np.random.default_rng(0)
    feeds = [rng.integers(-128, 128, spec.input.shape).astype(np.float32) for _ in range(2)]
    graph = quantize(model, feeds, QuantizeSection()).tensorrt.graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    levels = [
        np.rint(constants[node.input[0]] / constants[node.input[1]].reshape(-1, 1, 1, 1)).astype(np.int8)
        for node in graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] in constants
    ]
    assert len(levels) > wanted / 2 and sum(map(sparse, levels)) >= len(levels) - (len(kernels) - wanted)


def sparse(kernel: np.ndarray) -> bool:
    """Of every four along the input channels, two are zero: written anew, without the package's own helper."""
    if kernel.shape[1] % 4:
        return False
    groups = np.split(kernel, kernel.shape[1] // 4, 1)
    return all(((group == 0).sum(1) >= 2).all() for group in groups)


def test_statistics_are_the_mean_over_the_batches() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm2d(3)).eval()
    batches = [torch.randn(4, 3, 5, 5) + i for i in range(3)]
    mean_statistics(net, iter(batches))
    norm = net[0]
    assert isinstance(norm, nn.BatchNorm2d) and not norm.training and norm.momentum == 0.1
    means = torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0)
    assert norm.running_mean is not None and torch.allclose(norm.running_mean, means, atol=1e-6)


def test_steps_in_a_row(lenet: tuple[nn.Module, ModelSpec], pictures: DataSection) -> None:
    net, spec = lenet
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    slim, described = net, spec
    for step in ({"gap": True}, {"sparsify": "2:4"}, {"finetune": {"data": pictures, "epochs": 1, "batch": 6}}):
        slim, described, line = apply(slim, described, SlimStep.model_validate(step), net, spec)
        assert line.startswith(next(iter(step)))
    assert masks(slim) and set(described.replaced) == {"avgpool", "classifier"}
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
