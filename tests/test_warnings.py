"""Headway, pedestrian and departure warnings, their hysteresis, the lead, the file of thresholds: tables by hand."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from edgecnn.adas import Camera, Lane, Scene, SceneAnalysis, SceneSettings
from edgecnn.adas.ego import Ego
from edgecnn.adas.headway import Headway
from edgecnn.adas.latch import Latch, Moment
from edgecnn.adas.thresholds import FILE
from edgecnn.errors import InputError
from edgecnn.scene import Tracks

SIZE, FPS = (1280, 720), 25.0
CAMERA = Camera(740.0, 740.0, 640.0, 360.0, height_m=1.2, bumper_m=1.5)
SETTINGS = SceneSettings.read()
CAR, TRUCK, TWO_WHEELER, PERSON = range(4)
SHAPE = {CAR: (1.85, 1.45, 0.8), TRUCK: (2.5, 3.4, 0.9), TWO_WHEELER: (0.6, 1.75, 0.2), PERSON: (0.55, 1.68, 0.3)}


def box(label: int, gap_m: float, right_m: float) -> np.ndarray:
    """(4,) px of one `gap_m` ahead of the camera, whose foot is an overhang farther."""
    wide, tall, overhang = SHAPE[label]
    foot = 360 + 740 * 1.2 / (gap_m + overhang)
    left, right = (640 + 740 * (right_m + side * wide / 2) / gap_m for side in (-1, 1))
    return np.array([left, foot - 740 * tall / gap_m, right, foot])


def tracks_of(boxes: np.ndarray, label: list[int], velocity: np.ndarray, *, missed: int = 0, ids: int = 1) -> Tracks:
    n = len(boxes)
    one = np.ones(n, np.float32)
    numbers = np.arange(ids, ids + n)
    return Tracks(
        numbers, np.clip(boxes, 0, [*SIZE, *SIZE]).astype(np.float32).reshape(-1, 4), one, np.array(label, np.int64),
        velocity.astype(np.float32), 0 * one, 5 * one, np.full(n, missed), np.ones(n, bool),
    )  # fmt: skip


Place = Callable[[float], tuple[float, float]]  # time s → (m ahead of the camera, m to the right)


def drive(
    what: list[tuple[int, Place]], speed: Callable[[float], float], seconds: float, *, lane: Lane | None = None
) -> list[tuple[float, Scene]]:
    """Exact boxes of what passes by; it ends where the first is reached."""
    analysis, scenes = SceneAnalysis(None, CAMERA, SIZE), []
    for k in range(int(seconds * FPS)):
        t = k / FPS
        at = [place(t) for _, place in what]
        if at and at[0][0] < 2.0:
            break
        before = [place(t - 0.01) for _, place in what]
        boxes = np.array([box(label, *spot) for (label, _), spot in zip(what, at, strict=True)]).reshape(-1, 4)
        sideways = [740 * (x / z - x0 / z0) / 0.01 for (z, x), (z0, x0) in zip(at, before, strict=True)]
        velocity = np.stack([sideways, np.zeros(len(at))], axis=1)
        tracks = tracks_of(boxes, [label for label, _ in what], velocity)
        scenes.append((t, analysis.step(tracks, round(t * 1e9), frame=k, lane=lane, speed_mps=speed(t))))
    return scenes


def begins(scenes: list[tuple[float, Scene]]) -> list[tuple[str, float]]:
    return [(e.kind, t) for t, scene in scenes for e in scene.warnings if e.kind.endswith("_on")]


# ---- hysteresis -----------------------------------------------------------------------------------------------------


def latched(start: str, stay: str, *, missed: str = "", gone: int = 99, valid: str = "") -> str:
    """A frame a letter, 0.1 s each, x = true: what the latch (2 detections, 0.25 s) says in each."""
    latch, said = Latch(2, 0.25), ""
    for k in range(len(start)):
        n = int(k < gone)
        tracks = tracks_of(np.zeros((n, 4)), [0] * n, np.zeros((n, 2)), missed=int(missed[k : k + 1] == "x"))
        flags = (np.full(n, text[k] == "x") for text in (start, stay))
        latch.step(tracks, *flags, Moment(k * 100_000_000, k, valid[k : k + 1] != "-"))
        said += "x" if latch.any else "-"
    return said


def test_hysteresis_by_hand() -> None:
    assert latched("-x-xx-----", "----xxx---") == "----xxxxx-"  # once is not enough; it stays, and 0.25 s more
    assert latched("xxxx", "xxxx", missed="-xx-") == "---x"  # frames without a detection don't count ...
    assert latched("xxxx", "xxxx", missed="--xx") == "-xxx"
    assert latched("xxxx", "xxxx", valid="xx--") == "-xxx"  # an invalid frame ends nothing ...
    assert latched("xxxxx", "xxxxx", valid="----x") == "-----"  # ... and begins nothing, nor does it count
    assert latched("xx------", "xxxxxxxx", gone=3) == "-xxxx---"  # a track that is gone does not stay


# ---- headway --------------------------------------------------------------------------------------------------------


def test_headway_is_active_from_40_km_per_hour_on_and_until_30() -> None:
    headway, kmh = Headway(SETTINGS.headway), []
    for speed in (*range(20, 60, 1), *range(60, 20, -1)):
        _, (on,), _ = headway.step(np.array([1.0]), 0, speed / 3.6)
        kmh += [speed] if on else []
    assert (kmh[0], kmh[-1]) == (40, 30)


@pytest.mark.parametrize(("gap_m", "on", "stays"), [(11.9, True, True), (12.1, False, True), (14.1, False, False)])
def test_headway_begins_below_600_ms(gap_m: float, on: bool, stays: bool) -> None:
    seconds, begin, stay = Headway(SETTINGS.headway).step(np.array([99.0, gap_m]), 1, 20.0)
    assert seconds == pytest.approx(gap_m / 20)
    assert (begin.tolist(), stay.tolist()) == ([False, on], [False, stays])


def test_without_a_lead_or_our_speed_there_is_no_headway() -> None:
    for lead, speed in ((-1, 20.0), (0, math.nan), (0, 0.0)):
        seconds, begin, stay = Headway(SETTINGS.headway).step(np.array([5.0]), lead, speed)
        assert math.isnan(seconds) and not begin.any() and not stay.any()


def test_following_too_closely_is_warned_of_and_following_well_is_not() -> None:
    def follow(gap: float) -> list[tuple[float, Scene]]:
        return drive([(CAR, lambda t: (gap + 1.5, 0.0))], lambda t: 25.0, 3)

    assert [kind for kind, _ in begins(follow(11))] == ["headway_on"]
    assert begins(follow(25)) == []
    _, last = follow(11)[-1]
    assert (last.lead, last.on, last.headway_s) == (0, ("headway",), pytest.approx(11 / 25, rel=0.05))
    assert not last.warned.any()  # close, and no collision


def test_the_source_that_tells_no_speed_is_known() -> None:
    analysis = SceneAnalysis(None, CAMERA, SIZE)
    scene = analysis.step(Tracks.empty(), 0)
    assert not analysis.speed_known and math.isnan(scene.headway_s)
    analysis.step(Tracks.empty(), 1, speed_mps=3.0)
    assert analysis.speed_known


# ---- pedestrians ----------------------------------------------------------------------------------------------------


def towards(speed: float, gap: float, side: float, across: float) -> Place:
    """Someone `gap` ahead of our bumper, `side` m to the right, who walks `across` m/s to the right."""
    return lambda t: (gap + 1.5 - speed * t, side + across * t)


CROSSING = {  # label, our speed, how fast across, m/s: all are hit in the middle of our front after 4 s
    "an adult at 5 km/h": (PERSON, 10.0, 5 / 3.6),
    "an adult at 8 km/h": (PERSON, 14.0, -8 / 3.6),
    "a cyclist at 15 km/h": (TWO_WHEELER, 12.0, 15 / 3.6),
}


@pytest.mark.parametrize("name", CROSSING)
def test_who_walks_into_our_path_is_warned_of_in_time(name: str) -> None:
    label, speed, across = CROSSING[name]
    found = begins(drive([(label, towards(speed, 4 * speed, -4 * across, across))], lambda t: speed, 4))
    assert found[0][0] == "pedestrian_on"
    assert 1.5 < 4.0 - found[0][1] < 3.0


BENIGN: dict[str, tuple[int, float, Place]] = {
    "on the pavement, along with us": (PERSON, 12, lambda t: (40 - 10.7 * t, 3.2)),
    "on the pavement, towards us": (PERSON, 12, lambda t: (50 - 13.3 * t, -3.5)),
    "waiting at the kerb": (PERSON, 12, towards(12, 50, 2.6, 0)),
    "crossing well behind us": (PERSON, 12, towards(12, 48, -12, 1.4)),
    "crossing well ahead, and gone": (PERSON, 12, towards(12, 48, -1.0, 1.4)),
    "a cyclist along the road's edge": (TWO_WHEELER, 12, lambda t: (45 - 7.5 * t, 2.4)),
}


@pytest.mark.parametrize("name", BENIGN)
def test_who_does_not_come_into_our_path_is_not_warned_of(name: str) -> None:
    label, speed, place = BENIGN[name]
    assert begins(drive([(label, place)], lambda t: speed, 4)) == []


def test_no_pedestrian_warning_while_we_stop_in_front_of_them() -> None:
    def speed(t: float) -> float:
        return max(10 - 2.5 * t, 0.0)

    def waiting(t: float) -> tuple[float, float]:
        return 26 - (10 * min(t, 4) - 1.25 * min(t, 4) ** 2), -3 + 0.9 * t  # we stop 4.5 m before the crossing

    assert begins(drive([(PERSON, waiting)], speed, 5)) == []


def test_a_person_is_no_matter_of_forward_collision_nor_a_lead() -> None:
    scenes = drive([(PERSON, towards(10, 40, 0, 0))], lambda t: 10.0, 4)
    assert {kind for kind, _ in begins(scenes)} == {"pedestrian_on"}
    assert all(scene.lead == -1 for _, scene in scenes)


# ---- the lead -------------------------------------------------------------------------------------------------------


def test_the_lead_is_the_nearest_vehicle_in_our_path() -> None:
    cars: list[tuple[int, Place]] = [
        (CAR, lambda t: (45, 0.2)), (TRUCK, lambda t: (30, -0.2)), (CAR, lambda t: (15, 3.5)),
        (PERSON, lambda t: (9, 0.5)),
    ]  # fmt: skip
    assert [scene.lead for _, scene in drive(cars, lambda t: 20, 1)][1:] == [1] * 24


def test_in_a_bend_the_lead_is_the_car_in_our_lane() -> None:
    cars: list[tuple[int, Place]] = [(CAR, lambda t: (40, 4.0)), (CAR, lambda t: (38, 0.4))]
    bend = Lane(-1.75, 1.75, 0.0, 1 / 200, 60.0)
    assert drive(cars, lambda t: 20, 1, lane=bend)[-1][1].lead == 0
    assert drive(cars, lambda t: 20, 1)[-1][1].lead == 1  # as one who goes straight on sees it


def test_the_lead_does_not_flip_from_frame_to_frame() -> None:
    """A car on the corridor's edge, and one straight ahead of it: 1.6 m is where its inner side touches 0.7 m."""
    cars: list[tuple[int, Place]] = [
        (CAR, lambda t: (20, 1.55 if t < 0.5 else 1.625 + 0.1 * (-1) ** round(t * FPS))), (CAR, lambda t: (40, 0.0)),
    ]  # fmt: skip
    leads = [scene.lead for _, scene in drive(cars, lambda t: 20, 3)][2:]
    assert sum(a != b for a, b in pairwise(leads)) <= 1


