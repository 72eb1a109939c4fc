"""What the driver, or a log, is told once: a warning begins, or ends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

WARNINGS = ("fcw", "pedestrian", "headway", "ldw_left", "ldw_right")
NOBODY = 0  # `Event.track` where no track is the reason; ids begin at 1


@dataclass(frozen=True)
class Event:
    """A warning that begins ("fcw_on") or ends ("fcw_off") in one frame."""

    t_ns: int
    frame: int  # index of the frame
    kind: str  # one of WARNINGS, and _on or _off
    track: int  # id; NOBODY = none
    ttc_s: float  # inf = not closing in, or no longer
    distance_m: float  # to the track, or from the wheel to the line; nan = not known

    def json(self) -> dict[str, Any]:
        """A dict that strict JSON can hold: a figure that is not finite becomes None."""
        return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in vars(self).items()}
