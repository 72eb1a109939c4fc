"""Camera, horizon and distance on figures worked out by hand, and OpenCV as the oracle of lens distortion."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.adas import Camera, Lane, SceneSettings
from edgecnn.adas.drift import Drift
from edgecnn.adas.horizon import Horizon, Ranges
from edgecnn.adas.kinds import CLASSES, Kinds
from edgecnn.adas.path import Path as Way
from edgecnn.adas.path import beside, place
from edgecnn.cli.camera import read_camera
from edgecnn.errors import InputError

FPS = 25.0
SIZE = (1280, 720)
CAMERA = Camera(740.0, 740.0, 640.0, 360.0, height_m=1.2, size=SIZE)
SETTINGS = SceneSettings.read()
KINDS = Kinds(SETTINGS.kinds, CLASSES)
FILE = {"picture": [1280, 720], "fx": 740, "fy": 740, "cx": 640, "cy": 360, "height_m": 1.2, "pitch_rad": 0.02}


# ---- the camera -----------------------------------------------------------------------------------------------------


def test_a_pixel_is_five_per_cent_at_44_m() -> None:
    row = 360 + 740 * 1.2 / 44
    (exact, off), _ = CAMERA.ground(np.full(2, 640.0), np.array([row, row + 1]))
    assert exact == pytest.approx(44)
    assert 44 - off == pytest.approx(0.05 * 44, rel=0.07)  # n Z² / (f H) = 2.18 m, less the second order


def test_a_tenth_of_a_degree_is_three_metres_at_44_m() -> None:
    row = np.array([360 + 740 * 1.2 / 44])
    off = replace(CAMERA, pitch_rad=math.radians(0.1)).ground(np.array([640.0]), row)[0][0]
    assert 44 - off == pytest.approx(2.8, abs=0.2)


def test_a_camera_turned_to_the_right_sees_the_cars_axis_on_its_left() -> None:
    camera = replace(CAMERA, yaw_rad=0.1)
    forward, right = camera.ground(np.array([640 - 740 * math.tan(0.1)]), np.array([360 + 740 * 1.2 / 30]))
    assert right[0] == pytest.approx(0, abs=1e-9)
    assert forward[0] == pytest.approx(30 / math.cos(0.1))


@given(st.floats(-0.3, 0.1), st.floats(-0.02, 0.02), st.floats(40, 1240), st.floats(40, 680))
def test_distortion_is_that_of_opencv(k1: float, p1: float, u: float, v: float) -> None:
    lens = (k1, 0.05, p1, -0.01, 0.01)
    camera = replace(CAMERA, distortion=lens)
    matrix = np.array([[740.0, 0, 640], [0, 740, 360], [0, 0, 1]])
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-12)
    wanted = cv2.undistortPoints(np.array([[[u, v]]]), matrix, np.array(lens), criteria=stop)[0, 0]
    x, y = camera.rays(np.array([u]), np.array([v]))
    assert (x[0], y[0]) == pytest.approx(wanted, abs=1e-5)


def test_a_box_is_straightened_as_a_lens_bends_it() -> None:
    camera = replace(CAMERA, distortion=(-0.2, 0.03, 0.001, -0.002))
    ideal = np.array([[800.0, 300.0, 1000.0, 450.0]], np.float32)
    middles = np.array([[800, 375], [900, 300], [1000, 375], [900, 450]], np.float64)
    rays = np.concatenate([(middles - (640, 360)) / 740, np.ones((4, 1))], axis=1)
    matrix = np.array([[740.0, 0, 640], [0, 740, 360], [0, 0, 1]])
    bent = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), matrix, np.array(camera.distortion))[0][:, 0]
    box = np.array([[bent[0, 0], bent[1, 1], bent[2, 0], bent[3, 1]]], np.float32)
    assert np.abs(box - ideal).max() > 3
    assert camera.straight(box) == pytest.approx(ideal, abs=0.7)  # sides are curves: their middles are what is mapped
    assert CAMERA.straight(box) is box


def test_figures_for_another_size_are_scaled_and_for_another_aspect_refused() -> None:
    half = CAMERA.fitted((640, 360))
    assert (half.fx, half.fy, half.cx, half.cy, half.size) == (370, 370, 320, 180, (640, 360))
    assert CAMERA.fitted(SIZE) == CAMERA
    with pytest.raises(InputError, match="640 x 480 from a camera that is described for 1280 x 720"):
        CAMERA.fitted((640, 480))


def test_a_camera_file_in_yaml_and_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(FILE))
    (tmp_path / "a.yaml").write_text("\n".join(f"{key}: {value}" for key, value in FILE.items()))
    wanted = Camera(740, 740, 640, 360, 1.2, 0.02, size=SIZE)
    assert read_camera(tmp_path / "a.json") == read_camera(tmp_path / "a.yaml") == wanted


def test_the_horizon_may_be_told_instead_of_the_pitch() -> None:
    told = {**{k: v for k, v in FILE.items() if k != "pitch_rad"}, "horizon_px": 360 - 740 * math.tan(0.03)}
    assert Camera.from_json(told, "c").pitch_rad == pytest.approx(0.03)
    assert Camera.from_json(told, "c").horizon_px == pytest.approx(told["horizon_px"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fx": 0}, "fx 0; wanted 1 to 100000"),
        ({"height_m": 30}, "height_m 30; wanted 0.2 to 5"),
        ({"pitch_rad": 2}, "pitch_rad 2; wanted -0.8 to 0.8"),
        ({"pitch_rad": 0.7}, "horizon lies at row -263 of a picture of 720 rows"),
        ({"pitch_rad": None, "horizon_px": 900}, "horizon lies at row 900"),
        ({"horizon_px": 300}, "has both of pitch_rad and horizon_px"),
        ({"focal": 3}, "has the key 'focal'"),
        ({"fy": None}, "lacks fy"),
        ({"cx": "middle"}, "cx is 'middle'"),
        ({"yaw_rad": math.nan}, "yaw_rad nan"),
        ({"distortion": [1, 2]}, r"distortion \[1.0, 2.0\]"),
        ({"picture": [1280]}, "picture: \\[width, height\\]"),
        ({"picture": [1280.5, 720]}, "whole pixels"),
        ({"fx": True}, "fx is True"),
    ],
)
def test_an_absurd_camera_file_is_refused_in_one_line(change: dict[str, object], message: str) -> None:
    data = {key: value for key, value in (FILE | change).items() if value is not None}
    with pytest.raises(InputError, match=message) as error:
        Camera.from_json(data, "camera.yaml")
    assert "camera.yaml" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["- 1\n- 2", "a: [", "", "\x00"])
def test_a_file_that_is_no_camera_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "camera.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"camera\.yaml"):
        read_camera(path)
    with pytest.raises(InputError, match="no camera file"):
        read_camera(tmp_path / "none.yaml")


# ---- the horizon and distances --------------------------------------------------------------------------------------


def rear(gap_m: float, right_m: float = 0.0, *, horizon: float = 360.0, wide_m: float = 1.85) -> np.ndarray:
    """(4,) px of a car's rear at gap_m, whose wheels touch the road `overhang_m` farther."""
    foot = horizon + 740 * 1.2 / (gap_m + SETTINGS.kinds["car"].overhang_m)
    left, right = (640 + 740 * (right_m + side * wide_m / 2) / gap_m for side in (-1, 1))
    return np.array([left, foot - 740 * 1.45 / gap_m, right, foot])


