"""What OC-SORT takes from a track's detections rather than from its filter: its direction, and the way through a gap.

Cao, Pang, Weng, Khirodkar and Kitani, "Observation-Centric SORT", CVPR 2023, arXiv:2203.14360.
"""

from __future__ import annotations

import numpy as np

from edgecnn.scene import F32, I64
from edgecnn.track.assign import F64
from edgecnn.track.motion import Motion, Noise, box, coordinates


def onward(past: F64, centres: F64) -> F64:
    """(N, M) in [-1/2, 1/2]: how well each of `centres` (M, 2) px would go on in each track's direction, section 4.2.

    `past` (N, L, 2) px are the centres of a track's last detections, newest first, nan where there were fewer.
    """
    many = np.maximum((~np.isnan(past[:, :, 0])).sum(1) - 1, 0)
    came = past[:, 0] - past[np.arange(len(past)), many]
    goes = centres[None] - past[:, 0][:, None]
    norm = np.linalg.norm(came, axis=1)[:, None] * np.linalg.norm(goes, axis=2)
    cosine = np.divide((came[:, None] * goes).sum(2), norm, out=np.zeros_like(norm), where=norm > 0)
    angle = np.arccos(np.clip(cosine, -1, 1))
    return np.asarray(0.5 - angle / np.pi)


def revised(then: Motion, gap_s: F64, steps: I64, xyxy: F32, noise: Noise) -> Motion:
    """Tracks `then`, last measured `gap_s` (N,) ago, as if they had been seen on a straight line to where they are now,
    `xyxy` (N, 4) px, in `steps` (N,) even steps of time, one or more: section 4.1. The last step is only predicted."""
    motion = then[np.arange(len(steps))]  # a copy
    start, end = then.value, coordinates(xyxy)
    for k in range(1, int(steps.max()) + 1):
        on = np.flatnonzero(steps >= k)
        part = motion[on]
        part.predict((gap_s / steps)[on, None], noise)
        if k < steps.max():
            inner = np.flatnonzero(steps[on] > k)
            share = (k / steps[on][inner])[:, None]
            part.update(inner, box(start[on][inner] * (1 - share) + end[on][inner] * share), noise)
        for name, column in vars(part).items():
            getattr(motion, name)[on] = column
    return motion
