"""Quantize: FP32 ONNX → INT8 in TensorRT's form, and the same scales for onnxruntime on a CPU.

model.int8.onnx      FP32-typed Q/DQ, int8, zero point 0: what TensorRT 8 to 11 and TensorRT for RTX read
model.int8.cpu.onnx  unsigned activations, int8 weights: what onnxruntime runs fast
ranges.json          the magnitude of every quantised tensor that becomes level 127; the corrections of the biases
histograms.json      how the magnitudes of every such tensor are spread
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgecnn.bundle import Bundle, sha256
from edgecnn.errors import MissingDependency

if TYPE_CHECKING:
    from edgecnn.recipe import Recipe

VERSION = 6


def settings(recipe: Recipe) -> dict[str, Any]:
    """The recipe's `quantize` section, its files by content."""
    section = recipe.quantize
    chosen: dict[str, Any] = section.model_dump(mode="json", exclude={"calibration", "data", "ranges_from", "qat"})
    for key, path in (("calibration", section.calibration), ("ranges_from", section.ranges_from)):
        if path is not None:
            chosen[key] = sha256(path) if path.is_file() else "missing"
    if section.calibration is None:
        chosen["data"] = section.data.model_dump(mode="json")
    if section.qat is not None:  # a bundle without it keeps its key
        chosen["qat"] = section.qat.model_dump(mode="json")
    return chosen


def run_stage(bundle: Bundle, recipe: Recipe) -> Bundle:
    """Write both INT8 files and the ranges. Raises InputError, RecipeError, ModelError."""
    try:
        from edgecnn.quantize.stage import quantize_bundle
    except ModuleNotFoundError as error:
        raise MissingDependency(f"{error.name} is not installed", do="Run: pip install 'edgecnn[desk]'") from error

    return quantize_bundle(bundle, recipe, settings(recipe), VERSION)
