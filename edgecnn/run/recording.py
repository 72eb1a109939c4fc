"""A recording read back: strictly, for it may be cut short, damaged or forged. The form is in record.py."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from edgecnn.adas import Camera, SceneSettings
from edgecnn.backends import Array
from edgecnn.bundle import ModelSpec
from edgecnn.errors import EdgecnnError, InputError
from edgecnn.run.answers import unpack
from edgecnn.run.loop import RunSettings
from edgecnn.run.record import FORMAT, HEADER, content, digest
from edgecnn.run.sources import open_source
from edgecnn.scene import Frame, Picture

COLUMNS = {"turns": np.uint8, "said": np.uint8, "rows": np.int32, "values": np.float32}
LARGEST = 256 << 20  # bytes of one column: a part is never so large
WANTED = "a recording that `edgecnn run --record` wrote"
FORGED = (KeyError, TypeError, ValueError, AttributeError, IndexError)  # of facts that are not what they should be

Answered = tuple[dict[str, Any], dict[str, Array]]  # a call as in answers.py, and the network's outputs


@dataclass(frozen=True)
class Turn:
    """One round of the loop, as it was."""

    facts: dict[str, Any]
    said: tuple[str, ...]  # lines of events.jsonl
    answers: tuple[Answered, ...]
    part: int  # in which it stands

    @property
    def frame(self) -> int | None:
        """The index; None where no frame came."""
        return self.facts.get("frame")


class Recording:
    """What ran, and its turns in order. Raises InputError, one line, wherever it is not what `run --record` writes."""

    def __init__(self, folder: Path) -> None:
        self.folder, header = folder, folder / HEADER
        if not header.is_file():
            raise InputError(f"{folder} is no recording: it holds no {HEADER}", wanted=WANTED)
        try:
            data = json.loads(header.read_text("utf-8"))
            if data["format"] != FORMAT:
                raise InputError(f"{header} has format {data['format']!r}", wanted=f"format {FORMAT}")
            if data["sha256"] != digest(data):
                raise InputError(f"{header} was changed after it was written", wanted=WANTED)
            self.name, self.live, self.fps = str(data["name"]), bool(data["live"]), float(data["fps"])
            self.bundle, self.role, self.network = str(data["bundle"]), str(data["role"]), str(data["network"])
            self.settings = RunSettings(**data["settings"])
            self.model = ModelSpec.from_json(data["model"])
            camera, thresholds = data["camera"], data["thresholds"]
            self.camera = camera and Camera(**{**camera, **_pairs(camera)})
            self.thresholds = thresholds and SceneSettings.of(thresholds, str(header), str(thresholds["sha256"]))
            second, looks = data["second"], data["looks"]
            self.second = second and (ModelSpec.from_json(second["model"]), tuple(second["of"]))
            self.looks = looks and ModelSpec.from_json(looks["model"])
            self.origin = data["origin"] and (str(data["origin"]["source"]), str(data["origin"]["sha256"]))
            self.versions = {str(name): str(version) for name, version in data["versions"].items()}
        except EdgecnnError as error:
            raise InputError(f"{header}: {error}", wanted=WANTED) from error
        except (OSError, RecursionError, *FORGED) as error:
            raise InputError(f"{header} is damaged ({error})", wanted=WANTED) from error

    def turns(self) -> Iterator[Turn]:
        """Up to the last whole part; no part may be missing between others."""
        last = max((int(p.stem) for p in self.folder.glob("*.npz") if p.stem.isdecimal()), default=-1)
        for part in count():
            if part > last:
                return
            path = self.folder / f"{part:06}.npz"
            if not path.is_file():
                raise InputError(f"{path} is missing, though later parts are there", wanted="all parts of a recording")
            try:
                turns = list(_turns(part, _columns(path)))
            except EdgecnnError as error:
                raise InputError(f"{path}: {error}", wanted=WANTED) from error
            except (OSError, EOFError, RecursionError, MemoryError, zipfile.BadZipFile, zlib.error, *FORGED) as error:
                raise InputError(f"{path} is damaged ({error})", wanted="it as it was written") from error
            except (NotImplementedError, RuntimeError) as error:  # zipfile: encrypted, or packed in a way of its own
                raise InputError(f"{path} is no part of a recording ({error})", wanted=WANTED) from error
            yield from turns

    def pictures(self, source: str | None = None) -> Pictures:
        """The frames' pictures: kept, or from where they came, or from `source`, where that lies now.

        Raises InputError where they are gone or are others.
        """
        if self.origin is None:
            return KeptPictures(self.folder)
        name, sha256 = self.origin
        where = source or name
        if not sha256:
            if not name.startswith("sim:"):
                raise InputError(f"{self.folder} does not say what {name} held", wanted=WANTED)
            return SourcePictures(name)
        if not Path(where).exists():
            raise InputError(
                f"the recording was made of {name}, and there is nothing at {where}",
                do="Say where it is now: --source PATH",
            )
        if (came := content(Path(where))) != sha256:
            raise InputError(f"{where} is not what was recorded (sha256 {came[:12]}…)", wanted=f"{sha256[:12]}…")
        return SourcePictures(where)


class Pictures:
    """Of the frames of a recording, each asked for once, in order."""

    def __call__(self, turn: Turn) -> Picture:
        raise NotImplementedError

    def close(self) -> None: ...


class SourcePictures(Pictures):
    """From the source itself, played again."""

    def __init__(self, text: str) -> None:
        self._source = open_source(text).__enter__()
        self._frames = iter(self._source)

    def __call__(self, turn: Turn) -> Picture:
        for frame in self._frames:
            if frame.index == turn.frame:
                return frame.bgr
        raise InputError(f"{self._source.name} ends before frame {turn.frame}", wanted="the source that was recorded")

    def close(self) -> None:
        self._source.__exit__(None, None, None)


class KeptPictures(Pictures):
    """From the films beside the parts."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._part = folder, -1
        self._film: Iterator[Picture] = iter(())

    def __call__(self, turn: Turn) -> Picture:
        path = self._folder / f"{turn.part:06}.mkv"
        if turn.part != self._part:
            self._part, self._film = turn.part, _film(path)
        try:
            return next(self._film)
        except (StopIteration, OSError, ValueError, av.error.FFmpegError) as error:
            raise InputError(f"{path} has no picture for frame {turn.frame} ({error})", wanted=WANTED) from error