# ---- the rest -------------------------------------------------------------------------------------------------------


def test_a_lane_that_is_left_is_told_of_and_counts_from_the_wheels() -> None:
    """0.5 m/s to the left from the middle of a 3.5 m lane, with a camera 0.2 m right of the car's middle."""
    analysis = SceneAnalysis(None, replace(CAMERA, lateral_m=0.2), SIZE)
    told = []
    for k in range(60):
        away = 0.5 * k / FPS
        lane = Lane(-1.75 - 0.2 + away, 1.75 - 0.2 + away, 0.0, 0.0, 40.0)
        scene = analysis.step(Tracks.empty(), round(k * 1e9 / FPS), lane=lane, speed_mps=20.0)
        told += [(event.kind, event.distance_m, 1.75 - 0.9 - away) for event in scene.warnings]
    ((kind, distance, truth),) = told
    assert kind == "ldw_left_on" and distance == pytest.approx(truth, abs=1e-6) and 0 < truth < 0.5
    assert scene.on == ("ldw_left",)


def test_nothing_begins_in_frames_that_are_not_valid() -> None:
    analysis = SceneAnalysis(None, CAMERA, SIZE)
    for k in range(100):
        gap = 60 - 20 * k / FPS
        if gap < 4:
            break
        tracks = tracks_of(box(CAR, gap, 0)[None], [CAR], np.zeros((1, 2)))
        scene = analysis.step(tracks, round(k / FPS * 1e9), speed_mps=20.0, valid=k < 10)
        assert scene.warnings == () and scene.on == ()


