"""Scenario tests: what the files may say, the physics of the stage against formulas, the judge on made-up logs."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny_detector import make_bundle

from edgecnn import cli
from edgecnn.check.scenarios import Alert, ScenarioResult, Trial, _opened, judge_scenarios, judge_trial
from edgecnn.data.scenario import FOLDER, ExpectSection, Scenario, find_scenario, names
from edgecnn.data.simulator import Drive
from edgecnn.data.simulator.staged import Course, Stage, contact_s, layout_of
from edgecnn.data.simulator.traffic import CAMERA_TO_BUMPER
from edgecnn.errors import BundleError, InputError, RecipeError

ROOT = Path(__file__).resolve().parents[1]
PLAIN: dict[str, Any] = {
    "name": "plain",
    "about": "a car ahead",
    "source": "made up",
    "length_s": 4,
    "ego": {"speed_kmh": 72},
    "actors": [{"type": "car", "gap_m": 50, "danger": True}],
    "expect": {"warning": "fcw", "window": [2, 4]},
}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "plain.yaml"
    path.write_text(yaml.safe_dump({**PLAIN, **changes}))
    return path


# files


@pytest.mark.parametrize("name", names())
def test_every_shipped_scenario_is_whole_and_lasts_through_yaml(name: str, tmp_path: Path) -> None:
    scenario = find_scenario(name)
    assert scenario.name == name and scenario.source and len(scenario.about) < 100
    path = tmp_path / "again.yaml"
    path.write_text(yaml.safe_dump(scenario.model_dump(mode="json", exclude_none=True)))
    assert find_scenario(str(path)) == scenario


def test_the_recipes_folder_shows_the_shipped_scenarios() -> None:
    assert (ROOT / "recipes" / "scenarios").resolve() == FOLDER
    wanted = {"stopped_lead", "braking_lead", "slower_lead", "adjacent_car", "cut_out", "oncoming"}  # since issue 1
    assert wanted < set(names()) and len(names()) > 25


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"egos": {}}, "unknown key 'egos'; did you mean 'ego'?"),
        ({"ego": {"speed": 3}}, "unknown key 'ego.speed'; did you mean 'speed_kmh'?"),
        ({"actors": [{"type": "horse", "gap_m": 3}]}, "key 'actors.0.type': known: car, van"),
        ({"actors": [{"type": "car", "gap_m": 3, "lane": 4, "danger": True}]}, "lane 4 on a road with lanes -2 to 1"),
        ({"actors": [{"type": "car", "gap_m": 3}]}, "0 actors with danger: true, wanted 1"),
        ({"actors": [{"type": "car", "gap_m": 3, "moves": [{"at_s": 1}]}]}, "either mps2 and to_kmh, or lane"),
        ({"expect": {"warning": "fcw"}}, "a warning has a window"),
        ({"expect": {"warning": "fcw", "window": [4, 2]}}, r"window \[4.0, 2.0\] is not \[low, high\]"),
        ({"expect": {"warning": "horn", "window": [1, 2]}}, "known: fcw, pedestrian, headway"),
        ({"length_s": 0}, "key 'length_s'"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        find_scenario(str(written(tmp_path, **changes)))
    assert "\n" not in str(error.value) and "plain.yaml" in str(error.value)


def test_what_is_no_yaml_and_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: [")
    with pytest.raises(RecipeError, match=r"bad.yaml line 1 is not YAML"):
        find_scenario(str(tmp_path / "bad.yaml"))
    with pytest.raises(InputError, match="unknown scenario 'brake_lead'; wanted one of traffic, adjacent_car"):
        find_scenario("brake_lead")


# physics


def test_a_course_is_the_sum_of_its_parts() -> None:
    course = Course(20.0, [(2.0, 3.0, 8.0), (10.0, 1.0, 9.0)])  # brakes for 4 s, then a little faster
    assert course.at(1.0) == (20.0, 20.0, 0.0)
    assert course.at(4.0) == pytest.approx((40 + 40 - 6, 14.0, -3.0))
    assert course.at(6.0) == pytest.approx((40 + 56, 8.0, 0.0))
    assert course.at(10.5) == pytest.approx((40 + 56 + 32 + 4 + 0.125, 8.5, 1.0))
    assert course.at(20.0)[1] == 9.0


def test_a_change_before_the_last_one_ended_takes_over() -> None:
    course = Course(20.0, [(0.0, 2.0, 0.0), (5.0, 1.0, 12.0)])
    assert course.at(5.0)[1] == pytest.approx(10.0) and course.at(7.0)[1] == pytest.approx(12.0)
    assert course.at(60.0)[1] == pytest.approx(12.0)


@pytest.mark.parametrize(
    ("gap", "speed", "lead", "pull", "seconds"),
    [
        (60.0, 20.0, 0.0, 0.0, 3.0),
        (60.0, 20.0, 8.0, 0.0, 5.0),
        (30.0, 20.0, 20.0, -2.4, 5.0),  # 30 = 1.2 t²
        (30.0, 20.0, 10.0, -5.0, 2.0),  # both: 30 - 10 t - 2.5 t² = 0, the lead stands just then
        (100.0, 20.0, 10.0, -5.0, 5.5),  # it stands after 10 m, 110 m at 20 m/s
        (30.0, 10.0, 12.0, 0.0, math.inf),
        (30.0, 20.0, 10.0, 2.0, math.inf),  # it gets away: 100 < 4 * 1 * 30
        (16.0, 20.0, 10.0, 2.0, 2.0),  # 16 - 10 t + t² = 0
        (30.0, 10.0, 12.0, -4.0, 4.8),  # it stands after 18 m
        (0.0, 10.0, 10.0, 0.0, 0.0),
    ],
)
def test_time_to_contact_by_hand(gap: float, speed: float, lead: float, pull: float, seconds: float) -> None:
    assert contact_s(gap, speed, lead, pull) == pytest.approx(seconds)


def stage_of(name: str, seed: int = 3) -> Stage:
    rng = np.random.default_rng(seed)
    scenario = find_scenario(name)
    return Stage(scenario, layout_of(scenario, rng), rng)


def walked(stage: Stage, frames: int, dt: float = 0.04) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gap, true TTC and our speed in each frame."""
    rows = []
    for _ in range(frames):
        stage.snapshot((0.0, 0.0))
        danger = stage.danger()
        assert danger is not None
        rows.append((danger.gap_m, danger.ttc_s, stage.ego.speed))
        stage.step(dt)
    gap, ttc, speed = np.array(rows).T
    return gap, ttc, speed


