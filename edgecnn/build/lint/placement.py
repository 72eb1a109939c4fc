"""Rules on where pairs stand: NVIDIA's guidance (TensorRT developer guide, "Q/DQ layer-placement recommendations")."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnx import NodeProto

from edgecnn.build.lint.finding import Finding
from edgecnn.build.lint.net import ACTIVATIONS, DQ, Net, Q, label
from edgecnn.build.lint.target import Profile

COPYING = ("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Concat", DQ, Q)
SCORES = ("Sigmoid", "Softmax")  # values in [0, 1]
COARSE = 1 / 16  # a scale that leaves a score fewer than 16 levels
CONVS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
FUSED = (*ACTIVATIONS, "BatchNormalization", "Mul")  # Mul: the second half of SiLU


def mixed_range(net: Net, target: Profile) -> Iterator[Finding]:
    """One scale over scores and something of a far wider range."""
    for q in net.graph.node:
        scale = net.scale(q) if q.op_type == Q else None
        if scale is None or scale.size > 1 or float(scale.ravel()[0]) <= COARSE:
            continue
        if {op in SCORES for op in _origins(net, q.input[0])} == {True, False}:
            yield Finding(
                "mixed-range",
                label(q),
                f"scores in [0, 1] share the scale {float(scale.ravel()[0]):.3g} with other values and become zeros",
                "a scale of their own, or float",
                "Quantise before the Concat, or let the network end before it",
            )


def _origins(net: Net, tensor: str) -> set[str]:
    """Operators from which a tensor's values come, through nodes that only copy."""
    found: set[str] = set()
    stack, seen = [tensor], {tensor}
    while stack:
        name = stack.pop()
        node = net.producer.get(name)
        if node is None:
            found |= {"Input"} if name not in net.constants else set()
        elif node.op_type not in COPYING:
            found.add(node.op_type)
        else:
            inputs = node.input if node.op_type == "Concat" else node.input[:1]
            stack.extend(n for n in inputs if n not in seen)
            seen.update(inputs)
    return found


def conv_output(net: Net, target: Profile) -> Iterator[Finding]:
    """A pair between a convolution and what would fuse with it."""
    for q, _ in between(net):
        readers = [n.op_type for dq, _ in net.readers[q.output[0]] for n, _ in net.readers[dq.output[0]]]
        yield Finding(
            "conv-output",
            label(q),
            f"the output of {label(net.producer[q.input[0]])} is quantised before its {readers[0]}",
            "the pair behind it",
            "Run with --fix",
        )


def between(net: Net) -> Iterator[tuple[NodeProto, list[NodeProto]]]:
    """(Q, its DQs) that stand between a convolution and its batch normalisation or activation."""
    for q in net.graph.node:
        maker = net.producer.get(q.input[0]) if q.op_type == Q else None
        if maker is None or maker.op_type not in (*CONVS, "BatchNormalization"):
            continue
        dqs = [n for n, _ in net.readers[q.output[0]] if n.op_type == DQ]
        readers = {n.op_type for dq in dqs for n, _ in net.readers[dq.output[0]]}
        served = net.outputs.intersection(name for dq in dqs for name in dq.output)
        if readers and readers <= {*FUSED} and readers != {"Mul"} and not served:
            yield q, dqs


@dataclass(frozen=True)
class Residual:
    """An Add inside an INT8 network: which input is the skip, and which inputs have a pair."""

    add: NodeProto
    skip: int  # index of the input that was made first
    skip_quantised: bool
    main_quantised: bool
    main_fuses: bool  # the skip comes straight out of a convolution too: either may be the one that fuses

    @property
    def good(self) -> bool:
        return self.skip_quantised != self.main_quantised and (self.skip_quantised or self.main_fuses)


def residuals(net: Net) -> Iterator[Residual]:
    rooted, leading = net.among()
    for add in net.graph.node:
        inputs = list(add.input) if add.op_type == "Add" else []
        if len(inputs) != 2 or inputs[0] == inputs[1] or any(name in net.constants for name in inputs):
            continue
        if add.output[0] not in leading or not all(name in rooted for name in inputs):
            continue
        bare = [net.before(name) for name in inputs]
        skip = min((0, 1), key=lambda i: net.order.get(bare[i], -1))
        maker = net.producer.get(bare[skip])
        quantised = [(n := net.producer.get(name)) is not None and n.op_type == DQ for name in inputs]
        fuses = maker is not None and maker.op_type in (*CONVS, "BatchNormalization")
        yield Residual(add, skip, quantised[skip], quantised[1 - skip], fuses)


def residual(net: Net, target: Profile) -> Iterator[Finding]:
    """Of a residual Add only the skip is quantised: the convolution then fuses with the Add."""
    for found in residuals(net):
        if found.good:
            continue
        both = found.skip_quantised and found.main_quantised
        came = (
            "both inputs have"
            if both
            else "only the convolution's side has"
            if found.main_quantised
            else "no input has"
        )
        yield Finding(
            "residual",
            label(found.add),
            f"{came} a pair",
            f"one on the skip, '{net.before(found.add.input[found.skip])}'",
            "Run with --fix, or quantise with edgecnn",
        )


def pools(net: Net) -> Iterator[NodeProto]:
    """Global average pools in an INT8 network whose input has no pair."""
    rooted, _ = net.among()
    for node in net.graph.node:
        mean = node.op_type == "ReduceMean" and len(net.dims(node.input[0])) == 4 and node.input[0] in rooted
        if (mean or node.op_type == "GlobalAveragePool") and node.input[0] in rooted:
            maker = net.producer.get(node.input[0])
            if maker is not None and maker.op_type != DQ:
                yield node


def pool_input(net: Net, target: Profile) -> Iterator[Finding]:
    for node in pools(net):
        yield Finding(
            "pool-input",
            label(node),
            f"'{node.input[0]}' comes in float",
            "a pair on it",
            "Run with --fix, or quantise with edgecnn",
        )
