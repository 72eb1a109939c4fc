"""Threads and batch sizes side by side: what one picture costs, and how many go through in a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecnn.backends import Precision, choose
from edgecnn.backends.ort import OnnxRuntime
from edgecnn.bench import SOURCE, WARM, read_frames
from edgecnn.bench.show import three
from edgecnn.bundle import Bundle, ModelSpec
from edgecnn.errors import ModelError
from edgecnn.progress import bar
from edgecnn.run.timing import percentiles
from edgecnn.vision import Preprocess

if TYPE_CHECKING:
    from rich.table import Table


def sweep(
    bundle: Bundle,
    source: str | None = None,
    *,
    threads: Sequence[int] = (1,),
    batches: Sequence[int] = (1,),
    runs: int = 40,
) -> dict[str, Any]:
    """Time inference alone, on a CPU, for each number of threads and pictures at once, in turns whose order changes.

    → {runs, rows: [{role, threads, batch, ms: percentiles of a batch, per_s: pictures, ratio}]}, JSON-able; `ratio` is
    throughput over that of the first row of the role, a median of ratios of the same turn. Raises ModelError for a
    network whose batch is fixed, InputError for a source with too few frames.
    """
    model = bundle.require_model()
    pictures, _, _ = read_frames(source or SOURCE, max(10, *batches))
    preprocess = Preprocess(model)
    tensors = [preprocess(frame.bgr)[0] for frame in pictures[: max(batches)]]
    known: tuple[Precision, ...] = ("fp32", "int8") if bundle.has("int8") or bundle.has("int8_cpu") else ("fp32",)
    roles = [choose(bundle, name) for name in known]
    jobs = [(role, n, size) for role in roles for n, size in product(threads, batches)]
    loaded = {(role, n): network(bundle.file(role), model, batches, n) for role in roles for n in threads}
    feeds = {size: {model.input.name: np.concatenate(tensors[:size])} for size in batches}
    ms: dict[tuple[str, int, int], list[float]] = {job: [] for job in jobs}
    rng = np.random.default_rng(0)
    with bar("sweep", runs + WARM) as advance:
        for count in range(runs + WARM):
            for k in rng.permutation(len(jobs)):
                role, n, size = jobs[k]
                began = perf_counter()
                loaded[role, n](feeds[size])
                if count >= WARM:
                    ms[jobs[k]].append(1e3 * (perf_counter() - began))
            advance(1)
    return {"runs": runs, "rows": rows_of({job: np.array(column) for job, column in ms.items()})}


def network(path: Path, model: ModelSpec, batches: Sequence[int], threads: int) -> OnnxRuntime:
    """A session that takes any of these batches. Raises ModelError where the network's batch is fixed."""
    loaded = OnnxRuntime(path, model, threads=threads)
    fixed = loaded.batch
    if fixed is not None and set(batches) != {fixed}:
        raise ModelError(
            f"{path.name} takes {fixed} picture(s) at once, and --batch asks for {', '.join(map(str, batches))}",
            wanted="a network whose batch is free",
            do="Leave --batch out: what `edgecnn compile` makes takes one picture at once",
        )
    return loaded


def rows_of(ms: Mapping[tuple[str, int, int], np.ndarray[Any, np.dtype[np.float64]]]) -> list[dict[str, Any]]:
    """(role, threads, batch) → (runs,) ms of a batch, turn by turn; what `sweep` tells of it."""
    rows = []
    first: dict[str, np.ndarray[Any, np.dtype[np.float64]]] = {}
    for (role, n, size), times in ms.items():
        each = times / size
        first.setdefault(role, each)
        ratio = float(np.median(first[role] / each))
        told = percentiles(times)
        rows.append(
            {"role": role, "threads": n, "batch": size, "ms": told, "per_s": round(1e3 * size / told["mean"], 2)}
            | {"ratio": round(ratio, 3)}
        )
    return rows


def sweep_table(found: Mapping[str, Any]) -> Table:
    """A row for each number of threads and pictures."""
    from rich.table import Table

    shown = Table(
        title=f"inference alone, {found['runs']} runs each",
        caption="ms of a batch; throughput over that of the first row of the file",
    )
    for title in ("file", "threads", "batch", "p50 / p90 / p99 ms", "pictures/s", "throughput"):
        shown.add_column(title, justify="left" if title == "file" else "right")
    for row in found["rows"]:
        counts = (str(row["threads"]), str(row["batch"]))
        shown.add_row(row["role"], *counts, three(row["ms"]), f"{row['per_s']:.1f}", f"{row['ratio']:.2f}x")
    return shown
