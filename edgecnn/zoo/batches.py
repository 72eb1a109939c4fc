"""A data set laid into a network's input once, in memory, as the pictures are: one byte a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from edgecnn.bundle import ModelSpec
from edgecnn.errors import InputError, ModelError
from edgecnn.progress import bar
from edgecnn.recipe import DataSection
from edgecnn.scene import Letterbox, Truth
from edgecnn.vision import Preprocess

if TYPE_CHECKING:
    from edgecnn.data import Dataset

NAMED = 6  # at most so many classes are named in a complaint


@dataclass(frozen=True)
class Batchable:
    """Pictures resized and padded to the network's input, in its order of channels, before mean and deviation."""

    spec: ModelSpec
    pictures: Tensor  # (N, C, H, W) uint8
    truth: Sequence[Truth]  # frame px
    boxes: Sequence[Letterbox]

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def labels(self) -> Tensor:
        """(N,) int64 of a classification set."""
        return torch.tensor([int(truth.label[0]) for truth in self.truth])

    @property
    def x(self) -> Tensor:
        """(N, C, H, W) float32: all of it as the network takes it."""
        return self.normalised(self.pictures)

    def normalised(self, pictures: Tensor) -> Tensor:
        """uint8, or grey levels as float32 → what the network takes: zero mean, the same in training and testing."""
        mean, std = (
            torch.tensor(values[: pictures.shape[1]])[:, None, None] for values in (self.spec.mean, self.spec.std)
        )
        return (pictures.float() - mean) / std

    def subset(self, rows: Sequence[int]) -> Batchable:
        """Some of the pictures."""
        index = torch.tensor(rows, dtype=torch.int64)
        return Batchable(self.spec, self.pictures[index], [self.truth[i] for i in rows], [self.boxes[i] for i in rows])

    @classmethod
    def of(cls, spec: ModelSpec, data: Dataset, limit: int, label: str) -> Batchable:
        """At most `limit` pictures. Broken ones are named on standard error and left out, up to the limit that
        `edgecnn.data.split.samples` states; beyond it, or where no picture is left, InputError."""
        from dataclasses import replace

        from edgecnn.data.split import samples

        preprocess = Preprocess(replace(spec, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))  # whole numbers, 0 to 255
        pictures = torch.empty(min(len(data), limit), *spec.input.shape[1:], dtype=torch.uint8)
        truth: list[Truth] = []
        boxes: list[Letterbox] = []
        with bar(label, len(pictures)) as advance:
            for sample in samples(data):
                if len(truth) == len(pictures):
                    break
                if spec.task == "classify" and not len(sample.truth):
                    continue  # of a class that the network does not tell
                tensor, box = preprocess(sample.bgr)
                pictures[len(truth)] = torch.from_numpy(tensor[0])
                truth.append(sample.truth)
                boxes.append(box)
                advance(1)
        if not truth:
            raise InputError(f"{label}: the data set is empty", do="Name other data in the recipe")
        return cls(spec, pictures[: len(truth)], truth, boxes)

    @classmethod
    def read(cls, spec: ModelSpec, section: DataSection, label: str) -> Batchable:
        """Classes of the data that the network does not tell are left out, in a classification set with their pictures.

        Raises ModelError naming what differs where the network has others, or the same in another order.
        """
        from edgecnn.data import open_dataset
        from edgecnn.data.narrow import Narrowed

        data = open_dataset(section)
        if set(spec.classes) < set(data.classes):
            data = Narrowed(data, spec.classes)
        if tuple(data.classes) != tuple(spec.classes):
            raise ModelError(
                f"data of kind '{section.kind}' has other classes than the model: "
                f"{_difference(data.classes, spec.classes)}",
                do="Set model.classes in the recipe to the data's",
            )
        return cls.of(spec, data, section.pictures * max(1, section.drives), label)


def _difference(data: Sequence[str], model: Sequence[str]) -> str:
    def listed(names: list[str]) -> str:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        return ", ".join(names[:NAMED]) + more

    only_data, only_model = [n for n in data if n not in model], [n for n in model if n not in data]
    parts = [f"only the data has {listed(only_data)}"] if only_data else []
    parts += [f"only the model has {listed(only_model)}"] if only_model else []
    return " and ".join(parts) or f"the same in another order, {listed(list(data))} in the data"


def balanced(labels: Tensor, how: Literal["none", "remove", "copy"], seed: int) -> tuple[Tensor, Tensor]:
    """Rows of the pictures to train on, and which of them are copies: (M,) int64, (M,) bool.

    remove: every class keeps as many pictures as the smallest has. copy: each gets copies until it has as many as the
    largest; the copies are drawn evenly, and get noise where batches are made. The seed fixes the choice.
    """
    if how == "none":
        return torch.arange(len(labels)), torch.zeros(len(labels), dtype=torch.bool)
    dice = torch.Generator().manual_seed(seed)
    groups = [(labels == label).nonzero()[:, 0] for label in sorted(set(labels.tolist()))]
    sizes = [len(group) for group in groups]
    size = min(sizes) if how == "remove" else max(sizes)
    rows, copied = [], []
    for group in groups:
        turns = [group[torch.randperm(len(group), generator=dice)] for _ in range(-(-size // len(group)))]
        rows.append(torch.cat(turns)[:size])
        copied.append(torch.arange(size) >= len(group))
    return torch.cat(rows), torch.cat(copied)
