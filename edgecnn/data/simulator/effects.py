"""What objects do to the light around them: shadows on the ground, mirror images on a wet road, halos of lamps."""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np

from edgecnn.data.simulator.camera import View
from edgecnn.data.simulator.light import Light
from edgecnn.data.simulator.paint import Patch, Pose, Thing, blend
from edgecnn.data.simulator.shapes import BRAKE, HEAD, TAIL
from edgecnn.scene import Picture


def shadows(picture: Picture, view: View, light: Light, things: list[Thing], where: list[Pose]) -> None:
    """Dark ground under every object, and its cast shadow in sunshine, in place."""
    mask = np.zeros(picture.shape[:2], np.uint8)
    sunny = sum(light.sun_gain) > 0.6 and light.sun[2] > 0.1
    kept = [(t, p) for t, p in zip(things, where, strict=True) if p.origin[0] > t.model.length / 2 + 2.5]
    if not kept:
        return
    size = np.array([(t.model.length / 2 + 0.05, t.model.width / 2 + 0.05, 0) for t, _ in kept])
    corners = np.array([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)]) * size[:, None]  # (N, 4, 3)
    base = corners @ np.stack([p.matrix for _, p in kept]) + np.stack([p.origin for _, p in kept])[:, None]
    foot = (view.project(base.reshape(-1, 3)) * 16 - 8).astype(np.int32).reshape(-1, 4, 2)
    if sunny:
        reach = np.minimum([t.model.height * 0.9 / light.sun[2] for t, _ in kept], 6.0)[:, None, None]
        cast = base - reach * (light.sun[0], light.sun[1], 0)
        seen = cast[..., 0].min(1) > 1.0
        cast[..., 0] = np.maximum(cast[..., 0], 1.0)
        tip = (view.project(cast.reshape(-1, 3)) * 16 - 8).astype(np.int32).reshape(-1, 4, 2)
        for i in np.flatnonzero(seen):
            cv2.fillConvexPoly(mask, cv2.convexHull(np.concatenate((foot[i], tip[i]))), 120, cv2.LINE_AA, 4)
    for (thing, _), points in zip(kept, foot, strict=True):
        cv2.fillConvexPoly(mask, points, 200 if thing.model.label < 2 else 110, cv2.LINE_AA, 4)
    rows = np.flatnonzero(mask.any(1))
    if not len(rows):
        return
    part = slice(max(int(rows[0]) - 4, 0), int(rows[-1]) + 5)
    strength = 0.75 if sunny else 0.62 if light.headlights < 0.5 else 0.4
    keep = cv2.convertScaleAbs(cv2.GaussianBlur(mask[part], (0, 0), 1.6), alpha=-strength, beta=255)
    np.copyto(picture[part], cv2.multiply(picture[part], cv2.merge((keep, keep, keep)), scale=1 / 255))


def mirror(picture: Picture, patch: Patch, light: Light) -> None:
    """What a wet road shows of an object: its blurred, upturned picture below it, in place."""
    bottom = min(math.ceil(patch.box[3]), picture.shape[0])
    height = min(patch.bgra.shape[0], picture.shape[0] - bottom)
    if light.wet < 0.12 or height < 3:
        return
    flipped = np.ascontiguousarray(patch.bgra[::-1][:height])
    flipped = np.asarray(cv2.blur(flipped, (3, max(3, height // 3))), np.uint8)
    fade = np.linspace(0.55, 0.1, height, dtype=np.float32)[:, None] * light.wet
    flipped[..., 3] = (flipped[..., 3] * fade).astype(np.uint8)
    blend(picture, patch.left, bottom, flipped)


def glow(picture: Picture, view: View, light: Light, thing: Thing, pose: Pose) -> None:
    """Halos around burning lamps, in place."""
    if light.headlights < 0.12 and not thing.brake:
        return
    lamps = thing.model.pose(thing.phase).lamps
    for kind in (TAIL, BRAKE) if pose.cos > 0 else (HEAD,):
        spots = lamps.get(kind)
        if spots is None or not len(spots) or (kind == BRAKE and not thing.brake):
            continue
        axes = pose.axes(view, spots)
        if axes[:, 0].min() < 2 or light.lost(axes[0, 0]) > 0.9:
            continue
        strong = kind == HEAD
        size = (0.5 if strong else 0.22) * (1.6 if thing.brake else 1) * (0.4 + 0.6 * light.headlights) * view.camera.fx
        strength = (0.95 if strong else 0.7) * max(light.headlights, 0.3)
        for (u, v), z in zip(view.pixels(axes).tolist(), axes[:, 0].tolist(), strict=True):
            if size / z > 1:
                radius = round(min(size / z + (3.5 if strong else 1.5), 90.0))
                _add(picture, round(u) - radius, round(v) - radius, _halo(radius, strong, round(strength, 1)))


def _add(picture: Picture, left: int, top: int, light: Picture) -> None:
    """Add light to a region, cut at the frame, in place."""
    x, y = max(left, 0), max(top, 0)
    right, bottom = min(left + light.shape[1], picture.shape[1]), min(top + light.shape[0], picture.shape[0])
    if right > x and bottom > y:
        region = picture[y:bottom, x:right]
        np.copyto(region, cv2.add(region, light[y - top : bottom - top, x - left : right - left]))


@functools.lru_cache(400)
def _halo(radius: int, white: bool, strength: float) -> Picture:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    fall = np.clip(1 - np.hypot(x, y) / (radius + 0.5), 0, 1) ** 2.2 * strength
    return np.asarray(fall[..., None] * ((235, 242, 255) if white else (45, 40, 255)), np.uint8)
