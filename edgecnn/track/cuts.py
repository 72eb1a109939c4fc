"""Hard cuts: the source switched to another scene, and no track goes on."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_WIDTH, _HEIGHT = 64, 36  # of the thumbnails compared: motion and noise average out, a scene does not
_ALIKE = 0.4  # correlation of two thumbnails; on real footage consecutive frames keep above .5, cuts fall below .25
_GREY = 8.0  # least mean change, grey levels: two dark frames differ by noise alone, and noise does not correlate


class CutDetector:
    """Compares each frame with the one before it.

    Correlation is blind to brightness and contrast, so a tunnel's end or an exposure step is not taken for a cut.
    """

    def __init__(self) -> None:
        self._before: NDArray[np.float32] | None = None

    def step(self, picture: NDArray[np.uint8]) -> bool:
        """Whether this picture, (h, w) grey or (h, w, 3) BGR of any size, begins a new scene. The first does not."""
        step = max(1, picture.shape[1] // (4 * _WIDTH))  # 16 samples a thumbnail pixel are enough
        picture = np.ascontiguousarray(picture[::step, ::step])
        while picture.shape[1] >= 2 * _WIDTH and picture.shape[0] >= 2 * _HEIGHT:
            half = (picture.shape[1] // 2, picture.shape[0] // 2)  # by area: 20 times faster than to any other size
            picture = np.asarray(cv2.resize(picture, half, interpolation=cv2.INTER_AREA), np.uint8)
        small = cv2.resize(picture, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_AREA)
        if small.ndim == 3:
            small = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
        now = small.astype(np.float32)
        before, self._before = self._before, now
        if before is None or float(np.abs(now - before).mean()) < _GREY:
            return False
        a, b = now - now.mean(), before - before.mean()
        return float((a * b).sum()) < _ALIKE * float(np.sqrt((a * a).sum() * (b * b).sum()))
