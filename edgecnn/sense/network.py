"""A quantised network taken apart again, so that any of its units can be left in float.

A unit is what TensorRT fuses: a Conv or Gemm with the activation and the residual Add behind it. There is no pair
within a unit, so a unit whose kernel is left float is float as a whole; where pairs then go, `quantize.insert.plan`
says, as it would for a recipe with these names under `keep_float`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from edgecnn.errors import ModelError
from edgecnn.quantize.graph import View, without_pairs
from edgecnn.quantize.insert import ACTIVATIONS, JOINS, KERNELS, LEVELS, insert, plan
from edgecnn.quantize.ranges import tapped
from edgecnn.scene import F32

Names = frozenset[str]


@dataclass(frozen=True)
class Unit:
    """One fused kernel."""

    name: str  # of its Conv or Gemm: what `keep_float` takes
    operators: tuple[str, ...]  # the kernel's first
    macs: int  # multiply-adds of one picture


class Network:
    """The INT8 file's FP32 graph, its units, and both forms of each unit's weights.

    `floats` are the kernels that the file itself has in float; they are no units.
    """

    def __init__(self, int8: ModelProto, correction: Mapping[str, list[float]], sample: F32) -> None:
        """From TensorRT's form of a network, what was added to its biases, and one input (1, C, H, W).

        Raises ModelError where no kernel is INT8.
        """
        self.model, self.scale, steps = taken_apart(int8)
        view = View(self.model)
        kernels = [node for node in view.graph.node if node.op_type in KERNELS]
        names = [node.name for node in kernels if node.name in steps]
        if not names:
            raise ModelError("no Conv or Gemm of the network is INT8", wanted="a bundle that is quantised")
        self.floats = frozenset(node.name for node in kernels) - set(names)
        self.constants: dict[str, TensorProto] = dict(view.constants)
        self.forms: dict[str, dict[int, str]] = {}  # kernel -> input index -> name of the constant it has in INT8
        for node in kernels:
            if node.name in steps:
                self.forms[node.name] = self._both(node.name, list(node.input), steps[node.name], correction)
        self.positions = {node.name: i for i, node in enumerate(view.graph.node)}
        members, macs = owners(view), multiply_adds(self.model, sample)
        operators = {n: tuple(o.op_type for o in view.graph.node if members[o.name] == n) for n in names}
        self.units = tuple(Unit(name, operators[name], macs[name]) for name in names)
        self.macs = sum(macs.values())  # of every kernel, the float ones included
        self.kernel_macs = macs
        self.owned = [members[node.name] is not None for node in view.graph.node]
        self._skeleton = ModelProto()
        self._skeleton.CopyFrom(self.model)
        del self._skeleton.graph.initializer[:]

    def _both(
        self, kernel: str, inputs: list[str], steps: F32, correction: Mapping[str, list[float]]
    ) -> dict[int, str]:
        """Store a kernel's float and INT8 constants; the names of the INT8 ones by the index of the input."""
        weight = numpy_helper.to_array(self.constants[inputs[1]])
        made = {1: self._store(f"{kernel}/weight/rounded", rounded(weight, steps))}
        bias = inputs[2] if len(inputs) > 2 else ""
        if bias == f"{kernel}.bias" and bias in self.constants and kernel in correction:
            corrected = numpy_helper.to_array(self.constants[bias])
            made[2] = self._store(f"{kernel}/bias/corrected", corrected)
            self._store(bias, (corrected - np.array(correction[kernel], np.float32)).astype(np.float32))
        return made

    def _store(self, name: str, value: NDArray[np.float32]) -> str:
        self.constants[name] = numpy_helper.from_array(value, name)
        return name

    def graph(self, floats: Names) -> ModelProto:
        """The network with these units in float and all others INT8; constants of kernels are left out, they are in
        `constants`. Weights are rounded beforehand: the answers are those of a pair on them."""
        chosen = plan(self.model, self.floats | floats)
        points = {tensor: readers for tensor, readers in chosen.points.items() if tensor in self.scale}
        result = insert(self._skeleton, points, self.scale, ())
        for node in result.graph.node:
            if node.name in chosen.kernels:
                for index, name in self.forms[node.name].items():
                    node.input[index] = name
        return result

    def ordered(self, names: Names) -> list[str]:
        """In the network's order."""
        return [unit.name for unit in self.units if unit.name in names]

    def share(self, floats: Names) -> float:
        """Share of the multiply-adds that these units and the file's own float kernels do."""
        kept = floats | self.floats
        return sum(self.kernel_macs[name] for name in kept) / self.macs


def taken_apart(int8: ModelProto) -> tuple[ModelProto, dict[str, float], dict[str, F32]]:
    """TensorRT's form → the FP32 graph in it, the scale of each activation, the scales (outputs,) of each kernel."""
    view = View(int8)
    scale: dict[str, float] = {}
    steps: dict[str, F32] = {}
    for dq in [n for n in view.graph.node if n.op_type == "DequantizeLinear"]:
        q = view.producer.get(dq.input[0])
        value = view.constant(dq.input[1])
        if q is None or q.op_type != "QuantizeLinear" or value is None:
            raise ModelError(
                f"{dq.name} is no half of a Q/DQ pair with a constant scale",
                wanted="the INT8 file that edgecnn wrote",
                do="Run: edgecnn quantize RECIPE",
            )
        if q.input[0] in view.constants:
            steps.update({reader.name: value for reader, index in view.readers[dq.output[0]] if index == 1})
        else:
            scale[q.input[0]] = float(value)
    return without_pairs(int8), scale, steps


def rounded(weight: F32, steps: F32) -> F32:
    """(outputs, ...) as an int8 pair with scales (outputs,) gives it back."""
    each = steps.reshape(-1, *[1] * (weight.ndim - 1))
    result: F32 = (np.clip(np.rint(weight / each), -LEVELS - 1, LEVELS) * each).astype(np.float32)
    return result


def owners(view: View) -> dict[str, str | None]:
    """Node → the kernel into which it fuses, itself for a kernel, None for what stands alone (pools, copies).

    An Add fuses with the later-made of its inputs, as the placement has it; so do the two nodes of SiLU. Behind an
    activation TensorRT may give an Add a kernel of its own; the pair on its skip still comes and goes with this unit.
    """
    order = {node.name: i for i, node in enumerate(view.graph.node)}
    owner: dict[str, str | None] = {}
    for node in view.graph.node:
        made = [view.producer[name].name for name in node.input if name in view.producer]
        if node.op_type in KERNELS:
            owner[node.name] = node.name
        elif node.op_type in (*ACTIVATIONS, *JOINS) and made:
            owner[node.name] = owner[max(made, key=order.__getitem__)]
        else:
            owner[node.name] = None
    return owner


def multiply_adds(model: ModelProto, sample: F32) -> dict[str, int]:
    """Kernel → multiply-adds of one picture; shapes are those of a run."""
    view = View(model)
    kernels = [node for node in view.graph.node if node.op_type in KERNELS]
    session = tapped(model, [node.output[0] for node in kernels])
    outputs = session.run([node.output[0] for node in kernels], {session.get_inputs()[0].name: sample})
    counts = {}
    for node, output in zip(kernels, outputs, strict=True):
        weight = view.constant(node.input[1])
        places = output.size // output.shape[1]
        counts[node.name] = 0 if weight is None else int(weight.size) * places  # computed weights: an attention, say
    return counts
