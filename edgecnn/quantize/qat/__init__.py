"""Quantisation-aware training: the float network's weights, biases and scales, fine-tuned under the rounding of INT8.

The network is the prepared ONNX graph itself, run by torch (`ops`, `network`), with a rounding wherever the INT8 file
has a Q/DQ pair. Its teacher is the FP32 network (`loss`), so no labels are needed, and a zoo model, a detector and a
user's own ONNX are tuned alike (`train`). This file loads no torch: the stage reads it whether or not a recipe asks for
qat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from onnx import ModelProto

from edgecnn.quantize.insert import Plan


@dataclass(frozen=True)
class Tuned:
    """What training came to."""

    model: ModelProto  # the float graph with the trained weights and biases
    scale: dict[str, float]  # tensor -> scale
    better: bool  # whether any epoch was better than the start; if not, model and scale are the start's
    facts: Mapping[str, Any]


class Tune(Protocol):
    def __call__(self, model: ModelProto, start: ModelProto, plan: Plan, scale: Mapping[str, float]) -> Tuned:
        """`model`: the prepared FP32 graph, the teacher. `start`: the same with corrected biases, to be trained."""