def test_the_braking_leads_gap_is_the_formula() -> None:
    gap, ttc, speed = walked(stage_of("braking_lead"), 120)
    t = np.arange(120) * 0.04
    held = speed == speed[0]  # until we brake
    brakes = np.maximum(t - 2.0, 0.0)
    assert held[:110].all()
    assert gap[held] == pytest.approx((gap[0] - 0.5 * 2.94 * brakes**2)[held], abs=1e-6)
    k = 75  # 1 s after it began to brake: gap - 2.94 t - 1.47 t² = 0
    wanted = (-2.94 + math.sqrt(2.94**2 + 4 * 1.47 * gap[k])) / (2 * 1.47)
    assert ttc[k] == pytest.approx(wanted) and (ttc[:50] > 1e3).all()


@pytest.mark.parametrize("name", ["stopped_lead", "slower_lead", "ccrs_50", "ccrm_80"])
def test_true_ttc_is_the_gap_over_its_finite_difference(name: str) -> None:
    gap, ttc, speed = walked(stage_of(name), 60)
    held = speed[1:] == speed[0]
    assert ttc[:-1][held] == pytest.approx((gap[:-1] / (gap[:-1] - gap[1:]) * 0.04)[held], rel=1e-6)


@pytest.mark.parametrize("name", [n for n in names() if "fcw" in find_scenario(n).expect.warning])
def test_we_brake_late_and_are_warned_of_a_real_danger(name: str) -> None:
    """Speeds within 2 and gaps within 3 per cent; the danger comes near enough for a warning to be due."""
    for seed in range(3):
        scenario, stage = find_scenario(name), stage_of(name, seed)
        wanted = scenario.ego.speed_kmh / 3.6
        assert abs(stage.ego.speed / wanted - 1) <= 0.02
        gap, ttc, _ = walked(stage, round(scenario.length_s * 25))
        spec = next(actor for actor in scenario.actors if actor.danger)
        assert abs(gap[0] / spec.gap_m - 1) <= 0.03 + 1e-9
        assert scenario.expect.window is not None
        assert ttc.min() < scenario.expect.window[0] + 0.3 and gap.min() > 0.0


