"""What a set of pictures says about itself without any network: the same picture twice, nearly the same, how bright."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.data.calibration import pixel_hash
from edgecnn.data.sample import Sample
from edgecnn.scene import Picture

NEAR = 4  # of 63 bits. JPEG, 5 % of brightness or 2 px of shift change 0 to 4; different scenes differ in 14 or more


@dataclass(frozen=True)
class Look:
    """What is remembered of a picture once it is out of memory."""

    name: str
    sha256: str  # of shape and pixels
    bits: NDArray[np.bool_]  # (63,) perceptual hash
    brightness: float  # mean luma, 0-255
    labels: frozenset[int]

    @classmethod
    def of(cls, sample: Sample) -> Look:
        grey = cv2.cvtColor(sample.bgr, cv2.COLOR_BGR2GRAY)
        labels = frozenset(int(label) for label in sample.truth.label if label >= 0)
        return cls(sample.name, pixel_hash(sample.bgr), bits(sample.bgr), float(grey.mean()), labels)


def bits(bgr: Picture) -> NDArray[np.bool_]:
    """(H, W, 3) → (63,): which of the 8x8 lowest frequencies of the picture, less the mean, exceed their median.

    The hash by discrete cosine transform of Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash
    Functions", section 3.2.
    """
    small = cv2.resize(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:8, :8].ravel()[1:]
    found: NDArray[np.bool_] = low > np.median(low)
    return found


def copies(looks: Sequence[Look]) -> list[tuple[str, str]]:
    """(picture, the earlier one with the very same pixels)."""
    first: dict[str, str] = {}
    found = []
    for look in looks:
        if look.sha256 in first:
            found.append((look.name, first[look.sha256]))
        first.setdefault(look.sha256, look.name)
    return found


def near_copies(looks: Sequence[Look]) -> list[tuple[str, str]]:
    """(picture, an earlier one that looks like it), the very same left out. Flat pictures have no hash to compare."""
    distinct = list({look.sha256: look for look in reversed(looks)}.values())[::-1]
    hashes = np.array([look.bits for look in distinct], np.float32).reshape(len(distinct), -1)
    apart = hashes @ (1 - hashes).T + (1 - hashes) @ hashes.T
    apart[:, hashes.sum(1) == 0] = np.inf
    found = []
    for row in range(1, len(distinct)):
        nearest = int(apart[row, :row].argmin())
        if apart[row, nearest] <= NEAR:
            found.append((distinct[row].name, distinct[nearest].name))
    return found
