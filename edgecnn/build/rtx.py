"""TensorRT for RTX: real engines for a chosen GPU generation, on a machine with or without a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgecnn.build.network import Options, Plan, build_plan
from edgecnn.errors import BuildError, MissingDependency


def build(onnx: Path, sm: int, options: Options) -> tuple[Plan, str]:
    """Build an engine. No layers as JSON: an engine loads on its own GPU only, which need not be here."""
    try:
        import tensorrt_rtx as trt  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingDependency(
            f"TensorRT for RTX does not import ({error})", do="Install it: pip install 'edgecnn[rtx]'"
        ) from error
    known = {name: value for name, value in vars(trt.ComputeCapability).items() if name == f"SM{sm}"}
    if not known:
        raise BuildError(f"TensorRT for RTX {trt.__version__} does not build for SM {sm}")

    def configure(config: Any) -> None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(known[f"SM{sm}"], 0)

    return build_plan(trt, onnx, options, configure=configure), ""
