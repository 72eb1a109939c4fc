"""What the steps that put other layers in place of some share: which layers, whether it pays, and the new spec."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TypeAlias

import torch
from torch import Tensor, nn

from edgecnn.bundle import LayerSpec, ModelSpec
from edgecnn.errors import ModelError
from edgecnn.zoo.count import Size, size, watch
from edgecnn.zoo.layers import apply_replaced, describe
from edgecnn.zoo.roadnet import Head

Layer: TypeAlias = nn.Conv2d | nn.Linear
Side: TypeAlias = tuple[int, int]  # height and width of a map; (1, 1) for a vector


@dataclass(frozen=True)
class Swap:
    """Layers for one place, and the tensors of those that have any, by `<index>.<name>` as in a Sequential."""

    layers: tuple[LayerSpec, ...]
    state: Mapping[str, Tensor]

    @classmethod
    def of(cls, layers: Sequence[LayerSpec], weights: Sequence[Tensor], old: Layer) -> Swap:
        """A chain of convolutions or linear layers; the last one takes over the old layer's bias, others start at 0."""
        state: dict[str, Tensor] = {}
        places = [i for i, layer in enumerate(layers) if layer.kind in ("conv", "linear")]
        for i, weight in zip(places, weights, strict=True):
            state[f"{i}.weight"] = weight.to(old.weight.dtype)
            if layers[i].bias:
                state[f"{i}.bias"] = old.weight.new_zeros(layers[i].outputs)
        if old.bias is not None:
            state[f"{places[-1]}.bias"] = old.bias
        return cls(tuple(layers), {name: tensor.detach() for name, tensor in state.items()})


