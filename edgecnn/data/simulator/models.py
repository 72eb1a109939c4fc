"""Cars, vans, trucks, buses, two-wheelers with their riders, and people, each random within its kind."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgecnn.data.classes import CAR, PERSON, TRUCK_BUS, TWO_WHEELER
from edgecnn.data.simulator.shapes import BRAKE, HEAD, TAIL, Colour, Figure, Mesh, Modeller, Sculptor

GLASS, RUBBER, PLASTIC = (46.0, 40.0, 36.0), (26.0, 25.0, 25.0), (38.0, 37.0, 36.0)
PAINTS: tuple[tuple[Colour, float], ...] = (  # BGR, share on the road
    ((225, 226, 228), 0.22), ((24, 23, 22), 0.18), ((168, 166, 164), 0.15), ((92, 90, 88), 0.14),
    ((132, 62, 24), 0.08), ((34, 28, 148), 0.08), ((86, 44, 20), 0.05), ((190, 205, 212), 0.03),
    ((50, 74, 30), 0.02), ((40, 150, 205), 0.02), ((40, 60, 92), 0.02), ((175, 140, 80), 0.01),
)


@dataclass(frozen=True)
class Model:
    """What a road user looks like; `pose(phase)` is its shape at a walking or pedalling phase in rad."""

    label: int
    length: float  # m
    width: float
    height: float
    pose: Callable[[float], Mesh | Figure]


def _paint(rng: np.random.Generator) -> Colour:
    shares = np.array([p for _, p in PAINTS])
    colour = np.array(PAINTS[int(rng.choice(len(PAINTS), p=shares / shares.sum()))][0])
    return tuple(np.clip(colour * rng.uniform(0.85, 1.1) + rng.uniform(-6, 6, 3), 8, 240))  # type: ignore[return-value]


def _fixed(mesh: Mesh) -> Callable[[float], Mesh]:
    return lambda phase: mesh


def _wheels(k: Sculptor, xs: list[float], half: float, radius: float, rim: Colour) -> None:
    """Tyres as blocks seen from behind; call before the body."""
    for x in xs:
        for side in (-1, 1):
            inner, outer = sorted((side * (half - 0.24), side * (half - 0.02)))
            k.box((x - radius * 0.5, x + radius * 0.5), (inner, outer), (0, radius * 1.2), RUBBER, layer=0)


def _wheel_discs(k: Sculptor, xs: list[float], half: float, radius: float, rim: Colour, arch: bool = True) -> None:
    """Arches, tyres and rims on both flanks; call inside the body's part."""
    for x in xs:
        for side in (-1, 1):
            if arch:
                k.disc(x, side * half, radius * 1.05, radius * 1.16, (18, 18, 18))
            k.disc(x, side * (half + 0.005), radius, radius, RUBBER)
            k.disc(x, side * (half + 0.01), radius, radius * 0.66, rim)
            k.disc(x, side * (half + 0.012), radius, radius * 0.5, tuple(c * 0.6 for c in rim), detail=True)  # type: ignore[arg-type]
            k.disc(x, side * (half + 0.015), radius, radius * 0.2, rim, detail=True)


def _plate(k: Sculptor, x: float, z: float, rng: np.random.Generator) -> None:
    colour = (215, 220, 220) if rng.uniform() < 0.8 else (60, 190, 220)
    k.quad("x", x, (-0.26, 0.26), (z, z + 0.12), colour)


@dataclass(frozen=True)
class _CarForm:
    length: tuple[float, float]
    width: tuple[float, float]
    height: tuple[float, float]
    belt: float  # height of the window line, share of the height
    clear: float  # ground clearance, m
    cowl: float  # where the windscreen begins, share of the length from the rear
    tail: float  # where the rear window begins
    rake_front: float  # m that the roof begins behind the cowl
    rake_rear: float
    bonnet: float  # height of the bonnet's nose, share of the belt


CAR_FORMS: tuple[tuple[_CarForm, float], ...] = (
    (_CarForm((3.6, 4.2), (1.64, 1.8), (1.42, 1.54), 0.62, 0.18, 0.74, 0.02, 0.85, 0.38, 0.78), 0.3),  # hatchback
    (_CarForm((4.4, 5.0), (1.74, 1.9), (1.40, 1.48), 0.63, 0.17, 0.72, 0.14, 0.95, 0.75, 0.78), 0.26),  # saloon
    (_CarForm((4.4, 4.9), (1.74, 1.88), (1.44, 1.54), 0.61, 0.17, 0.73, 0.015, 0.9, 0.3, 0.78), 0.12),  # estate
    (_CarForm((4.2, 5.0), (1.8, 2.0), (1.62, 1.85), 0.60, 0.24, 0.73, 0.02, 0.7, 0.32, 0.84), 0.22),  # off-roader
    (_CarForm((4.4, 5.2), (1.8, 2.0), (1.85, 2.1), 0.55, 0.2, 0.83, 0.01, 0.75, 0.12, 0.82), 0.1),  # minibus, van
)