@pytest.mark.parametrize("name", ["cpfa_50", "cpna_40", "cbna_40"])
def test_who_crosses_is_before_the_middle_of_our_car_when_we_arrive(name: str) -> None:
    for seed in range(4):
        stage = stage_of(name, seed)
        for _ in range(400):
            snap = stage.snapshot((0.0, 0.0))
            thing = snap.things[0]
            if thing.near() - snap.s - CAMERA_TO_BUMPER <= 0.0:
                break
            speed = stage.ego.speed
            stage.step(0.02)
            stage.ego.speed = speed  # nobody brakes
        assert abs(thing.d - snap.d) < 0.75


def test_a_lane_change_ends_in_the_middle_of_the_other_lane() -> None:
    stage = stage_of("cut_in")
    layout = stage._layout
    sides = []
    for _ in range(100):
        sides.append(stage.snapshot((0.0, 0.0)).things[0].d)
        stage.step(0.04)
    assert sides[:25] == pytest.approx([layout.lane(1)] * 25) and sides[80:] == pytest.approx([layout.lane(0)] * 20)
    assert sides[50] == pytest.approx((layout.lane(0) + layout.lane(1)) / 2)


def test_a_drift_crosses_the_line_at_half_a_metre_a_second() -> None:
    drive = Drive(5, scenario="ldw_right", width=160, height=96)
    first, last = (drive.render(i)[2].right_m for i in (100, 125))
    assert first - last == pytest.approx(0.5, abs=0.08) and first > 0 > last
    left, right = (drive.render(100)[2].left_m, drive.render(100)[2].right_m)
    assert left + right == pytest.approx(3.65 - 1.8)


# the drive


def test_a_drive_of_a_scenario_is_fixed_by_its_seed_and_carries_our_speed() -> None:
    a, b = (Drive(7, scenario="stopped_lead", width=160, height=96) for _ in range(2))
    assert np.array_equal(a.render(40)[0].bgr, b.render(40)[0].bgr) and len(a) == round(5.2 * 25)
    frame, truth, ego = a.render(40)
    assert frame.speed_mps == ego.speed_mps == pytest.approx(72.4 / 3.6, rel=0.02)
    other = Drive(8, scenario="stopped_lead", width=160, height=96)
    assert other.camera != a.camera and other.render(40)[2].speed_mps != ego.speed_mps
    frame, truth, _ = Drive(7, 90, scenario="stopped_lead").render(85)
    danger = a.danger(85)
    assert danger is not None and danger.id == truth.id[0]
    assert truth.distance_m[0] == pytest.approx(danger.gap_m + CAMERA_TO_BUMPER, abs=1e-4)
    assert a.danger(0) is not None and Drive(7, 2, scenario="oncoming", width=160, height=96).danger(0) is None


def test_a_gantry_hangs_over_the_road() -> None:
    """Its signs are above the horizon, and they are there."""
    scenario = find_scenario("overhead_sign")
    bare = scenario.model_copy(update={"road": scenario.road.model_copy(update={"gantries_m": ()})})
    with_it, without = (Drive(3, 40, scenario=s).render(36)[0].bgr for s in (scenario, bare))
    rows = np.flatnonzero((np.abs(with_it.astype(int) - without).max(2) > 25).any(1))
    assert len(rows) > 8 and rows.min() < 170


