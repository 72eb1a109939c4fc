"""onnxruntime on the CPU: the FP32 file, and the INT8 file with unsigned activations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]

from edgecnn.backends import Array, check_input
from edgecnn.bundle import ModelSpec, check_outputs
from edgecnn.cpu import cores, saturates
from edgecnn.errors import ModelError

CONFIG = {
    "session.intra_op.allow_spinning": "0",  # a worker that spins takes the core that the picture decoder needs
    "session.inter_op.allow_spinning": "0",
}


class OnnxRuntime:
    """A session with static shapes. Raises ModelError where the file does not load or does not fit `model`."""

    def __init__(self, path: Path, model: ModelSpec, *, threads: int = 0) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or max(1, cores() - 1)
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; they also arrive as exceptions
        for key, value in CONFIG.items():
            options.add_session_config_entry(key, value)
        if saturates():
            options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no base class of their own
            raise ModelError(
                f"onnxruntime {ort.__version__} does not load {path} ({error})", do="Compile the recipe again"
            ) from error
        check_input(model, {i.name: tuple(i.shape) for i in self._session.get_inputs()})
        self._inputs = [i.name for i in self._session.get_inputs()]
        self._outputs = [o.name for o in self._session.get_outputs()]
        warm = self({model.input.name: np.zeros(model.input.shape, model.input.dtype)})
        check_outputs(model, {name: value.shape for name, value in warm.items()})

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        values = self._session.run(self._outputs, {name: feeds[name] for name in self._inputs})
        return dict(zip(self._outputs, values, strict=True))
