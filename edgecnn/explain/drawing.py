"""The pictures of `edgecnn explain`, drawn with OpenCV: BGR, uint8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.bundle import ModelSpec
from edgecnn.explain.deconvnet import Projection
from edgecnn.explain.invariance import Curve
from edgecnn.explain.occlusion import Occlusion
from edgecnn.scene import Picture

TILE, GAP, SIDE = 96, 4, 256  # px: a projection, between two, the least side of a picture shown by itself
WHITE, INK, RULE = (255, 255, 255), (60, 50, 40), (225, 220, 215)
LINES = ((235, 111, 31), (50, 119, 199), (62, 125, 10), (201, 71, 163), (40, 34, 194), (143, 158, 47))
UNITS = {"shift": "shift down, px", "scale": "scale, times", "rotation": "rotation, degrees"}
PANEL, MARGIN = (260, 170), (56, 40)  # px: a plot's inside; left and below, above and right half as much

Plane = NDArray[np.floating[Any]]


def unprocessed(x: Plane, spec: ModelSpec) -> Picture:
    """The picture as the network got it: (C, H, W) after the preprocess → (H, W, 3) BGR."""
    planes = [plane * std + mean for plane, mean, std in zip(x, spec.mean, spec.std, strict=False)]
    return _bgr(np.stack(planes), spec)


def projections(found: Sequence[Projection], picture: Picture, spec: ModelSpec) -> Picture:
    """Above, what each projection shows, stretched to full contrast about grey; below, that part of the picture."""
    above, below = [], []
    for one in found:
        signal = one.signal.numpy()
        left, top, right, bottom = _extent(signal)
        crop = signal[:, top:bottom, left:right]
        stretched = 128 + 127 * crop / max(float(np.abs(crop).max()), 1e-12)
        above.append(_tile(_bgr(stretched, spec)))
        below.append(_tile(picture[top:bottom, left:right]))
    return np.vstack([_row(above), np.full((GAP, _row(above).shape[1], 3), 255, np.uint8), _row(below)])


def occlusion(found: Occlusion, picture: Picture) -> Picture:
    """The picture; over it the probability of the class, blue for 0 and red for 1; and the map's sum, red the most."""
    large = _enlarged(picture)
    total = found.total / max(float(found.total.max()), found.whole_total, 1e-12)
    return _row([large, _heat(large, found.probability), _heat(large, total)])


def curves(rows: Sequence[tuple[str, Sequence[Curve]]]) -> Picture:
    """(name, curves) of each picture: a row of plots a kind of change, a line a picture, the names below."""
    kinds = {curve.kind: None for _, found in rows for curve in found}
    lines = []
    for kind in kinds:
        same = [curve for _, found in rows for curve in found if curve.kind == kind]
        plots: Mapping[str, Sequence[Plane]] = {
            "first layer, distance": [curve.first for curve in same],
            "last layer, distance": [curve.last for curve in same],
            "probability of the class": [curve.probability for curve in same],
        }
        at = np.array(same[0].amount)
        lines.append(np.hstack([_plot(title, UNITS[kind], at, values) for title, values in plots.items()]))
    sheet = np.vstack(lines)
    legend = np.full((24 * -(-len(rows) // 3), sheet.shape[1], 3), 255, np.uint8)
    for i, (name, _) in enumerate(rows):
        x, y = MARGIN[0] + (i % 3) * sheet.shape[1] // 3, 16 + 24 * (i // 3)
        cv2.line(legend, (x, y - 4), (x + 20, y - 4), LINES[i % len(LINES)], 2, cv2.LINE_AA)
        _text(legend, name[:36], (x + 28, y))
    return np.vstack([sheet, legend])


def _bgr(planes: Plane, spec: ModelSpec) -> Picture:
    picture = np.clip(np.round(planes), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    if spec.channels == "grey":
        return np.ascontiguousarray(picture.repeat(3, 2))
    return np.ascontiguousarray(picture[:, :, ::-1] if spec.channels == "rgb" else picture)


def _extent(signal: Plane) -> tuple[int, int, int, int]:
    """The smallest square within the picture that holds every pixel which had a part in the answer."""
    size = signal.shape[1:]
    rows, columns = np.nonzero(np.abs(signal).max(0))
    if not len(rows):
        return 0, 0, size[1], size[0]
    low, high = np.array([columns.min(), rows.min()]), np.array([columns.max(), rows.max()]) + 1
    side = int(min((high - low).max(), *size))
    left, top = np.clip((low + high - side) // 2, 0, np.array(size[::-1]) - side)
    return int(left), int(top), int(left) + side, int(top) + side


def _tile(picture: Picture) -> Picture:
    way = cv2.INTER_AREA if picture.shape[0] > TILE else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(picture, (TILE, TILE), interpolation=way), np.uint8)


def _enlarged(picture: Picture) -> Picture:
    times = -(-SIDE // min(picture.shape[:2]))
    return picture.repeat(times, 0).repeat(times, 1)


def _row(pictures: Sequence[Picture]) -> Picture:
    bar = np.full((pictures[0].shape[0], GAP, 3), 255, np.uint8)
    return np.hstack([each for picture in pictures for each in (bar, picture)][1:])


def _heat(picture: Picture, values: Plane) -> Picture:
    """Values from 0 to 1 in colour over the picture."""
    size = (picture.shape[1], picture.shape[0])
    level = np.clip(cv2.resize(values, size, interpolation=cv2.INTER_LINEAR) * 255, 0, 255).astype(np.uint8)
    colour = cv2.applyColorMap(level, cv2.COLORMAP_JET)
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return np.asarray(cv2.addWeighted(colour, 0.55, grey, 0.45, 0), np.uint8)


def _plot(title: str, unit: str, at: Plane, lines: Sequence[Plane]) -> Picture:
    (width, height), (left, below) = PANEL, MARGIN
    top, right = below // 2 + 8, left // 2
    panel = np.full((top + height + below, left + width + right, 3), 255, np.uint8)
    highest = 1.0 if title.startswith("probability") else max(float(max(line.max() for line in lines)), 1e-6)
    _text(panel, title, (left, top - 10))
    for step in range(5):
        y = top + height - round(height * step / 4)
        cv2.line(panel, (left, y), (left + width, y), RULE, 1)
        _text(panel, f"{highest * step / 4:.3g}", (left - 8, y + 4), before=1)
        amount = at[0] + (at[-1] - at[0]) * step / 4
        _text(panel, f"{amount:.3g}", (left + round(width * step / 4), top + height + 16), before=0.5)
    _text(panel, unit, (left + width // 2, top + height + 32), before=0.5)
    for i, line in enumerate(lines):
        x = left + (at - at[0]) / (at[-1] - at[0]) * width
        points = np.stack([x, top + height - line / highest * height], 1)
        cv2.polylines(panel, [np.round(points).astype(np.int32)], False, LINES[i % len(LINES)], 2, cv2.LINE_AA)
    return panel


def _text(picture: Picture, text: str, place: tuple[int, int], *, before: float = 0) -> None:
    """Text on a base line; `before`: the share of it that stands left of the place."""
    style = (cv2.FONT_HERSHEY_SIMPLEX, 0.4)
    wide = cv2.getTextSize(text, *style, 1)[0][0]
    cv2.putText(picture, text, (place[0] - round(before * wide), place[1]), *style, INK, 1, cv2.LINE_AA)
