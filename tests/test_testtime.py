"""Ten crops, and the dense test: the same logits as the crop network where both see the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from thin_nets import meta, spec, thin
from torch import nn

from edgecnn import zoo
from edgecnn.errors import ModelError
from edgecnn.vision import Preprocess
from edgecnn.zoo.testtime import Dense, Method, dense, middle, predict, ten_crop, whole


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


def test_ten_crops_by_hand() -> None:
    x = torch.arange(12.0).view(1, 1, 3, 4)  # rows 0 1 2 3; 4 5 6 7; 8 9 10 11
    five = [[[0, 1], [4, 5]], [[2, 3], [6, 7]], [[4, 5], [8, 9]], [[6, 7], [10, 11]], [[1, 2], [5, 6]]]
    mirrored = [[row[::-1] for row in crop] for crop in five]
    assert ten_crop(x, 2, 2)[:, 0].tolist() == five + mirrored


def test_a_crop_of_the_whole_is_all_of_it() -> None:
    x = torch.randn(1, 3, 5, 6)
    assert torch.equal(ten_crop(x, 5, 6), torch.cat([x] * 5 + [x.flip(3)] * 5))
    assert torch.equal(middle(x, 5, 6), x)


@pytest.mark.parametrize(
    ("arch", "frame", "shape"),
    [
        ("alexnet", (480, 640), (1, 3, 256, 341)),  # shorter side 256, as in both papers
        ("vgg16", (640, 480), (1, 3, 341, 256)),
        ("lenet5", (28, 28), (1, 1, 37, 37)),
    ],
)
def test_the_whole_picture_keeps_its_shape(arch: str, frame: tuple[int, int], shape: tuple[int, ...]) -> None:
    assert tuple(whole(spec(arch), picture(*frame)).shape) == shape


def test_predict_averages_the_softmax_of_its_looks() -> None:
    torch.manual_seed(0)
    s = spec("lenet5")
    net, bgr = zoo.build(s), picture(60, 80)
    with torch.no_grad():
        centre = net(torch.from_numpy(Preprocess(s)(bgr)[0])).softmax(1)[0]
        large = whole(s, bgr)  # 37 x 49
        left = (49 - 37) // 2
        corners = [(0, 0), (0, 5), (5, 0), (5, 5), (2, 2)]
        crops = [large[:, :, top : top + 32, left + x : left + x + 32] for top, x in corners]
        ten = torch.stack([net(c).softmax(1)[0] for crop in crops for c in (crop, crop.flip(3))]).mean(0)
        places = [large[:, :, top : top + 32, x : x + 32] for top in (0, 4) for x in (0, 4, 8, 12, 16)]
        mirrored = [large.flip(3)[:, :, top : top + 32, x : x + 32] for top in (0, 4) for x in (0, 4, 8, 12, 16)]
        both = torch.stack([torch.stack([net(c)[0] for c in each]).mean(0).softmax(0) for each in (places, mirrored)])
    for method, wanted in (("centre", centre), ("ten_crop", ten), ("dense", both.mean(0))):
        assert np.allclose(predict(net, s, bgr, method), wanted.numpy(), atol=1e-6), method


@pytest.mark.parametrize("method", ["centre", "ten_crop", "dense"])
def test_a_picture_of_one_colour_looks_the_same_everywhere(method: Method) -> None:
    torch.manual_seed(0)
    s = spec("lenet5")  # pads nothing, so that borders are no different
    net, bgr = zoo.build(s), np.full((60, 60, 3), 90, np.uint8)
    assert np.allclose(predict(net, s, bgr, method), predict(net, s, bgr, "centre"), atol=1e-6)


@pytest.mark.parametrize("arch", ["alexnet", "zfnet", "vgg11", "lenet5"])
def test_dense_is_the_crop_network_on_a_crop(arch: str) -> None:
    net, s = thin(arch) if arch != "lenet5" else (zoo.build(spec(arch)), spec(arch))
    x = torch.randn(s.input.shape, generator=torch.Generator().manual_seed(1))
    made = dense(net, s)
    assert isinstance(made, Dense) and not made.training
    with torch.no_grad():
        assert made.scores(x).shape == (1, 10, 1, 1)
        assert torch.allclose(made(x), net(x), atol=1e-6)


def test_every_place_of_a_network_without_padding_is_a_crop() -> None:
    torch.manual_seed(0)
    s = spec("lenet5")
    net, x = zoo.build(s), torch.randn(1, 1, 48, 40)
    with torch.no_grad():
        scores = dense(net, s).scores(x)  # type: ignore[operator]
        assert scores.shape == (1, 10, 5, 3)
        for row in range(5):
            for column in range(3):
                crop = x[:, :, 4 * row : 4 * row + 32, 4 * column : 4 * column + 32]
                assert torch.allclose(scores[:, :, row, column], net(crop), atol=1e-5)


def test_padding_is_what_makes_places_and_crops_differ() -> None:
    # 355 px: the least that leaves AlexNet a 6x6 map without padding; its features step by 32 px
    for padded in (False, True):
        net, s = thin("alexnet", height=355, width=355) if not padded else thin("alexnet")
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d) and not padded:
                layer.padding = (0, 0)
        side = s.height
        x = torch.randn(1, 3, side + 32, side, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            scores = dense(net, s).scores(x)  # type: ignore[operator]
            assert scores.shape == (1, 10, 2, 1)
            crops = torch.stack([net(x[:, :, top : top + side])[0] for top in (0, 32)], 1)
        difference = float((scores[0, :, :, 0] - crops).abs().max() / (crops.max() - crops.min()))
        assert difference > 1e-4 if padded else difference < 1e-5


def test_dense_shares_its_weights() -> None:
    net, s = thin("vgg11")
    made = dense(net, s)
    first = net.get_submodule("classifier.0")
    conv = made.get_submodule("classifier.0")
    assert isinstance(first, nn.Linear) and isinstance(conv, nn.Conv2d)
    assert conv.kernel_size == (7, 7) and conv.weight.data_ptr() == first.weight.data_ptr()
    assert sum(p.numel() for p in made.parameters()) == sum(p.numel() for p in net.parameters())


def test_a_network_that_pools_globally_is_its_own_dense_form() -> None:
    net = meta("resnet18", 10)
    assert dense(net, spec("resnet18")) is net


def test_what_has_no_dense_form_is_refused() -> None:
    with pytest.raises(ModelError, match="lenet5_original has no dense form"):
        dense(zoo.build(spec("lenet5_original")), spec("lenet5_original"))
    net, s = thin("vgg11", height=64, width=96)
    with pytest.raises(ModelError, match="vgg11 at 96x64 averages its 3x2 map to 7x7"):
        dense(net, s)
