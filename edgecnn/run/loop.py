"""The frame loop: cut? → detect or follow → track → scene. `run`, `bench` and `check` all go through it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.adas import Camera, Scene, SceneAnalysis, Schedule, ScheduleSettings
from edgecnn.adas.schedule import Reason
from edgecnn.backends import FRAME, Backend, Precision
from edgecnn.bundle import Bundle, ModelSpec
from edgecnn.errors import InputError, ModelError
from edgecnn.run.appearance import Appearance
from edgecnn.run.sources import Source
from edgecnn.run.timing import Laps
from edgecnn.scene import Detections, Frame, Picture, Tracks
from edgecnn.track.cuts import CutDetector
from edgecnn.track.flow import FlowShift
from edgecnn.track.settings import Settings as TrackSettings
from edgecnn.track.tracker import Tracker
from edgecnn.vision import DecodeDetections, Preprocess

UNSURE = 0.6  # share of `score`: a track last seen weaker is looked for again at once
GREY_WIDTH = 480  # px: the reduced picture in which cuts are sought and boxes followed


@dataclass(frozen=True)
class RunSettings:
    """How a bundle is run. `of` takes the defaults from the bundle's recipe."""

    score: float = 0.3  # a detection at or above is strong: it can confirm a track; a third of it continues one
    iou: float = 0.5  # of two boxes of one class that overlap more, NMS drops the weaker
    detect_every: int = 3  # frames; the schedule may ask for more, never for less
    precision: Precision = "auto"
    threads: int = 0  # of inference on a CPU; 0 = every core but one

    def __post_init__(self) -> None:
        if not (0 < self.score < 1 and 0 < self.iou < 1 and self.detect_every >= 1 and self.threads >= 0):
            raise InputError(
                f"run settings {vars(self)}",
                wanted="0 < score < 1, 0 < iou < 1, detect_every 1 or more, threads 0 or more",
            )

    @classmethod
    def of(cls, bundle: Bundle, **given: Any) -> RunSettings:
        """The recipe's `run` section, and over it what is given and not None."""
        known = {f.name for f in fields(cls)}
        recipe = {name: value for name, value in dict(bundle.settings.get("run", {})).items() if name in known}
        return cls(**{**recipe, **{name: value for name, value in given.items() if value is not None}})


@dataclass(frozen=True)
class FrameResult:
    """All that is known of one frame."""

    frame: Frame
    detections: Detections | None  # None where the detector rested; weak ones included (see RunSettings.score)
    tracks: Tracks
    scene: Scene  # rows as those of `tracks`
    why: Reason | None  # for which the detector ran
    cut: bool  # the source switched to another scene: tracks were forgotten
    ns: Mapping[str, int]  # stage → time spent; `decode` runs beside the others, in its own thread


class Pipeline:
    """One camera's detector, tracker and scene analysis. State lives here: two cameras need two of them.

    `camera` None: a usual dashcam is assumed, and distances stay unknown. `looks`: objects are known again by what they
    look like. Raises ModelError for a model without boxes.
    """

    def __init__(
        self,
        model: ModelSpec,
        backend: Backend,
        settings: RunSettings,
        *,
        fps: float,
        camera: Camera | None = None,
        looks: Appearance | None = None,
    ) -> None:
        if model.task != "detect":
            raise ModelError(f"a model for '{model.task}'", wanted="a detector, to track what it finds")
        weak = settings.score / 3
        self.settings, self._model, self._backend, self._given = settings, model, backend, camera
        self._preprocess, self._looks = Preprocess(model), looks
        self._decode = DecodeDetections(model, score=weak, iou=settings.iou)
        birth = min(settings.score + 0.1, 0.95)
        self._tracker = Tracker(TrackSettings(high=settings.score, low=weak, birth=birth), fps)
        self._schedule = Schedule(ScheduleSettings(every=settings.detect_every, unsure=UNSURE * settings.score))
        self._cuts = CutDetector()
        self._size = (0, 0)
        self._tracks = Tracks.empty()
        self._scene: Scene | None = None

    @property
    def camera(self) -> Camera:
        """The camera given or assumed; known from the first frame on."""
        return self._analysis.camera

    def step(self, frame: Frame) -> FrameResult:
        laps = Laps()
        size = (frame.bgr.shape[1], frame.bgr.shape[0])
        grey = reduced(frame.bgr)
        cut = self._cuts.step(grey)
        if size != self._size:
            cut = self._size != (0, 0)
            self._size = size
            self._flow = FlowShift(size[0])
            self._analysis = SceneAnalysis(None, self._given, size)
        if cut:
            self._flow = FlowShift(size[0])
            self._tracker.reset()
            self._analysis.reset()
            self._tracks, self._scene = Tracks.empty(), None
        why = self._schedule.due(cut=cut, tracks=self._tracks, scene=self._scene)
        laps.lap("track")
        detections = None
        if why:
            detections = self._detect(frame, laps)
            self._flow.remember(grey, self._tracks)
            if self._looks:
                self._looks.frame = frame.bgr
            self._tracks = self._tracker.step(
                detections, frame.t_ns, frame_size=size, camera=self._flow.camera, look=self._looks
            )
        else:
            boxes, ok = self._flow.step(grey, self._tracks)
            self._tracks = self._tracker.step_flow(boxes, ok, frame.t_ns, frame_size=size, camera=self._flow.camera)
        laps.lap("track")
        self._scene = self._analysis.step(self._tracks, frame.t_ns, measured=self._tracker.measured, frame=frame.index)
        laps.lap("scene")
        return FrameResult(frame, detections, self._tracks, self._scene, why, cut, laps.ns)

    def _detect(self, frame: Frame, laps: Laps) -> Detections:
        tensor, box = self._preprocess(frame.bgr)
        laps.lap("preprocess")
        outputs = self._backend({self._model.input.name: tensor, FRAME: np.array(frame.index, np.int64)})
        laps.lap("infer")
        detections = self._decode(outputs, box)
        laps.lap("postprocess")
        return detections


def loop(frames: Iterable[Frame], pipeline: Pipeline) -> Iterator[FrameResult]:
    """Every frame through the pipeline. With a Source, its decoding time is in `ns` as well."""
    for frame in frames:
        result = pipeline.step(frame)
        if isinstance(frames, Source):
            result = replace(result, ns={"decode": frames.decode_ns, **result.ns})
        yield result


def reduced(bgr: Picture) -> NDArray[np.uint8]:
    """(H, W, 3) → (h, w) grey, at most GREY_WIDTH wide. Halving by area is 20 times faster in OpenCV than any other
    reduction by area, so it does the most, and an interpolation the rest."""
    grey = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    while grey.shape[1] >= 2 * GREY_WIDTH and grey.shape[0] > 1:
        grey = cv2.resize(grey, (grey.shape[1] // 2, grey.shape[0] // 2), interpolation=cv2.INTER_AREA)
    if grey.shape[1] > GREY_WIDTH:
        size = (GREY_WIDTH, max(1, round(grey.shape[0] * GREY_WIDTH / grey.shape[1])))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(grey, np.uint8)
