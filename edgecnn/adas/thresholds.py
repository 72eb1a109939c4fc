"""The one file of thresholds, read strictly: the scene analysis has its settings there and nowhere else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from edgecnn.adas.departure import DepartureSettings
from edgecnn.adas.drift import DriftSettings
from edgecnn.adas.fcw import FcwSettings
from edgecnn.adas.headway import HeadwaySettings
from edgecnn.adas.horizon import RangeSettings
from edgecnn.adas.kinds import Kind
from edgecnn.adas.path import PathSettings
from edgecnn.adas.pedestrian import PedestrianSettings
from edgecnn.adas.ttc import TtcSettings
from edgecnn.errors import InputError

FILE = Path(__file__).with_name("thresholds.json")
VERSION = 1  # of the file's form: another one is refused
SECTIONS: Mapping[str, Any] = {
    "ttc": TtcSettings,
    "range": RangeSettings,
    "path": PathSettings,
    "drift": DriftSettings,
    "fcw": FcwSettings,
    "headway": HeadwaySettings,
    "pedestrian": PedestrianSettings,
    "departure": DepartureSettings,
}
T = TypeVar("T")


@dataclass(frozen=True)
class SceneSettings:
    """All thresholds. Units stand in the names; rad, m, s, m/s, px, 1/m."""

    ttc: TtcSettings
    range: RangeSettings
    path: PathSettings
    drift: DriftSettings
    fcw: FcwSettings
    headway: HeadwaySettings
    pedestrian: PedestrianSettings
    departure: DepartureSettings
    kinds: Mapping[str, Kind]
    version: int
    sha256: str  # of the file

    @classmethod
    def read(cls, path: Path = FILE) -> SceneSettings:
        """The shipped file, or a user's: a whole one, or only the sections and keys that differ from the shipped.

        Raises InputError, one line, for a file that is missing or no JSON, an unknown key, or an absurd value.
        """
        data, sha256 = _load(path)
        if path != FILE:
            data = _over(_load(FILE)[0], data, path.name)
        return cls.of(data, path.name, sha256)

    @classmethod
    def of(cls, data: Mapping[str, Any], name: str, sha256: str) -> SceneSettings:
        """Of the JSON of a whole file. Raises InputError as `read` does."""
        if data.get("version") != VERSION:
            raise InputError(f"{name} has version {data.get('version')}", wanted=f"version {VERSION}")
        return cls(
            **{section: _section(kind, data[section], f"{name}: {section}") for section, kind in SECTIONS.items()},
            kinds={key: _section(Kind, kind, f"{name}: kinds.{key}") for key, kind in data["kinds"].items()},
            version=VERSION,
            sha256=sha256,
        )


def _load(path: Path) -> tuple[dict[str, Any], str]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"no thresholds at {path} ({error.strerror})", wanted="a JSON file") from None
    try:
        data = json.loads(raw)
    except ValueError as error:
        raise InputError(
            f"{path.name} is no JSON ({error})", wanted="thresholds as in edgecnn/adas/thresholds.json"
        ) from None
    if not isinstance(data, dict):
        raise InputError(f"{path.name} holds no JSON object", wanted="thresholds as in edgecnn/adas/thresholds.json")
    return data, hashlib.sha256(raw).hexdigest()


def _over(shipped: dict[str, Any], given: Any, where: str) -> dict[str, Any]:
    """`shipped` with what is given over it; nothing new may come, and a section stays a section."""
    if not isinstance(given, dict):
        raise InputError(f"{where} is {given!r}", wanted=f"an object with some of {', '.join(shipped)}")
    if unknown := [key for key in given if key not in shipped]:
        raise InputError(f"{where} has the key '{unknown[0]}'", wanted=f"only {', '.join(shipped)}")
    return {
        key: _over(value, given[key], f"{where}: {key}") if isinstance(value, dict) and key in given
        else given.get(key, value)
        for key, value in shipped.items()
    }  # fmt: skip


def _section(kind: type[T], data: Mapping[str, Any], where: str) -> T:
    values: dict[str, Any] = {}
    for f in fields(kind):  # type: ignore[arg-type]
        value = data[f.name]
        if "within" not in f.metadata:
            if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
                raise InputError(f"{where}.{f.name} is {value!r}", wanted="a list of names")
            values[f.name] = tuple(name.lower() for name in value)
            continue
        low, high = f.metadata["within"]
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise InputError(f"{where}.{f.name} is {value!r}", wanted=f"a number from {low:g} to {high:g}")
        if f.type == "int" and value % 1:
            raise InputError(f"{where}.{f.name} is {value!r}", wanted="a whole number")
        values[f.name] = int(value) if f.type == "int" else float(value)
    if "off_s" in values and values["off_s"] < values["on_s"]:
        raise InputError(f"{where} ends at a shorter time than it begins at", wanted="off_s of at least on_s")
    return kind(**values)
