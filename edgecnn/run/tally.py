"""What a run comes to: counted while frames go by, and told at the end."""

from __future__ import annotations

import math
import platform
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import cv2

from edgecnn import __version__
from edgecnn.adas import SceneSettings
from edgecnn.bundle import Bundle
from edgecnn.run.health import Fault
from edgecnn.run.loop import FrameResult, RunSettings
from edgecnn.run.modes import Change, Status
from edgecnn.run.sources import Source
from edgecnn.run.timing import StageTimes

LATEST = 15_000  # frames, ten minutes at 25 a second: percentiles of times are of these, or days would fill the memory


@dataclass(frozen=True)
class RunSummary:
    """What a run came to. JSON-able with `asdict`."""

    source: str
    bundle: str
    role: str  # file of the bundle that ran: fp32, int8_cpu, ...
    settings: dict[str, Any]
    thresholds: dict[str, Any]  # version of the form, sha256 of the file, when FCW begins
    frames: int
    dropped: int  # by a live source, for lack of time
    seconds: float  # wall clock, up to the last frame
    fps: float
    detector_frames: int
    region_frames: int  # of them, in which it ran on parts of the frame
    reasons: dict[str, int]  # why the detector ran → frames
    macs_saved: float  # share of the network's multiply-adds that a detection in every frame would have cost more
    pixels_searched: float  # mean share of the frame's pixels that the detector was shown
    tracks: int  # different ids
    names: dict[str, int]  # given by the second stage → tracks that had it last
    cuts: int
    late: int  # frames that took longer than settings.deadline_ms
    stale: int  # frames too old for a warning to begin on them
    invalid: int  # frames in which the network's answer was no answer
    odd_times: int  # time stamps that repeated, went back or leapt
    reconnects: int  # of a live source
    faults: dict[str, int]  # of the camera → frames in which it was told
    mode_seconds: dict[str, float]
    modes: list[dict[str, Any]]  # the changes
    events: list[dict[str, Any]]
    stages: dict[str, dict[str, float]]  # stage → n, mean, p50 to p99.9 of the LATEST, max in ms; `frame` = all but
    # decode and sink; `age` = of a live source's frame when its warnings were known
    sinks: dict[str, dict[str, Any]]  # written, dropped, mean ms in the sink's own thread, failed
    warning: str  # what of the source could not be used, "" for nothing
    complete: bool  # the source was read to its end
    files: dict[str, Any]  # video, events, tracks, summary: paths; stills: list of {path, frame, tracks, warned}


def share_of_regions(bundle: Bundle) -> float:
    """Multiply-adds of a look at parts of the frame over those of a look at all of it; nan without regions."""
    facts = bundle.stages["export"].facts if "export" in bundle.stages else {}
    return float(facts["macs_regions"] / facts["macs"]) if facts.get("macs_regions") else math.nan


def versions() -> dict[str, str]:
    """Of what a run's result depends on."""
    names = ("numpy", "onnxruntime", "av", *filter(find_spec, ("openvino",)))
    known = {name: metadata.version(name) for name in names}
    return {"edgecnn": __version__, "python": platform.python_version(), "opencv": cv2.__version__, **known}


class Tally:
    """Of one stream."""

    def __init__(
        self, bundle: Bundle, source: Source, role: str, settings: RunSettings, thresholds: SceneSettings
    ) -> None:
        self.complete = False
        self.files: dict[str, Any] = {}
        self.sinks: dict[str, dict[str, Any]] = {}
        self.modes: list[Change] = []
        self.frames = self.odd_times = 0
        self._bundle, self._source, self._role, self._settings = bundle, source, role, settings
        self._thresholds = {
            "version": thresholds.version,
            "sha256": thresholds.sha256,
            "fcw_on_s": thresholds.fcw.on_s,
        }
        self._names: dict[int, str] = {}
        self._times = StageTimes(LATEST)
        self._macs = self._searched = 0.0  # in whole frames
        self._cost = share_of_regions(bundle)
        self._reasons: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._ids: set[int] = set()
        self._events: list[dict[str, Any]] = []
        self._began = self._ended = time.perf_counter()

    def header(self) -> dict[str, Any]:
        return {
            "source": self._source.name,
            "bundle": str(self._bundle.path),
            "name": self._bundle.name,
            "role": self._role,
            "settings": asdict(self._settings),
            "thresholds": self._thresholds,
            "fps": self._source.fps,
            "versions": versions(),
        }

    def add(self, result: FrameResult, status: Status, *, stale: bool, faults: tuple[Fault, ...], sink_ns: int) -> None:
        age = {"age": round(1e9 * status.age_s)} if self._source.live else {}
        self._times.add({**result.ns, "sink": sink_ns, "frame": round(1e6 * status.ms), **age})
        self.frames += 1
        self._counts.update(cuts=result.cut, late=status.late, stale=stale, invalid=bool(result.invalid))
        self._faults.update(faults)
        self._ids.update(result.tracks.id.tolist())
        self._names |= {int(i): name for i, name in zip(result.tracks.id, result.names, strict=False) if name}
        self._events += [event.json() for event in result.scene.warnings]
        if result.why:
            self._reasons[result.why] += 1
            self._counts["regions"] += not result.whole
            self._macs += 1.0 if result.whole else self._cost
            self._searched += result.searched_share
        self._ended = time.perf_counter()

    def summary(self, mode_seconds: Mapping[str, float]) -> RunSummary:
        seconds, detector_frames = self._ended - self._began, sum(self._reasons.values())
        return RunSummary(
            source=self._source.name,
            bundle=str(self._bundle.path),
            role=self._role,
            settings=asdict(self._settings),
            thresholds=self._thresholds,
            frames=self.frames,
            dropped=self._source.dropped,
            seconds=round(seconds, 3),
            fps=round(self.frames / seconds, 2) if seconds else 0.0,
            detector_frames=detector_frames,
            region_frames=self._counts["regions"],
            reasons=dict(self._reasons),
            macs_saved=round(1 - self._macs / self.frames, 4) if self.frames else 0.0,
            pixels_searched=round(self._searched / self.frames, 4) if self.frames else 0.0,
            tracks=len(self._ids),
            names=dict(Counter(self._names.values()).most_common()),
            cuts=self._counts["cuts"],
            late=self._counts["late"],
            stale=self._counts["stale"],
            invalid=self._counts["invalid"],
            odd_times=self.odd_times,
            reconnects=self._source.reconnects,
            faults=dict(self._faults),
            mode_seconds={mode: round(s, 3) for mode, s in mode_seconds.items()},
            modes=[change.json() for change in self.modes],
            events=self._events,
            stages=self._times.table(),
            sinks=self.sinks,
            warning=self._source.warning,
            complete=self.complete,
            files=self.files,
        )
