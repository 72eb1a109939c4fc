"""One instant of a simulated road: everything in it, painted from far to near, with its exact truth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from edgecnn.data.simulator.camera import View
from edgecnn.data.simulator.effects import glow, mirror, shadows
from edgecnn.data.simulator.light import Light, Sensor, paint_rain
from edgecnn.data.simulator.paint import Patch, Thing, blend, draw, poses, stamp
from edgecnn.data.simulator.road import Ground, Layout, crossing
from edgecnn.data.simulator.scenery import FAR_M, REACH_M, Prop, draw_prop, order, order_beyond
from edgecnn.data.simulator.sprites import Sprites
from edgecnn.scene import Picture, Truth

PAD = 24  # px around the frame, so that a rolled camera sees no corner
LEAST_PX = 7.0  # smaller road users are left out
SKY_ABOVE, SKY_BELOW = 340, 20  # px of the sky panorama


@dataclass(frozen=True)
class Setting:
    """What stays the same through a drive."""

    layout: Layout
    light: Light
    sensor: Sensor
    ground: Ground
    sky: Picture  # (SKY_ABOVE + SKY_BELOW, at least width + 2 PAD, 3), the wider the farther it can turn
    zebras: tuple[float, ...]
    bonnet: float  # height of the own bonnet in the picture, share of its height; 0 = not in view


def render(
    setting: Setting,
    view: View,
    things: list[Thing],
    props: list[Prop],
    speed: float,
    rng: np.random.Generator,
    sprites: Sprites | None = None,
) -> tuple[Picture, Truth]:
    """The picture and its truth; `speed` is our own, m/s, for the time to collision. `sprites`: those of the drive."""
    cam, light = view.camera, setting.light
    picture = _background(setting, view)
    ids = np.zeros((cam.height, cam.width), np.int32)
    _zebras(picture, setting, view)
    ahead = [
        t
        for t in things
        if -2.0 < t.s - view.s < cam.fx * t.model.height / LEAST_PX and light.lost(t.s - view.s) < 0.97
    ]
    where = poses(view, ahead)
    shadows(picture, view, light, ahead, where)
    crest = view.crests(np.array([t.s - view.s for t in ahead]))
    clear = -math.log(0.03) * light.haze_m
    seen = [p for p in props if p.s + p.width > view.s + 2 and p.s - view.s < min(REACH_M.get(p.kind, FAR_M), clear)]
    bases = view.place(np.array([p.s for p in seen]), np.array([p.d for p in seen]))
    queue: list[tuple[float, int]] = [(order_beyond(setting.layout, t.s, t.d), i) for i, t in enumerate(ahead)]
    queue += [(order(p), -1 - i) for i, p in enumerate(seen)]
    drawn: list[tuple[Thing, Patch, int]] = []
    for _, i in sorted(queue, key=lambda e: -e[0]):
        if i < 0:
            draw_prop(picture, ids, view, light, seen[-1 - i], bases[-1 - i])
            continue
        thing, pose = ahead[i], where[i]
        patch = sprites.draw(view, thing, pose) if sprites else draw(view, light, thing, pose)
        if patch is None:
            continue
        mirror(picture, patch, light)
        full = stamp(ids, patch, thing.id, float(crest[i]))
        blend(picture, patch.left, patch.top, patch.bgra)
        glow(picture, view, light, thing, pose)
        drawn.append((thing, patch, full))
    if setting.bonnet:
        _bonnet(picture, ids, setting, rng)
    paint_rain(picture, light, rng)
    picture = setting.sensor.expose(picture, rng, 1 + 0.04 * math.sin(view.s / 25))
    return picture, _truth(drawn, ids, view, light, speed)


def _background(setting: Setting, view: View) -> Picture:
    cam = view.camera
    height, width = cam.height + 2 * PAD, cam.width + 2 * PAD
    canvas = np.empty((height, width, 3), np.uint8)
    first = setting.ground.paint(canvas, view, PAD)
    turn = float(view.profile.heading(0.0, view.s)) + view.yaw
    margin = setting.sky.shape[1] - width
    left = int(np.clip(margin / 2 + turn * cam.fx * 0.8, 0, margin))
    rows = np.clip(np.arange(first) + SKY_ABOVE - first, 0, SKY_ABOVE + SKY_BELOW - 1)
    canvas[:first] = setting.sky[rows, left : left + width]
    if abs(view.roll) < 1e-4:
        return np.ascontiguousarray(canvas[PAD:-PAD, PAD:-PAD])
    c, s = math.cos(view.roll), math.sin(view.roll)
    # frame px → canvas px: turn back about the principal point
    x, y = cam.cx - 0.5, cam.cy - 0.5  # OpenCV counts from the middle of the first pixel
    matrix = np.array([[c, s, x + PAD - c * x - s * y], [-s, c, y + PAD + s * x - c * y]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    turned = cv2.warpAffine(canvas, matrix, (cam.width, cam.height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(turned, np.uint8)


def _zebras(picture: Picture, setting: Setting, view: View) -> None:
    light = setting.light
    gain = light.sky + light.sunshine * light.sun[2]
    for s in setting.zebras:
        x = s - view.s
        if not 2.5 < x < 60:
            continue
        lost = light.lost(x)
        colour = np.clip(np.array((205, 210, 210)) * (gain + light.beam(x, 0)) * (1 - lost) + light.veil * lost, 0, 255)
        stripes = np.array(crossing(setting.layout, s))  # (N, 4)
        corners = view.place(stripes[:, (0, 1, 1, 0)], stripes[:, (2, 2, 3, 3)])
        quads = (view.project(corners.reshape(-1, 3)) * 16 - 8).astype(np.int32).reshape(-1, 4, 2)
        top, bottom = max(int(quads[..., 1].min()) >> 4, 0), (int(quads[..., 1].max()) >> 4) + 2
        region = picture[top:bottom]
        if region.size:
            layer = region.copy()
            for quad in quads - (0, top << 4):
                cv2.fillConvexPoly(layer, quad, colour.tolist(), cv2.LINE_AA, 4)
            cv2.addWeighted(layer, 0.75, region, 0.25, 0, region)


def _bonnet(picture: Picture, ids: np.ndarray, setting: Setting, rng: np.random.Generator) -> None:
    """Our own bonnet along the lower edge: dark gloss mirroring the sky."""
    height, width = picture.shape[:2]
    u = np.linspace(0, width, 24)
    curve = height * (1 - setting.bonnet * (1 - 0.6 * ((u - width / 2) / (width / 2)) ** 2))
    points = np.vstack((np.stack((u, curve), 1), [[width, height + 1], [0, height + 1]])).astype(np.int32)
    base = np.array(setting.light.zenith) * 0.22 + 8
    cv2.fillPoly(picture, [points], tuple(map(float, base)), cv2.LINE_AA)
    edge = np.stack((u, curve + 2), 1).astype(np.int32)
    cv2.polylines(picture, [edge], False, tuple(map(float, np.array(setting.light.horizon) * 0.5)), 2, cv2.LINE_AA)
    cv2.fillPoly(ids, [points], 0)


def _truth(drawn: list[tuple[Thing, Patch, int]], ids: np.ndarray, view: View, light: Light, speed: float) -> Truth:
    """Rows in the order of the ids."""
    drawn = sorted((row for row in drawn if row[2] > 0), key=lambda row: row[0].id)
    id = np.array([t.id for t, _, _ in drawn], np.int64)
    limit = (view.camera.width, view.camera.height) * 2
    boxes = np.clip(np.array([p.box for _, p, _ in drawn]).reshape(-1, 4), 0, limit)
    seen = np.bincount(ids.ravel(), minlength=int(id.max(initial=0)) + 1)[id]
    visibility = np.minimum(seen / np.array([full for _, _, full in drawn]), 1.0)
    gap = np.array([t.near() for t, _, _ in drawn]) - view.s
    closing = speed - np.array([t.speed for t, _, _ in drawn])
    ttc = np.full(len(gap), np.inf)
    np.divide(gap, closing, out=ttc, where=(gap > 0) & (closing > 1e-3))
    faint = gap > -math.log(0.06) * light.haze_m
    return Truth.of(
        boxes.astype(np.float32),
        np.array([t.model.label for t, _, _ in drawn], np.int64),
        id=id,
        visibility=visibility.astype(np.float32),
        ignore=(visibility < 0.25) | (boxes[:, 3] - boxes[:, 1] < 8) | faint,
        distance_m=np.maximum(gap, 0).astype(np.float32),
        ttc_s=ttc.astype(np.float32),
    )
