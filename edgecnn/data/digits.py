"""28x28 pictures of ten classes: MNIST and its kin, as the IDX files of their makers, an NPZ, or a CSV."""

from __future__ import annotations

import gzip
import struct
import zipfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.data.folder import whole
from edgecnn.data.sample import Sample
from edgecnn.errors import InputError

U8 = NDArray[np.uint8]


class Digits:
    """`path`: a folder with `train-images-idx3-ubyte` and `train-labels-idx1-ubyte` (or t10k-…, or .gz), one such
    images file, an .npz with x (N, 28, 28) and y (N,), or a CSV of 784 pixels and the label a line.

    Raises InputError for anything else.
    """

    classes = tuple("0123456789")

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise InputError(f"nothing at {path}", wanted="MNIST as IDX files, NPZ or CSV")
        try:
            self._x, self._y = _read(path)
        except (ValueError, KeyError, struct.error, OSError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} does not read as MNIST ({error})", wanted="IDX files, NPZ or CSV") from error
        if self._x.ndim != 3 or len(self._x) != len(self._y) or (len(self._y) and int(self._y.max()) > 9):
            raise InputError(
                f"{path} holds pictures {self._x.shape} and labels {self._y.shape}",
                wanted="(N, 28, 28) and (N,) in 0-9",
            )

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, i: int) -> Sample:
        picture = cv2.cvtColor(self._x[i], cv2.COLOR_GRAY2BGR)
        return Sample(f"{i:05d}", np.asarray(picture, np.uint8), whole(picture, int(self._y[i])))


def _read(path: Path) -> tuple[U8, U8]:
    if path.suffix == ".npz":
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return archive["x"].astype(np.uint8), archive["y"].astype(np.uint8)
    if ".csv" in path.suffixes:
        table = np.loadtxt(path, delimiter=",", dtype=np.uint8, ndmin=2)
        if table.shape[1] != 785:
            raise ValueError(f"{table.shape[1]} columns instead of 785")
        return table[:, :784].reshape(-1, 28, 28), table[:, 784]
    if path.is_dir():
        found = sorted(path.glob("*-images-idx3-ubyte*"), key=lambda p: not p.name.startswith("train"))
        if not found:
            raise ValueError("no *-images-idx3-ubyte in the folder")
        path = found[0]
    return _idx(path, 3), _idx(path.with_name(path.name.replace("images-idx3", "labels-idx1")), 1)


def _idx(path: Path, dimensions: int) -> U8:
    """The IDX format: magic 0 0 8 (unsigned byte) and the number of dimensions, their sizes big-endian, the data."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if data[:4] != bytes((0, 0, 8, dimensions)):
        raise ValueError(f"{path.name} begins with {data[:4]!r}")
    shape = struct.unpack(f">{dimensions}I", data[4 : 4 + 4 * dimensions])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