def car(rng: np.random.Generator) -> Model:
    shares = np.array([p for _, p in CAR_FORMS])
    f = CAR_FORMS[int(rng.choice(len(CAR_FORMS), p=shares))][0]
    length, width, height = rng.uniform(*f.length), rng.uniform(*f.width), rng.uniform(*f.height)
    paint, rim = _paint(rng), tuple(np.full(3, rng.uniform(70, 185)))
    w, rear, front = width / 2, -length / 2, length / 2
    belt, low = f.belt * height, f.clear
    nose = f.bonnet * belt
    cowl, tail = rear + f.cowl * length, rear + f.tail * length
    mid = low + 0.5 * (belt - low)
    wheels, radius = [rear + 0.2 * length, front - 0.19 * length], rng.uniform(0.29, 0.35) * (1.1 if low > 0.22 else 1)
    k = Sculptor()
    _wheels(k, wheels, w, radius, rim)
    k.part((0, 0, (low + belt) / 2))  # body

    def ring(x: float, half: float, top: float) -> list[tuple[float, float, float]]:
        return [(x, half * 0.93, low), (x, half, low + 0.12), (x, half, mid), (x, half * 0.985, mid + 0.7 * (top - mid)),
                (x, half * 0.93, top)]

    boot = belt if f.tail < 0.05 else belt * rng.uniform(0.97, 1.0)
    k.loft([ring(rear, w * 0.87, boot * 0.96), ring(rear + 0.14, w * 0.97, boot), ring(tail + 0.25, w, belt),
            ring(cowl, w, belt), ring(front - 0.55, w * 0.97, nose + 0.08), ring(front - 0.1, w * 0.88, nose),
            ring(front, w * 0.78, nose * 0.9)], paint, gloss=0.2)
    sill = tuple(c * 0.5 for c in paint)
    for side in (-w * 0.985, w * 0.985):
        k.quad("y", side, (rear + 0.2, front - 0.3), (low, low + 0.1), PLASTIC, detail=False)
        for x in (cowl - 0.15, cowl - 1.15, cowl - 2.0):
            if x > wheels[0] + radius * 0.6:
                k.quad("y", side * 1.016, (x, x + 0.022), (low + 0.12, belt * 0.97), sill)
                k.quad("y", side * 1.016, (x + 0.1, x + 0.28), (belt * 0.86, belt * 0.89), sill)
    _wheel_discs(k, wheels, w, radius, rim)
    _car_rear(k, rear, w * 0.87, low, belt, boot, paint, rng)
    _car_front(k, front, w * 0.78, low, nose, rng)
    _cabin(k, (tail, cowl), (tail + f.rake_rear, cowl - f.rake_front), w, belt, height, paint, rng)
    for side in (-1, 1):  # mirrors
        a, b = sorted((side * (w - 0.04), side * (w + 0.16)))
        k.box((cowl - 0.42, cowl - 0.3), (a, b), (belt - 0.02, belt + 0.13), paint, layer=3)
    return Model(CAR, length, width, height, _fixed(k.done()))


def _car_rear(
    k: Sculptor, x: float, half: float, low: float, belt: float, boot: float, paint: Colour, rng: np.random.Generator
) -> None:
    bumper = low + 0.36 * (belt - low)
    dark = tuple(c * 0.55 for c in paint)
    k.quad("x", x, (-half, half), (low, bumper * 0.75), PLASTIC, detail=False)
    k.quad("x", x, (-half * 0.98, half * 0.98), (bumper, bumper + 0.025), dark)
    style = int(rng.integers(3))
    inner = half * (0.62, 0.5, 0.72)[style]
    foot = bumper + 0.05 + (0.12, 0.2, 0.02)[style]
    top = min(foot + (0.18, 0.13, 0.34)[style], boot * 0.94)
    red = (28, 24, rng.uniform(120, 190))
    for side in (-1, 1):
        a, b = sorted((side * inner, side * half))
        k.quad("x", x - 0.003, (a, b), (foot, top), red, gloss=0.1, lamp=TAIL, detail=False)
        k.quad("x", x - 0.004, (a + 0.02, (a + b) / 2), (foot + 0.02, foot + 0.07), (190, 195, 205))
    _plate(k, x - 0.004, bumper - 0.16 if style == 2 else bumper + 0.08, rng)
    k.quad("x", x - 0.004, (-0.07, 0.07), (bumper + 0.26, bumper + 0.31), (170, 170, 172))


