"""How long each layer of a network takes: by onnxruntime's profiler on a CPU, by TensorRT's on a GPU.

A profiler costs time of its own, so layers add up to more than a frame's inference; their shares are what counts.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.backends import Array, Precision, choose, engine_file
from edgecnn.bundle import Bundle
from edgecnn.errors import ModelError

WARM = 5  # runs that are not counted
Times = dict[tuple[str, str], NDArray[np.float64]]  # (layer, what it does) → (runs,) ms, in the network's order


def layer_times(
    bundle: Bundle, precision: Precision, feeds: Mapping[str, Array], *, runs: int = 50, threads: int = 1
) -> Times:
    """Time every layer of the network for whole frames over `runs` runs.

    Raises ModelError for a runtime that tells no layers (openvino), and what `open_backend` does.
    """
    role = choose(bundle, precision)
    if role == "openvino":
        raise ModelError("openvino's layers are not timed here", wanted="--layers of fp32, int8 or an engine")
    if role == "engine":
        return _engine(bundle, feeds, runs)
    from edgecnn.backends.ort import OnnxRuntime

    with tempfile.TemporaryDirectory() as folder:
        backend = OnnxRuntime(
            bundle.file(role), bundle.require_model(), threads=threads, profile=Path(folder) / "layers"
        )
        for _ in range(WARM + runs):
            backend(feeds)
        return parse_profile(backend.end_profile(), WARM + 1)  # opening ran it once


def _engine(bundle: Bundle, feeds: Mapping[str, Array], runs: int) -> Times:
    """Not yet run on a GPU: its names alone are held against the bindings (tests/test_trt_api.py)."""
    from edgecnn.backends.trt import TensorRT

    backend = TensorRT(*engine_file(bundle))
    rows = backend.layer_times(feeds, WARM + runs)
    return {(name, ""): np.array(ms[WARM:]) for name, ms in rows.items()}


def parse_profile(text: str, skip: int) -> Times:
    """What onnxruntime's profiler wrote → times of each node, its first `skip` runs left out."""
    rows: dict[tuple[str, str, str], list[float]] = {}
    events: list[dict[str, Any]] = [e for e in json.loads(text) if str(e.get("name", "")).endswith("_kernel_time")]
    for event in sorted(events, key=lambda event: event["ts"]):
        name, told = event["name"].removesuffix("_kernel_time"), event["args"]
        rows.setdefault((name, told["op_name"], str(told["node_index"])), []).append(event["dur"] / 1e3)
    count = Counter(name for name, _, _ in rows)  # nodes that onnxruntime added itself share their names
    return {
        (name if count[name] == 1 else f"{name} #{index}", op): np.array(ms[skip:])
        for (name, op, index), ms in rows.items()
    }
