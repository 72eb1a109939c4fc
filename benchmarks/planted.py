"""Spoils one scale of a quantised bundle, for `check --bisect` to find: `python benchmarks/planted.py BUNDLE OUT`.

OUT is a copy of BUNDLE in which the input of one layer is quantised with a scale twenty times too small, in each INT8
file, and the manifest is none the wiser.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from edgecnn.bundle import Bundle


def spoiled(model: onnx.ModelProto, kernel: str, factor: float) -> None:
    """In place. Raises StopIteration where there is no such kernel."""
    constants = {t.name: t for t in model.graph.initializer}
    producer = {name: node for node in model.graph.node for name in node.output}
    conv = next(node for node in model.graph.node if node.name == kernel)
    dequantize = producer[conv.input[0]]
    for name in {dequantize.input[1], producer[dequantize.input[0]].input[1]}:
        scale = (numpy_helper.to_array(constants[name]) * np.float32(factor)).astype(np.float32)
        constants[name].CopyFrom(numpy_helper.from_array(scale, name))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layer", default="/stages.2/stages.2.0/stages.2.0.0/stages.2.0.0.0/Conv")
    parser.add_argument("--factor", type=float, default=0.05)
    args = parser.parse_args()
    shutil.copytree(args.bundle, args.out)
    bundle = Bundle.read(args.out)
    record = bundle.stages["quantize"]
    for role, (name, _) in record.files.items():
        if role.startswith("int8"):
            model = onnx.load(args.out / name)
            spoiled(model, args.layer, args.factor)
            onnx.save(model, args.out / name)
    files = {role: name for role, (name, _) in record.files.items()}
    bundle.with_stage("quantize", settings=record.settings, version=1, files=files, facts=record.facts, tools={})


if __name__ == "__main__":
    main()
