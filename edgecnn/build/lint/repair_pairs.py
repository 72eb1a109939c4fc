"""Repairs of single pairs: types, zero points, axes, biases. Each changes a network in place and says what it did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgecnn.build.lint.net import DQ, Net, Q, along, axis_of, dequantised, hides_relu, label, tensor
from edgecnn.onnxfile import attribute

LEVELS = 127


@dataclass(frozen=True)
class Repair:
    """One thing that was mended."""

    rule: str
    where: str
    did: str
    exact: bool = True  # no number changed but by float rounding

    def __str__(self) -> str:
        return f"{self.where}: {self.did} [{self.rule}]"


def put(graph: GraphProto, name: str, value: NDArray[Any]) -> str:
    """A new constant, under a name that nothing has yet."""
    taken = {t.name for t in graph.initializer} | {o for n in graph.node for o in n.output}
    while name in taken:
        name += "_"
    graph.initializer.append(tensor(name, value))
    return name


def set_axis(node: NodeProto, axis: int | None) -> None:
    kept = [a for a in node.attribute if a.name != "axis"]
    del node.attribute[:]
    node.attribute.extend(kept if axis is None else [*kept, helper.make_attribute("axis", axis)])


def rewire(model: ModelProto, old: str, new: str) -> None:
    """Whoever read `old` reads `new`; an output of the network keeps its name."""
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new
    if old in {o.name for o in model.graph.output}:
        at = next(i for i, node in enumerate(model.graph.node) if old in node.output)
        del model.graph.node[at]
        model.graph.node.insert(at, helper.make_node("Identity", [new], [old], f"{old}_as_it_was"))


def groups(net: Net) -> Iterator[list[NodeProto]]:
    """Pairs that may change together: a Q and every DQ that reads it, or a DQ on a constant."""
    for node in net.graph.node:
        if node.op_type == Q:
            readers = [n for n, _ in net.readers[node.output[0]]]
            if node.output[0] not in net.outputs and all(n.op_type == DQ for n in readers):
                yield [node, *readers]
        elif node.op_type == DQ and node.input[0] in net.constants:
            yield [node]


def symmetric(model: ModelProto) -> list[Repair]:
    """uint8 and int8 with a zero point → int8 around 0. From uint8 with zero point 128 nothing changes."""
    net, done = Net(model), []
    for group in groups(net):
        first = group[0]
        scale, zero = net.scale(first), net.zero(first)
        stored = net.constant(first.input[0]) if first.op_type == DQ else None
        kind = zero.dtype if zero is not None else stored.dtype if stored is not None else np.dtype(np.uint8)
        if scale is None or kind not in (np.uint8, np.int8) or (kind == np.int8 and (zero is None or not zero.any())):
            continue
        if int(attribute(first, "output_dtype", 0)) == TensorProto.INT8 and zero is None:
            continue
        at = np.zeros_like(scale, np.float64) if zero is None else zero.astype(np.float64)
        low, high = (0, 255) if kind == np.uint8 else (-128, 127)
        exact = kind == np.uint8 and bool((at == 128).all())
        reach = np.maximum(high - at, at - low)
        fresh = scale if exact else (scale * reach / LEVELS).astype(scale.dtype)
        names = [put(model.graph, f"{first.output[0]}_{part}", v) for part, v in _parts(fresh)]
        if first.op_type == Q and not net.constant_feed(first) and hides_relu(net, first):
            first.input[0] = relu(model, first)
        if stored is not None:
            axis = axis_of(first, stored.ndim)
            whole = (stored - along(at, axis, stored.ndim)) * along(scale.astype(np.float64), axis, stored.ndim)
            levels = np.round(whole / along(fresh.astype(np.float64), axis, stored.ndim)).clip(-128, 127)
            first.input[0] = put(model.graph, f"{first.input[0]}_s8", levels.astype(np.int8))
        for node in group:
            del node.input[1:]
            node.input.extend(names)
            kept = [a for a in node.attribute if a.name != "output_dtype"]
            del node.attribute[:]
            node.attribute.extend(kept)
        rule = "uint8" if kind == np.uint8 else "zero-point"
        how = "the same levels" if exact else "a new scale over the same range"
        done.append(Repair(rule, label(first), f"int8 with zero point 0, {how}", exact))
    return done


def relu(model: ModelProto, q: NodeProto) -> str:
    """Write out the Relu that a Q hides; the tensor behind it."""
    name = f"{q.input[0]}_relu_of_{q.output[0]}"
    at = next(i for i, node in enumerate(model.graph.node) if node is q or node.output[0] == q.output[0])
    model.graph.node.insert(at, helper.make_node("Relu", [q.input[0]], [name], name))
    return name


def _parts(scale: NDArray[Any]) -> list[tuple[str, NDArray[Any]]]:
    return [("scale_s8", scale), ("zero_s8", np.zeros(scale.shape, np.int8))]


def one_scale(model: ModelProto) -> list[Repair]:
    """An activation's scales → the largest."""
    net, done = Net(model), []
    for group in groups(net):
        scale = net.scale(group[0])
        if scale is None or not scale.ndim or net.constant_feed(group[0]):
            continue
        zero = net.zero(group[0])
        at = np.zeros((), np.int8) if zero is None or zero.size > 1 else zero.reshape(())
        parts = (("scale", np.asarray(scale.max())), ("zero", at))
        names = [put(model.graph, f"{group[0].output[0]}_{part}", v) for part, v in parts]
        for node in group:
            del node.input[1:]
            node.input.extend(names)
            set_axis(node, None)
        exact = scale.size == 1
        did = "its scale is a scalar" if exact else f"one scale for {scale.size}, the largest"
        done.append(Repair("activation-axis", label(group[0]), did, exact))
    return done


