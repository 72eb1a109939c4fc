"""A torch network as an ONNX file, traced on one input; batch normalisation is folded into the convolutions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn


def trace(
    net: nn.Module,
    shape: tuple[int, ...],
    path: Path,
    opset: int,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
) -> None:
    """Write `path` for an input of `shape` (N, C, H, W); `inputs`, `outputs`: what the tensors are to be called."""
    with warnings.catch_warnings():
        # the tracing exporter is on its way out, but needs no further package and keeps the graph plain
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(),
            (torch.zeros(shape),),
            str(path),
            input_names=inputs,
            output_names=outputs,
            opset_version=opset,
            do_constant_folding=True,
            dynamo=False,
        )
