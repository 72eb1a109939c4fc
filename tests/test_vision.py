"""The one preprocess, the decoders, NMS and IoU: held against plain numpy, brute force and hand-computed tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgecnn.bundle import ModelSpec, TensorSpec
from edgecnn.errors import InputError, ModelError
from edgecnn.scene import F32, Detections, Picture
from edgecnn.track.assign import iou
from edgecnn.vision import DecodeDetections, Preprocess, fit, grid, nms

MODEL = ModelSpec(  # not square: a swap of height and width shows
    arch="roadnet",
    task="detect",
    classes=("car", "person"),
    input=TensorSpec("image", (1, 3, 64, 96)),
    decode="roadnet",
    strides=(32,),
    mean=(10.0, 20.0, 30.0),
    std=(1.0, 2.0, 4.0),
)
Fit = Literal["letterbox", "stretch", "crop"]
FITS: tuple[Fit, ...] = ("letterbox", "stretch", "crop")


def noise(height: int, width: int) -> Picture:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def bilinear(bgr: Picture, width: int, height: int) -> NDArray[np.float64]:
    """Half-pixel centres, edges repeated: what `resize` means, one axis after the other."""
    out = bgr.astype(np.float64)
    for axis, size in ((0, height), (1, width)):
        at = np.clip((np.arange(size) + 0.5) * out.shape[axis] / size - 0.5, 0, out.shape[axis] - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, out.shape[axis] - 1)
        share = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
        out = out.take(low, axis) * (1 - share) + out.take(high, axis) * share
    return out


# --- letterbox -------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    width=st.integers(8, 4000),
    height=st.integers(8, 4000),
    how=st.sampled_from(FITS),
    corners=st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=4),
)
def test_boxes_go_to_the_net_and_back(
    width: int, height: int, how: Fit, corners: list[tuple[float, float, float, float]]
) -> None:
    frame = np.array(corners, np.float32).reshape(-1, 4) * np.array([width, height] * 2, np.float32)
    box = fit(replace(MODEL, fit=how), width, height)
    np.testing.assert_allclose(box.to_frame(box.to_net(frame)), frame, atol=max(width, height) * 1e-5)


@pytest.mark.parametrize(
    ("how", "size", "inside"),
    [  # the whole frame in net px, (left, top, right, bottom); the net is 96 wide and 64 high
        ("letterbox", (192, 128), (0, 0, 96, 64)),
        ("letterbox", (192, 64), (0, 0, 96, 32)),  # pad below
        ("letterbox", (64, 128), (0, 0, 32, 64)),  # pad at the right
        ("stretch", (192, 64), (0, 0, 96, 64)),
        ("crop", (192, 64), (-48, 0, 144, 64)),
        ("crop", (96, 96), (0, -16, 96, 80)),
    ],
)
def test_where_the_frame_lies_in_the_net(how: Fit, size: tuple[int, int], inside: tuple[int, ...]) -> None:
    box = fit(replace(MODEL, fit=how), *size)
    np.testing.assert_allclose(box.to_net(np.array([[0, 0, *size]], np.float32)), [inside])


def test_boxes_are_clipped_to_the_frame() -> None:
    box = fit(MODEL, 192, 64)
    np.testing.assert_allclose(box.to_frame(np.array([[-10, -10, 200, 60]], np.float32)), [[0, 0, 192, 64]])


# --- preprocess ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 96), (40, 70), (33, 96), (100, 120), (64, 20)])
@pytest.mark.parametrize("channels", ["bgr", "rgb"])
@pytest.mark.parametrize("how", FITS)
def test_the_tensor_is_what_plain_numpy_makes(how: Fit, channels: Any, size: tuple[int, int]) -> None:
    picture, model = noise(*size), replace(MODEL, fit=how, channels=channels)
    tensor, box = Preprocess(model)(picture)
    wide, high = round(size[1] * box.scale_x), round(size[0] * box.scale_y)
    canvas = np.full((64, 96, 3), 114.0)
    resized = bilinear(picture, wide, high)
    if how == "crop":
        top, left = (high - 64) // 2, (wide - 96) // 2
        canvas = resized[top : top + 64, left : left + 96]
    else:
        canvas[:high, :wide] = resized
    if channels == "rgb":
        canvas = canvas[:, :, ::-1]
    wanted = (canvas - [10, 20, 30]) / [1, 2, 4]
    assert tensor.shape == (1, 3, 64, 96) and tensor.dtype == np.float32
    # OpenCV interpolates in fixed point: at most one grey level beside exact arithmetic
    np.testing.assert_allclose(tensor[0], wanted.transpose(2, 0, 1), atol=1.01)


def test_a_large_picture_is_averaged_not_sampled() -> None:
    picture = noise(256, 384)  # four times the net
    tensor, _ = Preprocess(replace(MODEL, mean=(0.0,) * 3, std=(1.0,) * 3))(picture)
    means = picture.reshape(64, 4, 96, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(tensor[0].transpose(1, 2, 0), means, atol=1.01)  # halved twice, rounded twice


def test_grey() -> None:
    model = replace(
        MODEL, input=TensorSpec("image", (1, 1, 64, 96)), channels="grey", mean=(0.0,) * 3, std=(255.0,) * 3
    )
    picture = noise(64, 96)
    tensor, _ = Preprocess(model)(picture)
    wanted = picture @ np.array([0.114, 0.587, 0.299])  # ITU-R BT.601
    np.testing.assert_allclose(tensor[0, 0] * 255, wanted, atol=1)


def test_the_border_is_clean_after_another_size() -> None:
    reused = Preprocess(MODEL)
    reused(noise(64, 96))
    small = noise(20, 96)
    np.testing.assert_array_equal(reused(small)[0], Preprocess(MODEL)(small)[0])


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_picture(picture: Any) -> None:
    with pytest.raises(InputError, match="wanted \\(H, W, 3\\) uint8"):
        Preprocess(MODEL)(picture)


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (1, 1)])
@pytest.mark.parametrize("how", FITS)
def test_a_sliver_still_fits(how: Fit, size: tuple[int, int]) -> None:
    tensor, _ = Preprocess(replace(MODEL, fit=how))(noise(*size))
    assert np.isfinite(tensor).all()


def test_an_input_of_the_wrong_depth() -> None:
    with pytest.raises(ModelError, match=r"wanted \(1, 1, height, width\)"):
        Preprocess(replace(MODEL, channels="grey"))


# --- decode ----------------------------------------------------------------------------------------------------------


def quiet(anchors: int = 6, classes: int = 2) -> tuple[F32, F32]:
    return np.zeros((1, anchors, 4), np.float32), np.zeros((1, anchors, classes), np.float32)


def test_the_grid_runs_level_by_level_row_by_row() -> None:
    cells, strides = grid(replace(MODEL, strides=(32, 64)))
    assert cells.tolist() == [[0, 0], [32, 0], [64, 0], [0, 32], [32, 32], [64, 32], [0, 0], [64, 0]]
    assert strides.tolist() == [32] * 6 + [64] * 2


def test_decode_by_hand() -> None:
    # Cell 5 is row 1, column 2: corner (64, 32). Centre = (64 + .5*32, 32 + .25*32) = (80, 40); size = (2*32, 1*32).
    # In the net 48, 24, 112, 56; the frame is twice as large and ends at 192.
    raw, score = quiet()
    raw[0, 5], score[0, 5] = (0.5, 0.25, np.log(2), 0.0), (0.2, 0.9)
    found = DecodeDetections(MODEL)({"boxes": raw, "scores": score}, fit(MODEL, 192, 128))
    np.testing.assert_allclose(found.xyxy, [[96, 48, 192, 112]], atol=1e-4)
    np.testing.assert_allclose(found.score, [0.9])
    assert found.label.tolist() == [1]


def test_yolox_is_the_same_with_objectness_apart() -> None:
    raw, score = quiet()
    raw[0, 5], score[0, 5] = (0.5, 0.25, np.log(2), 0.0), (0.2, 0.9)
    one = np.concatenate([raw, np.full((1, 6, 1), 0.8, np.float32), score / 0.8], 2)
    box = fit(MODEL, 192, 128)
    a = DecodeDetections(MODEL)({"boxes": raw, "scores": score}, box)
    b = DecodeDetections(replace(MODEL, decode="yolox"))({"output": one}, box)
    np.testing.assert_allclose(a.xyxy, b.xyxy)
    np.testing.assert_allclose(a.score, b.score, rtol=1e-6)


def test_threshold_padding_and_limit() -> None:
    raw, score = quiet()
    score[0, :, 0] = (0.9, 0.8, 0.7, 0.6, 0.5, 0.3)
    box = fit(MODEL, 192, 64)  # the lower half of the net is padding
    decode = DecodeDetections(MODEL, score=0.3, iou=0.9, limit=2)
    raw[0, 3:, 1] = 0.9  # second row of cells: wholly below the frame
    found = decode({"boxes": raw, "scores": score}, box)
    np.testing.assert_allclose(found.score, [0.9, 0.8])
    assert len(DecodeDetections(MODEL, iou=0.9)({"boxes": raw, "scores": score}, box)) == 3
    assert len(DecodeDetections(MODEL, score=0.95)({"boxes": raw, "scores": score}, box)) == 0


def test_a_cell_with_two_strong_classes_is_one_box_and_one_that_is_nan_is_none() -> None:
    raw, score = quiet()
    score[0, 1], score[0, 4] = (0.6, 0.9), (0.9, np.nan)
    found = DecodeDetections(MODEL)({"boxes": raw, "scores": score}, fit(MODEL, 96, 64))
    np.testing.assert_allclose(found.score, [0.9])
    assert found.label.tolist() == [1]


def test_a_wild_size_does_not_overflow() -> None:
    raw, score = quiet()
    raw[0, 0], score[0, 0] = (0, 0, 1000, 1000), (0.9, 0)
    found = DecodeDetections(MODEL)({"boxes": raw, "scores": score}, fit(MODEL, 96, 64))
    assert found.xyxy.tolist() == [[0, 0, 96, 64]]


def test_a_classifier_has_no_boxes() -> None:
    with pytest.raises(ModelError, match="gives no boxes"):
        DecodeDetections(replace(MODEL, decode="logits"))({"logits": np.zeros((1, 2))}, fit(MODEL, 96, 64))


# --- IoU and NMS -----------------------------------------------------------------------------------------------------


def test_iou_by_hand() -> None:
    a = np.array([[0, 0, 10, 10], [5, 5, 5, 5], [0, 0, 4, 4]], np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [5, 5, 5, 5]], np.float32)
    wanted = [[1, 1 / 3, 0, 0], [0, 0, 0, 0], [0.16, 0, 0, 0]]
    np.testing.assert_allclose(iou(a, b), wanted, atol=1e-6)
    assert iou(a, np.zeros((0, 4), np.float32)).shape == (3, 0)


def greedy(found: Detections, threshold: float, limit: int) -> list[int]:
    """Best score first; a row falls to a kept one of its class that overlaps it by more than the threshold."""
    kept: list[int] = []
    for row in np.argsort(-found.score):
        overlaps = [
            float(iou(found.xyxy[row : row + 1], found.xyxy[k : k + 1])[0, 0]) > threshold
            for k in kept
            if found.label[k] == found.label[row]
        ]
        if not any(overlaps):
            kept.append(int(row))
    return kept[:limit]


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(2, 30), st.integers(2, 30), st.integers(0, 2)),
        max_size=25,
    ),
    threshold=st.sampled_from([0.31, 0.4567, 0.7123]),  # no overlap of small whole numbers equals one of these
    limit=st.integers(1, 30),
)
def test_nms_keeps_what_brute_force_keeps(
    rows: list[tuple[int, int, int, int, int]], threshold: float, limit: int
) -> None:
    columns = np.array(rows, np.float32).reshape(-1, 5)
    score = np.random.default_rng(len(rows)).permutation(np.linspace(0.9, 0.1, len(rows))).astype(np.float32)
    xyxy = np.concatenate([columns[:, :2], columns[:, :2] + columns[:, 2:4]], 1)
    found = Detections(xyxy, score, columns[:, 4].astype(np.int64))
    kept = nms(found, threshold, limit)
    wanted: Detections = found[greedy(found, threshold, limit)]
    np.testing.assert_array_equal(kept.xyxy, wanted.xyxy)
    np.testing.assert_array_equal(kept.score, wanted.score)
    np.testing.assert_array_equal(kept.label, wanted.label)
