"""The figures themselves: every precision sees the same pictures, each through its own preprocess and decoder.

A classifier: top-1, top-5. A detector: average precision by COCO's rules; on sequences (simulator drives, MOT) HOTA,
MOTA, IDF1 and how near the times to collision are as well, through the very loop that the board runs, all classes
together. An embedding: how near its vectors are to those in FP32; the pictures need no truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.backends import Backend, Precision, open_backend
from edgecnn.bundle import Bundle, ModelSpec
from edgecnn.check.measured import Measured, alone, fingerprint, in_pieces
from edgecnn.data import CLASSES, Dataset, class_map, open_dataset
from edgecnn.data.narrow import Narrowed
from edgecnn.data.sample import Sample
from edgecnn.errors import InputError, ModelError
from edgecnn.metrics.contact import contact_accuracy, contact_errors
from edgecnn.metrics.detection import evaluate_detections, redrawn_detections
from edgecnn.metrics.likeness import likeness
from edgecnn.metrics.redraw import draws
from edgecnn.metrics.topk import right_by_k, topk
from edgecnn.metrics.tracking import evaluate_tracks, redrawn_tracks
from edgecnn.progress import bar
from edgecnn.recipe import DataSection
from edgecnn.run.loop import Pipeline, RunSettings
from edgecnn.scene import I64, Detections, Frame, Picture, Tracks, Truth
from edgecnn.vision import DecodeDetections, Preprocess

FAINT = 0.01  # average precision wants the weak detections too
SOURCES = ("coco", "voc", "kitti", "openimages")  # whose names a network's classes may have
VEHICLES = {"car", "van", "truck", "bus", "truck_bus"}  # the group `vehicle`: a bus found as a truck is found


def measure(bundle: Bundle, data: DataSection, precisions: Sequence[Precision]) -> Measured:
    """The figures of some precisions of a bundle."""
    backends: dict[str, Backend] = {p: open_backend(bundle, p) for p in precisions}
    model = bundle.require_model()
    if model.task == "embed":
        backends = {"fp32": open_backend(bundle, "fp32"), **backends}
    found = measured(model, backends, data, RunSettings.of(bundle))
    return replace(found, figures={p: found.figures[p] for p in precisions})


def measured(model: ModelSpec, backends: Mapping[str, Backend], data: DataSection, settings: RunSettings) -> Measured:
    """The same of any backends, by name; for embeddings `fp32` must be among them."""
    if model.task == "classify":
        return _classify(model, backends, data)
    if model.task == "embed":
        return _embed(model, backends, data)
    if data.kind in ("sim_drive", "mot"):
        return _track(model, backends, data, settings)
    return _detect(model, backends, data, settings)


def _classify(model: ModelSpec, backends: Mapping[str, Backend], data: DataSection) -> Measured:
    dataset = labelled(model, data)
    labels: list[int] = []
    truths: list[Truth] = []

    def told(sample: Sample) -> bool:
        """Whether the picture is of a class that the network tells; that class is noted."""
        if not len(sample.truth):
            return False
        labels.append(int(sample.truth.label[0]))
        truths.append(sample.truth)
        return True

    scores = _answers(model, backends, dataset, told)
    figures = {p: topk(rows, np.array(labels)) for p, rows in scores.items()}
    unit = alone(len(labels))
    weight = draws(int(unit.max()) + 1)[:, unit]
    redrawn = {
        p: {name: weight @ right / weight.sum(1) for name, right in right_by_k(rows, np.array(labels)).items()}
        for p, rows in scores.items()
    }
    return Measured(figures, len(labels), redrawn, int(unit.max()) + 1, fingerprint(unit, truths))


def _embed(model: ModelSpec, backends: Mapping[str, Backend], data: DataSection) -> Measured:
    """FP32 must be among the backends: the others are held against it."""
    dataset = open_dataset(data)
    vectors = _answers(model, backends, dataset, lambda _: True)
    return Measured({p: likeness(found, vectors["fp32"]) for p, found in vectors.items()}, len(dataset))


def _answers(
    model: ModelSpec, backends: Mapping[str, Backend], dataset: Dataset, wanted: Callable[[Sample], bool]
) -> dict[str, Any]:
    """Backend → its first output on each wanted picture, (N, ...)."""
    preprocess = Preprocess(model)
    rows: dict[str, list[Any]] = {p: [] for p in backends}
    with bar("check", len(dataset)) as advance:
        for i in range(len(dataset)):
            sample = dataset[i]
            if not wanted(sample):
                continue
            tensor, _ = preprocess(sample.bgr)
            for p, backend in backends.items():
                rows[p].append(next(iter(backend({model.input.name: tensor}).values()))[0].copy())
            advance(1)
    return {p: np.stack(found) for p, found in rows.items()}


def labelled(model: ModelSpec, data: DataSection) -> Dataset:
    """Pictures for a classifier. Raises ModelError where their classes are not the network's."""
    dataset = open_dataset(data)
    if set(model.classes) < set(dataset.classes):
        dataset = Narrowed(dataset, model.classes)
    if len(dataset.classes) != len(model.classes):
        raise ModelError(
            f"a network of {len(model.classes)} classes", wanted=f"{len(dataset.classes)}, as in data '{data.kind}'"
        )
    return dataset


