"""What a sweep tries: every combination of the values, of every recipe, all read before the first one is compiled."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecnn.errors import RecipeError
from edgecnn.overrides import load_with
from edgecnn.recipe import Recipe, dumped

LONGEST = 120  # characters of a folder's name


@dataclass(frozen=True)
class Cell:
    """One combination: a recipe and the values of the keys that are varied."""

    name: str  # of its folder; no other cell has it
    recipe: str
    values: Mapping[str, Any]
    text: str  # the recipe with the values set, YAML; its paths are absolute


def plan(recipes: Sequence[Path], sets: Mapping[str, Sequence[Any]]) -> list[Cell]:
    """Every cell, in the order of the recipes and values as given, the last key fastest.

    Raises InputError and RecipeError as `load_with`, and RecipeError where two cells would be the same: recipes of one
    name, or a key that changes nothing.
    """
    cells: list[Cell] = []
    seen: dict[str, str] = {}  # what a cell comes to → its name
    for path in recipes:
        for combination in itertools.product(*sets.values()):
            values = dict(zip(sets, combination, strict=True))
            recipe = load_with(path, values)
            cell = Cell(_name(recipe, values), recipe.name, values, dumped(recipe))
            if any(cell.name == other.name for other in cells):
                raise RecipeError(f"two recipes are called {recipe.name}", do="Give each a `name:` of its own")
            # a seed that every step overrules stands in the recipe and changes nothing
            same = recipe.model_copy(update={"name": "", "seed": None}).model_dump_json()
            if same in seen:
                raise RecipeError(f"{seen[same]} and {cell.name} are the same", wanted="values that change the result")
            seen[same] = cell.name
            cells.append(cell)
    return cells


def _name(recipe: Recipe, values: Mapping[str, Any]) -> str:
    """Readable, and a file name on every system: what had to be changed or cut is told apart by a hash."""
    told = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()]
    whole = " ".join([recipe.name, *told])
    name = re.sub(r"[^A-Za-z0-9=._+-]+", "_", "-".join([recipe.name, *told])).strip(".")
    if len(name) <= LONGEST and name == "-".join([recipe.name, *told]):
        return name
    return f"{name[:LONGEST]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
