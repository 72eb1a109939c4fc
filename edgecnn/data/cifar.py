"""CIFAR-10 (Krizhevsky 2009): 32x32 pictures of ten classes, as its binary batches or as pictures in folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgecnn.data.files import read_text
from edgecnn.data.folder import Sorted, whole
from edgecnn.data.sample import Sample
from edgecnn.data.split import Labelled
from edgecnn.errors import InputError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORD = 1 + 3 * 32 * 32  # bytes: the label, then the red, green and blue planes


def open_cifar(path: Path) -> Labelled:
    """`path`: the folder with `data_batch_*.bin` and `test_batch.bin` ("binary version" of its makers), one .bin file;
    or pictures in `train/CLASS/` and `test/CLASS/` of a folder or .zip, as data of kind `classes` have them.

    The "python version" is pickled, and is not read. Raises InputError for it and for anything else.
    """
    if path.suffix == ".bin" or (path.is_dir() and any(path.glob("*.bin"))):
        return Batches(path)
    if path.is_dir() and (path / "data_batch_1").is_file():
        raise InputError(
            f"{path} is CIFAR-10's python version, which would have to be unpickled",
            wanted="its binary version",
            do="Take cifar-10-binary.tar.gz",
        )
    return Sorted(path)


class Batches:
    """Records of 3073 bytes; classes from `batches.meta.txt` where it lies beside them."""

    def __init__(self, path: Path) -> None:
        files = sorted(path.glob("*_batch*.bin")) if path.is_dir() else [path]
        if not files or not all(p.is_file() for p in files):
            raise InputError(f"no CIFAR-10 batch at {path}", wanted="data_batch_1.bin … test_batch.bin")
        parts: dict[str, list[int]] = {}
        batches, first = [], 0
        for file in files:
            data = np.fromfile(file, np.uint8)
            if not len(data) or len(data) % RECORD:
                raise InputError(
                    f"{file} has {len(data)} bytes", wanted=f"a multiple of {RECORD}", do="Copy the file again"
                )
            batches.append(data.reshape(-1, RECORD))
            part = "test" if file.name.startswith("test") else "train"
            parts.setdefault(part, []).extend(range(first, first + len(batches[-1])))
            first += len(batches[-1])
        self.parts: Mapping[str, Sequence[int]] = parts if len(parts) > 1 else {}
        records = np.concatenate(batches)
        meta = files[0].with_name("batches.meta.txt")
        self.classes = tuple(read_text(meta, "class names").split()) if meta.is_file() else CLASSES
        self.labels = records[:, 0].astype(np.int64)
        if int(self.labels.max()) >= len(self.classes):
            raise InputError(
                f"{path} holds the label {int(self.labels.max())}", wanted=f"0 to {len(self.classes) - 1}, as CIFAR-10"
            )
        self._planes = records[:, 1:].reshape(-1, 3, 32, 32)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> Sample:
        bgr = np.ascontiguousarray(self._planes[i, ::-1].transpose(1, 2, 0))
        return Sample(f"{i:05d}", bgr, whole(bgr, int(self.labels[i])))
