"""What stands beside the road: trees, buildings, poles, signs, barriers. They hide road users, but are none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.data.simulator.camera import View
from edgecnn.data.simulator.light import Light
from edgecnn.data.simulator.paint import Ids, blend
from edgecnn.data.simulator.pictures import SPRITE_H, facade, tree_sprite
from edgecnn.data.simulator.road import Layout
from edgecnn.scene import Picture


@dataclass(frozen=True)
class Prop:
    """Something that stands still beside the road."""

    kind: str  # tree, bush, building, lamp, sign, rail, gantry
    s: float  # m, middle (building, rail: near end)
    d: float
    width: float  # m; of a building and a rail: along the road
    height: float  # m; of a gantry: below its signs
    look: int  # which picture of its kind


RAIL_M = 12.0  # of one length of rail
REACH_M = {"rail": 140.0, "sign": 160.0, "post": 120.0, "gantry": 400.0}  # beyond, it is thinner than a pixel
FAR_M = 230.0  # nothing is drawn beyond


def order(prop: Prop) -> float:
    """s by which a prop is painted among the others, from far to near.

    What is long stands beside the road users of our own side that it overlaps in s, and so behind them.
    """
    return prop.s + (prop.width if prop.kind in ("building", "rail") else 0.0)


def order_beyond(layout: Layout, s: float, d: float) -> float:
    """The same for a road user: those of the other carriageway are painted before the rail between."""
    return s + (RAIL_M if layout.kind == "motorway" and d < -layout.median_m / 2 else 0.0)


def make_props(layout: Layout, rng: np.random.Generator, start: float, end: float) -> list[Prop]:
    """Everything beside the road between two arc lengths."""
    props: list[Prop] = []
    left, right = layout.kerb
    edge = {-1: left - layout.pavement_m, 1: right + layout.pavement_m}
    trees = {"motorway": 0.05, "country": 0.09, "town": 0.04}[layout.kind] * rng.uniform(0.2, 1.8)
    for side in (-1, 1):
        built = layout.kind == "town" and rng.uniform() < 0.85
        s = start
        while built and s < end:
            width, height = rng.uniform(9, 24), rng.uniform(5, 17)
            if rng.uniform() < 0.88:
                props.append(
                    Prop("building", s, edge[side] + side * rng.uniform(0.3, 3.0), width, height, int(rng.integers(24)))
                )
            s += width + (0.0 if rng.uniform() < 0.6 else rng.uniform(2, 9))
        for s in np.cumsum(rng.exponential(1 / trees, int((end - start) * trees * 1.4) + 1)) + start:
            if s > end:
                break
            if layout.kind == "town":
                d = (
                    edge[side] - side * (layout.pavement_m - 0.7)
                    if rng.uniform() < 0.6
                    else edge[side] + side * rng.uniform(4, 14)
                )
                if built and abs(d) > abs(edge[side]):
                    continue
            else:
                d = edge[side] + side * (rng.uniform(3.5, 9) + rng.exponential(9))
            bush = rng.uniform() < 0.3 and layout.kind != "town"
            h = rng.uniform(1.0, 2.6) if bush else rng.uniform(4.5, 12)
            props.append(
                Prop(
                    "bush" if bush else "tree",
                    float(s),
                    d,
                    h * rng.uniform(0.65, 0.95),
                    h,
                    int(rng.integers(12, 16) if bush else rng.integers(12)),
                )
            )
        step = {"motorway": 50.0, "country": 45.0, "town": 28.0}[layout.kind]
        if rng.uniform() < 0.75:
            s = start + rng.uniform(0, step)
            while s < end:
                kind = "lamp" if layout.kind != "country" else "post"
                props.append(
                    Prop(
                        kind,
                        s,
                        edge[side] + side * (0.6 if not layout.pavement_m else -layout.pavement_m + 0.5),
                        0.16,
                        rng.uniform(6.5, 9) if kind == "lamp" else 1.0,
                        int(side > 0),
                    )
                )
                s += step
        for s in rng.uniform(start, end, int((end - start) / 90)):
            props.append(
                Prop(
                    "sign",
                    float(s),
                    edge[side] + side * (0.9 if not layout.pavement_m else -layout.pavement_m + 0.4),
                    rng.uniform(0.6, 0.9),
                    rng.uniform(2.2, 2.9),
                    int(rng.integers(5)),
                )
            )
    if layout.kind == "motorway":
        for s in np.arange(start, end, RAIL_M):
            props.append(Prop("rail", float(s), -layout.median_m / 2, RAIL_M, 0.8, 0))
            if rng.uniform() < 0.8:
                props.append(Prop("rail", float(s), right + 0.7, RAIL_M, 0.75, 0))
    return props


def draw_prop(picture: Picture, ids: Ids, view: View, light: Light, prop: Prop, base: NDArray[np.float64]) -> None:
    """Paint one prop that stands at `base` (world) and clear the id buffer behind it, in place."""
    match prop.kind:
        case "building":
            _building(picture, ids, view, light, prop)
        case "rail":
            _rail(picture, ids, view, light, prop)
        case "gantry":
            _gantry(picture, ids, view, light, prop, base)
        case "tree" | "bush":
            _tree(picture, ids, view, light, prop, base)
        case _:
            _pole(picture, ids, view, light, prop, base)


def _tone(light: Light, colour: np.ndarray, x: float, y: float, sun: float = 0.6) -> np.ndarray:
    gain = light.sky * 0.85 + light.sunshine * sun + light.beam(x, y) * 0.6
    lost = light.lost(x)
    return np.asarray(np.clip(colour * gain * (1 - lost) + light.veil * lost, 0, 255))


def _tree(picture: Picture, ids: Ids, view: View, light: Light, prop: Prop, base: NDArray[np.float64]) -> None:
    if base[0] < 2:
        return
    distance = float(base[0])
    w, h = prop.width * view.camera.fx / distance, prop.height * view.camera.fx / distance
    u, v = view.project(base[None])[0].tolist()
    left, top = u - w / 2, v - h
    x0, y0 = max(math.floor(left), 0), max(math.floor(top), 0)
    x1, y1 = min(math.ceil(left + w), picture.shape[1]), min(math.ceil(v), picture.shape[0])
    if h < 3 or h > 1600 or x1 - x0 < 1 or y1 - y0 < 1:
        return
    sprite = tree_sprite(prop.look, int(np.clip(math.log2(SPRITE_H / h), 0, 4)))
    kx, ky = sprite.shape[1] / w, sprite.shape[0] / h
    matrix = np.array([[kx, 0, (x0 + 0.5 - left) * kx - 0.5], [0, ky, (y0 + 0.5 - top) * ky - 0.5]])
    patch: Any = cv2.warpAffine(sprite, matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    lost = light.lost(distance)
    gain = light.sky + light.sunshine * 0.8 + light.beam(distance, float(base[1])) * 0.5
    blend(picture, x0, y0, light.veiled(patch, lost, gain))
    ids[y0:y1, x0:x1][patch[..., 3] > 127] = 0


def _poly(picture: Picture, ids: Ids, points: np.ndarray, colour: np.ndarray) -> None:
    fixed = (np.clip(points, -8000, 8000) * 16 - 8).astype(np.int32)
    cv2.fillConvexPoly(picture, fixed, colour.tolist(), cv2.LINE_AA, 4)
    cv2.fillConvexPoly(ids, fixed, 0, cv2.LINE_8, 4)


def _pole(picture: Picture, ids: Ids, view: View, light: Light, prop: Prop, base: NDArray[np.float64]) -> None:
    if base[0] < 2:
        return
    up = np.array((0, 0, prop.height))
    (u0, v0), (u1, v1) = view.project(np.array((base, base + up))).tolist()
    if min(u0, u1) > picture.shape[1] + 60 or max(u0, u1) < -60:
        return
    half = max(0.06 * view.camera.fx / base[0], 0.35)
    grey = {"post": np.array((215, 218, 220))}.get(prop.kind, np.array((118, 120, 122)))
    _poly(
        picture,
        ids,
        np.array([(u0 - half, v0), (u0 + half, v0), (u1 + half * 0.7, v1), (u1 - half * 0.7, v1)]),
        _tone(light, grey, float(base[0]), float(base[1])),
    )
    scale = view.camera.fx / base[0]
    if prop.kind == "lamp":
        reach = (-1.6 if prop.look else 1.6) * scale
        thick = max(half * 1.4, 0.6)
        lit = np.array((190, 225, 250)) if light.headlights > 0.5 else _tone(light, grey, float(base[0]), 0)
        _poly(
            picture,
            ids,
            np.array([(u1, v1), (u1 + reach, v1 - thick), (u1 + reach, v1 + thick * 0.4), (u1, v1 + thick)]),
            lit,
        )
    elif prop.kind == "sign":
        size = prop.width * scale / 2
        face, border = (
            ((235, 235, 235), (40, 30, 200)),
            ((190, 110, 20), (240, 240, 240)),
            ((40, 200, 240), (30, 30, 30)),
            ((235, 235, 235), (60, 60, 60)),
            ((60, 140, 50), (240, 240, 240)),
        )[prop.look]
        sides = (24, 24, 4, 24, 4)[prop.look]
        a = np.linspace(0, 2 * np.pi, sides + 1)[:-1] + (np.pi / 4 if prop.look == 4 else 0)
        ring = np.stack((u1 + size * np.cos(a), v1 + size * np.sin(a)), 1)
        for points, c in ((ring, border), ((ring - (u1, v1)) * 0.76 + (u1, v1), face)):
            _poly(picture, ids, points, _tone(light, np.array(c), float(base[0]), float(base[1]), 0.4))


def _gantry(picture: Picture, ids: Ids, view: View, light: Light, prop: Prop, base: NDArray[np.float64]) -> None:
    """Two posts, a beam across the road, and signs on it: blue or green, with a border and lines of text."""
    x = float(base[0])
    if x < 2:
        return
    half, top = prop.width / 2, prop.height + 2.4
    steel = _tone(light, np.array((135, 138, 140)), x, 0.0)

    def panel(y0: float, y1: float, z0: float, z1: float, colour: np.ndarray) -> None:
        corners = np.array([(0, y0, z0), (0, y1, z0), (0, y1, z1), (0, y0, z1)])
        _poly(picture, ids, view.project(base + corners), colour)

    for side in (-half, half):
        panel(side - 0.22, side + 0.22, 0.0, top, steel)
    panel(-half, half, prop.height + 0.75, prop.height + 1.35, steel)
    ground = _tone(light, np.array(((150, 80, 10), (70, 110, 20), (160, 90, 20))[prop.look]), x, 0.0, 0.4)
    white = _tone(light, np.array((235, 235, 235)), x, 0.0, 0.4)
    count = 2 if prop.look < 2 else 3
    wide = min(0.8 * prop.width / count, 4.6)
    for k in range(count):
        y = (k + 0.5) * prop.width / count - half
        panel(y - wide / 2, y + wide / 2, prop.height, top, white)
        panel(y - wide / 2 + 0.08, y + wide / 2 - 0.08, prop.height + 0.08, top - 0.08, ground)
        for line, share in ((0.62, 0.7), (0.32, 0.45)):
            z = prop.height + line * 2.4
            panel(y - wide * 0.42, y + wide * (share - 0.42), z, z + 0.34, white)


def _rail(picture: Picture, ids: Ids, view: View, light: Light, prop: Prop) -> None:
    """A beam in two tones on posts."""
    s = np.arange(prop.s, prop.s + prop.width + 0.1, 4.0)
    s = s[s > view.s + 2.5]
    if len(s) < 2:
        return
    base = view.place(s, prop.d)
    levels = np.array((0.0, 0.45, 0.55, 0.63, 0.75))
    points = np.repeat(base[:, None], 5, 1)
    points[..., 2] += levels
    uv = view.project(points.reshape(-1, 3)).reshape(-1, 5, 2)
    x, y = float(base[0, 0]), float(base[0, 1])
    close = base[:, 0] < 45
    half = (0.06 * view.camera.fx / base[close, :1]) * (1, 0)
    foot, top = uv[close, 0], uv[close, 3]
    posts = np.stack((foot - half, foot + half, top + half, top - half), 1)
    for quads, albedo in (
        (posts, 105.0),
        (np.stack((uv[:-1, 1], uv[1:, 1], uv[1:, 4], uv[:-1, 4]), 1), 150.0),
        (np.stack((uv[:-1, 2], uv[1:, 2], uv[1:, 3], uv[:-1, 3]), 1), 108.0),
    ):
        fixed = list((np.clip(quads, -8000, 8000) * 16 - 8).astype(np.int32))
        colour = _tone(light, np.array((albedo, albedo + 2, albedo + 4)), x, y)
        for quad in fixed:
            cv2.fillConvexPoly(picture, quad, colour.tolist(), cv2.LINE_AA, 4)
            cv2.fillConvexPoly(ids, quad, 0, cv2.LINE_8, 4)


def _building(picture: Picture, ids: Ids, view: View, light: Light, prop: Prop) -> None:
    """A front along the road and a blank gable towards us."""
    near = max(prop.s, view.s + 2.0)
    far = prop.s + prop.width
    if near >= far - 0.3:
        return
    ends = view.place(np.array((near, far)), np.array((prop.d, prop.d)))
    x, y = float(ends[0, 0]), float(ends[0, 1])
    side = math.copysign(1, prop.d)
    up = np.array((0, 0, prop.height))
    wall = facade(prop.look)
    lit = 0.75 * max(-side * light.sun[1], 0.0)
    if prop.s > view.s + 2.0:  # gable
        away = ends[0] + np.array((0, side * 9.0, 0))
        corners = view.project(np.stack((ends[0], away, away + up, ends[0] + up)))
        _poly(picture, ids, corners, _tone(light, wall[7, 1, :3] * 0.8, x, y, 0.75 * max(-light.sun[0], 0.0)))
    quad = view.project(np.stack((ends[0], ends[1], ends[1] + up, ends[0] + up)))
    x0, y0 = np.maximum(np.floor(quad.min(0)), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(quad.max(0)), (picture.shape[1], picture.shape[0])).astype(int)
    if x1 - x0 < 2 or y1 - y0 < 2:
        return
    height, width = wall.shape[:2]
    cut = (near - prop.s) / prop.width * width
    source = np.array([(cut, height), (width, height), (width, 0), (cut, 0)], np.float32)
    matrix = cv2.getPerspectiveTransform(source, (quad - (x0, y0)).astype(np.float32))
    patch = cv2.warpPerspective(wall, matrix, (int(x1 - x0), int(y1 - y0)), flags=cv2.INTER_LINEAR)
    gain = light.sky * 0.85 + light.sunshine * lit + light.beam(x, y) * 0.4
    bgra = light.veiled(patch, light.lost((x + float(ends[1, 0])) / 2), gain)
    blend(picture, int(x0), int(y0), bgra)
    ids[y0:y1, x0:x1][bgra[..., 3] > 127] = 0
