"""A bundle's network typed in FP16, and how far its answers are from those of the network as it was."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn import onnxfile
from edgecnn.build.half import emulated, half
from edgecnn.build.lint.parity import compare
from edgecnn.bundle import Bundle, ModelSpec
from edgecnn.errors import BuildError
from edgecnn.progress import note

SQUARE = 16  # px
NO_NOISE_DB = 999.0  # JSON has no infinity


def strongly(dialect: str, version: str) -> bool:
    """Whether FP16 is asked for by types in the graph: TensorRT for RTX, and TensorRT from 10 on.

    `version`: of TensorRT; "" where none is here, and nothing can be built.
    """
    return dialect == "rtx" or not version.startswith("8.")


def typed(bundle: Bundle, source: Path) -> tuple[dict[str, Any], bytes]:
    """Figures about a network typed in FP16, and the network's bytes.

    The figures: how many nodes compute in FP16, which stay in FP32 and why; signal over noise against the FP32 network
    (dB, worst output, three pictures of random squares, kernels that sum up in FP32) with FP16 and before. Raises
    BuildError where it overflows.
    """
    before = onnxfile.read(source)
    reference = onnxfile.read(bundle.file("fp32")) if bundle.has("fp32") else before
    amax = json.loads(bundle.file("ranges").read_text("utf-8"))["amax"] if bundle.has("ranges") else {}
    found = half(before, amax)
    pictures = _pictures(bundle.require_model())
    was, now = (compare(reference, model, pictures, 0).sqnr_db for model in (before, emulated(found.model)))
    if now == -math.inf:
        raise BuildError("the network's answers overflow in FP16", do="Build it with `precision: int8`")
    note(str(found))
    facts = {
        "nodes": found.nodes,
        "kept_fp32": dict(found.kept),
        "sqnr_db": round(min(now, NO_NOISE_DB), 1),
        "sqnr_before_db": round(min(was, NO_NOISE_DB), 1),
    }
    return facts, found.model.SerializeToString(deterministic=True)


def _pictures(model: ModelSpec) -> list[dict[str, NDArray[Any]]]:
    """Three of random squares, as the preprocess delivers pictures; seeds 0, 1, 2."""
    _, channels, height, width = model.input.shape
    made: list[dict[str, NDArray[Any]]] = []
    for seed in range(3):
        few = np.random.default_rng(seed).integers(0, 256, (1, channels, -(-height // SQUARE), -(-width // SQUARE)))
        picture = few.repeat(SQUARE, 2).repeat(SQUARE, 3)[..., :height, :width].astype(model.input.dtype)
        if model.input.dtype == "float32":
            mean, std = (np.array(v[:channels], np.float32).reshape(-1, 1, 1) for v in (model.mean, model.std))
            picture = (picture - mean) / std
        made.append({model.input.name: picture})
    return made
