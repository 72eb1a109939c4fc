"""Pedestrian warning: people and riders who are in our path when we get there, or walk into it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgecnn.adas.bounds import within
from edgecnn.adas.ego import Ego
from edgecnn.adas.path import Place
from edgecnn.adas.ttc import Contact, contact_time
from edgecnn.scene import Bool

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class PedestrianSettings:
    on_s: float = field(metadata=within(0.5, 10))  # warn when we are there sooner
    off_s: float = field(metadata=within(0.5, 20))  # a warning lasts while we are there sooner
    half_width_m: float = field(metadata=within(0.2, 3))  # of the corridor in which they will then be
    crossing_mps: float = field(metadata=within(0, 5))  # who is still beside the corridor must come at least so fast
    reach_m: float = field(metadata=within(0.5, 20))  # and who is farther to the side than this is no danger yet
    least_mps: float = field(metadata=within(0, 20))  # below this own speed there is no warning
    sure_sigmas: float = field(metadata=within(-3, 5))  # by which a rider must be expected within `on_s`
    least_age_s: float = field(metadata=within(0, 5))  # of a track: before, its sideways speed is a guess
    on_detections: float = field(metadata=within(1, 100))
    calm_s: float = field(metadata=within(0, 5))


def arrival_s(contact: Contact, gap_m: F64, person: Bool, ego: Ego) -> F64:
    """(N,) s until our bumper is where each object is; inf = never.

    Of people on foot, where our speed is known, by that: their own speed along the road is small, and a box of a few
    pixels tells growth badly. Of all others by how the box grows.
    """
    if math.isnan(ego.speed_mps):
        return contact.ttc_s
    gap = np.where(np.isfinite(gap_m), np.maximum(gap_m, 1e-3), np.inf)
    finite = np.where(np.isfinite(gap), gap, 1e6)
    own = contact_time(finite, np.full(len(gap), -ego.speed_mps), np.full(len(gap), -0.5 * ego.acceleration_mps2))
    return np.where(person, own, contact.ttc_s)


def pedestrian(
    settings: PedestrianSettings,
    where: Place,
    contact: Contact,
    time_s: F64,
    person: Bool,
    rider: Bool,
    age_s: NDArray[np.float32],
    ego: Ego,
) -> tuple[Bool, Bool]:
    """Which of N objects are reason to begin a warning, and which to let one go on. `time_s` (N,) as `arrival_s`."""
    s = settings
    moving = not ego.speed_mps < s.least_mps  # nan: taken for moving
    reach = s.half_width_m + where.half_m
    with np.errstate(invalid="ignore"):  # nan: not on the road
        within_reach = (person | rider) & moving & (np.abs(where.aside_m) < s.reach_m)
        there = np.abs(where.aside_m + where.drift_mps * np.minimum(time_s, s.off_s)) < reach
        coming = -np.sign(where.aside_m) * where.drift_mps > s.crossing_mps
        inside = np.abs(where.aside_m) < reach
    danger = within_reach & there & (inside | coming) & (age_s >= s.least_age_s)
    danger &= person | (contact.surely_within(s.on_s) > s.sure_sigmas)
    return danger & (time_s < s.on_s), within_reach & (inside | there) & (time_s < s.off_s)
