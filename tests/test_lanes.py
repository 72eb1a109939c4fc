"""The lane detector on painted roads whose lines are known exactly, and on pictures that hold none.

The road is painted by asking of every pixel where on the road it lies (Camera.ground, tested by hand in test_adas), at
twice the resolution; the detector goes the other way, from the road to pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_detector import MODEL

from edgecnn.adas import Camera, Lane, LaneDetector
from edgecnn.adas.marks import Eye, MarkSettings, between, covered
from edgecnn.adas.propose import ProposeSettings, propose
from edgecnn.run import Pipeline, RunSettings
from edgecnn.scene import Frame

CAMERA = Camera(560.0, 560.0, 320.0, 180.0, height_m=1.3, pitch_rad=0.02)
SIZE = (640, 360)
WHITE, YELLOW, GREY = (225, 225, 225), (60, 175, 230), 105.0


@lru_cache(64)
def ground(camera: Camera) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Metres ahead and right of every half pixel; far away above the horizon."""
    u, v = np.meshgrid((np.arange(2 * SIZE[0]) + 0.5) / 2, (np.arange(2 * SIZE[1]) + 0.5) / 2)
    z, x = camera.ground(u.ravel(), v.ravel())
    z, x = np.where(np.isfinite(z), z, 1e3), np.where(np.isfinite(x), x, 1e3)
    return z.reshape(u.shape).astype(np.float32), x.reshape(u.shape).astype(np.float32)


@lru_cache
def _noise() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((SIZE[1], SIZE[0], 3), np.float32)


@dataclass(frozen=True)
class Road:
    """Lines at `sides` m, of our own lane or others, in the axes of Lane."""

    sides: tuple[float, ...] = (-1.8, 1.7)
    slope: float = 0.0
    curvature: float = 0.0
    dash_m: float = 0.0  # of each 12 m; 0 = solid
    colour: tuple[int, int, int] = WHITE
    ground: float = GREY
    noise: float = 4.0

    def paint(self, camera: Camera = CAMERA, *, along_m: float = 0.0, seed: int = 0) -> NDArray[np.uint8]:
        """What the camera sees when it has driven `along_m` metres."""
        z, x = ground(camera)
        across = x - np.float32(self.slope) * z - np.float32(0.5 * self.curvature) * z * z
        line = np.zeros(x.shape, bool)
        for side in self.sides:
            line |= np.abs(across - np.float32(side)) < 0.075
        line &= z < 120
        if self.dash_m:
            line &= (z + np.float32(along_m)) % 12 < self.dash_m
        share = cv2.resize(line.astype(np.float32), SIZE, interpolation=cv2.INTER_AREA)[..., None]
        noise = np.roll(_noise(), (37 * seed, 91 * seed), (0, 1)) * np.float32(self.noise)
        picture = np.float32(self.ground) * (1 - share) + np.array(self.colour, np.float32) * share + noise
        return picture.clip(0, 255).astype(np.uint8)

    def drive(
        self, detector: LaneDetector, frames: int = 20, camera: Camera = CAMERA, start: int = 0
    ) -> list[Lane | None]:
        """25 frames and 20 m in a second."""
        return [
            detector.step(self.paint(camera, along_m=0.8 * k, seed=k), k * 40_000_000)
            for k in range(start, start + frames)
        ]


def seen(lane: Lane | None) -> Lane:
    assert lane is not None and lane.seen
    return lane


def test_directions_are_the_cameras_geometry() -> None:
    eye = Eye(CAMERA, MarkSettings())
    forward, right = np.array([5.0, 20.0, 60.0]), np.array([-1.5, 2.0, 0.5])
    q, p = 1.3 / forward, right / forward
    z, x = CAMERA.ground(eye.columns(p, q), eye.rows(q))
    assert z == pytest.approx(forward) and x == pytest.approx(right)
    assert eye.down(eye.rows(q)) == pytest.approx(q)
    assert eye.rows(np.zeros(1)) == pytest.approx(CAMERA.horizon_px)


def test_a_strip_brighter_than_both_sides_stands_out_and_an_edge_does_not() -> None:
    strip = np.full((2, 41), 100, np.float32)
    strip[0, 19:22] = 200  # a line 15 cm wide
    strip[1, 20:] = 200  # a kerb
    response, _ = Eye(CAMERA, MarkSettings()).ridges(strip, np.array([5.0, 5.0]))
    assert response[0].argmax() == 20 and response[0].max() > 10
    assert response[1].max() < 1


def test_yellow_on_concrete_stands_out_where_grey_would_not() -> None:
    picture = np.full((40, 60, 3), 185, np.uint8)
    picture[:, 29:32] = (40, 170, 230)
    assert abs(int(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)[0, 30]) - 185) < 15
    eye = Eye(Camera(100.0, 100.0, 30.0, 0.0, 1.0), MarkSettings())
    paint = eye.sample(picture, np.array([[-0.2, 0.005, 0.2]]), np.array([0.2]))
    assert paint[0, 1] > paint[0, 0] + 40 and paint[0, 1] > paint[0, 2] + 40