def float_bias(model: ModelProto) -> list[Repair]:
    net, done = Net(model), []
    for node in net.graph.node:
        dq = net.producer.get(node.input[2]) if node.op_type in ("Conv", "Gemm") and len(node.input) > 2 else None
        value = dequantised(net, dq) if dq is not None and dq.op_type == DQ else None
        if value is None:
            continue
        node.input[2] = put(model.graph, f"{label(node)}.bias_float".replace(" ", "_"), value)
        done.append(Repair("bias", label(node), "its bias is float again"))
    return done


def outputs_first(model: ModelProto) -> list[Repair]:
    """Weights with a scale an output go (outputs, inputs), axis 0; scales on inputs are measured anew on outputs."""
    net, done = Net(model), []
    for node in list(net.graph.node):
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        dq = net.producer.get(node.input[1])
        scale = net.scale(dq) if dq is not None and dq.op_type == DQ else None
        weight = dequantised(net, dq) if dq is not None and scale is not None and scale.size > 1 else None
        if dq is None or scale is None or weight is None or (node.op_type == "MatMul" and weight.ndim != 2):
            continue
        axis, last = axis_of(dq, weight.ndim), node.op_type == "MatMul" or not attribute(node, "transB", 0)
        last = last and node.op_type != "Conv"
        if axis == 0 and not last:
            continue
        laid = weight.T if last else weight
        exact = last and axis == 1
        flat = np.abs(laid.reshape(len(laid), -1))
        fresh = scale if exact else np.maximum(flat.max(1) / LEVELS, 1e-9).astype(np.float32)
        levels = np.round(laid / along(fresh, 0, laid.ndim)).clip(-128, 127).astype(np.int8)
        _lay(model, node, levels, fresh, last)
        how = "outputs first, the same levels" if exact else "a scale an output, rounded anew"
        done.append(Repair("weight-axis", label(node), how, exact))
    return done


def _lay(model: ModelProto, node: NodeProto, levels: NDArray[np.int8], scale: NDArray[Any], last: bool) -> None:
    """Give a kernel new levels with scales on axis 0; `last`: it read (inputs, outputs) before."""
    name = f"{label(node)}.weight".replace(" ", "_")
    feeds = [put(model.graph, f"{name}{part}", v) for part, v in (("_s8", levels), *_parts(scale.reshape(-1)))]
    made = [helper.make_node(DQ, feeds, [f"{name}_float"], f"{name}_DQ", axis=0)]
    node.input[1] = f"{name}_float"
    if node.op_type == "Gemm":
        kept = [a for a in node.attribute if a.name != "transB"]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("transB", 1)])
    elif last:
        made.append(helper.make_node("Transpose", [f"{name}_float"], [f"{name}_laid"], f"{name}_laid", perm=[1, 0]))
        node.input[1] = f"{name}_laid"
    for i, one in enumerate(made):
        model.graph.node.insert(i, one)


def in_float32(model: ModelProto) -> list[Repair]:
    """A network with float16 pairs, written in float32; a Cast at its inputs and outputs keeps their types."""
    net = Net(model)
    halves = [n for n in net.graph.node if n.op_type in (Q, DQ) and (s := net.scale(n)) is not None and s.dtype == "f2"]
    if not halves:
        return []
    graph = model.graph
    tensors = [*graph.initializer, *(a.t for n in graph.node for a in n.attribute if a.HasField("t"))]
    for t in tensors:
        if t.data_type == TensorProto.FLOAT16:
            t.CopyFrom(tensor(t.name, numpy_helper.to_array(t).astype(np.float32)))
    for node in graph.node:
        for a in node.attribute:
            if a.name in ("to", "dtype", "output_dtype") and a.i == TensorProto.FLOAT16:
                a.i = TensorProto.FLOAT
    del graph.value_info[:]
    for value in graph.input:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16 and value.name not in net.constants:
            inside = f"{value.name}_float32"
            rewire_inputs(graph, value.name, inside)
            graph.node.insert(0, helper.make_node("Cast", [value.name], [inside], inside, to=TensorProto.FLOAT))
    for value in graph.output:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            inside = f"{value.name}_float32"
            rewire_inputs(graph, value.name, inside)
            maker = next(n for n in graph.node if value.name in n.output)
            maker.output[list(maker.output).index(value.name)] = inside
            graph.node.append(helper.make_node("Cast", [inside], [value.name], inside, to=TensorProto.FLOAT16))
    return [Repair("half", label(halves[0]), f"the network in float32, {len(halves)} pairs with it", False)]


def rewire_inputs(graph: GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new
