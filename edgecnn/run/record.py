"""A run, written down as it goes, so that `edgecnn replay` can run the same loop again.

    FOLDER/recording.json   what ran: source, network, settings, camera, thresholds, versions
    FOLDER/000000.npz       64 frames: `turns`, a JSON line a turn of the loop, and `said`, the lines of events.jsonl
                            that came of them, both as UTF-8 bytes; `rows` and `values`, the networks' answers
    FOLDER/000000.mkv       their pictures, lossless (FFV1): only of what cannot be had again, a camera or a stream

A part gets its name when it is whole, so after kill -9 or a power cut all parts but the last are there.
"""

from __future__ import annotations

import hashlib
import json
import platform
import zlib
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from edgecnn.adas import Camera, SceneSettings
from edgecnn.backends import Backend
from edgecnn.bundle import Bundle, ModelSpec, atomic, sha256
from edgecnn.errors import InputError
from edgecnn.progress import note
from edgecnn.run.answers import Call, Listener, Sparse
from edgecnn.run.appearance import Appearance
from edgecnn.run.loop import RunSettings
from edgecnn.run.second import SecondStage
from edgecnn.run.sinks import Background, Item, event_lines
from edgecnn.run.sources import Source
from edgecnn.run.tally import versions
from edgecnn.scene import Frame, Picture

FORMAT, HEADER = 1, "recording.json"
PART = 64  # frames
MOST_TURNS = 1024  # in a part: a camera that is gone gives turns without frames
DEPTH = 8  # turns that wait to be written
CODEC, PIXELS = "ffv1", "bgr0"

Turn = tuple[dict[str, Any], list[str], list[Call], Picture | None]  # facts, lines said, calls, picture


class Tape:
    """The recording of one stream: `listen` to its networks, `open` it, `put` every item, end each `turn`, `close` it.

    A live stream is never held up by a slow disk: the recording ends there, and that is told.
    """

    def __init__(self, folder: Path, model: ModelSpec, settings: RunSettings) -> None:
        self.folder, self._classes = folder, model.classes
        self._sparse = Sparse(model, settings.score / 3)
        self._calls: list[Call] = []
        self._items: list[Item] = []
        self._sink: Background[Turn] | None = None
        self._part = 0
        self._over = False
        self._turns: list[Turn] = []  # of the part that is being written
        self._film: Film | None = None

    def detector(self, backend: Backend) -> Backend:
        """The backend, listened to; of its answers the cells that matter are kept."""
        return Listener("detector", backend, self._calls.append, self._sparse)

    def listen(self, of: str, backend: Backend) -> Backend:
        """The same of another network, whose answers are kept whole."""
        return Listener(of, backend, self._calls.append)

    def open(self, header: dict[str, Any], source: Source) -> None:
        """Write the header. Raises InputError where the folder holds a recording already, or the source is gone."""
        if (self.folder / HEADER).exists() or any(self.folder.glob("*.npz")):
            raise InputError(f"{self.folder} holds a recording already", wanted="a new folder to record into")
        origin = origin_of(source)
        body = {"format": FORMAT, "origin": origin, **header}
        body["sha256"] = digest(body)
        with atomic(self.folder / HEADER) as temporary:
            temporary.write_text(json.dumps(body, indent=1, allow_nan=False), "utf-8")
        self._kept, self._rate = origin is None, Fraction(source.fps).limit_denominator(1001)
        self._sink = Background("recording", self._write, self._flush, depth=DEPTH, patient=not source.live)

    def put(self, item: Item) -> None:
        self._items.append(item)

    def turn(self, frame: Frame | None, now: list[float], dropped: int, end: str | None) -> None:
        """The loop went round: with a frame, or without; `end` is what ended the stream, "" for its last frame."""
        calls, items = self._calls[:], self._items
        self._calls.clear()
        self._items = []
        if self._sink is None or self._over:
            return
        facts: dict[str, Any] = {"now": now, "dropped": dropped}
        if frame is not None:
            height, width = frame.bgr.shape[:2]
            speed = frame.speed_mps if frame.speed_mps == frame.speed_mps else None
            facts |= {"frame": frame.index, "t_ns": frame.t_ns, "size": [width, height], "speed_mps": speed}
        if end is not None:
            facts["end"] = end
        for result, status in items:
            if result is not None:
                age_s = status.age_s if status.age_s == status.age_s else None
                facts |= {"age_s": age_s, "ns": dict(result.ns), "searched": result.searched.tolist()}
        facts["calls"] = [call for call, _, _ in calls]
        said = [line for item in items for line in event_lines(item, self._classes)]
        self._sink.put((facts, said, calls, None if frame is None else frame.bgr))
        if self._sink.dropped:
            self._over = True
            note(f"warning: {self.folder}: the recording ends here, for it cannot be written so fast as frames come")

    def close(self) -> None:
        if self._sink is not None:
            self._sink.close()

    def _write(self, turn: Turn) -> None:
        """In the recording's own thread."""
        facts, _, _, bgr = turn
        if bgr is not None:
            if self._film and self._film.shape != bgr.shape:
                self._flush()
            facts["crc32"] = crc32(bgr)
            if self._kept:
                self._film = self._film or Film(self.folder / f".{self._part:06}.mkv", bgr, self._rate)
                self._film.write(bgr)
        self._turns.append((*turn[:3], None))
        frames = sum("frame" in facts for facts, _, _, _ in self._turns)
        if frames >= PART or len(self._turns) >= MOST_TURNS:
            self._flush()

    def _flush(self) -> None:
        """Give the part its name: first its pictures', then its own."""
        if not self._turns:
            return
        path = self.folder / f"{self._part:06}.npz"
        if self._film:
            self._film.close(path.with_suffix(".mkv"))
        lines = [json.dumps({**facts, "said": len(said)}, allow_nan=False) + "\n" for facts, said, _, _ in self._turns]
        calls = [call for _, _, calls, _ in self._turns for call in calls]
        columns = {
            "turns": np.frombuffer("".join(lines).encode(), np.uint8),
            "said": np.frombuffer("".join(line for _, said, _, _ in self._turns for line in said).encode(), np.uint8),
            "rows": np.concatenate([rows for _, rows, _ in calls] or [np.zeros(0, np.int32)]),
            "values": np.concatenate([values for _, _, values in calls] or [np.zeros(0, np.float32)]),
        }
        with atomic(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **columns)  # type: ignore[arg-type]
        self._turns, self._film = [], None
        self._part += 1


