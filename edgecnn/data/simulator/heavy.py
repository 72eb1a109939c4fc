"""Trucks and buses."""

from __future__ import annotations

import numpy as np

from edgecnn.data.classes import TRUCK_BUS
from edgecnn.data.simulator.bodywork import (
    GLASS,
    PLASTIC,
    RUBBER,
    Model,
    darker,
    fixed,
    plate,
    random_paint,
    wheel_discs,
    wheels,
)
from edgecnn.data.simulator.shapes import HEAD, TAIL, Sculptor, colour_of

LIVERIES = ((40, 40, 190), (50, 170, 215), (190, 110, 40), (215, 218, 220), (70, 140, 60))  # of buses, BGR


def truck(rng: np.random.Generator) -> Model:
    """A cab with a box body or a semi-trailer."""
    semi = rng.uniform() < 0.4
    length = rng.uniform(13, 16) if semi else rng.uniform(6, 9.5)
    width, height = rng.uniform(2.3, 2.55), rng.uniform(3.4, 4.0) if semi else rng.uniform(2.8, 3.7)
    w, rear, front = width / 2, -length / 2, length / 2
    cab_paint = random_paint(rng)
    body = (215.0, 218.0, 220.0) if rng.uniform() < 0.5 else colour_of(rng.uniform(40, 220, 3))
    cab_x, bed = front - rng.uniform(1.8, 2.3), 1.05
    cab_h = min(height, rng.uniform(2.5, 3.3))
    axles = [rear + 1.2, rear + 2.4, front - 1.1] if length > 7.5 else [rear + 1.5, front - 1.0]
    k = Sculptor()
    wheels(k, axles, w, 0.5)
    k.box((rear + 0.3, front - 1.0), (-w * 0.8, w * 0.8), (0.55, bed), (42, 42, 42), layer=0)  # chassis
    wheel_discs(k, axles, w, 0.5, (115, 115, 115), arch=False)
    k.box((rear, cab_x - 0.25), (-w, w), (bed, height), body, gloss=0.05)
    stripe = colour_of(rng.uniform(20, 220, 3))
    for side in (-w * 1.001, w * 1.001):
        if rng.uniform() < 0.6:
            z = rng.uniform(bed + 0.3, height - 0.9)
            k.quad("y", side, (rear + 0.5, cab_x - 0.8), (z, z + rng.uniform(0.2, 0.6)), stripe)
        k.quad("y", side, (rear + 0.05, cab_x - 0.3), (bed, bed + 0.08), (60, 60, 60))
    k.quad("x", rear - 0.002, (-0.015, 0.015), (bed + 0.1, height - 0.1), darker(body, 0.5))
    for y in (-0.35, 0.35):
        k.quad("x", rear - 0.003, (y - 0.02, y + 0.02), (bed + 0.05, height - 0.1), darker(body, 0.72))
    if rng.uniform() < 0.4:
        k.quad("x", rear - 0.002, (-w * 0.8, w * 0.8), (bed + 0.5, bed + 1.0), stripe)
    k.box((rear - 0.02, rear + 0.15), (-w * 0.98, w * 0.98), (0.5, 0.72), (60, 60, 62))  # underrun guard with lamps
    for side in (-1, 1):
        a, b = sorted((side * w * 0.62, side * w * 0.95))
        k.quad("x", rear - 0.024, (a, b), (0.53, 0.69), (24, 20, 165), lamp=TAIL, detail=False)
    plate(k, rear - 0.025, 0.54, rng)
    k.part((front - 1.0, 0, 1.6))
    k.loft(
        [
            [(cab_x, w * 0.98, 0.45), (cab_x, w * 0.98, 1.6), (cab_x, w * 0.93, cab_h)],
            [(front - 0.35, w * 0.98, 0.45), (front - 0.35, w * 0.98, 1.6), (front - 0.45, w * 0.92, cab_h)],
            [(front, w * 0.92, 0.45), (front, w * 0.92, 1.6), (front - 0.3, w * 0.86, cab_h * 0.97)],
        ],
        cab_paint,
        gloss=0.15,
    )
    k.face(
        (
            (front + 0.01, -w * 0.84, 1.6),
            (front + 0.01, w * 0.84, 1.6),
            (front - 0.17, w * 0.8, cab_h * 0.83),
            (front - 0.17, -w * 0.8, cab_h * 0.83),
        ),
        GLASS,
        gloss=0.45,
    )
    k.quad("x", front + 0.005, (-w * 0.6, w * 0.6), (0.75, 1.4), (36, 36, 36), detail=False)
    for side in (-1, 1):
        a, b = sorted((side * w * 0.6, side * w * 0.88))
        k.quad("x", front + 0.006, (a, b), (0.6, 0.8), (222, 222, 215), lamp=HEAD, gloss=0.2, detail=False)
        k.quad(
            "y",
            side * w * 0.985,
            (front - 1.3, front - 0.45),
            (1.65, min(2.3, cab_h * 0.85)),
            GLASS,
            gloss=0.2,
            detail=False,
        )
        k.disc(front - 1.1, side * w * 1.0, 0.5, 0.5, RUBBER)
        k.disc(front - 1.1, side * w * 1.002, 0.5, 0.3, (115, 115, 115))
    return Model(TRUCK_BUS, length, width, height, fixed(k.done()))


