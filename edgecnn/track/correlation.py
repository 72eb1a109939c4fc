"""Single objects followed by what they look like: correlation filters on gradients, all objects at once.

Each object has a window of its surroundings, brought to one size and turned into histograms of gradient directions in
cells (Dalal and Triggs 2005). A filter a channel, learnt by ridge regression in the frequency domain, answers with a
peak where the object is: Bolme et al., "Visual Object Tracking using Adaptive Correlation Filters", CVPR 2010 (MOSSE),
with the channels of Danelljan et al., "Accurate Scale Estimation for Robust Visual Tracking", BMVC 2014, section 3.1.
Three sizes of the window are tried; the peak of a parabola through their answers is the change of size.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from edgecnn.scene import F32

_CELLS = 16  # of a window, a side
_CELL_PX = 4  # of the resampled window
_SIDE = _CELLS * _CELL_PX
_BINS = 8  # gradient directions, light to dark told from dark to light
_WINDOW = 2.0  # sides of the window in those of the object
_SCALES = np.array([1 / 1.04, 1.0, 1.04])
_SIGMA = 0.1  # of the wished-for peak, sides of the object
_RIDGE = 1e-2  # share of the mean energy
_RATE = 0.02  # at which filters learn
_GROW = 0.8  # share of the measured change of size that is taken over: one frame's is noisy
_NORM = 0.2  # histograms are divided by their own length and at least by this share of the window's greatest
_POOL = np.kron(np.eye(_CELLS, dtype=np.float32), np.ones((_CELL_PX, 1), np.float32))  # (side, cells)


class Correlation:
    """Follows N objects through grey pictures. Raises ValueError for boxes of another shape than (N, 4)."""

    def __init__(self, grey: NDArray[np.uint8], xyxy: NDArray[Any]) -> None:
        """`grey` (h, w) and where the objects are in it, (N, 4) px."""
        if np.ndim(xyxy) != 2 or np.shape(xyxy)[1] != 4:
            raise ValueError(f"boxes of shape {np.shape(xyxy)}, not (N, 4)")
        boxes = np.asarray(xyxy, np.float64)
        self._centre = 0.5 * (boxes[:, :2] + boxes[:, 2:])
        self._wh = np.maximum(boxes[:, 2:] - boxes[:, :2], 2.0)
        cell = (np.arange(_CELLS) - _CELLS // 2) / (_SIGMA * _CELLS / _WINDOW)
        goal = np.exp(-0.5 * (cell[:, None] ** 2 + cell[None] ** 2))
        self._goal = fft.rfft2(np.fft.ifftshift(goal).astype(np.float32))
        hann = np.hanning(_CELLS + 2)[1:-1].astype(np.float32)
        self._taper = hann[:, None] * hann[None]
        spectrum = self._spectrum(grey, np.ones(1))[:, 0]
        self._top, self._bottom = self._learnt(spectrum)

    def step(self, grey: NDArray[np.uint8]) -> tuple[F32, F32]:
        """Boxes (N, 4) px in the next picture, and the height of each answer's peak (N,), about 1 where all is well."""
        seen = self._spectrum(grey, _SCALES)  # (N, S, C, h, w)
        answer = fft.irfft2(
            (self._top[:, None] * seen).sum(axis=2) / self._bottom[:, None], s=(_CELLS, _CELLS), workers=1
        )  # (N, S, h, w)
        n, scales = answer.shape[:2]
        flat = answer.reshape(n, scales, _CELLS * _CELLS)
        best = flat.max(axis=2)
        rows, chosen = np.arange(n), best.argmax(axis=1)
        peak = flat[rows, chosen].argmax(axis=1)
        y, x = np.divmod(peak, _CELLS)
        plane = answer[rows, chosen]
        beside = [(-1) % _CELLS, 0, 1]
        dy = y + _vertex(*(plane[rows, (y + d) % _CELLS, x] for d in beside))
        dx = x + _vertex(*(plane[rows, y, (x + d) % _CELLS] for d in beside))
        shift = np.stack([dx, dy], axis=1)
        shift -= np.where(shift > _CELLS / 2, _CELLS, 0)
        self._centre += shift / _CELLS * _WINDOW * self._wh * _SCALES[chosen][:, None]
        grown = _vertex(*best.T)
        grown = np.where(chosen == 1, grown, chosen - 1.0)
        self._wh = np.maximum(self._wh * np.exp(_GROW * np.log(_SCALES[2]) * grown)[:, None], 2.0)
        top, bottom = self._learnt(self._spectrum(grey, np.ones(1))[:, 0])
        self._top += _RATE * (top - self._top)
        self._bottom += _RATE * (bottom - self._bottom)
        boxes = np.concatenate([self._centre - 0.5 * self._wh, self._centre + 0.5 * self._wh], axis=1)
        return boxes.astype(np.float32), best[rows, chosen].astype(np.float32)

    def _learnt(self, spectrum: NDArray[np.complex64]) -> tuple[NDArray[np.complex64], F32]:
        energy = (spectrum.real**2 + spectrum.imag**2).sum(axis=1)
        ridge = _RIDGE * energy.mean(axis=(1, 2), keepdims=True)
        return np.asarray(self._goal * spectrum.conj()), np.asarray(
            energy + ridge + 1e-6, np.float32
        )  # a flat window has none

    def _spectrum(self, grey: NDArray[np.uint8], scales: NDArray[np.float64]) -> NDArray[np.complex64]:
        """(N, S, C, h, w / 2 + 1) of the windows at those multiples of their size."""
        n, s = len(self._centre), len(scales)
        along = (np.arange(_SIDE) + 0.5) / _SIDE - 0.5
        reach = _WINDOW * self._wh[:, None] * scales[None, :, None]  # (N, S, 2)
        at = self._centre[:, None, :, None] + reach[..., None] * along - 0.5  # (N, S, 2, side)
        shape = (n, s, _SIDE, _SIDE)
        # A row a window: OpenCV takes no more than 32767 rows or columns.
        x = np.broadcast_to(at[:, :, 0, None, :], shape).reshape(n * s, _SIDE * _SIDE).astype(np.float32)
        y = np.broadcast_to(at[:, :, 1, :, None], shape).reshape(n * s, _SIDE * _SIDE).astype(np.float32)
        windows = np.zeros((0, _SIDE, _SIDE), np.uint8)
        if n:
            seen = cv2.remap(grey, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            windows = np.asarray(seen, np.uint8).reshape(-1, _SIDE, _SIDE)
        spectrum = fft.rfft2(_histograms(windows) * self._taper, workers=1)
        return np.asarray(spectrum.reshape(n, s, _BINS, _CELLS, _CELLS // 2 + 1), np.complex64)


def _histograms(windows: NDArray[np.uint8]) -> F32:
    """(M, side, side) grey → (M, bins, cells, cells): strength of the gradients in each direction, normed."""
    grey = windows.astype(np.float32)
    dx, dy = np.zeros_like(grey), np.zeros_like(grey)
    dx[:, :, 1:-1] = grey[:, :, 2:] - grey[:, :, :-2]
    dy[:, 1:-1] = grey[:, 2:] - grey[:, :-2]
    m = len(grey)
    out = np.empty((m, _BINS, _CELLS, _CELLS), np.float32)
    for i in range(_BINS // 2):  # how far each gradient points that way, or the opposite one
        angle = 2 * np.pi * i / _BINS
        along = dx * np.float32(np.cos(angle)) + dy * np.float32(np.sin(angle))
        ahead = np.maximum(along, 0)
        out[:, i] = _pooled(ahead)
        out[:, i + _BINS // 2] = _pooled(np.subtract(ahead, along, out=ahead))
    length = np.sqrt((out * out).sum(axis=1, keepdims=True))
    out /= length + _NORM * length.max(axis=(2, 3), keepdims=True) + np.float32(1e-3)
    return np.asarray(out - out.mean(axis=(2, 3), keepdims=True), np.float32)


def _pooled(plane: F32) -> F32:
    """(M, side, side) → (M, cells, cells), sums; rows first, which lie one after the other in memory."""
    return np.asarray(plane.reshape(-1, _CELLS, _CELL_PX, _SIDE).sum(axis=2) @ _POOL)


def _vertex(before: NDArray[Any], at: NDArray[Any], after: NDArray[Any]) -> NDArray[Any]:
    """Where the parabola through three neighbours is highest, in [-0.5, 0.5] of their distance from the middle one."""
    bend = before - 2 * at + after
    ratio = np.divide(0.5 * (before - after), bend, out=np.zeros_like(at), where=np.abs(bend) > 1e-12)
    return np.asarray(np.clip(ratio, -0.5, 0.5))
