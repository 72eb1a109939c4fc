"""One run: a source through the loop into the sinks, and what it came to."""

from __future__ import annotations

import json
import platform
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import cv2

from edgecnn import __version__
from edgecnn.backends import Backend, choose, open_backend
from edgecnn.bundle import Bundle, atomic
from edgecnn.progress import note, tracked
from edgecnn.run.draw import Painter
from edgecnn.run.loop import FrameResult, Pipeline, RunSettings, loop
from edgecnn.run.recorded import open_looks
from edgecnn.run.sinks import EventSink, VideoSink
from edgecnn.run.sources import Source, open_source
from edgecnn.run.timing import WORKING, StageTimes
from edgecnn.scene import Picture

SinkName = Literal["video", "events"]
VIDEO, EVENTS, SUMMARY, STILLS = "annotated.mp4", "events.jsonl", "summary.json", "stills"
STILL_LIMIT = 6
STILL_GAP_NS = 1_000_000_000  # between two of them


@dataclass(frozen=True)
class RunSummary:
    """What a run came to. JSON-able with `asdict`."""

    source: str
    bundle: str
    role: str  # file of the bundle that ran: fp32, int8_cpu, ...
    settings: dict[str, Any]
    frames: int
    dropped: int  # by a live source, for lack of time
    seconds: float  # wall clock, up to the last frame
    fps: float
    detector_frames: int
    reasons: dict[str, int]  # why the detector ran → frames
    macs_saved: float  # share of the network's multiply-adds that a detection in every frame would have cost more
    tracks: int  # different ids
    cuts: int
    events: list[dict[str, Any]]
    stages: dict[str, dict[str, float]]  # stage → n, mean, p50, p95, p99, max in ms; `frame` = all but decode and sink
    warning: str  # what of the source could not be used, "" for nothing
    complete: bool  # the source was read to its end
    files: dict[str, Any]  # video, events, summary: paths; stills: list of {path, frame, tracks, warned}


def run(
    bundle: Bundle,
    source: str | Source,
    out: Path | None,
    settings: RunSettings | None = None,
    sinks: Collection[SinkName] = ("video", "events"),
    *,
    backend: Backend | None = None,
    reid: Bundle | None = None,
) -> RunSummary:
    """Run a bundle on a source; `out` receives the sinks' files, stills and summary.json, None: nothing is written.

    After Ctrl-C or an error in mid-run the files hold everything until then, and the exception goes on.
    `backend` stands in for the bundle's own (see backends.replay); `reid` embeds, to know objects again. Raises
    InputError, BundleError, ModelError, MissingDependency.
    """
    settings = settings or RunSettings.of(bundle)
    model = bundle.require_model()
    role = choose(bundle, settings.precision) if backend is None else type(backend).__name__
    backend = backend or open_backend(bundle, settings.precision, threads=settings.threads)
    source = open_source(source) if isinstance(source, str) else source
    looks = open_looks(reid) if reid else None
    pipeline = Pipeline(model, backend, settings, fps=source.fps, camera=source.camera, looks=looks)
    tally = _Tally(bundle, source, role, settings)
    with tally.kept(out), source, ExitStack() as stack:
        video = events = None
        if out is not None and "video" in sinks:
            video = stack.enter_context(closing(VideoSink(out / VIDEO, source.fps)))
            tally.files["video"] = str(out / VIDEO)
        if out is not None and "events" in sinks:
            events = stack.enter_context(closing(EventSink(out / EVENTS, tally.header(), model.classes)))
            tally.files["events"] = str(out / EVENTS)
        paint = Painter(model.classes)
        for result in tracked(loop(source, pipeline), source.name, source.total):
            began = time.perf_counter_ns()
            ms = working_ms(result)
            wanted = out is not None and tally.wants_still(result)
            picture = paint(result, pipeline.camera, ms=ms) if video or wanted else None
            if video and picture is not None:
                video.write(picture, result.frame.t_ns)
            if events:
                events.write(result)
            if wanted and picture is not None:
                tally.add_still(result, picture)
            tally.add(result, sink_ns=time.perf_counter_ns() - began)
        tally.complete = True
    return tally.summary()


def working_ms(result: FrameResult) -> float:
    """Time from a decoded frame to its tracks and warnings, ms."""
    return sum(result.ns.get(stage, 0) for stage in WORKING) / 1e6


def versions() -> dict[str, str]:
    """Of what a run's result depends on."""
    names = ("numpy", "onnxruntime", "av", *filter(find_spec, ("openvino",)))
    known = {name: metadata.version(name) for name in names}
    return {"edgecnn": __version__, "python": platform.python_version(), "opencv": cv2.__version__, **known}


