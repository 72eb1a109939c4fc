"""Pictures of trees and house fronts, painted once and then laid into scenes."""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np

from edgecnn.data.simulator.light import noise_tile
from edgecnn.scene import Picture

SPRITE_H, SPRITE_W = 256, 208
CONIFER, BUSH = (3, 7, 11), range(12, 16)  # looks


@functools.cache
def tree_sprite(look: int, halvings: int = 0) -> Picture:
    """(256, 208, 4) a trunk and a crown of clumps of leaves, or a bush; halved for use far away."""
    if halvings:
        finer = tree_sprite(look, halvings - 1)
        return np.asarray(cv2.resize(finer, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)
    rng = np.random.default_rng(1000 + look)
    sprite = np.zeros((SPRITE_H, SPRITE_W, 4), np.uint8)
    green = np.array((34, 70, 52)) * rng.uniform(0.7, 1.25) + rng.uniform(-8, 14, 3)
    sprite[..., :3] = np.clip(green * 0.6, 0, 255)
    middle = SPRITE_W / 2
    if look not in BUSH:
        for foot, top in (
            ((middle - 7, 256), (middle - 3, 90)),
            ((middle + 6, 256), (middle + 26, 80)),
            ((middle, 200), (middle - 30, 96)),
        ):
            cv2.line(
                sprite, (int(foot[0]), int(foot[1])), (int(top[0]), int(top[1])), (30, 40, 50, 255), 9, cv2.LINE_AA
            )
    clumps = []
    for _ in range(75):
        if look in CONIFER:
            y = rng.uniform(10, 232)
            x, size = middle + rng.uniform(-1, 1) * (4 + 70 * (y - 8) / 232), 9.0
        else:
            angle, r = rng.uniform(0, 2 * math.pi), rng.uniform() ** 0.5
            y0, ry = (176, 66) if look in BUSH else (88, 74)
            x, y, size = middle + 86 * r * math.cos(angle), y0 + ry * r * math.sin(angle), 14.0
        clumps.append((y, x, size))
    for y, x, size in sorted(clumps, reverse=True) if look in CONIFER else clumps:
        lit = 0.62 + 0.5 * (1 - y / 256) + 0.18 * (x - middle) / middle + rng.normal(0, 0.08)
        leaves = rng.normal(0, size / 1.7, (46, 2)) * (1.0, 0.75)
        for dx, dy in leaves[np.argsort(-leaves[:, 1])]:
            shade = lit - 0.016 * dy + rng.normal(0, 0.1)
            colour = (*np.clip(green * shade * 1.3, 4, 235).tolist(), 255.0)
            cv2.circle(sprite, (int(x + dx), int(y + dy)), int(rng.integers(1, 5)), colour, -1, cv2.LINE_AA)
    return sprite


@functools.cache
def facade(look: int) -> Picture:
    """(128, 192, 4) a house front: walls, rows of windows, a shop or doors at street level."""
    rng = np.random.default_rng(2000 + look)
    wall = np.array(
        ((150, 170, 190), (95, 110, 150), (180, 190, 196), (120, 125, 130), (150, 185, 205), (90, 100, 115))[look % 6],
        float,
    ) * rng.uniform(0.75, 1.1)
    front = np.clip(wall + noise_tile(3)[:128, :192, None] * 5, 0, 255).astype(np.uint8)
    floors, columns = int(rng.integers(2, 6)), int(rng.integers(4, 9))
    fh, cw = 118 / floors, 192 / columns
    for f in range(floors):
        for c in range(columns):
            x, y = int(c * cw + cw * 0.24), int(8 + f * fh + fh * 0.2)
            w, h = int(cw * rng.uniform(0.48, 0.56)), int(fh * 0.58)
            ground = f == floors - 1 and look % 2 == 0
            if ground:
                x, w, h = int(c * cw + 2), int(cw - 4), int(fh * 0.75)
            glass = np.array((78, 68, 60)) * rng.uniform(0.5, 1.7)
            cv2.rectangle(front, (x - 1, y - 1), (x + w + 1, y + h + 1), tuple(wall * 0.72), -1)
            cv2.rectangle(front, (x, y), (x + w, y + h), tuple(glass), -1)
            if not ground:
                cv2.line(front, (x + w // 2, y), (x + w // 2, y + h), tuple(wall * 0.9), 1)
                cv2.line(front, (x - 2, y + h + 2), (x + w + 2, y + h + 2), tuple(np.minimum(wall * 1.15, 255)), 1)
    if look % 2 == 0:
        sign = rng.uniform(40, 210, 3)
        y = int(8 + (floors - 1) * fh)
        cv2.rectangle(front, (0, y - 3), (192, y + 4), tuple(sign), -1)
    cv2.rectangle(front, (0, 0), (192, 5), tuple(wall * 0.6), -1)
    return np.dstack((front, np.full(front.shape[:2], 255, np.uint8)))
