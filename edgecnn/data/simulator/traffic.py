"""Who drives where: car-following on lanes, and people at crossings.

A whole drive is simulated once when it is made; every frame then only looks its state up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgecnn.data.classes import PERSON, TWO_WHEELER
from edgecnn.data.simulator import models
from edgecnn.data.simulator.bodywork import Model
from edgecnn.data.simulator.paint import Thing
from edgecnn.data.simulator.road import Layout

EGO_LENGTH, EGO_WIDTH, CAMERA_TO_BUMPER = 4.4, 1.8, 1.5  # m


@dataclass
class Agent:
    """Anything that moves or stands on the road. Its arc length runs with ours, also when it comes towards us."""

    model: Model
    s: float  # m, of its middle
    d: float
    speed: float  # m/s along its own direction, >= 0
    wish: float  # m/s it would drive on a free road
    way: int = 1  # +1 along with us, -1 towards us
    lane: int | None = None  # it follows the others in this lane; None = it minds nobody
    yaw: float = 0.0
    walk: tuple[float, float] = (0.0, 0.0)  # m/s along s and d, of people
    zebra: int = -1  # index of the crossing it wants to use
    phase: float = 0.0
    brake: bool = False


@dataclass
class Ego:
    """Ourselves; `s` is the camera."""

    s: float
    speed: float
    wish: float
    lane: int


@dataclass(frozen=True)
class Snapshot:
    """One frame of the drive."""

    s: float
    d: float
    yaw: float  # rad against the road
    speed: float  # m/s
    things: tuple[Thing, ...]


def idm(speed: float, wish: float, gap: float, closing: float) -> float:
    """Acceleration in m/s² (Treiber, Hennecke, Helbing 2000, eq. 2 and 3), T 1.4 s, s0 2.5 m, a 1.5, b 2.2 m/s²."""
    a, b = 1.5, 2.2
    desired = 2.5 + max(0.0, speed * 1.4 + speed * closing / (2 * math.sqrt(a * b)))
    free = a * (1 - (speed / max(wish, 0.1)) ** 4)
    return max(free - a * (desired / max(gap, 0.1)) ** 2, -8.0)


@dataclass
class World:
    """The state that steps from frame to frame."""

    layout: Layout
    ego: Ego
    agents: list[Agent]
    zebras: tuple[float, ...] = ()
    time: float = 0.0
    _closed: dict[int, float] = field(default_factory=dict)  # crossing → since when somebody wants to cross

    def step(self, dt: float) -> None:
        self._cross()
        wanted = [self._acceleration(a) for a in self.agents]
        own = self._ego_acceleration()
        for agent, acceleration in zip(self.agents, wanted, strict=True):
            _advance(agent, acceleration, dt)
        before = self.ego.speed
        self.ego.speed = max(0.0, before + own * dt)
        self.ego.s += 0.5 * (before + self.ego.speed) * dt
        self.time += dt

    def _gap_ahead(self, s: float, way: int, lane: int, half: float, skip: Agent | None) -> tuple[float, float]:
        """Free metres to the next one in the lane and its speed; (inf, 0) on a free road."""
        best, speed = math.inf, 0.0
        for other in self.agents:
            if other.lane != lane or other is skip:
                continue
            ahead = (other.s - s) * way
            if ahead > 0 and ahead - half - other.model.length / 2 < best:
                best, speed = ahead - half - other.model.length / 2, other.speed
        if lane == self.ego.lane and skip is not None and way > 0:
            rear = self.ego.s + CAMERA_TO_BUMPER - EGO_LENGTH
            if rear + EGO_LENGTH / 2 > s and rear - s - half < best:
                best, speed = rear - s - half, self.ego.speed
        return best, speed

    def _stop_line(self, s: float, way: int, half: float, speed: float) -> float:
        """Free metres to the next closed crossing at which one can still stop."""
        best = math.inf
        for k in self._closed:
            line = self.zebras[k] - 1.5 if way > 0 else self.zebras[k] + 3.2 + 1.5
            gap = (line - s) * way - half
            if gap > speed * speed / (2 * 3.5) - 0.5 and gap > -0.5:
                best = min(best, gap)
        return best

    def _acceleration(self, a: Agent) -> float:
        if a.lane is None:
            return 0.0
        half = a.model.length / 2
        gap, speed = self._gap_ahead(a.s, a.way, a.lane, half, a)
        stop = self._stop_line(a.s, a.way, half, a.speed)
        result = idm(a.speed, a.wish, gap, a.speed - speed)
        if stop < math.inf:
            result = min(result, idm(a.speed, a.wish, stop + 2.0, a.speed))
        return result

    def _ego_acceleration(self) -> float:
        e = self.ego
        gap, speed = self._gap_ahead(e.s + CAMERA_TO_BUMPER, 1, e.lane, 0.0, None)
        stop = self._stop_line(e.s + CAMERA_TO_BUMPER, 1, 0.0, e.speed)
        result = idm(e.speed, e.wish, gap, e.speed - speed)
        return min(result, idm(e.speed, e.wish, stop + 2.0, e.speed)) if stop < math.inf else result

    def _cross(self) -> None:
        """People who want to cross close the crossing, wait until nothing is rolling there, and walk."""
        waiting = {a.zebra for a in self.agents if a.zebra >= 0}
        for k in list(self._closed):
            if k not in waiting:
                del self._closed[k]
        left, right = self.layout.kerb
        for a in self.agents:
            if a.zebra < 0:
                continue
            z = self.zebras[a.zebra] + 1.6
            if not 0 < z - self.ego.s < 60:
                if a.walk[1] == 0:
                    continue
            else:
                self._closed.setdefault(a.zebra, self.time)
            if a.walk[1] == 0 and a.zebra in self._closed and self._calm(z):
                side = 1 if a.d < 0 else -1
                a.walk, a.yaw = (0.0, 1.35 * side), side * math.pi / 2
            if a.walk[1] and ((a.walk[1] > 0 and a.d > right + 0.35) or (a.walk[1] < 0 and a.d < left - 0.35)):
                a.zebra, a.walk = -1, (0.0, 0.0)

    def _calm(self, z: float) -> bool:
        """Nobody drives over the crossing, or is about to."""
        movers = [(a.s, a.speed, a.way, a.model.length / 2) for a in self.agents if a.lane is not None]
        movers.append((self.ego.s + CAMERA_TO_BUMPER - EGO_LENGTH / 2, self.ego.speed, 1, EGO_LENGTH / 2))
        for s, speed, way, half in movers:
            ahead = (z - s) * way
            if -half - 2.5 < ahead < half + 3.0 or (0 < ahead < half + 3 + speed * speed / 7 and speed > 1.5):
                return False
        return True

    def snapshot(self, drift: tuple[float, float]) -> Snapshot:
        """`drift`: metres to the right of the lane's centre, and the yaw that goes with it."""
        things = tuple(
            Thing(
                i + 1,
                a.model,
                a.s,
                a.d,
                a.yaw + (math.pi if a.way < 0 else 0.0),
                a.way * a.speed + a.walk[0],
                a.phase,
                a.brake,
            )
            for i, a in enumerate(self.agents)
        )
        return Snapshot(self.ego.s, self.layout.lane(self.ego.lane) + drift[0], drift[1], self.ego.speed, things)


