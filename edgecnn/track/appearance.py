"""What objects look like, as vectors that are near each other for pictures of one object (re-identification).

A vector costs a run of a network, so it is asked for only where it can decide something: for a detection that more than
one track could continue, for one that would start a track while others are lost, and now and then for a lone one, so
that the track's vector, a moving average, keeps up. The cue itself: Aharon, Orfaig and Bobrovsky, "BoT-SORT: Robust
Associations Multi-Pedestrian Tracking", 2022, arXiv:2206.14651, section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgecnn.scene import F32, Bool
from edgecnn.track.assign import F64, Index, iou

Look = Callable[[F32], F32]  # boxes (K, 4) px of the frame → vectors (K, D) of length 1

KEPT = 0.9  # share of the old vector in the new one, Aharon et al. 2022, equation 12
RENEW_S = 0.5  # a vector older than this is renewed when the object stands alone
ALONE = 0.1  # greatest IoU with another detection at which it does


class Vectors:
    """Of one frame's detections (N, 4), each asked for once at most."""

    def __init__(self, look: Look, xyxy: F32) -> None:
        self._look, self._xyxy = look, xyxy
        self._rows: dict[int, F32] = {}

    def __call__(self, rows: Index) -> F32:
        """(K, D) of the detections `rows` (K,)."""
        new = np.array([row for row in rows.tolist() if row not in self._rows], np.int64)
        if len(new):
            self._rows |= dict(zip(new.tolist(), self._look(self._xyxy[new]), strict=True))
        return np.array([self._rows[row] for row in rows.tolist()], np.float32)

    def known(self) -> Index:
        return np.array(sorted(self._rows), np.int64)

    def alone(self) -> Bool:
        """(N,) whether no other detection covers part of it: else the vector would be of both."""
        overlap = iou(self._xyxy, self._xyxy)
        np.fill_diagonal(overlap, 0)
        return np.asarray(overlap.max(axis=1, initial=0) <= ALONE)


def cosines(tracks: F32, detections: F32) -> F64:
    """(N, M) of the unit vectors (N, D) and (M, D); 0 where a track has none, that is all zeros."""
    return np.asarray(tracks @ detections.T, np.float64)


def renewed(old: F32, seen: F32) -> F32:
    """The moving averages (K, D); where there was none, what is seen."""
    mixed = np.where(old.any(axis=1, keepdims=True), KEPT * old + (1 - KEPT) * seen, seen)
    return np.asarray(mixed / np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-9), np.float32)
