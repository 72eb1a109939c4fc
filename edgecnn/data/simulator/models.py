"""The stock of road users: a few hundred models, each built once when it first drives by."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from edgecnn.data.simulator.bodywork import Model
from edgecnn.data.simulator.cars import car, van
from edgecnn.data.simulator.heavy import bus, truck
from edgecnn.data.simulator.people import bicycle, motorbike, person

_STOCK: dict[str, tuple[Callable[[np.random.Generator], Model], int]] = {
    "car": (car, 300),
    "van": (van, 60),
    "truck": (truck, 80),
    "bus": (bus, 50),
    "person": (person, 160),
    "bicycle": (bicycle, 80),
    "motorbike": (motorbike, 80),
}  # kind → sculptor, how many


@functools.cache
def _built(kind: str, number: int) -> Model:
    """Model `number` of a kind; building one takes longer than drawing it."""
    return _STOCK[kind][0](np.random.default_rng((4711, number)))


def from_stock(rng: np.random.Generator, kind: str) -> Model:
    """One of the models of a kind: car, van, truck, bus, person, bicycle or motorbike."""
    return _built(kind, int(rng.integers(_STOCK[kind][1])))


def vehicle(rng: np.random.Generator, heavy: float = 0.18) -> Model:
    """A vehicle of traffic with a share of `heavy` trucks and buses."""
    t = rng.uniform()
    if t < heavy:
        return from_stock(rng, "truck" if rng.uniform() < 0.68 else "bus")
    return from_stock(rng, "van" if t < heavy + 0.1 else "car")


def two_wheeler(rng: np.random.Generator) -> Model:
    return from_stock(rng, "motorbike" if rng.uniform() < 0.45 else "bicycle")
