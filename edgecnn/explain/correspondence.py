"""Does the network know that parts of different pictures are the same (Zeiler and Fergus 2013, arXiv:1311.2901,
section 4.4)?

The same part is masked in each picture. e_i is how the features of picture i change; Delta is the Hamming distance
between sign(e_i) and sign(e_j), here as the share of features that differ, averaged over all pairs i < j. If the part
means the same to the network in all pictures, Delta is smaller than with the mask at random places.

Maps are local, so masks at one place also change the same features. Where a part lies at the very same place in all
pictures, as the cells of a grid do, each random mask does too; otherwise it is drawn for each picture, as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgecnn.explain.features import ends, look, masked
from edgecnn.progress import tracked

FEWEST = 3  # pictures: leaving one out must leave a pair
VECTOR = "last features"
STILL = 1e-5  # of a layer's largest feature: a change below is rounding, and has no sign

Box = tuple[int, int, int, int]  # x, y, width, height; px of the network's input
Signs = NDArray[np.int8]


@dataclass(frozen=True)
class Delta:
    """One part at one layer. Errors are standard errors."""

    part: str
    layer: str
    pictures: int
    delta: float
    error: float  # by leaving out one picture after the other
    random: float  # mean over the draws, masks of the same sizes at random places
    random_error: float
    below: float  # share of the draws whose Delta is not above the part's


def correspondence(
    net: nn.Module, x: Tensor, parts: Mapping[str, Mapping[int, Box]], *, draws: int = 10, seed: int = 0
) -> list[Delta]:
    """Delta of each part (name -> number of the picture -> its box) in the pictures (N, C, H, W), at the last layer
    with maps and at what the last fully connected layer is given. Each part is marked in at least three pictures."""
    random = np.random.default_rng(seed)
    controls: dict[tuple[Any, ...], list[dict[str, Signs]]] = {}
    rows = []
    with torch.no_grad():
        _, last = ends(look(net, x[:1]))
    for name, boxes in tracked(parts.items(), "correspondence", len(parts)):
        together = len(set(boxes.values())) == 1
        kind = (together, *((i, width, height) for i, (_, _, width, height) in boxes.items()))
        if kind not in controls:
            anywhere = [_places(random, x, list(boxes.values()), together) for _ in range(draws)]
            controls[kind] = _signs(net, last, [x[i : i + 1] for i in boxes], anywhere)
        (own,) = _signs(net, last, [x[i : i + 1] for i in boxes], [list(boxes.values())])
        for layer, signs in own.items():
            by_chance = np.array([mean_distance(each[layer]) for each in controls[kind]])
            delta = mean_distance(signs)
            error = float(by_chance.std(ddof=1) / np.sqrt(draws))
            below = float((by_chance <= delta).mean())
            rows.append(Delta(name, layer, len(boxes), delta, jackknife(signs), float(by_chance.mean()), error, below))
    return rows


def mean_distance(signs: Signs) -> float:
    """(pictures, features) of -1, 0, 1 → share of the features that differ, averaged over all pairs of pictures."""
    n = len(signs)
    return float(np.mean([(signs[i] != signs[j]).mean() for i in range(n) for j in range(i)]))


def jackknife(signs: Signs) -> float:
    """Standard error of `mean_distance`: pairs share pictures, so it is the pictures that are left out by turns."""
    n = len(signs)
    without = np.array([mean_distance(np.delete(signs, i, 0)) for i in range(n)])
    return float(np.sqrt((n - 1) * without.var()))


def grid(count: int, height: int, width: int) -> dict[str, dict[int, Box]]:
    """Nine parts for pictures whose parts are not marked: the cells of a 3x3 grid, the same in each picture."""
    tall, wide = height // 3, width // 3
    names = [f"{row} {column}" for row in ("top", "middle", "bottom") for column in ("left", "centre", "right")]
    places = [(column * wide, row * tall, wide, tall) for row in range(3) for column in range(3)]
    return {name: dict.fromkeys(range(count), box) for name, box in zip(names, places, strict=True)}


def _signs(
    net: nn.Module, last: str, pictures: Sequence[Tensor], masks: Sequence[Sequence[Box]]
) -> list[dict[str, Signs]]:
    """For each set of masks (one a picture): layer → (pictures, features), the sign of the change."""
    found: list[dict[str, list[Tensor]]] = [{last: [], VECTOR: []} for _ in masks]
    with torch.no_grad():
        for k, picture in enumerate(pictures):
            seen = look(net, torch.cat([picture, masked(picture, [boxes[k] for boxes in masks])]), (last,))
            for name, features in ((last, seen.maps[last].flatten(1)), (VECTOR, seen.vector)):
                change = features[1:] - features[:1]
                change[change.abs() <= STILL * features.abs().max()] = 0
                for one, sign in zip(found, change.sign(), strict=True):
                    one[name].append(sign)
    return [{name: torch.stack(rows).to(torch.int8).numpy() for name, rows in one.items()} for one in found]


def _places(random: np.random.Generator, x: Tensor, boxes: Sequence[Box], together: bool) -> list[Box]:
    """Boxes of the same sizes at random places within the picture; with `together` one place for all."""
    found: list[Box] = []
    for _, _, width, height in boxes:
        left, top = random.integers(0, x.shape[3] - width + 1), random.integers(0, x.shape[2] - height + 1)
        found.append((int(left), int(top), width, height))
    return found[:1] * len(boxes) if together else found
