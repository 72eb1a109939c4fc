"""Other trackers, each with its own defaults, for a table beside ours. None is a dependency of edgecnn.

pip install ioutrack motpy norfair trackers ultralytics

The last is under the AGPL: it may be measured by whoever installs it, and nothing of edgecnn imports it.

Each is a function from frames a second to a step: Detections of one frame -> the tracks that it shows there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.scene import Detections


@dataclass(frozen=True)
class Shown:
    """What the metrics ask for."""

    id: NDArray[np.int64]  # (N,)
    xyxy: NDArray[np.float32]  # (N, 4) px

    @classmethod
    def of(cls, rows: list[tuple[int, Any]]) -> Shown:
        ids = np.array([row[0] for row in rows], np.int64)
        return cls(ids, np.array([row[1] for row in rows], np.float32).reshape(-1, 4))


Step = Callable[[Detections], Shown]


def ioutrack(name: str) -> Callable[[float], Step]:
    def start(fps: float) -> Step:
        import ioutrack as peer  # type: ignore[import-not-found]

        tracker = getattr(peer, name)()

        def step(found: Detections) -> Shown:
            rows = tracker.update(np.column_stack([found.xyxy, found.score]), False)
            return Shown(rows[:, 4].astype(np.int64), rows[:, :4])

        return step

    return start


def motpy(fps: float) -> Step:
    from motpy import Detection, MultiObjectTracker  # type: ignore[import-not-found]

    tracker, numbers = MultiObjectTracker(dt=1 / fps), {}

    def step(found: Detections) -> Shown:
        seen = [Detection(box=box, score=score) for box, score in zip(found.xyxy, found.score, strict=True)]
        return Shown.of([(numbers.setdefault(t.id, len(numbers)), t.box) for t in tracker.step(seen)])

    return step


def norfair(fps: float) -> Step:
    from norfair import Detection, Tracker  # type: ignore[import-not-found]

    tracker = Tracker(distance_function="iou", distance_threshold=0.7)

    def step(found: Detections) -> Shown:
        seen = [
            Detection(points=box.reshape(2, 2), scores=np.full(2, s))
            for box, s in zip(found.xyxy, found.score, strict=True)
        ]
        return Shown.of([(t.id, t.estimate.reshape(4)) for t in tracker.update(detections=seen)])

    return step


def trackers(name: str) -> Callable[[float], Step]:
    def start(fps: float) -> Step:
        import supervision as sv  # type: ignore[import-not-found]
        import trackers as peer  # type: ignore[import-not-found]

        tracker = getattr(peer, name)(frame_rate=fps)

        def step(found: Detections) -> Shown:
            rows = tracker.update(sv.Detections(xyxy=found.xyxy, confidence=found.score, class_id=found.label))
            kept = rows.tracker_id >= 0
            return Shown(rows.tracker_id[kept], rows.xyxy[kept])

        return step

    return start


class Boxes:
    """Detections as ultralytics hands them to its tracker: rows selected together."""

    def __init__(self, xywh: NDArray[Any], conf: NDArray[Any], cls: NDArray[Any]) -> None:
        self.xywh, self.conf, self.cls = xywh, conf, cls

    def __len__(self) -> int:
        return len(self.conf)

    def __getitem__(self, rows: Any) -> Boxes:
        return Boxes(self.xywh[rows], self.conf[rows], self.cls[rows])


def ultralytics(fps: float) -> Step:
    from types import SimpleNamespace

    import yaml
    from ultralytics.trackers import BYTETracker  # type: ignore[import-not-found]
    from ultralytics.utils import ROOT  # type: ignore[import-not-found]

    defaults = yaml.safe_load((ROOT / "cfg/trackers/bytetrack.yaml").read_text("utf-8"))
    tracker = BYTETracker(SimpleNamespace(**defaults))

    def step(found: Detections) -> Shown:
        low, high = found.xyxy[:, :2], found.xyxy[:, 2:]
        xywh = np.concatenate([(low + high) / 2, high - low], axis=1)
        rows = tracker.update(Boxes(xywh, found.score, found.label)).reshape(-1, 8)
        return Shown(rows[:, 4].astype(np.int64), rows[:, :4])

    return step


ALL: dict[str, Callable[[float], Step]] = {
    "ioutrack SORT": ioutrack("Sort"),
    "ioutrack ByteTrack": ioutrack("ByteTrack"),
    "motpy": motpy,
    "norfair": norfair,
    "trackers SORT": trackers("SORTTracker"),
    "trackers ByteTrack": trackers("ByteTrackTracker"),
    "trackers OC-SORT": trackers("OCSORTTracker"),
    "ultralytics ByteTrack": ultralytics,
}


def here(names: Collection[str] = ()) -> dict[str, Callable[[float], Step]]:
    """Those that are installed; of `names`, if any are given."""
    found = {}
    for name, start in ALL.items():
        if not names or name in names:
            with contextlib.suppress(ImportError):
                start(25.0)
                found[name] = start
    return found
