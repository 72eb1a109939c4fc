"""Constants computed once, and open axes fixed: the graph of a network whose input has one size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import ModelProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from edgecnn.onnxfile.bounds import Room
from edgecnn.onnxfile.graph import sweep


def fold(model: ModelProto, shapes: Mapping[str, Sequence[int]] | None = None) -> None:
    """Constant nodes, and nodes that read only constants, become initialisers; so does the Shape of a tensor whose
    shape is given. Raises InputError where the constants would fill the memory."""
    graph = model.graph
    given = {t.name for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in given]  # before IR 4 initialisers were inputs too
    del graph.input[:]
    graph.input.extend(inputs)
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    kept, room = [], Room(model)
    for node in graph.node:
        feeds = {name: values[name] for name in node.input if name in values}
        if node.op_type == "Shape" and node.input[0] in (shapes or {}):
            feeds = {node.input[0]: np.broadcast_to(np.float32(0), (shapes or {})[node.input[0]])}  # of no size
        closed = all(name in feeds for name in node.input if name) and not any(
            a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute
        )
        if not closed or node.op_type.startswith("Random") or any(o.name in node.output for o in graph.output):
            kept.append(node)
            continue
        room.take(node)
        single = helper.make_graph(
            [node],
            "fold",
            [helper.make_value_info(n, onnx.TypeProto()) for n in feeds],
            [helper.make_value_info(n, onnx.TypeProto()) for n in node.output],
        )
        one = helper.make_model(single, opset_imports=model.opset_import)
        for name, value in zip(node.output, ReferenceEvaluator(one).run(None, feeds), strict=True):
            values[name] = np.asarray(value)
            graph.initializer.append(numpy_helper.from_array(values[name], name))
    del graph.node[:]
    graph.node.extend(kept)


def fix_axes(model: ModelProto, name: str, shape: Sequence[int]) -> ModelProto:
    """A copy whose input has this shape where it leaves axes open, with all that follows: shapes that the graph
    computes from its input become constants. Axes that still depend on something else stay open. Without an open axis
    the model itself."""
    result = ModelProto()
    result.CopyFrom(model)
    (entry,) = (value for value in result.graph.input if value.name == name)
    if _fixed(entry):
        return model
    for axis, size in zip(entry.type.tensor_type.shape.dim, shape, strict=True):
        if axis.dim_value <= 0:
            axis.dim_value = size
    for output in result.graph.output:
        if not _fixed(output):
            output.type.tensor_type.ClearField("shape")
    while True:
        del result.graph.value_info[:]
        result = shape_inference.infer_shapes(result, data_prop=True)
        before = len(result.graph.node)
        known = [value for value in (*result.graph.input, *result.graph.value_info) if _fixed(value)]
        fold(result, {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in known})
        if len(result.graph.node) == before:
            sweep(result)
            return result


def resized(model: ModelProto, height: int, width: int) -> ModelProto:
    """A copy whose one input (1, C, H, W) is of this height and width; weights, scales and nodes stay as they are.

    Whether the graph can be run at that size only a run tells: a network may hold its input's size in constants.
    """
    result = ModelProto()
    result.CopyFrom(model)
    constants = {t.name for t in result.graph.initializer}
    (entry,) = (value for value in result.graph.input if value.name not in constants)
    for axis, size in zip(entry.type.tensor_type.shape.dim[2:], (height, width), strict=True):
        axis.dim_value = size
    for output in result.graph.output:
        output.type.tensor_type.ClearField("shape")
    del result.graph.value_info[:]
    answer = shape_inference.infer_shapes(result, data_prop=True)
    result.graph.ClearField("output")
    result.graph.output.extend(answer.graph.output)
    return result


def _fixed(value: onnx.ValueInfoProto) -> bool:
    kind = value.type.tensor_type
    return kind.HasField("shape") and all(axis.dim_value > 0 for axis in kind.shape.dim)
