"""Looking inside: the deconvnet against one built by hand, and networks whose secret is known before they are asked."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_detector import make_bundle
from torch import Tensor, nn

from edgecnn import cli, zoo
from edgecnn.bundle import Bundle
from edgecnn.errors import InputError, ModelError
from edgecnn.explain import explain
from edgecnn.explain.correspondence import correspondence, grid, jackknife, mean_distance
from edgecnn.explain.deconvnet import project
from edgecnn.explain.features import look, masked
from edgecnn.explain.invariance import invariance, moved
from edgecnn.explain.occlusion import occlude
from edgecnn.explain.parts import read_parts
from edgecnn.recipe import ModelSection
from edgecnn.report import write_report
from edgecnn.scene import Letterbox


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


# --- what the layers say ---------------------------------------------------------------------------------------------


class Functional(nn.Module):
    """Every way to write a ReLU, a shortcut, and a projection that none follows."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(3 if i == 0 else 4, 4, 3, padding=1) for i in range(4))
        self.side = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x), inplace=True)
        x = torch.relu(self.side(x) + self.b(x))
        x = self.c(x).relu_()
        x = self.d(x).relu()
        y: Tensor = self.head(F.relu(x.mean((2, 3))))
        return y


def test_maps_are_those_after_relu_however_it_is_written() -> None:
    net, x = Functional().eval(), torch.randn(2, 3, 6, 6)
    seen = look(net, x)
    assert list(seen.maps) == ["a", "b", "c", "d"]
    assert all((maps >= 0).all() and (maps == 0).any() for maps in seen.maps.values())
    torch.testing.assert_close(seen.maps["a"], net.a(x).relu())  # not what a later layer made of it in place
    torch.testing.assert_close(seen.vector, seen.maps["d"].mean((2, 3)))
    torch.testing.assert_close(seen.logits, net(x))
    assert list(look(net, x, ("c",)).maps) == ["c"]


def test_looking_leaves_nothing_behind() -> None:
    net, x = Functional().eval(), torch.randn(1, 3, 6, 6)
    before = net(x)
    project(net, x)
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in net.modules())
    assert torch.equal(net(x), before) and all(p.grad is None for p in net.parameters())
    y = torch.tensor([-1.0, 2.0], requires_grad=True)
    torch.relu(y).backward(torch.tensor([3.0, -3.0]))
    assert y.grad is not None and y.grad.tolist() == [0.0, -3.0]  # ReLU is its old self again


@pytest.mark.parametrize("arch", ["resnet18", "lenet5"])
def test_the_zoos_maps_are_rectified_and_its_answers_unchanged(arch: str) -> None:
    spec = zoo.spec_for(ModelSection(arch=arch, **({} if arch == "lenet5" else {"height": 64, "width": 64})))
    net = zoo.build(spec)
    x = torch.randn(spec.input.shape)
    seen = look(net, x)
    assert torch.equal(seen.logits, net(x)) and seen.rectified
    assert len(seen.maps) == {"resnet18": 17, "lenet5": 2}[arch]
    assert seen.vector.shape[1] == {"resnet18": 512, "lenet5": 84}[arch]


# --- deconvnet -------------------------------------------------------------------------------------------------------


def unpool(signal: Tensor, switches: Tensor, size: tuple[int, int]) -> Tensor:
    """Each value to the place from which its maximum came; where windows overlap, values add up."""
    out = torch.zeros(*signal.shape[:2], size[0] * size[1])
    return out.scatter_add(2, switches.flatten(2), signal.flatten(2)).unflatten(2, size)


def back(conv: nn.Conv2d, signal: Tensor, size: tuple[int, int]) -> Tensor:
    """Transposed filters, without bias."""
    (stride, _), (padding, _), (kernel, _) = conv.stride, conv.padding, conv.kernel_size
    assert not isinstance(padding, str)
    extra = [n - ((m - 1) * stride - 2 * padding + kernel) for n, m in zip(size, signal.shape[2:], strict=True)]
    return F.conv_transpose2d(signal, conv.weight, None, stride, padding, extra, conv.groups)


