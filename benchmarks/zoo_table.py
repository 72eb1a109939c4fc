"""Every zoo model and three ONNX files from elsewhere through the whole line: `python benchmarks/zoo_table.py`.

Each recipe is compiled into a scratch folder (train, export, quantize, build), its INT8 network linted and repaired for
every target, its time predicted for a board, and timed on one CPU thread (FP32 and INT8 in turns, medians). The files
are deleted again. Rows are kept in out/zoo_table.json, so that an interrupted run goes on where it was; name a model to
measure it again. Writes docs/zoo.md; exit code 1 if a network did not get through.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from foreign import FOREIGN, SOURCES
from onnx import TensorProto

from edgecnn import onnxfile
from edgecnn.backends import Backend, open_backend
from edgecnn.build import lint
from edgecnn.build.cache import strip
from edgecnn.build.lint.fix import fix
from edgecnn.bundle import Bundle, ModelSpec, atomic
from edgecnn.compile import compile_recipe
from edgecnn.cpu import cpu, saturates
from edgecnn.errors import EdgecnnError, InputError, ModelError
from edgecnn.predict import error, plan_of, predict
from edgecnn.quantize.stage import Inputs, calibration
from edgecnn.recipe import Recipe, load
from edgecnn.zoo.models import MODELS

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
RECIPES = {**{name: f"zoo/{name}.yaml" for name in MODELS}, "roadnet": "adas.yaml"}
NAMES = (*RECIPES, *FOREIGN)
BOARD = "orin-nano"
RUNS = 9
COMPARED = 3  # pictures on which a repaired network must answer as before

NO_VNNI = """It has no VNNI, so exact INT8 costs
  onnxruntime more than FP32 where layers are small or depthwise; `edgecnn run` takes FP32 there by itself."""

WHAT = {  # column -> what stands in it
    "model": "{name}",
    "from": "{recipe}",
    "parameters": "{parameters:,}",
    "MACs": "{macs:,}",
    "input": "{input}",
    "nodes": "{nodes}",
    "FP32 MB": "{fp32_mb:.1f}",
    "INT8 MB": "{int8_mb:.1f}",
    "engine MB": "{engine_mb:.1f}",
    "ONNX − torch": "{difference}",
}
THROUGH = {
    "model": "{name}",
    "INT8 kernels": "{kernels_int8} of {kernels_meant_int8}",
    "MACs in INT8": "{macs_int8:.1%}",
    "SQNR, dB": "{sqnr}",
    "FP32 ms": "{fp32_ms:.1f}",
    "INT8 ms": "{int8_ms:.1f}",
    "FP32 : INT8": "{ratio:.2f}",
    "FP16 ms, predicted": "{fp16_board_ms:.2f}",
    "INT8 ms, predicted": "{int8_board_ms:.2f}",
}
HEAD = """# The zoo, and what comes from elsewhere

Made by `make zoo-table` on {cpu}: each row is a recipe, compiled from nothing (train, export, quantize, build for
`rtx-sm86`); {rows} of {all} networks went through.

## What they are

The networks of `recipes/zoo` have four classes, so the last layer is smaller than the published one; `edgecnn zoo`
counts with the published number of classes. The last {foreign} are ONNX files from elsewhere: see [a network of your
own](onnx.md).

- *ONNX − torch*: largest difference of the outputs, relative to their range.
- *INT8 MB* is the network in TensorRT's form, whose weights stay FP32 constants before their pair; *engine* has them
  in INT8, and kernels.

{what}

## How they go through

- *INT8 kernels*: of the convolutions and matrix products meant to be INT8, those that are, by TensorRT-RTX's build log:
  evidence of the graph, not Jetson speed. *MACs in INT8*: their share of all multiply-adds, by the network's pairs.
- *SQNR*: of each output, INT8 against FP32, on four calibration pictures. The networks of `recipes/zoo` are trained for
  one epoch on a few pictures, so theirs says little about trained ones.
- *FP32 ms, INT8 ms*: one thread of onnxruntime on that CPU, medians of {runs}, in turns. {vnni}
- *predicted*: `edgecnn predict --target {board}`, as a CUDA graph. **Not a measurement**: against published latencies
  its median error is {median:.0%}, the worst {worst:.1f}×.

{through}

## What lint finds

`edgecnn lint model.int8.onnx --target ... --fix`: errors (e) and warnings (w) of the network that `quantize` writes,
how many repairs `--fix` made, and what is left then. For the DLA it is the network without pairs that `edgecnn cache`
writes beside the calibration cache. A repaired network must answer as before on {compared} calibration pictures
(`--inputs`).

{lint}

