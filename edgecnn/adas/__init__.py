"""Driver assistance: what tracks mean on a road, and when to warn."""

from edgecnn.adas.camera import Camera
from edgecnn.adas.fcw import Event
from edgecnn.adas.scene import Scene, SceneAnalysis, SceneSettings
from edgecnn.adas.schedule import Schedule, ScheduleSettings

__all__ = ["Camera", "Event", "Scene", "SceneAnalysis", "SceneSettings", "Schedule", "ScheduleSettings"]