def _detect(model: ModelSpec, backends: Mapping[str, Backend], data: DataSection, settings: RunSettings) -> Measured:
    dataset = boxed(model, data)
    words = Vocabulary.of(model.classes, dataset.classes)
    detectors = {p: Detector(model, backend, settings.iou) for p, backend in backends.items()}
    pairs: dict[str, list[tuple[Detections, Truth]]] = {p: [] for p in backends}
    with bar("check", len(dataset)) as advance:
        for i in range(len(dataset)):
            sample = dataset[i]
            truth = words.truth(sample.truth)
            for p, detect in detectors.items():
                pairs[p].append((words.found(detect(sample.bgr)), truth))
            advance(1)
    figures = {p: evaluate_detections(rows, words.classes, words.groups()) for p, rows in pairs.items()}
    return _detected(figures, pairs, words.classes, alone(len(dataset)))


def _detected(
    figures: dict[str, dict[str, float]],
    pairs: Mapping[str, Sequence[tuple[Detections, Truth]]],
    classes: Sequence[str],
    unit: I64,
) -> Measured:
    weight = draws(int(unit.max()) + 1)
    redrawn = {p: redrawn_detections(rows, classes, weight[:, unit]) for p, rows in pairs.items()}
    truths = [truth for _, truth in next(iter(pairs.values()))]
    return Measured(figures, len(unit), redrawn, weight.shape[1], fingerprint(unit, truths))


def boxed(model: ModelSpec, data: DataSection) -> Dataset:
    """Pictures for a detector, with the files' own classes where the network knows them all (COCO's 80), else with
    those of the road."""
    if data.kind in ("coco", "kitti", "voc"):
        own = open_dataset(data, raw=True)
        if set(own.classes) <= set(model.classes):
            return own
    return open_dataset(data)


def _track(model: ModelSpec, backends: Mapping[str, Backend], data: DataSection, settings: RunSettings) -> Measured:
    detectors = {p: Detector(model, backend, settings.iou) for p, backend in backends.items()}
    pairs: dict[str, list[tuple[Detections, Truth]]] = {p: [] for p in backends}
    tracked: dict[str, list[list[tuple[Tracks, Truth]]]] = {p: [] for p in backends}
    contacts: dict[str, list[tuple[float, int]]] = {p: [] for p in backends}
    words = None
    for clip in open_clips(data):
        words = Vocabulary.of(model.classes, clip.classes)
        pipelines = {p: Pipeline(model, backend, settings, fps=clip.fps) for p, backend in backends.items()}
        for p in backends:
            tracked[p].append([])
        with bar(f"check {clip.name}", clip.length) as advance:
            for frame, raw in clip.frames:
                truth = words.truth(raw)
                for p in backends:
                    pairs[p].append((words.found(detectors[p](frame.bgr)), truth))
                    result = pipelines[p].step(frame)
                    tracked[p][-1].append((words.found(result.tracks), truth))
                    contacts[p].append(contact_errors(result.tracks.xyxy, result.scene.ttc_s, raw))
                advance(1)
    if words is None:
        raise InputError(f"data of kind {data.kind} holds no sequence", wanted="at least one")
    figures = {
        p: {**evaluate_detections(pairs[p], words.classes, words.groups()), **evaluate_tracks(tracked[p])}
        for p in backends
    }
    timed = any(count for _, count in next(iter(contacts.values())))  # no file of tracks tells times to collision
    unit = in_pieces([len(sequence) for sequence in next(iter(tracked.values()))])
    found = _detected(figures, pairs, words.classes, unit)
    ends = np.flatnonzero(np.diff(unit)) + 1
    weight = draws(found.units)
    redrawn = {}
    for p, sequences in tracked.items():
        frames = [frame for sequence in sequences for frame in sequence]
        pieces = [frames[a:b] for a, b in zip([0, *ends], [*ends, len(frames)], strict=True)]
        redrawn[p] = {**found.redrawn[p], **redrawn_tracks(pieces, weight)}
        if timed:
            figures[p]["ttc_accuracy"] = float(contact_accuracy(contacts[p], np.ones((1, len(unit))))[0])
            redrawn[p]["ttc_accuracy"] = contact_accuracy(contacts[p], weight[:, unit])
    return replace(found, redrawn=redrawn)


