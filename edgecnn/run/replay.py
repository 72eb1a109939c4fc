"""A recording through today's loop: the same pictures, answers and clocks, and what it says now beside what it said.

Lines of events.jsonl are compared byte by byte. The line about the run is not among them: versions are told apart.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from edgecnn.backends import Array, Backend, open_backend
from edgecnn.bundle import Bundle
from edgecnn.errors import InputError
from edgecnn.run.appearance import Appearance
from edgecnn.run.record import crc32
from edgecnn.run.recording import Answered, Recording, Turn, frame_of
from edgecnn.run.second import SecondStage
from edgecnn.run.sinks import Item, event_lines
from edgecnn.run.sources import Source
from edgecnn.run.stream import Outputs, Setup, Stream
from edgecnn.run.tally import versions
from edgecnn.run.timing import Laps, Watch
from edgecnn.scene import Frame

ROWS = 1000  # differences that are kept; all are counted


class Difference(NamedTuple):
    """One thing that is said otherwise. `track` None: of the frame as a whole; a side that says nothing is None."""

    frame: int
    track: int | None
    field: str
    recorded: Any
    now: Any


@dataclass(frozen=True)
class Replayed:
    """What came of a replay. JSON-able with `asdict`."""

    recording: str
    frames: int
    lines: int  # of events.jsonl that were compared
    same: bool  # to the byte
    differences: int
    rows: list[Difference]  # the first of them
    pictures: int  # frames whose pixels are not those recorded
    versions: dict[str, tuple[str, str]]  # what differs: recorded, now
    ended: str  # of the recording: "" at the source's end, else why; "cut short" where it does not say


class Unanswered(InputError):
    """Today's loop asks a network what the recorded run did not ask."""


class _Tape(Source):
    """The recorded turns as a source; with them come the answers and the clocks of the turn."""

    def __init__(self, recording: Recording, source: str | None) -> None:
        self.name, self.live, self.fps, self.total = recording.name, recording.live, recording.fps, None
        self.camera = recording.camera
        self.given = self.dropped = self.decode_ns = self.reconnects = 0
        self.over, self.ended, self.pictures_differ = False, "cut short", 0
        self.turn: Turn | None = None
        self._turns = recording.turns()
        self._pictures = recording.pictures(source)

    @property
    def warning(self) -> str:
        return ""

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self._pictures.close()

    def age_s(self, frame: Frame) -> float:
        age_s = None if self.turn is None else self.turn.facts.get("age_s")
        return math.nan if age_s is None else float(age_s)

    def take(self, wait_s: float = 0.0) -> Frame | None:
        self.turn = next(self._turns, None)
        if self.turn is None:
            self.over = True
            return None
        self.dropped, end = int(self.turn.facts["dropped"]), self.turn.facts.get("end")
        if end is not None:
            self.ended = str(end)
        if self.turn.frame is None:
            self.over = end == ""
            if end:
                raise InputError(end)
            return None
        bgr = self._pictures(self.turn)
        self.pictures_differ += crc32(bgr) != self.turn.facts["crc32"]
        self.given += 1
        return frame_of(self.turn, bgr)


class _Watch(Watch):
    """The recorded clocks."""

    def __init__(self, tape: _Tape) -> None:
        super().__init__()
        self._tape, self._last = tape, 0.0

    def now_s(self) -> float:
        told = self._tape.turn.facts["now"] if self._tape.turn else []
        if len(self.seen) < len(told):
            self._last = float(told[len(self.seen)])
        self.seen.append(self._last)
        return self._last

    def laps(self) -> Laps:
        return _Laps(self._tape.turn.facts.get("ns", {}) if self._tape.turn else {})


class _Laps(Laps):
    def __init__(self, told: Mapping[str, int]) -> None:
        super().__init__()
        self._told = told

    def lap(self, stage: str) -> None:
        self.ns[stage] = int(self._told.get(stage, 0))


class _Answers:
    """The recorded answers of one network."""

    def __init__(self, tape: _Tape, of: str) -> None:
        self._tape, self._of = tape, of
        self._turn: Turn | None = None
        self._left: Iterator[Answered] = iter(())

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        turn = self._tape.turn
        if turn is not self._turn and turn is not None:
            self._turn = turn
            self._left = (pair for pair in turn.answers if pair[0]["of"] == self._of)
        call, answer = next(self._left, (None, None))
        asked = list(next(value for value in feeds.values() if value.ndim == 4).shape)
        if call is None or answer is None or call["asked"] != asked:
            was = "did not ask" if call is None else f"asked with {call['asked']}"
            raise Unanswered(f"the network '{self._of}' is asked with {asked}, the recorded run {was}")
        return dict(answer)


