"""A run's folder read back, a line at a time: what a timeline needs of each frame, and how long each track lived."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgecnn.errors import InputError
from edgecnn.report.inputs import Frame, Still, Summary, fitting, read_json

AGAIN = "Run it again: edgecnn run"
PICTURES = 1_500_000  # bytes of JPEG on one page, whatever the number of runs


@dataclass(frozen=True)
class Shot:
    """One frame, without its tracks."""

    index: int
    t_s: float  # since the first frame
    mode: str
    detector: str  # why it ran, "" = it didn't
    cut: bool
    trouble: str  # late, or why the network's answer was no good
    warnings: tuple[str, ...]
    ttc_s: float | None  # the shortest time to collision in the path


@dataclass
class Life:
    """One track, from the first frame to the last; times in s since the first frame."""

    id: int
    label: str
    first_s: float
    last_s: float
    warned: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """What `edgecnn run --out` left."""

    folder: Path
    summary: Mapping[str, Any]
    shots: Sequence[Shot]
    lives: Mapping[int, Life]
    stills: Sequence[Still]
    left_out: int = 0  # stills that the page has no room for

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Raises InputError where the folder is no finished run, or a file in it is missing or damaged."""
        path, events = folder / "summary.json", folder / "events.jsonl"
        if not path.is_file():
            inner = sorted(each.parent.name for each in folder.glob("*/summary.json"))
            do = f"Name one of its runs: {', '.join(inner)}" if inner else ""
            raise InputError(f"{folder} holds no summary.json", wanted="a folder that `edgecnn run --out` made", do=do)
        data = read_json(path, "the summary of `edgecnn run`")
        summary = fitting(data, Summary, str(path), do=AGAIN)
        shots, lives = _follow(events) if events.is_file() else ([], {})
        return cls(folder, data, shots, lives, summary.files.stills)

    @property
    def source(self) -> str:
        """Its name for a heading: a file's without the folders."""
        name = str(self.summary["source"])
        return name if "://" in name or name.startswith("sim:") else Path(name).name

    def still(self, still: Still) -> Path:
        """Its file, in the run's own folder whatever the summary says. Raises InputError where there is none."""
        path = self.folder / "stills" / Path(still.path).name
        if not path.is_file():
            raise InputError(f"{path} is missing", do=AGAIN)
        return path

    def picture(self, still: Still) -> str:
        """As a data URI."""
        return "data:image/jpeg;base64," + base64.b64encode(self.still(still).read_bytes()).decode()


def fitted(runs: Sequence[Run], room: int = PICTURES) -> list[Run]:
    """The runs with as many stills as fit in `room` bytes of JPEG: those with a warning first, then each run's first,
    second, ..."""
    kept: list[set[int]] = [set() for _ in runs]
    order = sorted((not s.warned, place, r) for r, run in enumerate(runs) for place, s in enumerate(run.stills))
    for _, place, r in order:
        size = runs[r].still(runs[r].stills[place]).stat().st_size
        if size <= room:
            room -= size
            kept[r].add(place)
    return [
        replace(
            run,
            stills=[s for place, s in enumerate(run.stills) if place in kept[r]],
            left_out=len(run.stills) - len(kept[r]),
        )
        for r, run in enumerate(runs)
    ]


def _follow(path: Path) -> tuple[list[Shot], dict[int, Life]]:
    shots: list[Shot] = []
    lives: dict[int, Life] = {}
    start = 0.0
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            name = f"{path}, line {number},"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{name} is cut off or damaged ({error})", do=AGAIN) from error
            if not isinstance(row, dict) or row.get("type") != "frame":
                continue
            frame = fitting(row, Frame, name, do=AGAIN)
            start = start if shots else frame.t_s
            shots.append(_shot(frame, frame.t_s - start))
            _live(lives, frame, frame.t_s - start)
    return shots, lives


def _shot(frame: Frame, t_s: float) -> Shot:
    closing = (track.ttc_s for track in frame.tracks if track.in_path and track.ttc_s is not None)
    trouble = frame.invalid or ("past the deadline" if frame.late else "")
    return Shot(
        frame.index,
        t_s,
        frame.mode,
        frame.detector or "",
        frame.cut,
        trouble,
        tuple(frame.warnings),
        min(closing, default=None),
    )


def _live(lives: dict[int, Life], frame: Frame, t_s: float) -> None:
    for track in frame.tracks:
        life = lives.setdefault(track.id, Life(track.id, track.label, t_s, t_s))
        before, life.last_s, life.label = life.last_s, t_s, track.label
        if track.warned:
            if life.warned and life.warned[-1][1] == before:
                life.warned[-1] = (life.warned[-1][0], t_s)
            else:
                life.warned.append((t_s, t_s))
