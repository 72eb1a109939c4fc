"""People on foot, on bicycles and on motorbikes, as hulls of spheres that move with a phase."""

from __future__ import annotations

import math

import numpy as np

from edgecnn.data.classes import PERSON, TWO_WHEELER
from edgecnn.data.simulator.bodywork import PLASTIC, RUBBER, Model, darker, moving
from edgecnn.data.simulator.shapes import HEAD, TAIL, Colour, Figure, Modeller, colour_of

SKIN: tuple[Colour, ...] = ((150, 180, 225), (110, 145, 200), (70, 100, 150), (45, 65, 100))
CLOTH: tuple[Colour, ...] = (
    (30, 28, 28),
    (60, 50, 46),
    (120, 70, 40),
    (50, 40, 130),
    (200, 200, 205),
    (70, 90, 60),
    (130, 130, 135),
    (90, 120, 160),
    (45, 45, 70),
    (40, 160, 220),
    (150, 90, 150),
)


def _pick(rng: np.random.Generator, table: tuple[Colour, ...]) -> Colour:
    c = np.array(table[int(rng.integers(len(table)))]) * rng.uniform(0.75, 1.25) + rng.uniform(-8, 8, 3)
    return colour_of(np.clip(c, 5, 245))


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
            hand = (
                elbow[0] + math.sin(arm + 0.35) * 0.15 * h,
                side * 0.13 * h * stout,
                elbow[2] - math.cos(arm + 0.35) * 0.15 * h,
            )
            limbs.append(("arm", side, elbow, hand))
        r = 0.052 * h * stout
        for kind, side, a3, b3 in limbs:
            if kind == "leg":
                k.hull(legs, (0, side * 0.06 * h * stout, hip, r * 0.98), (*a3, r * 0.75))
                k.hull(legs, (*a3, r * 0.74), (*b3, r * 0.5))
                k.hull(
                    shoes,
                    (b3[0] - 0.02, b3[1], b3[2], 0.022 * h),
                    (b3[0] + 0.09 * h, b3[1], max(b3[2] - 0.01, 0.02), 0.018 * h),
                )
        k.hull(
            coat,
            (0, -0.075 * h * stout, hip - 0.02, r),
            (0, 0.075 * h * stout, hip - 0.02, r),
            (0, -0.095 * h * stout, shoulder - 0.02, r),
            (0, 0.095 * h * stout, shoulder - 0.02, r),
        )
        if skirt:
            k.hull(coat, (0, 0, hip + 0.05, r * 1.6), (0.02, -0.08, hip - 0.2 * h, r), (0.02, 0.08, hip - 0.2 * h, r))
        if bag:
            k.hull(bag_colour, (-0.12, -0.06, hip + 0.06, 0.09), (-0.14, 0.06, shoulder - 0.1, 0.1))
        for kind, side, a3, b3 in limbs:
            if kind == "arm":
                k.hull(darker(coat, 0.88), (0, side * 0.115 * h * stout, shoulder - 0.02, r * 0.72), (*a3, r * 0.62))
                k.hull(darker(coat, 0.88), (*a3, r * 0.6), (*b3, r * 0.45))
                k.hull(skin, (*b3, 0.026 * h))
        k.hull(skin, (0.0, 0, 0.85 * h, 0.032 * h), (0.015, 0, 0.93 * h, 0.05 * h))
        k.hull(skin, (0.02, 0, 0.915 * h, 0.05 * h), (0.01, 0, 0.945 * h, 0.052 * h))
        k.hull(hair, (-0.015, 0, 0.95 * h, 0.05 * h), (-0.035, 0, 0.925 * h, 0.05 * h))
        return k.done()

    return Model(PERSON, 0.5, 0.55, h, moving(pose))


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
        for a, b in (
            (crank, seat),
            (crank, head),
            (seat, head),
            ((-0.52, 0, 0.34), crank),
            ((-0.52, 0, 0.34), seat),
            ((0.53, 0, 0.34), head),
        ):
            k.hull(frame, (*a, 0.02), (*b, 0.02))
        k.hull(PLASTIC, (0.42, -0.28, 1.02, 0.02), (0.42, 0.28, 1.02, 0.02))
        k.hull(PLASTIC, (-0.32, 0, 0.96, 0.05), (-0.1, 0, 0.97, 0.03))
        hip, shoulder = (-0.22, 1.0), (0.1, 1.46)
        for side in (-1, 1):
            turn = phase + (0 if side < 0 else math.pi)
            foot = (-0.05 + 0.17 * math.cos(turn), side * 0.1, 0.3 + 0.17 * math.sin(turn))
            knee = (0.5 * (hip[0] + foot[0]) + 0.2, side * 0.12, 0.5 * (hip[1] + foot[2]) + 0.1)
            k.hull(legs, (hip[0], side * 0.09, hip[1], 0.09 * stout), (*knee, 0.065 * stout))
            k.hull(legs, (*knee, 0.06 * stout), (*foot, 0.042))
            k.hull(PLASTIC, (foot[0] - 0.04, foot[1], foot[2], 0.04), (foot[0] + 0.12, foot[1], foot[2], 0.03))
        k.hull(
            coat,
            (hip[0], -0.1 * stout, hip[1], 0.1),
            (hip[0], 0.1 * stout, hip[1], 0.1),
            (shoulder[0], -0.15 * stout, shoulder[1], 0.09),
            (shoulder[0], 0.15 * stout, shoulder[1], 0.09),
        )
        for side in (-1, 1):
            k.hull(darker(coat, 0.85), (shoulder[0], side * 0.2, shoulder[1], 0.06), (0.24, side * 0.25, 1.2, 0.05))
            k.hull(skin, (0.24, side * 0.25, 1.2, 0.045), (0.42, side * 0.24, 1.04, 0.04))
        k.hull(skin, (0.15, 0, 1.55, 0.06), (0.2, 0, 1.68, 0.09))
        k.hull(helmet, (0.17, 0, 1.73, 0.1), (0.14, 0, 1.72, 0.1))
        return k.done(lamps)

    return Model(TWO_WHEELER, 1.75, 0.6, 1.83, moving(pose))


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
        k.hull(
            coat, (-0.3, -0.1, 0.95, 0.12), (-0.3, 0.1, 0.95, 0.12), (-0.08, -0.17, 1.38, 0.1), (-0.08, 0.17, 1.38, 0.1)
        )
        for side in (-1, 1):
            k.hull(darker(coat, 0.85), (-0.08, side * 0.22, 1.38, 0.075), (0.16, side * 0.32, 1.16, 0.06))
            k.hull(darker(coat, 0.85), (0.16, side * 0.32, 1.16, 0.06), (0.4, side * 0.3, 1.06, 0.05))
        k.hull(helmet, (0.02, 0, 1.58, 0.13), (0.0, 0, 1.62, 0.13))
        k.hull((35, 33, 32), (0.1, -0.04, 1.59, 0.07), (0.1, 0.04, 1.59, 0.07))
        return k.done(lamps)

    return Model(TWO_WHEELER, 2.0, 0.75, 1.75, moving(pose))
