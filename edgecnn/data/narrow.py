"""Fewer classes: a data set as a network sees it that tells only some of them apart."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgecnn.data.sample import Dataset, Sample
from edgecnn.scene import I64


@dataclass(frozen=True)
class Narrowed:
    """The same pictures; what is of another class is no truth. Rows to ignore stay, with label 0 where theirs went."""

    data: Dataset
    classes: tuple[str, ...]  # some of the data set's, in any order

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> Sample:
        sample = self.data[i]
        old = sample.truth.label
        known = (old >= 0) & (old < len(self.data.classes))
        label = np.where(known, self._places[np.where(known, old, 0)], -1)
        kept = (label >= 0) | sample.truth.ignore
        return replace(sample, truth=replace(sample.truth, label=np.maximum(label, 0))[kept])

    @property
    def _places(self) -> I64:
        """For each label of the data set the new one, or -1."""
        return np.array([self.classes.index(n) if n in self.classes else -1 for n in self.data.classes], np.int64)
