"""TensorRT 10 and 11, as JetPack 6.1 and later bring it: an engine for the GPU of this very machine.

Unverified on a board: no Jetson was at hand. Every name that it and `network` use was held against the real bindings of
10.3.0, 10.16.1.11 and 11.4.0.106, over stub libraries.
"""

from __future__ import annotations

from pathlib import Path

from edgecnn.build.network import build_plan
from edgecnn.errors import BuildError, MissingDependency


def build(onnx: Path, sm: int, workspace_mib: int) -> tuple[bytes, list[str], str]:
    """An ONNX file → the engine's bytes, the log's lines, and the version that built it."""
    try:
        import tensorrt as trt  # type: ignore[import-not-found]
    except ImportError as error:
        raise MissingDependency(
            f"an engine for SM {sm} is built on the board itself, and TensorRT does not import here ({error})",
            do="Copy the bundle to the board and run `edgecnn build` there, where JetPack has installed TensorRT",
        ) from error
    version = str(trt.__version__)
    if int(version.split(".")[0]) < 10:
        raise BuildError(f"TensorRT {version}", wanted="TensorRT 10 or 11", do="Upgrade to JetPack 6.1 or later")
    plan, log = build_plan(trt, onnx, workspace_mib, lambda config: None)
    return plan, log, version
