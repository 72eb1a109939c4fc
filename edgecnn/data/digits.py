"""28x28 pictures of ten classes: MNIST and its kin, as the IDX files of their makers, an NPZ, or a CSV."""

from __future__ import annotations

import gzip
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.data.folder import whole
from edgecnn.data.sample import Sample
from edgecnn.errors import InputError

U8 = NDArray[np.uint8]
STEMS = {"train": "train", "test": "t10k"}  # part → how its makers call it


class Digits:
    """`path`: a folder with `train-images-idx3-ubyte` and `train-labels-idx1-ubyte` (or t10k-…, or .gz), one such
    images file, an .npz with x (N, 28, 28) and y (N,) or with x_train, y_train, x_test and y_test, or a CSV (or
    .csv.gz) of 784 pixels and the label a line.

    Where train and test files are both there, they are its `parts`, and `all` means those to train on.
    Raises InputError for anything else.
    """

    classes = tuple("0123456789")

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise InputError(f"nothing at {path}", wanted="MNIST as IDX files, NPZ or CSV")
        try:
            read = _read(path)
        except (ValueError, KeyError, struct.error, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{path} does not read as MNIST ({error})", wanted="IDX files, NPZ or CSV") from error
        for x, y in read.values():
            if x.ndim != 3 or len(x) != len(y) or (len(y) and int(y.max()) > 9):
                raise InputError(
                    f"{path} holds pictures {x.shape} and labels {y.shape}",
                    wanted="(N, 28, 28) and (N,) in 0-9",
                )
        self._x = np.concatenate([x for x, _ in read.values()])
        self.labels = np.concatenate([y for _, y in read.values()]).astype(np.int64)
        self.parts: Mapping[str, Sequence[int]] = {}
        if len(read) > 1:
            train = len(read["train"][0])
            self.parts = {"train": range(train), "test": range(train, len(self._x)), "all": range(train)}

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, i: int) -> Sample:
        picture = cv2.cvtColor(self._x[i], cv2.COLOR_GRAY2BGR)
        return Sample(f"{i:05d}", np.asarray(picture, np.uint8), whole(picture, int(self.labels[i])))


def _read(path: Path) -> dict[str, tuple[U8, U8]]:
    """Part → pictures and labels; where there is but one, its name says nothing."""
    if path.suffix == ".npz":
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            ends = {"train": "_train", "test": "_test"} if "x_train" in archive else {"all": ""}
            return {
                part: (archive[f"x{end}"].astype(np.uint8), archive[f"y{end}"].astype(np.uint8))
                for part, end in ends.items()
            }
    if ".csv" in path.suffixes:
        table = np.loadtxt(path, delimiter=",", dtype=np.uint8, ndmin=2)
        if table.shape[1] != 785:
            raise ValueError(f"{table.shape[1]} columns instead of 785")
        return {"all": (table[:, :784].reshape(-1, 28, 28), table[:, 784])}
    if not path.is_dir():
        return {"all": _pair(path)}
    found = {part: sorted(path.glob(f"{stem}-images-idx3-ubyte*")) for part, stem in STEMS.items()}
    if not any(found.values()):
        raise ValueError("no *-images-idx3-ubyte in the folder")
    return {part: _pair(files[0]) for part, files in found.items() if files}


def _pair(images: Path) -> tuple[U8, U8]:
    return _idx(images, 3), _idx(images.with_name(images.name.replace("images-idx3", "labels-idx1")), 1)


def _idx(path: Path, dimensions: int) -> U8:
    """The IDX format: magic 0 0 8 (unsigned byte) and the number of dimensions, their sizes big-endian, the data."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if data[:4] != bytes((0, 0, 8, dimensions)):
        raise ValueError(f"{path.name} begins with {data[:4]!r}")
    shape = struct.unpack(f">{dimensions}I", data[4 : 4 + 4 * dimensions])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
