"""COCO detection: `instances_*.json` beside its pictures (Lin et al. 2014, arXiv:1405.0312)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgecnn.data.classes import Naming
from edgecnn.data.files import Rows, read_picture, read_text
from edgecnn.data.sample import Sample
from edgecnn.errors import InputError


class Coco:
    """`path`: the JSON file, or a folder with one `annotations/instances_*.json`. Crowd regions are ignored places.

    Raises InputError where the file is missing, is no COCO JSON, or names a category or picture that is not there.
    """

    def __init__(self, path: Path, *, raw: bool = False, classes: Mapping[str, int] | None = None) -> None:
        self.path = _instances(path)
        try:
            content = json.loads(read_text(self.path, "COCO JSON"))
        except json.JSONDecodeError as error:
            raise InputError(f"{self.path} line {error.lineno} is no JSON ({error.msg})", wanted="COCO JSON") from None
        try:
            self._images: list[dict[str, Any]] = sorted(content["images"], key=lambda image: image["file_name"])
            categories = sorted(content["categories"], key=lambda category: category["id"])
            names = {c["id"]: str(c["name"]) for c in categories}
            self._objects: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in self._images}
            annotations = content["annotations"]
        except (KeyError, TypeError) as error:
            raise InputError(f"{self.path} has no {error}", wanted="COCO's images, annotations, categories") from None
        self._naming = Naming.of("coco", tuple(names.values()), raw=raw, classes=classes)
        for row, annotation in enumerate(annotations):
            try:
                x, y, w, h = map(float, annotation["bbox"])
                name, objects = names[annotation["category_id"]], self._objects[annotation["image_id"]]
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(
                    f"{self.path} annotation {row} is malformed ({type(error).__name__}: {error})",
                    wanted="bbox [x, y, w, h], a known category_id and image_id",
                ) from None
            crowd = bool(annotation.get("iscrowd", 0))
            objects.append({"name": name, "xyxy": (x, y, x + w, y + h), "ignore": crowd})

    @property
    def classes(self) -> tuple[str, ...]:
        return self._naming.classes

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, i: int) -> Sample:
        image = self._images[i]
        rows = Rows(self._naming)
        for thing in self._objects[image["id"]]:
            rows.add(**thing)
        return Sample(Path(image["file_name"]).stem, read_picture(self._locate(image["file_name"])), rows.truth())

    def _locate(self, name: str) -> Path:
        root, split = self.path.parent.parent, self.path.stem.removeprefix("instances_")
        places = (root / "images" / split, root / split, root / "images", self.path.parent, root)
        for place in places:
            if (place / name).is_file():
                return place / name
        raise InputError(f"{self.path} lists {name}, which is not there", wanted=f"it in {places[0]} or {places[1]}")


def _instances(path: Path) -> Path:
    if path.is_file():
        return path
    found = sorted(path.glob("annotations/instances_*.json"))
    if len(found) != 1:
        known = ", ".join(p.name for p in found) or "none"
        raise InputError(f"{path} is no COCO file", wanted=f"one annotations/instances_*.json (found: {known})",
                         do="Name the JSON file itself" if found else "")  # fmt: skip
    return found[0]
