"""One cell of a sweep: compiled and measured in a folder of its own, by whichever worker gets it.

    NAME/
      recipe.yaml    the recipe with this cell's values: `edgecnn compile` makes the same of it
      bundle/        what it was compiled to
      log.txt        what a terminal would have shown, and the traceback of what failed
      result.json    the figures; written last, and whole or not at all

A worker that dies leaves a bundle whose finished stages the next one keeps, as after any interrupted compile.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import socket
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecnn.bundle import Bundle, atomic
from edgecnn.compile import compile_recipe, final_key
from edgecnn.errors import EdgecnnError, InputError
from edgecnn.recipe import load

RECIPE, RESULT, LOG, MARK = "recipe.yaml", "result.json", "log.txt", "sweep.json"
HEADLINES = ("AP50", "top1", "cosine")  # of a detector, a classifier, an embedding


@dataclass(frozen=True)
class Task:
    """All that a worker must know."""

    text: str  # the recipe
    folder: Path  # of this cell; absolute, and the same one from every worker
    check: bool  # whether accuracy is measured


def run_cell(task: Task) -> dict[str, Any]:
    """Compile and measure; what result.json then holds, or {"error", "exit_code"} in one line where the cell failed.

    Nothing but the task and the files that it names is looked at, so any worker gives the same figures.
    """
    try:
        if not (task.folder.parent / MARK).is_file():
            raise InputError(
                f"{socket.gethostname()} sees no {task.folder.parent / MARK}",
                wanted="the sweep's folder under the same path on every worker",
            )
        task.folder.mkdir(exist_ok=True)
        with (task.folder / LOG).open("a", encoding="utf-8") as log, contextlib.redirect_stderr(log):
            try:
                return _run(task)
            except Exception:
                traceback.print_exc(file=log)
                raise
    except EdgecnnError as error:
        return {"error": str(error), "exit_code": error.exit_code}
    except Exception as error:  # a fault of ours in one cell is no reason to lose the others
        line = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return {"error": line, "exit_code": EdgecnnError.exit_code}


def finished(task: Task) -> dict[str, Any] | None:
    """The result of an earlier run, where the recipe, its files and what was to be measured are still the same."""
    try:
        result: dict[str, Any] = json.loads((task.folder / RESULT).read_text("utf-8"))
        same = (task.folder / RECIPE).read_text("utf-8") == task.text and result["key"] == _key(task)
    except (OSError, ValueError, KeyError, TypeError, EdgecnnError):
        return None  # not run, or its data are gone: running it tells
    return result if same else None


def _run(task: Task) -> dict[str, Any]:
    started = time.perf_counter()
    for left in task.folder.glob(".*.*.*"):  # by a worker that was killed: see `atomic`
        left.unlink()
    with atomic(task.folder / RECIPE) as temporary:
        temporary.write_text(task.text, "utf-8")
    bundle = compile_recipe(task.folder / RECIPE, task.folder / "bundle").bundle
    result = {"key": _key(task), **_sizes(bundle), **(_accuracy(bundle) if task.check else {})}
    result["seconds"] = round(time.perf_counter() - started, 1)
    with atomic(task.folder / RESULT) as temporary:
        temporary.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", "utf-8")
    return result


def _key(task: Task) -> str:
    recipe = load(task.folder / RECIPE)
    asked = {"bundle": final_key(recipe), "check": recipe.check.model_dump(mode="json") if task.check else None}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _sizes(bundle: Bundle) -> dict[str, Any]:
    """MACs of one picture; bytes of the networks as they are stored, FP32 and INT8."""
    exported, quantised = bundle.stages["export"].facts, bundle.stages["quantize"].facts["bytes"]
    return {"macs": exported["macs"], "bytes_fp32": exported["bytes"], "bytes_int8": quantised["int8_cpu"]}


def _accuracy(bundle: Bundle) -> dict[str, Any]:
    """The recipe's own check; a gate that is missed is told, and fails nothing: a sweep looks around."""
    from edgecnn.check import check

    report = check(bundle)
    figures = {p: {m: _finite(v) for m, v in row.items()} for p, row in report.figures.items()}
    headline = next(m for m in HEADLINES if m in figures["fp32"])
    return {
        "metric": headline,
        "fp32": figures["fp32"][headline],
        "int8": figures["int8"][headline],
        "samples": report.samples,
        "figures": figures,
        "missed": [str(gate) for gate in report.gates if not gate.ok],
    }


def _finite(value: float) -> float | None:
    """nan, where there was nothing to measure on, is null in JSON."""
    return value if math.isfinite(value) else None
