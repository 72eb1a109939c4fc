"""A scenario played: actors whose paths are known in closed form, and us, who hold our speed until it is too late."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgecnn.data.classes import PERSON, TWO_WHEELER
from edgecnn.data.scenario import KMH, ActorSection, Scenario
from edgecnn.data.simulator import models
from edgecnn.data.simulator.bodywork import Model
from edgecnn.data.simulator.camera import Profile, Wave
from edgecnn.data.simulator.paint import Thing
from edgecnn.data.simulator.road import Layout, make_layout
from edgecnn.data.simulator.scenery import Prop
from edgecnn.data.simulator.traffic import CAMERA_TO_BUMPER, EGO_WIDTH, Ego, Snapshot, idm

F64 = NDArray[np.float64]
START_S = 40.0  # where the camera begins, m along the road
YAWS = {"along": 0.0, "oncoming": math.pi, "left": -math.pi / 2, "right": math.pi / 2}


@dataclass(frozen=True)
class Danger:
    """The road user that the driver is to be warned of, in one frame."""

    id: int
    gap_m: float  # from our bumper to its near end
    ttc_s: float  # to contact if we keep our speed, and it its acceleration until it stands; inf = never


class Course:
    """How far along its own way something came, from its first speed and its accelerations: exact at any time."""

    def __init__(self, speed: float, changes: list[tuple[float, float, float]]) -> None:
        """`changes`: (from when, m/s², until which speed in m/s), rising; the sign of m/s² follows from the speeds."""
        knots = [(0.0, 0.0, speed, 0.0)]  # time, way, speed, acceleration
        for at, rate, target in changes:
            knots = [knot for knot in knots if knot[0] <= at]
            way, now, _ = _moved(knots[-1], at)
            pull = math.copysign(rate, target - now)
            over = (target - now) / pull
            knots += [(at, way, now, pull), (at + over, way + 0.5 * (now + target) * over, target, 0.0)]
        self._knots = knots

    def at(self, t: float) -> tuple[float, float, float]:
        """Way m, speed m/s, acceleration m/s² at time t >= 0."""
        return _moved(next(k for k in reversed(self._knots) if k[0] <= t), t)


def _moved(knot: tuple[float, float, float, float], t: float) -> tuple[float, float, float]:
    start, way, speed, pull = knot
    dt = t - start
    return way + speed * dt + 0.5 * pull * dt * dt, speed + pull * dt, pull


def contact_s(gap: float, speed: float, lead: float, pull: float) -> float:
    """Time until a gap in m is closed at our constant `speed`, the other at `lead` m/s and accelerating with `pull`
    until it stands; inf = never, 0 = touching."""
    if gap <= 0:
        return 0.0
    stands = -lead / pull if pull < 0 and lead >= 0 else math.inf  # when it stands
    b, c = speed - lead, 0.5 * pull  # gap - b t + c t² = 0
    root = b * b - 4 * c * gap
    t = 2 * gap / (b + math.sqrt(root)) if root >= 0 and b + math.sqrt(root) > 1e-9 else math.inf
    if t <= stands:
        return t
    return (gap + 0.5 * lead * stands) / speed if speed > 1e-9 else math.inf


class Actor:
    """One road user of a scenario."""

    def __init__(self, spec: ActorSection, model: Model, layout: Layout, lane: int, s: float, pace: float) -> None:
        """`s`: where its near end begins; `pace`: what all speeds are multiplied by."""
        self.model, self.danger = model, spec.danger
        self._yaw = YAWS[spec.heading]
        across = spec.heading in ("left", "right")
        self._along, self._across = (0.0, math.sin(self._yaw)) if across else (math.cos(self._yaw), 0.0)
        self._s = s + (model.width if across else model.length) / 2
        self._d = layout.lane(lane) + spec.offset_m
        speeds = [
            (move.at_s, move.mps2, move.to_kmh * KMH * pace)
            for move in spec.moves
            if move.mps2 is not None and move.to_kmh is not None
        ]
        self._course = Course(spec.speed_kmh * KMH * pace, speeds)
        self._changes = []  # at_s, over_s, metres to the right
        for move in spec.moves:
            if move.lane is not None:
                self._changes.append((move.at_s, move.over_s, layout.lane(move.lane) - layout.lane(lane)))
                lane = move.lane

    def thing(self, t: float, id: int) -> Thing:
        way, speed, pull = self._course.at(t)
        aside, slip = 0.0, 0.0
        for at, over, metres in self._changes:
            x = min(max((t - at) / over, 0.0), 1.0)
            aside += metres * x * x * (3 - 2 * x)
            slip += metres * 6 * x * (1 - x) / over
        steer = math.atan2(slip, max(speed, 1.0))
        stride = {PERSON: 0.83 * self.model.height, TWO_WHEELER: 4.6}.get(self.model.label)  # m a turn of the legs
        return Thing(
            id,
            self.model,
            self._s + self._along * way,
            self._d + self._across * way + aside,
            self._yaw + (steer if self._along > 0 else -steer),
            self._along * speed,
            2 * math.pi * way / stride if stride else 0.0,
            brake=pull < -0.8 or (speed < 0.1 and pull < 0),
        )

    def pull(self, t: float) -> float:
        """Its acceleration along the road, m/s²."""
        return self._along * self._course.at(t)[2]


class Stage:
    """The state that steps from frame to frame, as traffic.World."""

    def __init__(self, scenario: Scenario, layout: Layout, rng: np.random.Generator) -> None:
        self._driver, self.time = scenario.ego.driver, 0.0
        pace = rng.uniform(0.98, 1.02)
        speed = scenario.ego.speed_kmh * KMH * pace
        self.ego = Ego(START_S, speed, speed, scenario.ego.lane)
        self._layout = layout
        self.actors: list[Actor] = []
        for spec in scenario.actors:
            gap = spec.gap_m * rng.uniform(0.97, 1.03)
            lane = scenario.ego.lane if spec.lane is None else spec.lane
            for k in range(spec.count):
                s = START_S + CAMERA_TO_BUMPER + gap + k * spec.every_m
                self.actors.append(Actor(spec, models.from_stock(rng, spec.type), layout, lane, s, pace))

    def _things(self) -> list[Thing]:
        return [actor.thing(self.time, k + 1) for k, actor in enumerate(self.actors)]

    def snapshot(self, drift: tuple[float, float]) -> Snapshot:
        """`drift`: metres to the right of the lane's centre, and the yaw that goes with it."""
        self._d = self._layout.lane(self.ego.lane) + drift[0]
        return Snapshot(self.ego.s, self._d, drift[1], self.ego.speed, tuple(self._things()))

    def danger(self) -> Danger | None:
        for k, actor in enumerate(self.actors):
            if actor.danger:
                thing = actor.thing(self.time, k + 1)
                gap = thing.near() - self.ego.s - CAMERA_TO_BUMPER
                return Danger(k + 1, gap, contact_s(gap, self.ego.speed, thing.speed, actor.pull(self.time)))
        return None

    def step(self, dt: float) -> None:
        """After a `snapshot`."""
        e, before = self.ego, self.ego.speed
        gap, lead, pull = math.inf, 0.0, 0.0  # of who is next in our path
        for actor, thing in zip(self.actors, self._things(), strict=True):
            ahead = thing.near() - e.s - CAMERA_TO_BUMPER
            wide = abs(math.cos(thing.yaw)) * thing.model.width + abs(math.sin(thing.yaw)) * thing.model.length
            if -2.0 < ahead < gap and abs(thing.d - self._d) < 0.5 * (wide + EGO_WIDTH):
                gap, lead, pull = ahead, thing.speed, actor.pull(self.time)
        if self._driver == "follows":
            own = idm(before, e.wish * 1.15, gap, before - lead)
        else:
            own = late(before, gap, lead, max(-pull, 0.0))
        e.speed = max(0.0, before + own * dt)
        e.s += 0.5 * (before + e.speed) * dt
        self.time += dt


