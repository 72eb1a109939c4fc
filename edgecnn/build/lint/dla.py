"""The DLA without a DLA: which layers would fall back to the GPU, into how many pieces, and where to cut.

The limits are those of NVIDIA's "DLA Supported Layers and Restrictions" (TensorRT documentation) and of the table of
ONNX operators on Orin's DLA (NVIDIA/Deep-Learning-Accelerator-SW, TensorRT 8.5). No DLA was at hand: nothing here was
tried on one. A reason that ends in "(uncertain)" is one on which documents or releases differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from onnx import NodeProto

from edgecnn.build.lint.finding import Finding
from edgecnn.build.lint.net import DQ, Net, Q, label, list_attribute
from edgecnn.build.lint.target import Profile
from edgecnn.onnxfile import attribute

BATCH, SIDE, LOADABLES = 4096, 8192, 16
TRANSPARENT = (Q, DQ, "Identity", "Dropout")  # no layer of their own on either device
PLAIN = ("Relu", "Sigmoid", "Tanh", "Abs", "LRN", "BatchNormalization")
POINTWISE = ("Add", "Sub", "Mul", "Max", "Sum")
UNSURE = " (uncertain)"


@dataclass(frozen=True)
class Partition:
    """What the DLA takes of a network."""

    reasons: Mapping[int, str]  # index of a node that falls back -> why
    pieces: tuple[tuple[int, ...], ...]  # DLA subgraphs, as indices of nodes; the first that runs, then by size
    cut: tuple[str, ...]  # nodes that read what the first piece makes: a network that ends before them has one subgraph


def dla(net: Net, target: Profile) -> Iterator[Finding]:
    """dla-qdq, dla-fallback (one finding a reason) and dla-cut."""
    if not target.dla:
        return
    nodes = net.graph.node
    if pair := next((n for n in nodes if n.op_type in (Q, DQ)), None):
        yield Finding(
            "dla-qdq",
            label(pair),
            "Q/DQ pairs",
            "scales in a calibration cache, or FP16",
            "Run with --fix, which strips",
        )
    found = partition(net)
    groups: dict[str, list[int]] = {}
    for index, reason in found.reasons.items():
        groups.setdefault(f"{nodes[index].op_type}: {reason}", []).append(index)
    for reason, indices in groups.items():
        more = f" and {len(indices) - 1} more" if len(indices) > 1 else ""
        yield Finding("dla-fallback", label(nodes[indices[0]]) + more, reason, "a layer of the DLA", "See dla-cut")
    if len(found.pieces) > 1:
        share = len(found.pieces[0]) / sum(map(len, found.pieces))
        over = f", of which only {LOADABLES} can be loaded," if len(found.pieces) > LOADABLES else ""
        yield Finding(
            "dla-cut",
            found.cut[0] if found.cut else label(nodes[found.pieces[0][-1]]),
            f"{len(found.pieces)} DLA subgraphs{over} with {len(found.reasons)} layers on the GPU between them",
            "one subgraph",
            f"Cut before {', '.join(found.cut[:6])}{' ...' if len(found.cut) > 6 else ''}: one subgraph remains, "
            f"with {share:.0%} of the layers that the DLA takes",
        )


def partition(net: Net) -> Partition:
    """Split by device. A subgraph may not wait for the GPU and feed it too, so a level counts the changes of device."""
    nodes = net.graph.node
    reasons = {i: why for i, n in enumerate(nodes) if (why := falls_back(net, n))}
    level: list[int] = []
    parent = list(range(len(nodes)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def real(i: int) -> bool:
        return nodes[i].op_type not in TRANSPARENT and i not in reasons and not constant(net, nodes[i])

    for i, node in enumerate(nodes):
        makers = [net.order[name] for name in node.input if name in net.order]
        level.append(max((level[m] + ((m in reasons) != (i in reasons)) for m in makers), default=int(i in reasons)))
        for m in makers:
            if level[m] == level[i] and m not in reasons and i not in reasons:
                parent[root(m)] = root(i)
    grouped: dict[int, list[int]] = {}
    for i in range(len(nodes)):
        if real(i):
            grouped.setdefault(root(i), []).append(i)
    start = min((level[g[0]] for g in grouped.values()), default=0)
    pieces = tuple(sorted(map(tuple, grouped.values()), key=lambda g: (level[g[0]] > start, -len(g), g)))
    first = root(pieces[0][0]) if pieces else -1
    inside = {i for i in range(len(nodes)) if i not in reasons and root(i) == first}
    readers = {
        net.order[reader.output[0]] for i in inside for name in nodes[i].output for reader, _ in net.readers[name]
    }
    return Partition(reasons, pieces, tuple(label(nodes[i]) for i in sorted(readers - inside)))


def constant(net: Net, node: NodeProto) -> bool:
    """Whether TensorRT folds the node away: it reads constants or shapes alone."""
    return node.op_type in ("Constant", "Shape", "ConstantOfShape") or not net.data_inputs(node)


def falls_back(net: Net, node: NodeProto) -> str:
    """Why a node would run on the GPU; "" if the DLA takes it."""
    if node.op_type in TRANSPARENT or constant(net, node):
        return ""
    dims = net.dims(node.input[0])
    if any(d < 0 for d in dims):
        return "a dynamic shape"
    if len(dims) >= 3 and (max(dims[1:]) > SIDE or dims[0] > BATCH):
        return f"a dimension over {SIDE}, or a batch over {BATCH}"
    if node.op_type in PLAIN:
        return ""
    check = CHECKS.get(node.op_type)
    return "the DLA has no such layer" if check is None else check(net, node, dims)


def _within(values: list[int], low: int, high: int, what: str) -> str:
    return "" if all(low <= v <= high for v in values) else f"{what} {values}, the DLA has {low} to {high}"


def _conv(net: Net, node: NodeProto, dims: list[int]) -> str:
    kernel = net.dims(node.input[1])
    if len(dims) != 4 or len(kernel) != 4:
        return "not two-dimensional"
    if node.input[1] not in net.constants and net.producer[node.input[1]].op_type != DQ:
        return "weights that are no constants"
    return (
        _within(kernel[2:], 1, 32, "kernel")
        or _within(list_attribute(node, "strides"), 1, 8, "stride")
        or _within(list_attribute(node, "pads"), 0, 31, "padding")
        or _within(list_attribute(node, "dilations"), 1, 32, "dilation")
        or _within([kernel[0], int(attribute(node, "group", 1))], 1, SIDE, "outputs and groups")
    )


def _deconv(net: Net, node: NodeProto, dims: list[int]) -> str:
    kernel = net.dims(node.input[1])
    if any(list_attribute(node, "pads")) or any(list_attribute(node, "output_padding")):
        return "padding, which must be 0"
    if int(attribute(node, "group", 1)) != 1 or any(d != 1 for d in list_attribute(node, "dilations")):
        return "groups or dilation"
    return _within(kernel[2:], 1, 32, "kernel") or _within(list_attribute(node, "strides"), 1, 32, "stride")


def _pool(net: Net, node: NodeProto, dims: list[int]) -> str:
    if len(dims) != 4:
        return "not two-dimensional"
    if node.op_type == "AveragePool" and any(list_attribute(node, "pads")):
        inclusive = int(attribute(node, "count_include_pad", 0))
        if not inclusive:
            return "an average that leaves out the padding"
    if int(attribute(node, "ceil_mode", 0)):
        return f"ceil_mode{UNSURE}"
    return (
        _within(list_attribute(node, "kernel_shape"), 1, 8, "window")
        or _within(list_attribute(node, "strides"), 1, 16, "stride")
        or _within(list_attribute(node, "pads"), 0, 7, "padding")
        or ("dilation" if any(d != 1 for d in list_attribute(node, "dilations")) else "")
    )


def _matrix(net: Net, node: NodeProto, dims: list[int]) -> str:
    if node.input[1] not in net.constants and net.producer[node.input[1]].op_type != DQ:
        return "weights that are no constants"
    return "" if len(dims) in (2, 4) else f"an input of rank {len(dims)}{UNSURE}"


def _pointwise(net: Net, node: NodeProto, dims: list[int]) -> str:
    """Sides that broadcast must be (N, C, 1, 1) or (N, 1, 1, 1)."""
    shapes = [net.dims(name) for name in node.input]
    if len(shapes[0]) != 4 and len(shapes[-1]) != 4:
        return f"rank {max(map(len, shapes))}, two spatial dimensions wanted"
    whole = max(shapes, key=math.prod)
    for shape in shapes:
        padded = [1] * (4 - len(shape)) + shape
        if shape != whole and (padded[2:] != [1, 1] or padded[1] not in (1, whole[1])):
            return f"broadcast of {shape} to {whole}"
    return ""


def _concat(net: Net, node: NodeProto, dims: list[int]) -> str:
    return "" if len(dims) == 4 and int(attribute(node, "axis", 1)) in (1, -3) else "another axis than the channels"


def _resize(net: Net, node: NodeProto, dims: list[int]) -> str:
    mode, out = str(attribute(node, "mode", "nearest")), net.dims(node.output[0])
    if len(dims) != 4 or any(d < 1 for d in out):
        return "no fixed scales"
    scales = [b / a for a, b in zip(dims, out, strict=True)]
    if scales[:2] != [1, 1] or any(s != int(s) or not 1 <= s <= 32 for s in scales[2:]):
        return f"scales {[round(s, 2) for s in scales]}, the DLA has 1, 1 and whole numbers to 32"
    if mode == "nearest":
        return ""
    return f"mode {mode}: nearest alone until TensorRT 8.2, later linear up to 4 with half_pixel{UNSURE}"


def _softmax(net: Net, node: NodeProto, dims: list[int]) -> str:
    return f"Orin alone has it, not Xavier, and there over one axis of 4-D tensors of up to 1024{UNSURE}"


def _four(net: Net, node: NodeProto, dims: list[int]) -> str:
    """Shuffle layers (Transpose, Reshape and their kin): four dimensions to four, the batch where it was."""
    out = net.dims(node.output[0])
    if len(dims) != 4 or len(out) != 4:
        return f"rank {len(dims)} to {len(out)}, four dimensions wanted"
    if node.op_type == "Transpose" and list_attribute(node, "perm")[:1] != [0]:
        return "a transpose that moves the batch"
    return ""


def _slice(net: Net, node: NodeProto, dims: list[int]) -> str:
    if len(dims) != 4:
        return f"rank {len(dims)}, four dimensions wanted"
    fixed = all(name in net.constants for name in node.input[1:] if name)
    return f"FP16 alone, since TensorRT 8.5{UNSURE}" if fixed else "no constant start and end"


def _clip(net: Net, node: NodeProto, dims: list[int]) -> str:
    bounds = [net.constant(name) for name in node.input[1:] if name]
    if len(node.input) < 3 or any(b is None for b in bounds):
        return f"no constant bounds, 0 and 1 to 127{UNSURE}"
    low, high = (float(b.ravel()[0]) for b in bounds if b is not None)
    return "" if low == 0 and 1 <= high <= 127 else f"{low:g} to {high:g}, the DLA clips 0 to 1..127"


def _unsure(net: Net, node: NodeProto, dims: list[int]) -> str:
    return f"not in TensorRT 8.5's table of the DLA{UNSURE}"


CHECKS: Mapping[str, Callable[[Net, NodeProto, list[int]], str]] = {
    "Conv": _conv,
    "ConvTranspose": _deconv,
    "Gemm": _matrix,
    "MatMul": _matrix,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _unsure,
    "GlobalMaxPool": _unsure,
    "ReduceMax": _unsure,
    "ReduceMean": _unsure,
    "Min": _unsure,
    "Div": _unsure,
    "Pow": _unsure,
    "Concat": _concat,
    "Resize": _resize,
    "Upsample": _resize,
    "Softmax": _softmax,
    "Slice": _slice,
    "Split": _slice,
    "Clip": _clip,
    "LeakyRelu": lambda net, node, dims: "",
    "PRelu": lambda net, node, dims: "" if node.input[1] in net.constants else "a slope that is no constant",
    **dict.fromkeys(POINTWISE, _pointwise),
    **dict.fromkeys(("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze"), _four),
}
