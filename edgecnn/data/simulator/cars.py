"""Cars of five forms, and panel vans."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecnn.data.classes import CAR
from edgecnn.data.simulator.bodywork import (
    GLASS,
    PLASTIC,
    Model,
    darker,
    fixed,
    plate,
    random_paint,
    wheel_discs,
    wheels,
)
from edgecnn.data.simulator.shapes import BRAKE, HEAD, TAIL, Colour, Sculptor, colour_of


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
    coat, rim = random_paint(rng), colour_of(np.full(3, rng.uniform(70, 185)))
    w, rear, front = width / 2, -length / 2, length / 2
    belt, low = f.belt * height, f.clear
    nose = f.bonnet * belt
    cowl, tail = rear + f.cowl * length, rear + f.tail * length
    mid = low + 0.5 * (belt - low)
    axles, radius = [rear + 0.2 * length, front - 0.19 * length], rng.uniform(0.29, 0.35) * (1.1 if low > 0.22 else 1)
    k = Sculptor()
    wheels(k, axles, w, radius)
    k.part((0, 0, (low + belt) / 2))  # body

    def ring(x: float, half: float, top: float) -> list[tuple[float, float, float]]:
        return [
            (x, half * 0.93, low),
            (x, half, low + 0.12),
            (x, half, mid),
            (x, half * 0.985, mid + 0.7 * (top - mid)),
            (x, half * 0.93, top),
        ]

    boot = belt if f.tail < 0.05 else belt * rng.uniform(0.97, 1.0)
    k.loft(
        [
            ring(rear, w * 0.87, boot * 0.96),
            ring(rear + 0.14, w * 0.97, boot),
            ring(tail + 0.25, w, belt),
            ring(cowl, w, belt),
            ring(front - 0.55, w * 0.97, nose + 0.08),
            ring(front - 0.1, w * 0.88, nose),
            ring(front, w * 0.78, nose * 0.9),
        ],
        coat,
        gloss=0.2,
    )
    sill = darker(coat, 0.5)
    for side in (-w * 0.985, w * 0.985):
        k.quad("y", side, (rear + 0.2, front - 0.3), (low, low + 0.1), PLASTIC, detail=False)
        for x in (cowl - 0.15, cowl - 1.15, cowl - 2.0):
            if x > axles[0] + radius * 0.6:
                k.quad("y", side * 1.016, (x, x + 0.022), (low + 0.12, belt * 0.97), sill)
                k.quad("y", side * 1.016, (x + 0.1, x + 0.28), (belt * 0.86, belt * 0.89), sill)
    wheel_discs(k, axles, w, radius, rim)
    _car_rear(k, rear, w * 0.87, low, belt, boot, coat, rng)
    _car_front(k, front, w * 0.78, low, nose, rng)
    _cabin(k, (tail, cowl), (tail + f.rake_rear, cowl - f.rake_front), w, belt, height, coat, rng)
    for side in (-1, 1):  # mirrors
        a, b = sorted((side * (w - 0.04), side * (w + 0.16)))
        k.box((cowl - 0.42, cowl - 0.3), (a, b), (belt - 0.02, belt + 0.13), coat, layer=2)
    return Model(CAR, length, width, height, fixed(k.done()))


def _car_rear(
    k: Sculptor, x: float, half: float, low: float, belt: float, boot: float, coat: Colour, rng: np.random.Generator
) -> None:
    bumper = low + 0.36 * (belt - low)
    dark = darker(coat, 0.55)
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
    plate(k, x - 0.004, bumper - 0.16 if style == 2 else bumper + 0.08, rng)
    k.quad("x", x - 0.004, (-0.07, 0.07), (bumper + 0.26, bumper + 0.31), (170, 170, 172))


def _car_front(k: Sculptor, x: float, half: float, low: float, nose: float, rng: np.random.Generator) -> None:
    k.quad("x", x, (-half * 0.8, half * 0.8), (low + 0.02, low + 0.16), PLASTIC, detail=False)
    wide = half * rng.uniform(0.5, 0.75)
    k.quad("x", x + 0.002, (-wide, wide), (low + 0.24, nose * 0.84), (30, 30, 30), detail=False)
    k.quad("x", x + 0.003, (-wide, wide), (nose * 0.72, nose * 0.74), (150, 150, 150))
    for side in (-1, 1):
        a, b = sorted((side * half * 0.62, side * half))
        k.quad("x", x + 0.004, (a, b), (nose * 0.7, nose * 0.87), (225, 222, 215), gloss=0.2, lamp=HEAD, detail=False)
    plate(k, x + 0.004, low + 0.14, rng)


def _cabin(
    k: Sculptor,
    base: tuple[float, float],
    roof: tuple[float, float],
    w: float,
    belt: float,
    height: float,
    coat: Colour,
    rng: np.random.Generator,
) -> None:
    """A tapered glasshouse: pillars in body colour, glass inset."""
    wb, wr, edge = w * 0.93, w * 0.73, height - 0.05
    k.part(((base[0] + base[1]) / 2, 0, (belt + height) / 2), layer=2)
    low = np.array([(base[0], -wb, belt), (base[0], wb, belt), (base[1], wb, belt), (base[1], -wb, belt)])
    top = np.array([(roof[0], -wr, edge), (roof[0], wr, edge), (roof[1], wr, edge), (roof[1], -wr, edge)])
    glass = darker(GLASS, rng.uniform(0.5, 1.2))
    for i, j, lamp in ((0, 1, "rear"), (1, 2, ""), (2, 3, "front"), (3, 0, "")):
        quad = np.array((low[i], low[j], top[j], top[i]))
        k.face(quad, coat, gloss=0.15)

        if lamp:
            k.face(_inset(quad, 0.07, 0.93, 0.06, 0.9), glass, gloss=0.5 if lamp == "front" else 0.35)
            for seat in (0.17, 0.61):
                k.face(_inset(quad, seat, seat + 0.22, 0.1, 0.42), darker(glass, 0.5), gloss=0.18, detail=True)
            if lamp == "rear":
                k.face(_inset(quad, 0.42, 0.58, 0.9, 0.97), (40, 30, 110), lamp=BRAKE, detail=True)
        else:
            k.face(_inset(quad, 0.06, 0.94, 0.06, 0.88), glass, gloss=0.22)
            split = rng.uniform(0.42, 0.56)
            k.face(_inset(quad, split, split + 0.05, 0.06, 0.88), PLASTIC)
    dome = np.array(
        [
            (roof[0] + 0.12, -wr * 0.86, height),
            (roof[0] + 0.12, wr * 0.86, height),
            (roof[1] - 0.12, wr * 0.86, height),
            (roof[1] - 0.12, -wr * 0.86, height),
        ]
    )
    for i, j in ((0, 1), (1, 2), (2, 3), (3, 0)):
        k.face((top[i], top[j], dome[j], dome[i]), coat, gloss=0.25)
    k.face(dome, coat, gloss=0.25)


def _inset(quad: NDArray[np.float64], u0: float, u1: float, v0: float, v1: float) -> NDArray[np.float64]:
    """(4, 3) part of a quad (4, 3): u runs along its lower edge, v upwards, both 0 to 1."""
    u, v = np.array((u0, u1, u1, u0))[:, None], np.array((v0, v0, v1, v1))[:, None]
    return np.asarray((quad[0] * (1 - u) + quad[1] * u) * (1 - v) + (quad[3] * (1 - u) + quad[2] * u) * v)


def van(rng: np.random.Generator) -> Model:
    """A panel van: counted with the cars, as KITTI's Van is."""
    length, width, height = rng.uniform(4.9, 6.2), rng.uniform(1.95, 2.1), rng.uniform(2.1, 2.7)
    coat = (226.0, 228.0, 230.0) if rng.uniform() < 0.55 else random_paint(rng)
    w, rear, front, low = width / 2, -length / 2, length / 2, 0.25
    axles = [rear + 0.2 * length, front - 0.17 * length]
    k = Sculptor()
    wheels(k, axles, w, 0.34)
    k.part((0, 0, height / 2))

    def ring(x: float, half: float, top: float) -> list[tuple[float, float, float]]:
        return [(x, half, low), (x, half, 1.1), (x, half * 0.97, min(top, 1.75)), (x, half * 0.9, top)]

    k.loft(
        [
            ring(rear, w * 0.96, height * 0.97),
            ring(rear + 0.15, w, height),
            ring(front - 1.75, w, height),
            ring(front - 0.85, w * 0.97, 1.25),
            ring(front, w * 0.88, 1.0),
        ],
        coat,
        gloss=0.12,
    )
    glass = GLASS
    k.face(
        (
            (front - 0.92, -w * 0.78, 1.32),
            (front - 0.92, w * 0.78, 1.32),
            (front - 1.6, w * 0.72, height * 0.9),
            (front - 1.6, -w * 0.72, height * 0.9),
        ),
        glass,
        gloss=0.45,
    )
    for side in (-w * 1.001, w * 1.001):
        k.face(
            (
                (front - 1.05, side, 1.22),
                (front - 2.1, side, 1.22),
                (front - 2.1, side * 0.97, 1.8),
                (front - 1.6, side * 0.97, 1.8),
            ),
            glass,
            gloss=0.2,
        )
        k.quad("y", side, (rear + 0.1, front - 0.4), (low, low + 0.18), PLASTIC, detail=False)
        k.quad("y", side, (front - 3.4, front - 3.37), (0.5, 1.8), (60, 60, 60))
    wheel_discs(k, axles, w * 1.002, 0.34, (120, 120, 120))
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
    plate(k, rear - 0.004, 0.62, rng)
    k.quad("x", front + 0.002, (-w * 0.5, w * 0.5), (0.45, 0.8), (34, 34, 34), detail=False)
    plate(k, front + 0.004, 0.42, rng)
    return Model(CAR, length, width, height, fixed(k.done()))
