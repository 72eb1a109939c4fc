"""Time of day, weather and the sensor: the sky, haze, what light does to a colour, and what a camera does to a picture.

Colours are BGR on the 0-255 scale.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.scene import Picture

F32 = NDArray[np.float32]
BGR = tuple[float, float, float]


@functools.cache
def noise_tile(seed: int, size: int = 512, power: float = 1.6) -> F32:
    """(size, size) seamless cloud noise with spectrum 1/f^power, 0-mean, standard deviation 1."""
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / np.maximum(np.hypot(fy, fx), 1 / size) ** power
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, (size, size))
    return np.asarray(field / field.std(), np.float32)


_GRAIN = (256, 512)  # px, period of the sensor noise


@functools.lru_cache(8)
def _grain(level: float, height: int, width: int) -> tuple[Picture, Picture]:
    """Sensor noise of standard deviation `level`, slightly correlated as after demosaicing: what to add, what to take.

    It repeats with the period _GRAIN and is a period larger than the frame, so that any window can be cut out of it.
    """
    grain = np.random.default_rng(77).standard_normal((*_GRAIN, 3), np.float32)
    grain = np.asarray(cv2.GaussianBlur(grain, (0, 0), 0.6), np.float32)
    grain *= level / grain.std()
    times = (-(-height // _GRAIN[0]) + 1, -(-width // _GRAIN[1]) + 1, 1)
    plus, minus = cv2.convertScaleAbs(np.maximum(grain, 0)), cv2.convertScaleAbs(np.minimum(grain, 0))
    return np.tile(plus, times), np.tile(minus, times)


@dataclass(frozen=True)
class Light:
    """Everything about illumination and weather that a scene needs."""

    name: str  # day, overcast, dusk, night, rain or fog
    sun: tuple[float, float, float]  # unit vector towards the sun, world axes
    sun_gain: BGR
    sky_gain: BGR  # ambient
    zenith: BGR
    horizon: BGR
    haze: BGR
    haze_m: float  # distance at which 63 % of the contrast is lost
    clouds: float  # 0 clear to 1 closed
    headlights: float  # 0 off to 1: the only light on the road
    wet: float  # mirror of the road, 0 to 1
    rain: float  # streaks, 0 to 1

    def lost(self, distance: float) -> float:
        """Share of haze in what is seen over `distance` m."""
        return 1 - math.exp(-max(distance, 0.0) / self.haze_m)

    def beam(self, x: float, y: float) -> float:
        """Own headlights at x m ahead and y m aside, 0 to about 1.4."""
        if self.headlights == 0:
            return 0.0
        return float(self.headlights * 0.95 * math.exp(-x / 45) * math.exp(-((y / (2.5 + 0.16 * x)) ** 2)))

    def shade(self, albedo: F32, up: F32, sunward: F32, facing: F32, gloss: F32, beam: float) -> NDArray[np.float64]:
        """Colours (F, 3) of faces from the cosines (F,) of their normals with up, the sun and the way to us.

        Lambert sun, hemispheric sky, own headlights, and a mirrored sky on gloss.
        """
        up = up[:, None]
        lambert, facing = np.maximum(sunward, 0)[:, None], np.maximum(facing, 0)[:, None]
        gain = self.sky * (0.68 + 0.32 * up) + self.sunshine * lambert + facing * (0.9 * beam)
        mirror = (
            gloss[:, None]
            * np.maximum(0.3 + 0.7 * up, 0.06)
            * (0.5 * np.array(self.horizon) + 0.5 * np.array(self.zenith))
        )
        return np.asarray(albedo * gain + mirror)

    def veiled(self, bgra: Any, lost: float, gain: NDArray[np.float64] | float = 1.0) -> Picture:
        """Colours (…, 4) in a light `gain`, behind a haze that takes away the share `lost`."""
        kept, added = np.ones(4), np.zeros(4)  # OpenCV takes four doubles as one factor a channel
        kept[:3], added[:3] = gain * (1 - np.float64(lost)), self.veil * lost
        return np.asarray(cv2.add(cv2.multiply(bgra, kept), added), np.uint8)

    @functools.cached_property
    def sky(self) -> NDArray[np.float64]:
        return np.array(self.sky_gain)

    @functools.cached_property
    def sunshine(self) -> NDArray[np.float64]:
        return np.array(self.sun_gain)

    @functools.cached_property
    def veil(self) -> NDArray[np.float64]:
        """Colour of the haze."""
        return np.array(self.haze)


def _mix(a: BGR, b: BGR, t: float) -> BGR:
    return tuple(float(x * (1 - t) + y * t) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


LIGHTS = ("day", "overcast", "dusk", "night", "rain", "fog")


def make_light(rng: np.random.Generator, name: str | None = None) -> Light:
    """A random instance of the named light, or of a random one (day is commonest)."""
    name = name or str(rng.choice(LIGHTS, p=(0.4, 0.22, 0.1, 0.1, 0.1, 0.08)))
    azimuth = rng.uniform(0, 2 * math.pi)
    rise = math.radians(rng.uniform(18, 65)) if name != "dusk" else math.radians(rng.uniform(4, 14))
    sun = (math.cos(rise) * math.cos(azimuth), math.cos(rise) * math.sin(azimuth), math.sin(rise))
    t = float(rng.uniform())
    match name:
        case "day":
            zenith, horizon = _mix((190, 120, 60), (215, 165, 110), t), _mix((235, 220, 200), (240, 232, 222), t)
            return Light(
                name,
                sun,
                (0.62, 0.68, 0.72),
                (0.62, 0.56, 0.52),
                zenith,
                horizon,
                horizon,
                rng.uniform(350, 1500),
                rng.uniform(0, 0.6),
                0,
                0,
                0,
            )
        case "overcast":
            grey = _mix((170, 165, 160), (225, 222, 218), t)
            return Light(
                name,
                sun,
                (0.08, 0.08, 0.08),
                (0.88, 0.86, 0.85),
                _mix(grey, (150, 145, 140), 0.4),
                grey,
                grey,
                rng.uniform(200, 700),
                0.95,
                0,
                float(rng.choice((0.0, 0.15))),
                0,
            )
        case "dusk":
            zenith, horizon = _mix((120, 80, 55), (95, 70, 70), t), _mix((110, 150, 220), (150, 160, 190), t)
            return Light(
                name,
                sun,
                (0.12, 0.24, 0.36),
                (0.5, 0.42, 0.4),
                zenith,
                horizon,
                _mix(horizon, zenith, 0.3),
                rng.uniform(250, 800),
                rng.uniform(0.2, 0.7),
                0.25,
                0,
                0,
            )
        case "night":
            zenith, horizon = _mix((14, 9, 7), (34, 26, 24), t), _mix((26, 24, 28), (44, 50, 62), t)
            level = rng.uniform(0.1, 0.26)
            return Light(
                name,
                sun,
                (0.0, 0.0, 0.0),
                (level * 1.0, level * 1.05, level * 1.15),
                zenith,
                horizon,
                horizon,
                rng.uniform(150, 500),
                0.5,
                1.0,
                float(rng.choice((0.0, 0.35))),
                0,
            )
        case "rain":
            grey = _mix((130, 125, 120), (190, 187, 182), t)
            return Light(
                name,
                sun,
                (0.02, 0.02, 0.02),
                (0.68, 0.66, 0.64),
                _mix(grey, (120, 115, 110), 0.5),
                grey,
                grey,
                rng.uniform(90, 300),
                1.0,
                0.2,
                rng.uniform(0.3, 0.6),
                rng.uniform(0.2, 1.0),
            )
        case _:
            grey = _mix((185, 182, 178), (222, 220, 217), t)
            return Light(
                "fog",
                sun,
                (0.02, 0.02, 0.02),
                (0.8, 0.79, 0.78),
                grey,
                grey,
                grey,
                rng.uniform(35, 120),
                1.0,
                0.15,
                0.1,
                0,
            )


def paint_sky(light: Light, rng: np.random.Generator, width: int, above: int, below: int, focal: float) -> Picture:
    """(above + below, width, 3): sky, clouds and a far skyline; the horizon lies at row `above`."""
    rows, columns = (above + below) // 3, width // 3  # clouds are soft: a third of the resolution will do
    elevation = np.arctan((above - 3 * np.arange(rows, dtype=np.float32)) / focal)[:, None]
    t = np.clip(elevation / 0.5, 0, 1) ** 0.6
    column = np.array(light.horizon, np.float32) * (1 - t) + np.array(light.zenith, np.float32) * t
    sky = np.repeat(column[:, None], columns, 1)
    if light.clouds > 0 and light.name != "fog":
        tile = noise_tile(int(rng.integers(4)), 512, 1.7)
        first, last = int(rng.integers(0, 200)), int(rng.integers(300, 512))
        tile = np.roll(tile, int(rng.integers(0, 512)), 1)[first:last]
        stretched = cv2.resize(tile, (columns, rows), interpolation=cv2.INTER_LINEAR)
        cover = 1 / (1 + np.exp(-3.5 * (stretched + np.float32(3.2 * light.clouds - 1.6))))
        cover = cover * np.clip(0.35 + elevation / 0.3, 0, 1)
        bright = np.array(_mix(light.horizon, (255, 255, 255), 0.45 if light.name == "day" else 0.08), np.float32)
        shaded = bright * (1 - 0.16 * np.clip(stretched, -1, 2))[..., None]
        sky += cover[..., None] * (shaded - sky)
    sky = cv2.resize(sky, (width, above + below), interpolation=cv2.INTER_LINEAR)
    out = np.asarray(cv2.convertScaleAbs(sky), np.uint8)
    _far_skyline(out, light, rng, above)
    return out


def _far_skyline(sky: Picture, light: Light, rng: np.random.Generator, horizon: int) -> None:
    """Two layers of hills or woods, a few pixels high, mostly lost in haze."""
    width = sky.shape[1]
    for distance, height in ((900.0, rng.uniform(4, 26)), (420.0, rng.uniform(2, 12))):
        lost = float(light.lost(distance * 0.6))
        if lost > 0.97:
            continue
        row = noise_tile(int(rng.integers(4)), 512, 1.6)[int(rng.integers(512))]
        rough = noise_tile(5, 512, 0.6)[int(rng.integers(512))]
        profile = np.interp(np.linspace(0, 511, width), np.arange(512), row) * 0.5 + 1.0
        profile = np.clip(profile, 0.1, None) * height + np.resize(rough, width) * rng.uniform(0, 1.4)
        points = np.stack((np.arange(width), horizon - profile), 1)
        points = np.vstack((points, [[width, sky.shape[0]], [0, sky.shape[0]]])).round().astype(np.int32)
        leaf = np.array((38, 62, 48) if rng.uniform() < 0.7 else (72, 76, 80)) * np.array(light.sky_gain) * 1.2
        colour = leaf * (1 - lost) + np.array(light.haze) * lost
        cv2.fillPoly(sky, [points], tuple(map(float, colour)))


@dataclass(frozen=True)
class Sensor:
    """What the lens, the chip and the codec do to every picture of one camera."""

    gain: float
    gamma: float
    tint: BGR
    blur: float  # px, standard deviation
    grain: float  # grey levels, standard deviation
    vignette: float  # loss in the corners
    jpeg: int | None  # quality, None = no compression

    @classmethod
    def draw(cls, rng: np.random.Generator, light: Light) -> Sensor:
        dark = light.headlights > 0.5
        return cls(
            gain=float(rng.uniform(0.8, 1.25)) * (1.15 if dark else 1.0),
            gamma=float(rng.uniform(0.85, 1.2)),
            tint=tuple(rng.uniform(0.94, 1.06, 3)),
            blur=float(rng.choice((0.0, 0.5, 0.7, 1.0), p=(0.4, 0.3, 0.2, 0.1))),
            grain=float(rng.uniform(1, 4) + (4 if dark else 0)),
            vignette=float(rng.uniform(0, 0.35)),
            jpeg=int(rng.integers(40, 90)) if rng.uniform() < 0.35 else None,
        )

    def expose(self, picture: Picture, rng: np.random.Generator, gain: float = 1.0) -> Picture:
        """The scene as this camera records it; `gain` is the exposure of this frame."""
        height, width = picture.shape[:2]
        out: Any = picture
        if self.blur:
            out = cv2.GaussianBlur(out, (0, 0), self.blur)
        if self.vignette > 0.05:
            out = cv2.multiply(out, _vignette(width, height, round(self.vignette, 1)), scale=1 / 255)
        levels = np.arange(256)[:, None] / 255 * self.gain * gain * np.array(self.tint)
        table = 255 * (1 - np.exp(-1.9 * np.clip(levels, 0, None) ** self.gamma)) / (1 - math.exp(-1.9)) * 0.62
        table = np.clip(table + 0.38 * 255 * np.clip(levels, 0, 1.1) ** self.gamma, 0, 255).astype(np.uint8)
        out = cv2.LUT(out, table.reshape(256, 1, 3))
        top, left = (int(rng.integers(0, period)) for period in _GRAIN)
        window = slice(top, top + height), slice(left, left + width)
        plus, minus = _grain(float(round(self.grain)), height, width)
        out = cv2.subtract(cv2.add(out, plus[window]), minus[window])
        if self.jpeg:
            _, code = cv2.imencode(".jpg", out, (cv2.IMWRITE_JPEG_QUALITY, self.jpeg))
            out = cv2.imdecode(code, cv2.IMREAD_COLOR)
        return np.asarray(out, np.uint8)


@functools.lru_cache(16)
def _vignette(width: int, height: int, strength: float) -> Picture:
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.repeat((255 * (1 - strength * (x * x + y * y) / 2))[..., None], 3, 2).astype(np.uint8)


def paint_rain(picture: Picture, light: Light, rng: np.random.Generator) -> None:
    """Streaks between the lens and the scene, in place."""
    if light.rain == 0:
        return
    height, width = picture.shape[:2]
    count = int(140 * light.rain)
    start = rng.uniform((0, -20), (width, height), (count, 2))
    length = rng.uniform(5, 26, count)
    end = start + np.stack((length * rng.uniform(-0.15, 0.15), length), 1)
    layer = picture.copy()
    lines = (np.stack((start, end), 1) * 16).astype(np.int32)
    bright = tuple(float(min(255, c * 1.25 + 20)) for c in light.haze)
    cv2.polylines(layer, list(lines), False, bright, 1, cv2.LINE_AA, 4)
    cv2.addWeighted(layer, 0.3, picture, 0.7, 0, picture)
