"""Where quantisation goes, and the Q/DQ pairs themselves, in the one form that TensorRT 8 to 11 reads alike.

FP32-typed ONNX, int8, zero point 0, one scale a tensor for activations and one an output channel for weights, no Q/DQ
on biases. Placement follows NVIDIA's guidance (TensorRT developer guide, "Q/DQ layer-placement recommendations"):

- every input of Conv and Gemm; never their output, so that the activation fuses into the kernel;
- of a residual Add only the skip, so that the convolution fuses with the Add;
- the input of a global average pool;
- behind a Concat, MaxPool, Resize or reshape, and before it too, with one shared scale, so that it merely moves bytes.

Weights stay FP32 constants before their pair, as TensorRT 8 wants them (not tried there); TensorRT for RTX 1.7 takes
that form and int8 constants alike. All of it is driven by demand from Conv and Gemm backwards: a tail that feeds none
(box decoding, scores) stays float.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from edgecnn.errors import RecipeError
from edgecnn.onnxfile import set_nodes, without_pairs
from edgecnn.quantize.graph import View, attribute
from edgecnn.scene import F32

LEVELS = 127  # int8 without -128: the scale is amax / 127
SHARE = 4.0  # branches of a Concat share a scale while their ranges differ less: at most two bits are lost

KERNELS = ("Conv", "Gemm")
POOLS = ("GlobalAveragePool", "AveragePool", "ReduceMean")
ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Elu", "Mish")
COPIES = ("MaxPool", "Concat", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split")
JOINS = ("Add", "Mul", "Sub")
ABSORBED = ("Relu", "Clip")  # a pair behind them stands for them: uint8 can't be negative
INTEGER_ON_CPU = (*KERNELS, *JOINS, *POOLS, "Sigmoid", "LeakyRelu")  # onnxruntime has 8-bit kernels for these

Points = dict[str, list[tuple[str, int]]]  # tensor -> (node name, input index) of those who read its quantised form


@dataclass(frozen=True)
class Plan:
    """What is quantised. Names are those of the prepared graph."""

    kernels: tuple[str, ...]  # Conv and Gemm nodes that become INT8
    floats: tuple[str, ...]  # those that don't: kept by the recipe, or with computed weights
    points: Points  # TensorRT's form
    cpu_points: Points  # further ones, without which onnxruntime would compute in float between kernels
    ties: tuple[tuple[str, ...], ...]  # (tensor, ...) around one node that copies: one scale where ranges allow

    @property
    def tensors(self) -> tuple[str, ...]:
        """Every activation whose range must be known."""
        return tuple(dict.fromkeys([*self.points, *self.cpu_points]))


def plan(model: ModelProto, keep_float: Iterable[str] = ()) -> Plan:
    """Decide the placement on a prepared graph. Raises RecipeError where `keep_float` names no Conv or Gemm."""
    return _Planner(model, frozenset(keep_float)).plan()


class _Planner:
    def __init__(self, model: ModelProto, keep_float: frozenset[str]) -> None:
        self.view = View(model)
        nodes = [n for n in self.view.graph.node if n.op_type in KERNELS]
        if unknown := keep_float - {n.name for n in nodes}:
            names = ", ".join(n.name for n in nodes[:4])
            raise RecipeError(
                f"quantize.keep_float names {sorted(unknown)[0]!r}",
                wanted=f"a Conv or Gemm of the network: {names}, ...",
            )
        self.kernels = {
            n.name: n for n in nodes if n.name not in keep_float and self.view.constant(n.input[1]) is not None
        }
        self.floats = tuple(n.name for n in nodes if n.name not in self.kernels)  # by wish, or with computed weights
        self.order = {n.name: i for i, n in enumerate(self.view.graph.node)}
        self.points: Points = {}
        self.ties: list[tuple[str, ...]] = []
        self._leads: dict[str, bool] = {}
        self._rooted: dict[str, bool] = {}

    def plan(self) -> Plan:
        for node in self.view.graph.node:
            if node.name in self.kernels or (node.op_type in POOLS and self.rooted(node.input[0])):
                self.demand(node.input[0], node, 0)
            elif node.op_type == "Add":
                self.residual(node)
        return Plan(tuple(self.kernels), self.floats, self.points, self.for_cpu(), tuple(self.ties))

    def demand(self, tensor: str, node: NodeProto, index: int) -> None:
        """`node` reads the quantised form of `tensor`, and whoever merely copied it there does so in INT8."""
        readers = self.points.setdefault(tensor, [])
        if (node.name, index) in readers:
            return
        readers.append((node.name, index))
        maker = self.view.producer.get(tensor)
        if len(readers) > 1 or maker is None or not copies(maker) or not self.rooted(tensor):
            return
        inputs = self.data_inputs(maker)
        self.ties.append((*inputs, *maker.output))
        for i, name in enumerate(inputs):
            self.demand(name, maker, i)

    def residual(self, add: NodeProto) -> None:
        """The later-made input fuses with its convolution; every other one is a skip."""
        inputs = self.data_inputs(add)
        if len(inputs) < 2 or not self.leads(add.output[0]) or not all(self.rooted(name) for name in inputs):
            return
        made = [self.order[self.view.producer[name].name] for name in inputs]
        for index, name in enumerate(inputs):
            if made[index] != max(made):
                self.demand(name, add, index)

    def for_cpu(self) -> Points:
        """Pairs that let onnxruntime stay in integers up to the next pair, where TensorRT fuses on its own."""
        extra: Points = {}
        for node in self.view.graph.node:
            if node.op_type not in INTEGER_ON_CPU + ABSORBED or node.name in self.floats:
                continue
            for name in node.output:
                done = self.points.get(name, [])
                further = [
                    (reader.name, index)
                    for reader, index in self.view.readers[name]
                    if (reader.name, index) not in done and reader.op_type in INTEGER_ON_CPU and self.lands(reader)
                ]
                if further and self.rooted(name):
                    extra[name] = further
        return extra

    def lands(self, node: NodeProto) -> bool:
        """Whether a node's output meets the next pair through integer operators alone."""
        if node.op_type in KERNELS or node.op_type not in INTEGER_ON_CPU + ABSORBED:
            return False  # an INT8 kernel's input has its pair already; a float one needs none
        tensor = node.output[0]
        readers = [reader for reader, _ in self.view.readers[tensor]]
        return tensor in self.points or (bool(readers) and all(self.lands(reader) for reader in readers))

    def data_inputs(self, node: NodeProto) -> list[str]:
        """Inputs that carry activations, not constants such as shapes."""
        return [name for name in node.input if name and name not in self.view.constants]

    def leads(self, tensor: str) -> bool:
        """Whether a tensor reaches an INT8 kernel through nothing but activations, copies, pools, Add and Mul."""
        if tensor not in self._leads:
            self._leads[tensor] = any(
                (node.name in self.kernels and index == 0)
                or (passes(node) and any(self.leads(name) for name in node.output))
                for node, index in self.view.readers[tensor]
            )
        return self._leads[tensor]

    def rooted(self, tensor: str) -> bool:
        """Whether a tensor comes from an INT8 kernel that way, and not straight from the picture."""
        if tensor not in self._rooted:
            node = self.view.producer.get(tensor)
            self._rooted[tensor] = node is not None and (
                node.name in self.kernels
                or (passes(node) and any(self.rooted(name) for name in self.data_inputs(node)))
            )
        return self._rooted[tensor]


