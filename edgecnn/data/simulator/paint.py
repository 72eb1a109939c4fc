"""Draw one object: project its shape, shade it, and lay it over the picture and the id buffer."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.data.simulator.bodywork import Model
from edgecnn.data.simulator.camera import NEAR_M, View, clip_near
from edgecnn.data.simulator.light import Light, noise_tile
from edgecnn.data.simulator.shapes import BRAKE, HEAD, TAIL, Figure, Mesh
from edgecnn.scene import Picture

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Thing:
    """A road user at one instant."""

    id: int  # from 1
    model: Model
    s: float  # m along the road, of its middle
    d: float  # m right of the reference line
    yaw: float  # rad against the road; 0 = facing away from us, pi = oncoming
    speed: float  # m/s along the road, negative = towards us
    phase: float = 0.0  # of its gait, rad
    brake: bool = False

    def near(self) -> float:
        """s of its nearest point."""
        c, s = abs(math.cos(self.yaw)), abs(math.sin(self.yaw))
        return self.s - (c * self.model.length + s * self.model.width) / 2


@dataclass(frozen=True)
class Patch:
    """An object as it looks: its box and its pixels inside the frame."""

    box: tuple[float, float, float, float]  # px, unclipped
    left: int
    top: int
    bgra: Picture  # (h, w, 4)


@dataclass(frozen=True)
class Pose:
    """Local metres → world metres."""

    origin: F64
    cos: float
    sin: float
    grade: float

    @functools.cached_property
    def matrix(self) -> F64:
        """Row vectors: world = local @ matrix + origin. On a grade, z rises with x."""
        c, s, g = self.cos, self.sin, self.grade
        return np.array(((c, s, g * c), (-s, c, -g * s), (0, 0, 1)))

    def world(self, local: F32) -> F64:
        return np.asarray(local @ self.matrix + self.origin)

    def axes(self, view: View, local: F32) -> F64:
        """Local → camera axes in one step."""
        turn, shift = view.to_axes
        return np.asarray(local @ (self.matrix @ turn).astype(np.float32) + (self.origin @ turn + shift))

    def local(self, direction: tuple[float, float, float] | F64) -> F32:
        """A world direction in local axes."""
        x, y, z = direction
        return np.array((x * self.cos + y * self.sin, y * self.cos - x * self.sin, z), np.float32)


def poses(view: View, things: list[Thing]) -> list[Pose]:
    """Where all objects stand, in one go."""
    s, d, yaw = np.array([(t.s, t.d, t.yaw) for t in things]).reshape(-1, 3).T
    x = s - view.s
    angle = yaw + view.profile.heading(view.s, x) - view.yaw
    columns = (view.place(s, d), np.cos(angle).tolist(), np.sin(angle).tolist(), view.profile.grade(view.s, x).tolist())
    return [Pose(*row) for row in zip(*columns, strict=True)]


_CIRCLE = np.stack((np.cos(np.linspace(0, 2 * np.pi, 13)[:-1]), np.sin(np.linspace(0, 2 * np.pi, 13)[:-1])), 1)
_SHIFT = 4


def _canvas(
    box: tuple[float, float, float, float], view: View, fill: NDArray[np.float64]
) -> tuple[Picture, int, int, int] | None:
    """An empty canvas over the part of the box inside the frame: pixels, left, top, supersampling."""
    cam = view.camera
    left, top = max(math.floor(box[0]) - 1, 0), max(math.floor(box[1]) - 1, 0)
    right, bottom = min(math.ceil(box[2]) + 1, cam.width), min(math.ceil(box[3]) + 1, cam.height)
    if right - left < 2 or bottom - top < 2:
        return None
    height = box[3] - box[1]
    ss = 4 if height < 28 else 3 if height < 60 else 2 if height < 130 else 1
    pixel = np.append(np.clip(fill, 0, 255), 0).astype(np.uint8).view(np.uint32)
    canvas = np.full(((bottom - top) * ss, (right - left) * ss), pixel[0], np.uint32)
    return canvas.view(np.uint8).reshape(*canvas.shape, 4), left, top, ss


def _fixed(points: F64, left: int, top: int, ss: int) -> NDArray[np.int32]:
    """Frame px → canvas px in fixed point; OpenCV's pixel centres lie on integers."""
    p = (points - (left, top)) * ss - 0.5
    return np.asarray(np.clip(p * (1 << _SHIFT), -(1 << 24), 1 << 24).round(), np.int32)