def _car_front(k: Sculptor, x: float, half: float, low: float, nose: float, rng: np.random.Generator) -> None:
    k.quad("x", x, (-half * 0.8, half * 0.8), (low + 0.02, low + 0.16), PLASTIC, detail=False)
    wide = half * rng.uniform(0.5, 0.75)
    k.quad("x", x + 0.002, (-wide, wide), (low + 0.24, nose * 0.84), (30, 30, 30), detail=False)
    k.quad("x", x + 0.003, (-wide, wide), (nose * 0.72, nose * 0.74), (150, 150, 150))
    for side in (-1, 1):
        a, b = sorted((side * half * 0.62, side * half))
        k.quad("x", x + 0.004, (a, b), (nose * 0.7, nose * 0.87), (225, 222, 215), gloss=0.2, lamp=HEAD, detail=False)
    _plate(k, x + 0.004, low + 0.14, rng)


def _cabin(k: Sculptor, base: tuple[float, float], roof: tuple[float, float], w: float, belt: float, height: float,
           paint: Colour, rng: np.random.Generator) -> None:
    """A tapered glasshouse: pillars in body colour, glass inset."""
    wb, wr, edge = w * 0.93, w * 0.73, height - 0.05
    k.part(((base[0] + base[1]) / 2, 0, (belt + height) / 2), layer=2)
    low = np.array([(base[0], -wb, belt), (base[0], wb, belt), (base[1], wb, belt), (base[1], -wb, belt)])
    top = np.array([(roof[0], -wr, edge), (roof[0], wr, edge), (roof[1], wr, edge), (roof[1], -wr, edge)])
    glass = tuple(c * rng.uniform(0.5, 1.2) for c in GLASS)
    for i, j, lamp in ((0, 1, "rear"), (1, 2, ""), (2, 3, "front"), (3, 0, "")):
        quad = np.array((low[i], low[j], top[j], top[i]))
        k.face(quad, paint, gloss=0.15)

        def inset(u0: float, u1: float, v0: float, v1: float, q: np.ndarray = quad) -> list[np.ndarray]:
            at = lambda u, v: (q[0] * (1 - u) + q[1] * u) * (1 - v) + (q[3] * (1 - u) + q[2] * u) * v  # noqa: E731
            return [at(u0, v0), at(u1, v0), at(u1, v1), at(u0, v1)]

        if lamp:
            k.face(inset(0.07, 0.93, 0.06, 0.9), glass, gloss=0.5 if lamp == "front" else 0.35)
            k.face(inset(0.15, 0.4, 0.1, 0.5), tuple(c * 0.55 for c in glass), gloss=0.25, detail=True)
            k.face(inset(0.6, 0.85, 0.1, 0.5), tuple(c * 0.55 for c in glass), gloss=0.25, detail=True)
            if lamp == "rear":
                k.face(inset(0.42, 0.58, 0.9, 0.97), (40, 30, 110), lamp=BRAKE, detail=True)
        else:
            k.face(inset(0.06, 0.94, 0.06, 0.88), glass, gloss=0.22)
            split = rng.uniform(0.42, 0.56)
            k.face(inset(split, split + 0.05, 0.06, 0.88), PLASTIC)
    dome = np.array([(roof[0] + 0.12, -wr * 0.86, height), (roof[0] + 0.12, wr * 0.86, height),
                     (roof[1] - 0.12, wr * 0.86, height), (roof[1] - 0.12, -wr * 0.86, height)])
    for i, j in ((0, 1), (1, 2), (2, 3), (3, 0)):
        k.face((top[i], top[j], dome[j], dome[i]), paint, gloss=0.25)
    k.face(dome, paint, gloss=0.25)