class _Comparison:
    """Hears today's items, turn by turn beside the recorded lines."""

    def __init__(self, tape: _Tape, classes: tuple[str, ...]) -> None:
        self._tape, self._classes = tape, classes
        self._now: list[str] = []
        self.frames = self.lines = self.count = 0
        self.rows: list[Difference] = []

    def put(self, item: Item) -> None:
        self._now += event_lines(item, self._classes)

    def turn(self, error: Exception | None) -> None:
        """The turn is over: hold what was said in it against the recording."""
        turn, now = self._tape.turn, self._now
        self._now = []
        if turn is None:
            return
        self.frames += turn.frame is not None
        self.lines += len(turn.said)
        frame = -1 if turn.frame is None else turn.frame
        if error is not None and not turn.facts.get("end"):
            self._add(Difference(frame, None, "run", "went on", str(error)))
        elif list(turn.said) != now:
            for row in differences(frame, turn.said, now):
                self._add(row)

    def _add(self, row: Difference) -> None:
        self.count += 1
        if len(self.rows) < ROWS:
            self.rows.append(row)


def replay(
    recording: Recording, bundle: Bundle | None = None, *, source: str | None = None, out: Path | None = None
) -> Replayed:
    """Run the loop again on what was recorded; with a bundle, its network answers anew. `out` receives events.jsonl.

    Raises InputError for a damaged recording, or one whose source is gone, and what `open_backend` raises.
    """
    if bundle and (recording.second or recording.looks):
        raise InputError(
            f"{recording.folder} was recorded with a second network",
            do="Replay it without --bundle: what those saw depends on the detector",
        )
    tape = _Tape(recording, source)
    model = bundle.require_model() if bundle else recording.model
    backend: Backend = open_backend(bundle) if bundle else _Answers(tape, "detector")
    second, looks = recording.second, recording.looks
    setup = Setup(
        recording.camera,
        recording.thresholds,
        (lambda: SecondStage(second[0], _Answers(tape, "second"), model, second[1])) if second else None,
        (lambda: Appearance(looks, _Answers(tape, "looks"))) if looks else None,
    )
    heard = _Comparison(tape, model.classes)
    outputs = Outputs(recording.name, out, ("events",) if out else (), also=(heard.put,))
    what = bundle or Bundle(recording.folder, recording.bundle, model)
    stream = Stream(what, tape, backend, "replay", recording.settings, outputs, setup, _Watch(tape))
    with stream:
        while not stream.over:
            stream.turn()
            told = tape.turn is not None and tape.turn.facts.get("end")
            if isinstance(stream.error, InputError) and not (told or isinstance(stream.error, Unanswered)):
                raise stream.error  # of the recording itself
            heard.turn(stream.error)
    if not heard.frames:
        raise InputError(f"{recording.folder} holds no frame", wanted="one whole part or more")
    today = versions()
    return Replayed(
        str(recording.folder),
        heard.frames,
        heard.lines,
        not heard.count,
        heard.count,
        heard.rows,
        tape.pictures_differ,
        {name: (was, today[name]) for name, was in recording.versions.items() if today.get(name, was) != was},
        tape.ended,
    )


def differences(frame: int, recorded: tuple[str, ...] | list[str], now: list[str]) -> list[Difference]:
    """Line by line and field by field; tracks are those of one id, events those of one kind and track."""
    rows: list[Difference] = []
    was_all, is_all = (_by_name(lines) for lines in (recorded, now))
    for key in dict.fromkeys((*was_all, *is_all)):
        was, current = was_all.get(key), is_all.get(key)
        kind, track = key
        if was is None or current is None:
            rows.append(Difference(frame, track, kind, _short(was, kind), _short(current, kind)))
            continue
        rows += [
            Difference(frame, track, name, was.get(name), current.get(name))
            for name in dict.fromkeys((*was, *current))
            if was.get(name) != current.get(name)
        ]
    if not rows:  # the same facts in other bytes, or in another order
        old, new = next((a, b) for a, b in zip_longest(recorded, now) if a != b)
        rows.append(Difference(frame, None, "line", old and old[:60], new and new[:60]))
    return rows


def _by_name(lines: tuple[str, ...] | list[str]) -> dict[tuple[str, int | None], dict[str, Any]]:
    found: dict[tuple[str, int | None], dict[str, Any]] = {}
    for line in lines:
        data = json.loads(line)
        match data.pop("type"):
            case "frame":
                for track in data.pop("tracks"):
                    found["track", track["id"]] = track
                found["frame", None] = data
            case "event":
                found[data["kind"], data["track"]] = data
            case kind:
                found[kind, None] = data
    return found


def _short(data: dict[str, Any] | None, kind: str) -> str | None:
    if data is None:
        return None
    return str(data.get("label") or data.get("mode") or kind)


def as_json(result: Replayed) -> dict[str, Any]:
    """With each difference as an object."""
    return {**asdict(result), "rows": [row._asdict() for row in result.rows]}
