"""INT8 on this CPU: edgecnn's file beside onnxruntime's own quantisation and OpenVINO, as a table in Markdown.

    python benchmarks/cpu_engines.py RECIPE ... [--runs runs] [--out out/cpu_engines.md]

Each recipe is compiled as far as `quantize`; bundles that lie in --runs are used as they are where nothing changed.
onnxruntime's `quantize_static` gets the same FP32 network (BN merged), the same calibration pictures and its own
defaults: ranges by MinMax, u8 activations, s8 weights by channel, every operator that it knows.

Times are CPU times of the process on one thread, in ms: on an idle core the wall clock's, on a busy one hardly more.
All lanes take turns, in another order each time, since each finds the caches as the one before left them; medians, and
medians of ratios in one turn. SQNR is that of the last output against FP32 (a
detector's scores; a single output is all of it) on calibration pictures, top-1 on the recipe's check data, AP50 on
road simulator stills; no figure where the check has fewer than 100 pictures. Needs `pip install openvino` for its rows.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from edgecnn.backends import Backend, ort
from edgecnn.bundle import Bundle, ModelSpec, atomic
from edgecnn.check.accuracy import measured
from edgecnn.compile import compile_recipe
from edgecnn.cpu import VNNI, cpu, saturates
from edgecnn.progress import note, tracked
from edgecnn.quantize.correct import decibel
from edgecnn.quantize.graph import load as load_network
from edgecnn.quantize.graph import prepare
from edgecnn.quantize.stage import Inputs, calibration
from edgecnn.recipe import DataSection, Recipe, load
from edgecnn.run import RunSettings
from edgecnn.scene import F32

RECIPES = Path(__file__).parents[1] / "recipes"
DEFAULT = [RECIPES / "adas.yaml", RECIPES / "zoo/resnet50.yaml", RECIPES / "zoo/vgg16.yaml"]
RUNS, WARM = 31, 2
CALIBRATED = 32  # pictures for quantize_static, which keeps every tensor's range of each of them
COMPARED = 8  # pictures for SQNR
STILLS = DataSection(seed=9000, pictures=64)  # for a detector's AP50
LEAST = 100  # pictures, for a figure worth telling
OURS, NATIVE = "onnxruntime, edgecnn's INT8", "onnxruntime, quantize_static QDQ"
FAST = "; fast kernels, sums overflow"


class Feeds(CalibrationDataReader):
    """Calibration inputs, as quantize_static wants them."""

    def __init__(self, name: str, inputs: Iterable[F32]) -> None:
        self._rest = ({name: x} for x in inputs)

    def get_next(self) -> dict[str, F32] | None:
        return next(self._rest, None)


def native(bundle: Bundle, inputs: list[F32], folder: Path) -> dict[str, Path]:
    """quantize_static's files. They are kept: their name holds the key of the stage that made the FP32 network."""
    folder.mkdir(parents=True, exist_ok=True)
    key = bundle.stages["quantize"].key[:12]
    floats = bundle.stages["quantize"].facts["kept_float"]
    ways: dict[str, dict[str, Any]] = {
        "QDQ": {"quant_format": QuantFormat.QDQ},
        "QOperator": {"quant_format": QuantFormat.QOperator},
        "QDQ, reduce_range": {"quant_format": QuantFormat.QDQ, "reduce_range": True},
    }
    if floats:
        ways["QDQ, edgecnn's float layers"] = {"quant_format": QuantFormat.QDQ, "nodes_to_exclude": floats}
    prepared, start = folder / f"{key}.onnx", folder / f"{key}.pre.onnx"
    files = {}
    for name, options in ways.items():
        files[name] = path = folder / f"{key}.{len(files)}.onnx"
        if path.is_file():
            continue
        note(f"quantize_static {name}")
        if not start.is_file():
            onnx.save(prepare(load_network(bundle.file("fp32"))), prepared)
            quant_pre_process(str(prepared), str(start), skip_symbolic_shape=True)
        reader = Feeds(bundle.require_model().input.name, inputs)
        kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        with atomic(path) as temporary:
            quantize_static(str(start), str(temporary), reader, per_channel=True, **kinds, **options)
    return files


