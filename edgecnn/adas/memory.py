"""Rows remembered by track id, as columns: what a stage knows about each track from the frames before."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.scene import I64, Bool


class ById:
    """First `at = memory.rows(ids)`, then `memory["name"][at]`; an id not met before starts at each column's fill."""

    def __init__(self, **fills: Any) -> None:
        """A fill is the value of one row: a scalar, or an array where a row is an array."""
        self._fills = {name: np.asarray(fill) for name, fill in fills.items()}
        self._columns = {name: np.zeros((0, *fill.shape), fill.dtype) for name, fill in self._fills.items()}
        self.id: I64 = np.zeros(0, np.int64)  # rising

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._columns[name]

    def rows(self, ids: I64) -> I64:
        """Where each of `ids` (N,), all different, is kept; new ones are added. Later calls may move rows."""
        at = self.id.searchsorted(ids)
        if len(self.id) and (self.id.take(at, mode="clip") == ids).all():
            return at  # nobody is new: the usual case, and set operations are dear
        new = np.setdiff1d(ids, self.id)
        at = self.id.searchsorted(new)
        self.id = np.insert(self.id, at, new)
        for name, fill in self._fills.items():
            self._columns[name] = np.insert(self._columns[name], at, fill, axis=0)
        return self.id.searchsorted(ids)

    def among(self, rows: I64) -> Bool:
        """Which of those kept (M,) are at `rows`."""
        mask = np.zeros(len(self.id), bool)
        mask[rows] = True
        return mask

    def keep(self, rows: Bool) -> None:
        """Forget the other rows."""
        if not rows.all():
            self.id = self.id[rows]
            self._columns = {name: column[rows] for name, column in self._columns.items()}
