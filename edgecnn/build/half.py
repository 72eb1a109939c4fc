"""FP16 for what a network leaves in float, written as types into the graph: the same nodes, other types.

TensorRT 11 and TensorRT for RTX take every type from the graph, and TensorRT 10 can. So float tensors become FP16, and
with them the scales of the Q/DQ pairs around them, which from opset 19 on set the type that a pair reads and writes
(onnx, QuantizeLinear-19 and DequantizeLinear-19). Pairs stay where they are, so INT8 kernels stay INT8; Casts stand at
the network's own inputs and outputs, which remain FP32, and around the few nodes that FP16 would harm (`_reason`).

Scales are rounded to FP16's 11 bits wherever they stand, FP32 or not: pairs of equal scales stay equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, defs, helper, version_converter

from edgecnn.build.lint.net import COPIES, DQ, KERNELS, Net, Q, is_int8, label, tensor
from edgecnn.build.lint.network import opset_of
from edgecnn.errors import BuildError
from edgecnn.onnxfile import sweep

OPSET = 19  # scales set the type of a pair; TensorRT 10.3 reads 20
LARGEST = 65504.0  # of FP16
COUNT = 2048  # FP16 holds every whole number up to here, and of those above not every one
WEIGHT_DB = 60.0  # rounding to FP16 costs 70 dB and more; numbers below 6.1e-5 lose bits, and below 6e-8 all
SCALE_ERROR = 2.0**-8  # the same of a scale: the last of 127 levels moves by half a level

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
SUMS = ("GlobalAveragePool", "AveragePool", "ReduceMean", "ReduceSum")
RISKY = {
    **dict.fromkeys(("Exp", "Softmax", "LogSoftmax", "Pow", "Softplus"), "e^12 is beyond FP16"),
    **dict.fromkeys(("Log", "Reciprocal", "Div", "Sqrt"), "near 0 FP16 has few bits"),
    **dict.fromkeys(("LRN", "LpNormalization", "ReduceL2", "ReduceSumSquare"), "squares above 255 are beyond FP16"),
    **dict.fromkeys(("LayerNormalization", "InstanceNormalization", "GroupNormalization"), "it sums up squares"),
    **dict.fromkeys(("CumSum", "ReduceProd", "ReduceLogSumExp", "LpPool", "GlobalLpPool"), "it adds up many numbers"),
}
ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Pow")


@dataclass(frozen=True)
class Half:
    """A typed network, its inputs and outputs as they were."""

    model: ModelProto
    nodes: int  # that compute in FP16, INT8 kernels not counted
    kept: Mapping[str, str]  # node that stays in FP32 → why

    def __str__(self) -> str:
        few = "; ".join(f"{name}: {why}" for name, why in list(self.kept.items())[:3])
        more = f" and {len(self.kept) - 3} more" if len(self.kept) > 3 else ""
        return f"{self.nodes} nodes in FP16" + (f", {len(self.kept)} stay in FP32 ({few}{more})" if self.kept else "")


def half(model: ModelProto, amax: Mapping[str, float] | None = None) -> Half:
    """A copy of an FP32-typed network, with Q/DQ pairs or without, that computes in FP16 what is not INT8.

    `amax`: tensor → the largest magnitude that was measured; none may exceed half of what FP16 holds.
    Raises BuildError for a network that is not typed in FP32, or that can't be written in opset 19 (pairs need it).
    """
    net = Net(_raised(model))
    types = _types(net.model)
    if typed := [name for name, kind in types.items() if kind in (HALF, TensorProto.BFLOAT16)]:
        raise BuildError(
            f"tensor '{typed[0]}' has 16 bits already",
            wanted="a network typed in FP32",
            do="Take precision out of the recipe: types are built as they stand. Or write it in FP32 first",
        )
    work = _Typing(net, types, amax or {})
    for node in net.graph.node:
        work.node(node)
    return work.finish()


def emulated(model: ModelProto) -> ModelProto:
    """An FP32-typed network that rounds to FP16 whatever a node of `half`'s network writes in FP16.

    That is what kernels do that sum up in FP32 and store FP16. What a DequantizeLinear writes is not rounded: INT8
    kernels read the integers. onnxruntime computes this right, and FP16-typed pairs on a CPU wrong.
    """
    types = _types(model)
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    for t in graph.initializer:
        if t.data_type == HALF:
            t.CopyFrom(tensor(t.name, onnx.numpy_helper.to_array(t).astype(np.float32)))
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type == "Cast":
            node.CopyFrom(helper.make_node("Cast", node.input, node.output, node.name, to=_to(node, FLOAT)))
        nodes.append(node)
        for i, name in enumerate(node.output):
            if types.get(name) == HALF and node.op_type != DQ:
                node.output[i] = f"{name}.exact"
                nodes.append(helper.make_node("Cast", [f"{name}.exact"], [f"{name}.rounded"], to=HALF))
                nodes.append(helper.make_node("Cast", [f"{name}.rounded"], [name], to=FLOAT))
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return result


def _to(node: NodeProto, instead: int) -> int:
    """The type that a Cast makes, FP32 for FP16."""
    kind = next(a.i for a in node.attribute if a.name == "to")
    return instead if kind == HALF else kind


class _Typing:
    """Goes through the nodes in order. `at` says under which name a tensor is to be had in a type."""

    def __init__(self, net: Net, types: Mapping[str, int], amax: Mapping[str, float]) -> None:
        self.net, self.types, self.amax = net, types, amax
        self.at: dict[tuple[str, int], str] = {
            (value.name, FLOAT): value.name for value in net.graph.input if types.get(value.name) == FLOAT
        }
        self.out: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self.kept: dict[str, str] = {}
        self.single: set[str] = set()  # tensors that nodes write in FP32
        self.count = 0
        self.leading = _leading(net)

    def node(self, source: NodeProto) -> None:
        if source.op_type == DQ:
            return  # made for whoever reads it, in the type that it reads
        node = NodeProto()
        node.CopyFrom(source)
        if source.op_type == Q:
            self.quantiser(node)
        elif any(self.types.get(name) == FLOAT for name in source.output):
            self.compute(node)
        else:  # Shape, ArgMax, Greater: float only comes in
            floats = [i for i, name in enumerate(node.input) if self.types.get(name) == FLOAT]
            half = all(i in _slots(node, self.net)[0] and (node.input[i], HALF) in self.at for i in floats)
            for i in floats:
                node.input[i] = self.take(node.input[i], HALF if half else FLOAT)
        self.out.append(node)

    def compute(self, node: NodeProto) -> None:
        (slots, makes), int8 = _slots(node, self.net), is_int8(self.net, node)
        floats = [i for i, name in enumerate(node.input) if makes and i in slots and self.types.get(name) == FLOAT]
        why = self.reason(node)
        if why:
            self.kept[label(node)] = why
        data = [name for name in node.input if name and name not in self.net.constants]
        follows = node.op_type in COPIES and bool(data) and self.single.issuperset(data)
        kind = FLOAT if why or follows or not floats else HALF
        for i in floats:
            node.input[i] = self.take(node.input[i], kind, saturate=node.op_type == "Clip")
        for i, name in enumerate(node.input):
            if i not in floats and self.types.get(name) == FLOAT:
                node.input[i] = self.take(name, FLOAT)
        if kind == HALF and not int8:
            self.count += 1
        for i, name in enumerate(node.output):
            if self.types.get(name) == FLOAT:
                self.at[name, kind] = node.output[i] = self.name(name, kind)
                self.single.update([name] if kind == FLOAT else [])

    def quantiser(self, node: NodeProto) -> None:
        x = node.input[0]
        good = (x, HALF) in self.at and _holds(self.net.constant(node.input[1]))
        kind = HALF if good else FLOAT
        node.input[0], node.input[1] = self.take(x, kind), self.scale(node.input[1], kind)

    def reason(self, node: NodeProto) -> str:
        """Why a node must compute in FP32; "" if it need not."""
        if any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute):
            return "it holds a graph of its own"
        if node.op_type in RISKY:
            return RISKY[node.op_type]
        if node.op_type in SUMS and not 0 < (terms := self.terms(node)) <= COUNT:
            return f"it sums up {f'{terms}' if terms > 0 else 'an unknown number of'} numbers, FP16 counts to {COUNT}"
        if (top := max(self.amax.get(name, 0.0) for name in (*node.input, *node.output))) > LARGEST / 2:
            return f"values up to {top:g} were measured, FP16 ends at {LARGEST:g}"
        fixed = [
            (name, v) for name in node.input if (v := self.net.constant(name)) is not None and v.dtype == np.float32
        ]
        if node.op_type in ARITHMETIC and fixed and not self.leading.intersection(node.output):
            return f"it decodes the network's answers, FP16 counts whole pixels to {COUNT}"
        for name, value in fixed if node.op_type not in ("Clip", "Resize") else []:
            if why := _harm(value):
                return f"{name}: {why}"
        for name in node.input if node.op_type in KERNELS else ():
            dq = self.net.producer.get(name)
            if dq is not None and dq.op_type == DQ and not _holds(self.net.scale(dq)):
                return f"{name}: FP16 does not hold its scale"
        return ""

    def terms(self, node: NodeProto) -> int:
        """How many numbers a sum or mean takes together; 0 if its shape does not tell."""
        before, after = (self.net.dims(name) for name in (node.input[0], node.output[0]))
        if node.op_type == "AveragePool":
            kernel = next((a.ints for a in node.attribute if a.name == "kernel_shape"), [0])
            return math.prod(kernel)
        return 0 if min(*before, *after, 1) < 0 else math.prod(before) // max(1, math.prod(after))

    def take(self, name: str, kind: int, *, saturate: bool = False) -> str:
        """The name under which a float tensor is to be had in a type; what makes it so is added where it is missing."""
        if not name or (name, kind) in self.at:
            return self.at.get((name, kind), name)
        value, dq = self.net.constant(name), self.net.producer.get(name)
        fresh = self.name(name, kind)
        if value is not None:
            cast = value.clip(-LARGEST, LARGEST) if saturate and kind == HALF else value
            self.constants[fresh] = tensor(fresh, cast.astype(np.float16 if kind == HALF else value.dtype))
        elif dq is not None and dq.op_type == DQ and (kind == FLOAT or _holds(self.net.scale(dq))):
            node = NodeProto()
            node.CopyFrom(dq)
            node.input[1] = self.scale(dq.input[1], kind)
            node.output[0] = fresh
            if fresh != name:
                node.name = f"{fresh}_DQ"
            self.out.append(node)
        else:
            source = self.take(name, FLOAT) if kind == HALF else self.at[name, HALF]
            self.out.append(helper.make_node("Cast", [source], [fresh], f"{fresh}_Cast", to=kind))
        self.at[name, kind] = fresh
        return fresh

    def scale(self, name: str, kind: int) -> str:
        """A scale constant, rounded where FP16 holds it."""
        value = self.net.constant(name)
        if value is None or value.dtype != np.float32:
            raise BuildError(f"scale '{name}' is no FP32 constant", wanted="pairs with fixed scales")
        if kind == FLOAT and not _holds(value):
            return name
        fresh = f"{name}.{'half' if kind == HALF else 'rounded'}"
        rounded = value.astype(np.float16)
        self.constants[fresh] = tensor(fresh, rounded if kind == HALF else rounded.astype(np.float32))
        return fresh

    def name(self, name: str, kind: int) -> str:
        """Outputs of the network keep their name in FP32, everything else in the type in which it is made first."""
        fixed = name in self.net.outputs or name in self.net.constants
        if kind == FLOAT:
            return f"{name}.single" if (name, HALF) in self.at and not fixed else name
        return f"{name}.half" if (name, FLOAT) in self.at or fixed else name

    def finish(self) -> Half:
        for value in self.net.graph.output:
            if self.types.get(value.name) == FLOAT:
                self.take(value.name, FLOAT)
        result, graph = self.net.model, self.net.graph
        constants = {t.name: t for t in graph.initializer} | self.constants
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self.out)
        graph.initializer.extend(constants.values())
        sweep(result)
        try:
            onnx.checker.check_model(result, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise BuildError(
                f"the network can't be typed in FP16 ({' '.join(str(error).split())[:200]})", do="Build it in int8"
            ) from error
        return Half(result, self.count, self.kept)


def _raised(model: ModelProto) -> ModelProto:
    """A copy, in opset 19 where it has pairs."""
    result = ModelProto()
    result.CopyFrom(model)
    if opset_of(model) < OPSET and any(node.op_type == Q for node in model.graph.node):
        try:
            result = version_converter.convert_version(model, OPSET)
        except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
            raise BuildError(
                f"opset {opset_of(model)} does not become {OPSET}, which FP16 pairs need ({str(error)[:160]})",
                do=f"Export with opset {OPSET}, or build with `precision: int8`",
            ) from error
        result.ir_version = max(result.ir_version, 9)  # of opset 19
    return result


def _types(model: ModelProto) -> dict[str, int]:
    """The element type of every tensor that inference reaches."""
    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise BuildError(f"the network's types contradict each other ({str(error)[:200]})") from error
    found = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
    return found | {t.name: t.data_type for t in graph.initializer}


def _slots(node: NodeProto, net: Net) -> tuple[set[int], bool]:
    """Inputs of a node that may come in FP16, and whether it then writes FP16, by onnx's schema."""
    try:
        schema = defs.get_schema(node.op_type, opset_of(net.model), node.domain)
    except defs.SchemaError:
        return set(), False
    allowed = {c.type_param_str for c in schema.type_constraints if "tensor(float16)" in c.allowed_type_strs}
    last = len(schema.inputs) - 1  # may stand for any number of them
    slots = {i for i in range(len(node.input)) if schema.inputs[min(i, last)].type_str in allowed}
    return slots, node.op_type != "Cast" and any(out.type_str in allowed for out in schema.outputs)


