"""Objects keep their numbers from frame to frame, and move on between detections."""

from edgecnn.track.motion import MOVING
from edgecnn.track.settings import METHODS, Settings
from edgecnn.track.tracker import Tracker

__all__ = ["METHODS", "MOVING", "Settings", "Tracker"]
