"""One stream from its source to its sinks: judged, analysed, gated, shown, recorded, counted."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np

from edgecnn.adas import Camera, SceneSettings
from edgecnn.backends import Backend
from edgecnn.bundle import Bundle, atomic
from edgecnn.errors import ModelError
from edgecnn.progress import note
from edgecnn.run.appearance import Appearance
from edgecnn.run.draw import Painter
from edgecnn.run.health import CameraHealth, Clock
from edgecnn.run.loop import FrameResult, Pipeline, RunSettings
from edgecnn.run.modes import Change, Gate, Modes, Status
from edgecnn.run.mqtt import Mqtt
from edgecnn.run.preview import Board, Preview
from edgecnn.run.record import Tape, describe
from edgecnn.run.second import SecondStage
from edgecnn.run.sinks import Background, EventSink, Item, MotSink, VideoSink
from edgecnn.run.sources import Source
from edgecnn.run.stills import Stills
from edgecnn.run.tally import RunSummary, Tally
from edgecnn.run.timing import Watch, working_ms
from edgecnn.scene import Frame

SinkName = Literal["video", "events", "mot"]
VIDEO, EVENTS, TRACKS, SUMMARY, STILLS = "annotated.mp4", "events.jsonl", "tracks.txt", "summary.json", "stills"
LATELY = 30  # frames over which the shown rate is taken
NOTHING = np.zeros((0, 0, 3), np.uint8)
TEXT_DEPTH, PICTURE_DEPTH = 256, 4  # items that wait for a sink


@dataclass(frozen=True)
class Outputs:
    """Where the results of one stream go."""

    name: str  # of the stream, for topics, pages and folders
    folder: Path | None = None  # None: nothing is written
    sinks: tuple[SinkName, ...] = ("video", "events")
    preview: Preview | None = None
    mqtt: Mqtt | None = None
    record: Path | None = None  # a folder for what a replay needs; None: nothing is recorded
    also: tuple[Callable[[Item], None], ...] = ()  # hear every item, in the stream's own thread


@dataclass(frozen=True)
class Setup:
    """What is known of the camera, and what goes with the detector."""

    camera: Camera | None = None  # None: what the source knows of it
    thresholds: SceneSettings | None = None  # None: the shipped ones
    second: Callable[[], SecondStage] | None = None  # makes one for each stream; it names what tracks show
    looks: Callable[[], Appearance] | None = None  # the same; objects are known again by it


class Stream:
    """Enter it, call `turn` until it is `over`, leave it; `error` holds what ended it early."""

    def __init__(
        self,
        bundle: Bundle,
        source: Source,
        backend: Backend,
        role: str,
        settings: RunSettings,
        outputs: Outputs,
        setup: Setup | None = None,
        watch: Watch | None = None,
    ) -> None:
        model, setup = bundle.require_model(), setup or Setup()
        thresholds = setup.thresholds or SceneSettings.read()
        self.source, self.outputs, self.over = source, outputs, False
        self.error: Exception | None = None
        second = setup.second() if setup.second else None
        looks = setup.looks() if setup.looks else None
        self._watch = watch or Watch()
        self.tally = Tally(bundle, source, role, settings, thresholds)
        camera = setup.camera or source.camera
        self._tape: Tape | None = None
        if outputs.record is not None:
            self._tape = Tape(outputs.record, model, settings)
            self._header = describe(bundle, role, settings, source, camera, thresholds, second, looks)
            backend = self._tape.detector(backend)
            if second:
                second.backend = self._tape.listen("second", second.backend)
            if looks:
                looks.backend = self._tape.listen("looks", looks.backend)
        self.pipeline = Pipeline(
            model,
            backend,
            settings,
            fps=source.fps,
            camera=camera,
            thresholds=thresholds,
            second=second,
            looks=looks,
            laps=self._watch.laps,
        )
        self._deadline_ms, self._classes = settings.deadline_ms, model.classes
        self._health, self._clock, self._modes, self._gate = CameraHealth(), Clock(source.fps), Modes(), Gate()
        self._board: Board | None = None
        self._stills = Stills()
        self._paint = Painter(model.classes)
        self._video: VideoSink | None = None
        self._pictures: Background[Item] | None = None
        self._texts: list[Background[Item]] = []
        self._hear: list[Callable[[Item], None]] = []  # of every item: those sinks, the recording, who else asked
        self._stack = ExitStack()
        self._recent: deque[float] = deque(maxlen=LATELY)
        self._t_s = 0.0  # of the last frame, by the clock of the modes

    def __enter__(self) -> Stream:
        self._watch.start()
        with ExitStack() as stack:
            self._open_sinks(stack)
            stack.enter_context(self.source)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Whatever happened, the summary and the stills of the frames that came are written."""
        self.tally.complete = self.over and self.error is None
        try:
            self._stack.close()
        finally:
            self._modes.finish(self._now_s())
            self._show(Status(self._modes.mode, self._modes.causes), (), ended=True)
            self._write_summary()

    def turn(self) -> bool:
        """Work on a frame if one is ready; whether one was. What goes wrong ends this stream alone: see `error`."""
        self._watch.turn()
        frame = None
        try:
            frame = self.source.take()
            if frame is not None:
                self._work(frame)
            elif self.source.over:
                self.over = True
            elif self.source.live:
                self._idle()
            if self._tape and (frame is not None or self.over or self.source.live):
                self._tape.turn(frame, self._watch.seen, self.source.dropped, "" if self.over else None)
        except Exception as error:  # the other streams go on
            self.error, self.over = error, True
            self._tell(self._modes.stop(self._now_s(), "the stream ended" if self.source.live else "an error"))
            if self._tape:
                self._tape.turn(frame, self._watch.seen, self.source.dropped, str(error))
            return False
        return frame is not None

    def summary(self) -> RunSummary:
        return self.tally.summary(self._modes.seconds)

    def _work(self, frame: Frame) -> None:
        result = self.pipeline.step(replace(frame, t_ns=self._clock(frame.t_ns)))
        self._t_s = self._watch.now_s() if self.source.live else result.frame.t_ns / 1e9
        laps = self._watch.laps()
        faults = self._health.step(result.grey, result.frame.t_ns / 1e9) if result.grey is not None else ()
        laps.lap("health")
        result = replace(result, ns={"decode": self.source.decode_ns, **result.ns, **laps.ns})
        ms, age_s = working_ms(result.ns), self.source.age_s(frame)
        late, stale = 0 < self._deadline_ms < ms, age_s > self._modes.settings.stale_s
        change = self._modes.step(
            self._t_s,
            frame.index,
            late=late,
            stale=stale,
            faults=faults,
            answer=not result.invalid if result.why else None,
        )
        self._recent.append(time.monotonic())
        span_s = self._recent[-1] - self._recent[0]
        fps = (len(self._recent) - 1) / span_s if span_s > 0 else 0.0
        status = Status(self._modes.mode, self._modes.causes, ms, age_s, fps, late, self.source.dropped, change=change)
        scene = self._gate.step(
            result.scene,
            t_ns=result.frame.t_ns,
            frame=frame.index,
            cut=result.cut,
            hold=stale or bool(result.invalid),
            off=not status.monitoring,
        )
        result = replace(result, scene=scene)
        began = time.perf_counter_ns()
        self._tell(change, told_by_frame=True)
        self._show(status, scene.on)
        self._hand_on(result, status)
        self.tally.odd_times = self._clock.odd
        self.tally.add(result, status, stale=stale, faults=faults, sink_ns=time.perf_counter_ns() - began)
        if status.mode == "STOP":
            raise ModelError(
                f"{self.source.name}: the network gave no valid answer for {self._modes.settings.stop_s:g} s "
                f"({result.invalid})",
                do="Check the bundle on a file: edgecnn check BUNDLE",
            )

    def _idle(self) -> None:
        """No frame is ready. Silence may mean that nothing is monitored any more, and that is shown."""
        now_s = self._now_s()
        change = self._modes.idle(now_s)
        self._tell(change)
        late_s = now_s - self._t_s
        self._show(Status(self._modes.mode, self._modes.causes, age_s=late_s, dropped=self.source.dropped), ())

    def _now_s(self) -> float:
        return self._watch.now_s() if self.source.live else self._t_s

    def _tell(self, change: Change | None, *, told_by_frame: bool = False) -> None:
        if change is None:
            return
        self.pipeline.reduce(change.mode != "NORMAL")
        self.tally.modes.append(change)
        causes = f" ({', '.join(change.causes)})" if change.causes else ""
        note(f"{self.source.name}: {change.mode}{causes}")
        if not told_by_frame:
            for hear in self._hear:
                hear((None, Status(change.mode, change.causes, change=change)))

    def _show(self, status: Status, on: tuple[str, ...], *, ended: bool = False) -> None:
        if self._board is not None:
            self._board.show(status, on, ended=ended)

    def _hand_on(self, result: FrameResult, status: Status) -> None:
        if self._pictures is not None:
            self._pictures.put((result, status))
        if self._hear:
            bare = replace(result, frame=replace(result.frame, bgr=NOTHING), grey=None)  # text needs no pixels
            for hear in self._hear:
                hear((bare, status))

    def _open_sinks(self, stack: ExitStack) -> None:
        out, files = self.outputs, self.tally.files
        patient = not self.source.live  # a recording of a file is whole; a live source waits for nobody
        if out.folder is not None:
            if "video" in out.sinks:
                self._video = VideoSink(out.folder / VIDEO, self.source.fps)
                files["video"] = str(out.folder / VIDEO)
            if "events" in out.sinks:
                events = EventSink(out.folder / EVENTS, self.tally.header(), self._classes)
                files["events"] = str(out.folder / EVENTS)
                self._texts.append(Background("events", events.put, events.close, depth=TEXT_DEPTH, patient=patient))
            if "mot" in out.sinks:
                tracks = MotSink(out.folder / TRACKS)
                files["tracks"] = str(out.folder / TRACKS)
                self._texts.append(Background("mot", tracks.put, tracks.close, depth=TEXT_DEPTH, patient=patient))
        if out.mqtt is not None:
            self._texts.append(Background("mqtt", self._publish, depth=TEXT_DEPTH))
        if out.preview is not None:
            self._board = out.preview.add(self.source.name)
        if out.folder is not None or self._board is not None:
            close = self._video.close if self._video else lambda: None
            self._pictures = Background(
                "pictures", self._draw, close, depth=PICTURE_DEPTH, patient=patient and out.folder is not None
            )
            stack.enter_context(closing(self._pictures))
        for sink in self._texts:
            stack.enter_context(closing(sink))
        self._hear = [*(sink.put for sink in self._texts), *out.also]
        if self._tape is not None:
            self._tape.open(self._header, self.source)
            files["recording"] = str(out.record)
            self._hear.append(self._tape.put)
            stack.enter_context(closing(self._tape))

    def _draw(self, item: Item) -> None:
        """In the thread of the pictures: drawn once, for the video, the page and the stills."""
        result, status = item
        if result is None:
            return
        wanted = self.outputs.folder is not None and self._stills.wants(result)
        watched = self._board is not None and self._board.watched
        if not (self._video or wanted or watched):
            return
        picture = self._paint(result, self.pipeline.camera, status)
        if self._video:
            self._video.write(picture, result.frame.t_ns)
        if wanted:
            self._stills.add(result, picture)
        if self._board is not None and watched:
            self._board.publish(picture)

    def _publish(self, item: Item) -> None:
        """In the thread of MQTT: what begins and ends, not every frame."""
        (result, status), mqtt = item, self.outputs.mqtt
        if mqtt is None:
            return
        if status.change is not None:
            mqtt.publish(self.outputs.name, "mode", status.change.json())
        for event in () if result is None else result.scene.warnings:
            mqtt.publish(self.outputs.name, "event", event.json())

    def _write_summary(self) -> None:
        tally, folder = self.tally, self.outputs.folder
        if self.source.warning:
            note(f"warning: {self.source.warning}")
        if tally.frames and not self.pipeline.speed_known:
            note(f"{self.source.name}: no headway warning, for it does not tell our own speed")
        tally.sinks = {sink.name: sink.facts() for sink in (self._pictures, *self._texts) if sink is not None}
        if folder is None or not tally.frames:
            return
        tally.files |= {"summary": str(folder / SUMMARY), "stills": self._stills.write(folder / STILLS)}
        with atomic(folder / SUMMARY) as temporary:
            temporary.write_text(json.dumps(asdict(self.summary()), indent=1, allow_nan=False), "utf-8")
        if not tally.complete:
            note(f"stopped after {tally.frames} frames; they are kept in {folder}")
