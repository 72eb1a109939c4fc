"""Average precision by COCO's rules, counted by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO  # type: ignore[import-untyped]
from pycocotools.cocoeval import COCOeval  # type: ignore[import-untyped]

from edgecnn.errors import InputError
from edgecnn.scene import Detections, Truth

_SIZES = ("all", "small", "medium", "large")  # COCO: below 32², to 96², above 96² px


def evaluate_detections(
    samples: Iterable[tuple[Detections, Truth]],
    classes: Sequence[str],
    groups: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, float]:
    """AP figures in [0, 1]; nan where no truth exists to be found.

    Keys: `AP` (mean over IoU .50:.05:.95 and the classes that have truth), `AP50`, `AP75`, `AP_small`, `AP_medium`,
    `AP_large`, `AR` (recall at 100 detections a picture); `<class>/AP` and `<class>/AP50` for each class; and the
    same two for each group of `groups`, e.g. `{"vehicle": (1, 2, 3)}`: there the members count as one class, so a
    bus found as a truck is found. `AP` itself is over `classes` only.

    An ignored truth row is COCO's "crowd": detections inside it are neither hits nor misses. It holds for its own
    class, and for every class where its label is none of `classes` (-1, KITTI's DontCare).
    """
    samples = list(samples)
    groups = dict(groups or {})
    clash = set(groups) & set(classes)
    if clash:
        raise InputError(f"the group names {sorted(clash)} are class names too", do="Name the groups otherwise")
    if not samples:
        raise InputError("no pictures to evaluate", wanted="at least one (Detections, Truth) pair")

    precision, recall = _curves(samples, {index: (index,) for index in range(len(classes))})
    figures = {
        "AP": _mean(precision[..., 0]),
        "AP50": _mean(precision[0, :, :, 0]),
        "AP75": _mean(precision[5, :, :, 0]),
    }
    figures |= {f"AP_{size}": _mean(precision[..., i]) for i, size in enumerate(_SIZES) if i}
    figures["AR"] = _mean(recall[..., 0])
    for index, name in enumerate(classes):
        figures |= _two(name, precision[:, :, index, 0])
    if groups:
        grouped, _ = _curves(samples, dict(enumerate(map(tuple, groups.values()))))
        for index, name in enumerate(groups):
            figures |= _two(name, grouped[:, :, index, 0])
    return figures


def _two(name: str, precision: NDArray[np.float64]) -> dict[str, float]:
    return {f"{name}/AP": _mean(precision), f"{name}/AP50": _mean(precision[0])}


def _mean(values: NDArray[np.float64]) -> float:
    known = values[values > -1]  # COCOeval marks "no truth here" with -1
    return float(known.mean()) if known.size else float("nan")


def _curves(
    samples: Sequence[tuple[Detections, Truth]], members: Mapping[int, tuple[int, ...]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision (10 IoU, 101 recall, category, 4 sizes) and recall (10, category, 4) of each category's members."""
    evaluation = _evaluated(samples, members)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    return evaluation.eval["precision"][..., -1], evaluation.eval["recall"][..., -1]


def redrawn_detections(
    samples: Iterable[tuple[Detections, Truth]], classes: Sequence[str], weight: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """`AP` and `AP50` as `evaluate_detections` has them, (R,) each, of R samples that hold the pictures as often as
    `weight` (R, pictures) says. As COCOeval.accumulate counts them, but every picture is matched only once.
    """
    evaluation = _evaluated(list(samples), {index: (index,) for index in range(len(classes))})
    pictures, levels = len(evaluation.params.imgIds), evaluation.params.recThrs
    sizes = len(evaluation.params.areaRng)
    both = np.full((len(weight), len(classes), 2), np.nan)
    for k in range(len(classes)):
        first = k * sizes * pictures  # of the size "all"
        rows = [(i, row) for i, row in enumerate(evaluation.evalImgs[first : first + pictures]) if row is not None]
        truths = np.zeros(pictures)
        for i, row in rows:
            truths[i] = np.count_nonzero(np.asarray(row["gtIgnore"]) == 0)
        there = weight @ truths
        if not truths.any():
            continue
        order = np.argsort(-np.concatenate([row["dtScores"] for _, row in rows]), kind="mergesort")
        picture = np.concatenate([np.full(len(row["dtScores"]), i) for i, row in rows]).astype(np.int64)[order]
        hit = np.concatenate([row["dtMatches"] for _, row in rows], axis=1)[:, order] != 0
        counted = ~np.concatenate([row["dtIgnore"] for _, row in rows], axis=1)[:, order].astype(bool)
        for r in np.flatnonzero(there > 0):
            w = weight[r, picture]
            hits, found = np.cumsum((hit & counted) * w, axis=1), np.cumsum(counted * w, axis=1)
            precision = hits / np.maximum(found, np.spacing(1))
            precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            at = [np.searchsorted(recall, levels) for recall in hits / there[r]]
            curve = np.zeros((len(at), len(levels)))
            for t, where in enumerate(at):
                inside = where < len(w)
                curve[t, inside] = precision[t, where[inside]]
            both[r, k] = curve.mean(), curve[0].mean()
    known = np.isfinite(both).sum(axis=1)
    mean = np.where(known > 0, np.nansum(both, axis=1) / np.maximum(known, 1), np.nan)
    return {"AP": mean[:, 0], "AP50": mean[:, 1]}


def _evaluated(samples: Sequence[tuple[Detections, Truth]], members: Mapping[int, tuple[int, ...]]) -> Any:
    """COCOeval with every picture matched."""
    truths: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    every = {label for labels in members.values() for label in labels}
    for picture, (detections, truth) in enumerate(samples, start=1):
        everywhere = truth.ignore & ~np.isin(truth.label, list(every))
        for category, labels in members.items():
            rows = np.isin(truth.label, labels) | everywhere
            truths += _rows(picture, category, truth.xyxy[rows], iscrowd=truth.ignore[rows])
            rows = np.isin(detections.label, labels)
            found += _rows(picture, category, detections.xyxy[rows], score=detections.score[rows])
    for number, row in enumerate(truths, start=1):
        row["id"] = number
    for number, row in enumerate(found, start=1):
        row |= {"id": number, "iscrowd": 0}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluation = COCOeval(_coco(len(samples), members, truths), _coco(len(samples), members, found), "bbox")
        evaluation.evaluate()
    return evaluation


def _rows(picture: int, category: int, xyxy: NDArray[np.float32], **columns: NDArray[Any]) -> list[dict[str, Any]]:
    boxes = xyxy.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    rows: list[dict[str, Any]] = [
        {"image_id": picture, "category_id": category, "bbox": box, "area": box[2] * box[3]} for box in boxes.tolist()
    ]
    for name, column in columns.items():
        for row, value in zip(rows, column.tolist(), strict=True):
            row[name] = int(value) if name == "iscrowd" else value
    return rows


def _coco(pictures: int, members: Mapping[int, tuple[int, ...]], annotations: list[dict[str, Any]]) -> Any:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i} for i in range(1, pictures + 1)],
        "categories": [{"id": category} for category in members],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco
