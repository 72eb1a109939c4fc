"""Where Q/DQ pairs go and what that costs: edgecnn beside modelopt and onnxruntime. Markdown.

python benchmarks/placement.py RECIPE --out FOLDER [--calibrate KIND:PATH] [--check KIND:PATH]

All get one FP32 file (normalisation folded) and the same calibration pictures. Columns:

pairs         on activations + on weights
SQNR a layer  dB of FP32's power over the error's, behind each convolution or matrix product and its ReLU, errors from
              further up included; median and worst. Each channel up to a factor: channels may have been evened out
outputs       the same for each output of the network, without such a factor
top-1, AP50   of `edgecnn check`, by onnxruntime's exact kernels, in points, and the drop from FP32
RTX           kernels in INT8 of all kernels, and layers that only reformat, by the log of TensorRT for RTX

modelopt takes part where it is installed. Each row's figures are kept in FOLDER/placement.json: a run that is stopped
goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import section
from numpy.typing import NDArray
from onnx import ModelProto
from quantizers import quantizers

from edgecnn.build import readers, targets, worker, xray
from edgecnn.build.network import Options
from edgecnn.bundle import Bundle, atomic
from edgecnn.check.accuracy import measure
from edgecnn.compile import compile_recipe
from edgecnn.errors import EdgecnnError
from edgecnn.onnxfile import View
from edgecnn.progress import note
from edgecnn.quantize.correct import decibel
from edgecnn.quantize.graph import load, prepare
from edgecnn.quantize.insert import ABSORBED, KERNELS
from edgecnn.quantize.ranges import tapped
from edgecnn.quantize.stage import Inputs, calibration, save
from edgecnn.recipe import DataSection
from edgecnn.recipe import load as load_recipe
from edgecnn.scene import F32

LAYERS_ON = 12  # pictures on which layers and outputs are compared
COLUMNS = (
    "Q/DQ by", "pairs", "SQNR a layer: median", "worst", "outputs", "{figure}", "drop", "RTX: INT8", "reformats",
)  # fmt: skip


def pairs(path: Path) -> tuple[int, int]:
    """Pairs on activations and on weights; a DequantizeLinear that reads a constant is a weight's, too."""
    view = View(load(path))
    first = [n.input[0] for n in view.graph.node if n.op_type == "QuantizeLinear"]
    stored = [n for n in view.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in view.constants]
    weights = sum(name in view.constants for name in first) + len(stored)
    return len(first) + len(stored) - weights, weights


def behind(network: ModelProto) -> dict[str, float]:
    """What each kernel writes, or the ReLU that alone reads it, and the least value there may be.

    onnxruntime takes a ReLU out of the graph where the quantiser behind it cuts off what is negative.
    """
    view, names = View(network), {}
    for node in network.graph.node:
        if node.op_type in KERNELS:
            readers = [reader for reader, _ in view.readers[node.output[0]]]
            fused = len(readers) == 1 and readers[0].op_type in ABSORBED
            names[readers[0].output[0] if fused else node.output[0]] = 0.0 if fused else -np.inf
    return names


def values(path: Path, feeds: Sequence[F32], names: Sequence[str]) -> list[dict[str, F32]]:
    """Picture → tensor → value, as the file is written."""
    model = load(path)
    made = View(model).producer
    taps = [name for name in names if name in made]
    session = tapped(model, taps, optimise=False)
    wanted = dict.fromkeys([*taps, *(o.name for o in session.get_outputs())])
    feed = session.get_inputs()[0].name
    return [dict(zip(wanted, session.run(list(wanted), {feed: x}), strict=True)) for x in feeds]


def layers_db(exact: list[dict[str, F32]], rounded: list[dict[str, F32]], least: dict[str, float]) -> dict[str, float]:
    """Tensor (1, C, ...) → SQNR with each channel of `rounded` times the factor that fits best."""
    found = {}
    for name, floor in least.items():
        if name in exact[0] and name in rounded[0]:
            a, b = (np.maximum(_channels([row[name] for row in rows]), floor) for rows in (exact, rounded))
            factor = (a * b).sum(1) / np.maximum((b * b).sum(1), 1e-30)
            found[name] = decibel(float((a * a).sum()), float(np.square(a - factor[:, None] * b).sum()))
    return found


def _channels(values: list[F32]) -> NDArray[np.float64]:
    """(1, C, ...) a picture → (C, N)."""
    return np.concatenate([x[0].reshape(x.shape[1], -1).astype(np.float64) for x in values], 1)