def test_the_top_of_a_ridge_between_points() -> None:
    top = 5.3
    response = (10 - (np.arange(11)[None] - top) ** 2).astype(np.float32)
    assert between(response, np.array([0]), np.array([5])) == pytest.approx([top], abs=1e-4)


def test_points_in_boxes() -> None:
    boxes = np.array([[10, 10, 20, 20], [100, 0, 120, 50]], np.float32)
    inside = covered(np.array([15.0, 30.0, 110.0]), np.array([15.0, 15.0, 49.0]), boxes, margin=0.0)
    assert inside.tolist() == [True, False, True]
    assert not covered(np.array([1.0]), np.array([1.0]), np.zeros((0, 4), np.float32)).any()


def test_votes_find_two_lines_and_where_they_meet() -> None:
    """p = side (q - horizon) / H + slope, by hand."""
    q = np.tile(np.linspace(0.08, 0.3, 30), 2)
    p = np.repeat([-1.7, 1.9], 30) * (q - 0.03) / 1.3 + 0.01
    found = propose(ProposeSettings(), p, q, (0.0,), height_m=1.3, horizon=0.0, horizon_sigma=0.05)
    assert found is not None
    assert (found.left_m, found.right_m) == (pytest.approx(-1.7, abs=0.15), pytest.approx(1.9, abs=0.15))
    assert (found.horizon, found.slope) == (pytest.approx(0.03, abs=0.01), pytest.approx(0.01, abs=0.01))
    assert propose(ProposeSettings(), p[:3], q[:3], (0.0,), height_m=1.3, horizon=0.0, horizon_sigma=0.05) is None


@pytest.mark.parametrize(
    "road",
    [
        Road(),
        Road(sides=(-2.3, 1.2), slope=0.02),
        Road(curvature=1 / 400),
        Road(curvature=-1 / 250),
        Road(sides=(-5.4, -1.8, 1.8, 5.4), dash_m=4),
        Road(colour=YELLOW, ground=170),
        Road(ground=25, colour=(60, 60, 60), noise=6),
    ],
    ids=["straight", "aside", "right bend", "left bend", "dashed lanes", "yellow on concrete", "night"],
)
def test_a_painted_lane_is_measured(road: Road) -> None:
    lane = seen(road.drive(LaneDetector(CAMERA))[-1])
    ours = min((s for s in road.sides if s < 0), key=abs), min((s for s in road.sides if s > 0), key=abs)
    assert (lane.left_m, lane.right_m) == (pytest.approx(ours[0], abs=0.06), pytest.approx(ours[1], abs=0.06))
    z = np.array([20.0, 40.0])
    assert lane.bend(z) == pytest.approx(road.slope * z + 0.5 * road.curvature * z * z, abs=0.2)
    if road.curvature:
        assert lane.curvature == pytest.approx(road.curvature, rel=0.15)
    assert lane.reach_m > 25


def test_a_line_that_is_not_there_is_not_invented() -> None:
    lanes = Road(sides=(-1.6,)).drive(LaneDetector(CAMERA))
    lane = lanes[-1]
    assert lane is not None and not lane.seen
    assert lane.left_m == pytest.approx(-1.6, abs=0.06) and math.isnan(lane.right_m)
    assert all(lane is None or math.isnan(lane.right_m) for lane in lanes)


@pytest.mark.parametrize("noise", [0.0, 8.0, 40.0])
@pytest.mark.parametrize("known", [True, False])
def test_noise_is_no_lane(noise: float, known: bool) -> None:
    detector = LaneDetector(CAMERA, known=known)
    assert not any(Road(sides=(), noise=noise).drive(detector, 30))
    assert math.isnan(detector.horizon_px) and detector.horizon_sigma_px == math.inf


def test_a_lane_that_ends_is_forgotten_within_a_second() -> None:
    detector = LaneDetector(CAMERA)
    seen(Road().drive(detector, 15)[-1])
    lanes = Road(sides=()).drive(detector, 25, start=15)
    assert lanes[0] is not None and lanes[-1] is None
    seen(Road().drive(detector, 15, start=40)[-1])


def test_the_horizon_of_a_camera_of_unknown_pitch_is_found() -> None:
    """Assumed level, and really 3° down: the horizon lies 27 px higher than assumed."""
    really = replace(CAMERA, pitch_rad=0.05)
    detector = LaneDetector(replace(CAMERA, pitch_rad=0.0), known=False)
    lane = seen(Road(curvature=1 / 500, slope=-0.01).drive(detector, 30, really)[-1])
    assert detector.horizon_px == pytest.approx(really.horizon_px, abs=1.5)
    assert 0 < detector.horizon_sigma_px < 3
    assert (lane.left_m, lane.right_m) == (pytest.approx(-1.8, abs=0.1), pytest.approx(1.7, abs=0.1))
    assert lane.curvature == pytest.approx(1 / 500, rel=0.2)
    detector.reset()  # as after a cut: the camera is still the same
    assert math.isnan(detector.horizon_px)
    seen(Road().drive(detector, 6, really)[-1])
    assert detector.horizon_px == pytest.approx(really.horizon_px, abs=1.5)