class _Tally:
    """What is counted while frames go by."""

    def __init__(self, bundle: Bundle, source: Source, role: str, settings: RunSettings) -> None:
        self.complete = False
        self.files: dict[str, Any] = {}
        self._bundle, self._source, self._role, self._settings = bundle, source, role, settings
        self._times = StageTimes()
        self._reasons: Counter[str] = Counter()
        self._ids: set[int] = set()
        self._events: list[dict[str, Any]] = []
        self._frames = self._cuts = 0
        self._began = self._ended = time.perf_counter()
        self._stills: list[_Still] = []

    def header(self) -> dict[str, Any]:
        return {
            "source": self._source.name,
            "bundle": str(self._bundle.path),
            "name": self._bundle.name,
            "role": self._role,
            "settings": asdict(self._settings),
            "fps": self._source.fps,
            "versions": versions(),
        }

    def add(self, result: FrameResult, *, sink_ns: int) -> None:
        frame_ns = sum(result.ns.get(stage, 0) for stage in WORKING)
        self._times.add({**result.ns, "sink": sink_ns, "frame": frame_ns})
        self._frames += 1
        self._cuts += result.cut
        self._ids.update(result.tracks.id.tolist())
        self._events += [event.json() for event in result.scene.warnings]
        if result.why:
            self._reasons[result.why] += 1
        self._ended = time.perf_counter()

    def wants_still(self, result: FrameResult) -> bool:
        """Whether this frame is among the best so far: a warning that begins, then many tracks; not two in a second."""
        rank = _rank(result)
        near = [s for s in self._stills if abs(s.t_ns - result.frame.t_ns) < STILL_GAP_NS]
        if near:
            return len(near) == 1 and rank > near[0].rank
        return len(self._stills) < STILL_LIMIT or rank > min(s.rank for s in self._stills)

    def add_still(self, result: FrameResult, picture: Picture) -> None:
        done, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 88])
        if not done:
            raise RuntimeError("OpenCV could not encode a still as JPEG")
        frame, t_ns = result.frame.index, result.frame.t_ns
        kept = [s for s in self._stills if abs(s.t_ns - t_ns) >= STILL_GAP_NS]
        kept.sort(key=lambda s: s.rank, reverse=True)
        warned = bool(result.scene.warned.any())
        new = _Still(_rank(result), frame, t_ns, len(result.tracks), warned, jpeg.tobytes())
        self._stills = sorted([*kept[: STILL_LIMIT - 1], new], key=lambda s: s.frame)

    @contextmanager
    def kept(self, out: Path | None) -> Iterator[None]:
        """Whatever happens inside, the summary and the stills of the frames that came are written."""
        try:
            yield
        finally:
            if self._source.warning:
                note(f"warning: {self._source.warning}")
            if out is not None and self._frames:
                self._write(out)

    def _write(self, out: Path) -> None:
        stills = []
        for still in self._stills:
            path = out / STILLS / f"{still.frame:06d}.jpg"
            with atomic(path) as temporary:
                temporary.write_bytes(still.jpeg)
            stills.append({"path": str(path), "frame": still.frame, "tracks": still.tracks, "warned": still.warned})
        self.files |= {"summary": str(out / SUMMARY), "stills": stills}
        with atomic(out / SUMMARY) as temporary:
            temporary.write_text(json.dumps(asdict(self.summary()), indent=1, allow_nan=False), "utf-8")
        if not self.complete:
            note(f"stopped after {self._frames} frames; they are kept in {out}")

    def summary(self) -> RunSummary:
        seconds, detector_frames = self._ended - self._began, sum(self._reasons.values())
        return RunSummary(
            source=self._source.name,
            bundle=str(self._bundle.path),
            role=self._role,
            settings=asdict(self._settings),
            frames=self._frames,
            dropped=self._source.dropped,
            seconds=round(seconds, 3),
            fps=round(self._frames / seconds, 2) if seconds else 0.0,
            detector_frames=detector_frames,
            reasons=dict(self._reasons),
            macs_saved=round(1 - detector_frames / self._frames, 4) if self._frames else 0.0,
            tracks=len(self._ids),
            cuts=self._cuts,
            events=self._events,
            stages=self._times.table(),
            warning=self._source.warning,
            complete=self.complete,
            files=self.files,
        )


@dataclass(frozen=True)
class _Still:
    rank: tuple[bool, bool, int]
    frame: int
    t_ns: int
    tracks: int
    warned: bool
    jpeg: bytes


def _rank(result: FrameResult) -> tuple[bool, bool, int]:
    begins = any(event.kind == "fcw_on" for event in result.scene.warnings)
    return begins, bool(result.scene.warned.any()), len(result.tracks)
