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
    """A session with static shapes. `profile`: where to note how long each node takes; `end_profile` tells it.
    The first dimension of the input may be free: it then takes any number of pictures.

    Raises ModelError where the file does not load or does not fit `model`.
    """

    def __init__(self, path: Path, model: ModelSpec, *, threads: int = 0, profile: Path | None = None) -> None:
        options = ort.SessionOptions()
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile)
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
        shapes = {i.name: tuple(i.shape) for i in self._session.get_inputs()}
        first = shapes.get(model.input.name, (1,))[0]
        self.batch = first if isinstance(first, int) else None  # pictures at once; None: any number
        if self.batch is None:
            shapes[model.input.name] = (1, *shapes[model.input.name][1:])
        check_input(model, shapes)
        self._inputs = [i.name for i in self._session.get_inputs()]
        self._outputs = [o.name for o in self._session.get_outputs()]
        warm = self({model.input.name: np.zeros(model.input.shape, model.input.dtype)})
        check_outputs(model, {name: value.shape for name, value in warm.items()})

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        values = self._session.run(self._outputs, {name: feeds[name] for name in self._inputs})
        return dict(zip(self._outputs, values, strict=True))

    def end_profile(self) -> str:
        """The profile until now, JSON; it is not continued."""
        return Path(self._session.end_profiling()).read_text("utf-8")