def test_a_shaken_known_camera_keeps_its_metres() -> None:
    detector, road = LaneDetector(CAMERA), Road()
    for k in range(26):
        pitch = CAMERA.pitch_rad + 0.004 * math.sin(2 * math.pi * 1.3 * k / 25)
        lane = detector.step(road.paint(replace(CAMERA, pitch_rad=pitch), along_m=0.8 * k, seed=k), k * 40_000_000)
    assert (seen(lane).left_m, seen(lane).right_m) == (pytest.approx(-1.8, abs=0.06), pytest.approx(1.7, abs=0.06))
    assert detector.horizon_px == pytest.approx(replace(CAMERA, pitch_rad=pitch).horizon_px, abs=1.0)


def test_crossing_a_line_makes_the_next_lane_ours() -> None:
    detector = LaneDetector(CAMERA)
    for k in range(75):
        drift = max(0.0, 0.05 * (k - 10))
        road = Road(sides=tuple(side - drift for side in (-1.8, 1.8, 5.4)))
        lane = detector.step(road.paint(along_m=0.8 * k, seed=k), k * 40_000_000)
    assert (seen(lane).left_m, seen(lane).right_m) == (
        pytest.approx(1.8 - drift, abs=0.15),
        pytest.approx(5.4 - drift, abs=0.15),
    )


def test_a_vehicle_on_a_line_is_no_paint() -> None:
    """A white bar beside the lane's only line would pass for the other line, were it not in a vehicle's box."""
    road, plain, masked = Road(sides=(-1.7, 1.7)), LaneDetector(CAMERA), LaneDetector(CAMERA)
    bare = replace(road, sides=(-1.7,))
    box = np.array([[330, 188, 640, 360]], np.float32)
    for k in range(12):
        with_bar, without = road.paint(along_m=0.8 * k, seed=k), bare.paint(along_m=0.8 * k, seed=k)
        picture = np.where(np.arange(640)[None, :, None] > 340, with_bar, without)
        open_lane, lane = plain.step(picture, k * 40_000_000), masked.step(picture, k * 40_000_000, box)
    assert seen(open_lane)
    assert lane is not None and math.isnan(lane.right_m)


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("shape", [(360, 640, 3), (1, 640, 3), (48, 64, 3)])
def test_empty_and_tiny_pictures(shape: tuple[int, ...], value: int) -> None:
    detector = LaneDetector(Camera.assumed((shape[1], shape[0])), known=False)
    assert [detector.step(np.full(shape, value, np.uint8), k * 40_000_000) for k in range(9)] == [None] * 9


def test_a_clock_that_stands_or_runs_back_does_no_harm() -> None:
    detector = LaneDetector(CAMERA)
    times = [0, 0, 40, 40, 20, 0, 10**6, *range(0, 200, 10)]
    lanes = [detector.step(Road().paint(along_m=0.8 * k, seed=k), t * 1_000_000) for k, t in enumerate(times)]
    assert seen(lanes[-1]).left_m == pytest.approx(-1.8, abs=0.06)


def test_the_same_frames_give_the_same_lane() -> None:
    assert Road().drive(LaneDetector(CAMERA), 6) == Road().drive(LaneDetector(CAMERA), 6)


class Blind:
    """A network that sees nothing."""

    name = "blind"

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {out.name: np.zeros(out.shape, np.float32) for out in MODEL.outputs}


def test_the_loop_tells_of_the_lane_and_forgets_it_at_a_cut() -> None:
    """After a cut nothing is left of the lane before, not even where it was."""
    road, other = Road(), Road(sides=(-1.2, 2.3), ground=170.0, colour=(250, 250, 250))
    pipeline = Pipeline(MODEL, Blind(), RunSettings(detect_every=1), fps=25.0, camera=CAMERA)
    results = [pipeline.step(Frame(k, k * 40_000_000, road.paint(along_m=0.8 * k, seed=k))) for k in range(12)]
    assert seen(results[-1].scene.lane).left_m == pytest.approx(-1.8, abs=0.06)
    for k in range(12, 24):
        picture = other.paint(along_m=0.8 * k, seed=k)
        picture[:180] = np.linspace(0, 255, 640, dtype=np.uint8)[None, :, None]
        results.append(pipeline.step(Frame(k, k * 40_000_000, picture)))
    assert [r.cut for r in results].index(True) == 12
    assert results[12].scene.lane is None or results[12].scene.lane.left_m == pytest.approx(-1.2, abs=0.1)
    assert seen(results[-1].scene.lane).left_m == pytest.approx(-1.2, abs=0.06)
    assert all(r.ns["scene"] > 0 for r in results)
