"""HOTA, MOTA and IDF1, the three figures that multi-object trackers publish.

HOTA: Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-object Tracking", IJCV 2021. MOTA: Bernardin
and Stiefelhagen, "Evaluating Multiple Object Tracking Performance: The CLEAR MOT Metrics", 2008. IDF1: Ristani et al.,
"Performance Measures and a Data Set for Multi-target, Multi-camera Tracking", 2016. Written on arrays here because the
`trackeval` package brings a second OpenCV that overwrites the headless one; the tests hold this file to trackeval.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from edgecnn.errors import InputError
from edgecnn.scene import Truth
from edgecnn.track.assign import F64, Index, area, intersection, iou

ALPHAS = np.arange(0.05, 0.99, 0.05)  # the 19 overlaps at which HOTA counts a match
_EPS = float(np.finfo(np.float64).eps)


class Identified(Protocol):
    """What is scored in one frame: edgecnn.scene.Tracks, or anything with these two columns."""

    @property
    def id(self) -> NDArray[Any]: ...  # (N,)

    @property
    def xyxy(self) -> NDArray[Any]: ...  # (N, 4) px


@dataclass(frozen=True)
class _Frame:
    truth: Index  # (G,) dense from 0 within the sequence
    track: Index  # (T,) dense from 0
    overlap: F64  # (G, T)


@dataclass
class _Counts:
    """Everything that adds up over sequences; 19 = len(ALPHAS)."""

    hits: F64  # (19,) HOTA's true positives
    association: F64  # (19,) sum of A(c) over the true positives
    overlap: F64  # (19,) sum of IoU over the true positives
    truths: Any = 0  # float, or (R,) of R totals, as are ...
    tracks: Any = 0
    clear_hits: Any = 0
    switches: Any = 0
    identity_hits: Any = 0  # ... these

    def __iadd__(self, other: _Counts) -> _Counts:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        return self


def evaluate_tracks(sequences: Iterable[Iterable[tuple[Identified, Truth]]]) -> dict[str, float]:
    """Figures over all sequences together, as benchmarks combine them: counts are summed, then divided.

    `sequences` holds for each sequence its frames in order: what the tracker returned, and the truth. Labels are not
    looked at: select one class (or a group) beforehand. A track that overlaps an ignored truth row, better than it
    does any other row, or lies mostly inside one, is not counted.

    Returns HOTA, DetA, AssA, LocA, MOTA, IDF1 as shares (MOTA may be negative), `switches` (identity switches), `hits`,
    `misses` and `false` (true positives, false negatives and false positives of MOTA, at IoU .5).
    """
    zero = np.zeros(len(ALPHAS))
    total = _Counts(zero.copy(), zero.copy(), zero.copy())
    for sequence in sequences:
        total += _counted(sequence)
    return {name: float(value) for name, value in _figures(total).items()}


def redrawn_tracks(pieces: Iterable[Iterable[tuple[Identified, Truth]]], weight: F64) -> dict[str, F64]:
    """HOTA, MOTA and IDF1 as `evaluate_tracks` returns them, (R,) each, of R samples in which the pieces of sequences
    occur as often as `weight` (R, pieces) says. Identities are held together within a piece only."""
    counts = [_counted(piece) for piece in pieces]
    total = _Counts(*(weight @ np.array([getattr(one, f.name) for one in counts], np.float64) for f in fields(_Counts)))
    return {name: value for name, value in _figures(total).items() if name in ("HOTA", "MOTA", "IDF1")}


def _counted(sequence: Iterable[tuple[Identified, Truth]]) -> _Counts:
    frames = _frames(sequence)
    truths = 1 + max((int(f.truth.max()) for f in frames if len(f.truth)), default=-1)
    tracks = 1 + max((int(f.track.max()) for f in frames if len(f.track)), default=-1)
    return _count(frames, truths, tracks)


def _figures(total: _Counts) -> dict[str, Any]:
    """Of one total, or of R at once: then its columns are (R, 19) and (R,)."""
    misses, false = total.truths - total.clear_hits, total.tracks - total.clear_hits
    all_rows = np.asarray(total.truths + total.tracks, np.float64)
    det = total.hits / np.maximum(1, all_rows[..., None] - total.hits)
    ass = total.association / np.maximum(1, total.hits)
    loc = np.where(total.hits > 0, total.overlap / np.maximum(1, total.hits), 1.0)
    return {
        "HOTA": np.sqrt(det * ass).mean(axis=-1),
        "DetA": det.mean(axis=-1),
        "AssA": ass.mean(axis=-1),
        "LocA": loc.mean(axis=-1),
        "MOTA": (total.clear_hits - false - total.switches) / np.maximum(1, total.truths),
        "IDF1": 2 * total.identity_hits / np.maximum(1, all_rows),
        "switches": total.switches,
        "hits": total.clear_hits,
        "misses": misses,
        "false": false,
    }


def _frames(sequence: Iterable[tuple[Identified, Truth]]) -> list[_Frame]:
    """Ignored rows taken out, ids made dense."""
    pairs: list[tuple[NDArray[Any], NDArray[Any], F64]] = []
    for number, (tracks, truth) in enumerate(sequence):
        for ids, whose in ((truth.id[~truth.ignore], "true"), (tracks.id, "tracked")):
            if len(np.unique(ids)) != len(ids):
                raise InputError(f"frame {number} has the same {whose} id twice: {sorted(ids.tolist())}")
        overlap = iou(truth.xyxy, tracks.xyxy)
        counted = np.ones(len(tracks.id), bool)
        if truth.ignore.any() and len(tracks.id):
            rows, columns = linear_sum_assignment(np.where(overlap >= 0.5, overlap, 0.0), maximize=True)
            good = overlap[rows, columns] >= 0.5
            rows, columns = rows[good], columns[good]
            counted[columns[truth.ignore[rows]]] = False
            inside = intersection(truth.xyxy[truth.ignore], tracks.xyxy) > 0.5 * area(tracks.xyxy)
            inside[:, columns[~truth.ignore[rows]]] = False
            counted &= ~inside.any(axis=0)
        pairs.append((truth.id[~truth.ignore], tracks.id[counted], overlap[~truth.ignore][:, counted]))
    truths = np.unique(np.concatenate([p[0] for p in pairs])) if pairs else np.zeros(0)
    ids = np.unique(np.concatenate([p[1] for p in pairs])) if pairs else np.zeros(0)
    return [_Frame(np.searchsorted(truths, t), np.searchsorted(ids, k), o) for t, k, o in pairs]


def _count(frames: Sequence[_Frame], truths: int, tracks: int) -> _Counts:
    # First pass: how well each pair of identities fits over the whole sequence (HOTA eq. 9, IDF1's bipartite graph).
    near = np.zeros((truths, tracks))
    together = np.zeros((truths, tracks))
    seen_truth, seen_track = np.zeros(truths), np.zeros(tracks)
    for f in frames:
        seen_truth[f.truth] += 1
        seen_track[f.track] += 1
        if f.overlap.size:
            pairs = np.ix_(f.truth, f.track)
            union = f.overlap.sum(axis=0)[None] + f.overlap.sum(axis=1)[:, None] - f.overlap
            near[pairs] += np.divide(f.overlap, union, out=np.zeros_like(union), where=union > _EPS)
            together[pairs] += f.overlap >= 0.5
    either = seen_truth[:, None] + seen_track[None] - near
    alignment = np.divide(near, either, out=np.zeros_like(near), where=either > 0)

    zero = np.zeros(len(ALPHAS))
    counts = _Counts(zero.copy(), zero.copy(), zero.copy(), float(seen_truth.sum()), float(seen_track.sum()))
    rows, columns = linear_sum_assignment(together, maximize=True)  # eq. 2-4 of Ristani, in terms of hits
    counts.identity_hits = float(together[rows, columns].sum())

    # Second pass: match frame by frame.
    matches = np.zeros((len(ALPHAS), truths, tracks))
    last = np.full(truths, -1)  # the track that had this truth when it was last matched
    just = np.full(truths, -1)  # ... if that was in the frame before
    for f in frames:
        if not f.overlap.size:
            continue
        rows, columns = linear_sum_assignment(alignment[np.ix_(f.truth, f.track)] * f.overlap, maximize=True)
        overlap = f.overlap[rows, columns]
        good = overlap[None] >= ALPHAS[:, None] - _EPS
        matches[:, f.truth[rows], f.track[columns]] += good
        counts.overlap += (good * overlap).sum(axis=1)

        # MOTA keeps last frame's pairs wherever they still overlap, then maximises the overlap.
        worth = np.where(f.overlap >= 0.5 - _EPS, f.overlap + 1000 * (just[f.truth][:, None] == f.track[None]), 0)
        rows, columns = linear_sum_assignment(worth, maximize=True)
        kept = worth[rows, columns] > 0
        truth, track = f.truth[rows[kept]], f.track[columns[kept]]
        counts.clear_hits += len(truth)
        counts.switches += float(((last[truth] >= 0) & (last[truth] != track)).sum())
        last[truth] = track
        just[:] = -1
        just[truth] = track
    either = np.maximum(1, seen_truth[:, None] + seen_track[None] - matches)
    counts.hits = matches.sum(axis=(1, 2))
    counts.association = (matches * matches / either).sum(axis=(1, 2))
    return counts
