"""Rules on the network as a whole and its target: operators, opset, shapes, INT8 or not, channel counts."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import NodeProto, defs

from edgecnn.build.lint.finding import Finding
from edgecnn.build.lint.net import DQ, Net, Q, is_int8, label
from edgecnn.build.lint.target import LOWEST, Profile

# operator -> the opset in which an attribute became an input, or an input's meaning changed
CHANGED = {
    f"Reduce{kind}": 18 for kind in ("Max", "Min", "Mean", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")
}
CHANGED |= {"ReduceSum": 13, "Squeeze": 13, "Unsqueeze": 13, "Softmax": 13, "Split": 18, "Pad": 18, "Resize": 18}
FLOAT_MULTIPLE, INT8_MULTIPLE, FULL = 8, 4, 32


def opset_of(model: onnx.ModelProto) -> int:
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def operators(net: Net, target: Profile) -> Iterator[Finding]:
    for node in net.graph.node:
        if instead := target.refuses(node.op_type):
            yield Finding("op", label(node), f"{target.title} refuses {node.op_type}", "another operator", instead)


def opsets(net: Net, target: Profile) -> Iterator[Finding]:
    opset = opset_of(net.model)
    if not target.opsets:
        return
    least, most = min(target.opsets.values()), max(target.opsets.values())
    if not LOWEST <= opset <= least:
        late = ", ".join(f"TensorRT {r} reads up to {n}" for r, n in target.opsets.items() if n < opset)
        yield Finding(
            "opset",
            net.graph.name or "graph",
            f"opset {opset}{f' ({late})' if late else ''}",
            f"{LOWEST} to {least}",
            f"Run with --fix, or export with opset {least}",
        )
    for node in net.graph.node if opset > most else ():
        since = introduced(node, opset)
        if since > most:
            yield Finding(
                "new-op",
                label(node),
                f"{node.op_type} as of opset {since}",
                f"opset {most} or lower, which is all that {target.title} knows",
                "Run with --fix, or export again",
            )


def introduced(node: NodeProto, opset: int) -> int:
    """The opset that brought an operator in the meaning that it has at `opset`; 0 if onnx does not know it."""
    if node.domain not in ("", "ai.onnx"):
        return 0
    versions = _VERSIONS.get(node.op_type, [0])
    changed = CHANGED.get(node.op_type, 0)
    return max(min(versions), changed if changed <= opset else 0)


_VERSIONS: dict[str, list[int]] = {}
for _schema in defs.get_all_schemas_with_history():
    if _schema.domain == "":
        _VERSIONS.setdefault(_schema.name, []).append(_schema.since_version)


def shapes(net: Net, target: Profile, profiled: frozenset[str] = frozenset()) -> Iterator[Finding]:
    """`profiled`: inputs for which the builder gets an optimisation profile."""
    for value in net.graph.input:
        dims = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        fixed = dims and all(isinstance(d, int) and d > 0 for d in dims)
        if value.name in net.constants or fixed or (value.name in profiled and not target.dla):
            continue
        shape = ", ".join(str(d or "?") for d in dims)
        wanted = "a fixed one: the DLA knows no other" if target.dla else "fixed numbers, or a profile"
        yield Finding("dynamic-shape", value.name, f"the input's shape ({shape})", wanted, "Export with one size")


def precision(net: Net, target: Profile) -> Iterator[Finding]:
    """Q/DQ where it can't run, and none where there is no other way to INT8."""
    pair = next((n for n in net.graph.node if n.op_type in (Q, DQ)), None)
    if pair is None:
        late = [r for r in target.releases if r.startswith("11.")]
        if late:
            yield Finding(
                "implicit",
                net.graph.name or "graph",
                f"no Q/DQ: TensorRT {late[0]} has neither calibrators nor precision flags, so it runs in float",
                "Q/DQ for INT8",
                "Quantise with edgecnn, or mean float",
            )
    elif not target.int8:
        yield Finding("no-int8", label(pair), f"Q/DQ for {target.title}", "FP16: its GPU has no INT8", "Run with --fix")
    elif target.sm75:
        yield Finding(
            "sm75",
            label(pair),
            f"Q/DQ for {target.title}, where TensorRT for RTX runs INT8 convolutions in float without a word",
            "FP16, or a target from SM 80 on",
            "Run with --fix, or choose another target",
        )


def channels(net: Net, target: Profile) -> Iterator[Finding]:
    """Multiples in which TensorRT's formats pack channels: CHW4 and CHW32 for INT8, HWC8 for FP16."""
    odd: dict[bool, list[str]] = {True: [], False: []}
    for node in net.graph.node if target.releases else ():
        if node.op_type != "Conv" or not (dims := net.dims(node.input[1])) or dims[0] < 1:
            continue
        int8 = is_int8(net, node)
        if dims[0] % (INT8_MULTIPLE if int8 else FLOAT_MULTIPLE):
            odd[int8].append(f"{label(node)} ({dims[0]})")
    for int8, names in odd.items():
        if names:
            multiple = INT8_MULTIPLE if int8 else FLOAT_MULTIPLE
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            yield Finding(
                "channels",
                names[0].rpartition(" (")[0],
                f"output channels of {', '.join(names[:3])}{more}",
                f"a multiple of {multiple}{f', best of {FULL}' if int8 else ''} in {'INT8' if int8 else 'FP16'}",
                "Prune or widen to the multiple; outputs of the network itself cost little",
            )