def test_random_traffic_is_what_it_was() -> None:
    """Published figures rest on these drives: 15 pixels of a frame, within what another OpenCV may round otherwise."""
    for seed, wanted in TRAFFIC.items():
        frame, truth, _ = Drive(seed, 30, width=320, height=192).render(13)
        pixels = frame.bgr[16::64, 32::64].astype(int).sum(2).ravel() // 3
        assert np.abs(pixels - np.frombuffer(bytes.fromhex(wanted[0]), np.uint8)).max() <= 4
        assert [truth.id.tolist(), np.round(truth.distance_m, 2).tolist()] == [
            wanted[1],
            pytest.approx(wanted[2], abs=0.02),
        ]


TRAFFIC = {
    0: ("a19584839aada499a98f77b5837d71", [3, 4, 8, 10, 15], [26.59, 59.6, 54.25, 16.29, 42.27]),
    2: ("d3dcd6d9d97a87e87775918f96799e", [2, 3, 7], [64.39, 48.18, 70.19]),
    4: (
        "3acce3c8574078f4394a7b8e948b7b",
        [3, 9, 10, 21, 27, 28, 29, 30, 31, 32, 33, 41, 42, 43, 51, 52, 57, 58, 59, 63],
        [
            49.53,
            13.94,
            35.2,
            43.92,
            4.35,
            16.14,
            23.16,
            29.31,
            39.48,
            46.97,
            61.33,
            43.26,
            48.86,
            57.71,
            15.1,
            16.05,
            15.6,
            46.66,
            69.47,
            44.14,
        ],
    ),
}


# the judge

FCW = ExpectSection(warning="fcw", window=(2.1, 5.0), also=("headway",))
NONE = ExpectSection(warning="none")
LDW = ExpectSection(warning="ldw_left", window=(-0.3, 0.75))


def alert(warning: str, figure: float, meant: bool = True) -> Alert:
    return Alert(warning, 1.0, figure, meant)


@pytest.mark.parametrize(
    ("expect", "alerts", "verdict", "false"),
    [
        (FCW, [alert("fcw", 2.5)], "in time", ()),
        (FCW, [alert("fcw", 2.1), alert("fcw", 1.0)], "in time", ()),  # the first one counts
        (FCW, [alert("fcw", 2.0)], "late", ()),
        (FCW, [alert("fcw", 6.0), alert("fcw", 3.0)], "early", ()),
        (FCW, [], "none", ()),
        (FCW, [alert("fcw", 3.0, meant=False)], "none", ("fcw",)),  # of somebody else
        (FCW, [alert("headway", 1.0), alert("fcw", 3.0)], "in time", ()),
        (FCW, [alert("ldw_left", 0.2), alert("fcw", 3.0)], "in time", ("ldw_left",)),
        (LDW, [alert("ldw_left", -0.2)], "in time", ()),
        (LDW, [alert("ldw_left", -0.4)], "late", ()),
        (LDW, [alert("ldw_left", 0.8)], "early", ()),
        (LDW, [alert("ldw_right", 0.2)], "none", ("ldw_right",)),
        (NONE, [], "quiet", ()),
        (NONE, [alert("headway", 1.0), alert("fcw", math.nan)], "false alarm", ("headway", "fcw")),
    ],
)
def test_the_judge(expect: ExpectSection, alerts: list[Alert], verdict: str, false: tuple[str, ...]) -> None:
    trial = judge_trial(1, alerts, expect)
    assert trial.verdict == verdict and trial.false_alarms == false
    assert trial.ok == (verdict in ("in time", "quiet"))


def test_five_of_seven_pass_and_no_false_alarm_is_allowed() -> None:
    def result(name: str, good: int) -> ScenarioResult:
        quiet = "quiet" if name == "cut_out" else "in time"
        bad = "false alarm" if name == "cut_out" else "late"
        trials = [Trial(k, quiet if k < good else bad, math.nan, ()) for k in range(7)]  # type: ignore[arg-type]
        return ScenarioResult(find_scenario(name), tuple(trials))

    assert [result("stopped_lead", good).ok for good in (4, 5, 7)] == [False, True, True]
    assert [result("cut_out", good).ok for good in (6, 7)] == [False, True]
    assert result("stopped_lead", 4).row()[2:] == ("4/7", "–", "–", "FAILED")


