"""AlexNet, ZFNet, VGG and LeNet-5 of 1998: published sizes, torchvision's names, gradients, ONNX."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from thin_nets import meta, spec, thin
from torch import Tensor, nn

from edgecnn import export, zoo
from edgecnn.slim.gap import with_gap
from edgecnn.zoo import lenet
from edgecnn.zoo.parts import GridPool, Lrn

KEYS = Path(__file__).parent / "fixtures" / "keys"


@pytest.mark.parametrize(
    ("arch", "parameters"),
    [
        ("alexnet", 61_100_840),
        ("alexnet_original", 60_965_224),
        # convolutions, then the same fully connected layers as AlexNet's
        ("zfnet", 14_208 + 614_656 + 885_120 + 1_327_488 + 884_992 + 37_752_832 + 16_781_312 + 4_097_000),
        ("vgg11", 132_863_336),
        ("vgg13", 133_047_848),
        ("vgg16", 138_357_544),
        ("vgg19", 143_667_240),
        ("vgg16c", 138_357_544 - 8 * (256**2 + 2 * 512**2)),  # D less 8 of 9 weights in three layers; paper: 134 M
        ("vgg11_bn", 132_863_336 + 2 * 2752),  # scale and shift of each of the convolutions' channels
        ("vgg13_bn", 133_047_848 + 2 * 2944),
        ("vgg16_bn", 138_357_544 + 2 * 4224),
        ("vgg19_bn", 143_667_240 + 2 * 5504),
    ],
)
def test_parameters(arch: str, parameters: int) -> None:
    assert sum(p.numel() for p in meta(arch).parameters()) == parameters


@pytest.mark.parametrize(
    "path", sorted(KEYS.glob("alexnet.json")) + sorted(KEYS.glob("vgg*.json")), ids=lambda p: p.stem
)
def test_names_and_shapes_are_torchvisions(path: Path) -> None:
    """The listings came from the models of torchvision 0.29.2 themselves."""
    wanted = [(name, tuple(shape)) for name, shape in json.loads(path.read_text("utf-8")).items()]
    assert [(name, tuple(tensor.shape)) for name, tensor in meta(path.stem).state_dict().items()] == wanted


def test_all_listings_are_there() -> None:
    names = {"alexnet", *(f"vgg{depth}{bn}" for depth in (11, 13, 16, 19) for bn in ("", "_bn"))}
    assert names <= {path.stem for path in KEYS.glob("*.json")}


@pytest.mark.parametrize(
    ("arch", "sides"),
    [
        ("alexnet", [55, 27, 27, 13, 13, 13, 13, 6]),
        ("alexnet_original", [55, 27, 27, 13, 13, 13, 13, 6]),
        ("zfnet", [110, 55, 26, 13, 13, 13, 13, 6]),  # figure 3
        ("vgg16c", [224, 224, 112, 112, 112, 56, 56, 56, 56, 28, 28, 28, 28, 14, 14, 14, 14, 7]),
    ],
)
def test_maps_have_the_papers_sides(arch: str, sides: list[int]) -> None:
    x, seen = torch.empty(spec(arch).input.shape, device="meta"), []
    for layer in meta(arch).get_submodule("features").children():
        x = layer(x)
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            seen.append(x.shape[2])
    assert seen == sides


SMALL = {"alexnet": 95, "alexnet_original": 99, "zfnet": 95, "vgg11": 64, "vgg16c": 64, "vgg13_bn": 64}


@pytest.mark.parametrize("arch", SMALL)
def test_every_weight_gets_a_gradient(arch: str) -> None:
    net, s = thin(arch, height=SMALL[arch], width=SMALL[arch])
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, 0, (2 / layer.weight[0].numel()) ** 0.5)  # so that no thin layer dies
    logits = net.train()(torch.randn(4, *s.input.shape[1:]))
    assert logits.shape == (4, 10)
    F.cross_entropy(logits, torch.arange(4)).backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not silent


def onnx_answer(net: nn.Module, x: Tensor, path: Path) -> tuple[np.ndarray, set[str]]:
    s = spec("alexnet")
    export.write(net, replace(s, input=replace(s.input, shape=tuple(x.shape))), path, 17)
    (answer,) = ort.InferenceSession(path).run(None, {s.input.name: x.numpy()})
    return answer, {node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.parametrize("arch", [*SMALL, "lenet5_original"])
def test_onnx_says_the_same(arch: str, tmp_path: Path) -> None:
    if arch in SMALL:
        net, s = thin(arch, height=SMALL[arch], width=SMALL[arch])
    else:
        s = spec(arch)
        net = zoo.build(s)
    x = torch.randn(s.input.shape, generator=torch.Generator().manual_seed(1))
    answer, kinds = onnx_answer(net, x, tmp_path / "net.onnx")
    wanted = net(x).detach().numpy()
    assert np.abs(answer - wanted).max() < 1e-4 * np.ptp(wanted)
    assert ("LRN" in kinds) == (arch in ("alexnet_original", "zfnet"))
    assert "Conv" in kinds and not kinds & {"Pow", "ScatterND", "Loop", "If"}


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (6, 6), (7, 12), (12, 18), (13, 5)])
def test_grid_pool_exports_from_any_size(shape: tuple[int, int], tmp_path: Path) -> None:
    x = torch.randn(1, 4, *shape, generator=torch.Generator().manual_seed(1))
    answer, _ = onnx_answer(nn.Sequential(nn.ReLU(), GridPool(6), nn.Flatten()), x, tmp_path / "pool.onnx")
    assert np.allclose(answer, F.adaptive_avg_pool2d(x.relu(), 6).flatten(1).numpy(), atol=1e-6)


def test_response_normalisation_is_the_papers(tmp_path: Path) -> None:
    x = 30 * torch.randn(1, 7, 2, 3, generator=torch.Generator().manual_seed(1))
    wanted = torch.empty_like(x)
    for i in range(7):  # equation of section 3.3: k = 2, n = 5, alpha = 1e-4, beta = 0.75
        near = x[:, max(0, i - 2) : min(6, i + 2) + 1]
        wanted[:, i] = x[:, i] / (2 + 1e-4 * near.square().sum(1)) ** 0.75
    assert torch.allclose(Lrn()(x), wanted, rtol=1e-5)
    answer, kinds = onnx_answer(Lrn(), x, tmp_path / "lrn.onnx")
    assert np.allclose(answer, wanted.numpy(), rtol=1e-5) and kinds == {"LRN"}


@pytest.mark.parametrize(("arch", "least"), [("vgg16", 0.85), ("alexnet", 0.85), ("zfnet", 0.85), ("vgg19_bn", 0.85)])
def test_gap_takes_the_fully_connected_layers_away(arch: str, least: float) -> None:
    net = meta(arch)
    with torch.device("meta"):
        slim, described, _ = with_gap(net, spec(arch, 1000))
        before, after = (sum(p.numel() for p in each.parameters()) for each in (net, slim))
        assert 1 - after / before >= least
        assert slim(torch.empty(described.input.shape)).shape == (1, 1000)


# LeNet-5 of 1998, section II.B. (parameters, connections, output); RBF units have 84 inputs each and nothing to train.
LENET = {
    "c1": (156, 122_304, (6, 28, 28)),
    "s2": (12, 5_880, (6, 14, 14)),
    "c3": (1_516, 151_600, (16, 10, 10)),
    "s4": (32, 2_000, (16, 5, 5)),
    "c5": (48_120, 48_120, (120, 1, 1)),
    "f6": (10_164, 10_164, (84,)),
    "rbf": (0, 840, (10,)),
}


def influence(layer: nn.Module, x: Tensor) -> Tensor:
    """(outputs, inputs): whether an input of a batch of one reaches an output. A NaN is put into each in turn."""
    poisoned = x.flatten().repeat(x.numel(), 1).fill_diagonal_(float("nan"))
    with torch.no_grad():
        return layer(poisoned.view(-1, *x.shape[1:])).flatten(1).isnan().T


def test_lenets_layers_have_the_published_sizes() -> None:
    net = zoo.build(spec("lenet5_original"))
    x, seen = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(1)) + 0.1, {}
    with torch.no_grad():
        for name in LENET:
            layer, x = net.get_submodule(name), x.flatten(1) if name == "f6" else x
            connected = influence(layer, x)
            units = len(connected) if list(layer.parameters()) else 0  # a trained unit has a bias, itself a connection
            x = layer(x)
            trained = sum(p.numel() for p in layer.parameters() if p.requires_grad)
            seen[name] = trained, int(connected.sum()) + units, tuple(x.shape[1:])
    assert seen == LENET
    assert sum(p.numel() for p in net.parameters()) == 60_000


def test_c3_sees_as_table_i_says() -> None:
    x = torch.rand(1, 6, 5, 5, generator=torch.Generator().manual_seed(1)) + 0.1
    maps = influence(lenet.SparseConv(), x).view(16, 6, 25).all(2)
    assert (maps == influence(lenet.SparseConv(), x).view(16, 6, 25).any(2)).all()
    table = """X...XXX..XXXX.XX XX...XXX..XXXX.X XXX...XXX..X.XXX .XXX..XXXX..X.XX ..XXX..XXXX.XX.X ...XXX..XXXX.XXX"""
    assert ["".join("X" if sees else "." for sees in row) for row in maps.T.tolist()] == table.split()
    assert sorted(maps.sum(1).tolist()) == [3] * 6 + [4] * 9 + [6]


def test_subsampling_and_squashing_by_hand() -> None:
    pool = lenet.Subsample(1)
    with torch.no_grad():
        pool.weight.fill_(0.5)
        pool.bias.fill_(-1.0)
    x = torch.tensor([[1.0, 2.0, 0.0, 0.0], [3.0, 4.0, 0.0, 2.0]])[None, None]
    assert pool(x).flatten().tolist() == [4.0, 0.0]  # (1+2+3+4) / 2 - 1; 2 / 2 - 1
    assert torch.allclose(lenet.squash(torch.tensor([-1.0, 0.0, 1.0])), torch.tensor([-1.0, 0.0, 1.0]), atol=1e-4)


def test_codes_are_apart_and_logits_are_minus_the_distance() -> None:
    for classes in (2, 10, 43):
        codes = lenet.codes(classes)
        assert codes.shape == (classes, 84) and set(codes.unique().tolist()) == {-1.0, 1.0}
        assert torch.equal(codes, lenet.codes(classes))
        distance = (codes[:, None] != codes).sum(2)
        assert distance[~torch.eye(classes, dtype=torch.bool)].min() >= 4
        assert torch.equal(lenet.Rbf(classes)(codes), -4.0 * distance)  # of +-1, each bit that differs counts (2)^2


def test_lenet_of_1998_learns() -> None:
    torch.manual_seed(0)
    net = zoo.build(spec("lenet5_original"))
    x, y = torch.randn(10, 1, 32, 32), torch.arange(10)
    optimizer = torch.optim.SGD(net.parameters(), 1e-2, momentum=0.9)
    for _ in range(40):
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
    assert (net(x).argmax(1) == y).all()
