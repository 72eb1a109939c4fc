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
Box = tuple[float, float, float, float]  # left, top, right, bottom, px


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

    box: Box  # px, unclipped
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


def _canvas(box: Box, view: View, fill: NDArray[np.float64]) -> tuple[Picture, int, int, int] | None:
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


def _box(points: F64) -> Box:
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


def _weather(canvas: Picture, box: Box, left: int, top: int, seed: int) -> None:
    """Uneven reflections and dirt, darker towards the ground, in place."""
    h, w = canvas.shape[:2]
    y = (np.arange(h) + top - box[1]) / (box[3] - box[1])
    column = (1.06 - 0.3 * np.clip(y, 0, 1) ** 2.2).astype(np.float32)
    r = seed * 37 % 400
    spots = cv2.resize(noise_tile(2)[r : r + 96, r : r + 96], (w, h), interpolation=cv2.INTER_LINEAR)
    gain = np.clip((column[:, None] * (1 + 0.05 * spots)) * 128, 0, 255).astype(np.uint8)
    canvas[..., :3] = cv2.multiply(canvas[..., :3], cv2.merge((gain, gain, gain)), scale=1 / 128)


_Painted = tuple[Box, Picture, int, int, int]


def _lamp_colour(kind: int, thing: Thing, light: Light) -> F64 | None:
    """Colour of a burning lamp; None = it is off."""
    on = light.headlights > 0.12
    if kind == HEAD and on:
        return np.array((250.0, 252, 255))
    if kind in (TAIL, BRAKE) and thing.brake:
        return np.array((70.0, 60, 255))
    return np.array((40.0, 30, 215)) if kind == TAIL and on else None


def _outside(box: Box, view: View) -> bool:
    return box[2] <= 0 or box[3] <= 0 or box[0] >= view.camera.width or box[1] >= view.camera.height


def _project_mesh(view: View, pose: Pose, mesh: Mesh) -> tuple[F64, NDArray[np.int64]] | None:
    """Corners of all faces in px and where each face starts; None = all behind the camera or out of its sight."""
    axes = pose.axes(view, mesh.verts)
    farthest, nearest = float(axes[:, 0].max()), float(axes[:, 0].min())
    aside = max(float(axes[:, 1].min()), -float(axes[:, 1].max()))  # m from the axis, if all on one side of it
    if farthest <= NEAR_M or aside > farthest * view.camera.width / view.camera.fx:
        return None
    if nearest > NEAR_M:
        return view.pixels(axes), mesh.start
    ahead = np.minimum.reduceat(axes[:, 0], mesh.start[:-1]) > NEAR_M
    behind = np.maximum.reduceat(axes[:, 0], mesh.start[:-1]) <= NEAR_M
    cut = [
        axes[a:b] if whole else axes[a:a] if gone else clip_near(axes[a:b])
        for (a, b), whole, gone in zip(pairwise(mesh.start.tolist()), ahead, behind, strict=True)
    ]
    return view.pixels(np.concatenate(cut)), np.cumsum([0] + [len(c) for c in cut])


@dataclass(frozen=True)
class _FigurePixels:
    """A figure in px: where its spheres are and their outlines, its rings, how far each sphere is."""

    centre: F64  # (S, 2)
    radius: F64  # (S,)
    rim: F64  # (S, 12, 2)
    forward: F64  # (S,) m
    rings: list[tuple[F64, float]]  # points, width

    def box(self) -> Box:
        rings = [np.concatenate((p - w / 2, p + w / 2)) for p, w in self.rings]
        return _box(np.concatenate([self.rim.reshape(-1, 2), *rings]))


def _project_figure(view: View, pose: Pose, figure: Figure) -> _FigurePixels | None:
    """None = it reaches behind the camera."""
    axes = pose.axes(view, figure.centre)
    if axes[:, 0].min() <= NEAR_M + 0.3:
        return None
    uv = view.pixels(axes)
    radius = figure.radius * view.camera.fx / axes[:, 0]
    scale = view.camera.fx / max(float(pose.origin[0]), 1.0)
    rings = [(view.pixels(pose.axes(view, points)), width * scale) for points, width, _ in figure.rings]
    return _FigurePixels(uv, radius, uv[:, None] + radius[:, None, None] * _CIRCLE, axes[:, 0], rings)


def extent(view: View, thing: Thing, pose: Pose) -> Box | None:
    """The box around the whole silhouette, unclipped, px; None = behind the camera."""
    shape = thing.model.pose(thing.phase)
    if isinstance(shape, Mesh):
        corners = _project_mesh(view, pose, shape)
        return _box(corners[0]) if corners else None
    pixels = _project_figure(view, pose, shape)
    return pixels.box() if pixels else None


def _draw_mesh(view: View, light: Light, thing: Thing, pose: Pose, mesh: Mesh, distance: float) -> _Painted | None:
    corners = _project_mesh(view, pose, mesh)
    if corners is None:
        return None
    uv, start = corners
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
    pixels = _project_figure(view, pose, figure)
    if pixels is None:
        return None
    box = pixels.box()
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
    for (points, width), (_, _, colour) in zip(pixels.rings, figure.rings, strict=True):
        tone = tones(np.array([colour], np.float32), 1.0)[0]
        cv2.polylines(
            canvas, [_fixed(points, left, top, ss)], True, tone, max(1, round(width * ss)), cv2.LINE_AA, _SHIFT
        )
    outline = _fixed(pixels.rim, left, top, ss)
    rounded = box[3] - box[1] > 36
    if rounded:
        towards = np.array((math.copysign(0.28, light.sun[1]), -0.2))
        lit = pixels.centre[:, None] + pixels.radius[:, None, None] * (_CIRCLE * 0.66 + towards)
        inner = _fixed(lit, left, top, ss)
    first = figure.start.tolist()
    depth = np.round(np.add.reduceat(pixels.forward, figure.start[:-1]) / np.diff(figure.start), 2)
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
