"""The metrics against hand-computed tables, the official COCO numbers, and the trackeval package."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn.errors import InputError
from edgecnn.metrics.topk import topk
from edgecnn.metrics.tracking import Identified, evaluate_tracks
from edgecnn.scene import Detections, Tracks, Truth

pytest.importorskip("pycocotools", reason="the desk extra is not installed")
from edgecnn.metrics.detection import evaluate_detections


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def found(xyxy: np.ndarray, score: Sequence[float], label: Sequence[int]) -> Detections:
    return Detections(xyxy, np.array(score, np.float32), np.array(label, np.int64))


def truth(xyxy: np.ndarray, label: Sequence[int], ignore: Sequence[bool] | None = None) -> Truth:
    return Truth.of(xyxy, np.array(label, np.int64), ignore=None if ignore is None else np.array(ignore, bool))


# ---- detection ------------------------------------------------------------------------------------------------------

CAR, TRUCK = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 40.0, 10.0)


def test_a_perfect_detector_has_ap_1_and_an_unseen_class_is_nan() -> None:
    sample = (found(boxes(CAR, TRUCK), [0.9, 0.8], [0, 1]), truth(boxes(CAR, TRUCK), [0, 1]))
    figures = evaluate_detections([sample], ["car", "truck", "bus"])
    for name in ("AP", "AP50", "car/AP", "truck/AP50"):
        assert figures[name] == pytest.approx(1.0), name
    assert np.isnan(figures["bus/AP"])


def test_half_the_cars_found_gives_the_51_of_101_recall_points() -> None:
    other = (100.0, 100.0, 130.0, 130.0)
    figures = evaluate_detections([(found(boxes(CAR), [0.9], [0]), truth(boxes(CAR, other), [0, 0]))], ["car"])
    assert figures["car/AP"] == pytest.approx(51 / 101)
    assert figures["AR"] == pytest.approx(0.5)


def test_overlap_of_0_6_counts_up_to_that_threshold() -> None:
    shifted = (0.0, 0.0, 10.0, 6.1)  # IoU .61 with CAR: the thresholds .5, .55, .6 of ten
    figures = evaluate_detections([(found(boxes(shifted), [0.9], [0]), truth(boxes(CAR), [0]))], ["car"])
    assert figures["AP"] == pytest.approx(0.3)
    assert figures["AP50"] == pytest.approx(1.0)
    assert figures["AP75"] == 0.0


def test_a_truck_called_car_is_wrong_by_class_and_right_as_a_vehicle() -> None:
    sample = (found(boxes(CAR, TRUCK), [0.9, 0.8], [0, 0]), truth(boxes(CAR, TRUCK), [0, 1]))
    figures = evaluate_detections([sample], ["car", "truck"], {"vehicle": (0, 1)})
    assert figures["truck/AP"] == 0.0
    assert figures["vehicle/AP"] == pytest.approx(1.0)
    assert figures["AP"] == pytest.approx(0.5)


@pytest.mark.parametrize("label", [0, -1])
def test_a_detection_in_an_ignored_region_is_neither_hit_nor_miss(label: int) -> None:
    region = (100.0, 0.0, 200.0, 100.0)
    inside = boxes(CAR, (110.0, 10.0, 130.0, 30.0), (150.0, 10.0, 190.0, 30.0))
    guesses = found(inside, [0.5, 0.9, 0.8], [0, 0, 0])
    plain = evaluate_detections([(guesses, truth(boxes(CAR), [0]))], ["car"])
    ignored = evaluate_detections([(guesses, truth(boxes(CAR, region), [0, label], [False, True]))], ["car"])
    assert plain["car/AP"] == pytest.approx(1 / 3, abs=0.01)  # two false alarms ranked above the hit
    assert ignored["car/AP"] == pytest.approx(1.0)


def test_pictures_without_detections_or_truth_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = Truth.of(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    empty_handed = (Detections.empty(), truth(boxes(CAR), [0]))
    assert evaluate_detections([empty_handed], ["car"])["AP"] == 0.0
    false_alarm = (found(boxes(CAR), [0.99], [0]), nothing)
    hit = (found(boxes(CAR), [0.5], [0]), truth(boxes(CAR), [0]))
    assert evaluate_detections([false_alarm, hit], ["car"])["AP"] == pytest.approx(0.5)
    assert capsys.readouterr().out == ""


def test_detection_refuses_nothing_and_a_clash_of_names() -> None:
    with pytest.raises(InputError, match="no pictures"):
        evaluate_detections([], ["car"])
    with pytest.raises(InputError, match="car"):
        evaluate_detections([(Detections.empty(), truth(boxes(CAR), [0]))], ["car"], {"car": (0,)})


def test_the_official_coco_sample_gives_the_official_numbers(shared_data: Path) -> None:
    folder = shared_data / "detection" / "coco_eval_reference"
    official = json.loads((folder / "sampled_gts_bbox_area.json").read_text())
    results = json.loads((folder / "cocoapi_results.json").read_text())
    index = {category["id"]: i for i, category in enumerate(official["categories"])}

    def columns(rows: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
        xywh = np.array([row["bbox"] for row in rows], np.float32).reshape(-1, 4)
        xywh[:, 2:] += xywh[:, :2]
        return xywh, np.array([index[row["category_id"]] for row in rows], np.int64)

    samples = []
    for picture in official["images"]:
        mine = [row for row in results if row["image_id"] == picture["id"]]
        true = [row for row in official["annotations"] if row["image_id"] == picture["id"]]
        box, label = columns(mine)
        score = np.array([row["score"] for row in mine], np.float32)
        samples.append((Detections(box, score, label), Truth.of(*columns(true))))
    figures = evaluate_detections(samples, [category["name"] for category in official["categories"]])
    # What COCOeval.summarize() prints for the two files themselves, to five places (its stats 0-5 and 8).
    expected = {"AP": 0.50365, "AP50": 0.69697, "AP75": 0.57167, "AR": 0.59535}
    expected |= {"AP_small": 0.59325, "AP_medium": 0.55799, "AP_large": 0.48936}
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, abs=2e-4), name


# ---- tracking -------------------------------------------------------------------------------------------------------


def tracks(ids: Sequence[int], xyxy: np.ndarray) -> Tracks:
    n, zero = len(ids), np.zeros(len(ids), np.float32)
    integers, twos = np.zeros(n, np.int64), np.zeros((n, 2), np.float32)
    return Tracks(np.array(ids, np.int64), xyxy, zero, integers, twos, zero, zero, integers, np.ones(n, bool))


def real(ids: Sequence[int], xyxy: np.ndarray, ignore: Sequence[bool] | None = None) -> Truth:
    known = None if ignore is None else np.array(ignore, bool)
    return Truth.of(xyxy, np.zeros(len(ids), np.int64), id=np.array(ids, np.int64), ignore=known)


def test_perfect_tracks_score_1_under_other_numbers() -> None:
    frames = [(tracks([71, 9], boxes(CAR, TRUCK)), real([1, 2], boxes(CAR, TRUCK)))] * 5
    figures = evaluate_tracks([frames])
    assert figures["HOTA"] == figures["MOTA"] == figures["IDF1"] == figures["LocA"] == 1.0


def test_one_switch_halfway() -> None:
    frames = [(tracks([1 + (k >= 2)], boxes(CAR)), real([1], boxes(CAR))) for k in range(4)]
    figures = evaluate_tracks([frames])
    assert figures["MOTA"] == pytest.approx(3 / 4)
    assert figures["IDF1"] == pytest.approx(0.5)
    # A(c) = 2 / (4 + 2 - 2) for each of the 4 hits, DetA = 1
    assert figures["HOTA"] == pytest.approx(np.sqrt(0.5))
    assert figures["switches"] == 1


def test_false_and_missed_boxes_make_mota_negative() -> None:
    frames = [(tracks([1, 2], boxes(TRUCK, (50, 50, 60, 60))), real([1], boxes(CAR)))]
    figures = evaluate_tracks([frames])
    assert figures["MOTA"] == -2.0
    assert figures["HOTA"] == figures["IDF1"] == 0.0
    assert (figures["misses"], figures["false"]) == (1, 2)


def test_tracks_on_ignored_truth_do_not_count() -> None:
    far = (100.0, 100.0, 120.0, 120.0)
    ours = tracks([1, 2], boxes(CAR, far))
    assert evaluate_tracks([[(ours, real([1, 2], boxes(CAR, far), [False, True]))]])["MOTA"] == 1.0
    region = (90.0, 90.0, 300.0, 300.0)  # DontCare: no overlap of .5, but the track lies inside it
    assert evaluate_tracks([[(ours, real([1, 2], boxes(CAR, region), [False, True]))]])["MOTA"] == 1.0


def test_the_same_number_twice_in_a_frame_is_refused() -> None:
    with pytest.raises(InputError, match="twice"):
        evaluate_tracks([[(tracks([1, 1], boxes(CAR, TRUCK)), real([1], boxes(CAR)))]])


def noisy_sequence(seed: int) -> list[tuple[Identified, Truth]]:
    """Random walks with misses, false alarms, exchanged numbers, empty frames."""
    random = np.random.default_rng(seed)
    at, number = random.uniform(0, 200, (6, 2)), np.arange(6) + 10
    frames: list[tuple[Identified, Truth]] = []
    for k in range(40):
        at += random.normal(0, 4, at.shape)
        box = np.concatenate([at, at + 30], axis=1).astype(np.float32)
        if random.random() < 0.1:
            number[:2] = number[1::-1]
        there = random.random(6) > (1.0 if k == 7 else 0.1)
        kept = random.random(6) > (1.0 if k == 13 else 0.2)
        guess = (box[kept] + random.normal(0, 4, (kept.sum(), 4))).astype(np.float32)
        ids = number[kept]
        if random.random() < 0.3:
            guess = np.concatenate([guess, boxes((250, 250, 280, 280))])
            ids = np.append(ids, 99 + k // 10)
        frames.append((tracks(ids.tolist(), guess), real(np.flatnonzero(there).tolist(), box[there])))
    return frames


def test_trackeval_agrees() -> None:
    trackeval = pytest.importorskip("trackeval")
    from edgecnn.track.assign import iou

    sequences = [noisy_sequence(seed) for seed in range(4)]
    quiet = {"PRINT_CONFIG": False}
    metrics = [trackeval.metrics.HOTA(), trackeval.metrics.CLEAR(quiet), trackeval.metrics.Identity(quiet)]
    results: list[dict[str, Any]] = [{} for _ in metrics]
    for number, frames in enumerate(sequences):
        known = np.unique(np.concatenate([t.id for t, _ in frames]))
        true = np.unique(np.concatenate([g.id for _, g in frames]))
        data = {
            "num_timesteps": len(frames),
            "gt_ids": [np.searchsorted(true, g.id) for _, g in frames],
            "tracker_ids": [np.searchsorted(known, t.id) for t, _ in frames],
            "similarity_scores": [iou(g.xyxy, t.xyxy) for t, g in frames],
            "num_gt_ids": len(true),
            "num_tracker_ids": len(known),
            "num_gt_dets": sum(len(g) for _, g in frames),
            "num_tracker_dets": sum(len(t.id) for t, _ in frames),
        }
        for metric, result in zip(metrics, results, strict=True):
            result[str(number)] = metric.eval_sequence(data)
    hota, clear, identity = (m.combine_sequences(r) for m, r in zip(metrics, results, strict=True))
    ours = evaluate_tracks(sequences)
    for name in ("HOTA", "DetA", "AssA", "LocA"):
        assert ours[name] == pytest.approx(np.mean(hota[name]), abs=1e-9), name
    assert ours["MOTA"] == pytest.approx(clear["MOTA"])
    assert ours["switches"] == clear["IDSW"] > 0
    assert (ours["misses"], ours["false"]) == (clear["CLR_FN"], clear["CLR_FP"])
    assert ours["IDF1"] == pytest.approx(identity["IDF1"])


# ---- classification -------------------------------------------------------------------------------------------------


def test_topk_by_hand() -> None:
    scores = np.array([[9, 1, 2, 3, 4, 5], [9, 8, 7, 6, 5, 4], [1, 2, 3, 4, 5, 9], [0, 0, 0, 0, 0, 1]], np.float32)
    assert topk(scores, np.array([0, 4, 0, 5])) == {"top1": 0.5, "top5": 0.75}


def test_a_constant_network_is_right_about_nothing() -> None:
    assert topk(np.ones((3, 10), np.float32), np.array([0, 1, 2])) == {"top1": 0.0, "top5": 0.0}
    assert topk(np.full((3, 10), np.nan, np.float32), np.array([0, 1, 2])) == {"top1": 0.0, "top5": 0.0}


@pytest.mark.parametrize("labels", [[0, 1], [0, 1, 3], [0, 1, -1]])
def test_topk_refuses_labels_that_do_not_fit(labels: list[int]) -> None:
    with pytest.raises(InputError):
        topk(np.eye(3, dtype=np.float32), np.array(labels))
