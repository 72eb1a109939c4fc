"""The road: its lanes, its surface seen from above as a texture, and that texture laid into the picture."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.data.simulator.camera import View
from edgecnn.data.simulator.light import Light, noise_tile
from edgecnn.scene import Picture

F32 = NDArray[np.float32]

STEP_D, STEP_S = 0.03, 0.2  # m per texel, across and along
TEXELS_D, TEXELS_S = 1280, 256
HALF_D, PERIOD_S = STEP_D * TEXELS_D / 2, STEP_S * TEXELS_S


@dataclass(frozen=True)
class Layout:
    """Right-hand traffic; d = 0 is the left edge of the own lanes, positive to the right."""

    kind: str  # motorway, country or town
    lane_m: float
    own: int  # lanes in our direction
    opposite: int
    median_m: float  # between the two directions
    strip_m: float  # hard shoulder or cycle strip at the outer edge
    parking_m: float  # 0 = no parking lane
    pavement_m: float  # 0 = grass verge

    def lane(self, k: int) -> float:
        """d of the centre of lane k: 0 … own-1 ours from left to right, -1 … -opposite the others, outwards."""
        return self.lane_m * (k + 0.5) if k >= 0 else -self.median_m + self.lane_m * (k + 0.5)

    @property
    def right(self) -> float:
        """d of the outer edge of our outermost lane."""
        return self.own * self.lane_m

    @property
    def left(self) -> float:
        return -self.median_m - self.opposite * self.lane_m

    @property
    def kerb(self) -> tuple[float, float]:
        """d of the left and right end of the paved road."""
        extra = self.strip_m + self.parking_m
        return self.left - extra, self.right + extra


def make_layout(rng: np.random.Generator, kind: str) -> Layout:
    match kind:
        case "motorway":
            return Layout(
                kind,
                3.65,
                int(rng.integers(2, 4)),
                int(rng.integers(2, 4)),
                rng.uniform(2.2, 5.0),
                rng.uniform(1.5, 2.8),
                0,
                0,
            )
        case "country":
            return Layout(kind, rng.uniform(3.2, 3.6), 1, 1, 0, rng.uniform(0.5, 1.3), 0, 0)
        case _:
            lanes = 1 if rng.uniform() < 0.7 else 2
            return Layout(
                "town",
                rng.uniform(3.0, 3.4),
                lanes,
                lanes,
                0,
                rng.uniform(1.2, 1.6),
                float(rng.choice((0.0, 2.2), p=(0.35, 0.65))),
                rng.uniform(2.0, 3.6),
            )


def surface(layout: Layout, light: Light, rng: np.random.Generator) -> Picture:
    """(TEXELS_S, TEXELS_D, 3) the lit road from above; row = along the road, column = d from -HALF_D to HALF_D."""
    d = (np.arange(TEXELS_D) + 0.5) * STEP_D - HALF_D
    left, right = layout.kerb
    asphalt = rng.uniform(70, 135) * np.array((1.0, 1.0, 0.985)) * (1 - 0.35 * light.wet)
    grass = np.array((42, 92, 78)) * rng.uniform(0.8, 1.25) + rng.uniform(-12, 18, 3)
    slab = np.array((128, 134, 140)) * rng.uniform(0.75, 1.1)
    gravel = np.array((105, 118, 128)) * rng.uniform(0.7, 1.1)
    base = np.repeat(grass[None], TEXELS_D, 0)
    rough = np.full(TEXELS_D, 0.3)
    paved = (d > left) & (d < right)
    base[paved], rough[paved] = asphalt, 0.07
    for k in range(-layout.opposite, layout.own):  # wheel tracks: polished darker, oil in between
        across = d - layout.lane(k)
        base *= (1 - rng.uniform(0.02, 0.1) * np.exp(-(((np.abs(across) - 0.75) / 0.28) ** 2)))[:, None]
        base *= (1 - rng.uniform(0.0, 0.08) * np.exp(-((across / 0.3) ** 2)))[:, None]
    outside = np.maximum(left - d, d - right)
    if layout.pavement_m:
        walk, kerb = (outside > 0) & (outside < layout.pavement_m), (outside > 0) & (outside < 0.18)
        base[walk], rough[walk] = slab, 0.08
        base[kerb] = slab * 1.18
        beyond = outside >= layout.pavement_m
        base[beyond] = base[beyond] * 0.4 + slab * 0.45
        gutter = (outside > -0.25) & (outside <= 0)
        base[gutter] *= 0.78
    else:
        edge = (outside > 0) & (outside < rng.uniform(0.3, 1.2))
        base[edge], rough[edge] = gravel, 0.25
    if layout.median_m > 1:
        middle = (d < -0.5) & (d > -layout.median_m + 0.5)
        base[middle], rough[middle] = (grass if rng.uniform() < 0.6 else gravel), 0.25
    gain = light.sky + light.sunshine * max(light.sun[2], 0)
    at = int(rng.integers(0, 512))
    relief = cv2.convertScaleAbs(_relief()[:, at : at + TEXELS_D] * (rough * 128).astype(np.float32) + np.float32(128))
    plain = np.repeat(np.clip(base * gain, 0, 255).astype(np.uint8)[None], TEXELS_S, 0)
    texture = np.asarray(cv2.multiply(plain, cv2.merge((relief, relief, relief)), scale=1 / 128), np.uint8)
    _patches(texture, layout, rng)
    _paint_marks(texture, layout, d, _relief()[:, at : at + TEXELS_D], gain, rng)
    return texture


@functools.cache
def _relief() -> F32:
    """(TEXELS_S, 2048) grain and stains, to cut strips from."""
    mixed = noise_tile(6, 512, 0.3) + np.float32(0.9) * noise_tile(1, 512, 1.6)
    return np.tile(mixed[:TEXELS_S], (1, 4))


def _patches(texture: Picture, layout: Layout, rng: np.random.Generator) -> None:
    """Repairs, tar seams and manholes, in place."""
    left, right = (int((e + HALF_D) / STEP_D) for e in layout.kerb)
    left, right = max(left, 0), min(right, TEXELS_D)
    for _ in range(int(rng.integers(0, 5))):
        c, r = int(rng.integers(left, max(right - 60, left + 1))), int(rng.integers(0, TEXELS_S - 20))
        w, h = int(rng.integers(20, 90)), int(rng.integers(5, 40))
        patch = texture[r : r + h, c : min(c + w, right)]
        np.copyto(patch, cv2.convertScaleAbs(patch, alpha=rng.uniform(0.78, 1.14)) if patch.size else patch)
    for _ in range(int(rng.integers(0, 7))):
        c, r = int(rng.integers(left, right)), int(rng.integers(0, TEXELS_S))
        steps = np.cumsum(rng.normal(0, 1, (12, 2)) * (6, 3) + rng.choice((0, 4), 2), 0)
        line = (steps + np.array((c, r))).round().astype(np.int32)
        shade = int(texture[r, c].mean() * 0.55)
        cv2.polylines(texture, [line], False, (shade, shade, shade), int(rng.integers(1, 3)), cv2.LINE_AA)
    if layout.kind == "town":
        for _ in range(int(rng.integers(0, 3))):
            c, r = int(rng.integers(left + 30, right - 30)), int(rng.integers(6, TEXELS_S - 6))
            cv2.ellipse(texture, (c, r), (11, 2), 0, 0, 360, (52, 54, 56), -1, cv2.LINE_AA)


def _paint_marks(
    texture: Picture,
    layout: Layout,
    d: NDArray[Any],
    wear: F32,
    gain: NDArray[Any],
    rng: np.random.Generator,
) -> None:
    """Lane lines with soft edges and wear, in place."""
    along = (np.arange(TEXELS_S) + 0.5) * STEP_S
    white, yellow = np.array((222, 226, 226)) * gain, np.array((70, 180, 225)) * gain
    centre = yellow if rng.uniform() < 0.25 else white
    period, share = PERIOD_S / int(rng.choice((3, 4, 5, 8))), rng.uniform(0.3, 0.55)
    dash = ((along % period) < share * period).astype(np.float64)
    solid = np.ones_like(along)
    lines: list[tuple[float, NDArray[np.float64], NDArray[np.float64]]] = []
    lines += [(layout.lane_m * k, dash, white) for k in range(1, layout.own)]
    lines += [(-layout.median_m - layout.lane_m * k, dash, white) for k in range(1, layout.opposite)]
    if layout.median_m > 1:
        lines += [(0.0, solid, centre), (-layout.median_m, solid, centre)]
    elif rng.uniform() < 0.3:
        lines += [(-0.12, solid, centre), (0.12, solid, centre)]
    else:
        lines += [(0.0, dash, centre)]
    if layout.kind != "town" or rng.uniform() < 0.5:
        lines += [(layout.right, solid, white), (layout.left, solid, white)]
    width, strength = rng.uniform(0.1, 0.17), rng.uniform(0.5, 0.95)
    for position, pattern, colour in lines:
        first = int((position - 0.3 + HALF_D) / STEP_D)
        span = slice(max(first, 0), max(first, 0) + 20)
        if first + 20 > TEXELS_D or first < 0:
            continue
        cover = np.clip((width / 2 - np.abs(d[span] - position)) / STEP_D + 0.5, 0, 1) * pattern[:, None] * strength
        cover = (cover * np.clip(1 - 0.16 * np.abs(wear[:, span]), 0.2, 1))[..., None]
        texture[:, span] = np.clip(texture[:, span] * (1 - cover) + colour * cover, 0, 255)


@dataclass
class Ground:
    """A surface texture with its coarser copies, and how it looks through a camera."""

    texture: Picture
    light: Light
    _levels: dict[tuple[int, int], Picture] = field(default_factory=dict)

    def _level(self, along: int, across: int) -> Picture:
        key = (along, across)
        if key not in self._levels:
            if key == (0, 0):
                small: Any = self.texture
            else:  # halve the next finer one: exact means of two
                finer = (
                    self._level(along, across - 1)[:-2]
                    if across > along or not along
                    else self._level(along - 1, across)[:-2]
                )
                small = cv2.resize(finer, (TEXELS_D >> across, TEXELS_S >> along), interpolation=cv2.INTER_LINEAR)
            self._levels[key] = np.vstack((small, small[:2]))  # so that the seam interpolates
        return self._levels[key]

    def paint(self, canvas: Picture, view: View, pad: int) -> int:
        """Lay the road into `canvas`, which is `pad` px larger than the frame on each side; returns the horizon row."""
        cam = view.camera
        x = np.geomspace(1.0, 900.0, 480)
        axes = view.camera_axes(np.stack((x, 0 * x, view.profile.rise(view.s, x)), 1))
        ahead = axes[:, 0] > 0.2
        x, axes = x[ahead], axes[ahead]
        v = np.minimum.accumulate(cam.cy + cam.fy * axes[:, 2] / axes[:, 0] + pad)
        first = max(math.ceil(float(v[-1])), 0)
        rows = np.arange(first, canvas.shape[0])
        if not len(rows):
            return first
        at = np.interp(-rows - 0.5, -v, x)
        forward = np.interp(at, x, axes[:, 0])
        scale = forward / cam.fx  # m per px across
        reach = np.abs(np.gradient(at)) if len(at) > 1 else np.ones(1)  # m per px along
        column = -view.lateral(at) - scale * (cam.cx + pad)
        along = np.clip(np.log2(np.maximum(reach / STEP_S, 1)).round(), 0, 6).astype(int)
        across = np.clip(np.log2(np.maximum(scale / STEP_D, 1)).round(), 0, 6).astype(int)
        s = (view.s + at) % PERIOD_S / STEP_S
        u = np.arange(canvas.shape[1], dtype=np.float32) + np.float32(0.5)
        edges = np.flatnonzero(np.diff(along * 8 + across)) + 1
        for part in np.split(np.arange(len(rows)), edges):
            a, c = int(along[part[0]]), int(across[part[0]])
            texture = self._level(a, c)
            d = scale[part, None].astype(np.float32) * u + column[part, None].astype(np.float32)
            if np.abs(d[:, (0, -1)]).max() > HALF_D:  # fold the outer verge outwards for ever
                over = np.abs(d) - HALF_D
                folded = HALF_D - np.abs((over + 4) % 8 - 4) - 0.05
                d = np.where(over > 0, np.copysign(folded, d), d)
            map_d = (d + HALF_D) / (STEP_D * (1 << c)) - 0.5
            map_s = np.repeat((s[part] / (1 << a) - 0.0)[:, None].astype(np.float32), len(u), 1)
            strip = cv2.remap(texture, map_d, map_s, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            canvas[first + part[0] : first + part[-1] + 1] = strip
        self._light(canvas[first:], at, scale, view, pad)
        return first

    def _light(
        self, ground: Picture, at: NDArray[np.float64], scale: NDArray[np.float64], view: View, pad: int
    ) -> None:
        """Own headlights, the mirrored sky of a wet road, and haze, in place."""
        light = self.light
        height, width = ground.shape[:2]
        if light.headlights > 0.1:
            small_x, small_s = at[::4, None], scale[::4, None]
            y = (np.arange(0, width, 8)[None] - view.camera.cx - pad) * small_s
            beam = light.headlights * 4.0 * np.exp(-small_x / 26) * np.exp(-((y / (2.4 + 0.2 * small_x)) ** 2))
            beam *= 1 - np.exp(-small_x / 5)
            full = cv2.resize(beam.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
            lit = ground.astype(np.float32) * (1 + full)[..., None] + (full * 9)[..., None]
            np.copyto(ground, np.clip(lit, 0, 255).astype(np.uint8))
        lost = (1 - np.exp(-at / light.haze_m)).astype(np.float32)
        mirror = (light.wet * (0.25 + 0.5 * lost)).astype(np.float32)
        share = np.clip(lost + (1 - lost) * mirror, 0, 1)
        far = int(np.searchsorted(-share, -0.015))  # nearer rows are clear
        if far:
            weight = np.repeat(share[:far, None], width, 1)
            haze = np.full((far, width, 3), np.clip(light.veil, 0, 255).astype(np.uint8))
            np.copyto(ground[:far], cv2.blendLinear(ground[:far], haze, 1 - weight, weight))


def crossing(layout: Layout, s: float) -> list[tuple[float, float, float, float]]:
    """Zebra stripes at s as (s0, s1, d0, d1) rectangles."""
    left, right = layout.kerb
    return [(s, s + 3.2, d, d + 0.5) for d in np.arange(left + 0.4, right - 0.5, 1.0)]