def swap_layers(
    net: nn.Module,
    spec: ModelSpec,
    patterns: tuple[str, ...],
    plan: Callable[[Layer], tuple[LayerSpec, ...] | str],
    solve: Callable[[Tensor, tuple[LayerSpec, ...]], tuple[Tensor, ...]],
    title: str,
) -> tuple[nn.Module, ModelSpec, str]:
    """A copy with other layers wherever a pattern matches a convolution or linear layer, and it pays.

    `plan` says which layers come in place of one, or in a few words why none; `solve` gives their weights for one
    group's weight (outputs, inputs, height, width), with the layers as planned for all groups. A layer pays if both
    parameters and multiply-accumulates fall. Raises ModelError as `choose` does.
    """
    sides = input_sides(net, spec)
    plans: dict[str, tuple[LayerSpec, ...]] = {}

    def fits(name: str, layer: nn.Module) -> str:
        if reason := unfit(net, name, layer):
            return reason
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        if name not in sides:
            return "does not run"
        planned = plan(layer)
        if isinstance(planned, str):
            return planned
        was, now = cost((own_spec(layer),), sides[name]), cost(planned, sides[name])
        for kind, a, b in zip(("parameters", "multiply-accumulates"), was, now, strict=True):
            if b >= a:
                return f"would have {b:,} {kind} where it has {a:,}"
        plans[name] = planned
        return ""

    swaps: dict[str, Swap] = {}
    for name in choose(net, spec, patterns, fits):
        layer = net.get_submodule(name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        swaps[name] = Swap.of(plans[name], _solved(layer, plans[name], solve), layer)
    slim, described = install(net, spec, swaps)
    was, now = (size(each, spec.input.shape) for each in (net, slim))
    return slim, described, line(title, f"{len(swaps)} layers replaced", was, now)


def _solved(
    layer: Layer,
    layers: tuple[LayerSpec, ...],
    solve: Callable[[Tensor, tuple[LayerSpec, ...]], tuple[Tensor, ...]],
) -> list[Tensor]:
    """Group by group, in double precision: groups of a convolution share nothing."""
    weight = layer.weight.detach().double()
    if isinstance(layer, nn.Linear):
        return [each.flatten(1) for each in solve(weight[:, :, None, None], layers)]
    parts = [solve(part, layers) for part in weight.chunk(layer.groups)]
    return [torch.cat(same) for same in zip(*parts, strict=True)]


def choose(
    net: nn.Module, spec: ModelSpec, patterns: Iterable[str], fits: Callable[[str, nn.Module], str]
) -> list[str]:
    """Names of the layers that a pattern matches and that fit, in the network's order.

    `fits` gives "" or the reason why not. Raises ModelError if a layer that is named in full does not exist or does
    not fit, or if nothing fits.
    """
    leaves = {name: m for name, m in net.named_modules() if name and not list(m.children())}
    named = {p for p in patterns if not set(p) & set("*?[")}
    for name in sorted(named - set(leaves)):
        near = (difflib.get_close_matches(name, leaves, 1) or list(leaves))[0]
        raise ModelError(f"{spec.arch} has no layer '{name}'", wanted=f"such as '{near}'")
    chosen, passed = [], ""
    for name, layer in leaves.items():
        if not any(fnmatchcase(name, pattern) for pattern in patterns):
            continue
        reason = fits(name, layer)
        if not reason:
            chosen.append(name)
        elif name in named:
            raise ModelError(f"layer '{name}' of {spec.arch} {reason}", do="Leave it out of the step's `layers`")
        elif not passed and isinstance(layer, nn.Conv2d | nn.Linear):
            passed = f"{name} {reason}"
    if not chosen:
        raise ModelError(
            f"no layer of {spec.arch} fits {', '.join(patterns)}" + (f" (for one, {passed})" if passed else ""),
            do="Name other layers, or leave the step out",
        )
    return chosen


def unfit(net: nn.Module, name: str, layer: nn.Module) -> str:
    """Why no step may put other layers in the place of this one; "" if it may."""
    if type(layer) not in (nn.Conv2d, nn.Linear):
        return f"is a {type(layer).__name__}, no plain convolution or linear layer"
    if isinstance(net.get_submodule(name.rpartition(".")[0]), Head):
        return "is an output of the detector"
    if isinstance(layer, nn.Conv2d):
        if layer.dilation != (1, 1) or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            return "is dilated or padded with other than zeros"
        if layer.groups > 1 and layer.groups == layer.in_channels:
            return "is depthwise already"
    return ""


def own_spec(layer: Layer) -> LayerSpec:
    if isinstance(layer, nn.Conv2d):
        return describe(layer)
    return LayerSpec("linear", layer.in_features, layer.out_features, bias=layer.bias is not None)


def input_sides(net: nn.Module, spec: ModelSpec) -> dict[str, Side]:
    """Height and width of the map that goes into each convolution and linear layer."""
    sides: dict[str, Side] = {}

    def note(name: str, _layer: nn.Module, x: Tensor, _output: Tensor) -> None:
        sides[name] = (x.shape[2], x.shape[3]) if x.ndim == 4 else (1, 1)

    watch(net, spec.input.shape, note)
    return sides


def cost(layers: Sequence[LayerSpec], side: Side) -> tuple[int, int]:
    """Parameters (biases aside) and multiply-accumulates of layers in a row, on a map of `side`."""
    height, width = side
    parameters = macs = 0
    for layer in layers:
        if layer.kind not in ("conv", "linear"):
            continue
        (kh, kw), (sh, sw), (ph, pw) = layer.kernel, layer.stride, layer.padding
        height, width = (height + 2 * ph - kh) // sh + 1, (width + 2 * pw - kw) // sw + 1
        own = layer.inputs // layer.groups * layer.outputs * kh * kw
        parameters, macs = parameters + own, macs + own * height * width
    return parameters, macs


def install(net: nn.Module, spec: ModelSpec, swaps: Mapping[str, Swap]) -> tuple[nn.Module, ModelSpec]:
    """A copy with the new layers in place, and the spec that describes it: widths of what went are forgotten."""
    slim = copy.deepcopy(net)
    apply_replaced(slim, {name: swap.layers for name, swap in swaps.items()})
    for name, swap in swaps.items():
        slim.get_submodule(name).load_state_dict(swap.state)
    slim.train(net.training)
    gone = set(swaps)
    replaced = {n: layers for n, layers in spec.replaced.items() if not _within(n, gone)}
    widths = {n: width for n, width in spec.widths.items() if not _within(n, gone)}
    return slim, replace(spec, replaced={**replaced, **{n: s.layers for n, s in swaps.items()}}, widths=widths)


def _within(name: str, places: set[str]) -> bool:
    """Whether a layer lies at, or anywhere below, one of the places."""
    parts = name.split(".")
    return any(".".join(parts[:n]) in places for n in range(1, len(parts) + 1))


def rounded(channels: int, share: float, round_to: int) -> int:
    """A share of the channels as a multiple of `round_to`: at least one multiple, at most all of them."""
    if share == 1:
        return channels
    return min(channels, max(round_to, round(channels * share / round_to) * round_to))


def line(title: str, what: str, was: Size, now: Size) -> str:
    """A step's report line."""
    return (
        f"{title}: {what}; {was.parameters:,} parameters became {now.parameters:,}, "
        f"{was.macs:,} multiply-accumulates {now.macs:,} ({1 - now.macs / was.macs:.1%} less)"
    )