def _advance(a: Agent, acceleration: float, dt: float) -> None:
    before = a.speed
    a.speed = max(0.0, before + acceleration * dt)
    a.s += a.way * 0.5 * (before + a.speed) * dt + a.walk[0] * dt
    a.d += a.walk[1] * dt
    a.brake = a.lane is not None and (acceleration < -0.8 or a.speed < 0.2)
    if a.model.label == PERSON:
        a.phase += 2 * math.pi * abs(a.walk[0] + a.walk[1]) / (0.83 * a.model.height) * dt  # two steps
    elif a.model.label == TWO_WHEELER:
        a.phase += 2 * math.pi * a.speed / 4.6 * dt  # one turn of the pedals every 4.6 m


def random_traffic(rng: np.random.Generator, layout: Layout, zebras: tuple[float, ...], seconds: float) -> World:
    """A mix that suits the road: cars following one another, parked cars, riders, walkers, people who cross."""
    pace = {"motorway": 28.0, "country": 20.0, "town": 11.0}[layout.kind]
    lane = int(rng.integers(layout.own))
    ego = Ego(60.0, pace * rng.uniform(0.75, 1.0), pace * rng.uniform(0.9, 1.1), lane)
    agents: list[Agent] = []
    gap = {"motorway": 45.0, "country": 55.0, "town": 24.0}[layout.kind] * rng.uniform(0.6, 1.6)
    heavy = rng.uniform(0.05, 0.3)
    for k in range(-layout.opposite, layout.own):
        way = 1 if k >= 0 else -1
        end = ego.s + 220 + pace * seconds * (1.0 if way < 0 else 0.15)
        s = ego.s + rng.uniform(14, 50) if k == lane else ego.s - 40 + rng.uniform(0, 30)
        wish = pace * (rng.uniform(0.8, 1.0) + (0.08 * (layout.own - 1 - k) if way > 0 else 0.0))
        while s < end:
            model = models.from_stock(rng, "motorbike") if rng.uniform() < 0.07 else models.vehicle(rng, heavy)
            speed = wish * rng.uniform(0.85, 1.0)
            agents.append(
                Agent(
                    model,
                    s + model.length / 2,
                    layout.lane(k) + rng.normal(0, 0.15),
                    speed,
                    wish * rng.uniform(0.85, 1.1),
                    way,
                    k,
                )
            )
            s += model.length + 6 + speed * 0.8 + rng.exponential(gap)
    reach = ego.s + pace * seconds + 160
    left, right = layout.kerb
    for side, edge in ((1, right), (-1, left)):
        s = ego.s + rng.uniform(0, 15)
        while layout.parking_m and s < reach:
            model = models.vehicle(rng, 0.04)
            near_zebra = any(-7 < z - s < 12 for z in zebras)
            if rng.uniform() < 0.65 and not near_zebra:
                agents.append(Agent(model, s + model.length / 2, edge - side * layout.parking_m / 2, 0, 0, side))
            s += model.length + rng.uniform(0.8, 5)
        if layout.kind != "motorway":
            lane_edge = layout.right if side > 0 else layout.left
            riders = rng.poisson((reach - ego.s) / (90 if layout.kind == "town" else 220))
            for s in np.sort(rng.uniform(ego.s + 8, reach, riders)):
                agents.append(
                    Agent(
                        models.from_stock(rng, "bicycle"), float(s), lane_edge + side * 0.75, 4.5, 4.5, side, 100 * side
                    )
                )
    _pedestrians(rng, agents, layout, zebras, ego.s, reach)
    return World(layout, ego, agents, zebras)


