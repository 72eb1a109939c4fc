"""What the driver sees, held against the pixels: each warning has a place and a colour of its own, at every size."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from edgecnn.adas import Camera, Lane, Scene
from edgecnn.run.draw import AMBER, CALM, INK, LINE, PURPLE, RED, Painter, corridor, on_picture
from edgecnn.run.loop import FrameResult
from edgecnn.run.modes import Status
from edgecnn.scene import Frame, Picture, Tracks

SIZES = [(426, 240), (640, 384), (1280, 720), (1920, 1080)]
GROUND = 90
NOWHERE = np.zeros((0, 4), np.float32)
LANE = Lane(-1.8, 1.7, 0.01, 1 / 500, 50.0)


def camera(width: int, height: int) -> Camera:
    return Camera(0.9 * width, 0.9 * width, width / 2, height / 2, 1.3, 0.02)


def result(width: int, height: int, on: tuple[str, ...] = (), **more: Any) -> FrameResult:
    """A car ahead in the path, one beside; grey ground."""
    boxes = np.array([[0.44, 0.42, 0.56, 0.62], [0.7, 0.45, 0.85, 0.6]]) * (width, height, width, height)
    two = np.array([2.1, 9.0], np.float32)
    warned = np.array([bool({"fcw", "pedestrian"} & set(on)), False])
    zeros = np.zeros(2, np.float32)
    tracks = Tracks(
        np.array([7, 12]), boxes.astype(np.float32), zeros + 0.8, np.array([0, 1]), np.zeros((2, 2), np.float32),
        zeros, zeros, np.zeros(2, np.int64), warned | True,
    )  # fmt: skip
    scene = Scene(two, two * 0.1, two * 10, two, np.array([True, False]), warned, (), 0, 0.7, on=on)
    bgr = np.full((height, width, 3), GROUND, np.uint8)
    return FrameResult(Frame(60, 0, bgr), None, tracks, replace(scene, **more), "stride", False, NOWHERE, False, {})


def painted(size: tuple[int, int], on: tuple[str, ...] = (), status: Status | None = None, **more: Any) -> Picture:
    return Painter(("car", "truck_bus"))(result(*size, on, **more), camera(*size), status or Status())


def share(picture: Picture, colour: tuple[int, int, int]) -> float:
    return float((np.abs(picture.astype(int) - colour).max(axis=2) < 12).mean())


@pytest.mark.parametrize("size", SIZES)
def test_each_warning_looks_different_from_all_others(size: tuple[int, int]) -> None:
    kinds = [(), ("fcw",), ("pedestrian",), ("headway",), ("ldw_left",), ("ldw_right",)]
    small = [cv2.resize(painted(size, on), (64, 36), interpolation=cv2.INTER_AREA).astype(int) for on in kinds]
    for a, b in itertools.combinations(small, 2):
        assert (np.abs(a - b).max(axis=2) > 40).mean() > 0.02  # in more than 2 % of the picture


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kind", "colour"), [("fcw", RED), ("pedestrian", PURPLE), ("headway", AMBER)])
def test_a_banner_goes_across_the_top(kind: str, colour: tuple[int, int, int], size: tuple[int, int]) -> None:
    height = size[1]
    top = painted(size, (kind,))[: height // 20]
    assert share(top, colour) > 0.6
    assert share(painted(size)[: height // 20], colour) == 0


def test_banners_stack() -> None:
    picture = painted((640, 384), ("fcw", "headway"))
    assert share(picture[:25], RED) > 0.6 and share(picture[40:60], AMBER) > 0.6


@pytest.mark.parametrize(("kind", "left"), [("ldw_left", True), ("ldw_right", False)])
def test_leaving_the_lane_shows_at_that_edge(kind: str, left: bool) -> None:
    picture = painted((640, 384), (kind,))[100:280]
    edges = share(picture[:, :20], AMBER), share(picture[:, -20:], AMBER)
    assert edges[not left] > 0.5 and edges[left] == 0


@pytest.mark.parametrize("size", SIZES)
def test_not_monitoring_hides_what_could_be_taken_for_a_judgement(size: tuple[int, int]) -> None:
    off = Status("WARN-OFF", ("blurred",))
    picture = painted(size, ("fcw",), off, lane=LANE)
    assert share(picture[4 : size[1] // 20, 8:-8], INK) > 0.6  # its banner, and none of a warning
    assert share(picture[:, :2], RED) > 0.9 and share(picture[:, -2:], RED) > 0.9  # a red frame
    road = picture[size[1] * 8 // 10 : size[1] * 9 // 10, size[0] // 4 : -size[0] // 4]
    assert (road == GROUND).all()  # no path, no lane
    same = painted(size, (), off, lane=LANE, lead=-1, in_path=np.zeros(2, bool), ttc_s=np.full(2, np.inf, np.float32))
    calm = painted(size, (), off, lane=LANE)
    assert np.abs(same.astype(int) - calm).max(axis=2).mean() < 2  # neither the lead nor its time to collision


def test_reduced_is_told_with_its_cause() -> None:
    plain, told = painted((640, 384)), painted((640, 384), (), Status("REDUCED", ("deadline missed",)))
    assert share(told, AMBER) > share(plain, AMBER) + 0.003


def test_the_path_bends_with_the_lane() -> None:
    width, height = 640, 384
    straight, bent = (
        corridor(camera(width, height), width, height),
        corridor(camera(width, height), width, height, LANE),
    )
    assert straight is not None and bent is not None
    half = len(straight) // 2
    forward, right = camera(width, height).ground(*(0.5 * (bent[:half] + bent[::-1][:half])).T)
    np.testing.assert_allclose(right[forward < 25], LANE.bend(forward[forward < 25]), atol=0.15)
    np.testing.assert_array_equal(straight[:, 1], bent[:, 1])
    unseen = corridor(camera(width, height), width, height, replace(LANE, left_m=math.nan))
    np.testing.assert_array_equal(straight, unseen)


def test_the_path_ends_at_the_lead() -> None:
    size = (640, 384)
    lead, free = painted(size), painted(size, lead=-1)
    inside = np.s_[200:225, 300:340]  # of the car's box
    assert (lead[inside] == GROUND).all() and (free[inside] != GROUND).any()


def test_the_lane_lies_where_the_camera_sees_it() -> None:
    size = (1280, 720)
    picture = painted(size, lane=LANE)
    forward = np.array([8.0, 12.0, 20.0])
    for side in (LANE.left_m, LANE.right_m):
        for u, v in on_picture(camera(*size), forward, side + LANE.bend(forward)).round().astype(int):
            spot = picture[v - 2 : v + 3, u - 2 : u + 3]
            assert share(spot, LINE) > 0.2
    one = painted(size, lane=replace(LANE, left_m=math.nan))
    assert 0 < share(one, LINE) < share(picture, LINE)


@pytest.mark.parametrize("more", [{}, {"yaw_rad": 0.05}, {"distortion": (-0.2, 0.04, 0.001, 0.002)}])
def test_projection_is_the_inverse_of_ground(more: dict[str, Any]) -> None:
    cam = replace(camera(1280, 720), **more)
    forward, right = np.array([4.0, 10.0, 40.0]), np.array([-2.0, 0.5, 3.0])
    back = cam.ground(*on_picture(cam, forward, right).T)
    np.testing.assert_allclose(back, (forward, right), rtol=1e-5)
    assert np.isnan(on_picture(cam, np.array([-5.0]), np.array([0.0]))).all()


def test_the_bar_fills_as_the_collision_nears() -> None:
    def filled(ttc: float) -> float:
        picture = painted((1280, 720), ttc_s=np.array([ttc, np.inf], np.float32), ttc_sigma_s=np.zeros(2, np.float32))
        below = picture[447:458, 500:780]
        return max(share(below, colour) for colour in (RED, AMBER, CALM))

    assert filled(0.5) > filled(2.5) > filled(4.0) > filled(5.9)


def test_the_lead_is_marked_and_a_doubtful_time_is_not_shown() -> None:
    picture, other = painted((1280, 720)), painted((1280, 720), lead=-1)
    assert (picture[446:500] != other[446:500]).any()
    doubtful = painted((1280, 720), ttc_sigma_s=np.full(2, 9.0, np.float32))
    assert (doubtful[440:452] != picture[440:452]).any()


def test_searched_regions_are_outlined_but_not_a_whole_frame() -> None:
    plain, paint = result(640, 384), Painter(("car", "truck_bus"))
    before = paint(plain, camera(640, 384), Status())
    window = np.array([[100, 200, 300, 330]], np.float32)
    changed = (paint(replace(plain, searched=window), camera(640, 384), Status()) != before).any(axis=2)
    assert changed[200, 110:220].mean() > 0.9 and changed.sum() < 800
    whole = replace(plain, whole=True, searched=np.array([[0, 0, 640, 384]], np.float32))
    assert (paint(whole, camera(640, 384), Status()) == before).all()


@pytest.mark.parametrize("size", [(16, 16), (64, 48), (3840, 2160), (100, 1000)])
def test_odd_sizes_are_drawn_without_a_crash(size: tuple[int, int]) -> None:
    status = Status("REDUCED", ("deadline missed", "frames too old"), age_s=0.4)
    picture = painted(size, ("fcw", "pedestrian", "headway", "ldw_left", "ldw_right"), status, lane=LANE)
    assert picture.shape == (size[1], size[0], 3)
    assert painted(size, (), Status("WARN-OFF", ("black",))).shape == picture.shape