class Film:
    """Pictures of one size, (H, W, 3) BGR, lossless."""

    def __init__(self, part: Path, bgr: Picture, rate: Fraction) -> None:
        self.shape, self._part = bgr.shape, part
        self._container: Any = av.open(str(part), "w", format="matroska")
        stream: Any = self._container.add_stream(CODEC, rate=rate, options={"level": "3", "slicecrc": "1"})
        stream.height, stream.width = bgr.shape[:2]
        stream.pix_fmt = PIXELS
        self._stream = stream

    def write(self, bgr: Picture) -> None:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(bgr), format="bgr24").reformat(format=PIXELS)
        self._container.mux(self._stream.encode(frame))

    def close(self, path: Path) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()
        self._part.replace(path)


def describe(
    bundle: Bundle,
    role: str,
    settings: RunSettings,
    source: Source,
    camera: Camera | None,
    thresholds: SceneSettings,
    second: SecondStage | None,
    looks: Appearance | None,
) -> dict[str, Any]:
    """What ran, JSON-able. Thresholds that are the shipped ones are not repeated: a replay takes today's."""
    record = next((r for r in reversed(list(bundle.stages.values())) if role in r.files), None)
    header = {
        "name": source.name,
        "live": source.live,
        "fps": source.fps,
        "bundle": bundle.name,
        "role": role,
        "network": record.files[role][1] if record else "",  # sha256
        "settings": asdict(settings),
        "model": asdict(bundle.require_model()),
        "camera": None if camera is None else asdict(camera),
        "thresholds": None if thresholds.sha256 == SceneSettings.read().sha256 else asdict(thresholds),
        "second": None if second is None else {"model": asdict(second.model), "of": list(second.of)},
        "looks": None if looks is None else {"model": asdict(looks.model)},
        "versions": {**versions(), "platform": f"{platform.system()} {platform.machine()}"},
    }
    plain: dict[str, Any] = json.loads(json.dumps(header))
    return plain


def crc32(bgr: Picture) -> int:
    """Of a picture's pixels."""
    return zlib.crc32(np.ascontiguousarray(bgr).data)


def origin_of(source: Source) -> dict[str, Any] | None:
    """Where the pictures can be had again, {"source", "sha256"}; None: nowhere, so they must be kept."""
    if source.live:
        return None
    if source.name.startswith("sim:"):
        return {"source": source.name, "sha256": ""}
    path = Path(source.name)
    return {"source": source.name, "sha256": content(path)} if path.exists() else None


def content(path: Path) -> str:
    """sha256 of a file, or of a folder's files and their names."""
    if path.is_file():
        return sha256(path)
    names = sorted(file.name for file in path.iterdir() if file.is_file())
    return hashlib.sha256("".join(f"{name} {sha256(path / name)}\n" for name in names).encode()).hexdigest()


def digest(body: dict[str, Any]) -> str:
    """sha256 of a header without its own."""
    plain = {key: value for key, value in body.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
