"""One large convolution as several small ones: a stack of 3x3, a column and a row, or depthwise and 1x1."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgecnn.bundle import LayerSpec, ModelSpec
from edgecnn.recipe import FactorizeStep
from edgecnn.slim.lowrank import POINT, truncated
from edgecnn.slim.pick import Layer, swap_layers
from edgecnn.zoo.layers import describe

ROUNDS, STEPS = 10, 20  # of the alternating least squares of `split`; gradient steps in each
RIDGE = 1e-9  # of the largest entry on the diagonal: kernels that do nothing must not stop the solver


def factorized(net: nn.Module, spec: ModelSpec, step: FactorizeStep) -> tuple[nn.Module, ModelSpec, str]:
    """A copy with its larger convolutions factorised. Layers that would not get smaller are passed over.

    stack: 5x5 to two 3x3, 7x7 to three, ReLU between (Szegedy et al. 2015, arXiv:1512.00567, section 3.1): 27C² weights
    for 49C². The field stays; the last 3x3 has the stride. See `stack_weights` for the start.
    spatial: kxk to kx1 and 1xk with nothing between (Jaderberg et al. 2014, arXiv:1405.3866, scheme 2): the least error
    in the weights that so many channels between them allow.
    separable: depthwise kxk and 1x1 with nothing between (Sifre 2014; Howard et al. 2017, arXiv:1704.04861): the least
    error in the weights as well.
    Raises ModelError if a layer that is named in full does not fit, or none does.
    """
    match step.form:
        case "stack":
            return swap_layers(net, spec, step.layers, stack_layers, stack_weights, "factorize stack")
        case "spatial":
            return swap_layers(net, spec, step.layers, spatial_layers, spatial_weights, "factorize spatial")
        case "separable":
            return swap_layers(net, spec, step.layers, separable_layers, separable_weights, "factorize separable")


def between(conv: nn.Conv2d) -> int:
    """Channels between two factors: the geometric mean of inputs and outputs, as in arXiv:1512.00567, section 3.1.

    In eights a group unless inputs and outputs agree.
    """
    inputs, outputs = conv.in_channels // conv.groups, conv.out_channels // conv.groups
    if inputs == outputs:
        return conv.in_channels
    return conv.groups * max(8, round(math.sqrt(inputs * outputs) / 8) * 8)


def stack_layers(layer: Layer) -> tuple[LayerSpec, ...] | str:
    if isinstance(layer, nn.Linear) or layer.kernel_size not in ((5, 5), (7, 7)):
        return "is neither 5x5 nor 7x7"
    own, middle = describe(layer), between(layer)
    count = own.kernel[0] // 2
    layers: list[LayerSpec] = []
    for i in range(count):
        last = i == count - 1
        # the padding is shared out: a pixel a convolution where the map keeps its size
        top, left = (p // count + (i < p % count) for p in own.padding)
        conv = describe(
            layer,
            inputs=own.inputs if i == 0 else middle,
            outputs=own.outputs if last else middle,
            kernel=(3, 3),
            stride=own.stride if last else (1, 1),
            padding=(top, left),
            bias=own.bias or not last,
        )
        layers += [conv] if last else [conv, LayerSpec("relu")]
    return tuple(layers)


def stack_weights(weight: Tensor, layers: tuple[LayerSpec, ...]) -> tuple[Tensor, ...]:
    """3x3 kernels whose composition comes near to the large one, all but the last without negative weights.

    What goes into a convolution has mostly been through a ReLU, and a kernel without negative weights keeps it from
    being negative: the ReLU between lets everything pass, and the stack answers as the composition does.
    """
    weights, rest = [], weight
    for layer in layers[:-1]:
        if layer.kind == "conv":
            first, rest = split(rest, layer.outputs // layer.groups)
            weights.append(first)
    return *weights, rest


def split(weight: Tensor, middle: int) -> tuple[Tensor, Tensor]:
    """3x3 (middle, in, 3, 3) without negative weights, and the rest (out, middle, k-2, k-2), of one kxk kernel.

    Alternating least squares: the rest in closed form, the 3x3 by projected gradient (Lin 2007, Neural Computation
    19(10)). The error of the composition never grows, but this is a good point, not the best one.
    """
    outputs, inputs, k, _ = weight.shape
    rest = k - 2
    first = 0.1 * torch.rand(middle, inputs, 3, 3, dtype=weight.dtype, generator=torch.Generator().manual_seed(0))
    for m in range(middle):  # each starts as one input, at its centre first
        first[m, m % inputs].view(-1)[(4 + m // inputs) % 9] += 1
    second = _least(_shifted(first, rest), weight.flatten(1))
    for _ in range(ROUNDS):
        taps = _shifted(second.reshape(outputs, middle, rest, rest).transpose(0, 1), 3)
        gram, aim = taps @ taps.T, taps @ weight.transpose(0, 1).flatten(1).T
        pace = 1 / torch.linalg.eigvalsh(gram)[-1].clamp_min(torch.finfo(weight.dtype).tiny)
        flat = first.transpose(0, 1).flatten(1).T  # (middle, 3, 3) by inputs
        for _ in range(STEPS):
            flat = (flat - pace * (gram @ flat - aim)).clamp_min(0)
        first = flat.T.reshape(inputs, middle, 3, 3).transpose(0, 1)
        second = _least(_shifted(first, rest), weight.flatten(1))
    return first.contiguous(), second.reshape(outputs, middle, rest, rest)


def _shifted(kernels: Tensor, size: int) -> Tensor:
    """Kernels (a, b, n, n) at every shift within (n+size-1)²: the rows of (a·size², b·(n+size-1)²).

    A composition of two convolutions is linear in each: coefficients of the one times these rows of the other.
    """
    a, b, n, _ = kernels.shape
    rows = kernels.new_zeros(a, size, size, b, n + size - 1, n + size - 1)
    for y in range(size):
        for x in range(size):
            rows[:, y, x, :, y : y + n, x : x + n] = kernels
    return rows.flatten(3).flatten(0, 2)


def _least(rows: Tensor, wanted: Tensor) -> Tensor:
    """The X with X @ rows nearest to `wanted`."""
    gram = rows @ rows.T
    gram.diagonal().add_(RIDGE * gram.diagonal().max())
    x: Tensor = torch.linalg.solve(gram, rows @ wanted.T).T
    return x


def spatial_layers(layer: Layer) -> tuple[LayerSpec, ...] | str:
    if isinstance(layer, nn.Linear) or 1 in layer.kernel_size:
        return "has no kernel of two dimensions"
    own = describe(layer)
    (kh, kw), (sh, sw), (ph, pw) = own.kernel, own.stride, own.padding
    # no more than the rank of what is approximated
    middle = min(between(layer), kh * own.inputs, kw * own.outputs)
    column = describe(layer, outputs=middle, kernel=(kh, 1), stride=(sh, 1), padding=(ph, 0), bias=False)
    return column, describe(layer, inputs=middle, kernel=(1, kw), stride=(1, sw), padding=(0, pw))


def spatial_weights(weight: Tensor, layers: tuple[LayerSpec, ...]) -> tuple[Tensor, Tensor]:
    """The truncated SVD of the unfolding (outputs and columns) by (inputs and rows)."""
    outputs, inputs, height, width = weight.shape
    rank = layers[0].outputs // layers[0].groups
    first, second = truncated(weight.permute(0, 3, 1, 2).reshape(outputs * width, inputs * height), rank)
    row = second.reshape(outputs, width, rank).transpose(1, 2)[:, :, None, :]
    return first.reshape(rank, inputs, height, 1), row.contiguous()


def separable_layers(layer: Layer) -> tuple[LayerSpec, ...] | str:
    if isinstance(layer, nn.Linear) or layer.kernel_size == (1, 1):
        return "is 1x1 already"
    inputs = layer.in_channels
    return describe(layer, outputs=inputs, groups=inputs, bias=False), describe(layer, **POINT)


def separable_weights(weight: Tensor, layers: tuple[LayerSpec, ...]) -> tuple[Tensor, Tensor]:
    """For each input channel the nearest matrix of rank one, outputs by places: one kernel, and how much of it."""
    _, inputs, height, width = weight.shape
    pairs = [truncated(weight[:, i].flatten(1), 1) for i in range(inputs)]
    kernels = torch.stack([kernel.reshape(1, height, width) for kernel, _ in pairs])
    return kernels, torch.cat([share for _, share in pairs], 1)[:, :, None, None]
