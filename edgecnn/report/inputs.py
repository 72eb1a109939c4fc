"""What other commands wrote, read back: the right kind of file, whole, every figure finite.

The models below name what the report reads, and nothing else: other keys pass. What is checked here once needs no
checks where it is drawn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgecnn.errors import InputError

Kind = Literal["bench", "check"]
MARKS = {  # command -> keys that its JSON has, and no other's
    "edgecnn bench --json": {"lanes", "ratios"},
    "edgecnn bench --compare --json": {"ours", "other"},
    "edgecnn check --json": {"figures", "gates"},
    "edgecnn run": {"detector_frames", "stages"},
    "edgecnn sense": {"units", "points"},
    "edgecnn xray --json": {"xrays"},
}


class Read(BaseModel):
    """Frozen, without nan and inf."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Times(Read):
    """Percentiles of a stage, ms."""

    p50: float
    p95: float
    p99: float


class Lane(Read):
    role: str
    detector_frames: float
    fps: float
    not_inference: float
    stages: dict[str, Times]


class Machine(Read):
    cpu: str


class Bench(Read):
    source: str
    frames: int
    threads: int
    machine: Machine
    lanes: Annotated[dict[str, Lane], Field(min_length=1)]
    ratios: dict[str, dict[str, float]]


class Gate(Read):
    metric: str
    ok: bool
    text: str


class Check(Read):
    data: dict[str, Any]
    samples: int
    figures: Annotated[dict[str, dict[str, float | None]], Field(min_length=1)]
    gates: list[Gate]


class Event(Read):
    """A warning begins or ends."""

    t_ns: int
    frame: int
    kind: str
    track: int
    ttc_s: float | None
    distance_m: float | None


class Still(Read):
    path: str
    frame: int
    tracks: int
    warned: bool


class Files(Read):
    stills: list[Still] = []


class Thresholds(Read):
    fcw_on_s: float


class Summary(Read):
    """summary.json of a run."""

    source: str
    role: str
    frames: int
    dropped: int
    fps: float
    detector_frames: int
    reasons: dict[str, int]
    macs_saved: float
    tracks: int
    cuts: int
    warning: str
    events: list[Event]
    stages: dict[str, Times]
    thresholds: Thresholds
    files: Files


class Track(Read):
    id: int
    label: str
    ttc_s: float | None
    in_path: bool
    warned: bool = False


class Frame(Read):
    """A `frame` line of events.jsonl."""

    index: int
    t_s: float
    detector: str | None  # why it ran, None = it didn't
    cut: bool
    mode: str = ""  # older runs don't tell
    late: bool = False
    invalid: str = ""
    warnings: list[str] = []
    tracks: list[Track]


MODELS: Mapping[Kind, type[Read]] = {"bench": Bench, "check": Check}
R = TypeVar("R", bound=Read)


def printed(path: Path | None, kind: Kind) -> Mapping[str, Any]:
    """The JSON that `edgecnn bench` or `check` printed with --json; {} for None.

    Raises InputError where it is not readable, another command's, or damaged.
    """
    if path is None:
        return {}
    command = f"edgecnn {kind} --json"
    data = read_json(path, f"what `{command}` printed")
    if not MARKS[command] <= data.keys():
        other = next((name for name, keys in MARKS.items() if keys <= data.keys()), "")
        what = f"is of `{other}`" if other else "holds something else"
        raise InputError(f"--{kind} {path} {what}", wanted=f"what `{command}` printed")
    fitting(data, MODELS[kind], str(path), do=f"Make it again: {command} > FILE")
    return data


def read_json(path: Path, wanted: str) -> dict[str, Any]:
    """A JSON object. Raises InputError where there is none, and for nan and inf, which are not JSON."""
    try:
        data = json.loads(path.read_text("utf-8"), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not readable JSON ({error})", wanted=wanted) from error
    if not isinstance(data, dict):
        raise InputError(f"{path} holds {type(data).__name__}, no object", wanted=wanted)
    return data


def fitting(data: Any, model: type[R], name: str, *, do: str) -> R:
    """`data` as `model`. Raises InputError that names the first field that is missing or wrong."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise InputError(f"{name} is damaged: {place}: {first['msg']}", do=do) from error


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no JSON")
