"""TensorRT engines: TensorRT 8.2 to 11 on a board, TensorRT-RTX on a PC.

Written against the documented API, and every name in it is held against the real bindings (tests/test_trt_api.py); it
has NOT yet run on a board or a GPU. Memory is `edgecnn.backends.cuda`'s: taken once, none in a frame. A frame is one
launch where it can be recorded as a CUDA graph (TensorRT's best practices, "CUDA Graphs"), else copies and kernels one
by one.

An engine made for another GPU or by another TensorRT is not rebuilt here: the error says why, and what to type.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.backends import Array, check_input
from edgecnn.backends.cuda import Buffer, Memory, open_memory
from edgecnn.bundle import ModelSpec, check_outputs
from edgecnn.engine import misfit, sms
from edgecnn.errors import BuildError, EdgecnnError, MissingDependency
from edgecnn.progress import note

AGAIN = "Build it on this machine: edgecnn build RECIPE, or run with --precision int8"


@dataclass(frozen=True)
class Slot:
    """One input or output of an engine, whichever way its TensorRT names them."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_input: bool


class TensorRT:
    """A deserialised engine, at the shapes of `model`. `tied`: what the manifest says it was made for.

    Raises MissingDependency (no GPU, TensorRT or CUDA package, or no memory), BuildError (built for another GPU or
    version), ModelError (shapes that do not fit `model`).
    """

    def __init__(self, path: Path, model: ModelSpec, tied: Mapping[str, Any]) -> None:
        self._memory = open_memory()
        trt = _load(tied["runtime"])
        if why := misfit(tied, str(trt.__version__), sms()):
            raise BuildError(f"{path} does not fit this machine: {why}", do=AGAIN)
        listener = _listener(trt)
        runtime = trt.Runtime(listener)
        if "VERSION_COMPATIBLE" in tied["flags"] and hasattr(runtime, "engine_host_code_allowed"):
            runtime.engine_host_code_allowed = True  # such an engine brings its own runtime; its sha256 was checked
        engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise BuildError(
                f"{trt.__name__} {trt.__version__} does not load {path} ({listener.last or 'no reason given'})",
                wanted="an engine built for this GPU by this version",
                do=AGAIN,
            )
        context = engine.create_execution_context()
        if context is None:
            raise MissingDependency(
                f"{path} gets no memory to run in ({listener.last or 'no reason given'})",
                do=f"Close other programs. {AGAIN}",
            )
        slots = _slots(trt, engine, context, model)
        check_input(model, {slot.name: slot.shape for slot in slots if slot.is_input})
        check_outputs(model, {slot.name: slot.shape for slot in slots if not slot.is_input})
        self._kept = (runtime, engine, context)  # in the order in which they depend on each other
        buffers = {slot.name: self._memory.buffer(slot.shape, slot.dtype) for slot in slots}
        self._inputs = {slot.name: buffers[slot.name] for slot in slots if slot.is_input}
        self._outputs = {slot.name: buffers[slot.name] for slot in slots if not slot.is_input}
        addresses = {name: buffer.device for name, buffer in buffers.items()}
        enqueue = _enqueue(context, addresses, self._memory.stream)
        self._enqueue = enqueue
        self._trt, self._context = trt, context
        self._launch = _recorded(self._memory, tuple(self._inputs.values()), tuple(self._outputs.values()), enqueue)

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        for name, buffer in self._inputs.items():
            np.copyto(buffer.host, feeds[name])
        self._launch()
        self._memory.wait()
        return {name: buffer.host.copy() for name, buffer in self._outputs.items()}

    def layer_times(self, feeds: Mapping[str, Array], runs: int) -> dict[str, list[float]]:
        """Layer → ms of each of `runs` runs, by TensorRT's profiler, which stays on: for a backend that does nothing
        else. A recorded graph would tell the profiler nothing, so kernels are launched one by one."""
        seen = _profiler(self._trt)
        context = self._context
        context.profiler = seen
        for name, buffer in self._inputs.items():
            np.copyto(buffer.host, feeds[name])
            self._memory.upload(buffer)
        for _ in range(runs):
            if not self._enqueue():
                raise BuildError("TensorRT could not enqueue the network", do="Build the engine again on this machine")
            self._memory.wait()
        return dict(seen.ms)


def _recorded(
    memory: Memory, inputs: Sequence[Buffer], outputs: Sequence[Buffer], enqueue: Callable[[], bool]
) -> Callable[[], None]:
    """All that a frame needs on the stream: recorded, as one launch; where that can't be, call by call, and a note why.

    It runs once before, on zeros: TensorRT's first enqueue may do what can't be recorded.
    """

    def frame() -> None:
        for buffer in inputs:
            memory.upload(buffer)
        if not enqueue():
            raise BuildError("TensorRT could not enqueue the network", do="Build the engine again on this machine")
        for buffer in outputs:
            memory.download(buffer)

    for buffer in inputs:
        buffer.host.fill(0)
    frame()
    memory.wait()
    try:
        return memory.record(frame)
    except EdgecnnError as error:
        note(f"no CUDA graph, each kernel is launched by itself: {error}")
        return frame


def _slots(trt: Any, engine: Any, context: Any, model: ModelSpec) -> list[Slot]:
    """Inputs and outputs by name (TensorRT 8.5 and later) or binding (before). Variable shapes become the model's."""
    if not hasattr(engine, "num_io_tensors"):
        return [
            Slot(
                engine.get_binding_name(i),
                tuple(engine.get_binding_shape(i)),
                np.dtype(trt.nptype(engine.get_binding_dtype(i))),
                bool(engine.binding_is_input(i)),
            )
            for i in range(engine.num_bindings)
        ]
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    for name in inputs:
        if -1 in tuple(engine.get_tensor_shape(name)):
            context.set_input_shape(name, model.input.shape)
    return [
        Slot(
            name,
            tuple(context.get_tensor_shape(name)),
            np.dtype(trt.nptype(engine.get_tensor_dtype(name))),
            name in inputs,
        )
        for name in names
    ]


def _enqueue(context: Any, addresses: Mapping[str, int], stream: int) -> Callable[[], bool]:
    """The call that starts the network on the stream, addresses told once."""
    if not hasattr(context, "execute_async_v3"):
        bindings = list(addresses.values())
        return lambda: bool(context.execute_async_v2(bindings, stream))
    for name, address in addresses.items():
        context.set_tensor_address(name, address)
    return lambda: bool(context.execute_async_v3(stream))


def _load(runtime: str) -> Any:
    """TensorRT's binding."""
    try:
        return importlib.import_module(runtime)
    except ImportError as error:
        do = "pip install 'edgecnn[rtx]'" if runtime == "tensorrt_rtx" else "apt install python3-libnvinfer (JetPack)"
        raise MissingDependency(f"{runtime} is not here, and it built this engine", do=f"Run: {do}") from error


def _profiler(trt: Any) -> Any:
    """A TensorRT profiler that keeps what it is told."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.ms: dict[str, list[float]] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.ms.setdefault(layer_name, []).append(ms)

    return Profiler()


def _listener(trt: Any) -> Any:
    """A TensorRT logger that keeps the last error instead of printing."""

    class Listener(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.last = message

    return Listener()
