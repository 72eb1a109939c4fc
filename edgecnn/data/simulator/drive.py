"""A drive: a sequence of frames with truth, from one seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from edgecnn.data.scenario import Scenario, find_scenario
from edgecnn.data.simulator.camera import Camera, Profile, View
from edgecnn.data.simulator.scene import Setting, render
from edgecnn.data.simulator.scenery import make_props
from edgecnn.data.simulator.sprites import Sprites
from edgecnn.data.simulator.staged import Danger, Stage, departing, gantries, in_sight, layout_of, profile_of
from edgecnn.data.simulator.still import make_profile, make_setting
from edgecnn.data.simulator.traffic import EGO_WIDTH, World, drift, random_traffic
from edgecnn.scene import Frame, Truth

TRAFFIC_FRAMES = 250


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

    @property
    def left_m(self) -> float:
        """From our left wheels' outer edge to the middle of the left line, m; negative = over it."""
        return (self.lane_width_m - EGO_WIDTH) / 2 + self.lane_offset_m

    @property
    def right_m(self) -> float:
        """The same on the right."""
        return (self.lane_width_m - EGO_WIDTH) / 2 - self.lane_offset_m


class Drive:
    """Frames, truth and our own motion, all fixed by the seed.

    `scenario` is "traffic" (motorway, country or town, light and weather from the seed; 250 frames unless given), the
    name of a shipped scenario, the path of a YAML file that holds one, or a Scenario; its length is its own unless
    `frames` is given. Gaps are from our front bumper, 1.5 m ahead of the camera.

    Truth: boxes of whole silhouettes, hidden parts included, clipped to the frame; distance_m and ttc_s count from the
    camera along the road at the speeds of the moment.

    Raises InputError for an unknown scenario, RecipeError for a wrong one.
    """

    def __init__(
        self,
        seed: int,
        frames: int | None = None,
        *,
        width: int = 640,
        height: int = 384,
        fps: float = 25.0,
        scenario: str | Scenario = "traffic",
    ) -> None:
        self.fps, self._seed = fps, seed
        played = find_scenario(scenario) if isinstance(scenario, str) and scenario != "traffic" else scenario
        self.scenario = None if isinstance(played, str) else played
        if self.scenario:
            frames = frames or round(self.scenario.length_s * fps)
            world: Stage | World = self._stage(self.scenario, frames, width, height)
        else:
            frames = frames or TRAFFIC_FRAMES
            world = self._traffic(frames, width, height)
        rng, times = self._rng, np.arange(frames) / fps
        wander, yaw = drift(rng, times, world.ego.speed, 0.12 if self.scenario is None else self.scenario.ego.wander_m)
        if self.scenario:
            aside, turned = departing(self.scenario, times, world.ego.speed)
            wander, yaw = wander + aside, yaw + turned
        self._lane = world.ego.lane
        self._snapshots, self._dangers = [], []
        for i in range(frames):
            self._snapshots.append(world.snapshot((float(wander[i]), float(yaw[i]))))
            self._dangers.append(world.danger() if isinstance(world, Stage) else None)
            world.step(1 / fps)
        self._props = make_props(self._setting.layout, rng, 0.0, world.ego.s + 260)
        if self.scenario:
            self._props = in_sight(self._props, self.scenario, self._setting.layout)
            self._props += gantries(self.scenario, self._setting.layout, rng)
        self._shake = shake(rng, times)
        self._sprites = Sprites(self.camera, self._setting.light)

    camera: Camera
    _rng: np.random.Generator
    _setting: Setting
    _profile: Profile

    def _traffic(self, frames: int, width: int, height: int) -> World:
        """Camera, surroundings and road users of a random road. The order of draws fixes every pixel."""
        self._rng = rng = np.random.default_rng((self._seed, 0, 99))
        focal = width / 2 / math.tan(math.radians(rng.uniform(50, 72)) / 2)
        tall = rng.uniform(1.2, 1.6)
        pitch = math.atan(rng.uniform(-0.05, 0.1) * height / focal)
        self.camera = Camera(focal, focal, width / 2, height / 2, tall, pitch, width, height)
        kind = str(rng.choice(("motorway", "country", "town"), p=(0.25, 0.25, 0.5)))
        self._setting = make_setting(rng, kind, self.camera, margin=400)
        self._profile = make_profile(rng, kind)
        return random_traffic(rng, self._setting.layout, self._setting.zebras, frames / self.fps)

    def _stage(self, scenario: Scenario, frames: int, width: int, height: int) -> Stage:
        """The same of a scenario."""
        self._rng = rng = np.random.default_rng((self._seed, crc32(scenario.name.encode()), 99))
        focal = width / 2 / math.tan(math.radians(rng.uniform(52, 64)) / 2)
        pitch = math.atan(rng.uniform(-0.02, 0.05) * height / focal)
        self.camera = Camera(focal, focal, width / 2, height / 2, rng.uniform(1.25, 1.5), pitch, width, height)
        layout, self._profile = layout_of(scenario, rng), profile_of(scenario)
        way = scenario.ego.speed_kmh / 3.6 * frames / self.fps + 100
        margin = 400 + 2 * math.ceil(abs(float(self._profile.heading(0.0, way))) * focal)
        light = str(rng.choice(scenario.road.light))
        self._setting = make_setting(rng, scenario.road.kind, self.camera, light, margin=margin, layout=layout)
        return Stage(scenario, layout, rng)

    def __len__(self) -> int:
        return len(self._snapshots)

    def __iter__(self) -> Iterator[tuple[Frame, Truth, Ego]]:
        return (self.render(i) for i in range(len(self)))

    def danger(self, i: int) -> Danger | None:
        """The one to be warned of in frame i; None where the scenario has none."""
        return self._dangers[i]

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
        return Frame(i, round(i * 1e9 / self.fps), bgr, snap.speed), truth, ego


def shake(rng: np.random.Generator, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3) pitch rad, roll rad, lift m: a car on its springs at 1 to 2 Hz and the buzz of the mount."""
    out = np.zeros((len(times), 3))
    for column, size in enumerate((0.0022, 0.003, 0.012)):
        for low, high, share in ((0.8, 1.8, 1.0), (6.0, 11.0, 0.25)):
            w, p = 2 * math.pi * rng.uniform(low, high), rng.uniform(0, 2 * math.pi)
            swell = 0.6 + 0.4 * np.sin(2 * math.pi * times / rng.uniform(3, 8))
            out[:, column] += size * share * swell * np.sin(w * times + p)
    return out
