"""Driver assistance: what tracks mean on a road, and when to warn."""

from edgecnn.adas.camera import Camera
from edgecnn.adas.event import Event
from edgecnn.adas.lane import Lane
from edgecnn.adas.lanes import LaneDetector, LaneSettings
from edgecnn.adas.scene import Scene, SceneAnalysis
from edgecnn.adas.schedule import Schedule, ScheduleSettings
from edgecnn.adas.thresholds import SceneSettings

__all__ = [
    "Camera",
    "Event",
    "Lane",
    "LaneDetector",
    "LaneSettings",
    "Scene",
    "SceneAnalysis",
    "SceneSettings",
    "Schedule",
    "ScheduleSettings",
]