def copies(node: NodeProto) -> bool:
    """Whether the node's outputs hold only values of its inputs."""
    if node.op_type == "Resize":
        return attribute(node, "mode", "nearest") == "nearest"
    return node.op_type in COPIES


def passes(node: NodeProto) -> bool:
    """Whether INT8 data stays near its kernels across the node."""
    return node.op_type in (*ACTIVATIONS, *POOLS, *JOINS) or copies(node)


def scales(plan: Plan, amax: Mapping[str, float]) -> dict[str, float]:
    """Tensor → scale = amax / 127. Tensors around a copying node share the widest range of theirs.

    A Concat of branches whose ranges differ more than SHARE-fold keeps a scale a branch: one scale over boxes and
    scores would round the scores to zero.
    """
    group = {name: {name} for name in plan.tensors}
    for tie in plan.ties:
        known = [amax[name] for name in tie if amax[name] > 0]
        if known and max(known) > SHARE * min(known):
            continue
        joined = set().union(*(group[name] for name in tie))
        for name in joined:
            group[name] = joined
    return {name: max(amax[n] for n in group[name]) / LEVELS or 1.0 / LEVELS for name in plan.tensors}


def weight_scales(weight: F32, bias: F32 | None, x_scale: float) -> F32:
    """(outputs, ...) → (outputs,) amax / 127 of each output channel.

    A nearly dead channel gets a scale at which its bias still fits an int32 accumulator of scale x_scale * scale.
    """
    amax = np.abs(weight.reshape(len(weight), -1)).max(1)
    least = np.full(len(weight), 1e-9, np.float32) if bias is None else np.abs(bias) / x_scale / 2**30 + 1e-9
    result: F32 = np.maximum(amax / LEVELS, least).astype(np.float32)
    return result