@pytest.mark.parametrize(("window", "step"), [(2, 2), (3, 2)], ids=["pooling", "overlapping pooling"])
def test_deconvnet_equals_unpooling_rectification_and_transposed_filters(window: int, step: int) -> None:
    """Section 2.1 layer by layer, as the paper has it, against the one backward pass."""
    one, two, three = nn.Conv2d(3, 8, 5, 2, 1), nn.Conv2d(8, 8, 3, 1, 1, groups=2), nn.Conv2d(8, 6, 3)
    norm = nn.BatchNorm2d(8)
    nn.init.normal_(norm.weight)
    nn.init.constant_(three.bias, 0.5)  # so that more than a map or two answer
    norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    pool = nn.MaxPool2d(window, step, return_indices=True)
    body = [one, nn.ReLU(inplace=True), nn.MaxPool2d(window, step), two, norm, nn.ReLU(inplace=True)]
    head = [nn.MaxPool2d(window, step), three, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    net = nn.Sequential(*body, *head, nn.Linear(6, 2)).eval()
    x = torch.randn(1, 3, 48, 52)
    with torch.no_grad():
        first = one(x).relu()
        pooled, switches = pool(first)
        second = norm(two(pooled)).relu()
        pooled_again, switches_again = pool(second)
        third = three(pooled_again).relu()

        found = project(net, x, layers=("7",), top=3)
        assert len(found) == 3
        for each in found:
            row, column = each.place
            assert each.value == pytest.approx(float(third[0, each.channel].max()))
            signal = torch.zeros_like(third)
            signal[0, each.channel, row, column] = third[0, each.channel, row, column]
            signal = back(three, signal.relu(), pooled_again.shape[2:])
            signal = unpool(signal, switches_again, second.shape[2:]).relu()
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()  # type: ignore[operator]
            signal = back(two, signal * scale[:, None, None], pooled.shape[2:])
            signal = back(one, unpool(signal, switches, first.shape[2:]).relu(), x.shape[2:])
            assert signal.abs().max() > 1e-3
            torch.testing.assert_close(each.signal, signal[0], rtol=1e-5, atol=1e-5)


def test_the_deconvnet_is_neither_the_gradient_nor_guided_backpropagation() -> None:
    """One unit: w = -1 forwards gives 0, yet a positive signal goes back through a unit that was silent."""
    low, high = nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 1, 1)
    low.weight.data = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
    high.weight.data = torch.tensor([[2.0, 3.0]]).reshape(1, 2, 1, 1)
    high.bias.data.zero_()
    net = nn.Sequential(low, nn.ReLU(), high, nn.ReLU(), nn.Flatten()).eval()
    (found,) = project(net, torch.ones(1, 1, 1, 1), layers=("2",))
    assert found.value == 2  # 2 * relu(1) + 3 * relu(-1)
    assert float(found.signal) == 2 * (2 * 1 + 3 * -1)  # the gradient and guided backpropagation: 2 * 2


def test_the_strongest_maps_come_first_and_silent_ones_not_at_all() -> None:
    conv = nn.Conv2d(1, 4, 1, bias=False)
    conv.weight.data = torch.tensor([1.0, 3.0, -1.0, 2.0]).reshape(4, 1, 1, 1)
    net = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.zeros(1, 1, 5, 6)
    x[0, 0, 3, 4] = 2
    found = project(net, x)
    assert [(each.channel, each.value, each.place) for each in found] == [
        (1, 6, (3, 4)),
        (3, 4, (3, 4)),
        (0, 2, (3, 4)),
    ]
    assert [float(each.signal[0, 3, 4]) for each in found] == [18, 8, 2] and found[0].signal.count_nonzero() == 1
    assert [each.channel for each in project(net, x, top=1)] == [1]


def test_a_deep_network_shows_its_last_layer_at_each_size_of_map() -> None:
    net = zoo.build(spec := zoo.spec_for(ModelSection(arch="resnet18", height=64, width=64)))
    found = project(net, torch.randn(spec.input.shape), top=1)
    assert [each.layer for each in found] == ["conv1", *(f"layer{i}.1.conv2" for i in range(1, 5))]


def test_a_network_without_relu_and_an_unknown_layer_are_told() -> None:
    plain = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ModelError, match="no ReLU"):
        project(plain, torch.randn(1, 1, 8, 8))
    net = zoo.build(zoo.spec_for(ModelSection(arch="lenet5")))
    with pytest.raises(ModelError, match=r"'features.1'.*wanted one of features.0, features.3"):
        project(net, torch.randn(1, 1, 32, 32), layers=("features.1",))