def ranged(frames: list[np.ndarray], *, label: int = 0, horizon: Horizon | None = None) -> Ranges:
    horizon = horizon or Horizon(SETTINGS.range, CAMERA, KINDS, known=True)
    for k, boxes in enumerate(frames):
        xyxy = boxes.reshape(-1, 4).astype(np.float32)
        ids, labels = np.arange(1, len(xyxy) + 1), np.full(len(xyxy), label)
        ranges = horizon.step(ids, labels, xyxy, xyxy, 0.04 * k)
    return ranges


def test_a_usual_car_has_its_distance_from_the_first_frame_on() -> None:
    ranges = ranged([rear(30)])
    assert ranges.forward_m[0] == pytest.approx(30, rel=1e-3)
    assert 0.01 < ranges.sigma_m[0] / 30 < 0.15
    assert ranges.horizon_px == pytest.approx(360, abs=0.1)


def test_a_narrow_car_is_told_from_a_far_one_by_its_foot() -> None:
    seen = [rear(25 - 0.04 * k, wide_m=1.6) for k in range(200)]
    first, last = ranged(seen[:1]), ranged(seen)
    assert first.forward_m[0] > 26  # on the way to the 28.9 m of a car of usual width
    assert last.forward_m[0] == pytest.approx(25 - 0.04 * 199, rel=0.06)
    assert last.sigma_m[0] < first.sigma_m[0]