def lanes(bundle: Bundle, files: Mapping[str, Path]) -> Iterator[tuple[str, Backend]]:
    """Every engine on every file, through edgecnn's backends with their settings."""
    model = bundle.require_model()

    def opened(path: Path, *, exact: bool = True, engine: str = "ort") -> Backend:
        if engine == "ort":
            with patch.object(ort, "saturates", lambda: exact and saturates()):
                return ort.OnnxRuntime(path, model, threads=1)
        from edgecnn.backends import openvino

        with patch.object(openvino, "saturates", lambda: exact and saturates()):
            return openvino.OpenVINO(path, model, threads=1)

    fp32, mine, signed = (bundle.file(role) for role in ("fp32", "int8_cpu", "int8"))
    yield "onnxruntime, FP32", opened(fp32)
    yield OURS, opened(mine)
    for name, path in files.items():
        if "reduce" not in name:
            yield f"onnxruntime, quantize_static {name}", opened(path)
    seven = "quantize_static QDQ, reduce_range"
    if saturates():
        yield OURS + FAST, opened(mine, exact=False)
        yield NATIVE + FAST, opened(files["QDQ"], exact=False)
        yield f"onnxruntime, {seven} (7-bit weights); fast kernels", opened(files["QDQ, reduce_range"], exact=False)
    if not find_spec("openvino"):
        note("openvino is not installed: its rows are left out")
        return
    yield "OpenVINO, FP32", opened(fp32, engine="ov")
    yield "OpenVINO, edgecnn's INT8 (`--precision openvino`)", opened(mine, engine="ov")
    if saturates():
        yield "OpenVINO, edgecnn's INT8 as it is; sums overflow", opened(mine, exact=False, engine="ov")
        yield f"OpenVINO, {seven}", opened(files["QDQ, reduce_range"], engine="ov")
    yield "OpenVINO, TensorRT's form (model.int8.onnx)", opened(signed, exact=False, engine="ov")


def in_turns(backends: Mapping[str, Backend], feed: Mapping[str, F32]) -> dict[str, list[float]]:
    """CPU milliseconds of each lane's runs."""
    taken: dict[str, list[float]] = {name: [] for name in backends}
    dice, order = np.random.default_rng(0), list(backends)
    for run in tracked(range(RUNS + WARM), "time", RUNS + WARM):
        for name in dice.permutation(order):
            started = time.process_time()
            backends[name](feed)
            if run >= WARM:
                taken[name].append(1e3 * (time.process_time() - started))
    return taken


def sqnr(backends: Mapping[str, Backend], model: ModelSpec, inputs: list[F32]) -> dict[str, float]:
    """Lane → dB, of the last output against the first lane's."""
    last, first = model.outputs[-1].name, next(iter(backends))
    answers = {
        name: np.stack([backend({model.input.name: x})[last] for x in inputs]).astype(np.float64)
        for name, backend in backends.items()
    }
    power = float(np.square(answers[first]).sum())
    return {name: decibel(power, float(np.square(answers[first] - a).sum())) for name, a in answers.items()}


def figures(recipe: Recipe, model: ModelSpec, backends: Mapping[str, Backend]) -> tuple[str, dict[str, float]]:
    """What the column is called, and lane → top-1 or AP50."""
    data = STILLS if model.task == "detect" else recipe.check.data
    if model.task == "classify" and data.pictures < LEAST:
        return "top-1", {}
    name = "AP50" if model.task == "detect" else "top1"
    found = measured(model, backends, data, RunSettings())
    return f"{name} ({found.samples} pictures)", {lane: row[name] for lane, row in found.figures.items()}


def table(path: Path, runs: Path) -> str:
    recipe = load(path)
    note(f"{recipe.name}: compile")
    bundle = compile_recipe(path, runs / f"{recipe.name}.bundle", until="quantize").bundle
    model, data = bundle.require_model(), Inputs(bundle.require_model(), calibration(recipe.quantize))
    inputs = [data[i] for i in range(0, len(data), -(-len(data) // CALIBRATED))]
    backends = dict(lanes(bundle, native(bundle, inputs, runs / f"{recipe.name}.native")))
    taken = in_turns(backends, {model.input.name: inputs[0]})
    decibels = sqnr(backends, model, inputs[:: -(-len(inputs) // COMPARED)])
    title, found = figures(recipe, model, backends)
    facts = bundle.stages["quantize"].facts
    lines = [
        f"## {recipe.name}: {model.arch} {model.width}×{model.height}, "
        f"{facts['int8_kernels']} of {facts['kernels']} kernels INT8\n",
        f"| engine and file | ms | times as fast as edgecnn's | as quantize_static QDQ | SQNR, dB | {title} |",
        "|---|---|---|---|---|---|",
    ]
    for name, times in taken.items():
        gains = [statistics.median(a / b for a, b in zip(taken[base], times, strict=True)) for base in (OURS, NATIVE)]
        noise = "" if name == next(iter(taken)) else f"{decibels[name]:.1f}"
        figure = f"{found[name]:.4f}" if found else "–"
        cells = [name, f"{statistics.median(times):.2f}", *(f"{gain:.2f}" for gain in gains), noise, figure]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", type=Path, default=DEFAULT)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the bundles")
    parser.add_argument("--out", type=Path, default=Path("out/cpu_engines.md"))
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    name, flags = cpu()
    tools = [f"{tool} {metadata.version(tool)}" for tool in ("onnxruntime", "openvino") if find_spec(tool)]
    kind = " ".join(sorted(VNNI & flags)) or "no VNNI"
    text = f"{name}, {kind}, {os.cpu_count()} cores, one thread; {', '.join(tools)}; {RUNS} turns\n"
    print(text, flush=True)
    for path in args.recipes:
        part = table(path, args.runs)
        print(part, flush=True)
        text += "\n" + part
        with atomic(args.out) as temporary:
            temporary.write_text(text)


if __name__ == "__main__":
    main()
