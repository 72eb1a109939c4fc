"""How long layers take here: FP32 in onnxruntime, one picture, one thread of this CPU.

Each distinct layer is timed alone, once, and remembered on disk by its shape, the CPU and onnxruntime's version. Caches
are emptied before each run, as a board's other work empties them between two pictures: a layer alone would otherwise
find its weights there, which in its network have to be fetched. A network's time is near the sum of its layers', but
not it: what lies between them costs, and layouts carry over. So the sum is scaled by one measured whole network, and
what a search finds is measured whole.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgecnn.bundle import atomic
from edgecnn.cpu import cpu
from edgecnn.slim.channels import LayerShape, Layout
from edgecnn.zoo.trace import trace

OPSET = 17
WARM, OF_A_LAYER, OF_A_NETWORK = 2, 10, 30  # runs: before the count, and counted
EMPTY = LayerShape(8, 8)  # costs what any call costs: taken off every other layer's time
LEAST = 1e-3  # ms: no layer is free, though it may be lost in the noise
SCRUBBED = 64 << 20  # bytes written between runs, so that no weights are left in the caches
SAVED_EVERY = 20  # new layers


class LatencyTable:
    """Milliseconds of a layer by its shape; measured where they are not known yet."""

    def __init__(self, path: Path | None = None) -> None:
        """`path`: the file that remembers; the user's cache folder unless given. A damaged file is begun anew."""
        self.path = path or cache_folder() / "latency.json"
        self.machine = f"{cpu()[0] or platform.machine()}, onnxruntime {ort.__version__}, 1 thread"
        self._all: dict[str, dict[str, float]] = {}
        if self.path.is_file():
            try:
                self._all = json.loads(self.path.read_text("utf-8"))
            except ValueError:
                self.path.unlink()
        self._known = self._all.setdefault(self.machine, {})
        self._new = 0

    def __call__(self, layer: LayerShape) -> float:
        return max(LEAST, self._alone(layer) - self._alone(EMPTY))

    def _alone(self, layer: LayerShape) -> float:
        key = json.dumps(astuple(layer))
        if key not in self._known:
            self._known[key] = milliseconds(_one_layer(layer))
            self._new += 1
            if self._new % SAVED_EVERY == 0:
                self.save()
        return self._known[key]

    def total(self, layers: Layout) -> float:
        """The sum over a network's layers, ms."""
        return sum(self(layer) for layer in layers.values())

    def save(self) -> None:
        with atomic(self.path) as temporary:
            temporary.write_text(json.dumps(self._all), "utf-8")


def whole(net: nn.Module, shape: tuple[int, ...]) -> float:
    """Milliseconds of a whole network for one input of `shape`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        trace(net, shape, path, OPSET)
        return milliseconds(path.read_bytes(), OF_A_NETWORK)


def milliseconds(model: bytes, runs: int = OF_A_LAYER) -> float:
    """The shortest run with empty caches, ms: whatever else the machine does only ever adds."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    feed: Mapping[str, object] = {entry.name: np.random.default_rng(0).standard_normal(entry.shape).astype(np.float32)}
    scrub = np.zeros(SCRUBBED, np.uint8)
    times: list[int] = []
    for run in range(WARM + runs):
        scrub.fill(run)
        start = time.perf_counter_ns()
        session.run(None, feed)
        times.append(time.perf_counter_ns() - start)
    return min(times[WARM:]) / 1e6


def _one_layer(layer: LayerShape) -> bytes:
    """A network of this one convolution and the ReLU that is fused into it."""
    rng = np.random.default_rng(0)
    kernel = (layer.outputs, layer.inputs // layer.groups, *layer.kernel)
    weight = (rng.standard_normal(kernel) / np.sqrt(np.prod(kernel[1:]))).astype(np.float32)
    constants = [
        numpy_helper.from_array(weight, "w"),
        numpy_helper.from_array(np.zeros(layer.outputs, np.float32), "b"),
    ]
    conv = helper.make_node(
        "Conv",
        ["x", "w", "b"],
        ["y"],
        kernel_shape=layer.kernel,
        strides=layer.stride,
        pads=(*layer.padding, *layer.padding),
        group=layer.groups,
    )
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, layer.inputs, layer.height, layer.width))
    result = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    graph = helper.make_graph([conv, helper.make_node("Relu", ["y"], ["z"])], "layer", [entry], [result], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def cache_folder() -> Path:
    """Where a user's programs keep what they can make again (XDG base directory specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgecnn"