def _leading(net: Net) -> set[str]:
    """Tensors from which a way leads to a kernel or a pair."""
    found: set[str] = set()
    for node in reversed(net.graph.node):
        if node.op_type in (*KERNELS, Q) or found.intersection(node.output):
            found.update(node.input)
    return found


def _holds(scale: NDArray[Any] | None) -> bool:
    """Whether FP16 holds every scale of a pair."""
    if scale is None:
        return False
    exact = scale.astype(np.float64)
    with np.errstate(over="ignore"):
        return bool((np.abs(scale.astype(np.float16) - exact) <= SCALE_ERROR * exact).all())


def _harm(value: NDArray[Any]) -> str:
    """What rounding does to a constant, where it is more than rounding; "" where it is not."""
    exact = value.astype(np.float64)
    top = float(np.abs(exact).max(initial=0.0))
    if not top <= LARGEST:
        return f"it holds {top:g}, FP16 ends at {LARGEST:g}"
    noise, signal = np.square(value.astype(np.float16) - exact).sum(), np.square(exact).sum()
    if noise * 10 ** (WEIGHT_DB / 10) > signal:
        small = float(np.mean((np.abs(exact) < 2.0**-14) & (exact != 0)))
        return f"{small:.0%} of its numbers are below 6.1e-5, where FP16 loses bits"
    return ""