def late(speed: float, gap: float, lead: float, braking: float) -> float:
    """A driver who doesn't look: full speed until 1.3 s before impact, then just enough to end 2 m behind.

    `gap`: from our bumper, m; `braking`: of the car ahead, m/s².
    """
    closing = speed - lead
    if closing <= 0.0 or (gap > 3.0 and gap / closing > 1.3):
        return 0.0
    return -min(closing**2 / (2 * max(gap - 2.0, 0.3)) + 0.5 + braking, 12.0)


def layout_of(scenario: Scenario, rng: np.random.Generator) -> Layout:
    road = scenario.road
    return replace(
        make_layout(rng, road.kind),
        lane_m=road.lane_m,
        own=road.lanes,
        opposite=road.opposite,
        strip_m=road.strip_m,
        parking_m=road.parking_m,
    )


def profile_of(scenario: Scenario) -> Profile:
    """Flat; the curve is a quarter of a wave so long that its curvature is constant."""
    radius = scenario.road.curve_m
    return Profile((Wave(1 / radius, 1e6, math.pi / 2),) if radius else (), ())


def gantries(scenario: Scenario, layout: Layout, rng: np.random.Generator) -> list[Prop]:
    """Sign gantries over our side of the road."""
    left, right = -layout.median_m / 2, layout.kerb[1] + 0.8
    return [
        Prop(
            "gantry",
            START_S + CAMERA_TO_BUMPER + gap,
            (left + right) / 2,
            right - left,
            rng.uniform(5.6, 6.6),
            int(rng.integers(3)),
        )
        for gap in scenario.road.gantries_m
    ]


def in_sight(props: list[Prop], scenario: Scenario, layout: Layout) -> list[Prop]:
    """The props without those that could hide who comes from the side: the protocols want them seen all the way."""
    for actor in scenario.actors:
        if actor.heading in ("left", "right"):
            middle = layout.lane(scenario.ego.lane)
            ends = sorted((middle, middle + 1.1 * actor.offset_m))
            far = START_S + CAMERA_TO_BUMPER + actor.gap_m + 5
            props = [p for p in props if p.kind == "building" or p.s > far or not ends[0] < p.d < ends[1]]
    return props


def departing(scenario: Scenario, times: F64, speed: float) -> tuple[F64, F64]:
    """Our drift out of the lane: metres to the right, and the yaw that goes with it, one per time.

    The sideways speed builds up within a second.
    """
    since = np.maximum(times - scenario.ego.drift_at_s, 0.0)
    build = np.minimum(since, 1.0)
    metres = scenario.ego.drift_mps * (0.5 * build * build + since - build)
    return metres, np.arctan(scenario.ego.drift_mps * build / speed)
