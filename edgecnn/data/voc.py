"""PASCAL VOC: one XML a picture (Everingham et al. 2010)."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

from edgecnn.data.classes import Naming
from edgecnn.data.files import Rows, read_picture, read_text
from edgecnn.data.sample import Sample
from edgecnn.errors import InputError
from edgecnn.scene import Truth

OWN = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


class Voc:
    """`path`: a folder with Annotations and JPEGImages (or annotations and images). "difficult" objects are ignored.

    VOC counts pixels from 1 and includes the last one, so a box is xmin - 1, ymin - 1, xmax, ymax here.
    Raises InputError for a missing folder or picture, or a malformed file.
    """

    def __init__(self, path: Path, *, raw: bool = False, classes: Mapping[str, int] | None = None) -> None:
        pairs = ((path / a, path / b) for a, b in (("Annotations", "JPEGImages"), ("annotations", "images")))
        both = next(((a, b) for a, b in pairs if a.is_dir() and b.is_dir()), None)
        if both is None:
            raise InputError(f"{path} is no VOC folder", wanted="Annotations and JPEGImages in it")
        self._annotations, self._pictures = sorted(both[0].glob("*.xml")), both[1]
        if not self._annotations:
            raise InputError(f"no XML file in {both[0]}", wanted="one a picture")
        self._naming = Naming.of("voc", OWN, raw=raw, classes=classes)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._naming.classes

    def __len__(self) -> int:
        return len(self._annotations)

    def __getitem__(self, i: int) -> Sample:
        path = self._annotations[i]
        name, truth = _read(path, self._naming)
        return Sample(path.stem, read_picture(self._pictures / name), truth)


def _read(path: Path, naming: Naming) -> tuple[str, Truth]:
    try:
        root = ElementTree.fromstring(read_text(path, "a VOC annotation"))
    except ElementTree.ParseError as error:
        raise InputError(f"{path} line {error.position[0]} is no XML ({error})", wanted="a VOC annotation") from None
    rows = Rows(naming)
    for number, thing in enumerate(root.iter("object"), 1):
        try:
            left, top, right, bottom = (
                float(thing.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax")
            )
        except ValueError:
            raise InputError(f"{path} object {number} has no whole bndbox", wanted="xmin, ymin, xmax, ymax") from None
        rows.add(
            thing.findtext("name", ""),
            (left - 1, top - 1, right, bottom),
            ignore=thing.findtext("difficult", "0").strip() == "1",
            visibility=0.5 if thing.findtext("truncated", "0").strip() == "1" else 1.0,
        )
    return root.findtext("filename") or f"{path.stem}.jpg", rows.truth()
