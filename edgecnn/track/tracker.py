"""The multi-object tracker: detections of each frame in, numbered boxes out. Everything is a column over tracks.

Strong detections are matched first, then weak ones continue the tracks that are left (an object half hidden is detected
weakly), and only strong ones start a track. `edgecnn.track.settings` has what is common to SORT, ByteTrack and OC-SORT
and what each has of its own. Different from all three: time is real, so frames may be dropped and the detector may run
in every k-th frame only, and boxes move by edgecnn.track.motion, in px of the frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.scene import F32, I64, Bool, Detections, Tracks
from edgecnn.track.appearance import RENEW_S, Look, Vectors, cosines, renewed
from edgecnn.track.assign import F64, Index, area, assign, iou
from edgecnn.track.camera import Warp
from edgecnn.track.motion import Motion
from edgecnn.track.observed import onward, revised
from edgecnn.track.settings import Settings

_FLOW_NOISE = 2.0  # deviation of a box moved by optical flow, in those of a detected one
_MOST = 1000  # detections in a frame; where there are more, the strongest are looked at
_LONGEST_S = 10.0  # a longer gap between frames tells no more about where things are
_LARGE, _MISSED = 0.5, 3  # share of the picture, and frames not seen: a box beyond both may have left it
_YOUNG = 5  # detections; a track with more of them is not taken for a duplicate while it is seen


@dataclass
class _State:
    """Columns of N tracks beside their motion."""

    id: I64  # (N,)
    label: I64  # (N,)
    vote: F64  # (N,) evidence for `label`: scores of equal labels, less those of other labels
    score: F64  # (N,) of the last matched detection
    born: F64  # (N,) s
    seen: F64  # (N,) s, when last matched
    hits: I64  # (N,) matched detections
    missed: I64  # (N,) frames since matched
    misses: I64  # (N,) looks at its place, one after the other, that did not see it
    raw: F32  # (N, 4) the last matched detection, px
    past: F64  # (N, L, 2) centres of the last `look_back` ones, px, newest first; nan where there were fewer
    then: Motion  # as it was when last measured, by the detector or by flow
    then_s: F64  # (N,) s, when that was
    vector: F32  # (N, D) what it looks like, of length 1, or zeros where that was never asked for; D is 0 until it is
    looked: F64  # (N,) s, when the vector was renewed

    def __getitem__(self, rows: NDArray[np.generic]) -> _State:
        return _State(**{name: column[rows] for name, column in vars(self).items()})

    def joined(self, other: _State) -> _State:
        joined: dict[str, Any] = {}
        for (name, mine), theirs in zip(vars(self).items(), vars(other).values(), strict=True):
            joined[name] = mine.joined(theirs) if isinstance(mine, Motion) else np.concatenate([mine, theirs])
        return _State(**joined)


class Tracker:
    """Tracks of one camera. `fps` stands in for the time between two frames where their time stamps do not rise."""

    def __init__(self, settings: Settings | None = None, fps: float = 30.0) -> None:
        self.settings = settings or Settings()
        self._period_s = 1.0 / fps
        self._next_id = 1
        self.reset()

    def reset(self) -> None:
        """Forget all tracks, as after a hard cut. Their ids are not given again."""
        none, empty = np.zeros(0), Detections.empty()
        self._motion = Motion.born(empty.xyxy, self.settings.noise)
        integers = none.astype(np.int64)
        self._state = _State(
            integers, integers, none, none, none, none, integers, integers, integers, empty.xyxy,
            np.zeros((0, self.settings.look_back, 2)), self._motion, none, np.zeros((0, 0), np.float32), none,
        )  # fmt: skip
        self._shown: Index = integers  # rows that the last call returned
        self._t_ns: int | None = None
        self._now = 0.0  # s since the first frame
        self._started = False  # a detector frame was seen
        self._field = np.zeros((2, 3))  # px/s at a point of px, homogeneous: what the camera's own motion does there

    def step(
        self,
        detections: Detections | None,
        t_ns: int,
        *,
        frame_size: tuple[int, int],
        looked: Callable[[F64], Bool] | None = None,
        flow: tuple[F32, Bool] | None = None,
        camera: Warp | None = None,
        look: Look | None = None,
    ) -> Tracks:
        """One frame taken at `t_ns`; `frame_size` is (width, height) in px.

        `detections` is None where the detector did not run: tracks move on and none is lost by that. Of those that are
        given, what is not finite is not looked at, and of too many (1000) the strongest are. `looked`: where it looked
        at parts of the frame only, tells which (N,) of boxes (N, 4) px it would have seen; the others are not lost
        either. `flow`: boxes (N, 4) measured by other means, and which (N,) were; their rows are those of the Tracks
        last returned. `camera` takes px of the frame before to px of this one where nothing but the camera moved;
        None: it goes on as before. `look` gives vectors of what is in boxes (edgecnn.track.appearance), by which lost
        tracks are found again.
        Returns the confirmed tracks that the last look at their place saw, or missed for no more than `coast_s`.
        """
        if flow is not None and (len(flow[0]) != len(self._shown) or len(flow[1]) != len(self._shown)):
            raise ValueError(
                f"{len(flow[0])} boxes and {len(flow[1])} flags for the {len(self._shown)} tracks last returned"
            )
        self._advance(t_ns, camera)
        if flow is not None:
            xyxy, ok = flow[0], flow[1] & np.isfinite(flow[0]).all(axis=1)
            if ok.any():
                rows = self._shown[ok]
                self._motion.update(rows, xyxy[ok], self.settings.noise, _FLOW_NOISE)
                self._remember(rows)
        if detections is not None:
            self._associate(_sound(detections), looked, look)
        self._drop_outside(frame_size)
        return self._tracks()

    def expected(self, t_ns: int, flow: tuple[F32, Bool]) -> F32:
        """(N, 4) px: the Tracks last returned at `t_ns`, where flow measured them, else where they were heading."""
        motion = self._motion[self._shown]
        motion.value = motion.value + motion.rate * self._elapsed(t_ns)
        return np.where(flow[1][:, None], flow[0], motion.xyxy()).astype(np.float32)

    @property
    def hidden(self) -> tuple[F32, I64]:
        """(K, 4) px: the tracks that the last call kept to itself, not yet confirmed or lost; (K,) looks that missed
        them, one after the other."""
        rows = np.ones(len(self._state.id), bool)
        rows[self._shown] = False
        return self._motion[rows].xyxy().astype(np.float32), self._state.misses[rows]

    @property
    def measured(self) -> F32:
        """(N, 4) px: the rows of the Tracks last returned as the detector saw them, unfiltered; nan where it did not.

        For whoever fits its own motion (edgecnn.adas): filtered boxes lag, and their errors are not independent.
        """
        state = self._state
        return np.where((state.missed == 0)[:, None], state.raw, np.float32(np.nan))[self._shown]

    def _elapsed(self, t_ns: int) -> float:
        """Seconds since the last call."""
        elapsed_s = 0.0 if self._t_ns is None else (t_ns - self._t_ns) / 1e9
        return self._period_s if self._t_ns is not None and elapsed_s <= 0 else elapsed_s

    def _advance(self, t_ns: int, camera: Warp | None) -> None:
        elapsed_s = self._elapsed(t_ns)
        self._t_ns = t_ns
        self._now += elapsed_s
        if camera is not None and elapsed_s > 0:
            self._push(camera - np.eye(2, 3), elapsed_s)
        self._motion.predict(min(elapsed_s, _LONGEST_S), self.settings.noise)
        self._state.missed += 1

    def _push(self, shift: F64, elapsed_s: float) -> None:
        """The camera moved: `shift` (2, 3) is how far, px, at a point of px (homogeneous).

        A rate holds the camera's motion too (so it stays what a picture shows, and a frame in which the camera's motion
        is not known changes nothing): a change of that motion is a change of every rate.
        """
        self._motion.push(shift / elapsed_s - self._field)
        self._field = shift / elapsed_s
        state, value = self._state, self._motion.value
        moved = value[:, :2] @ shift[:, :2].T + shift[:, 2]
        state.raw += np.tile(moved, 2).astype(np.float32)
        state.past += moved[:, None]
        state.then.value[:, :2] += moved

    def _associate(self, detections: Detections, looked: Callable[[F64], Bool] | None, look: Look | None) -> None:
        s, state = self.settings, self._state
        boxes = self._motion.xyxy()
        overlap = iou(boxes, detections.xyxy)
        overlap[state.label[:, None] != detections.label[None]] *= s.other_label
        fused = overlap * detections.score if s.fuse else overlap
        cue = s.direction * onward(state.past, _centres(detections.xyxy)) * detections.score if s.direction else None
        vectors = None if look is None else Vectors(look, detections.xyxy)

        strong = detections.score >= s.high
        weak = ~strong & (detections.score >= s.low)
        confirmed = state.hits >= s.min_hits
        recent = self._now - state.seen <= s.lost_s if vectors else np.ones(len(boxes), bool)
        if vectors:
            cue = self._likeness(vectors, strong, fused >= s.match_high, cue)
        to_track = np.full(len(detections), -1)  # the row of the track that each detection continues

        def match(tracks: Bool, found: Bool, similarity: F64, at_least: float) -> None:
            rows = np.flatnonzero(tracks)
            columns = np.flatnonzero(found & (to_track < 0)) if rows.size else rows
            if columns.size:
                pairs = np.ix_(rows, columns)
                i, j = assign(similarity[pairs], at_least, None if cue is None else cue[pairs])
                to_track[columns[j]] = rows[i]

        match(confirmed & recent, strong, fused, s.match_high)
        free = np.ones(len(boxes), bool)
        free[to_track[to_track >= 0]] = False
        match(confirmed & free & (state.misses <= s.coast_looks), weak, overlap, s.match_low)
        match(~confirmed, strong, fused, s.match_new)
        if s.recover is not None:
            free[to_track[to_track >= 0]] = False
            match(confirmed & free & recent, strong, iou(state.raw, detections.xyxy), s.recover)
        if vectors:
            free[to_track[to_track >= 0]] = False
            again = strong & (to_track < 0) & (detections.score >= s.birth)
            match(confirmed & free, again, self._again(vectors, detections, np.flatnonzero(again)), s.alike)

        matched = np.flatnonzero(to_track >= 0)
        self._continue(to_track[matched], detections[matched])
        state.misses += 1 if looked is None else looked(boxes)
        state.misses[to_track[matched]] = 0
        if vectors:
            self._renew(vectors, to_track)
        longest_s = max(s.lost_s, s.remember_s) if vectors else s.lost_s
        expired = (state.misses > 0) & ((self._now - state.seen > longest_s) | ~confirmed)
        self._keep(~expired)
        self._drop_duplicates()
        self._give_birth(detections[strong & (to_track < 0) & (detections.score >= s.birth)])
        self._started = True

    def _likeness(self, vectors: Vectors, strong: Bool, possible: Bool, cue: F64 | None) -> F64:
        """(N, M), on top of another `cue`: how alike track and detection are where either has a choice."""
        possible = possible & strong
        rivals = possible & ((possible.sum(axis=1, keepdims=True) > 1) | (possible.sum(axis=0, keepdims=True) > 1))
        columns = np.flatnonzero(rivals.any(axis=0))
        out = np.zeros(possible.shape) if cue is None else cue
        if len(columns) and self._state.vector.shape[1]:
            out[:, columns] += self.settings.appearance * cosines(self._state.vector, vectors(columns))
        return out

    def _again(self, vectors: Vectors, found: Detections, columns: Index) -> F64:
        """(N, M) cosines of tracks with the detections `columns`, where the object can have come that far."""
        state = self._state
        out = np.zeros((len(state.id), len(found)))
        if not len(columns) or not state.vector.any():
            return out
        size = np.exp(self._motion.value[:, 2])
        reach = size * (1 + self.settings.noise.speed * (self._now - state.seen))
        far = np.linalg.norm(_centres(state.raw)[:, None] - _centres(found.xyxy[columns])[None], axis=2)
        near = (far <= reach[:, None]) & (state.label[:, None] == found.label[columns])
        if near.any():
            out[:, columns] = np.where(near, cosines(state.vector, vectors(columns)), 0)
        return out

    def _renew(self, vectors: Vectors, to_track: Index) -> None:
        """The matched tracks' vectors, by those asked for already and by lone detections where the last is old."""
        state = self._state
        rows = np.flatnonzero(vectors.alone() & (to_track >= 0))
        asked = np.isin(rows, vectors.known())
        rows = rows[asked | (self._now - state.looked[to_track[rows]] > RENEW_S)]
        if not len(rows):
            return
        seen = vectors(rows)
        if state.vector.shape[1] != seen.shape[1]:
            state.vector = np.zeros((len(state.id), seen.shape[1]), np.float32)
        state.vector[to_track[rows]] = renewed(state.vector[to_track[rows]], seen)
        state.looked[to_track[rows]] = self._now

    def _continue(self, rows: Index, found: Detections) -> None:
        """The tracks `rows` are seen again, each in one detection."""
        state = self._state
        if self.settings.revise:
            self._revise(rows, found.xyxy)
        self._motion.update(rows, found.xyxy, self.settings.noise)
        self._remember(rows)
        # The label with the majority of score (Boyer and Moore's vote): one odd frame does not rename a track.
        same = state.label[rows] == found.label
        vote = state.vote[rows] + np.where(same, found.score, -found.score)
        state.label[rows] = np.where(vote < 0, found.label, state.label[rows])
        state.vote[rows] = np.abs(vote)
        state.score[rows] = found.score
        state.seen[rows] = self._now
        state.hits[rows] += 1
        state.missed[rows] = 0
        state.raw[rows] = found.xyxy
        if self.settings.direction:
            state.past[rows] = np.concatenate([_centres(found.xyxy)[:, None], state.past[rows][:, :-1]], axis=1)

    def _remember(self, rows: Index) -> None:
        if not self.settings.revise:
            return
        for name, column in vars(self._state.then).items():
            column[rows] = getattr(self._motion, name)[rows]
        self._state.then_s[rows] = self._now

    def _revise(self, rows: Index, xyxy: F32) -> None:
        """Tracks that a detector frame missed are as if they had been seen on the way to where they are now."""
        state = self._state
        lost = state.misses[rows] > 0
        rows, xyxy = rows[lost], xyxy[lost]
        if not len(rows):
            return
        gap_s, steps = self._now - state.then_s[rows], np.maximum(state.missed[rows], 1)
        motion = revised(state.then[rows], gap_s, steps, xyxy, self.settings.noise)
        for name, column in vars(motion).items():
            getattr(self._motion, name)[rows] = column

    def _give_birth(self, found: Detections) -> None:
        n = len(found)
        if not n:
            return
        ids = np.arange(self._next_id, self._next_id + n)
        self._next_id += n
        now, hits = np.full(n, self._now), np.full(n, 1 if self._started else self.settings.min_hits)
        score = found.score.astype(np.float64)
        none = np.zeros(n, np.int64)
        past = np.full((n, self.settings.look_back, 2), np.nan)
        past[:, 0] = _centres(found.xyxy)
        born = Motion.born(found.xyxy, self.settings.noise)
        born.push(self._field)
        new = _State(
            ids,
            found.label,
            score,
            score,
            now,
            now.copy(),
            hits,
            none,
            none,
            found.xyxy,
            past,
            born[:],
            now.copy(),
            np.zeros((n, self._state.vector.shape[1]), np.float32),
            np.full(n, -np.inf),
        )
        self._state = self._state.joined(new)
        self._motion = self._motion.joined(born)

    def _drop_duplicates(self) -> None:
        """A lost or young track that lies on another of its class: the younger of the two goes."""
        state = self._state
        suspect = np.flatnonzero((state.misses > 0) | (state.hits <= _YOUNG))
        if not suspect.size:
            return
        boxes = self._motion.xyxy()
        same = (iou(boxes[suspect], boxes) > self.settings.duplicate) & (state.label[suspect][:, None] == state.label)
        same[np.arange(len(suspect)), suspect] = False
        i, j = np.nonzero(same)
        i = suspect[i]
        first = (state.hits[i] > state.hits[j]) | ((state.hits[i] == state.hits[j]) & (state.id[i] < state.id[j]))
        keep = np.ones(len(boxes), bool)
        keep[np.where(first, j, i)] = False
        self._keep(keep)

    def _drop_outside(self, frame_size: tuple[int, int]) -> None:
        """Tracks whose centre was carried out of the picture have left it; so have those not seen for some frames whose
        box is large and for the most part outside: what drives past us grows until it holds the whole picture."""
        (width, height), boxes = frame_size, self._motion.xyxy()
        x, y = self._motion.value[:, 0], self._motion.value[:, 1]
        inside = (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
        size, shown = area(boxes), area(np.clip(boxes, 0, [width, height] * 2))
        passed = (size > _LARGE * width * height) & (shown < 0.5 * size) & (self._state.missed > _MISSED)
        self._keep((self._state.missed == 0) | (inside & ~passed))

    def _keep(self, rows: Bool) -> None:
        if not rows.all():
            self._state, self._motion = self._state[rows], self._motion[rows]

    def _tracks(self) -> Tracks:
        s, state = self.settings, self._state
        confirmed = state.hits >= s.min_hits
        coasting = self._now - state.seen <= s.coast_s
        self._shown = np.flatnonzero(confirmed & ((state.misses <= s.coast_looks) | coasting))
        rows = self._shown
        motion = self._motion[rows]
        return Tracks(
            id=state.id[rows],
            xyxy=motion.xyxy().astype(np.float32),
            score=state.score[rows].astype(np.float32),
            label=state.label[rows],
            velocity=motion.rate[:, :2].astype(np.float32),
            growth=motion.rate[:, 2].astype(np.float32),
            age_s=(self._now - state.born[rows]).astype(np.float32),
            missed=state.missed[rows],
            confirmed=np.ones(len(rows), bool),
        )


def _sound(found: Detections) -> Detections:
    finite = np.isfinite(found.xyxy).all(axis=1) & np.isfinite(found.score)
    if finite.all() and len(found) <= _MOST:
        return found
    found = found[finite]
    return found if len(found) <= _MOST else found[np.sort(np.argsort(-found.score, kind="stable")[:_MOST])]


def _centres(xyxy: NDArray[Any]) -> F64:
    return np.asarray(0.5 * (xyxy[:, :2] + xyxy[:, 2:]), np.float64)