def test_acceleration_from_a_speed_that_is_told() -> None:
    ego = Ego()
    for k in range(50):
        ego.step(20 - 2 * k / FPS, k / FPS)
    assert ego.acceleration_mps2 == pytest.approx(-2, rel=0.02)
    ego.step(math.nan, 2.04)
    assert math.isnan(ego.speed_mps) and ego.acceleration_mps2 == 0


# ---- thresholds -----------------------------------------------------------------------------------------------------


def test_the_shipped_thresholds_say_what_they_are() -> None:
    assert SETTINGS.version == 1
    assert SETTINGS.sha256 == hashlib.sha256(FILE.read_bytes()).hexdigest()
    assert (SETTINGS.headway.on_s, round(3.6 * SETTINGS.headway.on_mps), round(3.6 * SETTINGS.headway.off_mps)) == (
        0.6, 40, 30,
    )  # fmt: skip


def test_a_file_may_hold_what_differs_only(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"version": 1, "headway": {"on_s": 1.0, "off_s": 1.2}}))
    mine = SceneSettings.read(path)
    assert (mine.headway.on_s, mine.fcw, mine.kinds) == (1.0, SETTINGS.fcw, SETTINGS.kinds)
    assert mine.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        ("[1]", "no JSON object"),
        ('{"version": 2}', "version 2; wanted version 1"),
        ('{"speed": 1}', "has the key 'speed'"),
        ('{"fcw": {"on_ms": 3}}', "fcw has the key 'on_ms'"),
        ('{"fcw": 3}', "fcw is 3"),
        ('{"fcw": {"on_s": 99}}', "fcw.on_s is 99; wanted a number from 0.5 to 10"),
        ('{"fcw": {"on_s": NaN}}', "fcw.on_s is nan"),
        ('{"headway": {"on_s": "1"}}', "headway.on_s is '1'"),
        ('{"headway": {"on_s": 2, "off_s": 1}}', "off_s of at least on_s"),
        ('{"departure": {"on_frames": 1.5}}', "a whole number"),
        ('{"kinds": {"car": {"names": "car"}}}', "a list of names"),
        ('{"kinds": {"cat": {}}}', "kinds has the key 'cat'"),
    ],
)
def test_an_absurd_file_of_thresholds_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        SceneSettings.read(path)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_file_of_thresholds_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no thresholds at"):
        SceneSettings.read(tmp_path / "none.json")
