"""Independent random scenes for training: every picture another road, light, camera and crowd."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np

from edgecnn.data.classes import CAR
from edgecnn.data.sample import Sample
from edgecnn.data.simulator import models
from edgecnn.data.simulator.bodywork import Model
from edgecnn.data.simulator.camera import Camera, Profile, View, Wave
from edgecnn.data.simulator.light import Sensor, make_light, paint_sky
from edgecnn.data.simulator.paint import Thing
from edgecnn.data.simulator.road import Ground, Layout, make_layout, surface
from edgecnn.data.simulator.scene import PAD, SKY_ABOVE, SKY_BELOW, Setting, render
from edgecnn.data.simulator.scenery import make_props


def make_profile(rng: np.random.Generator, kind: str) -> Profile:
    """Gentle bends and hills that suit the kind of road."""
    bend = {"motorway": 1 / 1800, "country": 1 / 420, "town": 1 / 900}[kind] * rng.uniform(0, 1)
    hill = {"motorway": 1 / 6000, "country": 1 / 2200, "town": 1 / 5000}[kind] * rng.uniform(0, 1)
    length = {"motorway": 900.0, "country": 320.0, "town": 500.0}[kind]
    return Profile(
        (Wave(bend, length * rng.uniform(0.7, 1.4), rng.uniform(0, 6.28)),),
        (Wave(hill, rng.uniform(260, 600), rng.uniform(0, 6.28)),),
    )


def make_camera(rng: np.random.Generator, width: int, height: int) -> Camera:
    """Horizontal field of view 45 to 85 degrees, 1.1 to 2.2 m above the road."""
    focal = width / 2 / math.tan(math.radians(rng.uniform(45, 85)) / 2)
    low = rng.uniform() < 0.8
    pitch = math.atan((rng.uniform(-0.14, 0.1) * height) / focal)  # the horizon lies within the middle of the picture
    return Camera(
        focal,
        focal,
        width / 2,
        height / 2,
        rng.uniform(1.1, 1.6) if low else rng.uniform(1.6, 2.2),
        pitch,
        width,
        height,
    )


def make_setting(
    rng: np.random.Generator,
    kind: str,
    camera: Camera,
    light_name: str | None = None,
    *,
    margin: int = 0,
    layout: Layout | None = None,
) -> Setting:
    """Random surroundings; `margin`: px by which the sky is wider than the frame, for a road with bends.

    A `layout` that is given has no crossings.
    """
    crossings = kind == "town" and layout is None
    layout = layout or make_layout(rng, kind)
    light = make_light(rng, light_name)
    sky = paint_sky(light, rng, camera.width + 2 * PAD + margin, SKY_ABOVE, SKY_BELOW, camera.fx)
    zebras = tuple(np.cumsum(rng.uniform(45, 170, 9))) if crossings else ()
    bonnet = rng.uniform(0.04, 0.12) if rng.uniform() < 0.2 else 0.0
    return Setting(
        layout, light, Sensor.draw(rng, light), Ground(surface(layout, light, rng), light), sky, zebras, bonnet
    )


class _Crowd:
    """Places road users so that none stands in another."""

    def __init__(self, rng: np.random.Generator, s: float) -> None:
        self.rng, self.s = rng, s
        self.things: list[Thing] = []
        self._taken: list[tuple[float, float, float, float]] = []  # s, d and half extents

    def put(self, model: Model, s: float, d: float, yaw: float = 0.0, speed: float = 0.0) -> None:
        c, n = abs(math.cos(yaw)), abs(math.sin(yaw))
        half_s, half_d = (c * model.length + n * model.width) / 2, (n * model.length + c * model.width) / 2
        if any(abs(s - a) < half_s + e + 0.2 and abs(d - b) < half_d + f + 0.1 for a, b, e, f in self._taken):
            return
        if s - half_s < self.s + 1.6 and model.label != CAR:
            return
        phase, brake = float(self.rng.uniform(0, 6.28)), bool(self.rng.uniform() < 0.2)
        self.things.append(Thing(len(self.things) + 1, model, s, d, yaw, speed, phase, brake))
        self._taken.append((s, d, half_s, half_d))


def populate(rng: np.random.Generator, layout: Layout, s0: float, ego_lane: int) -> list[Thing]:
    """Vehicles in lanes and parked, riders, walkers and people crossing, near ones favoured."""
    crowd = _Crowd(rng, s0)
    heavy = rng.uniform(0.05, 0.4)
    dense = rng.uniform(0.3, 1.5)
    for k in range(-layout.opposite, layout.own):
        s = s0 + (rng.uniform(5.5, 35) if k == ego_lane else rng.uniform(1.5, 30))
        while s < s0 + 115:
            two = rng.uniform() < 0.1
            model = models.from_stock(rng, "motorbike") if two else models.vehicle(rng, heavy)
            if rng.uniform() < 0.75:
                oncoming = k < 0
                yaw = (math.pi if oncoming else 0.0) + (
                    rng.normal(0, 0.03) if rng.uniform() < 0.92 else rng.normal(0, 0.5)
                )
                crowd.put(
                    model, s + model.length / 2, layout.lane(k) + rng.normal(0, 0.25), yaw, -12.0 if oncoming else 12.0
                )
            s += model.length + rng.exponential(13 / dense) + 2.0
    left, right = layout.kerb
    for side, edge in ((1, right), (-1, left)):
        if layout.parking_m:
            s = s0 + rng.uniform(1.5, 14)
            while s < s0 + 75:
                model = models.vehicle(rng, 0.05)
                if rng.uniform() < 0.7:
                    crowd.put(
                        model, s + model.length / 2, edge - side * layout.parking_m / 2, 0.0 if side > 0 else math.pi
                    )
                s += model.length + rng.uniform(0.8, 4)
        if layout.kind != "motorway":
            lane_edge = layout.right if side > 0 else layout.left
            for _ in range(rng.poisson(1.6 if layout.kind == "town" else 0.8)):
                s = s0 + 4 + rng.gamma(1.6, 13)
                crowd.put(
                    models.two_wheeler(rng),
                    s,
                    lane_edge + side * rng.uniform(0.1, 0.7),
                    0.0 if side > 0 else math.pi,
                    side * 5.0,
                )
    _walkers(rng, crowd, layout, s0)
    return crowd.things


def _walkers(rng: np.random.Generator, crowd: _Crowd, layout: Layout, s0: float) -> None:
    left, right = layout.kerb
    mean = {"town": 8.0, "country": 1.2, "motorway": 0.2}[layout.kind] * rng.uniform(0.2, 1.6)
    for _ in range(rng.poisson(mean)):
        side = 1 if rng.uniform() < 0.55 else -1
        edge = right if side > 0 else left
        s = s0 + 3.5 + rng.gamma(1.7, 10)
        crossing = rng.uniform() < 0.22
        d = rng.uniform(left, right) if crossing else edge + side * rng.uniform(0.2, max(layout.pavement_m, 1.2))
        yaw = rng.choice((-1, 1)) * math.pi / 2 if crossing else rng.choice((0.0, math.pi))
        for i in range(1 + int(rng.uniform() < 0.25)):
            crowd.put(
                models.from_stock(rng, "person"), s + i * rng.uniform(-0.4, 0.4), d + i * 0.7, yaw + rng.normal(0, 0.25)
            )
    if rng.uniform() < 0.08:  # a crossing road: somebody drives across
        yaw = float(rng.choice((-1, 1)) * math.pi / 2)
        crowd.put(models.vehicle(rng), s0 + rng.uniform(12, 40), rng.uniform(-6, 8), yaw)


def still(seed: int, index: int, width: int = 640, height: int = 384) -> Sample:
    """Scene `index` of the endless series `seed`; the same numbers give the same pixels.

    Every fourth picture is mirrored, which makes left-hand traffic.
    """
    rng = np.random.default_rng((seed, index))
    kind = str(rng.choice(("motorway", "country", "town"), p=(0.24, 0.22, 0.54)))
    camera = make_camera(rng, width, height)
    setting = make_setting(rng, kind, camera)
    layout = setting.layout
    lane = int(rng.integers(layout.own))
    view = View(
        camera,
        make_profile(rng, kind),
        float(rng.uniform(0, 800)),
        layout.lane(lane) + rng.normal(0, 0.35),
        yaw=rng.normal(0, 0.025),
        pitch=0.0,
        roll=rng.normal(0, 0.012),
    )
    things = populate(rng, layout, view.s, lane)
    props = make_props(layout, rng, view.s - 10, view.s + 200)
    bgr, truth = render(setting, view, things, props, 12.0, rng)
    if index % 4 == 3:
        bgr = np.asarray(cv2.flip(bgr, 1), np.uint8)
        boxes = truth.xyxy.copy()
        boxes[:, 0], boxes[:, 2] = width - truth.xyxy[:, 2], width - truth.xyxy[:, 0]
        truth = replace(truth, xyxy=boxes)
    return Sample(f"sim-{seed}-{index}", bgr, truth)
