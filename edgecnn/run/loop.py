"""The frame loop: cut? → detect or follow → track → scene. `run`, `bench` and `check` all go through it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.adas import (
    Camera,
    LaneDetector,
    Scene,
    SceneAnalysis,
    SceneSettings,
    Schedule,
    ScheduleSettings,
)
from edgecnn.adas.regions import visible
from edgecnn.adas.schedule import Reason
from edgecnn.backends import FRAME, Backend, Precision
from edgecnn.bundle import Bundle, ModelSpec
from edgecnn.errors import InputError, ModelError
from edgecnn.run.appearance import Appearance
from edgecnn.run.deadline import TimeBudget
from edgecnn.run.health import nonsense
from edgecnn.run.regions import RegionDetector
from edgecnn.run.second import SecondStage
from edgecnn.run.timing import Laps
from edgecnn.scene import F32, Bool, Detections, Frame, Picture, Tracks
from edgecnn.track.cuts import CutDetector
from edgecnn.track.flow import FlowShift
from edgecnn.track.motion import MOVING
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
    detect_every: int = 3  # frames from one look at the whole frame to the next at most
    budget: float | None = None  # with regions: mean cost, share of a whole frame's MACs; None: windows in every frame
    precision: Precision = "auto"
    threads: int = 0  # of inference on a CPU; 0 = every core but one
    deadline_ms: float = 0.0  # of a frame, from decoded to its warnings: what would take longer is not begun; 0 = none

    def __post_init__(self) -> None:
        fine = 0 < self.score < 1 and 0 < self.iou < 1 and self.detect_every >= 1 and self.threads >= 0
        if not (fine and (self.budget is None or 0 < self.budget <= 1) and self.deadline_ms >= 0):
            raise InputError(
                f"run settings {vars(self)}",
                wanted="0 < score < 1, 0 < iou < 1, detect_every 1 or more, 0 < budget <= 1, threads and deadline_ms "
                "0 or more",
            )

    @classmethod
    def of(cls, bundle: Bundle, **given: Any) -> RunSettings:
        """The recipe's `run` section, and over it what is given and not None."""
        known = {f.name for f in fields(cls)}
        recipe = {
            name: v for name, v in dict(bundle.settings.get("run", {})).items() if name in known and v is not None
        }
        return cls(**{**recipe, **{name: value for name, value in given.items() if value is not None}})


@dataclass(frozen=True)
class FrameResult:
    """All that is known of one frame."""

    frame: Frame
    detections: Detections | None  # None where the detector rested; weak ones included (see RunSettings.score)
    tracks: Tracks
    scene: Scene  # rows as those of `tracks`
    why: Reason | None  # for which the detector ran
    whole: bool  # it ran at the size for whole frames, not for regions
    searched: F32  # (M, 4) px: the windows in which it looked; the whole frame is one, none where it rested
    cut: bool  # the source switched to another scene: tracks were forgotten
    ns: Mapping[str, int]  # stage → time spent; `decode` runs beside the others, in its own thread
    names: tuple[str, ...] = ()  # rows as those of `tracks`, by the second stage; "" = not known; () = there is none
    name_score: F32 = field(default_factory=lambda: np.zeros(0, np.float32))  # rows as `names`, mean probability
    invalid: str = ""  # what the detector's answer makes unusable: tracks coast, and nothing may be concluded
    grey: NDArray[np.uint8] | None = None  # (h, w) the reduced picture

    @property
    def searched_share(self) -> float:
        """Share of the frame's pixels that the detector was shown; windows that overlap count twice."""
        side = self.searched[:, 2:] - self.searched[:, :2]
        height, width = self.frame.bgr.shape[:2]
        return float(side.prod(1).sum() / (height * width))


