"""The four classes of road users, in the order of their labels."""

from __future__ import annotations

CLASSES: tuple[str, ...] = ("car", "truck_bus", "two_wheeler", "person")
CAR, TRUCK_BUS, TWO_WHEELER, PERSON = range(4)