def outputs_db(exact: list[dict[str, F32]], rounded: list[dict[str, F32]], names: Sequence[str]) -> list[float]:
    def total(name: str, power: bool) -> float:
        rows = zip(exact, rounded, strict=True)
        return sum(float(np.square(e[name] - (0 if power else r[name]), dtype=np.float64).sum()) for e, r in rows)

    return [round(decibel(total(name, True), total(name, False)), 1) for name in names]


def engine(path: Path) -> tuple[str, str]:
    """INT8 kernels of all, and reformats; or why there is no engine."""
    try:
        built = worker.build_apart(path, targets.find("rtx-sm86"), Options())
    except EdgecnnError as error:
        return f"refused: {str(error).partition('.onnx: ')[2][:48]}", ""
    seen = xray.xray(readers.log(built.log), ())
    kernels = [layer for layer in seen.layers if layer.kernel]
    return f"{sum(layer.input == 'Int8' for layer in kernels)} of {len(kernels)}", str(seen.reformats)


def score(bundle: Bundle, path: Path, data: DataSection, figure: str) -> float:
    """The check's figure with this INT8 file in place of the bundle's."""
    alone = bundle.before("quantize").with_stage(
        "quantize", settings={}, version=0, files={"int8": path.name}, facts={}, tools={}
    )
    return measure(alone, data, ["int8"]).figures["int8"][figure]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--calibrate", help="KIND:PATH in place of the recipe's calibration pictures")
    parser.add_argument("--check", help="KIND:PATH in place of the recipe's check data")
    args = parser.parse_args()
    recipe = load_recipe(args.recipe)
    bundle = compile_recipe(args.recipe, args.out, until="export").bundle
    spec, own = bundle.require_model(), recipe.quantize
    if args.calibrate:
        own = own.model_copy(update={"calibration": None, "data": section(args.calibrate, own.data.pictures)})
    data = section(args.check, recipe.check.data.pictures) if args.check else recipe.check.data
    figure = "top1" if spec.task == "classify" else "AP50"
    source = args.out / "placement-fp32.onnx"
    save(prepare(load(bundle.file("fp32"))), source)  # of an opset that has scales a channel
    every = Inputs(spec, calibration(own))
    few = [every[i] for i in range(0, len(every), -(-len(every) // LAYERS_ON))]
    network = load(source)
    names = behind(network)
    exact = values(source, few, [*names])
    layers = [name for name in names if name in exact[0]]

    kept = args.out / "placement.json"
    rows: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {}
    if "FP32" not in rows:
        found = measure(bundle, data, ["fp32"])
        rows["FP32"] = {"figure": found.figures["fp32"][figure], "count": found.samples}
    for title, make in quantizers(own).items():
        if title in rows:
            continue
        note(title)
        path = bundle.path / f"placement-{title.replace(' ', '-').replace(',', '')}.onnx"
        try:
            make(source, every, path)
        except ImportError as error:
            note(f"{title}: left out ({error})")
            continue
        rounded = values(path, few, layers)
        rows[title] = {
            "pairs": pairs(path),
            "layers": layers_db(exact, rounded, names),
            "outputs": outputs_db(exact, rounded, [o.name for o in network.graph.output]),
            "figure": score(bundle, path, data, figure),
            "engine": engine(path),
        }
        with atomic(kept) as temporary:
            temporary.write_text(json.dumps(rows, indent=1))

    made = {title: row for title, row in rows.items() if title != "FP32"}
    common = [n for n in layers if all(n in row["layers"] for row in made.values())]
    whole = rows["FP32"]["figure"]
    tested = f"FP32 {100 * whole:.1f} on {rows['FP32']['count']} pictures"
    print(f"{recipe.name}: {tested}; {len(every)} to calibrate on; {len(common)} of {len(layers)} kernels compared\n")
    print("| " + " | ".join(COLUMNS).format(figure=figure) + " |\n" + "|---" * len(COLUMNS) + "|")
    for title, row in made.items():
        db = [row["layers"][n] for n in common]
        cells = [
            title, "{} + {}".format(*row["pairs"]), f"{np.median(db):.1f}", f"{min(db):.1f}",
            ", ".join(f"{x:.1f}" for x in row["outputs"]),
            f"{100 * row['figure']:.1f}", f"{100 * (whole - row['figure']):+.1f}", *row["engine"],
        ]  # fmt: skip
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