def _pedestrians(
    rng: np.random.Generator, agents: list[Agent], layout: Layout, zebras: tuple[float, ...], start: float, end: float
) -> None:
    left, right = layout.kerb
    if layout.pavement_m:
        for side, edge in ((1, right), (-1, left)):
            for way in (-1, 1):  # two files, one for each way, so that nobody walks through anybody
                s = start + rng.exponential(20)
                while s < end:
                    model = models.from_stock(rng, "person")
                    d = edge + side * (1.0 if way * side > 0 else 1.7)
                    walk, yaw = (1.25 * way, 0.0), (0.0 if way > 0 else math.pi)
                    agents.append(Agent(model, s, d, 0, 0, walk=walk, yaw=yaw, phase=rng.uniform(0, 6.28)))
                    s += 0.8 + rng.exponential(32)
    for k, s in enumerate(zebras):
        for i in range(min(rng.poisson(1.2), 4)):
            side = int(rng.choice((-1, 1)))
            d = (right + 0.35) if side > 0 else (left - 0.35)
            agents.append(
                Agent(models.from_stock(rng, "person"), s + 0.6 + 0.8 * i, d, 0, 0, zebra=k, yaw=-side * math.pi / 2)
            )


def drift(
    rng: np.random.Generator, times: NDArray[np.float64], speed: float, size: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How we wander within the lane: metres to the right and the yaw that goes with it, one per time."""
    offset, rate = np.zeros_like(times), np.zeros_like(times)
    for period, share in ((7.0, 1.0), (3.1, 0.3)):
        w, p = 2 * math.pi / (period * rng.uniform(0.8, 1.3)), rng.uniform(0, 2 * math.pi)
        offset += size * share * np.sin(w * times + p)
        rate += size * share * w * np.cos(w * times + p)
    return offset, np.arctan(rate / max(speed, 5.0))
