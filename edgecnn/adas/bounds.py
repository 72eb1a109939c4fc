"""Between which values a setting makes sense: said beside its field, and checked where it is read."""

from __future__ import annotations

from collections.abc import Mapping


def within(low: float, high: float) -> Mapping[str, tuple[float, float]]:
    """Metadata of a dataclass field: the least and the greatest value that is not absurd."""
    return {"within": (low, high)}