def van(rng: np.random.Generator) -> Model:
    """A panel van: counted with the cars, as KITTI's Van is."""
    length, width, height = rng.uniform(4.9, 6.2), rng.uniform(1.95, 2.1), rng.uniform(2.1, 2.7)
    paint = (226.0, 228.0, 230.0) if rng.uniform() < 0.55 else _paint(rng)
    w, rear, front, low = width / 2, -length / 2, length / 2, 0.25
    wheels = [rear + 0.2 * length, front - 0.17 * length]
    k = Sculptor()
    _wheels(k, wheels, w, 0.34, (120, 120, 120))
    k.part((0, 0, height / 2))

    def ring(x: float, half: float, top: float) -> list[tuple[float, float, float]]:
        return [(x, half, low), (x, half, 1.1), (x, half * 0.97, min(top, 1.75)), (x, half * 0.9, top)]

    k.loft([ring(rear, w * 0.96, height * 0.97), ring(rear + 0.15, w, height), ring(front - 1.75, w, height),
            ring(front - 0.85, w * 0.97, 1.25), ring(front, w * 0.88, 1.0)], paint, gloss=0.12)
    glass = GLASS
    k.face(((front - 0.92, -w * 0.78, 1.32), (front - 0.92, w * 0.78, 1.32), (front - 1.6, w * 0.72, height * 0.9),
            (front - 1.6, -w * 0.72, height * 0.9)), glass, gloss=0.45)
    for side in (-w * 1.001, w * 1.001):
        k.face(((front - 1.05, side, 1.22), (front - 2.1, side, 1.22), (front - 2.1, side * 0.97, 1.8),
                (front - 1.6, side * 0.97, 1.8)), glass, gloss=0.2)
        k.quad("y", side, (rear + 0.1, front - 0.4), (low, low + 0.18), PLASTIC, detail=False)
        k.quad("y", side, (front - 3.4, front - 3.37), (0.5, 1.8), (60, 60, 60))
    _wheel_discs(k, wheels, w * 1.002, 0.34, (120, 120, 120))
    k.quad("x", rear, (-w * 0.9, w * 0.9), (low, 0.5), PLASTIC, detail=False)
    k.quad("x", rear - 0.002, (-0.012, 0.012), (0.5, height * 0.93), (60, 60, 60))
    for side in (-1, 1):
        a, b = sorted((side * w * 0.82, side * w * 0.95))
        k.quad("x", rear - 0.003, (a, b), (0.85, 1.35), (26, 22, 150), lamp=TAIL, detail=False)
        a, b = sorted((side * w * 0.12, side * w * 0.74))
        if rng.uniform() < 0.75:
            k.quad("x", rear - 0.003, (a, b), (1.3, min(1.85, height * 0.88)), glass, gloss=0.25, detail=False)
        a, b = sorted((side * w * 0.58, side * w * 0.86))
        k.quad("x", front + 0.004, (a, b), (0.72, 0.92), (222, 222, 215), lamp=HEAD, gloss=0.2, detail=False)
    _plate(k, rear - 0.004, 0.62, rng)
    k.quad("x", front + 0.002, (-w * 0.5, w * 0.5), (0.45, 0.8), (34, 34, 34), detail=False)
    _plate(k, front + 0.004, 0.42, rng)
    return Model(CAR, length, width, height, _fixed(k.done()))


