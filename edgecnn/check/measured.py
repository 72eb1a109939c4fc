"""What was measured, how far it would move with other pictures, and the file that keeps it for later: a baseline."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.bundle import atomic
from edgecnn.errors import InputError
from edgecnn.metrics.redraw import F64, Redrawn
from edgecnn.scene import I64, Truth

Figures = Mapping[str, float]  # metric -> value; shares in [0, 1] but for the counts
PIECE = 10  # frames of a video that are drawn together
_MOST = 1000  # units: single pictures beyond are drawn several together


@dataclass(frozen=True)
class Measured:
    """Figures of some networks on one sample."""

    figures: Mapping[str, Figures]  # precision -> metric -> value
    samples: int  # pictures looked at
    redrawn: Mapping[str, Redrawn] = field(default_factory=dict)  # precision -> metric -> (R,)
    units: int = 0  # that were drawn
    truth: str = ""  # fingerprint of what was to be found: equal samples are drawn alike


def alone(pictures: int) -> I64:
    """(N,) unit of each of N pictures that have nothing to do with one another."""
    return np.arange(pictures) % max(min(pictures, _MOST), 1)


def in_pieces(lengths: Sequence[int]) -> I64:
    """(N,) unit of each frame of videos with so many frames, one after the other: about `PIECE` frames each."""
    units: list[I64] = []
    for length in lengths:
        pieces = max(1, round(length / PIECE))
        units.append(np.arange(length) * pieces // length + (units[-1][-1] + 1 if units else 0))
    return np.concatenate(units) if units else np.zeros(0, np.int64)


def fingerprint(unit: I64, truths: Iterable[Truth]) -> str:
    """Of a sample: how many objects of which class are in which picture, and which pictures are drawn together."""
    digest = hashlib.sha256(unit.astype("<i8").tobytes())
    for truth in truths:
        digest.update(np.array([len(truth), *truth.label], "<i8").tobytes())
    return digest.hexdigest()


def history(path: Path) -> list[dict[str, str]]:
    """Why the baseline at `path` was written until now; nothing where there is none. Raises as `read_baseline`."""
    if not path.exists():
        return []
    read_baseline(path)
    told = json.loads(path.read_text("utf-8")).get("history", [])
    return list(told)


def write_baseline(
    path: Path, name: str, data: Mapping[str, Any], model: str, found: Measured, earlier: list[dict[str, str]], why: str
) -> None:
    """What `read_baseline` reads. `model` is the sha256 of what was measured, `earlier` what `history` told."""
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    body = {
        "bundle": name,
        "data": data,
        "history": [*earlier, {"date": now, "reason": why, "model": model}],
        "samples": found.samples,
        "units": found.units,
        "truth": found.truth,
        "figures": {
            p: {metric: value if np.isfinite(value) else None for metric, value in row.items()}
            for p, row in found.figures.items()
        },
        "redrawn": {p: {metric: _packed(rows) for metric, rows in row.items()} for p, row in found.redrawn.items()},
    }
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(body, indent=1, allow_nan=False) + "\n", "utf-8")


def read_baseline(path: Path) -> Measured:
    """What `edgecnn check --update` wrote, or the JSON of `edgecnn check --json`, which has figures and no spread.

    null stands for nan there and is left out. Raises InputError for anything else.
    """
    try:
        body = json.loads(path.read_text("utf-8"))
        figures = {p: {m: float(v) for m, v in row.items() if v is not None} for p, row in body["figures"].items()}
        redrawn = {p: {m: _unpacked(v) for m, v in row.items()} for p, row in body.get("redrawn", {}).items()}
        known = int(body.get("samples", 0)), redrawn, int(body.get("units", 0)), str(body.get("truth", ""))
        return Measured(figures, *known)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"the baseline {path} is not readable ({error})",
            wanted="a file that `edgecnn check --update` or `--json` wrote",
        ) from error


def _packed(values: F64) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _unpacked(text: str) -> F64:
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float64)
