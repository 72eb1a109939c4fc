"""An ONNX graph made ready for quantisation.

`prepare` changes no output beyond rounding: constants are folded, Conv+BatchNormalization is merged, Identity goes,
Gemm weights lie as (outputs, inputs), and every node has a name of its own.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, helper, numpy_helper, version_converter

from edgecnn.errors import ModelError
from edgecnn.onnxfile import View, attribute, fold, sweep, without_pairs
from edgecnn.onnxfile import read as load

__all__ = ["OPSET", "View", "attribute", "load", "prepare", "without_pairs"]

OPSET = 13  # the first in which QuantizeLinear has an axis


def prepare(model: ModelProto) -> ModelProto:
    """A copy in the form that the rest of this package reads. Raises ModelError for float16 networks."""
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    result = ModelProto()
    result.CopyFrom(model if opset >= OPSET else version_converter.convert_version(model, OPSET))
    if any(t.data_type == onnx.TensorProto.FLOAT16 for t in result.graph.initializer):
        raise ModelError("the network holds float16 weights", wanted="float32: one INT8 form then fits every TensorRT")
    fold(result)
    _identities(result)
    _batch_norms(result)
    _gemms(result)
    _names(result)
    sweep(result)
    del result.graph.value_info[:]
    return result


def _identities(model: ModelProto) -> None:
    graph, view = model.graph, View(model)
    for node in list(graph.node):
        if node.op_type not in ("Identity", "Dropout") or node.output[0] in view.outputs:
            continue
        for reader in graph.node:
            for index, name in enumerate(reader.input):
                if name == node.output[0]:
                    reader.input[index] = node.input[0]
        graph.node.remove(node)


def _batch_norms(model: ModelProto) -> None:
    """y = g (Wx + b - m) / sqrt(v + eps) + h is a convolution again (Jacob et al. 2018, arXiv:1712.05877, 3.2)."""
    graph, view = model.graph, View(model)
    for norm in list(graph.node):
        conv = view.producer.get(norm.input[0]) if norm.op_type == "BatchNormalization" else None
        if conv is None or conv.op_type != "Conv" or len(view.readers[norm.input[0]]) != 1:
            continue
        weight, constants = view.constant(conv.input[1]), [view.constant(name) for name in norm.input[1:5]]
        bias = view.constant(conv.input[2]) if len(conv.input) > 2 else np.float32(0)
        if weight is None or bias is None or any(c is None for c in constants) or norm.input[0] in view.outputs:
            continue
        gain, shift, mean, variance = (c for c in constants if c is not None)
        factor = gain / np.sqrt(variance + np.float32(attribute(norm, "epsilon", 1e-5)))
        merged = {
            f"{conv.output[0]}_weight": weight * factor.reshape(-1, *[1] * (weight.ndim - 1)),
            f"{conv.output[0]}_bias": (bias - mean) * factor + shift,
        }
        del conv.input[1:]
        conv.input.extend(merged)
        graph.initializer.extend(numpy_helper.from_array(v.astype(np.float32), k) for k, v in merged.items())
        conv.output[0] = norm.output[0]
        graph.node.remove(norm)


def _gemms(model: ModelProto) -> None:
    """TensorRT reads a weight scale on any axis but the first wrongly, so outputs come first."""
    graph, view = model.graph, View(model)
    for node in graph.node:
        if node.op_type != "Gemm" or attribute(node, "transB", 0):
            continue
        weight = view.constant(node.input[1])
        if weight is None:
            continue
        name = f"{node.output[0]}_weight"
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(weight.T), name))
        node.input[1] = name
        kept = [a for a in node.attribute if a.name != "transB"]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("transB", 1)])


def _names(model: ModelProto) -> None:
    seen: set[str] = set()
    for node in model.graph.node:
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{node.output[0]}"
        seen.add(node.name)