def truck(rng: np.random.Generator) -> Model:
    """A cab with a box body or a semi-trailer."""
    semi = rng.uniform() < 0.4
    length = rng.uniform(13, 16) if semi else rng.uniform(6, 9.5)
    width, height = rng.uniform(2.3, 2.55), rng.uniform(3.4, 4.0) if semi else rng.uniform(2.8, 3.7)
    w, rear, front = width / 2, -length / 2, length / 2
    cab_paint = _paint(rng)
    body = (215.0, 218.0, 220.0) if rng.uniform() < 0.5 else tuple(rng.uniform(40, 220, 3))
    cab_x, bed = front - rng.uniform(1.8, 2.3), 1.05
    cab_h = min(height, rng.uniform(2.5, 3.3))
    wheels = [rear + 1.2, rear + 2.4, front - 1.1] if length > 7.5 else [rear + 1.5, front - 1.0]
    k = Sculptor()
    _wheels(k, wheels, w, 0.5, (110, 110, 110))
    k.box((rear + 0.3, front - 1.0), (-w * 0.8, w * 0.8), (0.55, bed), (42, 42, 42), layer=0)  # chassis
    _wheel_discs(k, wheels, w, 0.5, (115, 115, 115), arch=False)
    k.box((rear, cab_x - 0.25), (-w, w), (bed, height), body, gloss=0.05)
    stripe = tuple(rng.uniform(20, 220, 3))
    for side in (-w * 1.001, w * 1.001):
        if rng.uniform() < 0.6:
            z = rng.uniform(bed + 0.3, height - 0.9)
            k.quad("y", side, (rear + 0.5, cab_x - 0.8), (z, z + rng.uniform(0.2, 0.6)), stripe)
        k.quad("y", side, (rear + 0.05, cab_x - 0.3), (bed, bed + 0.08), (60, 60, 60))
    k.quad("x", rear - 0.002, (-0.015, 0.015), (bed + 0.1, height - 0.1), tuple(c * 0.5 for c in body))
    for y in (-0.35, 0.35):
        k.quad("x", rear - 0.003, (y - 0.02, y + 0.02), (bed + 0.05, height - 0.1), tuple(c * 0.72 for c in body))
    if rng.uniform() < 0.4:
        k.quad("x", rear - 0.002, (-w * 0.8, w * 0.8), (bed + 0.5, bed + 1.0), stripe)
    k.box((rear - 0.02, rear + 0.15), (-w * 0.98, w * 0.98), (0.5, 0.72), (60, 60, 62))  # underrun guard with lamps
    for side in (-1, 1):
        a, b = sorted((side * w * 0.62, side * w * 0.95))
        k.quad("x", rear - 0.024, (a, b), (0.53, 0.69), (24, 20, 165), lamp=TAIL, detail=False)
    _plate(k, rear - 0.025, 0.54, rng)
    k.part((front - 1.0, 0, 1.6))
    k.loft([[(cab_x, w * 0.98, 0.45), (cab_x, w * 0.98, 1.6), (cab_x, w * 0.93, cab_h)],
            [(front - 0.35, w * 0.98, 0.45), (front - 0.35, w * 0.98, 1.6), (front - 0.45, w * 0.92, cab_h)],
            [(front, w * 0.92, 0.45), (front, w * 0.92, 1.6), (front - 0.3, w * 0.86, cab_h * 0.97)]], cab_paint, gloss=0.15)
    k.face(((front + 0.01, -w * 0.84, 1.6), (front + 0.01, w * 0.84, 1.6), (front - 0.17, w * 0.8, cab_h * 0.83),
            (front - 0.17, -w * 0.8, cab_h * 0.83)), GLASS, gloss=0.45)
    k.quad("x", front + 0.005, (-w * 0.6, w * 0.6), (0.75, 1.4), (36, 36, 36), detail=False)
    for side in (-1, 1):
        a, b = sorted((side * w * 0.6, side * w * 0.88))
        k.quad("x", front + 0.006, (a, b), (0.6, 0.8), (222, 222, 215), lamp=HEAD, gloss=0.2, detail=False)
        k.quad("y", side * w * 0.985, (front - 1.3, front - 0.45), (1.65, min(2.3, cab_h * 0.85)), GLASS, gloss=0.2, detail=False)
        k.disc(front - 1.1, side * w * 1.0, 0.5, 0.5, RUBBER)
        k.disc(front - 1.1, side * w * 1.002, 0.5, 0.3, (115, 115, 115))
    return Model(TRUCK_BUS, length, width, height, _fixed(k.done()))


def bus(rng: np.random.Generator) -> Model:
    length, width, height = rng.uniform(9, 12.5), rng.uniform(2.4, 2.55), rng.uniform(2.9, 3.4)
    w, rear, front, low = width / 2, -length / 2, length / 2, 0.3
    paint = tuple(np.clip(np.array(((40, 40, 190), (50, 170, 215), (190, 110, 40), (215, 218, 220), (70, 140, 60))[
        int(rng.integers(5))]) * rng.uniform(0.8, 1.15), 0, 240))
    wheels = [rear + 2.6, front - 2.5]
    k = Sculptor()
    _wheels(k, wheels, w, 0.48, (130, 130, 130))
    k.part((0, 0, height / 2))
    k.loft([[(x, h, low), (x, h, 1.0), (x, h * 0.99, height - 0.25), (x, h * 0.92, height)] for x, h in
            ((rear, w * 0.97), (rear + 0.12, w), (front - 0.2, w), (front, w * 0.95))], paint, gloss=0.12)
    for side in (-w * 1.002, w * 1.002):
        k.quad("y", side, (rear + 0.4, front - 0.25), (1.15, 2.35), (30, 28, 26), gloss=0.12, detail=False)
        for x in np.arange(rear + 0.5, front - 1.2, 1.35):
            k.quad("y", side * 1.001, (x, x + 1.2), (1.2, 2.3), GLASS, gloss=0.22)
        k.quad("y", side, (rear + 0.1, front - 0.1), (low, low + 0.2), PLASTIC, detail=False)
    _wheel_discs(k, wheels, w * 1.003, 0.48, (130, 130, 130))
    k.quad("x", rear - 0.002, (-w * 0.85, w * 0.85), (1.6, 2.6), GLASS, gloss=0.3, detail=False)
    k.quad("x", rear - 0.002, (-w * 0.7, w * 0.7), (0.6, 1.2), tuple(c * 0.6 for c in paint), detail=True)
    k.quad("x", front + 0.002, (-w * 0.9, w * 0.9), (1.05, 2.5), GLASS, gloss=0.4, detail=False)
    k.quad("x", front + 0.003, (-w * 0.7, w * 0.7), (2.6, 2.9), (16, 16, 16), detail=False)
    k.quad("x", front + 0.004, (-w * 0.4, w * 0.4), (2.68, 2.83), (40, 160, 230))
    for side in (-1, 1):
        a, b = sorted((side * w * 0.78, side * w * 0.93))
        k.quad("x", rear - 0.003, (a, b), (0.75, 1.3), (26, 22, 160), lamp=TAIL, detail=False)
        a, b = sorted((side * w * 0.6, side * w * 0.88))
        k.quad("x", front + 0.004, (a, b), (0.6, 0.82), (222, 222, 215), lamp=HEAD, gloss=0.2, detail=False)
    _plate(k, rear - 0.004, 0.42, rng)
    _plate(k, front + 0.004, 0.42, rng)
    return Model(TRUCK_BUS, length, width, height, _fixed(k.done()))


