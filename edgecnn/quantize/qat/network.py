"""A prepared ONNX graph that torch runs and differentiates, exact or with the rounding of INT8.

Rounding is where `insert` would put a Q/DQ pair, with its scales, and gradients pass straight through it: Jacob et al.
2018, arXiv:1712.05877, section 3. Activation scales are learned: their gradient is that of Esser et al. 2020 (LSQ),
arXiv:1902.08153, equation 3. Weight scales follow the weights. Batch normalisation is folded already.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from onnx import ModelProto, helper, numpy_helper
from torch import Tensor

from edgecnn.errors import ModelError
from edgecnn.quantize.cpu import TOP, finer, unsigned
from edgecnn.quantize.graph import View
from edgecnn.quantize.insert import KERNELS, LEVELS, Plan
from edgecnn.quantize.qat.ops import OPERATORS, Attributes, Unsupported

LOWEST, HIGHEST = -128, LEVELS
Form = Literal["tensorrt", "cpu"]


class Rounded(torch.autograd.Function):
    """What a Q/DQ pair makes of an activation: round(x / scale), from `lowest` to `highest`, times scale."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, lowest: int = LOWEST, highest: int = HIGHEST) -> Tensor:
        y = (x / scale).round_().clamp_(lowest, highest).mul_(scale)
        ctx.save_for_backward(x, y, scale)
        ctx.limits = lowest, highest
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """To x where it does not clip; to the scale (y - x) / scale there and y / scale elsewhere, summed."""
        x, y, scale = ctx.saved_tensors
        (gradient,) = gradients
        low, high = (float(scale) * limit for limit in ctx.limits)
        inside = torch.ops.aten.hardtanh_backward(gradient, x, low, high)  # one pass; two comparisons take four
        return inside, (_dot(gradient, y) - _dot(inside, x)) / scale, None, None


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The sum of products, without a tensor to hold them where both lie in memory alike."""
    if a.ndim == 4 and a.is_contiguous(memory_format=torch.channels_last):
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)
    return torch.dot(a.reshape(-1), b.reshape(-1))


def rounded_weight(weight: Tensor, bias: Tensor | None, x_scale: Tensor) -> Tensor:
    """(outputs, ...) as its pair leaves it: `insert.weight_scales`, in torch. All of the gradient passes."""
    with torch.no_grad():
        amax = weight.reshape(len(weight), -1).abs().amax(1)
        least = torch.full_like(amax, 1e-9) if bias is None else bias.abs() / x_scale / 2**30 + 1e-9
        scale = torch.maximum(amax / LEVELS, least).reshape(-1, *[1] * (weight.ndim - 1))
        shift = (weight / scale).round_().clamp_(LOWEST, HIGHEST).mul_(scale).sub_(weight)
    return weight + shift


class Network:
    """The graph. `weights`: parameters of Conv and Gemm by their names in the graph; `growth`: those of the scales, one
    a group of tied tensors, as logarithms of the factor since the start: a step is relative, none becomes negative."""

    def __init__(self, model: ModelProto) -> None:
        """Raises ModelError naming the node for an operator that is not in `ops`."""
        self.model, view = model, View(model)
        self.input = model.graph.input[0].name
        self.outputs = [output.name for output in model.graph.output]
        self.constants = {name: torch.from_numpy(numpy_helper.to_array(t).copy()) for name, t in view.constants.items()}
        self.weights: dict[str, Tensor] = {}
        for node in model.graph.node:
            if node.op_type not in OPERATORS:
                raise ModelError(
                    f"quantize.qat can't train node {node.name}, a {node.op_type}",
                    wanted=f"operators among {', '.join(OPERATORS)}",
                    do="Leave qat out of the recipe",
                )
            if node.op_type in KERNELS:
                self.weights |= {n: self.constants[n] for n in node.input[1:] if n in self.constants}
        self.attributes: dict[str, Attributes] = {}
        for node in model.graph.node:
            found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            found = {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}
            self.attributes[node.name] = found | {"outputs": len(node.output)}
        self.forms: dict[Form, dict[tuple[str, int], str]] = {}  # (node, input) -> whose quantised form it reads
        self.kernels: frozenset[str] = frozenset()
        self.unsigned: frozenset[str] = frozenset()
        self.finer: frozenset[str] = frozenset()
        self.group: dict[str, str] = {}  # tensor -> the first of those that share its scale
        self.start: dict[str, Tensor] = {}  # of each group: the scale before training
        self.growth: dict[str, Tensor] = {}
        last = {name: node.name for node in model.graph.node for name in node.input}
        self.last = {name: node for name, node in last.items() if name not in self.outputs}

    def quantise(self, plan: Plan, scale: Mapping[str, float]) -> None:
        """Learn to round as both INT8 files do. Tensors of one tie and one scale stay together."""
        points = {reader: tensor for tensor, readers in plan.points.items() for reader in readers}
        own = {reader: tensor for tensor, readers in plan.cpu_points.items() for reader in readers}
        self.forms = {"tensorrt": points, "cpu": {**points, **own}}
        self.unsigned, self.finer = unsigned(self.model, plan), finer(self.model, plan)
        self.kernels = frozenset(plan.kernels)
        self.group = {name: name for name in plan.tensors}
        for tie in plan.ties:
            for name in tie[1:]:
                old, new = self.group[name], self.group[tie[0]]
                if scale[name] == scale[tie[0]]:
                    self.group = {n: new if g == old else g for n, g in self.group.items()}
        firsts = dict.fromkeys(self.group.values())
        self.start = {name: torch.tensor(scale[name], dtype=torch.float32) for name in firsts}
        self.growth = {name: torch.tensor(0.0) for name in firsts}

    def scale(self, tensor: str) -> Tensor:
        first = self.group[tensor]
        return self.start[first] * self.growth[first].exp()

    def rounded(self, tensor: str, x: Tensor, form: Form) -> Tensor:
        scale, limits = self.scale(tensor), (LOWEST, HIGHEST)
        if form == "cpu" and tensor in self.unsigned:
            limits = 0, TOP
            scale = scale * (LEVELS / TOP) if tensor in self.finer else scale
        y: Tensor = Rounded.apply(x, scale, *limits)  # type: ignore[no-untyped-call]
        return y

    def scales(self) -> dict[str, float]:
        return {name: float(self.scale(name).detach()) for name in self.group}

    def __call__(self, x: Tensor, form: Form | None = None) -> list[Tensor]:
        """(B, C, H, W) → the graph's outputs, in order: exact, or rounded as one of the INT8 files.

        Raises ModelError for a variant of an operator that is not in `ops`, or where memory is short.
        """
        values: dict[str, Any] = {**self.constants, **self.weights, self.input: x}
        rounded: dict[str, Tensor] = {}
        pairs = self.forms[form] if form else {}
        for node in self.model.graph.node:
            inputs: list[Any] = [values[name] if name else None for name in node.input]
            for index, name in enumerate(node.input):
                tensor = pairs.get((node.name, index))
                if form and tensor is not None:
                    if tensor not in rounded:
                        rounded[tensor] = self.rounded(tensor, values[name], form)
                    inputs[index] = rounded[tensor]
            if form and node.name in self.kernels:
                x_scale = self.scale(pairs[node.name, 0]).detach()
                inputs[1] = rounded_weight(inputs[1], inputs[2] if len(inputs) > 2 else None, x_scale)
            try:
                made = OPERATORS[node.op_type](self.attributes[node.name], inputs)
            except (Unsupported, RuntimeError, IndexError) as error:
                raise ModelError(
                    f"quantize.qat can't run node {node.name}, a {node.op_type} ({str(error).splitlines()[0]})",
                    do="Leave qat out of the recipe; where memory was short, lower quantize.qat.batch",
                ) from error
            values.update(zip(node.output, made if isinstance(made, tuple) else (made,), strict=True))
            for name in node.input:
                if self.last.get(name) == node.name:  # else all of the teacher's tensors would lie in memory
                    values.pop(name, None)
                    rounded.pop(name, None)
        return [values[name] for name in self.outputs]

    def to_onnx(self) -> ModelProto:
        """A copy of the float graph with the weights as they are now."""
        result = ModelProto()
        result.CopyFrom(self.model)
        for tensor in result.graph.initializer:
            if tensor.name in self.weights:
                value = self.weights[tensor.name].detach().numpy()
                tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), tensor.name))
        return result
