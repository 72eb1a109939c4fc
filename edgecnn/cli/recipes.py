"""The recipes that ship."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgecnn.cli.common import Json, app, columns, show


@app.command()
def recipes(as_json: Json = False) -> None:
    """List the shipped recipes.

    Each goes by its name wherever a recipe is wanted: `edgecnn compile adas`. To change one, copy its file; the paths
    in it count from its own folder.
    """
    from edgecnn.shipped import FOLDER, names

    rows = [_row(name, FOLDER / f"{name}.yaml") for name in names()]
    lines = [("recipe", "network", "stages", "files of yours, beside it")]
    lines += [(r["name"], r["network"], ", ".join(r["stages"]), ", ".join(r["lacks"])) for r in rows]
    show(as_json, (rows, f"{columns(lines)}\nin {FOLDER.resolve()}"))


def _row(name: str, path: Path) -> dict[str, Any]:
    from edgecnn.compile import planned
    from edgecnn.recipe import load, paths

    recipe = load(path)
    network = recipe.model.arch or recipe.model.onnx
    lacks = sorted({lacking.name for lacking in paths(recipe) if not lacking.exists()})
    return {
        "name": name,
        "path": path,
        "network": network if isinstance(network, str) else "ONNX",
        "stages": planned(recipe),
        "lacks": lacks,
    }
