"""Even out the channels between convolutions, so that one scale a tensor serves them all.

ReLU(s x) = s ReLU(x) for s > 0: what a convolution's output channel is divided by, the weights that read it are
multiplied by, and FP32 answers stay. Nagel et al. 2019, arXiv:1906.04721, section 4.1. Weights have a scale an output
channel here, so the first convolution loses nothing, and neither does a depthwise reader: its input channels become
equally loud. A dense reader shares the burden between input and weights by the square root, as Xiao et al. 2022,
arXiv:2211.10438, equation 4.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper, shape_inference

from edgecnn.quantize.graph import View, attribute
from edgecnn.quantize.insert import copies
from edgecnn.quantize.ranges import tapped
from edgecnn.scene import F32

HOMOGENEOUS = ("Relu", "LeakyRelu")
POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool", "Resize")  # they commute with a factor a channel
LEAST = 1 / 64  # smallest factor: a quieter channel is as good as dead


@dataclass(frozen=True)
class Reader:
    """A convolution that reads a tensor's channels, some of them perhaps behind a Concat."""

    conv: NodeProto
    offset: int  # the tensor's first channel among the convolution's inputs
    depthwise: bool


@dataclass(frozen=True)
class Span:
    """From a convolution to all who read it."""

    first: NodeProto
    tensor: str  # behind the activation
    readers: tuple[Reader, ...]


def equalized(model: ModelProto, feeds: Iterable[F32]) -> ModelProto:
    """A copy of the prepared FP32 graph with the same answers and evener channels."""
    result = ModelProto()
    result.CopyFrom(model)
    view = View(result)
    found = spans(view)
    loud = loudness(model, [span.tensor for span in found], feeds) if found else {}
    for span in found:
        factor = factors(loud[span.tensor], [(_constant(view, r.conv.input[1]), r) for r in span.readers])
        for name in span.first.input[1:]:
            value = _constant(view, name)
            _store(view, name, value / factor.reshape(-1, *[1] * (value.ndim - 1)))
        for reader in span.readers:
            weight = _constant(view, reader.conv.input[1]).copy()
            rows = slice(reader.offset, reader.offset + len(factor))
            if reader.depthwise:
                weight[rows] *= factor[:, None, None, None]
            else:
                weight[:, rows] *= factor[:, None, None]
            _store(view, reader.conv.input[1], weight)
    return result


def spans(view: View) -> list[Span]:
    """Convolutions whose readers can all take the factors up."""
    channels = _channels(view.model)
    found = []
    for node in [n for n in view.graph.node if n.op_type in HOMOGENEOUS]:
        first = view.producer.get(node.input[0])
        if first is None or first.op_type != "Conv" or len(view.readers[node.input[0]]) != 1:
            continue
        if node.input[0] in view.outputs or not all(_own(view, name) for name in first.input[1:]):
            continue
        readers = _readers(view, channels, node.output[0], 0)
        if readers:
            found.append(Span(first, node.output[0], tuple(readers)))
    return found


def _readers(view: View, channels: dict[str, int], tensor: str, offset: int) -> list[Reader] | None:
    """None where somebody reads the tensor who can't take factors up: a residual Add, an output, a shared weight."""
    if tensor in view.outputs:
        return None
    found: list[Reader] = []
    for node, index in view.readers[tensor]:
        if node.op_type == "Conv" and index == 0 and _own(view, node.input[1]):
            weight = _constant(view, node.input[1])
            groups = int(attribute(node, "group", 1))
            if weight.ndim != 4 or (groups > 1 and (weight.shape[1] != 1 or groups != len(weight))):
                return None
            found.append(Reader(node, offset, groups > 1))
            continue
        further: list[Reader] | None = None
        if node.op_type == "Concat" and attribute(node, "axis", 0) == 1 and all(n in channels for n in node.input):
            before = sum(channels[n] for n in node.input[:index])
            further = _readers(view, channels, node.output[0], offset + before)
        elif node.op_type in POOLS and (node.op_type != "Resize" or copies(node)):
            further = _readers(view, channels, node.output[0], offset)
        if further is None:
            return None
        found += further
    return found


def loudness(model: ModelProto, tensors: list[str], feeds: Iterable[F32]) -> dict[str, F32]:
    """Tensor → (channels,) mean over pictures of the channel's largest magnitude."""
    session = tapped(model, tensors)
    feed = session.get_inputs()[0].name
    peaks = [[np.abs(v).max((0, 2, 3)) for v in session.run(tensors, {feed: x})] for x in feeds]
    return {name: np.mean(rows, axis=0) for name, rows in zip(tensors, zip(*peaks, strict=True), strict=True)}


def factors(loud: F32, readers: Iterable[tuple[F32, Reader]]) -> F32:
    """(channels,) by which the first convolution's channels are divided, at most 1; 1 for silent ones."""
    strong = np.zeros_like(loud)
    for weight, reader in readers:
        if not reader.depthwise:
            rows = slice(reader.offset, reader.offset + len(loud))
            strong = np.maximum(strong, np.abs(weight[:, rows]).max((0, 2, 3)))
    wanted = np.sqrt(loud / np.maximum(strong, 1e-12)) if strong.any() else loud
    wanted = wanted / max(float(wanted.max()), 1e-12)
    result: F32 = np.where(loud > 0, np.clip(wanted, LEAST, 1), 1).astype(np.float32)
    return result


def _channels(model: ModelProto) -> dict[str, int]:
    inferred = shape_inference.infer_shapes(model).graph
    dims = {v.name: v.type.tensor_type.shape.dim for v in (*inferred.value_info, *inferred.output, *inferred.input)}
    return {name: d[1].dim_value for name, d in dims.items() if len(d) == 4 and d[1].dim_value > 0}


def _own(view: View, name: str) -> bool:
    """Whether a weight is a constant that one node alone reads."""
    return name in view.constants and len(view.readers[name]) == 1


def _constant(view: View, name: str) -> F32:
    value = view.constant(name)
    assert value is not None
    return value


def _store(view: View, name: str, value: F32) -> None:
    view.constants[name].CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))
