"""Forward-collision warning: which vehicles are a danger, and which no longer."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgecnn.adas.bounds import within
from edgecnn.adas.ego import Ego
from edgecnn.adas.ttc import Contact
from edgecnn.scene import F32, Bool


@dataclass(frozen=True)
class FcwSettings:
    on_s: float = field(metadata=within(0.5, 10))  # warn below this time to collision, braking included
    off_s: float = field(metadata=within(0.5, 20))  # a warning lasts while it is below this
    on_detections: float = field(metadata=within(1, 100))  # consecutive ones of danger before a warning
    calm_s: float = field(metadata=within(0, 5))  # without danger before it ends
    sure_sigmas: float = field(metadata=within(-3, 5))  # by which contact before `on_s` must be expected
    least_mps: float = field(metadata=within(0, 20))  # below this own speed there is no warning ...
    braking_mps2: float = field(
        metadata=within(0, 20)
    )  # ... nor while we brake harder than this: the driver has seen it
    least_score: float = field(metadata=within(0, 1))  # of the detection: of a poor one size and place are poor
    steady_s: float = field(metadata=within(0.5, 60))  # at the present closing speed alone, contact must be nearer


def fcw(
    settings: FcwSettings, contact: Contact, vehicle: Bool, in_path: Bool, score: F32, ego: Ego
) -> tuple[Bool, Bool]:
    """Which of N objects, detected with `score` (N,), are reason to begin a warning, and which to let one go on."""
    ours = vehicle & in_path
    danger = ours & (contact.surely_within(settings.on_s) > settings.sure_sigmas)
    danger &= score >= settings.least_score
    danger &= contact.growth > 1 / settings.steady_s  # nan: too young, and no danger
    danger &= not (ego.speed_mps < settings.least_mps or ego.acceleration_mps2 < -settings.braking_mps2)  # nan: moving
    return danger, ours & (contact.ttc_s < settings.off_s)
