"""Keys of a recipe set from the command line: `train.lr=0.01`, or several values to try: `train.lr=0.01,0.02`.

A key is the way to a place in the file, names and places in lists with dots between: `slim.steps.0.prune.macs`. Values
are YAML. What a value may be is the recipe's affair (edgecnn.recipe); here is whether there is such a key.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from edgecnn.errors import RecipeError
from edgecnn.recipe import Recipe, Section, load, sections_in

NEAR = 3  # keys named at most where one is not known


def parse(text: str) -> tuple[str, list[Any]]:
    """`KEY=A,B` → the key and its values; a comma inside brackets divides nothing.

    Raises RecipeError for anything else, and for a value named twice.
    """
    key, equals, listed = text.partition("=")
    example = "KEY=VALUE or KEY=VALUE,VALUE, such as train.lr=0.01,0.02"
    if not equals or not key.strip() or not listed.strip():
        raise RecipeError(f"--set {text}", wanted=example)
    try:
        values = yaml.safe_load(f"[{listed}]")
    except yaml.YAMLError:
        raise RecipeError(f"--set {text}: its values are not YAML", wanted=example) from None
    if twice := [value for i, value in enumerate(values) if value in values[:i]]:
        raise RecipeError(f"--set {text} names {twice[0]!r} twice")
    return key.strip(), values


def parse_all(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Every `--set`: key → values. Raises as `parse`, and RecipeError for a key that is set twice."""
    found: dict[str, list[Any]] = {}
    for text in texts:
        key, values = parse(text)
        if key in found:
            raise RecipeError(f"--set names {key} twice", wanted=f"all its values at once: {key}=A,B")
        found[key] = values
    return found


def load_with(path: Path, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with these keys set. Relative paths among the values count from the recipe's folder, as those in it.

    Raises as `load`, and RecipeError for a key that this recipe has no place for, naming near ones.
    """
    plain = load(path)

    def edit(raw: dict[str, Any]) -> dict[str, Any]:
        for key, value in changes.items():
            try:
                raw = _with(raw, Recipe, key.split("."), value)
            except KeyError:
                near = _near(key, sorted(set(_keys(plain))))
                raise RecipeError(f"{path}: unknown key '{key}'", do=near) from None
        return raw

    return load(path, edit)


def _with(node: Any, kind: type[Section] | None, way: Sequence[str], value: Any) -> Any:
    """A raw node of the file with a value at the end of the way. KeyError where there is no such way."""
    name, rest = way[0], way[1:]
    if isinstance(node, list):
        if not name.isdigit() or int(name) >= len(node):
            raise KeyError(name)
        place = int(name)
        return [*node[:place], _with(node[place], kind, rest, value) if rest else value, *node[place + 1 :]]
    node = node if isinstance(node, dict) else {}  # nothing there yet, or a short form such as `ranges: max`
    if kind is None:  # names that are not the recipe's own: metrics, tensors; they may have dots
        return {**node, ".".join(way): value}
    if name not in kind.model_fields:
        raise KeyError(name)
    inner = next(sections_in(kind.model_fields[name].annotation), None)
    return {**node, name: _with(node.get(name), inner, rest, value) if rest else value}


def _keys(section: Section, way: str = "") -> Iterator[str]:
    """Every key that can be set in a recipe as it is, also those that the file leaves out."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from _keys(value, f"{way}{name}.")
        elif isinstance(value, tuple) and value and isinstance(value[0], Section):
            for place, each in enumerate(value):
                yield from _keys(each, f"{way}{name}.{place}.")
        else:
            yield way + name


def _near(key: str, known: Sequence[str]) -> str:
    """Those that end alike, else those that are spelt alike."""
    end = key.rpartition(".")[2]
    alike = difflib.get_close_matches(key, known, NEAR, cutoff=0.4)
    ending = sorted((k for k in known if k.rpartition(".")[2] == end), key=lambda k: (k not in alike, k.count(".")))
    found = ending[:NEAR] or alike
    return f"Did you mean {' or '.join(map(repr, found))}?" if found else "See docs/sweeps.md for how keys are written"
