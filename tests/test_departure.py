"""Lane-departure warning on lanes that drift as told: what is asserted is the TRUE distance of the wheel at the alert.

Limits: an alert between 0.75 m before the line and 0.3 m past it (NHTSA, UN R130), for drifts of 0.1 to 0.8 m/s.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from edgecnn.adas import Event, Lane, SceneSettings
from edgecnn.adas.departure import LaneDepartureWarning
from edgecnn.adas.event import NOBODY

FPS, HALF_LANE, HALF_CAR = 25.0, 1.8, 0.9
SETTINGS = SceneSettings.read().departure
Offset = Callable[[float], float]  # time s → m right of the middle of the lane


def drive(
    offset: Offset,
    seconds: float,
    *,
    noise_m: float = 0.0,
    seed: int = 0,
    speed_mps: float = math.nan,
    hidden: Callable[[float], bool] = lambda t: False,
    warning: LaneDepartureWarning | None = None,
) -> list[tuple[Event, float]]:
    """Events, and the true distance of the wheel on their side. Noise is a filter's: alike for some frames."""
    warning, random = warning or LaneDepartureWarning(SETTINGS), np.random.default_rng(seed)
    error, found = 0.0, []
    for k in range(round(seconds * FPS)):
        t = k / FPS
        error = 0.7 * error + math.sqrt(1 - 0.7**2) * random.normal(0, noise_m)
        left, right = -HALF_LANE - offset(t) + error, HALF_LANE - offset(t) + error
        if right < -0.3:  # we are in the next lane: a detector tells of that
            left, right = right, right + 2 * HALF_LANE
        if left > 0.3:
            left, right = left - 2 * HALF_LANE, left
        lane = None if hidden(t) else Lane(left, right, 0.0, 0.0, 40.0)
        for event in warning.step(lane, round(t * 1e9), k, speed_mps):
            side = 1 if "right" in event.kind else -1
            found.append((event, HALF_LANE - side * offset(t) - HALF_CAR))
    return found


def drift(rate_mps: float, until_m: float = math.inf) -> Offset:
    """Straight for a second, then aside."""
    return lambda t: math.copysign(min(abs(rate_mps) * max(0.0, t - 1.0), until_m), rate_mps)


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("noise_m", [0.0, 0.03])
def test_a_drift_is_warned_of_within_the_limits(rate: float, side: int, noise_m: float) -> None:
    for seed in range(3):
        found = drive(drift(side * rate), 1 + (HALF_LANE - HALF_CAR + 0.3) / rate, noise_m=noise_m, seed=seed)
        on = [(event, distance) for event, distance in found if event.kind.endswith("_on")]
        assert [event.kind for event, _ in on] == ["ldw_right_on" if side > 0 else "ldw_left_on"]
        event, distance = on[0]
        assert -0.3 < distance < 0.75
        assert event.distance_m == pytest.approx(distance, abs=0.01 + 4 * noise_m)
        assert event.track == NOBODY and event.ttc_s == math.inf


def test_a_fast_drift_is_warned_of_earlier() -> None:
    """The wheel's distance at the alert is about the drift times `crossing_s`, less the frames that must agree."""
    late, early = (drive(drift(rate), 12)[0][1] for rate in (0.2, 0.5))
    for rate, distance in ((0.2, late), (0.5, early)):
        s = SETTINGS
        assert distance == pytest.approx(rate * (s.crossing_s - (s.on_frames - 1) / FPS), abs=rate / FPS + 1e-6)


def test_no_alarm_while_well_inside() -> None:
    """The wheels stay 0.75 m inside: the middle ± 0.15 m in this lane, moving as fast as people do in it."""

    def wander(t: float) -> float:
        return 0.1 * math.sin(t / 1.3) + 0.05 * math.sin(t / 0.45)

    assert drive(wander, 300, noise_m=0.05) == []


def test_it_ends_when_the_car_comes_back_and_warns_again() -> None:
    def twice(t: float) -> float:
        return 0.85 * (1 - math.cos(2 * math.pi * t / 8)) / 2

    kinds = [event.kind for event, _ in drive(twice, 16)]
    assert kinds == ["ldw_right_on", "ldw_right_off"] * 2


def test_along_the_line_it_warns_once() -> None:
    """0.05 m inside the line and noise: neither off nor on again without having come back."""
    kinds = [event.kind for event, _ in drive(drift(0.4, until_m=0.85), 30, noise_m=0.02)]
    assert kinds == ["ldw_right_on"]


def test_a_lane_change_warns_once_and_not_of_the_line_left_behind() -> None:
    kinds = [event.kind for event, _ in drive(drift(0.8, until_m=2 * HALF_LANE), 12, noise_m=0.02)]
    assert kinds == ["ldw_right_on", "ldw_right_off"]


@pytest.mark.parametrize(("kmh", "warned"), [(50.0, False), (59.0, False), (61.0, True), (math.nan, True)])
def test_it_is_active_from_60_kmh_on(kmh: float, warned: bool) -> None:
    assert bool(drive(drift(0.5), 4, speed_mps=kmh / 3.6)) is warned


def test_slowing_down_ends_it() -> None:
    warning = LaneDepartureWarning(SETTINGS)
    assert drive(drift(0.5), 3.5, speed_mps=20.0, warning=warning) and warning.on == ("ldw_right",)
    still = Lane(-2.7, 0.9, 0.0, 0.0, 40.0)
    assert warning.step(still, 3_600_000_000, 90, 57 / 3.6) == ()  # hysteresis: 60 on, 55 off
    assert [e.kind for e in warning.step(still, 3_640_000_000, 91, 50 / 3.6)] == ["ldw_right_off"]
    assert warning.on == ()


def test_an_unsure_lane_is_no_ground_for_a_warning() -> None:
    assert drive(drift(0.5), 4, hidden=lambda t: t > 1.5) == []
    nowhere = Lane(math.nan, math.nan, 0.0, 0.0, 0.0)
    warning = LaneDepartureWarning(SETTINGS)
    assert not any(warning.step(nowhere, k * 40_000_000, k) for k in range(50))


def test_a_warning_ends_within_a_second_of_losing_the_line() -> None:
    events = drive(drift(0.5, until_m=0.9), 6, hidden=lambda t: t > 3.0)
    assert [event.kind for event, _ in events] == ["ldw_right_on", "ldw_right_off"]
    assert 3.0 < events[1][0].t_ns / 1e9 < 4.0 and math.isnan(events[1][0].distance_m)
    assert events[1][0].json()["distance_m"] is None


def test_a_line_that_jumps_is_no_departure() -> None:
    """The kerb was taken for the line, and now the line is: nothing crossed anything."""
    warning = LaneDepartureWarning(SETTINGS)
    events = [warning.step(Lane(-1.8, 2.6 if k < 25 else 0.95, 0.0, 0.0, 40.0), k * 40_000_000, k) for k in range(100)]
    assert not any(events)


def test_a_clock_that_stands_changes_nothing() -> None:
    warning = LaneDepartureWarning(SETTINGS)
    lanes = [Lane(-1.8 - 0.02 * k, 1.8 - 0.02 * k, 0.0, 0.0, 40.0) for k in range(50)]
    assert not any(warning.step(lane, 0, k) for k, lane in enumerate(lanes))
    assert warning.on == ()


def test_reset_forgets() -> None:
    warning = LaneDepartureWarning(SETTINGS)
    drive(drift(0.5), 3.5, warning=warning)
    assert warning.on
    warning.reset()
    assert warning.on == () and drive(lambda t: 0.0, 2, warning=warning) == []
