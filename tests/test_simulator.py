"""The road simulator: geometry against hand-worked numbers, truth against the pixels, traffic against physics."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgecnn.data.simulator import Drive, still
from edgecnn.data.simulator.camera import Camera, Profile, View, Wave, clip_near
from edgecnn.data.simulator.light import make_light
from edgecnn.data.simulator.models import from_stock
from edgecnn.data.simulator.paint import Thing, draw, poses
from edgecnn.data.simulator.scene import render
from edgecnn.data.simulator.sprites import Sprites
from edgecnn.data.simulator.still import make_setting
from edgecnn.data.simulator.traffic import idm
from edgecnn.errors import InputError

FLAT = Profile((), ())
CAMERA = Camera(500.0, 500.0, 320.0, 192.0, 1.5, 0.0, 640, 384)
STAGED = ("stopped_lead", "braking_lead", "slower_lead", "adjacent_car", "cut_out", "oncoming")


def level(camera: Camera = CAMERA, **turned: float) -> View:
    return View(camera, FLAT, 0.0, 0.0, **turned)


# geometry


@pytest.mark.parametrize(
    ("s", "d", "u", "v"),
    [(10.0, 0.0, 320.0, 192 + 75.0), (20.0, 2.0, 370.0, 192 + 37.5), (50.0, -5.0, 270.0, 192 + 15.0)],
)
def test_a_point_of_the_road_is_where_the_pinhole_puts_it(s: float, d: float, u: float, v: float) -> None:
    view = level()
    assert view.project(view.place(np.array([s]), np.array([d])))[0] == pytest.approx((u, v))


def test_looking_down_raises_the_horizon_and_a_lower_car_sees_the_road_higher_up() -> None:
    down = level(pitch=math.atan(0.1))
    assert down.project(np.array([[1e7, 0.0, 0.0]]))[0, 1] == pytest.approx(192 - 50, abs=1e-3)
    assert level(lift=-0.5).project(np.array([[10.0, 0.0, 0.0]]))[0, 1] == pytest.approx(192 + 50)


def test_roll_turns_the_picture_about_its_principal_point() -> None:
    point = np.array([[10.0, 2.0, 1.5]])  # at the height of the camera: (420, 192) without roll
    assert level(roll=math.pi / 2).project(point)[0] == pytest.approx((320, 292))


def test_the_integrals_of_a_wave_are_those_of_its_curvature() -> None:
    wave, x = Wave(1 / 300, 220.0, 0.7), np.linspace(0, 120, 2401)
    curvature = np.array([wave.curvature(35.0 + v) for v in x])
    step = x[1] - x[0]
    slope = np.concatenate(([0], np.cumsum((curvature[1:] + curvature[:-1]) / 2 * step)))
    offset = np.concatenate(([0], np.cumsum((slope[1:] + slope[:-1]) / 2 * step)))
    assert wave.slope(35.0, x) == pytest.approx(slope, abs=1e-6)
    assert wave.offset(35.0, x) == pytest.approx(offset, abs=1e-4)


def test_what_stands_behind_a_crest_is_hidden_below_it() -> None:
    hill = Profile((), (Wave(1 / 400, 240.0, math.pi),))  # falls away more and more
    rows = View(CAMERA, hill, 0.0, 0.0).crests(np.array([6.0, 110.0]))
    assert rows[0] == math.inf and 192 < rows[1] < 384
    assert (level().crests(np.array([6.0, 110.0])) == math.inf).all()


def test_a_polygon_is_cut_where_it_passes_the_camera() -> None:
    square = np.array([[-1.0, -1, 1], [1.0, -1, 1], [1.0, 1, 1], [-1.0, 1, 1]])
    cut = clip_near(square)
    assert cut[:, 0].min() == pytest.approx(0.35) and cut[:, 0].max() == 1.0 and len(cut) == 4
    assert len(clip_near(square - (5, 0, 0))) == 0


# truth against pixels


@pytest.mark.parametrize("kind", ["car", "van", "truck", "bus", "person", "bicycle", "motorbike"])
@pytest.mark.parametrize("yaw", [0.0, 0.6, math.pi / 2, math.pi])
def test_the_box_is_the_silhouettes(kind: str, yaw: float) -> None:
    rng = np.random.default_rng(3)
    thing = Thing(1, from_stock(rng, kind), 24.0, 0.7, yaw, 0.0, phase=1.0)
    view = level(roll=0.02)
    patch = draw(view, make_light(rng, "day"), thing, poses(view, [thing])[0])
    assert patch is not None
    y, x = np.nonzero(patch.bgra[..., 3] > 127)
    drawn = (x.min() + patch.left, y.min() + patch.top, x.max() + 1 + patch.left, y.max() + 1 + patch.top)
    assert drawn == pytest.approx(patch.box, abs=1.01)


@pytest.mark.parametrize("kind", ["car", "truck", "person", "bicycle"])
def test_a_sprite_fills_the_exact_box(kind: str) -> None:
    rng = np.random.default_rng(3)
    light = make_light(rng, "overcast")
    thing = Thing(1, from_stock(rng, kind), 70.0, -3.3, 0.4, 0.0, phase=2.0)
    view = level(roll=0.01, pitch=0.02)
    pose = poses(view, [thing])[0]
    exact = draw(view, light, thing, pose)
    sprite = Sprites(CAMERA, light).draw(view, thing, pose)
    assert exact is not None and sprite is not None and sprite.box == exact.box
    y, x = np.nonzero(sprite.bgra[..., 3] > 127)
    drawn = (x.min() + sprite.left, y.min() + sprite.top, x.max() + 1 + sprite.left, y.max() + 1 + sprite.top)
    assert drawn == pytest.approx(sprite.box, abs=1.5)
    both = np.zeros((2, 384, 640), np.float32)
    for layer, patch in zip(both, (exact, sprite), strict=True):
        h, w = patch.bgra.shape[:2]
        layer[patch.top : patch.top + h, patch.left : patch.left + w] = patch.bgra[..., 3] / 255
    assert np.minimum(*both).sum() > 0.75 * np.maximum(*both).sum()


def test_visibility_is_the_share_of_pixels_that_nothing_nearer_covers() -> None:
    rng = np.random.default_rng(5)
    setting = make_setting(rng, "country", CAMERA, "day")
    near = Thing(1, from_stock(rng, "car"), 12.0, 0.0, 0.0, 0.0)
    far = Thing(2, from_stock(rng, "truck"), 30.0, 1.5, 0.0, 0.0)
    view = level()
    _, truth = render(setting, view, [near, far], [], 0.0, rng)
    solid = []
    for thing in (near, far):
        patch = draw(view, setting.light, thing, poses(view, [thing])[0])
        assert patch is not None
        whole = np.zeros((384, 640), bool)
        h, w = patch.bgra.shape[:2]
        whole[patch.top : patch.top + h, patch.left : patch.left + w] = patch.bgra[..., 3] > 127
        solid.append(whole)
    expected = (solid[1] & ~solid[0]).sum() / solid[1].sum()
    assert 0.1 < expected < 0.9
    assert truth.id.tolist() == [1, 2] and truth.label.tolist() == [0, 1]
    assert truth.visibility == pytest.approx((1.0, expected), abs=1e-6)


def test_an_object_at_the_edge_has_a_box_that_ends_there_and_full_visibility() -> None:
    rng = np.random.default_rng(6)
    setting = make_setting(rng, "country", CAMERA, "day")
    thing = Thing(4, from_stock(rng, "bus"), 16.0, 7.0, 0.0, 0.0)
    _, truth = render(setting, level(), [thing], [], 0.0, rng)
    assert truth.xyxy[0, 2] == 640 and truth.visibility[0] > 0.98


def test_stills_hold_sane_truth() -> None:
    labels = []
    for index in range(12):
        sample = still(11, index, 320, 192)
        t = sample.truth
        assert sample.bgr.shape == (192, 320, 3) and sample.bgr.dtype == np.uint8
        assert (t.xyxy[:, :2] >= 0).all() and (t.xyxy[:, 2] <= 320).all() and (t.xyxy[:, 3] <= 192).all()
        assert (t.xyxy[:, 2:] > t.xyxy[:, :2]).all()
        assert ((t.visibility >= 0) & (t.visibility <= 1)).all() and len(set(t.id.tolist())) == len(t)
        assert t.ignore[(t.visibility < 0.25) | (t.xyxy[:, 3] - t.xyxy[:, 1] < 8)].all()
        labels += t.label.tolist()
    assert set(labels) == {0, 1, 2, 3}


def test_what_is_not_ignored_can_be_seen() -> None:
    """The picture differs from the same scene without the object, inside its box, and hardly elsewhere."""
    rng = np.random.default_rng(8)
    setting = make_setting(rng, "town", CAMERA, "overcast")
    thing = Thing(1, from_stock(rng, "person"), 14.0, 2.0, 0.0, 0.0)
    with_it, truth = render(setting, level(), [thing], [], 0.0, np.random.default_rng(1))
    without, _ = render(setting, level(), [], [], 0.0, np.random.default_rng(1))
    change = np.abs(with_it.astype(int) - without).max(2) > 12
    x0, y0, x1, y1 = truth.xyxy[0].astype(int)
    inside = change[y0:y1, x0:x1]
    assert inside.mean() > 0.3 and inside.sum() > 0.6 * change.sum()


# determinism


def test_the_same_numbers_give_the_same_pixels() -> None:
    assert np.array_equal(still(2, 5, 160, 96).bgr, still(2, 5, 160, 96).bgr)
    assert not np.array_equal(still(2, 5, 160, 96).bgr, still(2, 6, 160, 96).bgr)


def test_a_frame_does_not_depend_on_the_order_of_asking() -> None:
    a, b = Drive(4, 8, width=160, height=96), Drive(4, 8, width=160, height=96)
    walked = [(frame, truth) for frame, truth, _ in a]
    for i in (6, 2):
        frame, truth, _ = b.render(i)
        assert np.array_equal(frame.bgr, walked[i][0].bgr) and np.array_equal(truth.xyxy, walked[i][1].xyxy)
    assert [f.index for f, _ in walked] == list(range(8)) and walked[1][0].t_ns == 40_000_000


def test_a_drive_refuses_what_it_does_not_know() -> None:
    with pytest.raises(InputError, match="'parking'; wanted one of traffic"):
        Drive(0, 2, scenario="parking")
    with pytest.raises(IndexError, match="frame 2 of a drive of 2"):
        Drive(0, 2, width=160, height=96).render(2)


# staged drives (tests/test_scenarios.py has their physics)


def test_a_slower_lead_closes_at_the_known_speed() -> None:
    drive = Drive(3, 76, scenario="slower_lead")
    rows = []
    for i in (0, 25, 50, 75):
        _, truth, ego = drive.render(i)
        rows.append((truth.distance_m[0], truth.ttc_s[0], truth.xyxy[0, 2] - truth.xyxy[0, 0], ego.speed_mps))
    gap, ttc, width, own = np.array(rows).T
    closing = own[0] - drive._snapshots[0].things[0].speed
    assert closing == pytest.approx(40.2 / 3.6, rel=0.021)
    assert gap == pytest.approx(gap[0] - closing * np.arange(4), abs=0.01) and ttc == pytest.approx(gap / closing)
    assert width * gap == pytest.approx(np.full(4, (width * gap).mean()), rel=0.06)


def test_the_harmless_scenes_keep_our_lane_free() -> None:
    for scenario in ("adjacent_car", "oncoming"):
        for snap in Drive(2, 200, scenario=scenario)._snapshots:
            assert all(abs(t.d - snap.d) > 1.9 + t.model.width / 4 for t in snap.things)
    after = Drive(2, 150, scenario="cut_out")._snapshots
    assert abs(after[30].things[0].d - after[30].d) < 0.5 and after[120].things[0].d - after[120].d > 3.0
    in_lane = [s.things[0].near() - s.s for s in after if abs(s.things[0].d - s.d) < 1.8]
    assert min(in_lane) / 5.1 > 8.0  # it leaves more than 8 s before we would meet


def test_who_comes_towards_us_closes_at_both_speeds() -> None:
    _, truth, _ = Drive(2, 3, scenario="oncoming").render(0)
    assert truth.distance_m / truth.ttc_s == pytest.approx(np.full(len(truth), 137 / 3.6), rel=0.021)


@pytest.mark.parametrize("scenario", STAGED)
def test_the_lane_lines_are_a_lane_apart_and_off_centre_as_we_are(scenario: str) -> None:
    drive = Drive(5, 3, scenario=scenario)
    _, _, ego = drive.render(2)
    ahead = np.geomspace(4.0, 80.0, 24)
    wide = np.linalg.norm(ego.right_line - ego.left_line, axis=1)
    assert wide * ahead / drive.camera.fx == pytest.approx(np.full(24, ego.lane_width_m), rel=0.03)
    middle = (ego.left_line[0, 0] + ego.right_line[0, 0]) / 2
    assert (drive.camera.cx - middle) * 4.0 / drive.camera.fx == pytest.approx(ego.lane_offset_m, abs=0.08)


# traffic


def extents(snapshot: object) -> np.ndarray:
    """s, d, half length, half width of everything, ourselves last."""
    rows = []
    for t in snapshot.things:  # type: ignore[attr-defined]
        c, n = abs(math.cos(t.yaw)), abs(math.sin(t.yaw))
        rows.append(
            (t.s, t.d, (c * t.model.length + n * t.model.width) / 2, (n * t.model.length + c * t.model.width) / 2)
        )
    rows.append((snapshot.s - 0.7, snapshot.d, 2.2, 0.9))  # type: ignore[attr-defined]
    return np.array(rows)


@pytest.mark.parametrize("seed", range(8))
def test_nobody_drives_or_walks_through_anybody(seed: int) -> None:
    for snapshot in Drive(seed, 250, width=160, height=96)._snapshots[::5]:
        a = extents(snapshot)
        along = np.abs(a[:, None, 0] - a[None, :, 0]) < a[:, None, 2] + a[None, :, 2]
        aside = np.abs(a[:, None, 1] - a[None, :, 1]) < a[:, None, 3] + a[None, :, 3]
        assert not np.triu(along & aside, 1).any()


def test_an_object_keeps_its_number_and_moves_smoothly() -> None:
    drive = Drive(0, 30, width=320, height=192)
    before: dict[int, np.ndarray] = {}
    for i in range(20, 30):
        _, truth, _ = drive.render(i)
        now = dict(zip(truth.id.tolist(), truth.xyxy, strict=True))
        for id in set(now) & set(before):
            assert np.abs(now[id] - before[id]).max() < 25, (i, id)
        before = now
    assert before


def test_car_following_rests_at_its_equilibrium() -> None:
    """At 15 m/s both, IDM's gap is (s0 + v T) / sqrt(1 - (v / v0)^4)."""
    gap = (2.5 + 15 * 1.4) / math.sqrt(1 - (15 / 25) ** 4)
    assert idm(15.0, 25.0, gap, 0.0) == pytest.approx(0.0, abs=1e-9)
    assert idm(15.0, 25.0, gap * 0.8, 0.0) < 0 < idm(15.0, 25.0, gap * 1.2, 0.0)