SKIN: tuple[Colour, ...] = ((150, 180, 225), (110, 145, 200), (70, 100, 150), (45, 65, 100))
CLOTH: tuple[Colour, ...] = ((30, 28, 28), (60, 50, 46), (120, 70, 40), (50, 40, 130), (200, 200, 205), (70, 90, 60),
                             (130, 130, 135), (90, 120, 160), (45, 45, 70), (40, 160, 220), (150, 90, 150))


def _pick(rng: np.random.Generator, table: tuple[Colour, ...]) -> Colour:
    c = np.array(table[int(rng.integers(len(table)))]) * rng.uniform(0.75, 1.25) + rng.uniform(-8, 8, 3)
    return tuple(np.clip(c, 5, 245))  # type: ignore[return-value]


def person(rng: np.random.Generator) -> Model:
    """Somebody walking; the phase swings arms and legs."""
    h = rng.uniform(1.55, 1.92) if rng.uniform() < 0.88 else rng.uniform(1.05, 1.45)
    skin, coat, legs, shoes, hair = (_pick(rng, t) for t in (SKIN, CLOTH, CLOTH[:6], CLOTH[:2], CLOTH[:3]))
    stout, skirt, bag = rng.uniform(0.9, 1.25), rng.uniform() < 0.15, rng.uniform() < 0.3
    bag_colour = _pick(rng, CLOTH)

    def pose(phase: float) -> Figure:
        k = Modeller()
        swing = 0.5 * math.sin(phase)
        hip, shoulder = 0.5 * h, 0.81 * h
        limbs = []
        for side, a in ((-1, swing), (1, -swing)):
            y = side * 0.085 * stout
            bend = 0.5 * max(0.0, math.cos(phase) * side)
            knee = (math.sin(a) * 0.25 * h, y, hip - math.cos(a) * 0.25 * h)
            foot = (knee[0] + math.sin(a - bend) * 0.23 * h, y, max(0.035, knee[2] - math.cos(a - bend) * 0.23 * h))
            limbs.append(("leg", side, knee, foot))
            arm = -a * 0.8
            elbow = (math.sin(arm) * 0.17 * h, side * 0.135 * h * stout, shoulder - math.cos(arm) * 0.17 * h)
            hand = (elbow[0] + math.sin(arm + 0.35) * 0.15 * h, side * 0.13 * h * stout, elbow[2] - math.cos(arm + 0.35) * 0.15 * h)
            limbs.append(("arm", side, elbow, hand))
        r = 0.052 * h * stout
        for kind, side, a3, b3 in limbs:
            if kind == "leg":
                k.hull(legs, (0, side * 0.06 * h * stout, hip, r * 0.98), (*a3, r * 0.75))
                k.hull(legs, (*a3, r * 0.74), (*b3, r * 0.5))
                k.hull(shoes, (b3[0] - 0.02, b3[1], b3[2], 0.022 * h), (b3[0] + 0.09 * h, b3[1], max(b3[2] - 0.01, 0.02), 0.018 * h))
        k.hull(coat, (0, -0.075 * h * stout, hip - 0.02, r), (0, 0.075 * h * stout, hip - 0.02, r),
               (0, -0.095 * h * stout, shoulder - 0.02, r), (0, 0.095 * h * stout, shoulder - 0.02, r))
        if skirt:
            k.hull(coat, (0, 0, hip + 0.05, r * 1.6), (0.02, -0.08, hip - 0.2 * h, r), (0.02, 0.08, hip - 0.2 * h, r))
        if bag:
            k.hull(bag_colour, (-0.12, -0.06, hip + 0.06, 0.09), (-0.14, 0.06, shoulder - 0.1, 0.1))
        for kind, side, a3, b3 in limbs:
            if kind == "arm":
                k.hull(tuple(c * 0.88 for c in coat), (0, side * 0.115 * h * stout, shoulder - 0.02, r * 0.72), (*a3, r * 0.62))
                k.hull(tuple(c * 0.88 for c in coat), (*a3, r * 0.6), (*b3, r * 0.45))
                k.hull(skin, (*b3, 0.026 * h))
        k.hull(skin, (0.0, 0, 0.85 * h, 0.032 * h), (0.015, 0, 0.93 * h, 0.05 * h))
        k.hull(skin, (0.02, 0, 0.915 * h, 0.05 * h), (0.01, 0, 0.945 * h, 0.052 * h))
        k.hull(hair, (-0.015, 0, 0.95 * h, 0.05 * h), (-0.035, 0, 0.925 * h, 0.05 * h))
        return k.done()

    return Model(PERSON, 0.5, 0.55, h, _moving(pose))


