"""What every source of pictures hands out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from edgecnn.scene import Picture, Truth


@dataclass(frozen=True)
class Sample:
    """One picture with what is in it."""

    name: str
    bgr: Picture  # (H, W, 3) uint8
    truth: Truth


class Dataset(Protocol):
    """A numbered collection of samples."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Sample: ...
