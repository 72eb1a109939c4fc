"""Plain folders: pictures without truth, pictures sorted into one folder a class, YOLO text files, Open Images CSV."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from edgecnn.data.classes import CLASSES, Naming
from edgecnn.data.files import (
    SUFFIXES,
    BrokenPicture,
    Rows,
    decode,
    parse_lines,
    pictures_in,
    read_picture,
    read_text,
)
from edgecnn.data.sample import Sample
from edgecnn.errors import InputError
from edgecnn.scene import Picture, Truth

OWN_PARTS = {"train": "train", "test": "test", "validate": "validate", "val": "validate"}  # folder → part


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
    """One folder a class, named by it; each truth is one box of the whole picture.

    `path`: a folder, a .zip, or a folder within a .zip (`signs.zip/inner`). Where it holds `train/` beside `test/` or
    `validate/` (or `val/`), and nothing else, each of these has the folders of the classes: they are its `parts`.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._zip = path, _zip_of(path)
        if self._zip is None and not path.is_dir():
            raise InputError(f"no folder {path}", wanted="a folder, or a .zip, with one folder a class")
        folders, files = self._listing()
        top = sorted({name.split("/")[0] for name in folders})
        if not top:
            raise InputError(f"no folder in {path}", wanted="one a class")
        depth = 1 if set(top) <= set(OWN_PARTS) and "train" in top and len(top) > 1 else 0
        self.classes = tuple(sorted({name.split("/")[depth] for name in folders if name.count("/") >= depth}))
        self._names = [name for name in files if name.count("/") == depth + 1]
        if not self._names:
            raise InputError(f"no picture in {path}", wanted="folders of " + ", ".join(s[1:] for s in SUFFIXES))
        places = {name: label for label, name in enumerate(self.classes)}
        self.labels = np.array([places[name.split("/")[depth]] for name in self._names], np.int64)
        parts: dict[str, list[int]] = {}
        for row, name in enumerate(self._names if depth else ()):
            parts.setdefault(OWN_PARTS[name.split("/")[0]], []).append(row)
        self.parts: Mapping[str, Sequence[int]] = parts

    def _listing(self) -> tuple[list[str], list[str]]:
        """Names of the folders, and of the pictures, below the path, with "/" between; sorted."""
        if self._zip is not None:
            files = [name for name in self._zip.archive.namelist() if name.startswith(self._zip.inner)]
            files = [name[len(self._zip.inner) :] for name in files]
        else:
            files = [p.relative_to(self._path).as_posix() + "/" * p.is_dir() for p in self._path.rglob("*")]
        files = [name for name in files if not name.startswith((".", "__"))]  # what systems leave in folders and zips
        folders = {str(parent) for name in files for parent in PurePosixPath(f"{name}x").parents} - {"."}
        return sorted(folders), sorted(name for name in files if name.lower().endswith(SUFFIXES))

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, i: int) -> Sample:
        name = self._names[i]
        if self._zip is None:
            picture = read_picture(self._path / name)
        else:
            picture = decode(self._zip.read(name), f"{self._path}/{name}")
        return Sample(name.rpartition(".")[0], picture, whole(picture, int(self.labels[i])))


@dataclass(frozen=True)
class _Zip:
    """A .zip and the folder in it that counts, "" or ending in "/"."""

    archive: zipfile.ZipFile
    inner: str

    def read(self, name: str) -> bytes:
        try:
            return self.archive.read(self.inner + name)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
            raise BrokenPicture(f"{self.archive.filename}/{self.inner}{name} does not unpack ({error})") from error


def _zip_of(path: Path) -> _Zip | None:
    """The .zip that a path names or goes through; None for a plain path. Raises InputError for a damaged one."""
    for outer in (path, *path.parents):
        if outer.suffix.lower() == ".zip" and outer.is_file():
            inner = path.relative_to(outer).as_posix()
            try:
                return _Zip(zipfile.ZipFile(outer), "" if inner == "." else f"{inner}/")
            except (zipfile.BadZipFile, OSError) as error:
                raise InputError(f"{outer} is no whole .zip ({error})", do="Copy the file again") from error
    return None


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
