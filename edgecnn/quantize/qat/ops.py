"""ONNX operators in torch, on batches of any size. One small function an operator, after ONNX's own text
(https://onnx.ai/onnx/operators), opset 13 and later; what an operator's variant needs and torch has not is refused.

A graph that was made for one picture may hold the 1 in a Reshape: there, a leading 1 stands for the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Attributes = dict[str, Any]  # `outputs`: how many the node has, beside the node's own
Operator = Callable[[Attributes, list[Any]], Any]  # attributes, inputs (None: left out) → an output, or a tuple

TYPES = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool}  # TensorProto.DataType


class Unsupported(ValueError):
    """A variant of an operator that is not here; the text says which."""


def _pads(a: Attributes, x: Tensor, kernel: list[int]) -> list[int]:
    """top, left, bottom, right."""
    auto = a.get("auto_pad", "NOTSET")
    if auto == "NOTSET":
        return list(a.get("pads", (0, 0, 0, 0)))
    if auto == "VALID":
        return [0, 0, 0, 0]
    before, after = [], []
    strides, dilations = a.get("strides", (1, 1)), a.get("dilations", (1, 1))
    for n, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max((math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0)
        small, large = total // 2, total - total // 2
        before.append(large if auto == "SAME_LOWER" else small)
        after.append(small if auto == "SAME_LOWER" else large)
    return before + after


def _window(a: Attributes, x: Tensor, kernel: list[int], fill: float) -> tuple[Tensor, tuple[int, int]]:
    """The input, and how much padding is left for torch to do: what is not the same on both sides is done here."""
    if x.ndim != 4:
        raise Unsupported(f"an input of {x.ndim} axes")
    top, left, bottom, right = _pads(a, x, kernel)
    if (top, left) == (bottom, right):
        return x, (top, left)
    return F.pad(x, (left, right, top, bottom), value=fill), (0, 0)


def _conv(a: Attributes, v: list[Any]) -> Tensor:
    x, w, b = v[0], v[1], v[2] if len(v) > 2 else None
    x, padding = _window(a, x, list(w.shape[2:]), 0.0)
    return F.conv2d(x, w, b, a.get("strides", 1), padding, a.get("dilations", 1), a.get("group", 1))


def _conv_transpose(a: Attributes, v: list[Any]) -> Tensor:
    x, w, b = v[0], v[1], v[2] if len(v) > 2 else None
    top, left, bottom, right = a.get("pads", (0, 0, 0, 0))
    if (top, left) != (bottom, right) or "output_shape" in a or a.get("auto_pad", "NOTSET") != "NOTSET":
        raise Unsupported("pads that differ, or follow from the output's shape")
    more, group = a.get("output_padding", (0, 0)), a.get("group", 1)
    return F.conv_transpose2d(x, w, b, a.get("strides", 1), (top, left), more, group, a.get("dilations", 1))


def _gemm(a: Attributes, v: list[Any]) -> Tensor:
    x, w = v[0].T if a.get("transA", 0) else v[0], v[1].T if a.get("transB", 0) else v[1]
    y: Tensor = (x @ w) * a.get("alpha", 1.0)
    return y if len(v) < 3 or v[2] is None else y + v[2] * a.get("beta", 1.0)


def _max_pool(a: Attributes, v: list[Any]) -> Tensor:
    kernel, ceil = list(a["kernel_shape"]), bool(a.get("ceil_mode", 0))
    x, padding = _window(a, v[0], kernel, -math.inf)
    if a["outputs"] > 1 or (ceil and padding != (0, 0) and x is not v[0]):
        raise Unsupported("indices, or ceil_mode with pads that differ")
    if any(p > k // 2 for p, k in zip(padding, kernel, strict=True)):
        raise Unsupported("pads of more than half a kernel")
    return F.max_pool2d(x, kernel, a.get("strides", (1, 1)), padding, a.get("dilations", 1), ceil)


def _average_pool(a: Attributes, v: list[Any]) -> Tensor:
    kernel, inside = list(a["kernel_shape"]), bool(a.get("count_include_pad", 0))
    x, padding = _window(a, v[0], kernel, 0.0)
    if x is not v[0] and not inside:
        raise Unsupported("pads that differ and don't count")
    return F.avg_pool2d(x, kernel, a.get("strides", (1, 1)), padding, bool(a.get("ceil_mode", 0)), inside)


def _axes(a: Attributes, v: list[Any], rank: int) -> list[int]:
    """An attribute once, an input since; none: all."""
    if len(v) > 1 and v[1] is not None:
        return _list(v[1])
    return list(a.get("axes", range(rank)))


def _list(x: Tensor) -> list[int]:
    return [int(n) for n in x.tolist()]


def _reshape(_: Attributes, v: list[Any]) -> Tensor:
    x, shape = v[0], _list(v[1])
    shape = [x.shape[i] if n == 0 else n for i, n in enumerate(shape)]
    if shape and shape[0] == 1 and x.is_floating_point():
        shape[0] = x.shape[0]
    y: Tensor = x.reshape(shape)
    return y


def _flatten(a: Attributes, v: list[Any]) -> Tensor:
    axis = a.get("axis", 1) % (v[0].ndim + 1)
    y: Tensor = v[0].reshape(math.prod(v[0].shape[:axis]), -1)
    return y


def _squeeze(a: Attributes, v: list[Any]) -> Tensor:
    axes = _axes(a, v, 0)
    if not axes:
        raise Unsupported("no axes")
    y: Tensor = v[0].squeeze(tuple(axes))
    return y


def _unsqueeze(a: Attributes, v: list[Any]) -> Tensor:
    x, axes = v[0], _axes(a, v, 0)
    for axis in sorted(n % (x.ndim + len(axes)) for n in axes):
        x = x.unsqueeze(axis)
    return x  # type: ignore[no-any-return]


def _slice(_: Attributes, v: list[Any]) -> Tensor:
    x, starts, ends = v[0], _list(v[1]), _list(v[2])
    axes = _list(v[3]) if len(v) > 3 and v[3] is not None else list(range(len(starts)))
    steps = _list(v[4]) if len(v) > 4 and v[4] is not None else [1] * len(starts)
    if min(steps) < 1:
        raise Unsupported("a step backwards")
    place = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        place[axis] = slice(start, end, step)
    return x[tuple(place)]  # type: ignore[no-any-return]


def _split(a: Attributes, v: list[Any]) -> tuple[Tensor, ...]:
    x, axis = v[0], a.get("axis", 0)
    sizes = _list(v[1]) if len(v) > 1 and v[1] is not None else -(-x.shape[axis] // a["outputs"])
    return tuple(torch.split(x, sizes, axis))


def _resize(a: Attributes, v: list[Any]) -> Tensor:
    x = v[0]
    if len(v) > 3 and v[3] is not None:
        size = _list(v[3])[2:]
    else:
        size = [math.floor(n * s) for n, s in zip(x.shape[2:], v[2].tolist()[2:], strict=True)]
    mode, where = a.get("mode", "nearest"), a.get("coordinate_transformation_mode", "half_pixel")
    whole = all(n % m == 0 for n, m in zip(size, x.shape[2:], strict=True))
    if mode == "nearest" and (whole or (where == "asymmetric" and a.get("nearest_mode") == "floor")):
        return F.interpolate(x, size, mode="nearest")
    if mode == "linear" and where in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return F.interpolate(x, size, mode="bilinear", align_corners=where == "align_corners")
    raise Unsupported(f"{mode} by {where}")


def _pad(a: Attributes, v: list[Any]) -> Tensor:
    x, pads = v[0], _list(v[1])
    if a.get("mode", "constant") != "constant" or (len(v) > 3 and v[3] is not None):
        raise Unsupported(f"mode {a.get('mode')}, or axes")
    pairs = list(zip(pads[: x.ndim], pads[x.ndim :], strict=True))
    value = float(v[2]) if len(v) > 2 and v[2] is not None else 0.0
    return F.pad(x, [n for pair in reversed(pairs) for n in pair], value=value)


def _reduced(a: Attributes, v: list[Any], how: Callable[..., Tensor]) -> Tensor:
    return how(v[0], tuple(_axes(a, v, v[0].ndim)), bool(a.get("keepdims", 1)))


def _clip(_: Attributes, v: list[Any]) -> Tensor:
    low, high = (v[i] if len(v) > i else None for i in (1, 2))
    return v[0] if low is None and high is None else torch.clamp(v[0], low, high)


def _div(_: Attributes, v: list[Any]) -> Tensor:
    return v[0] / v[1] if v[0].is_floating_point() else torch.div(v[0], v[1], rounding_mode="trunc")


def _gather(a: Attributes, v: list[Any]) -> Tensor:
    x, index, axis = v[0], v[1], a.get("axis", 0) % v[0].ndim
    taken = x.index_select(axis, index.reshape(-1) % x.shape[axis])
    y: Tensor = taken.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])
    return y


def _cast(a: Attributes, v: list[Any]) -> Tensor:
    if a["to"] not in TYPES:
        raise Unsupported(f"to type {a['to']}")
    y: Tensor = v[0].to(TYPES[a["to"]])
    return y


def _norm(a: Attributes, v: list[Any]) -> Tensor:
    x, gain, shift, mean, variance = v
    return F.batch_norm(x, mean, variance, gain, shift, eps=a.get("epsilon", 1e-5))


OPERATORS: dict[str, Operator] = {
    "Add": lambda a, v: v[0] + v[1],
    "AveragePool": _average_pool,
    "BatchNormalization": _norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda a, v: torch.cat(v, a["axis"]),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Div": _div,
    "Elu": lambda a, v: F.elu(v[0], a.get("alpha", 1.0)),
    "Exp": lambda a, v: v[0].exp(),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda a, v: v[0].mean((2, 3), keepdim=True),
    "HardSigmoid": lambda a, v: (v[0] * a.get("alpha", 0.2) + a.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda a, v: F.hardswish(v[0]),
    "Identity": lambda a, v: v[0],
    "LRN": lambda a, v: F.local_response_norm(
        v[0], a["size"], a.get("alpha", 1e-4), a.get("beta", 0.75), a.get("bias", 1.0)
    ),
    "LeakyRelu": lambda a, v: F.leaky_relu(v[0], a.get("alpha", 0.01)),
    "MatMul": lambda a, v: v[0] @ v[1],
    "MaxPool": _max_pool,
    "Mish": lambda a, v: F.mish(v[0]),
    "Mul": lambda a, v: v[0] * v[1],
    "Neg": lambda a, v: -v[0],
    "PRelu": lambda a, v: torch.where(v[0] < 0, v[0] * v[1], v[0]),
    "Pad": _pad,
    "Pow": lambda a, v: v[0] ** v[1],
    "ReduceMean": lambda a, v: _reduced(a, v, torch.mean),
    "ReduceSum": lambda a, v: _reduced(a, v, torch.sum),
    "Relu": lambda a, v: v[0].relu(),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": lambda a, v: torch.tensor(v[0].shape[a.get("start", 0) : a.get("end")], dtype=torch.int64),
    "Sigmoid": lambda a, v: v[0].sigmoid(),
    "Slice": _slice,
    "Softmax": lambda a, v: v[0].softmax(a.get("axis", -1)),
    "Softplus": lambda a, v: F.softplus(v[0]),
    "Split": _split,
    "Sqrt": lambda a, v: v[0].sqrt(),
    "Squeeze": _squeeze,
    "Sub": lambda a, v: v[0] - v[1],
    "Tanh": lambda a, v: v[0].tanh(),
    "Transpose": lambda a, v: v[0].permute(a.get("perm", tuple(reversed(range(v[0].ndim))))),
    "Unsqueeze": _unsqueeze,
}
