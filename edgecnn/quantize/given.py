"""Quantise with scales that somebody else measured: a calibration cache of TensorRT's, or an earlier run's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from onnx import ModelProto

from edgecnn.bundle import atomic
from edgecnn.errors import InputError, ModelError
from edgecnn.quantize.graph import load, prepare
from edgecnn.quantize.insert import insert, plan


def quantize_given(
    model: ModelProto, scales: Mapping[str, np.float32], keep_float: Iterable[str] = ()
) -> tuple[ModelProto, tuple[str, ...]]:
    """FP32 network and tensor → scale (amax / 127): the network in TensorRT's form, and the kernels that stay float.

    A kernel whose input has no scale stays float, as TensorRT has it. Tensors that no pair stands on may have a scale:
    a cache names them all. Raises ModelError where no kernel is left, RecipeError for an unknown name in `keep_float`.
    """
    model = prepare(model)
    nodes = {node.name: node for node in model.graph.node}
    chosen = plan(model, keep_float)
    lacking = {name for name in chosen.kernels if nodes[name].input[0] not in scales}
    if len(lacking) == len(chosen.kernels):
        wanted = [nodes[name].input[0] for name in chosen.kernels]
        raise ModelError(
            f"no scale fits this network: it asks for {', '.join(wanted[:3]) or 'none'}",
            wanted=f"the network that the scales belong to (they name {', '.join([*scales][:3])})",
        )
    if lacking:
        chosen = plan(model, {*keep_float, *lacking})
    points = {tensor: readers for tensor, readers in chosen.points.items() if tensor in scales}
    known = {tensor: float(scale) for tensor, scale in scales.items()}
    return insert(model, points, known, chosen.kernels), chosen.floats


def quantize_file(
    source: Path, out: Path, scales: Mapping[str, np.float32], keep_float: Iterable[str] = ()
) -> dict[str, object]:
    """Write the Q/DQ form of an FP32 ONNX file. Returns what became of it. Raises InputError, ModelError, RecipeError.

    The scales must belong to this very network: one whose channels were evened out since needs others.
    """
    if out.suffix != ".onnx" or out == source:
        raise InputError(f"--out {out} is no place for the result", wanted="another file that ends in .onnx")
    model = load(source)
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise ModelError(f"{source} holds Q/DQ pairs already", wanted="the network that the cache was made for")
    result, floats = quantize_given(model, scales, keep_float)
    with atomic(out) as temporary:
        temporary.write_bytes(result.SerializeToString(deterministic=True))
    pairs = sum(node.op_type == "QuantizeLinear" for node in result.graph.node)
    return {"out": out, "pairs": pairs, "kept_float": list(floats)}