def test_a_scenario_goes_through_the_pictures_and_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a detector of lamps no car is seen: a quiet scenario passes, a warning never comes, the exit code is 9."""
    bundle = make_bundle(tmp_path / "lamps.bundle", int8=True)
    short = find_scenario("adjacent_car").model_copy(update={"length_s": 0.4})
    report = judge_scenarios(bundle, [short], trials=2)
    assert report.ok and report.table()[1][2] == "2/2" and [t.seed for t in report.results[0].trials] == [9600, 9601]
    path = written(tmp_path, length_s=0.2)
    arguments = ["edgecnn", "scenarios", str(bundle.path), "--only", str(path), "--trials", "1", "--json"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capsys.readouterr()
    assert end.value.code == 9 and "1 of 1 scenarios failed: plain" in err
    trial = json.loads(out)["scenarios"][0]["trials"][0]
    assert trial["verdict"] == "none" and trial["figure"] is None


def test_two_workers_find_what_one_process_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the byte, though trials end in another order; and a worker that has another bundle there refuses."""
    pytest.importorskip("distributed", reason="the extra `sweep` is not installed")
    bundle = make_bundle(tmp_path / "lamps.bundle", int8=True)
    (tmp_path / "other").mkdir()
    paths = [written(tmp_path, length_s=0.4), written(tmp_path / "other", length_s=0.2, name="shorter")]
    only = [word for path in paths for word in ("--only", str(path))]
    arguments = ["edgecnn", "scenarios", str(bundle.path), *only, "--trials", "2"]
    told = []
    for more in ([], ["--workers", "2"]):
        monkeypatch.setattr(sys, "argv", [*arguments, "--json", *more])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 9
        told.append(capsys.readouterr().out)
    assert told[0] == told[1] and len(json.loads(told[0])["scenarios"][1]["trials"]) == 2
    with pytest.raises(BundleError, match="is another bundle"):
        _opened(bundle.path, "0" * 64, "int8")


def test_a_scenario_is_a_source_of_run(tmp_path: Path) -> None:
    from edgecnn.run import open_source

    with open_source(f"sim:{written(tmp_path, length_s=0.2)}:3") as source:
        frames = list(source)
    assert len(frames) == 5 == source.total and frames[0].speed_mps == pytest.approx(20.0, rel=0.02)


# false alarms at logic level


@pytest.fixture(scope="module")
def false_alarms() -> Any:
    spec = importlib.util.spec_from_file_location("false_alarms", ROOT / "benchmarks" / "false_alarms.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["false_alarms"] = module
    spec.loader.exec_module(module)
    return module


def test_the_cuboids_boxes_are_the_pictures(false_alarms: Any) -> None:
    drive = Drive(3, 10, scenario="slower_lead")
    _, truth, _ = drive.render(5)
    things, boxes, hidden = false_alarms.true_boxes(drive.view(5), drive._snapshots[5].things)
    assert [t.id for t in things] == [1] and hidden.tolist() == [0.0]
    assert boxes[0] == pytest.approx(truth.xyxy[0], abs=1.5)


def test_a_tenth_of_an_hour_is_the_same_twice(false_alarms: Any) -> None:
    once, again = false_alarms.drive(1), false_alarms.drive(1)
    assert repr(once) == repr(again)  # nan is not equal to itself
    assert once["seconds"] == 30.0 and once["road"] == "country"


def test_a_stopped_car_is_warned_of_without_pictures_too(false_alarms: Any) -> None:
    alerts = false_alarms.trial(find_scenario("slower_lead"), 1)
    assert any(a.warning == "fcw" and a.meant for a in alerts)


def test_scenario_type_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Scenario.model_validate(PLAIN).name = "other"  # type: ignore[misc]