def _box(points: F64) -> tuple[float, float, float, float]:
    low, high = points.min(0), points.max(0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def draw(view: View, light: Light, thing: Thing, pose: Pose) -> Patch | None:
    """The patch of one object, or None where it is behind the camera or outside the frame."""
    shape = thing.model.pose(thing.phase)
    distance = float(max(pose.origin[0], 1.0))
    if isinstance(shape, Mesh):
        painted = _draw_mesh(view, light, thing, pose, shape, distance)
    else:
        painted = _draw_figure(view, light, pose, shape, distance)
    if painted is None:
        return None
    box, canvas, left, top, ss = painted
    if ss > 1:
        size = canvas.shape[1] // ss, canvas.shape[0] // ss
        canvas = np.asarray(cv2.resize(canvas, size, interpolation=cv2.INTER_AREA), np.uint8)
    if box[3] - box[1] > 40:
        _weather(canvas, box, left, top, thing.id)
    return Patch(box, left, top, canvas)


def _weather(canvas: Picture, box: tuple[float, float, float, float], left: int, top: int, seed: int) -> None:
    """Uneven reflections and dirt, darker towards the ground, in place."""
    h, w = canvas.shape[:2]
    y = (np.arange(h) + top - box[1]) / (box[3] - box[1])
    column = (1.06 - 0.3 * np.clip(y, 0, 1) ** 2.2).astype(np.float32)
    r = seed * 37 % 400
    spots = cv2.resize(noise_tile(2)[r : r + 96, r : r + 96], (w, h), interpolation=cv2.INTER_LINEAR)
    gain = np.clip((column[:, None] * (1 + 0.05 * spots)) * 128, 0, 255).astype(np.uint8)
    canvas[..., :3] = cv2.multiply(canvas[..., :3], cv2.merge((gain, gain, gain)), scale=1 / 128)


_Painted = tuple[tuple[float, float, float, float], Picture, int, int, int]


def _lamp_colour(kind: int, thing: Thing, light: Light) -> F64 | None:
    """Colour of a burning lamp; None = it is off."""
    on = light.headlights > 0.12
    if kind == HEAD and on:
        return np.array((250.0, 252, 255))
    if kind in (TAIL, BRAKE) and thing.brake:
        return np.array((70.0, 60, 255))
    return np.array((40.0, 30, 215)) if kind == TAIL and on else None


def _outside(box: tuple[float, float, float, float], view: View) -> bool:
    return box[2] <= 0 or box[3] <= 0 or box[0] >= view.camera.width or box[1] >= view.camera.height


def _draw_mesh(view: View, light: Light, thing: Thing, pose: Pose, mesh: Mesh, distance: float) -> _Painted | None:
    axes = pose.axes(view, mesh.verts)
    start = mesh.start
    if axes[:, 0].max() <= NEAR_M:
        return None
    if axes[:, 0].min() <= NEAR_M:
        cut = [clip_near(axes[a:b]) for a, b in pairwise(start)]
        axes, start = np.concatenate(cut), np.cumsum([0] + [len(c) for c in cut])
    uv = view.pixels(axes)
    box = _box(uv)
    if _outside(box, view):
        return None
    eye = pose.local(np.array((0, 0, view.camera.height_m + view.lift)) - pose.origin)
    seen = mesh.normal @ eye > mesh.offset
    lost = light.lost(distance)
    beam = light.beam(distance, float(pose.origin[1]))
    cosines = mesh.normal @ np.stack((pose.local(light.sun), pose.local((-1, 0, 0))), 1)
    colour = light.shade(mesh.albedo, mesh.normal[:, 2], cosines[:, 0], cosines[:, 1], mesh.gloss, beam)
    colour = np.clip(colour * (1 - lost) + light.veil * lost, 0, 255)
    for face, kind in mesh.lit:
        lit = _lamp_colour(kind, thing, light)
        if lit is not None:
            colour[face] = lit * (1 - lost * 0.5) + light.veil * (lost * 0.5)
    prepared = _canvas(box, view, colour.mean(0) * 0.6)
    if prepared is None:
        return None
    canvas, left, top, ss = prepared
    points = _fixed(uv, left, top, ss)
    if box[3] - box[1] < 26:
        seen &= ~mesh.detail
    depth = ((mesh.part_centre - eye) ** 2).sum(1)
    rank = np.empty(len(depth), np.int64)
    rank[np.lexsort((-depth, mesh.part_layer))] = np.arange(len(depth))
    faces = np.flatnonzero(seen)
    faces = faces[np.argsort(rank[mesh.part[faces]], kind="stable")]
    bgra = np.column_stack((colour, np.full(len(colour), 255.0))).tolist()
    first = start.tolist()
    for f in faces.tolist():
        if first[f + 1] - first[f] > 2:
            cv2.fillConvexPoly(canvas, points[first[f] : first[f + 1]], bgra[f], cv2.LINE_AA, _SHIFT)
    return box, canvas, left, top, ss


def _draw_figure(view: View, light: Light, pose: Pose, figure: Figure, distance: float) -> _Painted | None:
    axes = pose.axes(view, figure.centre)
    if axes[:, 0].min() <= NEAR_M + 0.3:
        return None
    uv = view.pixels(axes)
    radius = figure.radius * view.camera.fx / axes[:, 0]
    rim = uv[:, None] + radius[:, None, None] * _CIRCLE
    rings = [
        (view.pixels(pose.axes(view, points)), width * view.camera.fx / distance, c)
        for points, width, c in figure.rings
    ]
    every = [rim.reshape(-1, 2)] + [np.concatenate((p - w / 2, p + w / 2)) for p, w, _ in rings]
    box = _box(np.concatenate(every))
    if _outside(box, view):
        return None
    lost = light.lost(distance)
    gain = light.sky * 0.9 + light.sunshine * 0.45 + light.beam(distance, float(pose.origin[1])) * 0.9

    def tones(albedo: F32, k: float) -> list[list[float]]:
        bgr = np.clip(albedo * gain * (k * (1 - lost)) + light.veil * lost, 0, 255)
        return np.column_stack((bgr, np.full(len(bgr), 255.0))).tolist()  # type: ignore[no-any-return]

    dark, bright = tones(figure.albedo, 0.82 if sum(light.sun_gain) > 0.4 else 0.92), tones(figure.albedo, 1.12)
    prepared = _canvas(box, view, np.array(dark[0][:3]))
    if prepared is None:
        return None
    canvas, left, top, ss = prepared
    for points, width, colour in rings:
        tone = tones(np.array([colour], np.float32), 1.0)[0]
        cv2.polylines(
            canvas, [_fixed(points, left, top, ss)], True, tone, max(1, round(width * ss)), cv2.LINE_AA, _SHIFT
        )
    outline = _fixed(rim, left, top, ss)
    rounded = box[3] - box[1] > 36
    if rounded:
        towards = np.array((math.copysign(0.28, light.sun[1]), -0.2))
        inner = _fixed(uv[:, None] + radius[:, None, None] * (_CIRCLE * 0.66 + towards), left, top, ss)
    first = figure.start.tolist()
    depth = np.round(np.add.reduceat(axes[:, 0], figure.start[:-1]) / np.diff(figure.start), 2)
    for i in np.argsort(-depth, kind="stable").tolist():
        rows = slice(first[i], first[i + 1])
        cv2.fillConvexPoly(canvas, cv2.convexHull(outline[rows].reshape(-1, 1, 2)), dark[i], cv2.LINE_AA, _SHIFT)
        if rounded:
            cv2.fillConvexPoly(canvas, cv2.convexHull(inner[rows].reshape(-1, 1, 2)), bright[i], cv2.LINE_AA, _SHIFT)
    return box, canvas, left, top, ss


def blend(picture: Picture, left: int, top: int, bgra: Picture) -> None:
    """Lay a patch over the picture, in place."""
    h, w = bgra.shape[:2]
    region = picture[top : top + h, left : left + w]
    alpha = bgra[..., 3].astype(np.float32) * (1 / 255)
    np.copyto(
        region, cv2.blendLinear(np.ascontiguousarray(bgra[..., :3]), np.ascontiguousarray(region), alpha, 1 - alpha)
    )


def stamp(ids: Ids, patch: Patch, id: int, below: float) -> int:
    """Write an object into the id buffer; returns its full pixels, of which those below row `below` stay hidden."""
    solid = patch.bgra[..., 3] > 127
    h, w = solid.shape
    shown = solid
    if below < patch.top + h:
        shown = solid.copy()
        shown[max(int(below) - patch.top, 0) :] = False
        patch.bgra[max(int(below) - patch.top, 0) :, :, 3] = 0
    ids[patch.top : patch.top + h, patch.left : patch.left + w][shown] = id
    return int(np.count_nonzero(solid))


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
