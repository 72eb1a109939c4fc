"""Scenario tests as data: who drives where, and which warning must come when. One YAML file each, in data/scenarios/.

Gaps count from our front bumper, offsets are to the right, speeds are those of the test protocols in km/h.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from edgecnn.errors import InputError
from edgecnn.recipe import Section, read

FOLDER = Path(__file__).parent / "scenarios"
KMH = 1 / 3.6  # m/s

Warning = Literal["fcw", "pedestrian", "headway", "ldw_left", "ldw_right"]  # as in edgecnn.adas.event
Kind = Literal["car", "van", "truck", "bus", "person", "bicycle", "motorbike"]
Above = Annotated[float, Field(gt=0)]
AtLeast = Annotated[float, Field(ge=0)]
Pair = tuple[float, float]


class RoadSection(Section):
    """Right-hand traffic; what is not said is drawn by the seed."""

    kind: Literal["motorway", "country", "town"] = "motorway"
    lanes: Annotated[int, Field(ge=1, le=4)] = 2  # in our direction
    opposite: Annotated[int, Field(ge=1, le=4)] = 2
    lane_m: Above = 3.65
    curve_m: float | None = None  # radius, positive = right bend; straight unless given
    strip_m: AtLeast = 1.0  # hard shoulder or cycle strip at the outer edge
    parking_m: AtLeast = 0.0  # beyond it: width of a parking lane on either side
    gantries_m: tuple[float, ...] = ()  # sign gantries over the road, from our bumper at the start
    light: tuple[Literal["day", "overcast", "dusk", "night", "rain", "fog"], ...] = ("day", "overcast")  # one of them


class EgoSection(Section):
    """We hold our speed. `late` brakes 1.3 s before impact, not to hit; `follows` keeps a usual gap to its lead."""

    speed_kmh: Above
    lane: Annotated[int, Field(ge=0)] = 0  # 0 = the leftmost of our direction
    driver: Literal["late", "follows"] = "late"
    drift_mps: float = 0.0  # sideways, positive = to the right ...
    drift_at_s: AtLeast = 0.0  # ... from this time on
    wander_m: AtLeast = 0.12  # how far we swing within the lane before that


class MoveSection(Section):
    """What an actor does from a time on: another speed, or another lane."""

    at_s: AtLeast
    mps2: Above | None = None  # it speeds up or brakes by this ...
    to_kmh: AtLeast | None = None  # ... until it has this speed
    lane: int | None = None  # to the middle of this lane ...
    over_s: Above = 2.0  # ... in this time

    @model_validator(mode="after")
    def _one(self) -> MoveSection:
        if (self.lane is None) == (self.mps2 is None) or (self.mps2 is None) != (self.to_kmh is None):
            raise ValueError("a move has either mps2 and to_kmh, or lane")
        return self


class ActorSection(Section):
    """A road user, or `count` alike in a row, the next one `every_m` farther on."""

    type: Kind
    gap_m: float  # from our bumper to its near end at the start
    lane: int | None = None  # 0 = leftmost of our direction, -1 = the nearest of the other; ours unless given
    offset_m: float = 0.0  # of its middle from that lane's
    speed_kmh: AtLeast = 0.0
    heading: Literal["along", "oncoming", "left", "right"] = "along"  # left, right: across the road
    moves: tuple[MoveSection, ...] = ()
    count: Annotated[int, Field(ge=1)] = 1
    every_m: Above = 12.0
    danger: bool = False  # the one that the driver is to be warned of


class ExpectSection(Section):
    """The warnings of which one must come, its true figure at that moment within `window`; () = none may come."""

    warning: tuple[Warning, ...]
    window: Pair | None = None  # fcw, pedestrian: true TTC in s; headway: true headway in s; ldw: m inside the line
    also: tuple[Warning, ...] = ()  # no false alarms here, and not asked for either

    @field_validator("warning", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        return () if value == "none" else (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _window(self) -> ExpectSection:
        if bool(self.warning) != (self.window is not None):
            raise ValueError("a warning has a window, and 'none' has none")
        if self.window and self.window[0] >= self.window[1]:
            raise ValueError(f"window {list(self.window)} is not [low, high]")
        return self


class Scenario(Section):
    """One test. Seeds vary light, camera, models, all speeds by 2 and gaps by 3 per cent, and how we wander."""

    name: Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")]
    about: str  # one line for the table
    source: str  # of its figures
    length_s: Above
    road: RoadSection = RoadSection()
    ego: EgoSection
    actors: tuple[ActorSection, ...] = ()
    expect: ExpectSection

    @model_validator(mode="after")
    def _consistent(self) -> Scenario:
        lanes = range(-self.road.opposite, self.road.lanes)
        asked = [self.ego.lane, *(a.lane for a in self.actors), *(m.lane for a in self.actors for m in a.moves)]
        if wrong := [lane for lane in asked if lane is not None and lane not in lanes]:
            raise ValueError(f"lane {wrong[0]} on a road with lanes {lanes[0]} to {lanes[-1]}")
        dangers = sum(actor.danger for actor in self.actors)
        wanted = int(bool(set(self.expect.warning) & {"fcw", "pedestrian", "headway"}))
        if dangers != wanted or any(actor.danger and actor.count > 1 for actor in self.actors):
            raise ValueError(f"{dangers} actors with danger: true, wanted {wanted}, in no row")
        return self


def names() -> tuple[str, ...]:
    """Of the shipped scenarios, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def find_scenario(name: str) -> Scenario:
    """A shipped scenario by its name, or the YAML file at a path.

    Raises InputError where there is none, RecipeError naming the key where it is wrong.
    """
    path = Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise InputError(f"unknown scenario {name!r}", wanted=f"one of traffic, {', '.join(names())}, or a .yaml file")
    return read(path, Scenario, "name:, ego:, expect:")
