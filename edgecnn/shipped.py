"""The recipes that come with the package, found by name where there is no checkout.

In a checkout `edgecnn/recipes` and `edgecnn/calibration` are links to the folders beside the package; installed, they
are folders, and what a recipe refers to (`../calibration/adas.yaml`, `baselines/adas.json`) lies where it says.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "recipes"


def names() -> list[str]:
    """Of all shipped recipes, sorted, those of the zoo last: `adas`, ..., `zoo/vgg19`."""
    found = [*FOLDER.glob("*.yaml"), *FOLDER.glob("zoo/*.yaml")]
    return sorted((path.relative_to(FOLDER).with_suffix("").as_posix() for path in found), key=lambda n: ("/" in n, n))


def find(path: Path) -> Path:
    """The file at `path`; where there is none, the shipped recipe that it names: adas, zoo/vgg16, recipes/adas.yaml.

    A path that names neither comes back as it is.
    """
    if path.is_file():
        return path
    name = path.as_posix().removeprefix("recipes/").removesuffix(".yaml")
    return FOLDER / f"{name}.yaml" if name in names() else path