{rules}
"""


def row(name: str, path: Path, folder: Path) -> dict[str, Any]:
    """Every figure of one recipe; `folder` takes its bundle."""
    recipe = load(path)
    bundle = compile_recipe(path, folder / "zoo.bundle").bundle
    facts = {key: value for stage in bundle.stages.values() for key, value in stage.facts.items()}
    facts |= facts.get("after", {})  # of slimming
    spec, pairs = bundle.require_model(), plan_of(bundle.path)
    weights = onnxfile.read(bundle.file("fp32")).graph.initializer
    counted = sum(int(np.prod(t.dims)) for t in weights if t.data_type == TensorProto.FLOAT)
    megabytes = {role: bundle.file(role).stat().st_size / 1e6 for role in ("fp32", "int8", "engine")}
    return {
        "name": name,
        "recipe": f"recipes/{RECIPES[name]}" if name in RECIPES else SOURCES[name],
        "parameters": facts.get("parameters", counted),
        "macs": facts.get("macs", pairs.macs),
        "input": "×".join(map(str, spec.input.shape[1:])),
        "nodes": bundle.stages["export"].facts["nodes"],
        **{f"{role}_mb": size for role, size in megabytes.items()},
        "difference": f"{facts['difference']:.1e}" if "difference" in facts else "–",
        "kernels_int8": facts["kernels_int8"],
        "kernels_meant_int8": facts["kernels_meant_int8"],
        "macs_int8": sum(k.macs for k in pairs.kernels if k.precision == "int8") / pairs.macs,
        "sqnr": ", ".join(f"{value:.1f}" for value in facts["sqnr_db"].values()),
        "int8_board_ms": predict(pairs, BOARD).graph_ms,
        "fp16_board_ms": predict(plan_of(bundle.path, "fp16"), BOARD, "fp16").graph_ms,
        "lint": linted(bundle, recipe),
        **times(bundle),
    }


def linted(bundle: Bundle, recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Target → the rules that found something, before and after --fix; how many repairs; why it refused, else ""."""
    spec, int8 = bundle.require_model(), onnxfile.read(bundle.file("int8"))
    pictures = Inputs(spec, calibration(recipe.quantize))
    feeds = [{spec.input.name: pictures[i]} for i in range(min(COMPARED, len(pictures)))]
    found: dict[str, dict[str, Any]] = {}
    for name, target in lint.PROFILES.items():
        model = strip(int8) if target.dla else int8
        before = after = lint.check_model(model, target)
        repairs, refused = 0, ""
        try:
            fixed = fix(model, target, feeds)
            repairs, after = len(fixed.repairs), list(fixed.remaining)
        except ModelError as why:
            refused = str(why)
        rules = {"before": [f.rule for f in before], "after": [f.rule for f in after]}
        found[name] = {**rules, "repairs": repairs, "refused": refused}
    return found


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
    parser.add_argument("models", nargs="*", help=f"measured, also again; none: what is not yet of {', '.join(NAMES)}")
    parser.add_argument("--data", type=Path, default=DATA, help="real data, with two of the ONNX files from elsewhere")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/zoo.md")
    args = parser.parse_args()
    if unknown := set(args.models) - {*NAMES}:
        parser.error(f"no network {sorted(unknown)[0]}")
    kept = ROOT / "out/zoo_table.json"
    rows: dict[str, dict[str, Any]] = json.loads(kept.read_text("utf-8")) if kept.is_file() else {}
    todo = args.models or [name for name in NAMES if name not in rows]
    failed = []
    for number, name in enumerate(todo, 1):
        print(f"{name}, {number} of {len(todo)}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            try:
                path = ROOT / "recipes" / RECIPES[name] if name in RECIPES else FOREIGN[name](args.data, Path(folder))
            except InputError as why:
                print(f"  left out: {why}", flush=True)
                continue
            try:
                rows[name] = row(name, path, Path(folder))
            except EdgecnnError as why:
                failed.append(f"{name}: {why}")
                print(failed[-1], flush=True)
                continue
        with atomic(kept) as temporary:
            temporary.write_text(json.dumps(rows, indent=1), "utf-8")
        with atomic(args.out) as temporary:
            temporary.write_text(page([rows[n] for n in NAMES if n in rows]), "utf-8")
        print("  " + ", ".join(f"{head} {text.format(**rows[name])}" for head, text in THROUGH.items()), flush=True)
    if failed:
        sys.exit("\n".join(["did not get through:", *failed]))


def page(rows: list[dict[str, Any]]) -> str:
    found = {rule for r in rows for one in r["lint"].values() for rule in one["before"]}
    accuracy = error()
    return HEAD.format(
        cpu=f"{os.cpu_count()} cores of {cpu()[0]}",
        rows=len(rows),
        all=len(NAMES),
        foreign=len(FOREIGN),
        runs=RUNS,
        vnni=NO_VNNI if saturates() else "It has VNNI.",
        board=BOARD,
        median=accuracy["median"],
        worst=accuracy["worst"],
        compared=COMPARED,
        what=table([*WHAT], [[text.format(**r) for text in WHAT.values()] for r in rows]),
        through=table([*THROUGH], [[text.format(**r) for text in THROUGH.values()] for r in rows]),
        lint=table(["model", *lint.PROFILES], [[r["name"], *map(cell, r["lint"].values())] for r in rows]),
        rules="\n".join(f"- `{rule}`: {lint.RULES[rule].what}" for rule in lint.RULES if rule in found),
    )


def cell(found: dict[str, Any]) -> str:
    """Such as `1 e, 2 w; 1 repaired: 2 w`."""
    text = count(found["before"])
    if found["refused"]:
        return f"{text}; repair refused"
    return f"{text}; {found['repairs']} repaired: {count(found['after'])}" if found["repairs"] else text


def count(rules: list[str]) -> str:
    by = {kind: sum(lint.RULES[rule].severity == kind for rule in rules) for kind in ("error", "warning")}
    return ", ".join(f"{number} {kind[0]}" for kind, number in by.items() if number) or "none"


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(r) + " |" for r in (head, ["---"] * len(head), *rows))


if __name__ == "__main__":
    main()
