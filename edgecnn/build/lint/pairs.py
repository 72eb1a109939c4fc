"""Rules on single Q/DQ pairs: zero points, types, axes, biases."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto

from edgecnn.build.lint.finding import Finding
from edgecnn.build.lint.net import DQ, Net, Q, axis_of, label
from edgecnn.build.lint.target import Profile
from edgecnn.onnxfile import attribute

FIX = "Run with --fix"


def pairs(net: Net, target: Profile) -> Iterator[Finding]:
    """uint8, zero-point, scale, half, activation-axis of each Q and DQ."""
    for node in net.graph.node:
        if node.op_type in (Q, DQ):
            yield from _types(net, node)
            yield from _scales(net, node)


def _types(net: Net, node: NodeProto) -> Iterator[Finding]:
    zero = net.zero(node)
    kind = np.dtype(np.uint8) if zero is None and node.op_type == Q else getattr(zero, "dtype", None)
    if node.op_type == Q and zero is None and int(attribute(node, "output_dtype", 0)) == 3:
        kind = np.dtype(np.int8)  # opset 21
    if kind == np.uint8:
        yield Finding("uint8", label(node), "uint8", "int8 with zero point 0", FIX)
    elif zero is not None and zero.dtype == np.int8 and np.any(zero):
        value = zero.ravel()[zero.ravel() != 0][0]
        yield Finding("zero-point", label(node), f"zero point {value}", "0", FIX)


def _scales(net: Net, node: NodeProto) -> Iterator[Finding]:
    scale = net.scale(node)
    if scale is None:
        return
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        bad = scale.ravel()[~(np.isfinite(scale.ravel()) & (scale.ravel() > 0))][0]
        yield Finding("scale", label(node), f"the scale {bad}", "a positive number", "Calibrate again")
    if scale.dtype == np.float16:
        yield Finding("half", label(node), "a float16 scale", "float32: one form then fits every TensorRT", FIX)
    if scale.ndim and not net.constant_feed(node):
        scales = f"{scale.size} scales" if scale.size > 1 else "its scale in a vector of one"
        yield Finding(
            "activation-axis",
            label(node),
            f"an activation with {scales}: its convolution would run in float",
            "one scale, a scalar",
            FIX,
        )


def kernels(net: Net, target: Profile) -> Iterator[Finding]:
    """weight-axis and bias of each Conv, Gemm and MatMul."""
    for node in net.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        weight = net.producer.get(node.input[1])
        if weight is not None and weight.op_type == DQ and net.constant_feed(weight):
            yield from _weight(net, node, weight)
        bias = net.producer.get(node.input[2]) if len(node.input) > 2 else None
        if bias is not None and bias.op_type == DQ:
            yield Finding("bias", label(node), "its bias lies behind a DequantizeLinear", "a bias in float", FIX)


def _weight(net: Net, node: NodeProto, weight: NodeProto) -> Iterator[Finding]:
    scale = net.scale(weight)
    if scale is None or scale.size == 1:
        return
    outputs_first = node.op_type == "Conv" or bool(attribute(node, "transB", 0))
    axis = axis_of(weight, max(2, len(net.dims(weight.input[0]))))
    if axis != 0 or not outputs_first:
        place = f"axis {axis}" if outputs_first else f"axis {axis} of (inputs, outputs)"
        yield Finding(
            "weight-axis",
            label(node),
            f"{scale.size} weight scales on {place}, which TensorRT reads as if on the first",
            "outputs on the first axis, and the scales there",
            FIX,
        )