def insert(model: ModelProto, points: Points, scale: Mapping[str, float], kernels: Iterable[str]) -> ModelProto:
    """A copy of the prepared graph with a Q/DQ pair on each point and on the weights of each kernel."""
    result = ModelProto()
    result.CopyFrom(model)
    graph, view = result.graph, View(result)
    nodes = {n.name: n for n in graph.node}
    behind: dict[str, list[NodeProto]] = {}  # tensor -> its pair
    first: list[NodeProto] = []

    def pair(tensor: str, value: NDArray[np.float32]) -> tuple[str, list[NodeProto]]:
        names = [f"{tensor}_scale", f"{tensor}_zero"]
        graph.initializer.append(numpy_helper.from_array(value, names[0]))
        graph.initializer.append(numpy_helper.from_array(np.zeros(value.shape, np.int8), names[1]))
        made = [
            helper.make_node("QuantizeLinear", [tensor, *names], [f"{tensor}_q"], f"{tensor}_Q"),
            helper.make_node("DequantizeLinear", [f"{tensor}_q", *names], [f"{tensor}_dq"], f"{tensor}_DQ"),
        ]
        if value.ndim:  # without an axis it would be 1
            for node in made:
                node.attribute.append(helper.make_attribute("axis", 0))
        return f"{tensor}_dq", made

    for tensor, readers in points.items():
        output, behind[tensor] = pair(tensor, np.array(scale[tensor], np.float32))
        for name, index in readers:
            nodes[name].input[index] = output
    for name in kernels:
        node = nodes[name]
        x, w = node.input[0].removesuffix("_dq"), node.input[1]
        weight, bias = view.constant(w), view.constant(node.input[2]) if len(node.input) > 2 else None
        assert weight is not None
        own = f"{name}.weight"  # a weight that two kernels share is copied: their inputs' scales may differ
        if w != own:
            graph.initializer.append(numpy_helper.from_array(weight, own))
        node.input[1], made = pair(own, weight_scales(weight, bias, scale[x]))
        first += made
    ordered = [*first]
    for tensor in [i.name for i in graph.input]:
        ordered += behind.pop(tensor, [])
    for node in graph.node:
        ordered.append(node)
        for tensor in node.output:
            ordered += behind.pop(tensor, [])
    set_nodes(graph, ordered)
    return result


def removed(model: ModelProto) -> tuple[ModelProto, dict[str, float]]:
    """A network in TensorRT's form → the FP32 network that it rounds, and the amax of each quantised activation.

    The inverse of `insert`, which leaves weights in FP32 before their pairs.
    """
    view, ranges = View(model), {}
    for node in [n for n in model.graph.node if n.op_type == "DequantizeLinear"]:
        first = view.producer[node.input[0]]
        tensor, scale = first.input[0], view.constant(first.input[1])
        if tensor not in view.constants and scale is not None:
            ranges[tensor] = float(scale) * LEVELS
    return without_pairs(model), ranges
