"""What all vehicles share: paint, wheels, number plates, and the description of a model."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgecnn.data.simulator.shapes import Colour, Figure, Mesh, Sculptor, colour_of

GLASS, RUBBER, PLASTIC = (46.0, 40.0, 36.0), (26.0, 25.0, 25.0), (38.0, 37.0, 36.0)
PAINTS: tuple[tuple[Colour, float], ...] = (  # BGR, share on the road
    ((225, 226, 228), 0.22),
    ((24, 23, 22), 0.18),
    ((168, 166, 164), 0.15),
    ((92, 90, 88), 0.14),
    ((132, 62, 24), 0.08),
    ((34, 28, 148), 0.08),
    ((86, 44, 20), 0.05),
    ((190, 205, 212), 0.03),
    ((50, 74, 30), 0.02),
    ((40, 150, 205), 0.02),
    ((40, 60, 92), 0.02),
    ((175, 140, 80), 0.01),
)


@dataclass(frozen=True)
class Model:
    """What a road user looks like; `pose(phase)` is its shape at a walking or pedalling phase in rad."""

    label: int
    length: float  # m
    width: float
    height: float
    pose: Callable[[float], Mesh | Figure]


def moving(pose: Callable[[float], Figure]) -> Callable[[float], Figure]:
    """The pose at the nearest of 16 phases, each modelled once."""
    step = 2 * math.pi / 16
    build = functools.cache(lambda k: pose(k * step))
    return lambda phase: build(round(phase / step) % 16)


def darker(colour: Colour, k: float) -> Colour:
    """A colour times k."""
    return colour[0] * k, colour[1] * k, colour[2] * k


def random_paint(rng: np.random.Generator) -> Colour:
    shares = np.array([p for _, p in PAINTS])
    colour = np.array(PAINTS[int(rng.choice(len(PAINTS), p=shares / shares.sum()))][0])
    return colour_of(np.clip(colour * rng.uniform(0.85, 1.1) + rng.uniform(-6, 6, 3), 8, 240))


def fixed(mesh: Mesh) -> Callable[[float], Mesh]:
    return lambda phase: mesh


def wheels(k: Sculptor, xs: list[float], half: float, radius: float) -> None:
    """Tyres as blocks seen from behind; call before the body."""
    for x in xs:
        for side in (-1, 1):
            inner, outer = sorted((side * (half - 0.24), side * (half - 0.02)))
            k.box((x - radius * 0.5, x + radius * 0.5), (inner, outer), (0, radius * 1.2), RUBBER, layer=0)


def wheel_discs(k: Sculptor, xs: list[float], half: float, radius: float, rim: Colour, arch: bool = True) -> None:
    """Arches, tyres and rims on both flanks; call inside the body's part."""
    for x in xs:
        for side in (-1, 1):
            if arch:
                k.disc(x, side * half, radius * 1.05, radius * 1.16, (18, 18, 18))
            k.disc(x, side * (half + 0.005), radius, radius, RUBBER)
            k.disc(x, side * (half + 0.01), radius, radius * 0.66, rim)
            k.disc(x, side * (half + 0.012), radius, radius * 0.5, darker(rim, 0.6), detail=True)
            k.disc(x, side * (half + 0.015), radius, radius * 0.2, rim, detail=True)


def plate(k: Sculptor, x: float, z: float, rng: np.random.Generator) -> None:
    colour = (215, 220, 220) if rng.uniform() < 0.8 else (60, 190, 220)
    k.quad("x", x, (-0.26, 0.26), (z, z + 0.12), colour)
