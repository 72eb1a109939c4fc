"""What rounding does to each INT8 kernel, and the correction of its bias.

Every kernel gets a quantised twin beside it that reads the same FP32 tensor, so one pass measures all of them, and no
error is counted twice on its way down. The mean error of each output channel goes into the bias: Nagel et al. 2019,
"Data-Free Quantization through Weight Equalization and Bias Correction", arXiv:1906.04721, section 4.2, in its
empirical form, E[Wx] - E[Q(W)Q(x)] over calibration pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from edgecnn.quantize.graph import View
from edgecnn.quantize.insert import Plan, Points, insert
from edgecnn.quantize.ranges import tapped
from edgecnn.scene import F32


@dataclass(frozen=True)
class Rounding:
    """The error of one kernel's output when its input is exact."""

    mean: F32  # (output channels,) FP32 minus INT8
    sqnr_db: float  # power of the FP32 output over power of the error


def measure(model: ModelProto, plan: Plan, scale: Mapping[str, float], feeds: Iterable[F32]) -> dict[str, Rounding]:
    """Kernel → its error over pictures (1, C, H, W); nothing if there are none."""
    graph = ModelProto()
    graph.CopyFrom(model)
    kernels = [n for n in model.graph.node if n.name in plan.kernels]
    points: Points = {}
    for node in kernels:
        exact, rounded = node.output[0], f"{node.output[0]}/twin"
        twin = graph.graph.node.add()
        twin.CopyFrom(node)
        twin.name, twin.output[0] = f"{node.name}/twin", rounded
        points.setdefault(node.input[0], []).append((twin.name, 0))
        for op, inputs, part in (
            ("Sub", [exact, rounded], "gap"),
            ("Mul", [f"{exact}/gap"] * 2, "noise"),
            ("Mul", [exact] * 2, "power"),
        ):
            graph.graph.node.append(helper.make_node(op, inputs, [f"{exact}/{part}"], f"{node.name}/{part}"))
            pool = "GlobalAveragePool" if node.op_type == "Conv" else "Identity"  # a Gemm has no places to average over
            made = f"{exact}/{part}/mean"
            graph.graph.node.append(helper.make_node(pool, [f"{exact}/{part}"], [made], f"{node.name}/{part}/mean"))
    session = tapped(
        insert(graph, points, scale, [f"{n.name}/twin" for n in kernels]),
        taps := [f"{n.output[0]}/{part}/mean" for n in kernels for part in ("gap", "noise", "power")],
    )
    feed = session.get_inputs()[0].name
    runs = [[value.reshape(-1) for value in session.run(taps, {feed: x})] for x in feeds]
    if not runs:
        return {}
    means = iter([np.mean(values, axis=0) for values in zip(*runs, strict=True)])
    result = {}
    for node, gap, noise, power in zip(kernels, means, means, means, strict=True):
        result[node.name] = Rounding(gap.astype(np.float32), decibel(float(power.sum()), float(noise.sum())))
    return result


def corrected(model: ModelProto, rounding: Mapping[str, Rounding]) -> ModelProto:
    """A copy of the prepared FP32 graph whose kernels' biases hold the correction. It serves the INT8 forms only."""
    result = ModelProto()
    result.CopyFrom(model)
    view = View(result)
    for node in [n for n in result.graph.node if n.name in rounding]:
        old = node.input[2] if len(node.input) > 2 else ""
        bias = view.constant(old) if old else np.zeros(1, np.float32)
        if bias is None:
            continue  # computed in the graph: there is no constant to add to
        name, value = f"{node.name}.bias", (bias + rounding[node.name].mean).astype(np.float32)
        result.graph.initializer.append(numpy_helper.from_array(value, name))
        del node.input[2:]
        node.input.append(name)
    return result


def decibel(power: float, noise: float) -> float:
    """Signal-to-noise ratio; capped at 200 dB where there is no noise."""
    return float(min(10 * np.log10(max(power, 1e-30) / max(noise, 1e-30)), 200.0))
