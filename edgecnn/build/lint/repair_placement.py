"""Repairs of where pairs stand, of their presence, and of the opset. Each changes a network in place."""

from __future__ import annotations

import onnx
from onnx import ModelProto, NodeProto, defs, helper, version_converter

from edgecnn.build.lint.net import DQ, Net, Q, dequantised, hides_relu, label
from edgecnn.build.lint.network import opset_of
from edgecnn.build.lint.placement import between, pools, residuals
from edgecnn.build.lint.repair_pairs import Repair, put, relu, rewire
from edgecnn.build.lint.target import LOWEST, Profile


def fuse(model: ModelProto) -> list[Repair]:
    """Take out pairs between a convolution and its activation."""
    done = []
    for q, dqs in list(between(Net(model))):
        for dq in dqs:
            rewire(model, dq.output[0], q.input[0])
        done.append(Repair("conv-output", label(q), "the pair is gone: convolution and activation fuse", False))
    return done


def skips(model: ModelProto) -> list[Repair]:
    """The pair that a skip has for another reader, and none on the other input."""
    net, done = Net(model), []
    for found in residuals(net):
        if found.good:
            continue
        skip, main = found.add.input[found.skip], found.add.input[1 - found.skip]
        other = skip if found.skip_quantised else net.paired(skip)
        if not other:
            continue
        _read_later(model, net, found.add.output[0], found.skip, other)
        found.add.input[1 - found.skip] = net.before(main)
        done.append(Repair("residual", label(found.add), "the skip alone is quantised", False))
    return done


def pooled(model: ModelProto) -> list[Repair]:
    net, done = Net(model), []
    for node in list(pools(net)):
        if other := net.paired(node.input[0]):
            _read_later(model, net, node.output[0], 0, other)
            done.append(Repair("pool-input", label(node), "reads the pair that its input has elsewhere", False))
    return done


def _read_later(model: ModelProto, net: Net, output: str, index: int, tensor: str) -> None:
    """Let the maker of `output` read `tensor`; the pair moves before it where it stands behind."""
    node, dq = net.producer[output], net.producer[tensor]
    node.input[index] = tensor
    moved = [net.producer[dq.input[0]], dq]
    for one in moved:
        model.graph.node.remove(one)
    after = max((i for i, n in enumerate(model.graph.node) if moved[0].input[0] in n.output), default=-1)
    for offset, one in enumerate(moved):
        model.graph.node.insert(after + 1 + offset, one)


def strip(model: ModelProto, rule: str) -> list[Repair]:
    """No pairs at all: weights become float constants, what was stored as int8 keeps its rounding."""
    net, count = Net(model), 0
    for dq in [n for n in net.graph.node if n.op_type == DQ]:
        pair = net.pair(dq.output[0])
        if pair is not None:
            hidden = not net.constant_feed(dq) and hides_relu(net, pair[0])
            rewire(model, dq.output[0], relu(model, pair[0]) if hidden else pair[0].input[0])
        elif (value := dequantised(net, dq)) is not None:
            rewire(model, dq.output[0], put(model.graph, f"{dq.output[0]}_float", value))
        else:
            continue
        count += 1
    if not count:
        return []
    left = any(n.op_type == Q and any(r.op_type != DQ for r, _ in net.readers[n.output[0]]) for n in model.graph.node)
    where = model.graph.name or "graph"
    return [] if left else [Repair(rule, where, f"{count} pairs are gone: build it in FP16", False)]


def convert(model: ModelProto, target: Profile) -> list[Repair]:
    """The opset that every release of the target reads.

    onnx's converter has no way back for operators that merely grew, Relu of opset 14 among them. So the number alone is
    lowered where the checker takes the graph as it is; whether the answers stay is for the comparison to say.
    """
    opset, limits = opset_of(model), target.opsets
    if not limits or LOWEST <= opset <= min(limits.values()):
        return []
    wanted = min(limits.values())
    converted = _relabelled(model, wanted) if opset > wanted else None
    try:
        converted = converted or version_converter.convert_version(model, wanted)
        onnx.checker.check_model(converted, full_check=True)
    except (RuntimeError, ValueError, onnx.checker.ValidationError):
        return []  # the finding stays
    model.CopyFrom(converted)
    return [Repair("opset", model.graph.name or "graph", f"opset {opset} became {wanted}")]


def _relabelled(model: ModelProto, opset: int) -> ModelProto | None:
    result = ModelProto()
    result.CopyFrom(model)
    for node in result.graph.node:
        _plain(node, opset_of(model), opset)
    for entry in result.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = opset
    try:
        onnx.checker.check_model(result, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return None
    return result


def _plain(node: NodeProto, was: int, opset: int) -> None:
    """Without the attributes that the older operator lacks and that stand at their default, such as Reshape's
    allowzero = 0 of opset 14, which PyTorch writes: they say nothing."""
    try:
        newer, older = (defs.get_schema(node.op_type, number, node.domain).attributes for number in (was, opset))
    except defs.SchemaError:
        return  # an operator that one of the two lacks: for the checker to say
    for attribute in [a for a in node.attribute if a.name in newer and a.name not in older]:
        if helper.get_attribute_value(attribute) == helper.get_attribute_value(newer[attribute.name].default_value):
            node.attribute.remove(attribute)
