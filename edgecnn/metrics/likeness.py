"""How near one network's vectors are to another's, for networks that answer with an embedding."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError


def likeness(vectors: NDArray[Any], wanted: NDArray[Any]) -> dict[str, float]:
    """`{"cosine": ..., "nearest": ...}` of vectors (N, D), of any length but zero, a row a picture.

    `cosine`: mean over the pictures of the cosine between the two vectors. `nearest`: share of the pictures whose
    nearest other picture, by cosine, is the same in both: what a search by likeness would find. It needs three
    pictures, and is left out of fewer. A vector of zeros is like no other.

    Raises InputError where there is nothing to compare or the shapes differ.
    """
    if vectors.ndim != 2 or len(vectors) == 0 or vectors.shape != wanted.shape:
        raise InputError(f"vectors of shape {vectors.shape} beside {wanted.shape}", wanted="(N, D) twice")
    a, b = _unit(vectors), _unit(wanted)
    figures = {"cosine": float((a * b).sum(1).mean())}
    if len(a) > 2:
        itself = 3 * np.eye(len(a))  # a cosine is 1 at most
        figures["nearest"] = float(np.mean((a @ a.T - itself).argmax(1) == (b @ b.T - itself).argmax(1)))
    return figures


def _unit(vectors: NDArray[Any]) -> NDArray[np.float64]:
    x = vectors.astype(np.float64)
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12), np.float64)
