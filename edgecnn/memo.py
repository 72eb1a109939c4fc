"""Figures that were dear to find, by name, on disk: whoever is stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecnn.bundle import atomic


@dataclass
class Memo:
    """JSON values by name. Each is written down as soon as it is found; what was found under another key is forgotten.

    The key says what the figures are about: a hash of the network, the data and the settings.
    """

    path: Path | None  # None: in memory only
    key: str
    values: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path | None, key: str) -> Memo:
        if path is not None and path.is_file():
            try:
                data = json.loads(path.read_text("utf-8"))
                if data["key"] == key:
                    return cls(path, key, dict(data["values"]))
            except (ValueError, KeyError, TypeError):
                return cls(path, key)  # cut short by a power failure: nothing is lost but time
        return cls(path, key)

    def get(self, name: str, find: Callable[[], Any]) -> Any:
        """The value under a name, found now if it was not before."""
        if name not in self.values:
            self.values[name] = find()
            if self.path is not None:
                with atomic(self.path) as temporary:
                    temporary.write_text(json.dumps({"key": self.key, "values": self.values}), "utf-8")
        return self.values[name]
