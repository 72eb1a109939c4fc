"""Every zoo model through the whole line, as a table in Markdown: `python benchmarks/zoo_table.py --out docs/zoo.md`.

Each recipe of recipes/zoo is compiled into a scratch folder, timed on one CPU thread (FP32 and INT8 in turns, medians),
and its files are deleted again. Rows are kept in out/zoo.json, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.backends import Backend, open_backend
from edgecnn.bundle import Bundle, ModelSpec, atomic
from edgecnn.compile import compile_recipe
from edgecnn.cpu import cpu
from edgecnn.errors import EdgecnnError
from edgecnn.zoo.models import MODELS

ROOT = Path(__file__).parents[1]
RUNS = 9
COLUMNS = {
    "model": "{name}",
    "parameters": "{parameters:,}",
    "MACs": "{macs:,}",
    "input": "{side}",
    "FP32 MB": "{fp32_mb:.1f}",
    "INT8 MB": "{int8_mb:.1f}",
    "engine": "{engine}",
    "ONNX − torch": "{difference:.1e}",
    "FP32 ms": "{fp32_ms:.1f}",
    "INT8 ms": "{int8_ms:.1f}",
    "FP32 : INT8": "{ratio:.2f}",
}
HEAD = """# The zoo

Made by `make zoo-table` on {cpu}: each row is a recipe of `recipes/zoo`, compiled from nothing; {rows} of {all}
networks. They have four classes, so the last layer is smaller than the published one; `edgecnn zoo` counts with
the published number of classes.

- *engine*: INT8 kernels of those meant to be, by TensorRT-RTX's build log: evidence of the graph, not Jetson speed.
- *ONNX − torch*: largest difference of the outputs, relative to their range.
- Times: one thread of onnxruntime, medians of {runs}, FP32 and INT8 in turns. INT8 MB is the engine's size.

"""


def row(recipe: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        bundle = compile_recipe(recipe, Path(folder) / "zoo.bundle").bundle
        facts = {stage: record.facts for stage, record in bundle.stages.items()}
        built = facts["build"]
        return {
            "name": recipe.stem,
            "parameters": facts["train"]["parameters"],
            "macs": facts["train"]["macs"],
            "side": bundle.require_model().height,
            "fp32_mb": bundle.file("fp32").stat().st_size / 1e6,
            "int8_mb": bundle.file("engine").stat().st_size / 1e6,
            "engine": f"yes, {built['kernels_int8']} of {built['kernels_meant_int8']}",
            "difference": facts["export"]["difference"],
            **times(bundle),
        }


def times(bundle: Bundle) -> dict[str, float]:
    """Medians in ms, and the median of the ratios of neighbouring runs."""
    lanes = {name: open_backend(bundle, name, threads=1) for name in ("fp32", "int8")}
    taken = in_turns(lanes, bundle.require_model(), RUNS)
    ratios = [a / b for a, b in zip(taken["fp32"], taken["int8"], strict=True)]
    medians = {f"{name}_ms": statistics.median(values) for name, values in taken.items()}
    return {**medians, "ratio": statistics.median(ratios)}


def in_turns(lanes: Mapping[str, Backend], model: ModelSpec, runs: int) -> dict[str, list[float]]:
    """Milliseconds of each lane's runs on noise. All take turns, after two rounds that don't count."""
    feed = {model.input.name: np.random.default_rng(0).normal(0, 1, model.input.shape).astype(np.float32)}
    taken: dict[str, list[float]] = {name: [] for name in lanes}
    for run in range(runs + 2):
        for name, backend in lanes.items():
            started = time.perf_counter()
            backend(feed)
            if run >= 2:
                taken[name].append(1e3 * (time.perf_counter() - started))
    return taken


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=list(MODELS), help="names of zoo models; none: all")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/zoo.md")
    args = parser.parse_args()
    kept = ROOT / "out/zoo.json"
    kept.parent.mkdir(exist_ok=True)
    rows: dict[str, dict[str, Any]] = json.loads(kept.read_text()) if kept.is_file() else {}
    for name in args.models:
        if name in rows:
            continue
        try:
            rows[name] = row(ROOT / "recipes/zoo" / f"{name}.yaml")
        except EdgecnnError as error:
            print(f"{name}: {error}", flush=True)
            continue
        with atomic(kept) as temporary:
            temporary.write_text(json.dumps(rows, indent=1))
        with atomic(args.out) as temporary:
            temporary.write_text(page([rows[n] for n in MODELS if n in rows]))
        print(" | ".join(text.format(**rows[name]) for text in COLUMNS.values()), flush=True)


def page(rows: list[dict[str, Any]]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    lines += ["| " + " | ".join(text.format(**r) for text in COLUMNS.values()) + " |" for r in rows]
    return (
        HEAD.format(cpu=f"{os.cpu_count()} cores of {cpu()[0]}", runs=RUNS, rows=len(rows), all=len(MODELS))
        + "\n".join(lines)
        + "\n"
    )


if __name__ == "__main__":
    main()