def test_the_horizon_is_found_where_boxes_shrink_to_nothing() -> None:
    wrong = 360 + 740 * math.tan(math.radians(1.0))  # the camera looks up by 1°, and is said to be level
    random = np.random.default_rng(0)
    horizon = Horizon(replace(SETTINGS.range, mount_rad=0.02), CAMERA, KINDS, known=True)
    gaps, places, widths = np.array([14.0, 25, 40, 60]), np.array([0.0, -3.5, 3.5, 0]), np.array([1.75, 1.9, 1.8, 1.95])
    frames = [
        np.stack([rear(g + d, p, horizon=wrong, wide_m=w) for g, p, w in zip(gaps, places, widths, strict=True)])
        + random.normal(0, 0.5, (4, 4))
        for d in np.linspace(0, 10, 150)
    ]
    found = ranged(frames, horizon=horizon)
    assert abs(found.horizon_px - wrong) < 3.0  # of 12.9 px
    assert found.forward_m == pytest.approx(gaps + 10, rel=0.15)
    assert CAMERA.ground(np.array([640.0]), np.array([frames[-1][2, 3]]))[0][0] == pytest.approx(
        29, abs=2
    )  # without, of 50


def test_the_lanes_vanishing_point_moves_the_horizon_by_its_worth() -> None:
    horizon = Horizon(SETTINGS.range, CAMERA, KINDS, known=True)
    none, boxes = np.zeros(0, np.int64), np.zeros((0, 4), np.float32)
    prior = (740 * math.hypot(SETTINGS.range.mount_rad, SETTINGS.range.sway_rad)) ** 2
    ranges = horizon.step(none, none, boxes, boxes, 0.0, vanishing=(366.0, 2.0))
    assert ranges.horizon_px == pytest.approx(360 + 6 * prior / (prior + 4))
    assert ranges.horizon_sigma_px == pytest.approx(math.sqrt(1 / (1 / prior + 1 / 4)))


def test_a_foot_that_is_hidden_or_in_the_air_moves_nothing() -> None:
    sign = np.array([600.0, 250.0, 680.0, 300.0])
    hidden = rear(10)
    hidden[3] -= 60
    ranges = ranged([np.stack([rear(30), sign, hidden])] * 30)
    assert ranges.horizon_px == pytest.approx(360, abs=0.5)
    assert np.isinf(ranges.forward_m[1])
    assert ranges.forward_m[0] == pytest.approx(30, rel=0.02)


def test_a_car_cut_off_by_the_pictures_side_is_ranged_by_its_foot() -> None:
    box = rear(8, 7.0)
    box[2] = 1280
    assert ranged([box[None]]).forward_m[0] == pytest.approx(8, rel=0.02)


def test_after_a_cut_the_horizon_is_kept_and_the_objects_are_not() -> None:
    horizon = Horizon(SETTINGS.range, CAMERA, KINDS, known=True)
    ranged([rear(20, horizon=362), rear(20, horizon=362)], horizon=horizon)
    horizon.reset()
    assert ranged([rear(30, wide_m=1.6)], horizon=horizon).forward_m[0] > 31


def test_the_error_bar_is_honest_where_the_assumptions_hold() -> None:
    random = np.random.default_rng(5)
    inside, n = [], 40
    for _ in range(n):
        gap, wide = random.uniform(10, 50), 1.85 * (1 + random.normal(0, SETTINGS.kinds["car"].spread_ratio))
        tilt = 740 * random.normal(0, SETTINGS.range.mount_rad)
        bend = random.normal(0, SETTINGS.range.bend_per_m)
        noise = SETTINGS.range.foot_ratio * 720
        box = rear(gap, horizon=360 + tilt - 0.5 * 740 * bend * gap, wide_m=wide)
        ranges = ranged([box[None] + random.normal(0, noise, (1, 4)) for _ in range(15)])
        inside.append(abs(ranges.forward_m[0] - gap) < ranges.sigma_m[0])
    assert 0.5 < np.mean(inside) < 0.9


