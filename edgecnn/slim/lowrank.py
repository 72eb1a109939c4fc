"""Fewer channels inside a layer, by the best approximation of its weights: what fine-tuning starts from is as near to
the network before as its rank allows. Nearest means least squares of the weights, so for inputs of equal power that do
not depend on one another; no pictures are needed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgecnn.bundle import LayerSpec, ModelSpec
from edgecnn.recipe import LowRankStep, ReduceStep
from edgecnn.slim.pick import Layer, own_spec, rounded, swap_layers
from edgecnn.zoo.layers import describe

SWEEPS = 3  # of HOOI; further ones change the fourth digit of the error

POINT: dict[str, object] = {"kernel": (1, 1), "stride": (1, 1), "padding": (0, 0)}


def low_ranked(net: nn.Module, spec: ModelSpec, step: LowRankStep) -> tuple[nn.Module, ModelSpec, str]:
    """A copy whose convolutions are 1x1, kxk, 1x1 by Tucker-2 (Kim et al. 2015, arXiv:1511.06530, section 3.1), and
    whose 1x1 convolutions and linear layers are two by SVD (Denton et al. 2014, arXiv:1404.0736, section 3.2).

    A 1x1 that would keep all channels is left out: a first layer of three colours becomes kxk, 1x1. Layers that would
    not get smaller are passed over. Raises ModelError if a layer that is named in full does not fit, or none does.
    """

    def plan(layer: Layer) -> tuple[LayerSpec, ...] | str:
        return low_rank_layers(layer, step.rank, step.round_to)

    return swap_layers(net, spec, step.layers, plan, low_rank_weights, "low_rank")


def low_rank_layers(layer: Layer, rank: float, round_to: int) -> tuple[LayerSpec, ...] | str:
    """The chain in place of a layer, or why there is none; `rank` is the share of the channels that the core keeps."""
    own = own_spec(layer)
    groups = own.groups
    to = max(1, round_to // groups)
    inputs, outputs = (groups * rounded(n // groups, rank, to) for n in (own.inputs, own.outputs))
    if isinstance(layer, nn.Linear):
        inner = min(inputs, outputs)
        # with a bias, 0 at first: without one it would be exported as MatMul, which quantisation leaves float
        return LayerSpec("linear", own.inputs, inner), LayerSpec("linear", inner, own.outputs, bias=own.bias)
    if own.kernel == (1, 1):
        inner = min(inputs, outputs)
        return describe(layer, outputs=inner, bias=False), describe(layer, inputs=inner, **POINT)
    thin, thick = inputs < own.inputs, outputs < own.outputs
    if not thin and not thick:
        return "keeps all of its channels at this rank"
    core = describe(layer, inputs=inputs, outputs=outputs, bias=own.bias and not thick)
    before = (describe(layer, outputs=inputs, bias=False, **POINT),) if thin else ()
    after = (describe(layer, inputs=outputs, **POINT),) if thick else ()
    return *before, core, *after


def low_rank_weights(weight: Tensor, layers: tuple[LayerSpec, ...]) -> tuple[Tensor, ...]:
    """Weights of `low_rank_layers` for one group's weight (outputs, inputs, height, width)."""
    if weight.shape[2:] == (1, 1):
        first, second = truncated(weight[:, :, 0, 0], layers[0].outputs // layers[0].groups)
        return first[:, :, None, None], second[:, :, None, None]
    thin, thick = layers[0].kernel == (1, 1), layers[-1].kernel == (1, 1)
    core = layers[1 if thin else 0]
    before, middle, after = tucker2(weight, core.inputs // core.groups, core.outputs // core.groups)
    return (*((before,) if thin else ()), middle, *((after,) if thick else ()))


def truncated(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(rank, columns) and (rows, rank) whose product, second by first, is the nearest matrix of that rank.

    Eckart and Young 1936: the squared error is the sum of the squares of the singular values left out. The factors
    share the singular values evenly, so that neither has to be trained at another rate.
    """
    rows, columns = matrix.shape
    if rows > columns:
        first, second = truncated(matrix.T, rank)
        return second.T, first.T
    left = _leading(matrix, rank)
    right = left.T @ matrix  # rows: singular values times right vectors
    scale = right.norm(dim=1).clamp_min(torch.finfo(matrix.dtype).tiny).sqrt()
    return right / scale[:, None], left * scale


def tucker2(weight: Tensor, inputs: int, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of 1x1, kxk and 1x1 convolutions in a row that come near to one of (out, in, height, width).

    HOSVD, then a few sweeps of HOOI (De Lathauwer et al. 2000, SIAM J. Matrix Anal. 21(4), algorithm 4.2), which never
    makes the error larger. A mode that keeps all of its channels has the identity.
    """
    out, into = _leading(weight.flatten(1), outputs), _leading(weight.transpose(0, 1).flatten(1), inputs)
    for _ in range(SWEEPS):
        out = _leading(torch.einsum("oihw,ir->orhw", weight, into).flatten(1), outputs)
        into = _leading(torch.einsum("oihw,or->irhw", weight, out).flatten(1), inputs)
    core = torch.einsum("oihw,or,is->rshw", weight, out, into)
    return into.T[:, :, None, None], core, out[:, :, None, None]


def _leading(matrix: Tensor, rank: int) -> Tensor:
    """The first left singular vectors (rows, rank); all of them: the identity, which is as good and exact."""
    rows = len(matrix)
    if rank >= rows:
        return torch.eye(rows, dtype=matrix.dtype)
    _, vectors = torch.linalg.eigh(matrix @ matrix.T)  # a few hundred rows against thousands of columns
    leading: Tensor = vectors[:, -rank:].flip(1)
    return leading


def reduced(net: nn.Module, spec: ModelSpec, step: ReduceStep) -> tuple[nn.Module, ModelSpec, str]:
    """A copy with a 1x1 convolution to fewer channels before its larger ones, as GoogLeNet has (Szegedy et al. 2014,
    arXiv:1409.4842, section 5), but without the ReLU between: so that the start is the nearest to the layer before.

    Raises ModelError if a layer that is named in full does not fit, or none does.
    """

    def plan(layer: Layer) -> tuple[LayerSpec, ...] | str:
        if isinstance(layer, nn.Linear) or layer.kernel_size == (1, 1):
            return "is 1x1 already"
        groups = layer.groups
        kept = groups * rounded(layer.in_channels // groups, step.share, max(1, step.round_to // groups))
        if kept == layer.in_channels:
            return f"has {kept} inputs, none of which can go at this share"
        return describe(layer, outputs=kept, bias=False, **POINT), describe(layer, inputs=kept)

    return swap_layers(net, spec, step.layers, plan, reduced_weights, "reduce")


def reduced_weights(weight: Tensor, layers: tuple[LayerSpec, ...]) -> tuple[Tensor, Tensor]:
    """The truncated SVD of the unfolding by inputs: the least error that a 1x1 to so few channels can have."""
    outputs, inputs, height, width = weight.shape
    rank = layers[0].outputs // layers[0].groups
    first, second = truncated(weight.transpose(1, 3).reshape(-1, inputs), rank)
    return first[:, :, None, None], second.reshape(outputs, width, height, rank).transpose(1, 3).contiguous()
