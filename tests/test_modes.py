"""The modes' rules as tables of time, and the gate before the driver."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.adas import Event, Scene
from edgecnn.run.modes import MODES, Change, Gate, Modes

STEP_S = 0.04


def drive(modes: Modes, seconds: float, *, start: float = 0.0, **how: object) -> list[Change]:
    """Frames 40 ms apart, from `start` on for so many seconds; a callable gets the number of the frame."""
    changes = []
    for i in range(round(seconds / STEP_S)):
        given = {name: value(i) if callable(value) else value for name, value in how.items()}
        change = modes.step(start + i * STEP_S, i, **given)  # type: ignore[arg-type]
        changes += [change] if change else []
    return changes


def test_a_clear_drive_stays_normal() -> None:
    modes = Modes()
    assert drive(modes, 10) == [] and modes.mode == "NORMAL"
    assert modes.seconds == {"NORMAL": pytest.approx(10 - STEP_S), "REDUCED": 0, "WARN-OFF": 0, "STOP": 0}


@pytest.mark.parametrize(
    ("how", "mode", "cause"),
    [
        ({"late": lambda i: i % 10 == 0}, "NORMAL", None),  # a tenth
        ({"late": lambda i: i % 3 == 0}, "REDUCED", "deadline missed"),
        ({"stale": lambda i: i % 3 == 0}, "REDUCED", "frames too old"),
        ({"stale": True}, "WARN-OFF", "frames too old"),
        ({"faults": ("black",)}, "WARN-OFF", "black"),
        ({"late": True}, "WARN-OFF", "deadline missed"),  # it does not help to look less often
        ({"answer": False}, "WARN-OFF", "invalid outputs"),
        ({"answer": None}, "NORMAL", None),  # nobody asked
        ({"answer": lambda i: i % 4 != 0}, "NORMAL", None),  # single frames
    ],
)
def test_what_leads_where(how: dict[str, object], mode: str, cause: str | None) -> None:
    modes = Modes()
    drive(modes, 4, **how)
    assert (modes.mode, modes.causes) == (mode, (cause,) if cause else ())


def test_few_frames_a_second_are_judged_too() -> None:
    modes = Modes()
    changes = [change for i in range(8) if (change := modes.step(i * 0.4, i, stale=True))]
    assert [(change.mode, change.frame) for change in changes] == [("WARN-OFF", 4)]


def test_outputs_that_stay_invalid_stop_the_stream_for_good() -> None:
    modes = Modes()
    changes = drive(modes, 12, answer=False)
    assert [(c.mode, pytest.approx(c.t_s, abs=0.05)) for c in changes] == [("WARN-OFF", 0.5), ("STOP", 10.0)]
    drive(modes, 100, start=12.0)
    assert modes.mode == "STOP"


def test_it_rises_after_a_quiet_time_only() -> None:
    modes = Modes()
    drive(modes, 1, faults=("black",))
    (change,) = drive(modes, 10, start=1.0)
    assert (change.before, change.mode, change.causes) == ("WARN-OFF", "NORMAL", ())
    assert change.t_s == pytest.approx(0.96 + 3.0, abs=0.05)


def test_a_quiet_time_doubles_with_each_relapse_and_is_bounded() -> None:
    modes, waits, t = Modes(), [], 0.0
    for _ in range(8):
        drive(modes, 0.2, start=t, faults=("frozen",))
        (up,) = drive(modes, 70, start=t + 0.2)[:1]
        waits.append(up.t_s - t - 0.16)
        t = up.t_s + 1.0
        modes_now = modes.mode
        assert modes_now == "NORMAL"
        modes._now_s = modes._heard_s = t  # the drive above went on too far: back to one second after the rise
        modes._recent.clear()
    np.testing.assert_allclose(waits, [3, 6, 12, 24, 48, 60, 60, 60], atol=0.1)


def test_reduced_and_off_have_their_own_quiet_times() -> None:
    """Blurred while late: when the picture is clear again, frames are late still."""
    modes = Modes()
    drive(modes, 2, late=lambda i: i % 3 == 0, faults=("blurred",))
    assert modes.mode == "WARN-OFF"
    changes = drive(modes, 6, start=2.0, late=lambda i: i % 3 == 0)
    assert [c.mode for c in changes] == ["REDUCED"]
    assert [c.mode for c in drive(modes, 10, start=8.0)] == ["NORMAL"]


def test_silence_is_not_monitoring() -> None:
    modes = Modes()
    drive(modes, 1)
    assert modes.idle(1.2) is None
    change = modes.idle(1.6)
    assert change and (change.mode, change.causes, change.frame) == ("WARN-OFF", ("no frames",), -1)
    drive(modes, 2, start=2.0)
    assert modes.mode == "WARN-OFF"
    drive(modes, 3, start=4.0)
    assert modes.mode == "NORMAL"


def test_waiting_for_the_first_frame_is_not_monitoring_and_no_fault() -> None:
    modes = Modes()
    change = modes.idle(0.0)
    assert change and change.mode == "WARN-OFF"
    change = modes.step(0.5, 0)
    assert change and change.mode == "NORMAL"


def test_a_dead_source_stops() -> None:
    modes = Modes()
    drive(modes, 1)
    change = modes.stop(2.0, "the stream ended")
    assert change and change.json() == {
        "t_s": 2.0,
        "frame": -1,
        "before": "NORMAL",
        "mode": "STOP",
        "causes": ["the stream ended"],
    }


FRAMES = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.booleans(), st.sampled_from([True, False, None])), max_size=80
)


@given(FRAMES)
def test_whatever_comes_seconds_add_up_and_changes_chain(frames: list[tuple[bool, bool, bool, bool | None]]) -> None:
    modes, before = Modes(), "NORMAL"
    for i, (late, stale, fault, answer) in enumerate(frames):
        change = modes.step(i * 0.1, i, late=late, stale=stale, faults=("black",) if fault else (), answer=answer)
        if change:
            assert (change.before, change.mode) == (before, modes.mode) and change.before != change.mode
            before = change.mode
        if fault:
            assert MODES.index(modes.mode) >= 2
    modes.finish(len(frames) * 0.1)
    assert sum(modes.seconds.values()) == pytest.approx(len(frames) * 0.1)


# The gate


def scene(on: tuple[str, ...], *events: tuple[str, int]) -> Scene:
    one = np.ones(1, np.float32)
    told = tuple(Event(0, 0, kind, track, 2.0, 20.0) for kind, track in events)
    return Scene(one, one, one, one, one > 0, np.array([bool(on)]), told, on=on)


def through(*frames: tuple[Scene, str]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """(scene, "hold", "off", "cut" or "") a frame → what is on, and the kinds of the events, after each."""
    gate, told = Gate(), []
    for i, (given_scene, how) in enumerate(frames):
        out = gate.step(given_scene, t_ns=i, frame=i, cut="cut" in how, hold="hold" in how, off="off" in how)
        assert all(event.frame in (0, i) for event in out.warnings)
        assert out.warned.any() == bool(out.on)
        told.append((out.on, tuple(event.kind for event in out.warnings)))
    return told


FCW = ("fcw",)


def test_the_gate_lets_through_what_is_well_founded() -> None:
    assert through((scene(FCW, ("fcw_on", 3)), ""), (scene(FCW), ""), (scene((), ("fcw_off", 3)), "")) == [
        (FCW, ("fcw_on",)),
        (FCW, ()),
        ((), ("fcw_off",)),
    ]


def test_a_warning_that_begins_on_a_bad_frame_waits_for_a_good_one() -> None:
    assert through((scene(FCW, ("fcw_on", 3)), "hold"), (scene(FCW), "hold"), (scene(FCW), "")) == [
        ((), ()),
        ((), ()),
        (FCW, ("fcw_on",)),
    ]


def test_a_warning_that_begins_and_ends_on_bad_frames_is_never_told() -> None:
    assert through((scene(FCW, ("fcw_on", 3)), "hold"), (scene((), ("fcw_off", 3)), ""), (scene(()), "")) == [
        ((), ()),
        ((), ()),
        ((), ()),
    ]


def test_one_bad_frame_does_not_end_a_warning() -> None:
    assert through((scene(FCW, ("fcw_on", 3)), ""), (scene(FCW), "hold")) == [(FCW, ("fcw_on",)), (FCW, ())]


def test_not_monitoring_ends_warnings_and_tells_them_again_after() -> None:
    both = ("fcw", "ldw_left")
    assert through(
        (scene(both, ("fcw_on", 3), ("ldw_left_on", 0)), ""),
        (scene(both), "off"),
        (scene(both), "off"),
        (scene(both), ""),
    ) == [
        (both, ("fcw_on", "ldw_left_on")),
        ((), ("fcw_off", "ldw_left_off")),
        ((), ()),
        (both, ("fcw_on", "ldw_left_on")),
    ]


def test_a_cut_ends_what_was_told() -> None:
    assert through((scene(FCW, ("fcw_on", 3)), ""), (scene(()), "cut"), (scene(()), "")) == [
        (FCW, ("fcw_on",)),
        ((), ("fcw_off",)),
        ((), ()),
    ]


def test_a_headway_warning_may_end_with_another_track() -> None:
    gap: Callable[..., Scene] = lambda *events: scene(("headway",), *events)  # noqa: E731
    told = through((gap(("headway_on", 3)), ""), (scene((), ("headway_off", 8)), ""), (gap(("headway_on", 9)), ""))
    assert [kinds for _, kinds in told] == [("headway_on",), ("headway_off",), ("headway_on",)]
