"""Whatever runs a network, behind one call: named arrays in, named arrays out. One file each, imported on opening.

Running never builds: a missing file is an error that names the command which makes it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from numpy.typing import NDArray

from edgecnn.bundle import Bundle, ModelSpec
from edgecnn.cpu import saturates
from edgecnn.engine import sms
from edgecnn.errors import BundleError, MissingDependency, ModelError

Array = NDArray[Any]
Precision = Literal["fp32", "int8", "openvino", "engine", "auto"]
FRAME = "frame"  # feed with the frame's index, () int64; a network does not ask for it, `replay` does


class Backend(Protocol):
    """A loaded network. `feeds` may hold more than it asks for; outputs come in the network's order.

    One instance serves one thread. The arrays that come back are the caller's.
    """

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]: ...


class TwoSizes:
    """The same network at its two input sizes: the picture's shape says which of them answers."""

    def __init__(self, model: ModelSpec, frame: Backend, regions: Backend) -> None:
        self._input, self._shape = model.input.name, model.input.shape
        self._frame, self._regions = frame, regions

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return (self._frame if feeds[self._input].shape == self._shape else self._regions)(feeds)


def open_backend(bundle: Bundle, precision: Precision = "auto", *, threads: int = 0) -> Backend:
    """Load the bundle's file for a precision (see `choose`), checked by its sha256, and hold its outputs against the
    decoder; a bundle with regions has two such files, see `TwoSizes`. `threads` counts for CPUs only; 0: every core but
    one, which is left to the picture decoder.

    Raises BundleError (file missing or changed), ModelError (shapes), MissingDependency (runtime or GPU not here).
    """
    model, chosen = bundle.require_model(), choose(bundle, precision)
    frame = _open(bundle, chosen, model, "", threads)
    if model.regions is None:
        return frame
    return TwoSizes(model, frame, _open(bundle, chosen, model.at_regions, "_regions", threads))


def _open(bundle: Bundle, chosen: str, model: ModelSpec, size: str, threads: int) -> Backend:
    match chosen:
        case "engine":
            from edgecnn.backends.trt import TensorRT

            path, _, tied = engine_file(bundle, size)
            return TensorRT(path, model, tied)
        case "openvino":
            try:
                from edgecnn.backends.openvino import OpenVINO
            except ImportError as error:
                raise MissingDependency(
                    f"openvino does not load ({error})", do="Run: pip install 'edgecnn[openvino]'"
                ) from error
            return OpenVINO(bundle.file(f"int8_cpu{size}"), model, threads=threads)
        case role:
            try:
                from edgecnn.backends.ort import OnnxRuntime
            except ImportError as error:
                raise MissingDependency(
                    f"onnxruntime does not load ({error})", do="Run: pip install onnxruntime"
                ) from error
            return OnnxRuntime(bundle.file(f"{role}{size}"), model, threads=threads)


def engine_file(bundle: Bundle, size: str = "") -> tuple[Path, ModelSpec, dict[str, Any]]:
    """The engine, the model, and what the engine was made for. Raises BundleError."""
    path, tied = bundle.file(f"engine{size}"), _tied(bundle)
    if not tied:
        raise BundleError(
            f"{bundle.path} does not say which TensorRT built its engine",
            do="Build it again: edgecnn build RECIPE",
        )
    return path, bundle.require_model(), tied


def choose(bundle: Bundle, precision: Precision) -> str:
    """The role of the file that a precision means here, or `openvino`, which runs int8_cpu. Raises ModelError.

    fp32 and int8 run on the CPU: for int8 that is the file with unsigned activations, 2-4 times faster there than
    TensorRT's signed form. `auto` is the engine where this machine can load one, then int8, then fp32; but fp32 on an
    x86 without VNNI, where exact INT8 is the slower of the two on depthwise layers. OpenVINO has to be asked for: which
    of them is the fastest depends on the network (docs/cpu.md).
    """
    match precision:
        case "fp32":
            return "fp32"
        case "int8":
            return "int8" if bundle.has("int8") and not bundle.has("int8_cpu") else "int8_cpu"
        case "engine" | "openvino":
            return precision
        case "auto":
            if bundle.has("engine") and _can_load(bundle):
                return "engine"
            faster = () if saturates() else ("int8_cpu", "int8")
            return next((role for role in faster if bundle.has(role)), "fp32")
        case other:
            raise ModelError(f"precision '{other}'", wanted=f"one of {', '.join(get_args(Precision))}")


def _can_load(bundle: Bundle) -> bool:
    """Whether the runtime that built the engine, and a GPU, are here."""
    tied = _tied(bundle)
    return bool(tied) and importlib.util.find_spec(tied["runtime"]) is not None and bool(sms())


def _tied(bundle: Bundle) -> dict[str, Any]:
    """What the engine was made for (`edgecnn.engine.tie`); empty in a bundle that an older edgecnn built."""
    return dict(bundle.stages["build"].facts.get("engine", {}))


def check_input(model: ModelSpec, inputs: Mapping[str, tuple[int, ...]]) -> None:
    """Hold a loaded network's inputs against what the preprocess delivers. Raises ModelError."""
    wanted = {model.input.name: model.input.shape}
    if dict(inputs) != wanted:
        raise ModelError(f"the network asks for {dict(inputs)}", wanted=f"{wanted}", do="Compile the recipe again")
