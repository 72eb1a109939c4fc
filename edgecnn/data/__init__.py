"""Pictures with truth: readers of real data sets, the road simulator, and calibration lists.

Importing this package costs little more than numpy; every reader is imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn.data.classes import CLASSES, class_map
from edgecnn.data.sample import Dataset, Sample
from edgecnn.errors import InputError, RecipeError

if TYPE_CHECKING:
    from edgecnn.recipe import DataSection

SORTED = ("classes", "mnist", "cifar")  # kinds whose pictures each show one thing

__all__ = ["CLASSES", "Dataset", "Sample", "class_map", "open_dataset"]


def open_dataset(section: DataSection, *, raw: bool = False, classes: Mapping[str, int] | None = None) -> Dataset:
    """At most `section.pictures` samples of what a recipe's data section names: the first ones, or spread over all
    where the files are sorted by class.

    Labels are those of CLASSES; the files' own if `raw`; or `classes`, name in the file → label, what it lacks being
    left out. `section.part` picks train, test or validate of a classification set: its own folders or files of these
    names where it has them, else 65/25/10 per cent of each class, drawn by `section.seed` (edgecnn.data.split).
    Raises InputError where the path is missing, does not hold that kind, or the part is empty; RecipeError for a part
    of other data.
    """
    if section.part != "all" and section.kind not in SORTED:
        raise RecipeError(f"data of kind '{section.kind}' with part: {section.part}", wanted=f"{', '.join(SORTED)}")
    path = section.path or Path()
    data: Dataset
    match section.kind:
        case "sim":
            from edgecnn.data.sim import SimStills

            return SimStills(section.seed, section.pictures)
        case "sim_drive":
            from edgecnn.data.sim import SimDrives

            return SimDrives(section.seed, section.pictures, section.drives)
        case "sim_crops":
            from edgecnn.data.sim import SimCrops

            return SimCrops(section.seed, section.pictures)
        case "sim_windows":
            from edgecnn.data.sim import SimWindows

            return SimWindows(section.seed, section.pictures)
        case "coco":
            from edgecnn.data.coco import Coco

            data = Coco(path, raw=raw, classes=classes)
        case "kitti":
            from edgecnn.data.kitti import Kitti

            data = Kitti(path, raw=raw, classes=classes)
        case "voc":
            from edgecnn.data.voc import Voc

            data = Voc(path, raw=raw, classes=classes)
        case "mot":
            from edgecnn.data.mot import Mot

            data = Mot(path)
        case "folder":
            from edgecnn.data.folder import Folder

            data = Folder(path)
        case "classes" | "mnist" | "cifar":
            return _classified(section, path)
        case _:
            raise InputError(f"unknown kind of data {section.kind!r}", wanted="one that recipe.DataSection lists")
    if len(data) <= section.pictures:
        return data
    return _Some(data, range(section.pictures))


def _classified(section: DataSection, path: Path) -> Dataset:
    from edgecnn.data.split import Labelled, part_of

    data: Labelled
    match section.kind:
        case "mnist":
            from edgecnn.data.digits import Digits

            data = Digits(path)
        case "cifar":
            from edgecnn.data.cifar import open_cifar

            data = open_cifar(path)
        case _:
            from edgecnn.data.folder import Sorted

            data = Sorted(path)
    rows = part_of(data, section.part, section.seed, str(path))
    if len(rows) > section.pictures:  # they are sorted by class: take some of each
        rows = [rows[i * len(rows) // section.pictures] for i in range(section.pictures)]
    return _Some(data, rows)


@dataclass(frozen=True)
class _Some:
    """Some samples of a data set."""

    data: Dataset
    rows: Sequence[int]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.data.classes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Sample:
        return self.data[self.rows[i]]
