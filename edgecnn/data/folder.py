"""Plain folders: pictures without truth, pictures sorted into one folder a class, YOLO text files, Open Images CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgecnn.data.classes import CLASSES, Naming
from edgecnn.data.files import Rows, parse_lines, pictures_in, read_picture, read_text
from edgecnn.data.sample import Sample
from edgecnn.errors import InputError
from edgecnn.scene import Picture, Truth


def whole(picture: Picture, label: int) -> Truth:
    """Truth of a picture that is all one thing, as classification has it."""
    height, width = picture.shape[:2]
    return Truth.of(np.array([[0, 0, width, height]], np.float32), np.array([label]))


class Folder:
    """Pictures by name, truth empty: to calibrate or look at."""

    classes = CLASSES

    def __init__(self, path: Path) -> None:
        self._pictures = pictures_in(path)

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, i: int) -> Sample:
        path = self._pictures[i]
        return Sample(path.stem, read_picture(path), Truth.of(np.zeros((0, 4), np.float32), np.zeros(0, np.int64)))


class Sorted:
    """One folder a class, named by it; each truth is one box of the whole picture."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise InputError(f"no folder {path}", wanted="a folder with one folder a class")
        folders = sorted(p for p in path.iterdir() if p.is_dir())
        if not folders:
            raise InputError(f"no folder in {path}", wanted="one a class")
        self.classes = tuple(p.name for p in folders)
        self._rows = [(picture, label) for label, p in enumerate(folders) for picture in pictures_in(p)]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> Sample:
        path, label = self._rows[i]
        picture = read_picture(path)
        return Sample(f"{path.parent.name}/{path.stem}", picture, whole(picture, label))


class YoloText:
    """`path`: a folder of pictures in `images/…`; labels in the same place under `labels/…`, "class cx cy w h" as
    shares of the picture; names in `labels.txt` at the root, one a line. A picture without label file is empty."""

    def __init__(
        self, path: Path, *, raw: bool = False, classes: Mapping[str, int] | None = None, source: str = "carla"
    ) -> None:
        self._pictures = pictures_in(path)
        parts = list(path.absolute().parts)
        if "images" not in parts:
            raise InputError(f"{path} has no 'images' in it", wanted="…/images/SPLIT beside …/labels/SPLIT")
        at = len(parts) - 1 - parts[::-1].index("images")
        root = Path(*parts[:at])
        self._labels = root.joinpath("labels", *parts[at + 1 :])
        self._names = tuple(n.strip() for n in read_text(root / "labels.txt", "class names").splitlines() if n.strip())
        self._naming = Naming.of(source, self._names, raw=raw, classes=classes)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._naming.classes

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, i: int) -> Sample:
        path = self._pictures[i]
        picture = read_picture(path)
        height, width = picture.shape[:2]
        rows = Rows(self._naming)

        def parse(line: str) -> tuple[str, float, float, float, float]:
            number, x, y, w, h = line.split()
            return self._names[int(number)], float(x), float(y), float(w), float(h)

        labels = self._labels / f"{path.stem}.txt"
        if labels.is_file():
            for name, x, y, w, h in parse_lines(labels, "class cx cy w h", parse):
                box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
                rows.add(name, box)
        return Sample(path.stem, picture, rows.truth())


class OpenImages:
    """`path`: a CSV of filename, width, height, class, xmin, ymin, xmax, ymax; pictures in a folder of its name."""

    COLUMNS = ("filename", "class", "xmin", "ymin", "xmax", "ymax")

    def __init__(self, path: Path, *, raw: bool = False, classes: Mapping[str, int] | None = None) -> None:
        reader = csv.DictReader(read_text(path, "an Open Images CSV").splitlines())
        missing = set(self.COLUMNS) - set(reader.fieldnames or ())
        if missing:
            raise InputError(f"{path} lacks {', '.join(sorted(missing))}", wanted=", ".join(self.COLUMNS))
        self._folder, self._objects = path.with_suffix(""), {}
        names: set[str] = set()
        rows: dict[str, list[tuple[str, tuple[float, float, float, float]]]] = {}
        for number, row in enumerate(reader, 2):
            try:
                left, top, right, bottom = (float(row[key]) for key in self.COLUMNS[2:])
            except (TypeError, ValueError):
                raise InputError(f"{path} line {number} has no whole box", wanted="xmin, ymin, xmax, ymax") from None
            names.add(row["class"])
            rows.setdefault(row["filename"], []).append((row["class"], (left, top, right, bottom)))
        self._objects = rows
        self._files = sorted(rows)
        self._naming = Naming.of("openimages", sorted(names), raw=raw, classes=classes)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._naming.classes

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, i: int) -> Sample:
        name = self._files[i]
        rows = Rows(self._naming)
        for kind, box in self._objects[name]:
            rows.add(kind, box)
        return Sample(Path(name).stem, read_picture(self._folder / name), rows.truth())
