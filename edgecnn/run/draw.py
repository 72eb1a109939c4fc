"""What the driver's screen shows: the path ahead, boxes with what is known of them, a warning, and a line of figures.

Everything scales with the picture's height. It draws into the picture it is given.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.adas import Camera
from edgecnn.run.loop import FrameResult
from edgecnn.scene import Picture

Colour = tuple[int, int, int]  # BGR

PALETTE: tuple[Colour, ...] = (
    (235, 190, 60),  # sky blue
    (80, 200, 255),  # amber
    (200, 130, 255),  # pink
    (140, 230, 120),  # green
    (255, 160, 170),  # lavender
    (90, 150, 255),  # orange
    (220, 230, 110),  # aqua
    (120, 240, 230),  # yellow
)
RED: Colour = (48, 48, 235)
CALM: Colour = (150, 220, 90)  # the path with nothing in it to fear
INK: Colour = (25, 22, 20)
WHITE: Colour = (250, 250, 250)
FONT = cv2.FONT_HERSHEY_DUPLEX
PATH_M = (3.0, 45.0)  # from and to which distance the path is drawn
HALF_WIDTH_M = 1.0
NEAR_S = 15.0  # a longer time to collision is no news
DOUBT = 0.35  # nor is one whose deviation is a larger share of it


class Painter:
    """Draws frame after frame of one camera. `classes` are those of the model."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self._classes = tuple(name.replace("_", " ") for name in classes)
        self._corridor: NDArray[np.int32] | None = None
        self._seen: tuple[Any, ...] = ()  # the camera and size that the corridor was made for

    def __call__(self, result: FrameResult, camera: Camera, *, ms: float) -> Picture:
        """The frame's picture (H, W, 3), drawn over in a copy. `ms`: time that this frame took."""
        picture = result.frame.bgr.copy()
        size = _Size(picture.shape[0])
        danger = bool(result.scene.warned.any())
        self._path(picture, camera, RED if danger else CALM)
        rows = np.argsort(result.tracks.xyxy[:, 3], kind="stable")  # the nearest last, on top
        for row in rows:
            self._box(picture, result, int(row), size)
        self._figures(picture, result, ms, size)
        if danger:
            self._banner(picture, float(result.scene.ttc_s[result.scene.warned].min()), size)
        return picture

    def _path(self, picture: Picture, camera: Camera, colour: Colour) -> None:
        """The corridor straight ahead: two lines, and a flat tint where the camera is known and not assumed."""
        height, width = picture.shape[:2]
        if self._seen != (camera, height, width):
            self._seen = (camera, height, width)
            self._corridor = corridor(camera, width, height)
        polygon = self._corridor
        if polygon is None:
            return
        left, top, right, bottom = _bounds(polygon, width, height)
        if right <= left or bottom <= top:
            return
        if camera != Camera.assumed((width, height)):
            part = picture[top:bottom, left:right]
            tint = part.copy()
            cv2.fillPoly(tint, [polygon - (left, top)], colour)
            cv2.addWeighted(tint, 0.22, part, 0.78, 0, part)
        half = len(polygon) // 2
        for side in (polygon[:half], polygon[half:]):
            cv2.polylines(picture, [side], False, colour, max(1, height // 360), cv2.LINE_AA)

    def _box(self, picture: Picture, result: FrameResult, row: int, size: _Size) -> None:
        tracks, scene = result.tracks, result.scene
        left, top, right, bottom = (round(float(v)) for v in tracks.xyxy[row])
        colour = RED if scene.warned[row] else PALETTE[int(tracks.label[row]) % len(PALETTE)]
        line = size.line * 2 if scene.in_path[row] else size.line
        cv2.rectangle(picture, (left, top), (right, bottom), colour, size.line, cv2.LINE_AA)
        arm = max(3, min(right - left, bottom - top) // 4)
        for x, dx in ((left, arm), (right, -arm)):
            for y, dy in ((top, arm), (bottom, -arm)):
                corner = np.array([(x + dx, y), (x, y), (x, y + dy)], np.int32)
                cv2.polylines(picture, [corner], False, colour, line + 1, cv2.LINE_AA)
        name = self._classes[tracks.label[row]]
        large = scene.in_path[row] or right - left > size.text_height * len(name) // 2
        words = [f"{name} {tracks.id[row]}" if large else str(tracks.id[row])]
        if result.names and result.names[row]:
            words.append(result.names[row])
        if math.isfinite(scene.distance_m[row]):
            words.append(f"{scene.distance_m[row]:.0f} m")
        if scene.ttc_s[row] < NEAR_S and scene.ttc_sigma_s[row] < DOUBT * scene.ttc_s[row]:
            words.append(f"{scene.ttc_s[row]:.1f} s")
        _chip(picture, "  ".join(words), (left, top), colour, INK if colour != RED else WHITE, size)

    def _figures(self, picture: Picture, result: FrameResult, ms: float, size: _Size) -> None:
        """Bottom left: the frame, its time, and why the detector looked, if it did."""
        state = f"detect: {result.why}" if result.why else "follow"
        text = f"{result.frame.index:05d}   {ms:5.1f} ms   {len(result.tracks):2d} tracks   {state}"
        height = picture.shape[0]
        dot = size.text_height
        box = _chip(picture, text, (0, height), INK, WHITE, size, alpha=0.6, indent=2 * dot)
        centre = (dot + size.pad // 2, (box[1] + box[3]) // 2)
        cv2.circle(picture, centre, dot // 2, CALM if result.why else (120, 120, 120), -1, cv2.LINE_AA)

    def _banner(self, picture: Picture, ttc_s: float, size: _Size) -> None:
        """The warning, across the top."""
        when = f" {ttc_s:.1f} s" if math.isfinite(ttc_s) else ""
        text, scale, thick = f"FORWARD COLLISION{when}", size.scale * 2, size.line + 1
        (width, height), _ = cv2.getTextSize(text, FONT, scale, thick)
        strip = picture[: 2 * height + 2]
        cv2.addWeighted(strip, 0.15, np.full_like(strip, RED), 0.85, 0, strip)
        at = ((picture.shape[1] - width) // 2, height + height // 2)
        cv2.putText(picture, text, at, FONT, scale, WHITE, thick, cv2.LINE_AA)


class _Size:
    """Line widths and text for a picture of this height."""

    def __init__(self, height: int) -> None:
        self.scale = min(max(height / 1300, 0.33), 1.5)
        self.line = max(1, round(height / 500))
        self.pad = max(2, round(height / 180))
        self.text_height = cv2.getTextSize("0", FONT, self.scale, 1)[0][1]


def corridor(camera: Camera, width: int, height: int) -> NDArray[np.int32] | None:
    """The road straight ahead, one car wide, as a polygon (N, 2) px: up its left side and down its right one.

    None where the camera sees nothing of it. Flat ground as in Camera.ground, the other way round.
    """
    forward = np.geomspace(*PATH_M, 12)
    cos, sin = math.cos(camera.pitch_rad), math.sin(camera.pitch_rad)
    depth = forward * cos + camera.height_m * sin
    v = camera.cy + camera.fy * (camera.height_m * cos - forward * sin) / depth
    sides = [camera.cx + sign * camera.fx * HALF_WIDTH_M / depth for sign in (-1, 1)]
    seen = (v >= 0) & (v < 2 * height) & (depth > 0)
    if seen.sum() < 2:
        return None
    up = np.stack([sides[0], v], 1)[seen]
    down = np.stack([sides[1], v], 1)[seen][::-1]
    polygon: NDArray[np.int32] = np.concatenate([up, down]).round().astype(np.int32)
    return polygon


def _bounds(polygon: NDArray[np.int32], width: int, height: int) -> tuple[int, int, int, int]:
    (left, top), (right, bottom) = polygon.min(0), polygon.max(0)
    return max(0, int(left)), max(0, int(top)), min(width, int(right) + 1), min(height, int(bottom) + 1)


def _chip(
    picture: Picture,
    text: str,
    corner: tuple[int, int],
    ground: Colour,
    ink: Colour,
    size: _Size,
    *,
    alpha: float = 0.85,
    indent: int = 0,
) -> tuple[int, int, int, int]:
    """Text on a coloured ground whose lower left is `corner`, moved into the picture; → left, top, right, bottom."""
    (text_width, text_height), _ = cv2.getTextSize(text, FONT, size.scale, 1)
    width, height = text_width + 2 * size.pad + indent, text_height + 2 * size.pad
    left = min(max(corner[0], 0), max(0, picture.shape[1] - width))
    top = min(max(corner[1] - height, 0), max(0, picture.shape[0] - height))
    part = picture[top : top + height, left : left + width]
    cv2.addWeighted(part, 1 - alpha, np.full_like(part, ground), alpha, 0, part)
    at = (left + size.pad + indent, top + height - size.pad)
    cv2.putText(picture, text, at, FONT, size.scale, ink, 1, cv2.LINE_AA)
    return left, top, left + width, top + height
