"""Redrawn figures held against the same figures of samples in which the pictures really stand so often."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgecnn.metrics.contact import contact_accuracy, contact_errors
from edgecnn.metrics.detection import evaluate_detections, redrawn_detections
from edgecnn.metrics.redraw import DRAWS, FEWEST, draws, interval
from edgecnn.metrics.tracking import evaluate_tracks, redrawn_tracks
from edgecnn.scene import Detections, Truth

CLASSES = ("car", "truck", "person")


def pictures(count: int, seed: int) -> list[tuple[Detections, Truth]]:
    """Some objects found, some not, some found twice or where nothing is; every score occurs once."""
    rng = np.random.default_rng(seed)
    scores = iter(rng.permutation(10_000) / 10_000)
    rows = []
    for _ in range(count):
        n = int(rng.integers(0, 5))
        corner = rng.uniform(0, 400, (n, 2))
        truth = np.concatenate([corner, corner + rng.uniform(20, 120, (n, 2))], 1).astype(np.float32)
        label = rng.integers(0, 2, n)  # no person anywhere
        found = np.repeat(truth + rng.normal(0, 6, (n, 4)), rng.integers(0, 3, n), axis=0).astype(np.float32)
        of = rng.integers(0, 3, len(found))
        score = np.array([next(scores) for _ in found], np.float32)
        ignore = rng.uniform(size=n) < 0.1
        rows.append((Detections(found, score, of), Truth.of(truth, label, id=np.arange(n), ignore=ignore)))
    return rows


def test_redrawn_average_precision_is_that_of_the_pictures_repeated() -> None:
    rows, rng = pictures(12, 1), np.random.default_rng(2)
    weight = rng.integers(0, 4, (6, 12)).astype(float)
    redrawn = redrawn_detections(rows, CLASSES, weight)
    for r, times in enumerate(weight.astype(int)):
        wanted = evaluate_detections([row for row, n in zip(rows, times, strict=True) for _ in range(n)], CLASSES)
        for name in ("AP", "AP50"):
            assert redrawn[name][r] == pytest.approx(wanted[name], abs=1e-12)
    assert 0.05 < redrawn["AP50"].min() < redrawn["AP50"].max() < 0.95


def test_a_draw_without_truth_has_no_average_precision() -> None:
    nothing = (Detections.empty(), Truth.of(np.zeros((0, 4)), np.zeros(0, int)))
    redrawn = redrawn_detections([nothing, pictures(3, 5)[2]], CLASSES, np.array([[2.0, 0.0], [0.0, 2.0]]))
    assert np.isnan(redrawn["AP"][0]) and np.isfinite(redrawn["AP"][1])


class Seen:
    def __init__(self, ids: list[int], xyxy: NDArray[Any]) -> None:
        self.id, self.xyxy = np.array(ids), xyxy


def test_redrawn_tracks_are_those_of_the_pieces_repeated() -> None:
    rng, pieces = np.random.default_rng(3), []
    for _ in range(5):
        piece = []
        for _ in range(6):
            corner = rng.uniform(0, 300, (3, 2))
            boxes = np.concatenate([corner, corner + 60], 1).astype(np.float32)
            ids = rng.permutation(3)[: int(rng.integers(1, 4))]
            shifted = boxes[ids] + rng.normal(0, 8, (len(ids), 4)).astype(np.float32)
            real = Truth.of(boxes, np.zeros(3, int), id=np.arange(3))
            piece.append((Seen(rng.permutation(ids).tolist(), shifted), real))
        pieces.append(piece)
    weight = rng.integers(0, 3, (4, 5)).astype(float)
    redrawn = redrawn_tracks(pieces, weight)
    for r, times in enumerate(weight.astype(int)):
        wanted = evaluate_tracks([piece for piece, n in zip(pieces, times, strict=True) for _ in range(n)])
        for name, values in redrawn.items():
            assert values[r] == pytest.approx(wanted[name], abs=1e-12)
    assert set(redrawn) == {"HOTA", "MOTA", "IDF1"}


def test_draws_are_always_the_same_and_fair() -> None:
    weight = draws(7)
    assert weight.shape == (DRAWS, 7) and (weight.sum(1) == 7).all()
    assert (weight == draws(7)).all()
    assert weight[0].tolist() == [1, 1, 0, 3, 1, 1, 0]  # numpy's promise: baselines were drawn like this
    assert abs(weight.mean() - 1) < 1e-12 and np.abs(weight.mean(0) - 1).max() < 0.12


@pytest.mark.parametrize("units", [60, 300])
def test_an_interval_holds_the_truth_as_often_as_it_says(units: int) -> None:
    """Two classifiers, right in 80 and 75 % of the pictures, mostly of the same ones: 300 samples."""
    rng, inside, weight = np.random.default_rng(units), 0, draws(units)
    for _ in range(300):
        hard = rng.uniform(size=units)
        a, b = (hard < 0.8).astype(float), ((hard + rng.normal(0, 0.1, units)) < 0.75).astype(float)
        low, high = interval(a.mean() - b.mean(), weight @ a / units, weight @ b / units, units)
        inside += low <= EXPECTED <= high
    assert 0.90 <= inside / 300 <= 0.99


# What b is right in: hard + N(0, .1) < .75 for hard uniform in [0, 1]; by symmetry .75 but for the ends, which reach
# beyond: below 0 nothing is lost, above 1 nothing is gained (2.5 deviations), so .75 to within .0003.
EXPECTED = 0.05


def test_an_interval_of_few_units_or_without_figures_is_not_known() -> None:
    nothing = np.full(DRAWS, np.nan)
    assert np.isnan(interval(0.1, np.ones(DRAWS), np.zeros(DRAWS), FEWEST - 1)).all()
    assert np.isnan(interval(0.1, nothing, nothing, 30)).all()


def test_times_to_collision_by_hand() -> None:
    corner = np.array([[0, 0], [100, 0], [200, 0], [300, 0], [400, 0]], np.float32)
    boxes = np.concatenate([corner, corner + 50], 1)
    true_s = np.array([2.0, 4.0, 3.0, 30.0, 5.0], np.float32)  # the fourth is far off, the fifth not tracked
    truth = Truth.of(boxes, np.zeros(5, int), ttc_s=true_s)
    told_s = np.array([np.inf, 3.0, 9.0, 1.0], np.float32)
    assert contact_errors(boxes[[0, 1, 2, 3]], told_s, truth) == (1 + 0.25 + 1, 3)  # 9 for 3 s is capped
    assert contact_errors(boxes[:0], told_s[:0], truth) == (0.0, 0)
    frames = [(2.25, 3), (0.0, 0), (0.0, 1)]
    weight = np.array([[1.0, 1.0, 1.0], [0.0, 2.0, 1.0], [0.0, 3.0, 0.0]])
    np.testing.assert_allclose(contact_accuracy(frames, weight), [1 - 2.25 / 4, 1.0, np.nan])
