"""What FP16 costs: accuracy of FP32, INT8, INT8 with FP16 for the rest, FP16 throughout. Markdown on standard output.

python benchmarks/half.py out/adas.bundle --data sim:9000 --pictures 100

All four are TensorRT's forms, computed on the CPU in FP32 that is rounded to FP16 where the network's types say so
(`edgecnn.build.half.emulated`); `dB` is signal over noise of the worst output against FP32, on the first pictures.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from accuracy import section
from onnx import ModelProto

from edgecnn import onnxfile
from edgecnn.build.half import emulated, half
from edgecnn.build.lint.parity import compare
from edgecnn.bundle import Bundle
from edgecnn.check.accuracy import boxed, labelled, measure
from edgecnn.recipe import DataSection
from edgecnn.vision import Preprocess

COMPARED = 8
SHOWN = ("AP50", "AP", "top1", "top5")


def forms(bundle: Bundle) -> dict[str, tuple[ModelProto, str]]:
    """Name in the recipe → (network, how many nodes are FP16)."""
    fp32, int8 = (onnxfile.read(bundle.file(role)) for role in ("fp32", "int8"))
    found: dict[str, tuple[ModelProto, str]] = {"fp32": (fp32, ""), "int8": (int8, "")}
    for name, model in (("int8+fp16", int8), ("fp16", fp32)):
        done = half(model)
        found[name] = (emulated(done.model), f"{done.nodes}, {len(done.kept)} in FP32")
    return found


def run(bundle: Bundle, data: DataSection, folder: Path) -> None:
    model = bundle.require_model()
    pictures = (labelled if model.task == "classify" else boxed)(model, data)
    preprocess = Preprocess(model)
    inputs = [{model.input.name: preprocess(pictures[i].bgr)[0].copy()} for i in range(min(COMPARED, len(pictures)))]
    networks = forms(bundle)
    for name, (network, nodes) in networks.items():
        (folder / "model.onnx").write_bytes(network.SerializeToString())
        other = Bundle(folder, bundle.name, settings=bundle.settings).with_stage(
            "export", settings={}, version=1, files={"fp32": "model.onnx"}, facts={}, tools={}, model=model
        )
        found = measure(other, data, ("fp32",))
        figures = found.figures["fp32"]
        db = "" if name == "fp32" else f"{compare(networks['fp32'][0], network, inputs, 0).sqnr_db:.1f}"
        cells = " | ".join(f"{100 * figures[k]:.1f}" if k in figures else "" for k in SHOWN)
        print(f"| {bundle.name} | {found.samples} | {name} | {nodes} | {db} | {cells} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--data", required=True, help="KIND:PATH, or sim:SEED")
    parser.add_argument("--pictures", type=int, default=200)
    args = parser.parse_args()
    print("| network | pictures | precision | FP16 nodes | dB | " + " | ".join(SHOWN) + " |")
    print("|---" * (5 + len(SHOWN)) + "|")
    for path in args.bundles:
        with tempfile.TemporaryDirectory() as folder:
            run(Bundle.read(path), section(args.data, args.pictures), Path(folder))


if __name__ == "__main__":
    main()
