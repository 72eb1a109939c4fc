"""What the driver's screen shows: the path ahead, boxes with what is known of them, warnings, the mode, some figures.

Everything scales with the picture's height. It draws into a copy; only small parts of it are blended, so that a frame
costs a few milliseconds at most.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.adas import Camera, Lane
from edgecnn.run.loop import FrameResult
from edgecnn.run.modes import Status
from edgecnn.scene import F32, Picture

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
AMBER: Colour = (20, 150, 250)
PURPLE: Colour = (190, 60, 170)
CALM: Colour = (150, 220, 90)  # the path with nothing in it to fear
LINE: Colour = (255, 235, 120)  # the lane's lines
INK: Colour = (25, 22, 20)
GREY: Colour = (120, 120, 120)
WHITE: Colour = (250, 250, 250)
FONT = cv2.FONT_HERSHEY_DUPLEX
PATH_M = (3.0, 45.0)  # from and to which distance the path is drawn
HALF_WIDTH_M = 1.0
NEAR_S = 15.0  # a longer time to collision is no news
BAR_S = 6.0  # the bar of a time to collision is empty at this, full at 0
DOUBT = 0.35  # a time to collision whose deviation is a larger share of it is no news either
BANNERS = {"fcw": ("FORWARD COLLISION", RED), "pedestrian": ("PEDESTRIAN", PURPLE), "headway": ("TOO CLOSE", AMBER)}


class Painter:
    """Draws frame after frame of one camera. `classes` are those of the model."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self._classes = tuple(name.replace("_", " ") for name in classes)
        self._corridor: NDArray[np.int32] | None = None
        self._seen: tuple[Any, ...] = ()  # the camera, size and lane that the corridor was made for

    def __call__(self, result: FrameResult, camera: Camera, status: Status) -> Picture:
        """The frame's picture (H, W, 3), drawn over in a copy."""
        picture = result.frame.bgr.copy()
        size = _Size(picture.shape[0])
        scene = result.scene
        if not result.whole:
            _searched(picture, result.searched, size)
        if status.monitoring:
            danger = bool({"fcw", "pedestrian"} & set(scene.on))
            free = float(result.tracks.xyxy[scene.lead, 3]) if scene.lead >= 0 else 0.0  # the path ends at the lead
            known = camera != Camera.assumed(picture.shape[1::-1]).fitted(picture.shape[1::-1])
            camera = camera.at_horizon(round(scene.horizon_px) if math.isfinite(scene.horizon_px) else math.nan)
            self._path(picture, camera, scene.lane, free, RED if danger else CALM, tint=known)
            if scene.lane is not None:
                _lane(picture, camera, scene.lane, scene.on, size)
        rows = np.argsort(result.tracks.xyxy[:, 3], kind="stable")  # the nearest last, on top
        for row in rows:
            self._box(picture, result, int(row), size, judged=status.monitoring)
        self._figures(picture, result, status, size)
        if status.monitoring:
            _departure(picture, scene.on, size)
            top = 0
            for kind, (text, colour) in BANNERS.items():
                if kind in scene.on:
                    top = _banner(picture, f"{text}{_when(result, kind)}", colour, top, size)
            if status.mode != "NORMAL":
                words = f"{status.mode}: {', '.join(status.causes)}"
                _chip(picture, words, (0, top + 3 * size.text_height), AMBER, INK, size)
        else:
            _banner(picture, "NOT MONITORING", INK, 0, size, ", ".join(status.causes) or status.mode)
            cv2.rectangle(picture, (0, 0), (picture.shape[1] - 1, picture.shape[0] - 1), RED, 3 * size.line)
        return picture

    def _path(
        self, picture: Picture, camera: Camera, lane: Lane | None, top: float, colour: Colour, *, tint: bool
    ) -> None:
        """The corridor ahead, below row `top`: two lines, and a tint where the camera is known and not assumed."""
        height, width = picture.shape[:2]
        if self._seen != (camera, height, width, lane, top):
            self._seen = (camera, height, width, lane, top)
            self._corridor = corridor(camera, width, height, lane, top)
        polygon = self._corridor
        if polygon is None:
            return
        left, top, right, bottom = _bounds(polygon, width, height)
        if right <= left or bottom <= top:
            return
        if tint:
            part = picture[top:bottom, left:right]
            wash = part.copy()
            cv2.fillPoly(wash, [polygon - (left, top)], colour)
            cv2.addWeighted(wash, 0.22, part, 0.78, 0, part)
        half = len(polygon) // 2
        for side in (polygon[:half], polygon[half:]):
            cv2.polylines(picture, [side], False, colour, max(1, height // 360), cv2.LINE_AA)

    def _box(self, picture: Picture, result: FrameResult, row: int, size: _Size, *, judged: bool) -> None:
        """A road user; `judged`: with what may be concluded of it."""
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
        lead = judged and row == scene.lead
        large = lead or scene.in_path[row] or right - left > size.text_height * len(name) // 2
        words = [f"{name} {tracks.id[row]}" if large else str(tracks.id[row])]
        if result.names and result.names[row]:
            words.append(result.names[row])
        if math.isfinite(scene.distance_m[row]):
            words.append(f"{scene.distance_m[row]:.0f} m")
        known = judged and scene.ttc_sigma_s[row] < DOUBT * scene.ttc_s[row]
        if scene.ttc_s[row] < NEAR_S and known:
            words.append(f"{scene.ttc_s[row]:.1f} s")
        _chip(picture, "  ".join(words), (left, top), colour, INK if colour != RED else WHITE, size)
        if scene.in_path[row] and known and scene.ttc_s[row] < BAR_S:
            _ttc_bar(picture, (left, right, bottom), float(scene.ttc_s[row]), size)
        if lead:
            _lead(picture, (left, right, bottom), scene.headway_s, size)

    def _figures(self, picture: Picture, result: FrameResult, status: Status, size: _Size) -> None:
        """Bottom left: the frame, its time and age, and why the detector looked, if it did."""
        state = result.invalid or (f"detect: {result.why}" if result.why else "follow")
        age = "" if math.isnan(status.age_s) else f"   age {1e3 * status.age_s:3.0f} ms"
        text = f"{result.frame.index:05d}   {status.ms:5.1f} ms{age}   {len(result.tracks):2d} tracks   {state}"
        height = picture.shape[0]
        dot = size.text_height
        box = _chip(picture, text, (0, height), INK, WHITE, size, indent=2 * dot)
        centre = (dot + size.pad // 2, (box[1] + box[3]) // 2)
        light = RED if result.invalid else CALM if result.why else GREY
        cv2.circle(picture, centre, dot // 2, light, -1, cv2.LINE_AA)


class _Size:
    """Line widths and text for a picture of this height."""

    def __init__(self, height: int) -> None:
        self.scale = min(max(height / 1300, 0.33), 1.5)
        self.line = max(1, round(height / 500))
        self.pad = max(2, round(height / 180))
        self.text_height = cv2.getTextSize("0", FONT, self.scale, 1)[0][1]


def corridor(
    camera: Camera, width: int, height: int, lane: Lane | None = None, top: float = 0.0
) -> NDArray[np.int32] | None:
    """The road that we are going to drive on, one car wide, as a polygon (N, 2) px: up its left side and down its right
    one, from row `top` on; bent with `lane` where both of its lines are known.

    None where the camera sees nothing of it. Flat ground as in Camera.ground, the other way round.
    """
    forward = np.geomspace(*PATH_M, 24)
    bend = lane.bend(forward) if lane is not None and lane.seen else np.zeros(24)
    middle = bend - camera.lateral_m
    sides = [on_picture(camera, forward, middle + sign * HALF_WIDTH_M) for sign in (-1, 1)]
    v = sides[0][:, 1]
    seen = (v >= top) & (v < 2 * height) & np.isfinite(v)
    if seen.sum() < 2:
        return None
    polygon = np.concatenate([sides[0][seen], sides[1][seen][::-1]])
    clipped: NDArray[np.int32] = np.clip(polygon, -4 * width, 5 * width).round().astype(np.int32)
    return clipped


def on_picture(camera: Camera, forward_m: NDArray[Any], right_m: NDArray[Any]) -> NDArray[np.float64]:
    """Road points (N,), (N,) m → (N, 2) px; nan where they lie behind the camera. The inverse of Camera.ground, with
    the lens's distortion by OpenCV's model."""
    cos, sin = math.cos(camera.yaw_rad), math.sin(camera.yaw_rad)
    ahead, right = forward_m * cos + right_m * sin, right_m * cos - forward_m * sin  # as the camera looks
    cos, sin = math.cos(camera.pitch_rad), math.sin(camera.pitch_rad)
    depth = ahead * cos + camera.height_m * sin
    depth = np.where(depth > 0.1, depth, np.nan)
    points = np.stack([right, camera.height_m * cos - ahead * sin], axis=-1) / depth[:, None]
    if any(camera.distortion):
        rays = np.concatenate([points, np.ones((len(points), 1))], axis=1)
        lens = np.array(camera.distortion)
        bent = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), np.eye(3), lens)[0]
        points = np.asarray(bent, np.float64).reshape(-1, 2)
    return np.asarray(points * (camera.fx, camera.fy) + (camera.cx, camera.cy), np.float64)


def _lane(picture: Picture, camera: Camera, lane: Lane, on: tuple[str, ...], size: _Size) -> None:
    """Both lines as far as they were seen; one that we are leaving the lane over is red and thick."""
    width = picture.shape[1]
    forward = np.geomspace(PATH_M[0], max(lane.reach_m, PATH_M[0] + 1), 12)
    for side_m, kind in ((lane.left_m, "ldw_left"), (lane.right_m, "ldw_right")):
        points = on_picture(camera, forward, side_m + lane.bend(forward))
        points = points[np.isfinite(points).all(axis=1)]
        if len(points) > 1:
            line = np.clip(points, -4 * width, 5 * width).round().astype(np.int32)
            colour, thick = (RED, 4 * size.line) if kind in on else (LINE, 2 * size.line)
            cv2.polylines(picture, [line], False, colour, thick, cv2.LINE_AA)


def _departure(picture: Picture, on: tuple[str, ...], size: _Size) -> None:
    """A bar of arrows along the edge that we are drifting to."""
    height, width = picture.shape[:2]
    broad = max(8, height // 14)
    for kind, left, sign in (("ldw_left", 0, -1), ("ldw_right", width - broad, 1)):
        if kind not in on:
            continue
        cv2.rectangle(picture, (left, height // 4), (left + broad, 3 * height // 4), AMBER, -1)
        reach = sign * broad // 4
        for y in np.linspace(0.32, 0.68, 5) * height:
            x, y, arm = left + broad // 2 - reach // 2, round(y), broad // 3
            arrow = np.array([(x, y - arm), (x + reach, y), (x, y + arm)], np.int32)
            cv2.polylines(picture, [arrow], False, INK, 2 * size.line, cv2.LINE_AA)
        words = "LANE LEFT" if sign < 0 else "LANE RIGHT"
        corner = (left + broad if sign < 0 else 0, height // 4 + 3 * size.text_height)
        _chip(
            picture, words, corner if sign < 0 else (width, corner[1]), AMBER, INK, size, inset=0 if sign < 0 else broad
        )


def _searched(picture: Picture, regions: F32, size: _Size) -> None:
    """Where the detector looked in this frame (N, 4) px, faintly."""
    for left, top, right, bottom in regions.round().astype(int).tolist():
        cv2.rectangle(picture, (left, top), (right, bottom), (200, 200, 200), size.line)


def _ttc_bar(picture: Picture, box: tuple[int, int, int], ttc_s: float, size: _Size) -> None:
    """Below the box (left, right, bottom): the fuller and redder, the nearer the collision."""
    left, right, bottom = box
    short = max(0, 16 * size.pad - (right - left)) // 2
    left, right = left - short, right + short
    top, thick = bottom + size.line + 1, max(3, size.pad + size.line)
    share = min(max(1 - ttc_s / BAR_S, 0.0), 1.0)
    colour = RED if share > 0.5 else AMBER if share > 0.25 else CALM
    cv2.rectangle(picture, (left, top), (right, top + thick), INK, -1)
    cv2.rectangle(picture, (left, top), (left + round(share * (right - left)), top + thick), colour, -1)


def _lead(picture: Picture, box: tuple[int, int, int], headway_s: float, size: _Size) -> None:
    """An arrow at the foot of the car that we follow, and how long until we are where it is now."""
    left, right, bottom = box
    centre, arm = (left + right) // 2, max(4, 2 * size.pad)
    tip = bottom + size.line + 2 * size.pad
    cv2.fillPoly(
        picture, [np.array([(centre, tip), (centre - arm, tip + arm), (centre + arm, tip + arm)], np.int32)], WHITE
    )
    if math.isfinite(headway_s):
        _chip(picture, f"{headway_s:.1f} s", (centre + arm + size.pad, tip + 2 * arm), INK, WHITE, size)


def _when(result: FrameResult, kind: str) -> str:
    scene = result.scene
    if kind == "headway":
        return f" {scene.headway_s:.1f} s" if math.isfinite(scene.headway_s) else ""
    soonest = float(scene.ttc_s[scene.warned].min()) if scene.warned.any() else math.inf
    return f" {soonest:.1f} s" if math.isfinite(soonest) else ""


def _banner(picture: Picture, text: str, colour: Colour, top: int, size: _Size, below: str = "") -> int:
    """A warning across the picture from row `top` on, `below` in small letters under it; → the row where it ends."""
    scale, thick = size.scale * 2, size.line + 1
    (width, height), _ = cv2.getTextSize(text, FONT, scale, thick)
    if width > 0.96 * picture.shape[1]:
        scale *= 0.96 * picture.shape[1] / width
        (width, height), _ = cv2.getTextSize(text, FONT, scale, thick)
    more = 2 * size.text_height if below else 0
    end = top + 2 * height + 2 + more
    cv2.rectangle(picture, (0, top), (picture.shape[1], end - 1), colour, -1)  # 100 times faster than a slice
    at = ((picture.shape[1] - width) // 2, top + height + height // 2)
    cv2.putText(picture, text, at, FONT, scale, WHITE, thick, cv2.LINE_AA)
    if below:
        (width, _), _ = cv2.getTextSize(below, FONT, size.scale, 1)
        at = (max(0, (picture.shape[1] - width) // 2), top + 2 * height + size.text_height)
        cv2.putText(picture, below, at, FONT, size.scale, WHITE, 1, cv2.LINE_AA)
    return end + size.line


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
    indent: int = 0,
    inset: int = 0,
) -> tuple[int, int, int, int]:
    """Text on a coloured ground whose lower left is `corner`, moved into the picture less `inset` px at its right; →
    left, top, right, bottom."""
    (text_width, text_height), _ = cv2.getTextSize(text, FONT, size.scale, 1)
    width, height = text_width + 2 * size.pad + indent, text_height + 2 * size.pad
    left = min(max(corner[0], 0), max(0, picture.shape[1] - inset - width))
    top = min(max(corner[1] - height, 0), max(0, picture.shape[0] - height))
    cv2.rectangle(picture, (left, top), (left + width - 1, top + height - 1), ground, -1)
    at = (left + size.pad + indent, top + height - size.pad)
    cv2.putText(picture, text, at, FONT, size.scale, ink, 1, cv2.LINE_AA)
    return left, top, left + width, top + height