class Pipeline:
    """One camera's detector, tracker and scene analysis. State lives here: two cameras need two of them.

    `camera` None: a usual dashcam is assumed, and distances stay unknown. `second` names what tracks show; by `looks`
    objects are known again by what they look like; `laps` makes a frame's stopwatch. Raises ModelError for a model
    without boxes.
    """

    def __init__(
        self,
        model: ModelSpec,
        backend: Backend,
        settings: RunSettings,
        *,
        fps: float,
        camera: Camera | None = None,
        thresholds: SceneSettings | None = None,
        second: SecondStage | None = None,
        looks: Appearance | None = None,
        schedule: ScheduleSettings | None = None,
        laps: Callable[[], Laps] = Laps,
    ) -> None:
        if model.task != "detect":
            raise ModelError(f"a model for '{model.task}'", wanted="a detector, to track what it finds")
        weak = settings.score / 3
        self.settings, self._model, self._backend, self._given = settings, model, backend, camera
        self._thresholds, self._laps = thresholds, laps
        self._preprocess, self._looks = Preprocess(model), looks
        self._decode = DecodeDetections(model, score=weak, iou=settings.iou)
        self._plan = schedule or planned(model, settings)
        association = TrackSettings(high=settings.score, low=weak, birth=settings.score, noise=MOVING)
        self._tracker = Tracker(replace(association, coast_looks=1 if self._plan.canvas else 0), fps)
        self._regions = None
        if self._plan.canvas:
            self._regions = RegionDetector(model, backend, score=weak, iou=settings.iou)
        self._budget = TimeBudget(settings.deadline_ms)
        self._cuts = CutDetector()
        self._size = (0, 0)
        self._second = second
        self._less = False
        self._tracks = Tracks.empty()
        self._scene: Scene | None = None

    @property
    def camera(self) -> Camera:
        """The camera given or assumed; known from the first frame on."""
        return self._analysis.camera

    @property
    def speed_known(self) -> bool:
        """Whether any frame until now told our own speed."""
        return self._size != (0, 0) and self._analysis.speed_known

    def step(self, frame: Frame) -> FrameResult:
        laps = self._laps()
        size = (frame.bgr.shape[1], frame.bgr.shape[0])
        grey = reduced(frame.bgr)
        cut = self._cuts.step(grey)
        resized = size != self._size
        if resized:
            cut = self._size != (0, 0)
            self._size = size
            self._analysis = SceneAnalysis(self._thresholds, self._given, size, classes=self._model.classes)
            self._lanes = LaneDetector(self._analysis.camera, known=self._given is not None)
            self._schedule = Schedule(self._reduced(), self.camera, size)
        if resized or cut:
            self._flow = FlowShift(size[0])
        if cut:
            self._tracker.reset()
            self._analysis.reset()
            self._lanes.reset()
            if self._second:
                self._second.reset()
            self._tracks, self._scene = Tracks.empty(), None
        flow: tuple[F32, Bool] | None = self._flow.step(grey, self._tracks)
        expected = hidden = None
        if self._regions and flow:
            expected, hidden = self._tracker.expected(frame.t_ns, flow), self._tracker.hidden
        look = self._schedule.due(
            cut=cut,
            tracks=self._tracks,
            scene=self._scene,
            t_ns=frame.t_ns,
            expected=expected,
            hidden=hidden,
            fits=self._budget.fits,
        )
        laps.lap("track")
        detections, invalid, searched, looked = None, "", np.zeros((0, 4), np.float32), None
        if look.why and look.tiles is None:
            detections, invalid = self._detect(frame, laps)
            searched = np.array([[0, 0, *size]], np.float32)
            if detections is not None:
                flow = None  # of where the boxes are, a detection says more
        elif look.tiles is not None and self._regions:
            detections, invalid = self._regions(frame.bgr, look.tiles, frame.index, laps)
            searched, looked = look.tiles.source, partial(visible, tiles=look.tiles, frame_size=size)
        if self._looks:
            self._looks.frame = frame.bgr
        self._tracks = self._tracker.step(
            detections,
            frame.t_ns,
            frame_size=size,
            looked=looked,
            flow=flow,
            camera=self._flow.camera,
            look=self._looks,
        )
        laps.lap("track")
        lane = self._lanes.step(frame.bgr, frame.t_ns, self._tracks.xyxy)
        row = self._lanes.horizon_px, self._lanes.horizon_sigma_px
        self._scene = self._analysis.step(
            self._tracks,
            frame.t_ns,
            measured=self._tracker.measured,
            frame=frame.index,
            lane=lane,
            vanishing=row if math.isfinite(row[0]) else None,
            speed_mps=frame.speed_mps,
            growth=self._flow.growth,
            valid=not invalid,
        )
        laps.lap("scene")
        result = FrameResult(
            frame,
            detections,
            self._tracks,
            self._scene,
            look.why,
            look.why is not None and look.tiles is None,
            searched,
            cut,
            laps.ns,
            invalid=invalid,
            grey=grey,
        )
        self._budget.book(laps.ns, look)
        if self._second:
            names, score = self._second.step(frame.bgr, self._tracks, self._tracker.measured)
            laps.lap("second")
            result = replace(result, names=names, name_score=score)
        return result

    def reduce(self, on: bool) -> None:
        """Look less often, or as often as the settings say."""
        self._less = on
        if self._size != (0, 0):
            self._schedule.settings = self._reduced()

    def _reduced(self) -> ScheduleSettings:
        plan = self._plan
        if not self._less:
            return plan
        half = None if plan.budget is None else plan.budget / 2
        return replace(plan, every=max(4, 2 * plan.every), budget=half)

    def _detect(self, frame: Frame, laps: Laps) -> tuple[Detections | None, str]:
        """What is seen; None, and why, where the network's answer is no answer."""
        tensor, box = self._preprocess(frame.bgr)
        laps.lap("preprocess")
        outputs = self._backend({self._model.input.name: tensor, FRAME: np.array(frame.index, np.int64)})
        laps.lap("infer")
        invalid = nonsense(outputs, self._decode)
        detections = None if invalid else self._decode(outputs, box)
        laps.lap("postprocess")
        return detections, invalid


def planned(model: ModelSpec, settings: RunSettings) -> ScheduleSettings:
    """When and where a model is to look: with regions within the budget, without them every k-th frame."""
    plan = ScheduleSettings(every=settings.detect_every, unsure=UNSURE * settings.score)
    if model.regions is None:
        return plan
    height, width = model.regions
    cost = height * width / (model.height * model.width)
    return replace(plan, canvas=(width, height), cost=cost, budget=settings.budget)


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
