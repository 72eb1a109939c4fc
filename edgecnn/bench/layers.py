"""Where a network's time goes: its slowest layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecnn.backends import Precision, choose
from edgecnn.backends.layers import Times, layer_times
from edgecnn.bench import SOURCE, read_frames
from edgecnn.bundle import Bundle
from edgecnn.vision import Preprocess

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 15


def layers(
    bundle: Bundle, source: str | None = None, *, precision: Precision = "auto", runs: int = 50, threads: int = 1
) -> dict[str, Any]:
    """Time the layers of one precision's network on the first frame of the source.

    → {role, runs, sum_ms, layers: [{layer, op, p50, share}]}, slowest first; JSON-able. Raises what `layer_times` does.
    """
    model = bundle.require_model()
    pictures, _, _ = read_frames(source or SOURCE, 10)
    tensor, _ = Preprocess(model)(pictures[0].bgr)
    times = layer_times(bundle, precision, {model.input.name: tensor}, runs=runs, threads=threads)
    return {"role": choose(bundle, precision), "runs": runs, **ranked(times)}


def ranked(times: Times) -> dict[str, Any]:
    """Medians, and each layer's share of the sum of all medians; slowest first."""
    p50 = {key: float(np.median(ms)) for key, ms in times.items()}
    total = sum(p50.values())
    rows = [
        {"layer": layer, "op": op, "p50": round(ms, 4), "share": round(ms / total, 4) if total else 0.0}
        for (layer, op), ms in sorted(p50.items(), key=lambda item: -item[1])
    ]
    return {"sum_ms": round(total, 4), "layers": rows}


def layers_table(found: Mapping[str, Any]) -> Table:
    """The slowest for people."""
    from rich.table import Table

    rows = found["layers"]
    rest = sum(row["share"] for row in rows[SHOWN:])
    shown = Table(
        title=f"layers of {found['role']}: {len(rows)}, together {found['sum_ms']:.2f} ms by the profiler",
        caption=f"{len(rows) - SHOWN} more: {rest:.0%}" if len(rows) > SHOWN else None,
    )
    for title in ("layer", "op"):
        shown.add_column(title, overflow="fold")
    for title in ("p50 ms", "share"):
        shown.add_column(title, justify="right")
    for row in rows[:SHOWN]:
        shown.add_row(row["layer"], row["op"], f"{row['p50']:.3f}", f"{row['share']:.1%}")
    return shown