def test_a_camera_is_pitched_to_a_horizon_that_was_seen() -> None:
    for row in (300.0, 360.0, 420.5):
        assert CAMERA.at_horizon(row).horizon_px == pytest.approx(row)
    assert CAMERA.at_horizon(math.nan) == CAMERA
    assert abs(replace(CAMERA, size=None).at_horizon(-5000.0).pitch_rad) <= 0.8
    assert replace(CAMERA, size=SIZE).at_horizon(-5000.0).horizon_px == pytest.approx(0, abs=1e-9)


# ---- the path -------------------------------------------------------------------------------------------------------


def in_path(way: Way, gap_m: float, right_m: float) -> bool:
    gap, zero = np.array([gap_m]), np.zeros(1)
    aside, half = beside(CAMERA, way, rear(gap_m, right_m)[None], gap)
    return bool(place(SETTINGS.path, gap, aside, half, zero, zero + np.inf).in_path[0])


BEND = Lane(-1.75, 1.75, 0.0, 1 / 200, 60.0)  # 4 m to the right at 40 m


def test_the_path_follows_the_lane_then_our_turning_then_nothing() -> None:
    by_lane = Way.of(CAMERA, BEND, speed_mps=20, yaw_rate_rps=0.0)
    by_turn = Way.of(CAMERA, None, speed_mps=20, yaw_rate_rps=20 / 200)
    straight = Way.of(CAMERA, None, speed_mps=math.nan, yaw_rate_rps=math.nan)
    for way, found in ((by_lane, True), (by_turn, True), (straight, False)):
        assert in_path(way, 40, 4.0) is found
        assert in_path(way, 40, 0.0) is not found
    assert by_lane.right_m(np.array([40.0, 80.0])) == pytest.approx([4.0, 9.0 + 60 / 200 * 20])  # straight on from 60 m


def test_the_corridor_is_the_cars_and_not_the_cameras() -> None:
    aside = Way.of(replace(CAMERA, lateral_m=0.6), None, speed_mps=math.nan, yaw_rate_rps=math.nan)
    assert aside.side_m == -0.6
    assert in_path(aside, 20, -2.0) and not in_path(aside, 20, 1.4)


def test_a_car_that_keeps_to_a_bent_lane_does_not_drift_off_the_path() -> None:
    way, drift = Way.of(CAMERA, BEND, speed_mps=20, yaw_rate_rps=math.nan), Drift(SETTINGS.drift)
    for k in range(50):
        gap = np.array([40 - 8 * k / FPS])
        aside, half = beside(CAMERA, way, rear(gap[0], gap[0] ** 2 / 400)[None], gap)
        moving = drift.step(np.array([1]), aside, gap, np.ones(1, bool), k / FPS)
    assert aside[0] == pytest.approx(0, abs=0.01) and moving[0] == pytest.approx(0, abs=0.02)
    assert place(SETTINGS.path, gap, aside, half, moving, gap / 8).in_path[0]


def test_drift_is_found_and_its_error_falls_with_time() -> None:
    """400 tracks that move 1 m/s to the left, where each is seen 0.15 m off; the deviation is that of a line's slope,
    sigma / (dt sqrt(n³ / 12)), as long as the motion's own noise is small."""
    random, settings = np.random.default_rng(5), replace(SETTINGS.drift, noise_rad=0.0, acceleration_mps2=0.01)
    drift, ids, far = Drift(settings), np.arange(400), np.full(400, 20.0)
    for k in range(25):
        aside = 3 - k / FPS + random.normal(0, settings.noise_m, 400)
        moving = drift.step(ids, aside, far, np.ones(400, bool), k / FPS)
    assert moving.mean() == pytest.approx(-1, abs=0.05)
    assert moving.std() == pytest.approx(settings.noise_m * FPS / math.sqrt(25**3 / 12), rel=0.15)


def test_a_track_that_was_not_measured_for_long_starts_anew() -> None:
    drift, one, far = Drift(SETTINGS.drift), np.array([3]), np.array([20.0])
    for k in range(20):
        moving = drift.step(one, np.array([0.1 * k]), far, np.ones(1, bool), k / FPS)
    assert moving[0] > 1
    later = 20 / FPS + SETTINGS.drift.forget_s + 0.1
    assert drift.step(one, np.array([5.0]), far, np.zeros(1, bool), later)[0] == 0
    assert drift.step(one, np.array([5.0]), far, np.ones(1, bool), later + 1 / FPS)[0] == 0
