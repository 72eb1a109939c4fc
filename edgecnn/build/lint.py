"""The check before a build: what TensorRT refuses, and what it accepts silently and gets wrong.

TensorRT for RTX 1.7 parses an empty file as a network of no layers, reads a weight scale on another axis as if it were
on the first, and runs a convolution in float when its activation has a scale a channel; none of that raises an error
there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgecnn.errors import BuildError

REFUSED = {
    "NonMaxSuppression": "decode and suppress on the CPU, as edgecnn.vision does",
    "EfficientNMS_TRT": "decode and suppress on the CPU, as edgecnn.vision does",
    "NonZero": "its output has no fixed shape",
    "RoiAlign": "TensorRT for RTX has no kernel for it",
    "QLinearConv": "give TensorRT Q/DQ pairs instead",
    "QLinearMatMul": "give TensorRT Q/DQ pairs instead",
    "ConvInteger": "give TensorRT Q/DQ pairs instead",
    "MatMulInteger": "give TensorRT Q/DQ pairs instead",
    "DynamicQuantizeLinear": "calibrate and use fixed scales",
}
KERNELS = ("Conv", "Gemm")
COPIES = ("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Concat", "DequantizeLinear", "QuantizeLinear")
SCORES = ("Sigmoid", "Softmax")  # values in [0, 1]
COARSE = 1 / 16  # a scale that leaves a score fewer than 16 levels


@dataclass(frozen=True)
class Finding:
    """One reason not to build."""

    rule: str
    where: str  # node or tensor
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text} [{self.rule}]"


def check(path: Path) -> list[Finding]:
    """All findings in an ONNX file; empty if it may be built."""
    if not path.is_file():
        return [Finding("file", str(path), "there is no such file")]
    if path.stat().st_size == 0:
        return [Finding("file", str(path), "the file is empty")]
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's, the checker's and the file system's errors share no base class
        reason = " ".join(str(error).split())[:160]
        return [Finding("file", str(path), f"this is no complete ONNX file ({reason})")]
    return check_model(model)


def check_model(model: ModelProto) -> list[Finding]:
    """The same for a network in memory."""
    if not model.graph.node:
        return [Finding("file", model.graph.name or "graph", "the network has no nodes")]
    return list(_Lint(model).findings())


def require(path: Path) -> None:
    """Raises BuildError with the first finding, and how many more there are."""
    findings = check(path)
    if findings:
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        raise BuildError(f"{findings[0]}{more}", do="Quantise the network with edgecnn, or mend it")


def meant(model: ModelProto) -> tuple[str, ...]:
    """Conv and Gemm nodes whose data and weights both come out of a DequantizeLinear: they should run in INT8."""
    quantised = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    return tuple(n.name for n in model.graph.node if n.op_type in KERNELS and quantised.issuperset(n.input[:2]))


class _Lint:
    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.constants: dict[str, TensorProto] = {t.name: t for t in self.graph.initializer}
        for node in self.graph.node:
            if node.op_type == "Constant" and isinstance(value := _attribute(node, "value"), TensorProto):
                self.constants[node.output[0]] = value
        self.producer: dict[str, NodeProto] = {name: n for n in self.graph.node for name in n.output if name}

    def findings(self) -> Iterator[Finding]:
        yield from self.shapes()
        for node in self.graph.node:
            if node.op_type in REFUSED:
                yield Finding("op", _label(node), f"TensorRT refuses {node.op_type}; {REFUSED[node.op_type]}")
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                yield from self.pair(node)
            if node.op_type == "QuantizeLinear":
                yield from self.mixed(node)
            if node.op_type in KERNELS:
                yield from self.kernel(node)

    def shapes(self) -> Iterator[Finding]:
        for value in self.graph.input:
            dims = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            if value.name not in self.constants and (not dims or not all(isinstance(d, int) and d > 0 for d in dims)):
                shape = ", ".join(str(d or "?") for d in dims)
                yield Finding("shape", value.name, f"the input's shape ({shape}) is not fixed; export with one size")

    def pair(self, node: NodeProto) -> Iterator[Finding]:
        """Zero points, types and axes of one QuantizeLinear or DequantizeLinear."""
        source = self.source(node.input[0])
        constant = source in self.constants
        zero = self.value(node.input[2]) if len(node.input) > 2 else None
        kind = np.dtype(np.uint8) if zero is None and node.op_type == "QuantizeLinear" else getattr(zero, "dtype", None)
        if kind == np.uint8:
            yield Finding("type", _label(node), "uint8; TensorRT wants int8 with zero point 0")
        elif zero is not None and zero.dtype == np.int8 and np.any(zero):
            yield Finding("zero", _label(node), f"zero point {zero.ravel()[zero.ravel() != 0][0]}; TensorRT wants 0")
        scale = self.value(node.input[1])
        if scale is not None and not (np.isfinite(scale).all() and (scale > 0).all()):
            yield Finding("scale", _label(node), "a scale is not a positive number")
        if scale is not None and scale.size > 1 and not constant:
            yield Finding(
                "axis", _label(node), f"an activation with {scale.size} scales; its convolution would run in float"
            )

    def kernel(self, node: NodeProto) -> Iterator[Finding]:
        """Weights and bias of one Conv or Gemm."""
        weight = self.producer.get(node.input[1])
        if weight is not None and weight.op_type == "DequantizeLinear":
            scale = self.value(weight.input[1])
            axis = _attribute(weight, "axis")
            outputs_first = node.op_type == "Conv" or bool(_attribute(node, "transB"))
            if scale is not None and scale.size > 1 and (1 if axis is None else axis) != 0:
                yield Finding(
                    "axis",
                    _label(node),
                    "weight scales lie on another axis than the first, where TensorRT reads them",
                )
            elif scale is not None and scale.size > 1 and not outputs_first:
                yield Finding("axis", _label(node), "weight scales lie on the inputs; store the weight transposed")
        bias = self.producer.get(node.input[2]) if len(node.input) > 2 else None
        if bias is not None and bias.op_type == "DequantizeLinear":
            yield Finding("bias", _label(node), "the bias lies behind a DequantizeLinear; TensorRT wants it in float")

    def mixed(self, node: NodeProto) -> Iterator[Finding]:
        """One scale over scores and something of a far wider range."""
        scale = self.value(node.input[1])
        kinds = {op in SCORES for op in self.origins(node.input[0])}
        if scale is not None and scale.size == 1 and float(scale.ravel()[0]) > COARSE and kinds == {True, False}:
            yield Finding(
                "mixed",
                _label(node),
                f"scores in [0, 1] share the scale {float(scale.ravel()[0]):.3g} with other values and become zeros",
            )

    def origins(self, tensor: str) -> set[str]:
        """Operators from which a tensor's values come, through nodes that only copy."""
        node = self.producer.get(tensor)
        if node is None:
            return {"Input"} if tensor not in self.constants else set()
        if node.op_type not in COPIES:
            return {node.op_type}
        inputs = node.input if node.op_type == "Concat" else node.input[:1]
        return set().union(*(self.origins(name) for name in inputs))

    def source(self, tensor: str) -> str:
        """The tensor before a QuantizeLinear, for a DequantizeLinear's input."""
        node = self.producer.get(tensor)
        return node.input[0] if node is not None and node.op_type == "QuantizeLinear" else tensor

    def value(self, name: str) -> NDArray[Any] | None:
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)


def _attribute(node: NodeProto, name: str) -> object:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)


def _label(node: NodeProto) -> str:
    return node.name or f"{node.op_type} that makes {node.output[0]}"
