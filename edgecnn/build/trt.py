"""TensorRT 8.2 to 11, as JetPack brings it: an engine for the GPU of this very machine.

Unverified on a board: no Jetson was at hand. Every name that it and `network` use is held against the real bindings of
8.6.1, 10.3, 10.13, 10.16 and 11.4, over a stub library (tests/test_trt_api.py).
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from edgecnn.build.network import Options, Plan, build_plan, inspect
from edgecnn.bundle import atomic
from edgecnn.engine import sms
from edgecnn.errors import BuildError, MissingDependency
from edgecnn.progress import note

OLDEST = (8, 2)
MEMINFO = Path("/proc/meminfo")


def build(onnx: Path, sm: int, options: Options) -> tuple[Plan, str]:
    """Build an engine; its layers as JSON too. The workspace is at most half of the memory that is free now, which a
    Jetson's CPU and GPU share. What was timed is kept for later builds, a file a version and GPU.

    Raises MissingDependency (TensorRT or a GPU not here), BuildError (another GPU, a TensorRT too old, a refusal).
    """
    try:
        import tensorrt as trt  # type: ignore[import-not-found]
    except ImportError as error:
        raise MissingDependency(
            f"an engine for SM {sm} is built on the board itself, and TensorRT does not import here ({error})",
            do="Copy the bundle to the board and run `edgecnn build` there, where JetPack has installed TensorRT; "
            "or, for a board without Python 3.10: edgecnn build RECIPE --emit-script DIR",
        ) from error
    version = str(trt.__version__)
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise BuildError(f"TensorRT {version}", wanted="TensorRT 8.2 or later", do="Upgrade JetPack to 4.6 or later")
    here = sms()
    if not here:
        raise MissingDependency(
            "no CUDA device is usable here", wanted=f"one of SM {sm}", do="Look at `edgecnn doctor`"
        )
    if sm not in here:
        raise BuildError(
            f"the GPU of this machine is SM {here[0]}, and the target's is SM {sm}",
            wanted="the target itself: engines do not travel between GPU generations",
            do="Build on the target, or name this machine's under build.target",
        )
    free = _free_mib()
    if free and options.workspace_mib > free // 2:
        note(f"{free} MiB of memory are free: the builder's workspace is {free // 2} of {options.workspace_mib} MiB")
        options = replace(options, workspace_mib=max(1, free // 2))
    times = timing_file(version, sm)
    plan = build_plan(trt, onnx, options, timing=times.read_bytes() if times.is_file() else b"")
    try:
        with atomic(times) as temporary:
            temporary.write_bytes(plan.timing)
    except OSError as error:
        note(f"what the builder timed is not kept for the next build ({error})")
    return plan, inspect(trt, plan.engine)


def timing_file(version: str, sm: int) -> Path:
    """Where what was timed on this machine is kept: $XDG_CACHE_HOME or ~/.cache."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "edgecnn" / f"timing-{version}-sm{sm}.bin"


def _free_mib() -> int:
    """Memory that programs may still take; 0 where the system does not say."""
    text = MEMINFO.read_text("utf-8") if MEMINFO.exists() else ""
    line = next((line for line in text.splitlines() if line.startswith("MemAvailable:")), "MemAvailable: 0 kB")
    return int(line.split()[1]) // 1024
