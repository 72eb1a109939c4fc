"""Driver assistance on driving that is computed by hand: what is asserted is the TRUE time to collision at the alert.

The three warning tests are NHTSA's for forward-collision warning, with their limits, at 20 m/s (45 mph). A warning must
come at or before the limit, and nothing may be warned of in benign traffic.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.adas import Camera, Event, Scene, SceneAnalysis, SceneSettings, Schedule, ScheduleSettings
from edgecnn.adas.memory import ById
from edgecnn.adas.path import Path, Place, beside, place
from edgecnn.adas.ttc import Contact, TimeToCollision, TtcSettings, contact_time
from edgecnn.errors import InputError
from edgecnn.scene import Detections, Tracks
from edgecnn.track import Tracker
from edgecnn.track.flow import Growth

SIZE = (1280, 720)
SETTINGS = SceneSettings.read()
CAMERA = Camera(740.0, 740.0, 640.0, 360.0, height_m=1.2)
FPS = 30.0
Motion = Callable[[float], tuple[float, float]]  # time s → (gap m along the road, metres right of our middle)


def true_box(gap_m: float, right_m: float) -> np.ndarray:
    """(4,) px of the back of a car, 1.8 m wide and 1.5 m high."""
    left, right = (CAMERA.cx + CAMERA.fx * (right_m + side) / gap_m for side in (-0.9, 0.9))
    bottom = CAMERA.cy + CAMERA.fy * CAMERA.height_m / gap_m
    return np.array([left, bottom - CAMERA.fy * 1.5 / gap_m, right, bottom])


def tracks_of(
    xyxy: np.ndarray, *, velocity: np.ndarray | None = None, missed: int | np.ndarray = 0, score: float = 0.9
) -> Tracks:
    n = len(xyxy)
    zero, velocity = np.zeros(n, np.float32), np.zeros((n, 2)) if velocity is None else velocity
    label, ids = np.zeros(n, np.int64), np.arange(1, n + 1)
    return Tracks(
        ids,
        xyxy.astype(np.float32),
        zero + np.float32(score),
        label,
        velocity.astype(np.float32),
        zero,
        zero,
        label + missed,
        np.ones(n, bool),
    )


def drive(
    lead: Motion, *, seconds: float, noise_px: float, stride: int = 1, trials: int = 12, camera: Camera | None = CAMERA
) -> list[tuple[float, Event]]:
    """Events and their times. Each trial is a track of its own with its own noise: `noise_px` (1 sigma) on each side of
    the box, so 1.4 times that on its width, and 3 px/s on the velocity. The detector looks at it in every `stride`-th
    frame, and in every one while it is near; how much it grew from frame to frame is told as flow tells it, to within
    0.12 px of its width (docs/warnings.md). Ends where the car in front is reached."""
    random = np.random.default_rng(0)
    analysis = SceneAnalysis(None, camera, SIZE)
    events: list[tuple[float, Event]] = []
    wanted = np.zeros(trials, bool)
    for k in range(int(seconds * FPS)):
        t = k / FPS
        gap, right = lead(t)
        if gap < 2.0:
            break
        (gap0, right0), (gap1, right1) = lead(t - 0.01), lead(t + 0.01)
        sideways = CAMERA.fx * (right1 / gap1 - right0 / gap0) / 0.02
        velocity = random.normal([sideways, 0], 3, (trials, 2))
        boxes = np.clip(true_box(gap, right) + random.normal(0, noise_px, (trials, 4)), 0, [*SIZE, *SIZE])
        missed = np.where(wanted, 0, k % stride)
        tracks = tracks_of(boxes, velocity=velocity, missed=missed)
        sigma = 0.12 * gap / (CAMERA.fx * 1.8)
        log = math.log(lead(t - 1 / FPS)[0] / gap) + random.normal(0, sigma, trials)
        growth = Growth(tracks.id, log.astype(np.float32), np.full(trials, sigma, np.float32)) if k else None
        scene = analysis.step(tracks, round(t * 1e9), frame=k, growth=growth)
        wanted = scene.in_path & (scene.ttc_s < ScheduleSettings().closing_s)  # the schedule's answer to danger
        events += [(t, event) for event in scene.warnings]
    return events


def alerts(events: list[tuple[float, Event]]) -> dict[int, float]:
    """Track → time of its first alert."""
    first: dict[int, float] = {}
    for t, event in events:
        if event.kind == "fcw_on":
            first.setdefault(event.track, t)
    return first


# ---- the warning comes in time --------------------------------------------------------------------------------------

BRAKING = 0.3 * 9.81


def stopped(t: float) -> tuple[float, float]:
    return 110.0 - 20.0 * t, 0.0


def slower(t: float) -> tuple[float, float]:
    """20 m/s towards 9 m/s."""
    return 60.0 - 11.0 * t, 0.0


def braking(t: float) -> tuple[float, float]:
    """Both at 20 m/s and 30 m apart; after 1.5 s the lead brakes with 0.3 g, and goes on until it is reached."""
    return 30.0 - 0.5 * BRAKING * max(t - 1.5, 0.0) ** 2, 0.0


CASES: dict[str, tuple[Motion, Callable[[float], float], float]] = {
    "stopped": (stopped, lambda t: 110.0 / 20.0 - t, 2.1),
    "slower": (slower, lambda t: 60.0 / 11.0 - t, 2.0),
    "braking": (braking, lambda t: 1.5 + math.sqrt(2 * 30.0 / BRAKING) - t, 2.4),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("noise_px", [0.1, 0.7])
def test_a_warning_comes_in_time_and_not_much_too_early(name: str, noise_px: float) -> None:
    lead, true_ttc, limit = CASES[name]
    found = [true_ttc(t) for t in alerts(drive(lead, seconds=7, noise_px=noise_px)).values()]
    assert len(found) == 12, f"{12 - len(found)} of 12 without an alert"
    assert min(found) >= limit
    assert max(found) < 5.5


@pytest.mark.parametrize("name", CASES)
def test_a_warning_comes_in_time_though_the_detector_runs_in_every_fifth_frame(name: str) -> None:
    lead, true_ttc, limit = CASES[name]
    found = [true_ttc(t) for t in alerts(drive(lead, seconds=7, noise_px=0.7, stride=5)).values()]
    assert len(found) == 12
    # the pipeline looks in every frame as soon as something closes in: one interval between detections is the price
    assert min(found) >= limit - 5 / FPS


def test_a_warning_comes_in_time_without_a_known_camera() -> None:
    events = drive(stopped, seconds=7, noise_px=0.35, camera=None)
    assert min(5.5 - t for t in alerts(events).values()) >= 2.1
    assert all(math.isnan(event.distance_m) for _, event in events)


@pytest.mark.parametrize("name", CASES)
def test_a_warning_comes_in_time_through_the_tracker(name: str) -> None:
    lead, true_ttc, limit = CASES[name]
    random = np.random.default_rng(1)
    tracker, analysis = Tracker(fps=FPS), SceneAnalysis(None, CAMERA, SIZE)
    for k in range(int(7 * FPS)):
        t = k / FPS
        box = true_box(*lead(t)) + random.normal(0, 0.5, 4)
        found = Detections(box.astype(np.float32)[None], np.array([0.9], np.float32), np.zeros(1, np.int64))
        tracks = tracker.step(found, round(t * 1e9), frame_size=SIZE)
        scene = analysis.step(tracks, round(t * 1e9), measured=tracker.measured)
        if scene.warnings:
            break
    (event,) = scene.warnings
    assert event.kind == "fcw_on"
    assert limit <= true_ttc(t) < 5.5
    assert event.distance_m == pytest.approx(lead(t)[0], rel=0.1)
    assert scene.warned.all()


# ---- and it stays quiet ---------------------------------------------------------------------------------------------

BENIGN: dict[str, Motion] = {
    "following, the gap breathing by 1 m": lambda t: (30 + math.sin(2 * math.pi * t / 8), 0.0),
    "following closely": lambda t: (15 + 0.5 * math.sin(2 * math.pi * t / 6), 0.0),
    "a slower car in the next lane": lambda t: (60 - 8 * t, 3.5),
    "an oncoming car in the next lane": lambda t: (150 - 40 * t, -3.5),
    "a cut-out: closing by 3 m/s, it changes lane": lambda t: (30 - 3 * t, 3.5 / (1 + math.exp(-2.5 * (t - 3)))),
    "a lead that pulls away": lambda t: (10 + 3 * t, 0.0),
    "parked in a bend of 80 m radius, at 10 m/s": lambda t: (
        80 * math.sin((40 - 10 * t) / 80) + 0.1,
        -2.5 + 80 * (1 - math.cos((40 - 10 * t) / 80)),
    ),
}


@pytest.mark.parametrize("name", BENIGN)
@pytest.mark.parametrize("noise_px", [0.1, 0.35])
def test_no_warning_of(name: str, noise_px: float) -> None:
    assert alerts(drive(BENIGN[name], seconds=8, noise_px=noise_px)) == {}


def test_a_sign_above_the_road_is_not_in_the_path() -> None:
    analysis = SceneAnalysis(None, CAMERA, SIZE)
    for k in range(90):
        gap = 100 - 20 * k / FPS
        middle = np.array([CAMERA.cx, CAMERA.cy - CAMERA.fy * 4.0 / gap])
        half = CAMERA.fx * 1.5 / gap
        box = np.concatenate([middle - half, middle + half])[None]
        scene = analysis.step(tracks_of(box), round(k / FPS * 1e9))
        assert not scene.in_path.any()
        assert scene.warnings == ()
    assert scene.ttc_s[0] == pytest.approx(5.0 - k / FPS, rel=0.1)  # it is seen to come, and rightly ignored


def test_a_warning_ends_once_when_the_lead_drives_off() -> None:
    def lead(t: float) -> tuple[float, float]:
        return (40 - 12 * t if t < 2 else 16 + 15 * (t - 2)), 0.0

    events = drive(lead, seconds=6, noise_px=0.1, trials=1)
    assert [event.kind for _, event in events] == ["fcw_on", "fcw_off"]
    assert events[1][0] > 2.0


def test_a_warning_ends_once_when_the_track_is_gone() -> None:
    analysis, kinds = SceneAnalysis(None, CAMERA, SIZE), []
    for k in range(100):
        boxes = true_box(40 - 12 * k / FPS, 0.0)[None] if k < 60 else np.zeros((0, 4))
        kinds += [event.kind for event in analysis.step(tracks_of(boxes), round(k / FPS * 1e9)).warnings]
    assert kinds == ["fcw_on", "fcw_off"]


def test_after_a_reset_nothing_is_remembered() -> None:
    analysis = SceneAnalysis(None, CAMERA, SIZE)
    for k in range(60):
        scene = analysis.step(tracks_of(true_box(40 - 12 * k / FPS, 0.0)[None]), round(k / FPS * 1e9))
    assert scene.warned.all()
    analysis.reset()
    scene = analysis.step(tracks_of(true_box(16, 0.0)[None]), round(60 / FPS * 1e9))
    assert not scene.warned.any()
    assert np.isinf(scene.ttc_s).all()


def test_an_event_is_strict_json() -> None:
    event = Event(t_ns=5, frame=1, kind="fcw_off", track=3, ttc_s=math.inf, distance_m=math.nan)
    wanted = {"t_ns": 5, "frame": 1, "kind": "fcw_off", "track": 3, "ttc_s": None, "distance_m": None}
    assert json.loads(json.dumps(event.json(), allow_nan=False)) == wanted


def test_a_frame_without_tracks() -> None:
    scene = SceneAnalysis(None, None, SIZE).step(Tracks.empty(), 0)
    assert (len(scene.ttc_s), scene.in_path.shape, scene.warnings) == (0, (0,), ())


# ---- time to collision ----------------------------------------------------------------------------------------------


@given(st.floats(5, 100), st.floats(1, 30), st.floats(-6, 6))
def test_contact_time_is_the_first_root_and_agrees_with_the_published_form(
    gap: float, closing: float, a: float
) -> None:
    ttc = contact_time(np.array([gap]), np.array([-closing]), np.array([a / 2]))[0]
    tm, c = gap / closing, a * gap / closing**2
    if 1 - 2 * c < 0:
        assert ttc == math.inf
    else:
        assert gap - closing * ttc + a / 2 * ttc**2 == pytest.approx(0, abs=1e-6 * gap)
        if abs(c) > 1e-3:
            assert ttc == pytest.approx(tm * (1 - math.sqrt(1 - 2 * c)) / c, rel=1e-6)


def test_no_contact_with_what_moves_away_unless_it_brakes() -> None:
    c0, c1 = np.ones(2), np.full(2, 0.1)
    assert contact_time(c0, c1, np.array([0.0, -0.2])).tolist() == [math.inf, pytest.approx(2.5)]


EXACT = replace(SETTINGS.ttc, lasting_ratio=0.001, side_ratio=0.001, side_px=0.0)  # for boxes without an error


def fitted(boxes: list[np.ndarray], settings: TtcSettings | None = None) -> Contact:
    ttc = TimeToCollision(settings or SETTINGS.ttc, SIZE, CAMERA.fx)
    for k, box in enumerate(boxes):
        contact = ttc.step(np.array([7]), box.astype(np.float32)[None], k / FPS)
    return contact


def test_exact_boxes_give_the_exact_time_and_growth() -> None:
    contact = fitted([true_box(50 - 15 * k / FPS, 0.0) for k in range(31)], EXACT)
    assert contact.ttc_s[0] == pytest.approx(35 / 15, rel=0.01)
    assert contact.growth[0] == pytest.approx(15 / 35, rel=0.01)
    assert contact.surely_within(3.2)[0] > 0 > contact.surely_within(2.0)[0]


def test_a_braking_lead_is_nearer_than_its_closing_speed_says() -> None:
    contact = fitted([true_box(20 - 2 * (k / FPS) ** 2, 0.0) for k in range(46)], EXACT)
    gap, closing = 20 - 2 * 1.5**2, 4 * 1.5
    assert gap / closing == pytest.approx(2.6, abs=0.02)
    assert contact.ttc_s[0] == pytest.approx(math.sqrt(10) - 1.5, rel=0.05)


def test_the_stated_deviation_is_the_real_one() -> None:
    """Of 300 tracks whose sides err by what a score of 0.8 is taken to mean, anew in every frame."""
    random, settings = np.random.default_rng(3), replace(SETTINGS.ttc, lasting_ratio=0.001, side_px=0.0)
    ids, ttc = np.arange(300), TimeToCollision(settings, SIZE, CAMERA.fx)
    ratio = settings.side_ratio * math.exp(settings.doubt_ratio * 0.2)
    for k in range(37):
        box = true_box(40 - 10 * k / FPS, 0.0)
        middle, side = 0.5 * (box[:2] + box[2:]), (box[2:] - box[:2]) * np.exp(random.normal(0, ratio, (300, 2)))
        boxes = np.concatenate([middle - side / 2, middle + side / 2], axis=1)
        contact = ttc.step(ids, boxes.astype(np.float32), k / FPS, score=np.full(300, 0.8, np.float32))
    finite = np.isfinite(contact.ttc_s)
    assert finite.mean() > 0.9  # what brakes hard enough never touches
    error = contact.ttc_s[finite] - (4 - 36 / FPS)
    assert abs(np.median(error)) < 0.5 * np.median(contact.sigma_s[finite])
    # The filter allows for accelerations that these leads don't have, so it errs on the safe side.
    assert 0.3 < 1.48 * np.median(np.abs(error)) / np.median(contact.sigma_s) < 1.1


def test_growth_measured_in_the_pictures_is_known_far_better_than_by_boxes() -> None:
    """Of 200 tracks; sides that err by 7 %, growth from one frame to the next by 0.4 %; after a third of a second."""

    def errors(told: bool) -> np.ndarray:
        random, ids, ttc = np.random.default_rng(5), np.arange(200), TimeToCollision(SETTINGS.ttc, SIZE, CAMERA.fx)
        for k in range(11):
            box = true_box(40 - 10 * k / FPS, 0.0)
            middle, side = 0.5 * (box[:2] + box[2:]), (box[2:] - box[:2]) * np.exp(random.normal(0, 0.07, (200, 2)))
            boxes = np.concatenate([middle - side / 2, middle + side / 2], axis=1).astype(np.float32)
            log = math.log((40 - 10 * (k - 1) / FPS) / (40 - 10 * k / FPS)) + random.normal(0, 0.004, 200)
            growth = Growth(ids, log.astype(np.float32), np.full(200, 0.004, np.float32)) if told and k else None
            contact = ttc.step(ids, boxes, k / FPS, score=np.full(200, 0.7, np.float32), growth=growth)
        return np.abs(contact.growth - 10 / (40 - 10 * 10 / FPS))

    assert np.median(errors(True)) < 0.4 * np.median(errors(False))


def test_growth_of_strangers_and_growth_that_was_not_measured_change_nothing() -> None:
    growth = Growth(np.array([7, 8]), np.array([np.nan, 0.2], np.float32), np.full(2, 0.001, np.float32))
    contacts = []
    for told in (None, growth):
        ttc = TimeToCollision(SETTINGS.ttc, SIZE, CAMERA.fx)
        for k in range(20):
            box = true_box(40 - 10 * k / FPS, 0.0).astype(np.float32)[None]
            contacts.append(ttc.step(np.array([7]), box, k / FPS, growth=told).ttc_s[0])
    assert contacts[:20] == contacts[20:] and np.isfinite(contacts[-1])


def test_one_wild_box_is_weakened() -> None:
    boxes = [true_box(40 - 10 * k / FPS, 0.0) for k in range(31)]
    boxes[20] = boxes[20] + np.array([-15, -15, 15, 15])
    assert fitted(boxes).ttc_s[0] == pytest.approx(3.0, rel=0.25)


def test_a_car_cut_off_by_the_pictures_edge_is_measured_by_its_height() -> None:
    boxes = [np.clip(true_box(20 - 5 * k / FPS, -13.0), 0, [*SIZE, *SIZE]) for k in range(31)]
    assert boxes[-1][0] == 0  # its left part has left the picture
    assert fitted(boxes).ttc_s[0] == pytest.approx(3.0, rel=0.1)


def test_young_tracks_and_unmeasured_frames_give_no_time() -> None:
    assert np.isinf(fitted([true_box(30 - k, 0.0) for k in range(4)]).ttc_s).all()
    assert np.isinf(fitted([np.full(4, np.nan)] * 30).ttc_s).all()


# ---- camera and path ------------------------------------------------------------------------------------------------


def test_range_and_offset_by_hand() -> None:
    # 740 × 1.2 / 29.6 px below the horizon = 30 m; 74 px right of the middle at 30 m = 3 m
    forward, right = CAMERA.ground(np.array([640.0, 714.0, 640.0]), np.array([389.6, 389.6, 300.0]))
    assert forward == pytest.approx([30.0, 30.0, math.inf])
    assert right[:2] == pytest.approx([0.0, 3.0])


@given(st.floats(-0.1, 0.3), st.floats(6, 80), st.floats(-5, 5))
def test_a_pitched_camera_gets_back_the_point_it_was_shown(pitch: float, z: float, x: float) -> None:
    camera = Camera(900.0, 880.0, 600.0, 350.0, height_m=1.4, pitch_rad=pitch)
    ahead = z * math.cos(pitch) + 1.4 * math.sin(pitch)
    down = 1.4 * math.cos(pitch) - z * math.sin(pitch)
    v = 350 + 880 * down / ahead
    forward, right = camera.ground(np.array([600 + 900 * x / ahead]), np.array([v]))
    assert forward[0] == pytest.approx(z, rel=1e-6)
    assert right[0] == pytest.approx(x, rel=1e-6, abs=1e-9)
    assert v > camera.horizon_px


def placed(gap_m: float, right_m: float, *, drift_mps: float = 0.0, ttc_s: float = math.inf) -> Place:
    """One car straight ahead of us on a straight road."""
    gap = np.array([gap_m])
    aside, half = beside(CAMERA, Path(0.0), true_box(gap_m, right_m)[None], gap)
    return place(SETTINGS.path, gap, aside, half, np.array([drift_mps]), np.array([ttc_s]))


@pytest.mark.parametrize(("right_m", "inside"), [(0.0, True), (1.5, True), (1.7, False), (-3.5, False)])
def test_the_corridor_reaches_seventy_centimetres_to_each_side(right_m: float, inside: bool) -> None:
    where = placed(25, right_m)
    assert where.in_path.tolist() == [inside]
    assert where.aside_m[0] == pytest.approx(right_m, abs=1e-9)
    assert where.half_m[0] == pytest.approx(0.9)


def test_what_is_leaving_the_corridor_is_not_in_the_path() -> None:
    assert not placed(20, 0.5, drift_mps=2, ttc_s=1).in_path.any()
    assert placed(20, 0.5, drift_mps=-2, ttc_s=1).in_path.all()
    assert placed(20, 0.5, drift_mps=2, ttc_s=0.5).in_path.all()  # reached before it has left


@pytest.mark.parametrize("wrong", [{"fx": 0.0}, {"height_m": -1.0}, {"pitch_rad": 2.0}, {"fy": math.nan}])
def test_an_impossible_camera_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Camera(**({"fx": 700.0, "fy": 700.0, "cx": 640.0, "cy": 360.0, "height_m": 1.2} | wrong))


# ---- schedule and memory --------------------------------------------------------------------------------------------


def scene_with(ttc_s: float, in_path: bool) -> Scene:
    one, flag = np.ones(1, np.float32), np.array([in_path])
    return Scene(one * np.float32(ttc_s), one, one, one, flag, ~flag & flag, ())


QUIET, CAR = scene_with(math.inf, True), tracks_of(true_box(30, 0)[None], missed=1)


def test_every_third_frame_and_at_once_on_a_cut() -> None:
    schedule = Schedule(ScheduleSettings(every=3))
    cuts = [False, False, False, False, False, True, False, False, False]
    seen = [schedule.due(cut=cut, tracks=Tracks.empty(), scene=QUIET).why for cut in cuts]
    assert seen == ["first", None, None, "stride", None, "cut", None, None, "stride"]


@pytest.mark.parametrize(
    ("scene", "reason"),
    [(scene_with(3.9, True), "closing"), (scene_with(3.9, False), None), (QUIET, None), (None, None)],
)
def test_what_closes_in_on_our_path_is_looked_at_in_every_frame(scene: Scene | None, reason: str | None) -> None:
    schedule = Schedule(ScheduleSettings(every=9))
    fresh = tracks_of(true_box(30, 0)[None])
    assert schedule.due(cut=False, tracks=fresh, scene=scene).why == "first"
    assert schedule.due(cut=False, tracks=fresh, scene=scene).why == reason


def test_a_weak_or_missed_track_in_the_path_is_looked_for_again() -> None:
    def second(tracks: Tracks, *, in_path: bool = True) -> str | None:
        schedule, scene = Schedule(ScheduleSettings(every=9)), scene_with(math.inf, in_path)
        schedule.due(cut=False, tracks=tracks, scene=scene)
        return schedule.due(cut=False, tracks=tracks, scene=scene).why

    box = true_box(30, 0)[None]
    assert second(tracks_of(box)) is None
    assert second(tracks_of(box, score=0.1)) == "unsure"
    assert second(tracks_of(box, missed=4)) == "unsure"
    assert second(tracks_of(box, missed=4), in_path=False) is None


def test_a_schedule_of_no_frames_is_refused() -> None:
    with pytest.raises(InputError):
        Schedule(ScheduleSettings(every=0))


def test_memory_keeps_rows_by_id_in_any_order() -> None:
    memory = ById(count=0, place=np.zeros(2))
    at = memory.rows(np.array([5, 2, 9]))
    memory["count"][at], memory["place"][at[1]] = [50, 20, 90], [1.0, 2.0]
    at = memory.rows(np.array([9, 7, 5, 2]))
    assert memory["count"][at].tolist() == [90, 0, 50, 20]
    assert memory.among(memory.rows(np.array([9, 2]))).tolist() == [True, False, False, True], "of 2, 5, 7, 9"
    memory.keep(memory.id != 5)
    at = memory.rows(np.array([2, 5]))
    assert memory["count"][at].tolist() == [20, 0]
    assert memory["place"][at].tolist() == [[1.0, 2.0], [0.0, 0.0]]
