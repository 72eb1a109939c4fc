"""The state of training after an epoch, on disk: a run that was killed goes on from there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edgecnn.bundle import atomic
from edgecnn.progress import note


@dataclass(frozen=True)
class Checkpoint:
    """One file, written whole or not at all; of no use to training with other settings, which have another `key`."""

    path: Path
    key: str

    def read(self) -> dict[str, Any] | None:
        """What `write` wrote last. None if there is nothing, or it is of other settings, or damaged: says which."""
        if not self.path.is_file():
            return None
        try:
            state = torch.load(self.path, weights_only=True)
            key = state.pop("key")
        except Exception as error:  # torch raises many kinds: a cut zip, a foreign pickle, no dictionary
            note(f"{self.path} does not read ({type(error).__name__}); training starts anew")
            return None
        if key != self.key:
            note(f"{self.path} is of other settings; training starts anew")
            return None
        return dict(state)

    def write(self, state: dict[str, Any]) -> None:
        """Tensors, numbers, texts, lists and dictionaries of them."""
        with atomic(self.path) as temporary:
            torch.save({**state, "key": self.key}, temporary)

    def remove(self) -> None:
        """The file, and what a kill in the middle of a `write` left."""
        for path in (self.path, *self.path.parent.glob(f".{self.path.name}.*{self.path.suffix}")):
            path.unlink(missing_ok=True)
