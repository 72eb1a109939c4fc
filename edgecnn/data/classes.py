"""The four classes of road users, in the order of their labels, and how other data sets' names map to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CLASSES: tuple[str, ...] = ("car", "truck_bus", "two_wheeler", "person")
CAR, TRUCK_BUS, TWO_WHEELER, PERSON = range(4)
DROPPED, IGNORED = -1, -2  # not a road user; a place where neither a hit nor a miss counts

_NAMES: dict[str, dict[str, int]] = {
    "kitti": {
        "car": CAR, "van": CAR, "truck": TRUCK_BUS, "tram": TRUCK_BUS, "bus": TRUCK_BUS, "cyclist": TWO_WHEELER,
        "pedestrian": PERSON, "person": PERSON, "person_sitting": PERSON, "dontcare": IGNORED,
    },
    "coco": {
        "car": CAR, "bus": TRUCK_BUS, "truck": TRUCK_BUS, "train": TRUCK_BUS, "bicycle": TWO_WHEELER,
        "motorcycle": TWO_WHEELER, "person": PERSON,
    },
    "voc": {
        "car": CAR, "bus": TRUCK_BUS, "train": TRUCK_BUS, "bicycle": TWO_WHEELER, "motorbike": TWO_WHEELER,
        "person": PERSON,
    },
    "carla": {"vehicle": CAR, "bike": TWO_WHEELER, "motobike": TWO_WHEELER, "motorbike": TWO_WHEELER},
    "openimages": {
        "car": CAR, "ambulance": CAR, "taxi": CAR, "van": CAR, "limousine": CAR, "truck": TRUCK_BUS, "bus": TRUCK_BUS,
        "motorcycle": TWO_WHEELER, "bicycle": TWO_WHEELER, "person": PERSON,
    },
    "mot": {"pedestrian": PERSON, "person": PERSON, "car": CAR, "bicycle": TWO_WHEELER, "motorbike": TWO_WHEELER},
}  # fmt: skip


def class_map(source: str, name: str) -> int:
    """Label of a data set's class name among CLASSES; DROPPED for what is no road user, IGNORED for "DontCare".

    `source`: kitti, coco, voc, carla, openimages or mot. Upper and lower case are the same. Raises KeyError for another
    source.
    """
    return _NAMES[source].get(name.lower(), DROPPED)


@dataclass(frozen=True)
class Naming:
    """Which label a reader gives to a name in its files."""

    classes: tuple[str, ...]
    table: Mapping[str, int]  # lower-case name → label, or IGNORED

    def label(self, name: str) -> int:
        """Label, DROPPED or IGNORED."""
        return self.table.get(name.lower(), DROPPED)

    @classmethod
    def of(
        cls, source: str, own: Sequence[str], *, raw: bool = False, classes: Mapping[str, int] | None = None
    ) -> Naming:
        """The four classes of the road; the file's `own` ones if `raw`; or a mapping given by the caller."""
        if raw:
            ignored = {n: v for n, v in _NAMES.get(source, {}).items() if v == IGNORED}
            return cls(tuple(own), {**{n.lower(): i for i, n in enumerate(own)}, **ignored})
        if classes is not None:
            return cls(CLASSES, {n.lower(): label for n, label in classes.items()})
        return cls(CLASSES, _NAMES[source])