def frame_of(turn: Turn, bgr: Picture) -> Frame:
    """The frame as the loop got it. Raises InputError."""
    try:
        speed = turn.facts["speed_mps"]
        return Frame(int(turn.facts["frame"]), int(turn.facts["t_ns"]), bgr, np.nan if speed is None else float(speed))
    except FORGED as error:
        raise InputError(f"a turn of the recording is damaged ({error})", wanted=WANTED) from error


def _columns(path: Path) -> dict[str, Array]:
    with zipfile.ZipFile(path) as packed:
        sizes = {info.filename.removesuffix(".npy"): info.file_size for info in packed.infolist()}
        if set(sizes) != set(COLUMNS) or max(sizes.values()) > LARGEST:
            raise InputError(f"columns {sizes}, in bytes", wanted=f"{', '.join(COLUMNS)}, each below {LARGEST}")
        if changed := packed.testzip():  # numpy alone reads as far as a column's length says, and may miss its checksum
            raise InputError(f"{changed} was changed after it was written", wanted="it as it was written")
    with np.load(path, allow_pickle=False) as file:
        columns = {name: file[name] for name in COLUMNS}
    for name, dtype in COLUMNS.items():
        if columns[name].dtype != dtype or columns[name].ndim != 1:
            raise InputError(f"{name} is {columns[name].dtype} {columns[name].shape}", wanted=f"a row of {dtype}")
    return columns


def _turns(part: int, columns: dict[str, Array]) -> Iterator[Turn]:
    said = iter(columns["said"].tobytes().decode().splitlines(keepends=True))
    rows = [json.loads(line) for line in columns["turns"].tobytes().decode().splitlines()]
    answers = unpack([call for facts in rows for call in facts["calls"]], columns["rows"], columns["values"])
    for facts in rows:
        for name, kind in (("frame", int), ("t_ns", int), ("crc32", int), ("end", str), ("now", list), ("ns", dict)):
            if name in facts and not isinstance(facts[name], kind):
                raise ValueError(f"{name} is {str(facts[name])[:40]!r}")
        yield Turn(
            facts,
            tuple(next(said) for _ in range(int(facts["said"]))),
            tuple(next(answers) for _ in facts["calls"]),
            part,
        )
    if next(said, None) is not None or next(answers, None) is not None:
        raise ValueError("it holds more than its turns speak of")


def _film(path: Path) -> Iterator[Picture]:
    with av.open(str(path)) as container:
        for picture in container.decode(video=0):
            yield np.asarray(picture.to_ndarray(format="bgr24"), np.uint8)


def _pairs(camera: dict[str, Any]) -> dict[str, Any]:
    """Lists of JSON as the tuples that they were."""
    return {name: tuple(value) for name, value in camera.items() if isinstance(value, list)}