def bicycle(rng: np.random.Generator) -> Model:
    skin, coat, legs, frame = (_pick(rng, t) for t in (SKIN, CLOTH, CLOTH, CLOTH))
    helmet = _pick(rng, CLOTH if rng.uniform() < 0.6 else CLOTH[:2])
    stout = rng.uniform(0.9, 1.15)
    lamps = {TAIL: np.array([(-0.6, 0, 0.75)], np.float32), HEAD: np.array([(0.55, 0, 0.95)], np.float32)}

    def pose(phase: float) -> Figure:
        k = Modeller()
        for x in (-0.52, 0.53):
            k.wheel(x, 0.34, 0.045, RUBBER)
        crank, seat, head = (-0.05, 0.0, 0.3), (-0.22, 0.0, 0.92), (0.4, 0.0, 0.92)
        for a, b in ((crank, seat), (crank, head), (seat, head), ((-0.52, 0, 0.34), crank), ((-0.52, 0, 0.34), seat),
                     ((0.53, 0, 0.34), head)):
            k.hull(frame, (*a, 0.02), (*b, 0.02))
        k.hull(PLASTIC, (0.42, -0.28, 1.02, 0.02), (0.42, 0.28, 1.02, 0.02))
        k.hull(PLASTIC, (-0.32, 0, 0.96, 0.05), (-0.1, 0, 0.97, 0.03))
        hip, shoulder = (-0.22, 1.0), (0.1, 1.46)
        for side in (-1, 1):
            a = phase + (0 if side < 0 else math.pi)
            foot = (-0.05 + 0.17 * math.cos(a), side * 0.1, 0.3 + 0.17 * math.sin(a))
            knee = (0.5 * (hip[0] + foot[0]) + 0.2, side * 0.12, 0.5 * (hip[1] + foot[2]) + 0.1)
            k.hull(legs, (hip[0], side * 0.09, hip[1], 0.09 * stout), (*knee, 0.065 * stout))
            k.hull(legs, (*knee, 0.06 * stout), (*foot, 0.042))
            k.hull(PLASTIC, (foot[0] - 0.04, foot[1], foot[2], 0.04), (foot[0] + 0.12, foot[1], foot[2], 0.03))
        k.hull(coat, (hip[0], -0.1 * stout, hip[1], 0.1), (hip[0], 0.1 * stout, hip[1], 0.1),
               (shoulder[0], -0.15 * stout, shoulder[1], 0.09), (shoulder[0], 0.15 * stout, shoulder[1], 0.09))
        for side in (-1, 1):
            k.hull(tuple(c * 0.85 for c in coat), (shoulder[0], side * 0.2, shoulder[1], 0.06), (0.24, side * 0.25, 1.2, 0.05))
            k.hull(skin, (0.24, side * 0.25, 1.2, 0.045), (0.42, side * 0.24, 1.04, 0.04))
        k.hull(skin, (0.15, 0, 1.55, 0.06), (0.2, 0, 1.68, 0.09))
        k.hull(helmet, (0.17, 0, 1.73, 0.1), (0.14, 0, 1.72, 0.1))
        return k.done(lamps)

    return Model(TWO_WHEELER, 1.75, 0.6, 1.83, _moving(pose))


