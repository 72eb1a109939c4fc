"""How much of each INT8 kernel's rounding noise comes from its weights: all that a better rounding of weights could
take away at best (AdaRound, Nagel et al. 2020, arXiv:2004.10568).

    python benchmarks/weight_noise.py runs/adas.bundle --pictures 4

Each kernel has twins that read the same exact input: one with input and weights rounded, one with the weights alone.
The mean error of each output channel is left out, since bias correction takes it away already; Gemms are, too, whose
channels have no places to tell a mean from the rest.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from onnx import ModelProto

from edgecnn.bundle import Bundle
from edgecnn.quantize.correct import decibel
from edgecnn.quantize.graph import load
from edgecnn.quantize.insert import insert, plan
from edgecnn.quantize.ranges import tapped
from edgecnn.recipe import CheckSection
from edgecnn.sense.exam import Exam
from edgecnn.sense.network import Network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--pictures", type=int, default=8)
    arguments = parser.parse_args()
    bundle = Bundle.read(arguments.bundle)
    data = CheckSection.model_validate(bundle.settings["check"]).data
    exam = Exam.open(bundle.require_model(), data, arguments.pictures, 0.5)
    correction = json.loads(bundle.file("ranges").read_text("utf-8"))["bias_correction"]
    network = Network(load(bundle.file("int8")), correction, exam.inputs[0])
    rows = noise(network, exam)
    rows.sort(key=lambda row: row[1])
    for name, both, weights in rows[:8]:
        print(f"{both:5.1f} dB, weights alone {weights:5.1f} dB  {name}")
    for words, some in (("all", rows), ("the noisiest quarter", rows[: -(-len(rows) // 4)])):
        share = np.array([10 ** ((both - weights) / 10) for _, both, weights in some]).clip(0, 0.99)
        print(
            f"{words}, {len(some)} convolutions: weights make {np.median(share):.1%} of the noise's power (median), "
            f"without which {np.median(-10 * np.log10(1 - share)):.2f} dB would be gained"
        )


def noise(network: Network, exam: Exam) -> list[tuple[str, float, float]]:
    """(kernel, SQNR dB with input and weights rounded, SQNR dB with the weights alone) of each convolution."""
    model, chosen = network.model, plan(network.model, network.floats)
    kernels = [node for node in model.graph.node if node.name in chosen.kernels and node.op_type == "Conv"]
    graph = ModelProto()
    graph.CopyFrom(model)
    for node in kernels:
        for kind in ("both", "weights"):
            twin = graph.graph.node.add()
            twin.CopyFrom(node)
            twin.name, twin.output[0] = f"{node.name}/{kind}", f"{node.output[0]}/{kind}"
            twin.input[1] = network.forms[node.name][1]
        graph.graph.initializer.append(network.constants[network.forms[node.name][1]])
    points: dict[str, list[tuple[str, int]]] = {}
    for node in kernels:
        points.setdefault(node.input[0], []).append((f"{node.name}/both", 0))
    taps = [f"{node.output[0]}{kind}" for node in kernels for kind in ("", "/both", "/weights")]
    session = tapped(insert(graph, points, network.scale, ()), taps, optimise=False)
    sums = np.zeros((len(kernels), 3))
    for x in exam.inputs:
        values = [v.astype(np.float64) for v in session.run(taps, {session.get_inputs()[0].name: x})]
        for i, (exact, *rounded) in enumerate(zip(values[::3], values[1::3], values[2::3], strict=True)):
            errors = [r - exact for r in rounded]
            powers = [np.square(e - e.mean((0, 2, 3), keepdims=True)).sum() for e in errors]
            sums[i] += (np.square(exact).sum(), *powers)
    return [(n.name, decibel(s[0], s[1]), decibel(s[0], s[2])) for n, s in zip(kernels, sums, strict=True)]


if __name__ == "__main__":
    main()
