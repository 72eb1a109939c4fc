"""An ONNX network → the kernels that TensorRT would make of it, as far as its documented fusion rules tell.

Convolutions take in what follows point by point (bias, activation, a residual Add); Q and DQ become the precision of
the tensors between kernels; reshapes and concatenations cost nothing; where one tensor is read in two precisions, or a
float kernel's output is quantised, there is a reformat. NVIDIA's TensorRT documentation, "Types of Fusions" and
"Explicit Quantization". Only shapes are read, never a weight's value.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Literal

import onnx
from onnx import ModelProto, NodeProto, TensorProto

from edgecnn.errors import ModelError
from edgecnn.quantize.graph import attribute

Precision = Literal["int8", "fp16", "fp32"]
Kind = Literal["conv", "depthwise", "copy", "reformat"]
BYTES: dict[Precision, int] = {"int8": 1, "fp16": 2, "fp32": 4}

PAIRS = ("QuantizeLinear", "DequantizeLinear")
FREE = (*PAIRS, "Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Concat", "Cast")
COMMUTING = ("MaxPool", "Resize", "Upsample", "Transpose", "Split", "Slice", "Gather", "DepthToSpace", "Pad")
POINTWISE = (
    *("Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "Elu", "Selu", "Softplus"),
    *("Mish", "Gelu", "Erf", "Exp", "Log", "Sqrt", "Abs", "Neg", "Reciprocal", "Add", "Sub", "Mul", "Div", "Pow"),
    *("Min", "Max", "BatchNormalization", "Where", "Floor", "Ceil", "Round"),
)
FUSED_BY = ("conv", "depthwise")


@dataclass(eq=False)
class Kernel:
    """One launch on the GPU. Multiply-accumulates: groups * m * n * k."""

    name: str
    op: str  # the ONNX operator that it began with
    kind: Kind = "copy"
    precision: Precision = "fp32"  # of its inputs and its arithmetic
    groups: int = 1
    m: int = 0  # output places, the batch included
    n: int = 0  # output channels of a group
    k: int = 0  # products summed into one output
    weights: int = 0  # elements
    parameter: str = ""  # the weights' tensor: kernels may share one
    read: dict[str, Precision] = field(default_factory=dict)  # tensor → the precision that it is stored in
    written: dict[str, Precision] = field(default_factory=dict)

    @property
    def macs(self) -> int:
        return self.groups * self.m * self.n * self.k


@dataclass(frozen=True)
class Plan:
    """All kernels in the order of the graph, and the size of the tensors between them."""

    kernels: tuple[Kernel, ...]
    elements: dict[str, int]
    outputs: tuple[str, ...]  # what the network answers with: it lives to the end

    @property
    def macs(self) -> int:
        return sum(kernel.macs for kernel in self.kernels)

    @property
    def weight_bytes(self) -> int:
        sizes = {(k.parameter, k.precision): k.weights * BYTES[k.precision] for k in self.kernels}
        return sum(sizes.values())

    def size(self, tensor: str, precision: Precision) -> int:
        """Bytes of a tensor."""
        return self.elements[tensor] * BYTES[precision]

    def peak_bytes(self) -> int:
        """The largest sum of tensors alive at once: each from the kernel that writes it to its last reader."""
        first: dict[tuple[str, Precision], int] = {}
        last: dict[tuple[str, Precision], int] = {}
        for index, kernel in enumerate(self.kernels):
            for tensor in (*kernel.read.items(), *kernel.written.items()):
                first.setdefault(tensor, index)
                last[tensor] = len(self.kernels) if tensor[0] in self.outputs else index
        change = [0] * (len(self.kernels) + 2)
        for tensor, index in first.items():
            change[index] += self.size(*tensor)
            change[last[tensor] + 1] -= self.size(*tensor)
        alive, peak = 0, 0
        for step in change:
            alive += step
            peak = max(peak, alive)
        return peak


def plan(model: ModelProto, precision: Precision | None = None) -> Plan:
    """Kernels of a network. `precision` None: as its Q/DQ pairs and tensor types say; else as if it were built so: int8
    with FP16 where INT8 does not go, fp16 and fp32 throughout.

    Raises ModelError where a shape is not fixed.
    """
    return _Planner(model, precision).plan()


class _Planner:
    def __init__(self, model: ModelProto, precision: Precision | None) -> None:
        self.precision = precision
        self.graph, self.shapes, self.types = _inferred(model)
        self.constants = {t.name for t in self.graph.initializer}
        self.kernels: list[Kernel] = []
        self.stored: dict[str, tuple[str, ...]] = {}  # tensor → the tensors in memory that it is a view of
        self.maker: dict[str, Kernel] = {}
        self.quantised: set[str] = set()  # tensors that a DequantizeLinear made
        self.reads: dict[str, set[Precision]] = defaultdict(set)

    def plan(self) -> Plan:
        for value in self.graph.input:
            self.stored[value.name] = (value.name,)
        for node in self.graph.node:
            self.take(node)
        self.settle()
        self.reformats()
        used = {tensor for kernel in self.kernels for tensor in (*kernel.read, *kernel.written)}
        elements = {tensor: math.prod(self.shape(tensor)) for tensor in used}
        outputs = tuple(t for o in self.graph.output for t in self.stored.get(o.name, ()))
        return Plan(tuple(self.kernels), elements, outputs)

    def take(self, node: NodeProto) -> None:
        """Put a node into a kernel: its own, one before it, or none."""
        inputs = [name for name in node.input if name and name not in self.constants]
        if node.op_type == "Constant" or not inputs or node.op_type == "Shape":
            self.constants.update(node.output)
            self.quantised.update(node.output if node.op_type == "DequantizeLinear" else ())
        elif node.op_type in FREE:
            for name in node.output:
                self.stored[name] = tuple(dict.fromkeys(t for i in inputs for t in self.stored[i]))
            if node.op_type == "DequantizeLinear" or self.quantised.issuperset(inputs):
                self.quantised.update(node.output)
        elif node.op_type in POINTWISE and (before := self.fusable(inputs, node.output[0])) is not None:
            self.join(node, inputs, before)
        else:
            self.begin(node, inputs)

    def fusable(self, inputs: list[str], output: str) -> Kernel | None:
        """The last kernel among the makers of a point-by-point node's inputs, if it takes such a node in."""
        makers = [self.maker[t] for name in inputs for t in self.stored[name] if t in self.maker]
        last = max(makers, key=self.kernels.index, default=None)
        open_ = last is not None and (last.kind in FUSED_BY or last.op in POINTWISE)
        direct = (self.stored[name] for name in inputs if self.precision is not None or name not in self.quantised)
        own = [tensors[0] for tensors in direct if len(tensors) == 1 and self.maker.get(tensors[0]) is last]
        size = math.prod(self.shape(output))  # a broadcast to something larger is no part of the smaller one's kernel
        return last if open_ and any(math.prod(self.shape(tensor)) == size for tensor in own) else None

    def join(self, node: NodeProto, inputs: list[str], kernel: Kernel) -> None:
        for name in inputs:
            for tensor in self.stored[name]:
                if self.maker.get(tensor) is not kernel:
                    kernel.read[tensor] = self.edge(name, kernel)
        for name in node.output:
            self.stored[name], self.maker[name] = (name,), kernel
            kernel.written[name] = kernel.precision

    def begin(self, node: NodeProto, inputs: list[str]) -> None:
        kernel = Kernel(node.name or node.output[0], node.op_type, precision=self.float_type(node.output[0]))
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            self.product(node, kernel)
        self.kernels.append(kernel)
        for name in inputs:
            for tensor in self.stored[name]:
                kernel.read[tensor] = self.edge(name, kernel)
        for name in filter(None, node.output):
            self.stored[name], self.maker[name] = (name,), kernel
            kernel.written[name] = kernel.precision

    def product(self, node: NodeProto, kernel: Kernel) -> None:
        """Sizes of the matrix product that a node amounts to, and whether it runs in INT8."""
        out, weight = self.shape(node.output[0]), self.shape(node.input[1])
        kernel.kind = "conv"
        if node.op_type == "Conv":
            kernel.groups = int(attribute(node, "group", 1))
            kernel.m, kernel.n, kernel.k = out[0] * math.prod(out[2:]), out[1] // kernel.groups, math.prod(weight[1:])
        elif node.op_type == "ConvTranspose":
            kernel.groups = int(attribute(node, "group", 1))
            source = self.shape(node.input[0])
            kernel.m, kernel.n = source[0] * math.prod(source[2:]), math.prod(weight[1:])
            kernel.k = weight[0] // kernel.groups
        else:
            kernel.m, kernel.n = out[-2], out[-1]
            kernel.groups, kernel.k = math.prod(out[:-2]), self.shape(node.input[0])[-1]
        if kernel.groups > 1 and kernel.n == 1 and node.op_type == "Conv":
            kernel.kind = "depthwise"
        fixed = node.input[1] in self.constants
        kernel.weights, kernel.parameter = (math.prod(weight), node.input[1]) if fixed else (0, "")
        if self.precision is None and self.quantised.issuperset(node.input[:2]):
            kernel.precision = "int8"
        if self.precision == "int8" and fixed:
            kernel.precision = "int8"

    def edge(self, name: str, kernel: Kernel) -> Precision:
        """The precision in which a kernel reads a tensor."""
        if self.precision is not None:
            return kernel.precision
        takes_int8 = kernel.precision == "int8" or kernel.kind == "copy"
        return "int8" if name in self.quantised and takes_int8 else self.float_type(name)

    def float_type(self, name: str) -> Precision:
        if self.precision is not None:
            return "fp32" if self.precision == "fp32" else "fp16"
        return "fp16" if self.types.get(name) == TensorProto.FLOAT16 else "fp32"

    def settle(self) -> None:
        """From the last kernel to the first: a tensor is stored as it is read, and copies run in what they store."""
        outputs = {t for o in self.graph.output for t in self.stored.get(o.name, ())}
        for tensor in outputs:
            self.reads[tensor].add(self.float_type(tensor))
        for kernel in reversed(self.kernels):
            kept = {t: p for t, p in kernel.written.items() if self.reads[t]}
            for tensor, own in kept.items():
                wanted = self.reads[tensor]
                floats = wanted - {"int8"}
                takes_int8 = kernel.precision == "int8" or kernel.kind == "copy"
                kept[tensor] = "int8" if not floats and takes_int8 else min(floats, default=own)
            kernel.written = kept
            if kernel.op in COMMUTING and set(kept.values()) == {"int8"}:
                kernel.precision = "int8"
                kernel.read = dict.fromkeys(kernel.read, "int8")
            for tensor, how in kernel.read.items():
                self.reads[tensor].add(how)
        self.kernels = [kernel for kernel in self.kernels if kernel.written]

    def reformats(self) -> None:
        """A kernel wherever a tensor is read in a precision in which its maker does not write it."""
        have = {tensor: how for kernel in self.kernels for tensor, how in kernel.written.items()}
        have |= {value.name: "fp32" for value in self.graph.input}
        done: list[Kernel] = []
        seen: set[tuple[str, Precision]] = set()
        for kernel in self.kernels:
            for tensor, how in kernel.read.items():
                if tensor in have and have[tensor] != how and (tensor, how) not in seen:
                    seen.add((tensor, how))
                    change = Kernel(f"{tensor} to {how}", "Reformat", "reformat", how)
                    change.read, change.written = {tensor: have[tensor]}, {tensor: how}
                    done.append(change)
            done.append(kernel)
        self.kernels = done

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self.shapes:
            raise ModelError(f"tensor '{name}' has no fixed shape", wanted="a network with one input size")
        return self.shapes[name]


def _inferred(model: ModelProto) -> tuple[onnx.GraphProto, dict[str, tuple[int, ...]], dict[str, int]]:
    """The graph, and the shape and type of every tensor that has a fixed one."""
    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as error:  # onnx raises its own InferenceError, RuntimeError and ValueError
        raise ModelError(f"the network's shapes contradict each other ({error})"[:300]) from error
    shapes: dict[str, tuple[int, ...]] = {t.name: tuple(t.dims) for t in graph.initializer}
    types: dict[str, int] = {t.name: t.data_type for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        types[value.name] = value.type.tensor_type.elem_type
        if value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") and d.dim_value > 0 for d in dims):
            shapes[value.name] = tuple(d.dim_value for d in dims)
    for value in graph.input:
        if value.name not in shapes:
            raise ModelError(f"input '{value.name}' has no fixed shape", wanted="a network with one input size")
    return graph, shapes, types
