"""A drive: a sequence of frames with truth, from one seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecnn.data.simulator.camera import Camera, Profile, View, Wave
from edgecnn.data.simulator.scene import render
from edgecnn.data.simulator.scenery import make_props
from edgecnn.data.simulator.sprites import Sprites
from edgecnn.data.simulator.still import make_profile, make_setting
from edgecnn.data.simulator.traffic import STAGED, drift, random_traffic, stage
from edgecnn.errors import InputError
from edgecnn.scene import Frame, Truth

SCENARIOS = ("traffic", *STAGED)


@dataclass(frozen=True)
class Ego:
    """Our own state in one frame."""

    speed_mps: float
    lane_offset_m: float  # camera from the centre of its lane, positive = to the right
    lane_width_m: float
    curvature: float  # of the road below us, 1/m, positive = right bend
    yaw_rad: float  # against the road, positive = looking right
    left_line: NDArray[np.float32]  # (N, 2) px, from near to far: our lane's left edge, also outside the frame
    right_line: NDArray[np.float32]  # (N, 2) px


class Drive:
    """Frames, truth and our own motion, all fixed by the seed.

    `scenario` is "traffic" (motorway, country or town, light and weather from the seed) or a staged test with us at
    20 m/s: "stopped_lead" (120 m ahead), "braking_lead" (20 m/s, 30 m ahead, brakes with 0.3 g after 2 s),
    "slower_lead" (9 m/s, 75 m ahead), and the harmless "adjacent_car" (9 m/s, next lane), "cut_out" (15 m/s, 60 m
    ahead, leaves our lane after 1.5 s) and "oncoming". Gaps are from our front bumper, 1.5 m ahead of the camera. In a
    staged test we brake only 1.3 s before impact, just enough not to hit.

    Truth: boxes of whole silhouettes, hidden parts included, clipped to the frame; distance_m and ttc_s count from the
    camera along the road at the speeds of the moment.

    Raises InputError for an unknown scenario.
    """

    def __init__(
        self,
        seed: int,
        frames: int = 250,
        *,
        width: int = 640,
        height: int = 384,
        fps: float = 25.0,
        scenario: str = "traffic",
    ) -> None:
        if scenario not in SCENARIOS:
            raise InputError(f"unknown scenario {scenario!r}", wanted=f"one of {', '.join(SCENARIOS)}")
        self.fps, self.scenario, self._seed = fps, scenario, seed
        rng = np.random.default_rng((seed, SCENARIOS.index(scenario), 99))
        staged = scenario in STAGED
        focal = width / 2 / math.tan(math.radians(58 if staged else rng.uniform(50, 72)) / 2)
        tall = 1.35 if staged else rng.uniform(1.2, 1.6)
        pitch = math.atan(0.03 * height / focal) if staged else math.atan(rng.uniform(-0.05, 0.1) * height / focal)
        self.camera = Camera(focal, focal, width / 2, height / 2, tall, pitch, width, height)
        kind = (
            {"oncoming": "country"}.get(scenario, "motorway")
            if staged
            else str(rng.choice(("motorway", "country", "town"), p=(0.25, 0.25, 0.5)))
        )
        light = str(rng.choice(("day", "overcast"))) if staged else None
        self._setting = make_setting(rng, kind, self.camera, light, margin=400)
        layout = self._setting.layout
        self._profile = Profile((Wave(1 / 4000, 900, 0.3),), ()) if staged else make_profile(rng, kind)
        seconds = frames / fps
        world = stage(rng, layout, scenario) if staged else random_traffic(rng, layout, self._setting.zebras, seconds)
        times = np.arange(frames) / fps
        wander, yaw = drift(rng, times, world.ego.speed, 0.12)
        self._lane = world.ego.lane
        self._snapshots = []
        for i in range(frames):
            self._snapshots.append(world.snapshot((float(wander[i]), float(yaw[i]))))
            world.step(1 / fps)
        self._props = make_props(layout, rng, 0.0, world.ego.s + 260)
        self._shake = _shake(rng, times)
        self._sprites = Sprites(self.camera, self._setting.light)

    def __len__(self) -> int:
        return len(self._snapshots)

    def __iter__(self) -> Iterator[tuple[Frame, Truth, Ego]]:
        return (self.render(i) for i in range(len(self)))

    @property
    def where(self) -> tuple[str, str]:
        """Kind of road and light: ("motorway", "rain")."""
        return self._setting.layout.kind, self._setting.light.name

    def view(self, i: int) -> View:
        """The camera of frame i with its shake."""
        snap, (pitch, roll, lift) = self._snapshots[i], self._shake[i]
        return View(self.camera, self._profile, snap.s, snap.d, snap.yaw, float(pitch), float(roll), float(lift))

    def render(self, i: int) -> tuple[Frame, Truth, Ego]:
        """Frame i, the same pixels in whatever order frames are asked for. Raises IndexError outside the drive."""
        if not 0 <= i < len(self):
            raise IndexError(f"frame {i} of a drive of {len(self)}")
        view, snap, layout = self.view(i), self._snapshots[i], self._setting.layout
        rng = np.random.default_rng((self._seed, i, 7))
        bgr, truth = render(self._setting, view, list(snap.things), self._props, snap.speed, rng, self._sprites)
        lane = layout.lane(self._lane)
        ahead = np.geomspace(4.0, 80.0, 24)
        lines = [
            view.project(view.place(view.s + ahead, np.full(24, lane + side * layout.lane_m / 2))) for side in (-1, 1)
        ]
        ego = Ego(
            snap.speed,
            snap.d - lane,
            layout.lane_m,
            self._profile.curvature(snap.s),
            snap.yaw,
            lines[0].astype(np.float32),
            lines[1].astype(np.float32),
        )
        return Frame(i, round(i * 1e9 / self.fps), bgr), truth, ego


def _shake(rng: np.random.Generator, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3) pitch rad, roll rad, lift m: a car on its springs at 1 to 2 Hz and the buzz of the mount."""
    out = np.zeros((len(times), 3))
    for column, size in enumerate((0.0022, 0.003, 0.012)):
        for low, high, share in ((0.8, 1.8, 1.0), (6.0, 11.0, 0.25)):
            w, p = 2 * math.pi * rng.uniform(low, high), rng.uniform(0, 2 * math.pi)
            swell = 0.6 + 0.4 * np.sin(2 * math.pi * times / rng.uniform(3, 8))
            out[:, column] += size * share * swell * np.sin(w * times + p)
    return out
