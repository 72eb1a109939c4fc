"""The correlation tracker on motions that are known, and on a real sequence beside OpenCV's."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecnn.track.assign import iou
from edgecnn.track.correlation import Correlation, _histograms, _vertex


def scene(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (60, 100), np.uint8)
    return cv2.resize(noise, (400, 240), interpolation=cv2.INTER_CUBIC)


def warped(grey: np.ndarray, scale: float, dx: float, dy: float) -> np.ndarray:
    """Scaled about (200, 120), then shifted, px."""
    matrix = np.array([[scale, 0.0, dx + 200 * (1 - scale)], [0, scale, dy + 120 * (1 - scale)]])
    return cv2.warpAffine(grey, matrix, (400, 240), borderMode=cv2.BORDER_REFLECT)


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (5, 0), (-3.5, 6), (9, -9)])
def test_a_shift_is_found_to_a_part_of_a_cell(dx: float, dy: float) -> None:
    grey, boxes = scene(), np.array([[60, 60, 120, 120], [200, 80, 280, 140.0]])
    found, peak = Correlation(grey, boxes).step(warped(grey, 1, dx, dy))
    assert found == pytest.approx(boxes + np.tile([dx, dy], 2), abs=3)  # a cell is 7.5 and 10 px
    assert (peak > 0.5).all()


@pytest.mark.parametrize("rate", [1.02, 0.98])
def test_size_is_followed(rate: float) -> None:
    grey, box = scene(), np.array([[160, 80, 240, 160.0]])
    filters = Correlation(grey, box)
    for k in range(1, 16):
        found, _ = filters.step(warped(grey, rate**k, 0, 0))
    side = 80 * rate**15
    true = np.array([[200 - side / 2, 120 - side / 2, 200 + side / 2, 120 + side / 2]])
    assert iou(found, true)[0, 0] > 0.85


def test_objects_are_independent_of_each_other() -> None:
    grey, boxes = scene(), np.array([[60, 60, 120, 120], [200, 80, 280, 140.0]])
    now = warped(grey, 1, 4, 2)
    together = Correlation(grey, boxes).step(now)[0]
    alone = [Correlation(grey, boxes[i : i + 1]).step(now)[0] for i in range(2)]
    assert together == pytest.approx(np.concatenate(alone), abs=1e-3)


def test_the_peak_falls_where_the_object_is_gone() -> None:
    grey, box = scene(), np.array([[160, 80, 240, 160.0]])
    here, gone = (Correlation(grey, box).step(picture)[1][0] for picture in (grey, scene(5)))
    assert here > 0.9 > 0.4 > gone


def test_no_objects_a_flat_picture_and_boxes_outside_are_survived() -> None:
    flat = np.full((240, 400), 90, np.uint8)
    found, peak = Correlation(flat, np.zeros((0, 4))).step(flat)
    assert found.shape == (0, 4) and peak.shape == (0,)
    found, _ = Correlation(flat, np.array([[390, 230, 420, 260.0], [-90, -90, -50, -60], [5, 5, 5, 5]])).step(flat)
    assert np.isfinite(found).all()
    with pytest.raises(ValueError, match=r"boxes of shape \(4,\)"):
        Correlation(flat, np.zeros(4))


def test_a_gradient_falls_into_the_bin_of_its_direction() -> None:
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 2, (64, 1))
    ramp[:, 40:] = ramp[:, 40:41]  # light to the right, then flat
    strength = _histograms(ramp[None])[0, :, 5, 5]
    assert strength.argmax() == 0
    assert _histograms(ramp.T[None].copy())[0, :, 5, 5].argmax() == 2


def test_the_vertex_of_a_parabola() -> None:
    values = [np.array([1 - (d - 0.3) ** 2]) for d in (-1, 0, 1)]
    assert _vertex(*values) == pytest.approx([0.3])
    assert _vertex(*[np.ones(1)] * 3).tolist() == [0]


@pytest.mark.slow
def test_car4(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV's MIL tracker reaches .78 on the whole sequence."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1]))
    from benchmarks.carry import correlation, whole_life

    pictures, truth = whole_life(shared_data / "sot" / "Car4")
    step = correlation(pictures[0], truth[:1])
    overlap = [iou(step(picture), true[None])[0, 0] for picture, true in zip(pictures[1:], truth[1:], strict=True)]
    assert np.mean(overlap) > 0.8 and min(overlap) > 0.5
