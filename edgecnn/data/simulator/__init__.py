"""A road simulator: pictures with exact truth, deterministic by seed, more than real time on one core."""

from __future__ import annotations

from edgecnn.data.simulator.camera import Camera
from edgecnn.data.simulator.drive import Drive, Ego
from edgecnn.data.simulator.staged import Danger
from edgecnn.data.simulator.still import still

__all__ = ["Camera", "Danger", "Drive", "Ego", "still"]