def bus(rng: np.random.Generator) -> Model:
    length, width, height = rng.uniform(9, 12.5), rng.uniform(2.4, 2.55), rng.uniform(2.9, 3.4)
    w, rear, front, low = width / 2, -length / 2, length / 2, 0.3
    livery = LIVERIES[int(rng.integers(len(LIVERIES)))]
    coat = colour_of(np.clip(np.array(livery) * rng.uniform(0.8, 1.15), 0, 240))
    axles = [rear + 2.6, front - 2.5]
    k = Sculptor()
    wheels(k, axles, w, 0.48)
    k.part((0, 0, height / 2))
    k.loft(
        [
            [(x, h, low), (x, h, 1.0), (x, h * 0.99, height - 0.25), (x, h * 0.92, height)]
            for x, h in ((rear, w * 0.97), (rear + 0.12, w), (front - 0.2, w), (front, w * 0.95))
        ],
        coat,
        gloss=0.12,
    )
    for side in (-w * 1.002, w * 1.002):
        k.quad("y", side, (rear + 0.4, front - 0.25), (1.15, 2.35), (30, 28, 26), gloss=0.12, detail=False)
        for x in np.arange(rear + 0.5, front - 1.2, 1.35):
            k.quad("y", side * 1.001, (x, x + 1.2), (1.2, 2.3), GLASS, gloss=0.22)
        k.quad("y", side, (rear + 0.1, front - 0.1), (low, low + 0.2), PLASTIC, detail=False)
    wheel_discs(k, axles, w * 1.003, 0.48, (130, 130, 130))
    k.quad("x", rear - 0.002, (-w * 0.85, w * 0.85), (1.6, 2.6), GLASS, gloss=0.3, detail=False)
    k.quad("x", rear - 0.002, (-w * 0.7, w * 0.7), (0.6, 1.2), darker(coat, 0.6), detail=True)
    k.quad("x", front + 0.002, (-w * 0.9, w * 0.9), (1.05, 2.5), GLASS, gloss=0.4, detail=False)
    k.quad("x", front + 0.003, (-w * 0.7, w * 0.7), (2.6, 2.9), (16, 16, 16), detail=False)
    k.quad("x", front + 0.004, (-w * 0.4, w * 0.4), (2.68, 2.83), (40, 160, 230))
    for side in (-1, 1):
        a, b = sorted((side * w * 0.78, side * w * 0.93))
        k.quad("x", rear - 0.003, (a, b), (0.75, 1.3), (26, 22, 160), lamp=TAIL, detail=False)
        a, b = sorted((side * w * 0.6, side * w * 0.88))
        k.quad("x", front + 0.004, (a, b), (0.6, 0.82), (222, 222, 215), lamp=HEAD, gloss=0.2, detail=False)
    plate(k, rear - 0.004, 0.42, rng)
    plate(k, front + 0.004, 0.42, rng)
    return Model(TRUCK_BUS, length, width, height, fixed(k.done()))
