"""What a network's layers say of a picture, read while it runs: every other file of this part starts here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from edgecnn.errors import ModelError

RELUS: set[Callable[..., Any]] = {F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}


@dataclass(frozen=True)
class Seen:
    """One pass of a batch through a network."""

    logits: Tensor  # (B, classes)
    maps: dict[str, Tensor]  # name of a convolution, as they ran -> its (B, C, H, W) maps after ReLU
    vector: Tensor  # (B, N): what the last fully connected layer is given; the logits where there is none
    rectified: bool  # whether the maps are those after ReLU


def look(net: nn.Module, x: Tensor, keep: Collection[str] | None = None) -> Seen:
    """Run (B, C, H, W) through a network in eval mode; of the maps only those in `keep`, or all.

    A convolution's maps are what the first ReLU after it gives, so batch normalisation and the shortcut of a residual
    block are in them; convolutions without one, such as those of projections, are left out. In a network without any
    ReLU they are what the convolutions give. On the way back, ReLU passes positive signals and no others: the rule of
    the deconvnet, which `edgecnn.explain.deconvnet` needs.
    """
    rectified: dict[str, Tensor] = {}
    plain: dict[str, Tensor] = {}
    vectors: list[Tensor] = []
    ran = [""]

    def after_convolution(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_layer: nn.Module, _inputs: Any, output: Tensor) -> None:
            ran[0] = name
            if keep is None or name in keep:
                plain[name] = output

        return hook

    def before_linear(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        vectors[:] = [inputs[0]]

    def after_relu(output: Tensor) -> None:
        if output.dim() == 4 and ran[0] in plain and ran[0] not in rectified:
            rectified[ran[0]] = output

    handles = []
    for name, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d):
            handles.append(layer.register_forward_hook(after_convolution(name)))
        elif isinstance(layer, nn.Linear):
            handles.append(layer.register_forward_pre_hook(before_linear))
    try:
        with _Rectifying(after_relu):
            logits: Tensor = net(x)
    finally:
        for handle in handles:
            handle.remove()
    if logits.dim() != 2:
        raise ModelError(f"the network gives an output of shape {tuple(logits.shape)}", wanted="(batch, classes)")
    return Seen(logits, rectified or plain, vectors[0].flatten(1) if vectors else logits, bool(rectified))


def ends(seen: Seen) -> tuple[str, str]:
    """Names of the first and the last layer that has maps. Raises ModelError if none has."""
    if not seen.maps:
        raise ModelError("the network has no convolutions to look at", wanted="a convolutional classifier")
    names = list(seen.maps)
    return names[0], names[-1]


def batches(x: Tensor, size: int = 16) -> Iterator[Tensor]:
    """A large batch in pieces that fit into memory."""
    yield from torch.split(x, size)


def masked(x: Tensor, boxes: Sequence[tuple[int, int, int, int]]) -> Tensor:
    """(1, C, H, W) → (len(boxes), C, H, W): one copy a box (x, y, width, height; px), grey in it.

    Grey is zero: the mean colour of the training pictures, which the preprocess has subtracted.
    """
    copies = x.repeat(len(boxes), 1, 1, 1)
    for copy, (left, top, width, height) in zip(copies, boxes, strict=True):
        copy[:, max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)] = 0
    return copies


class _Rectify(torch.autograd.Function):
    """ReLU forwards, and ReLU backwards too, whatever went forwards (Zeiler and Fergus, section 2.1)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> Tensor:
        return signal.clamp(min=0)


class _Rectifying(TorchFunctionMode):
    """Puts `_Rectify` in place of every ReLU that runs, module or function; in-place ones no longer overwrite maps."""

    def __init__(self, after: Callable[[Tensor], None]) -> None:
        super().__init__()
        self._after = after

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function not in RELUS:
            return function(*args, **(kwargs or {}))
        output = _Rectify.apply(args[0] if args else kwargs["input"])  # type: ignore[no-untyped-call]
        self._after(output)
        return output