class Detector:
    """One network on single pictures, weak detections included."""

    def __init__(self, model: ModelSpec, backend: Backend, iou: float) -> None:
        self._name, self._backend = model.input.name, backend
        self._preprocess, self._decode = Preprocess(model), DecodeDetections(model, score=FAINT, iou=iou)

    def __call__(self, bgr: Picture) -> Detections:
        tensor, box = self._preprocess(bgr)
        return self._decode(self._backend({self._name: tensor}), box)


@dataclass(frozen=True)
class Vocabulary:
    """The classes in which a network and a data set can be compared, and both ways into them; -1 = not among them."""

    classes: tuple[str, ...]
    of_model: I64  # (classes of the network,)
    of_data: I64  # (classes of the data set,)

    @classmethod
    def of(cls, model: Sequence[str], data: Sequence[str]) -> Vocabulary:
        """The data set's own classes where the network knows them all, else the four of the road.

        Raises ModelError where the two have nothing in common.
        """
        classes = tuple(data) if set(data) <= set(model) else CLASSES

        def label(name: str) -> int:
            if name in classes:
                return classes.index(name)
            return max(class_map(source, name) for source in SOURCES) if classes == CLASSES else -1

        ours, theirs = (np.array([max(label(name), -1) for name in names], np.int64) for names in (model, data))
        if not set(ours[ours >= 0]) & set(theirs[theirs >= 0]):
            raise ModelError(
                f"a network that knows {', '.join(model[:6])} and data that knows {', '.join(data[:6])}",
                wanted="a class in common",
                do="Name other data under `check:` in the recipe",
            )
        return cls(classes, ours, theirs)

    def found(self, rows: Any) -> Any:
        """Detections or Tracks with labels of the network → the same with labels of the vocabulary, others left out."""
        label = self.of_model[rows.label]
        return replace(rows, label=label)[label >= 0]

    def truth(self, rows: Truth) -> Truth:
        """Truth with labels of the data set → with labels of the vocabulary. Classes that are not compared are left
        out; ignored places stay, whatever their class."""
        label = np.where(rows.label >= 0, self.of_data[rows.label], -1)
        kept: Truth = replace(rows, label=label)[(label >= 0) | rows.ignore]
        return kept

    def groups(self) -> dict[str, tuple[int, ...]]:
        members = tuple(i for i, name in enumerate(self.classes) if name in VEHICLES)
        return {"vehicle": members} if len(members) > 1 else {}


@dataclass(frozen=True)
class Clip:
    """A sequence of frames with truth."""

    name: str
    fps: float
    length: int
    classes: tuple[str, ...]
    frames: Iterable[tuple[Frame, Truth]]


def open_clips(data: DataSection) -> Iterator[Clip]:
    """Sequences with identities: drives of the simulator, drawn as they are read; MOT folders, one or many."""
    if data.kind == "mot":
        yield from _mot_clips(data.path or Path(), data.pictures)
        return
    from edgecnn.data.simulator import Drive

    for seed in range(data.seed, data.seed + data.drives):
        drive = Drive(seed, data.pictures)
        yield Clip(f"drive {seed}", drive.fps, len(drive), CLASSES, ((f, t) for f, t, _ in drive))


def _mot_clips(path: Path, limit: int) -> Iterator[Clip]:
    """`path` is a sequence, or holds sequences. Only people are labelled there, so only people are compared."""
    from edgecnn.data.mot import Mot

    folders = [path] if (path / "seqinfo.ini").is_file() else sorted(p.parent for p in path.glob("*/seqinfo.ini"))
    for folder in folders:
        sequence = Mot(folder)
        fps, length = sequence.info.fps, min(len(sequence), limit)

        def frames(sequence: Mot = sequence, fps: float = fps, length: int = length) -> Iterator[tuple[Frame, Truth]]:
            for i in range(length):
                sample = sequence[i]
                people = replace(sample.truth, label=np.zeros(len(sample.truth), np.int64))
                yield Frame(i, round(i * 1e9 / fps), sample.bgr), people

        yield Clip(sequence.info.name, fps, length, ("person",), frames())