# --- occlusion -------------------------------------------------------------------------------------------------------


class Corner(nn.Module):
    """Class 1 as bright as the lower right quarter is, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1, bias=False)
        self.conv.weight.data = torch.tensor([1.0, 0.5]).reshape(2, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x).relu()
        seen = maps[:, 0, 24:, 24:].mean((1, 2))
        return torch.stack([torch.full_like(seen, 2.0), 4 * seen], 1)


def test_occlusion_shows_the_corner_that_the_network_looks_at() -> None:
    found = occlude(Corner(), torch.ones(1, 1, 32, 32), 1)
    assert (found.size, found.stride, found.layer, found.channel) == (8, 2, "conv", 0)
    sure = float(torch.tensor([2.0, 4.0]).softmax(0)[1])
    assert found.probability.shape == (16, 16) and found.whole == pytest.approx(sure)
    # a square of 8 px about (2 j + 1, 2 i + 1) touches the last 8 px from cell 10 on; cell 13 covers 7 px of them
    np.testing.assert_allclose(found.probability[:10], sure, rtol=1e-6)
    np.testing.assert_allclose(found.probability[:, :10], sure, rtol=1e-6)
    assert (found.probability[10:, 10:] < sure - 1e-3).all()
    covered = 4 * (1 - 7 * 7 / 64)
    assert found.probability[13, 13] == pytest.approx(1 / (1 + np.exp(2 - covered)), rel=1e-5)
    assert found.answer[0, 0] == 1 and found.answer[13, 13] == 0
    assert found.whole_total == pytest.approx(1024) and found.total[8, 8] == pytest.approx(1024 - 64)
    assert found.total[0, 0] == pytest.approx(1024 - 25)  # 3 px of the square hang over, both ways


def test_masks_leave_the_picture_itself_alone() -> None:
    x = torch.ones(1, 2, 4, 4)
    copies = masked(x, [(1, 2, 2, 1), (-1, -1, 2, 2)])
    assert x.sum() == 32 and copies[0, :, 2, 1:3].sum() == 0 and copies[0].sum() == 28
    assert copies[1, :, 0, 0].sum() == 0 and copies[1].sum() == 30


# --- correspondence --------------------------------------------------------------------------------------------------


def test_mean_distance_by_hand() -> None:
    signs = np.array([[1, 0, -1, 1], [1, 0, -1, -1], [1, 1, 1, 1]], np.int8)
    assert mean_distance(signs) == pytest.approx((1 / 4 + 2 / 4 + 3 / 4) / 3)
    left_out = np.array([3 / 4, 2 / 4, 1 / 4])  # without the first, the second, the third
    assert jackknife(signs) == pytest.approx(np.sqrt(2 / 3 * ((left_out - 0.5) ** 2).sum()))
    assert mean_distance(signs[[0, 0, 0]]) == 0 == jackknife(signs[[0, 0, 0]])


def planted() -> tuple[nn.Module, Tensor, dict[str, dict[int, tuple[int, int, int, int]]]]:
    """A network that knows one part, a bright square with a dark middle, wherever it is; and five noisy pictures."""
    random = np.random.default_rng(3)
    part = torch.tensor([[1.0] * 4, [1, -1, -1, 1], [1, -1, -1, 1], [1.0] * 4])
    find, rest = nn.Conv2d(1, 16, 4, bias=False), nn.Linear(16, 24)
    find.weight.data = torch.tensor(random.choice([-1, 1], (16, 1, 4, 4)) * 0.25).float()
    find.weight.data[0, 0] = part
    net = nn.Sequential(find, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), rest, nn.ReLU(), nn.Linear(24, 2))
    x, boxes = torch.tensor(random.normal(0, 0.3, (5, 1, 24, 24))).float(), {}
    for i in range(5):
        left, top = (int(n) for n in random.integers(0, 20, 2))
        x[i, 0, top : top + 4, left : left + 4] = part
        boxes[i] = (left, top, 4, 4)
    return net.eval(), x, {"eye": boxes}


def test_correspondence_finds_the_part_that_a_network_knows() -> None:
    net, x, parts = planted()
    rows = correspondence(net, x, parts, draws=20)
    assert [(row.part, row.layer, row.pictures) for row in rows] == [("eye", "0", 5), ("eye", "last features", 5)]
    last = rows[1]
    assert last.delta + last.error < last.random - 5 * last.random_error and last.below == 0
    assert rows == correspondence(net, x, parts, draws=20)


def test_a_part_of_nothing_is_no_better_than_chance() -> None:
    net, x, _ = planted()
    anywhere = {"noise": {0: (0, 0, 4, 4), 1: (9, 3, 4, 4), 2: (20, 20, 4, 4), 3: (4, 17, 4, 4), 4: (12, 12, 4, 4)}}
    for row in correspondence(net, x, anywhere, draws=20):
        assert row.delta > row.random - 4 * row.random_error * np.sqrt(20)


def test_one_place_in_all_pictures_is_held_against_one_random_place_in_all() -> None:
    """A network that sees where something changed, not what: the same place must not pass for the same part."""
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(24 * 24, 2)).eval()
    nn.init.ones_(net[0].weight)  # type: ignore[arg-type]
    x = 0.1 + torch.rand(4, 1, 24, 24)  # brighter than grey everywhere: each mask makes its own place darker
    same = dict.fromkeys(range(4), (4, 4, 6, 6))
    apart = {i: (6 * i, 0, 6, 6) for i in range(4)}
    place, layout = (correspondence(net, x, {"part": boxes})[0] for boxes in (same, apart))
    assert place.delta == 0 == place.random and place.below == 1
    assert layout.delta == pytest.approx(2 * 36 / 576) and 0 < layout.random < layout.delta


def test_what_does_not_change_has_no_sign() -> None:
    """Masks on grey: features stay, so Delta is exactly 0, whatever rounding a larger batch brings."""
    net = zoo.build(zoo.spec_for(ModelSection(arch="lenet5")))
    rows = correspondence(net, torch.zeros(3, 1, 32, 32), grid(3, 32, 32), draws=4)
    assert len(rows) == 18 and all((row.delta, row.error, row.random) == (0, 0, 0) for row in rows)
    assert grid(3, 32, 33)["bottom right"] == dict.fromkeys(range(3), (22, 20, 11, 10))


# --- invariance ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "amount"), [("shift", 0.0), ("scale", 1.0), ("rotation", 0.0), ("rotation", 360.0)])
def test_no_change_is_no_change(kind: Any, amount: float) -> None:
    x = torch.randn(1, 3, 20, 31)
    torch.testing.assert_close(moved(x, kind, amount, (9, 9, 9)), x, rtol=0, atol=1e-5)


def test_a_shift_goes_down_a_turn_goes_anticlockwise_and_borders_are_filled() -> None:
    x = torch.zeros(1, 2, 9, 9)
    x[0, :, 4, 7] = 1  # right of the centre
    down = moved(x, "shift", 2.0, (5, 6))
    assert down[0, 0, 6, 7] == 1 and (down[0, 0, :2] == 5).all() and (down[0, 1, :2] == 6).all()
    torch.testing.assert_close(moved(x, "rotation", 90.0, (0, 0))[0, 0], torch.rot90(x[0, 0]), rtol=0, atol=1e-5)
    x[0, :, 4, 5] = 1
    assert moved(x, "scale", 2.0, (0, 0))[0, 0, 4, 6] == 1  # twice as far from the centre


def test_global_pooling_does_not_mind_a_shift_but_the_first_layer_does() -> None:
    conv = nn.Conv2d(1, 8, 3, padding=1, bias=False)
    net = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()
    x = torch.zeros(1, 1, 56, 56)
    x[0, 0, 24:32, 20:33] = torch.rand(8, 13)  # far enough from every border
    shift, scale, rotation = invariance(net, x, 1, (0.0,))
    assert shift.amount[0] == -15 and shift.amount[-1] == 15 and shift.amount[6] == 0
    assert shift.first[6] == pytest.approx(0, abs=1e-5) and (np.delete(shift.first, 6) > 0.5).all()
    np.testing.assert_allclose(shift.last, 0, atol=1e-6)
    assert np.ptp(shift.probability) < 1e-6
    assert scale.amount == (1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8) and (scale.last[1:] > 1e-4).all()
    assert scale.last[0] == rotation.last[0] == rotation.first[0] == pytest.approx(0, abs=1e-6)
    assert rotation.last[-1] < 1e-5 < rotation.last[3] and rotation.amount[-1] == 360


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return classifier(tmp_path / "digits.bundle", "lenet5")


def classifier(path: Path, arch: str) -> Bundle:
    path.mkdir()
    spec = zoo.spec_for(ModelSection(arch=arch, classes=("a", "b", "c")))
    zoo.save_weights(path / "weights.safetensors", zoo.build(spec), spec)
    return Bundle(path, path.stem).with_stage(
        "train", settings={}, version=1, files={"weights": "weights.safetensors"}, facts={}, tools={}, model=spec
    )


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    random = np.random.default_rng(0)
    paths = [tmp_path / f"picture {i}.png" for i in range(3)]
    for path in paths:
        cv2.imwrite(str(path), random.integers(0, 256, (64, 64, 3), np.uint8))
    return paths


def test_explain_writes_pngs_json_and_a_page_that_needs_nothing_else(bundle: Bundle, pictures: list[Path]) -> None:
    out = bundle.path / "explain"
    result = explain(bundle, pictures, out)
    assert json.loads((out / "explain.json").read_text("utf-8")) == json.loads(json.dumps(result))
    named = {result["invariance"]}
    for row in result["pictures"]:
        named |= {row["occlusion"]["file"], *(layer["file"] for layer in row["deconvnet"])}
        assert [layer["layer"] for layer in row["deconvnet"]] == ["features.0", "features.3"]
        assert 1 / 3 <= row["probability"] <= 1 and row["occlusion"]["least"] <= row["probability"] + 1e-6
    assert {path.name for path in out.iterdir()} == named | {"explain.json", "explain.html"}
    assert "1-picture-0-deconvnet-features.3.png" in named
    assert all(cv2.imread(str(out / name)).std() > 0 for name in named)
    assert len(result["correspondence"]) == 9 * 2 and result["grid"]
    page = (out / "explain.html").read_text("utf-8")
    assert page.count("<img src=") == len(named)
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]+)"', page))

    report = write_report(bundle, bundle.path / "report.html").read_text("utf-8")
    assert report.count("data:image/png") == len(named) and "Inside: picture 1.png" in report
    newer = bundle.with_stage(
        "train", settings={"lr": 2}, version=1, files={"weights": "weights.safetensors"}, facts={}, tools={}
    )
    assert "data:image/png" not in write_report(newer, bundle.path / "report.html").read_text("utf-8")


def test_parts_come_from_a_csv_in_pixels_of_the_pictures(bundle: Bundle, pictures: list[Path], tmp_path: Path) -> None:
    table = tmp_path / "parts.csv"
    rows = [[path.name, "nose", 8 * i, 4, 16, 12] for i, path in enumerate(pictures)]
    write_csv(table, rows)
    result = explain(bundle, pictures, tmp_path / "out", table)
    assert {row["part"] for row in result["correspondence"]} == {"nose"} and not result["grid"]

    for bad, words in (
        ([["other.png", "nose", 0, 0, 9, 9]], "line 2: 'other.png' is not among the pictures"),
        ([[pictures[0].parent.name, "nose", 0, 0, 9, 9]], "is not among the pictures"),
        ([[pictures[0].name, "nose", 0, "x", 9, 9]], "line 2 has no whole box"),
        ([[pictures[0].name, "nose", 70, 0, 9, 9]], "line 2: 'nose' has no pixel"),
        (rows[:2], "marks 'nose' in 2 pictures"),
        ([], "marks nothing"),
    ):
        write_csv(table, bad)
        with pytest.raises(InputError, match=re.escape(words)):
            explain(bundle, pictures, tmp_path / "out", table)
    table.write_text("picture,part\n", "utf-8")
    with pytest.raises(InputError, match="lacks the column x"):
        explain(bundle, pictures, tmp_path / "out", table)
    with pytest.raises(InputError, match="there is no"):
        explain(bundle, pictures, tmp_path / "out", tmp_path / "none.csv")


def test_pictures_of_the_same_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    spec = zoo.spec_for(ModelSection(arch="lenet5"))
    twins = [tmp_path / folder / "a.png" for folder in ("00", "01")]
    boxes = [Letterbox(0.5, 0.5, 0, 0, 64, 64)] * 2
    table = tmp_path / "parts.csv"
    write_csv(table, [["00/a.png", "nose", 10, 20, 16, 12], ["01/a.png", "nose", 50, 60, 20, 20]])
    found = read_parts(table, twins, boxes, spec, 2)
    assert found == {"nose": {0: (5, 10, 8, 6), 1: (25, 30, 7, 2)}}  # halved, and cut at the border
    write_csv(table, [["a.png", "nose", 10, 20, 16, 12]])
    with pytest.raises(InputError, match=r"'a\.png' is several of the pictures"):
        read_parts(table, twins, boxes, spec, 2)


def test_a_network_without_relu_is_explained_but_for_the_deconvnet(tmp_path: Path, pictures: list[Path]) -> None:
    sigmoid = classifier(tmp_path / "old.bundle", "lenet5_original")
    (row,) = explain(sigmoid, pictures[:1], tmp_path / "out")["pictures"]
    assert row["deconvnet"] == [] and "no ReLU" in row["no_deconvnet"] and row["occlusion"]["layer"] == "c5"
    assert "No deconvnet: the network has no ReLU" in (tmp_path / "out" / "explain.html").read_text("utf-8")


def write_csv(path: Path, rows: list[list[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["picture", "part", "x", "y", "width", "height"], *rows])


def test_a_colour_network_is_drawn_in_its_pictures_colours(pictures: list[Path]) -> None:
    """What the preprocess took apart, the drawing puts together again."""
    from edgecnn.explain.drawing import unprocessed
    from edgecnn.vision import Preprocess

    picture = cv2.imread(str(pictures[0]))
    assert picture is not None
    for arch in ("resnet18", "roadnet"):  # RGB with mean and deviation; BGR less 128
        spec = zoo.spec_for(ModelSection(arch=arch, height=64, width=64))
        tensor, _ = Preprocess(spec)(picture.astype(np.uint8))
        np.testing.assert_array_equal(unprocessed(tensor[0], spec), picture)


def called(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["edgecnn", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_the_command_prints_a_table_or_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bundle: Bundle, pictures: list[Path]
) -> None:
    assert called(monkeypatch, "explain", bundle.path, "--picture", pictures[0], "--json") == 0
    came = capsys.readouterr()
    result = json.loads(came.out)
    assert result["pictures"][0]["picture"] == "picture 0.png" and "picture 0.png (1 of 1)" in came.err
    assert result["correspondence"] == []  # of one picture there is nothing to compare
    out = bundle.path / "elsewhere"
    assert called(monkeypatch, "explain", bundle.path, "--picture", pictures[0], "--out", out) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[0] == "picture" and lines[-1] == str(out / "explain.html")
    assert result["pictures"][0]["class"] in lines[1]


def test_wrong_input_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bundle: Bundle, tmp_path: Path
) -> None:
    def fails(code: int, words: str, *arguments: object) -> None:
        assert called(monkeypatch, "explain", *arguments) == code
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and words in err

    fails(3, "no picture at", bundle.path, "--picture", tmp_path / "none.png")
    (tmp_path / "text.png").write_text("hello", "utf-8")
    fails(3, "no picture that OpenCV reads", bundle.path, "--picture", tmp_path / "text.png")
    detector = make_bundle(tmp_path / "lamps.bundle").path
    fails(6, "wanted a classifier of the zoo", detector, "--picture", tmp_path / "none.png")
    fails(3, "there is nothing at", tmp_path / "nothing", "--picture", tmp_path / "none.png")
    assert called(monkeypatch, "explain", bundle.path) == 2


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["alexnet", "zfnet", "vgg11_bn", "googlenet", "inception_v3", "resnet50"])
def test_every_family_is_looked_into(arch: str) -> None:
    spec = zoo.spec_for(ModelSection(arch=arch, classes=("a", "b")))
    net = zoo.build(spec)
    x = torch.randn(spec.input.shape)
    assert torch.equal(look(net, x).logits, net(x))
    found = project(net, x, top=1)
    assert len(found) >= 4 and all(each.signal.abs().max() > 0 for each in found)
