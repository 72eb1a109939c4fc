"""When the detector must look, and where: at the whole frame now and then, at parts of it between.

A look is taken if what it is worth (edgecnn.adas.regions) exceeds what it costs, in shares of the multiply-adds of the
whole frame, times a price. The price halves with every `_STEP` of saved budget and doubles with every one overdrawn, so
the mean cost settles at `budget`: what a quiet road saves is there when something happens. (A Lagrange multiplier with
a subgradient step, as in Bertsekas, "Nonlinear Programming", 1999, section 6.3, on a logarithmic scale.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgecnn.adas.camera import Camera
from edgecnn.adas.regions import Tiles, Wanted, choose, seen, through
from edgecnn.adas.scene import Scene
from edgecnn.errors import InputError
from edgecnn.scene import F32, I64, Tracks
from edgecnn.track.assign import F64

Reason = Literal["first", "cut", "stride", "closing", "unsure", "worth"]
Kind = Literal["frame", "regions"]
BOTH: frozenset[Kind] = frozenset(("frame", "regions"))
_PRICE = 8.0  # worth that the multiply-adds of a whole frame must bring while the budget is kept to
_URGENT = 3.0  # worth of what is in the path and near contact, beside its own
_AHEAD = 3.0  # by which what is in the path is worth more than what is beside it: its growth is measured
_STEP = 0.5  # whole frames
_MOST = 2.0  # whole frames: more is not saved up


@dataclass(frozen=True)
class ScheduleSettings:
    every: int = 1  # frames from one detection in the whole frame to the next at most
    closing_s: float = 4.0  # an object in the path with a shorter time to collision is looked at in every frame
    unsure: float = 0.3  # a track in the path whose last detection scored lower is looked for in the next frame
    canvas: tuple[int, int] | None = None  # (width, height) px into which parts of the frame are laid; None: no parts
    cost: float = 1.0  # of a look at parts, share of the whole frame's multiply-adds
    budget: float | None = None  # mean cost a frame; None: parts in every frame between whole ones
    band: float = 0.6  # worth of the far road where nobody looked for long; a track's is 1
    sides: float = 0.3  # the same of the left and right edge, where others overtake
    forget_s: float = 0.3  # after so long without a look, 63 % of the worth has come back

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InputError(f"a detection every {self.every} frames", wanted="1 or more")


@dataclass(frozen=True)
class Look:
    """What the detector does in one frame."""

    why: Reason | None  # None: it rests
    tiles: Tiles | None = None  # None: the whole frame


class Schedule:
    """Of one camera; call it once a frame, before deciding whether to run the detector.

    `camera` and `frame_size` (width, height) px are needed for regions only: they say where the road is far away.
    """

    def __init__(
        self, settings: ScheduleSettings, camera: Camera | None = None, frame_size: tuple[int, int] = (1, 1)
    ) -> None:
        self.settings, self._size = settings, frame_size
        self._places, self._weight = _places(settings, camera or Camera.assumed(frame_size), frame_size)
        self.reset()

    def reset(self) -> None:
        self._since: int | None = None  # frames since the whole frame was looked at
        self._unseen_s = np.zeros(len(self._places))  # since each place was
        self._saved = 0.0  # whole frames
        self._t_ns: int | None = None

    def due(
        self,
        *,
        cut: bool,
        tracks: Tracks,
        scene: Scene | None,
        t_ns: int = 0,
        expected: F32 | None = None,
        hidden: tuple[F32, I64] | None = None,
        fits: frozenset[Kind] = BOTH,
    ) -> Look:
        """What to do in the frame taken at `t_ns`. `tracks` and `scene` are those of the frame before.

        For regions: `expected` (N, 4) px are the boxes of `tracks` now; `hidden` are tracks not yet confirmed or lost,
        (K, 4) px, and the looks (K,) that missed each, one after the other; `fits`: what ends before the deadline.
        """
        s = self.settings
        elapsed_s = 0.0 if self._t_ns is None else max(t_ns - self._t_ns, 0) / 1e9
        self._t_ns = t_ns
        since = None if self._since is None else self._since + 1
        reason = self._reason(since, cut, tracks, scene)
        look = Look(reason)
        if s.canvas and not cut and since is not None and expected is not None:
            self._unseen_s += elapsed_s
            hidden = hidden or (np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
            look = self._weighed(reason, tracks, scene, elapsed_s, expected, hidden, fits)
        self._book(look, since)
        return look

    def _weighed(
        self,
        reason: Reason | None,
        tracks: Tracks,
        scene: Scene | None,
        elapsed_s: float,
        expected: F32,
        hidden: tuple[F32, I64],
        fits: frozenset[Kind],
    ) -> Look:
        """The whole frame, parts or nothing: whichever brings most beyond its price."""
        s = self.settings
        assert s.canvas is not None
        if reason == "stride" and "frame" in fits:
            return Look(reason)
        if "regions" not in fits:
            return Look(None)
        unseen_s = np.concatenate([tracks.missed * elapsed_s, self._unseen_s])
        worth = 1 - np.exp(-unseen_s / s.forget_s)
        if scene is not None:
            worth[: len(tracks)] *= 1 + _AHEAD * scene.in_path
            worth[: len(tracks)] += _URGENT * (scene.in_path & (scene.ttc_s < s.closing_s))
        worth[len(tracks) :] *= self._weight
        boxes, misses = hidden
        wanted = Wanted(np.concatenate([expected, self._places, boxes]), np.concatenate([worth, 0.5**misses]))
        tiles, gained = choose(wanted, s.canvas, self._size)
        parts = Look(reason or "worth", tiles)
        if reason or s.budget is None:
            return parts
        price = _PRICE * 2 ** (-self._saved / _STEP)
        whole = self._through_all(wanted) - price if "frame" in fits else -np.inf
        if max(whole, gained - price * s.cost) <= 0:
            return Look(None)
        return Look("worth") if whole > gained - price * s.cost else parts

    def _through_all(self, wanted: Wanted) -> float:
        """What a look at the whole frame is worth. It shows small things worse than a window does."""
        assert self.settings.canvas is not None
        width, height = self._size
        area = self.settings.canvas[0] * self.settings.canvas[1] / self.settings.cost  # of the network's input, px²
        zoom, frame = np.sqrt([area / (width * height)]), np.array([[0, 0, width, height]])
        return float((seen(wanted.xyxy, frame, zoom, self._size) @ wanted.worth)[0])

    def _book(self, look: Look, since: int | None) -> None:
        whole = look.why is not None and look.tiles is None
        self._since = 0 if whole else since
        self._saved += (self.settings.budget or 0.0) - (0 if look.why is None else 1 if whole else self.settings.cost)
        self._saved = min(self._saved, _MOST)
        if whole:
            self._unseen_s[:] = 0
        elif look.tiles is not None:
            self._unseen_s *= 1 - through(self._places, look.tiles, self._size)

    def _reason(self, since: int | None, cut: bool, tracks: Tracks, scene: Scene | None) -> Reason | None:
        s = self.settings
        if cut:
            return "cut"
        if since is None:
            return "first"
        if since >= s.every:
            return "stride"
        if scene is None:
            return None
        if (scene.in_path & (scene.ttc_s < s.closing_s)).any():
            return "closing"
        # In the path, and missed by the last detection or only just found in it. Elsewhere a look again can wait.
        if (scene.in_path & ((tracks.missed >= since) | (tracks.score < s.unsure))).any():
            return "unsure"
        return None


def _places(settings: ScheduleSettings, camera: Camera, frame_size: tuple[int, int]) -> tuple[F32, F64]:
    """(P, 4) px boxes of what may appear, and their worth: far away on the horizon, most at the vanishing point; and
    near at the frame's left and right edge."""
    width, height = frame_size
    away = np.linspace(-0.3, 0.3, 7)
    far, near = width / 64, width / 10
    horizon = min(max(camera.horizon_px, 0.0), height)
    x = np.concatenate([np.clip(camera.cx + away * width, far, width - far), [near / 2, width - near / 2]])
    y = np.concatenate([np.full(7, horizon), np.full(2, min(horizon + near / 2, height - near / 2))])
    half = np.concatenate([np.full(7, far), np.full(2, near)]) / 2
    worth = np.concatenate([settings.band * (1 - 2 * np.abs(away)), np.full(2, settings.sides)])
    return np.stack([x - half, y - half, x + half, y + half], 1).astype(np.float32), worth
