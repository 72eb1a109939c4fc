"""What an object's class says about it on a road: how large it is, and who is to be warned of how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgecnn.adas.bounds import within
from edgecnn.scene import Bool

F64 = NDArray[np.float64]
CLASSES = ("car", "truck_bus", "two_wheeler", "person")  # of the shipped detector
PERSON, TWO_WHEELER = "person", "two_wheeler"


@dataclass(frozen=True)
class Kind:
    """A kind of road user. Its size is its width, or where `tall` is 1 its height."""

    names: tuple[str, ...]  # of classes that are of this kind, lower case
    tall: float = field(metadata=within(0, 1))
    size_m: float = field(metadata=within(0.2, 6))
    spread_ratio: float = field(metadata=within(0.01, 1))  # standard deviation of the size, share of it
    length_m: float = field(metadata=within(0, 30))  # of the flank that shows beside the width
    overhang_m: float = field(metadata=within(0, 3))  # from its nearest point to where it touches the road


class Kinds:
    """Columns by label: index them with Tracks.label. A class of no known kind counts as a car."""

    def __init__(self, kinds: Mapping[str, Kind], classes: tuple[str, ...]) -> None:
        of = [_kind(kinds, name) for name in classes] or ["car"]
        self.size_m, self.spread_ratio, self.length_m, self.overhang_m = (
            np.array([getattr(kinds[k], name) for k in of])
            for name in ("size_m", "spread_ratio", "length_m", "overhang_m")
        )
        self.tall: Bool = np.array([kinds[k].tall > 0.5 for k in of])
        self.person: Bool = np.array([k == PERSON for k in of])
        self.two_wheeler: Bool = np.array([k == TWO_WHEELER for k in of])
        self.vehicle: Bool = ~self.person
        self.largest_m = float(self.size_m.max())


def _kind(kinds: Mapping[str, Kind], name: str) -> str:
    return next((kind for kind, its in kinds.items() if name.lower() in its.names), "car")
