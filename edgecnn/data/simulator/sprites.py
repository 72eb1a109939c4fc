"""Small road users are drawn once for each way they are seen and then only scaled: most of a street is far away."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from edgecnn.data.simulator.camera import Camera, Profile, View
from edgecnn.data.simulator.light import Light
from edgecnn.data.simulator.paint import Patch, Pose, Thing, draw, extent, poses

SIZES = (12, 24, 48)  # px, heights at which sprites are drawn; a larger object is drawn itself
STEP = math.radians(5)  # between the angles from which sprites show an object
_STAGE = 640  # px, picture in which a sprite is drawn


@dataclass
class Sprites:
    """The sprites of one drive: its light and camera stay the same."""

    camera: Camera
    light: Light
    _made: dict[tuple[int, int, int, bool], Patch | None] = field(default_factory=dict)

    def draw(self, view: View, thing: Thing, pose: Pose) -> Patch | None:
        """As paint.draw: the box is exact, the pixels are those of the nearest sprite laid into it."""
        forward = float(pose.origin[0])
        tall = thing.model.height * self.camera.fx / max(forward, 1.0)
        if tall > SIZES[-1] or self.light.headlights > 0.5:  # headlights light everybody differently
            return draw(view, self.light, thing, pose)
        box = extent(view, thing, pose)
        if box is None or box[2] - box[0] < 1 or box[3] - box[1] < 1:
            return None
        left, top = max(math.floor(box[0]), 0), max(math.floor(box[1]), 0)
        width = min(math.ceil(box[2]), self.camera.width) - left
        height = min(math.ceil(box[3]), self.camera.height) - top
        if width < 2 or height < 2:
            return None
        turned = math.atan2(pose.sin, pose.cos) - math.atan2(pose.origin[1], forward)
        sprite = self._sprite(thing, round(turned / STEP), next(size for size in SIZES if size >= tall))
        if sprite is None:
            return None
        kx = (sprite.box[2] - sprite.box[0]) / (box[2] - box[0])
        ky = (sprite.box[3] - sprite.box[1]) / (box[3] - box[1])
        matrix = np.array(
            [
                [kx, 0, (left + 0.5 - box[0]) * kx + sprite.box[0] - sprite.left - 0.5],
                [0, ky, (top + 0.5 - box[1]) * ky + sprite.box[1] - sprite.top - 0.5],
            ]
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        bgra = cv2.warpAffine(sprite.bgra, matrix, (width, height), flags=flags)
        return Patch(box, left, top, self.light.veiled(bgra, self.light.lost(forward)))

    def _sprite(self, thing: Thing, angle: int, size: int) -> Patch | None:
        shape = thing.model.pose(thing.phase)  # models and poses live in a stock, so their identity is their name
        key = (id(shape), angle % round(2 * math.pi / STEP), size, thing.brake)
        if key not in self._made:
            focal, middle = self.camera.fx, _STAGE / 2
            stage = Camera(focal, focal, middle, middle, self.camera.height_m, 0.0, _STAGE, _STAGE)
            clear = replace(self.light, haze_m=1e9)
            level = View(stage, Profile((), ()), 0.0, 0.0)
            there = replace(thing, s=thing.model.height * focal / size, d=0.0, yaw=angle * STEP)
            self._made[key] = draw(level, clear, there, poses(level, [there])[0])
        return self._made[key]