def motorbike(rng: np.random.Generator) -> Model:
    coat, legs, tank, helmet = _pick(rng, CLOTH), _pick(rng, CLOTH[:3]), _pick(rng, CLOTH), _pick(rng, CLOTH)
    scooter = rng.uniform() < 0.4
    lamps = {TAIL: np.array([(-0.85, 0, 0.8)], np.float32), HEAD: np.array([(0.75, 0, 0.9)], np.float32)}
    r = 0.25 if scooter else 0.31

    def pose(phase: float) -> Figure:
        k = Modeller()
        for x in (-0.66, 0.7):
            k.wheel(x, r * 0.85, 0.13, RUBBER)
            k.hull((90, 90, 90), (x, 0, r, 0.09))
        k.hull(PLASTIC, (-0.3, 0, 0.42, 0.2), (0.22, 0, 0.42, 0.2), (0, 0, 0.55, 0.16))
        k.hull((110, 110, 112), (0.7, 0, r, 0.04), (0.42, 0, 0.95, 0.05))
        k.hull((70, 70, 72), (-0.7, 0.14, 0.36, 0.06), (-0.1, 0.14, 0.3, 0.05))
        k.hull(tank, (-0.75, 0, 0.78, 0.1), (-0.2, 0, 0.74, 0.14), (0.3, 0, 0.85, 0.15))
        if scooter:
            k.hull(tank, (0.45, -0.12, 0.4, 0.06), (0.45, 0.12, 0.4, 0.06), (0.42, 0, 0.95, 0.12))
            k.hull(tank, (-0.7, 0, 0.5, 0.16), (-0.2, 0, 0.55, 0.16), (-0.7, 0, 0.72, 0.16))
        k.hull((30, 26, 160), (-0.84, -0.05, 0.8, 0.05), (-0.84, 0.05, 0.8, 0.05))
        k.hull(PLASTIC, (0.42, -0.34, 1.04, 0.03), (0.42, 0.34, 1.04, 0.03))
        k.hull((215, 215, 210), (0.6, 0, 0.88, 0.1), (0.58, 0, 0.95, 0.09))
        for side in (-1, 1):
            k.hull(legs, (-0.3, side * 0.13, 0.9, 0.1), (0.12, side * 0.22, 0.78, 0.085))
            k.hull(legs, (0.12, side * 0.22, 0.78, 0.08), (-0.12, side * 0.2, 0.38, 0.055))
            k.hull(PLASTIC, (-0.15, side * 0.2, 0.34, 0.05), (0.05, side * 0.2, 0.33, 0.045))
        k.hull(coat, (-0.3, -0.1, 0.95, 0.12), (-0.3, 0.1, 0.95, 0.12), (-0.08, -0.17, 1.38, 0.1), (-0.08, 0.17, 1.38, 0.1))
        for side in (-1, 1):
            k.hull(tuple(c * 0.85 for c in coat), (-0.08, side * 0.22, 1.38, 0.075), (0.16, side * 0.32, 1.16, 0.06))
            k.hull(tuple(c * 0.85 for c in coat), (0.16, side * 0.32, 1.16, 0.06), (0.4, side * 0.3, 1.06, 0.05))
        k.hull(helmet, (0.02, 0, 1.58, 0.13), (0.0, 0, 1.62, 0.13))
        k.hull((35, 33, 32), (0.1, -0.04, 1.59, 0.07), (0.1, 0.04, 1.59, 0.07))
        return k.done(lamps)

    return Model(TWO_WHEELER, 2.0, 0.75, 1.75, _moving(pose))


def _moving(pose: Callable[[float], Figure]) -> Callable[[float], Figure]:
    """The pose at the nearest of 24 phases, each modelled once."""
    step = 2 * math.pi / 24
    build = functools.cache(lambda k: pose(k * step))
    return lambda phase: build(round(phase / step) % 24)


_STOCK: dict[str, tuple[Callable[[np.random.Generator], Model], int]] = {}


@functools.cache
def _built(kind: str, number: int) -> Model:
    """Model `number` of a kind; building one takes longer than drawing it."""
    return _STOCK[kind][0](np.random.default_rng((4711, number)))


def from_stock(rng: np.random.Generator, kind: str) -> Model:
    """One of the models of a kind: car, van, truck, bus, person, bicycle or motorbike."""
    return _built(kind, int(rng.integers(_STOCK[kind][1])))


def vehicle(rng: np.random.Generator, heavy: float = 0.18) -> Model:
    """A vehicle of traffic with a share of `heavy` trucks and buses."""
    t = rng.uniform()
    if t < heavy:
        return from_stock(rng, "truck" if rng.uniform() < 0.68 else "bus")
    return from_stock(rng, "van" if t < heavy + 0.1 else "car")


def two_wheeler(rng: np.random.Generator) -> Model:
    return from_stock(rng, "motorbike" if rng.uniform() < 0.45 else "bicycle")


_STOCK |= {"car": (car, 300), "van": (van, 60), "truck": (truck, 80), "bus": (bus, 50), "person": (person, 160),
           "bicycle": (bicycle, 80), "motorbike": (motorbike, 80)}
