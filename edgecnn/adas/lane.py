"""Our lane, as it lies on the road."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Lane:
    """Both lines of our lane in the road frame of edgecnn.adas.camera: metres to the right of the camera.

    A line lies at `side + slope * z + curvature * z² / 2`, z metres ahead.
    """

    left_m: float  # negative = left of us; nan = not seen
    right_m: float  # nan = not seen
    slope: float  # tangent of the lane's direction against the car's, positive = it leads to the right
    curvature: float  # 1/m, positive = right bend
    reach_m: float  # how far ahead the lines were seen

    @property
    def seen(self) -> bool:
        """Whether both lines are known."""
        return math.isfinite(self.left_m) and math.isfinite(self.right_m)

    def bend(self, forward_m: NDArray[Any]) -> NDArray[np.float64]:
        """How far right of its place beside us the lane lies (N,), m, at `forward_m` (N,)."""
        z = np.asarray(forward_m, np.float64)
        return self.slope * z + 0.5 * self.curvature * z * z
