"""TensorRT engines: TensorRT 10 and 11 on a board, TensorRT-RTX on a PC.

Written against the documented API, and every name in it was held against the real bindings; it has NOT yet run on a
board or a GPU. A tensor has one pinned host buffer and one device buffer; copies and network share a stream.
"""

from __future__ import annotations

import ctypes
import importlib
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.backends import Array, check_input
from edgecnn.bundle import ModelSpec, check_outputs
from edgecnn.errors import BuildError, MissingDependency


def runtime_of(name: str) -> str:
    """The module that loads an engine file: model.rtx-sm86.engine was built by TensorRT-RTX, the others by TensorRT."""
    return "tensorrt_rtx" if ".rtx-" in name else "tensorrt"


def gpus() -> int:
    """CUDA devices that this machine can use; 0 where the driver is missing."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    ready = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if ready else 0


class TensorRT:
    """A deserialised engine with static shapes.

    Raises MissingDependency (no GPU, TensorRT or cuda-python), BuildError (built for another GPU or version),
    ModelError (shapes that do not fit `model`).
    """

    def __init__(self, path: Path, model: ModelSpec) -> None:
        self._cuda, trt = _load(runtime_of(path.name))
        log = _listener(trt)
        self._runtime = trt.Runtime(log)
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise BuildError(
                f"{trt.__name__} {trt.__version__} does not load {path} ({log.last or 'no reason given'})",
                wanted="an engine built for this GPU by this version",
                do="Build it on this machine: edgecnn build, or run with --precision int8",
            )
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        shapes = {name: tuple(engine.get_tensor_shape(name)) for name in names}
        self._inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        self._outputs = [n for n in names if n not in self._inputs]
        check_input(model, {name: shapes[name] for name in self._inputs})
        check_outputs(model, {name: shapes[name] for name in self._outputs})

        self._context = engine.create_execution_context()
        self._stream = self._do("cudaStreamCreate")
        self._host: dict[str, Array] = {}
        self._device: dict[str, int] = {}
        held: list[tuple[str, Any]] = [("cudaStreamDestroy", self._stream)]
        weakref.finalize(self, _release, self._cuda, held)
        for name in names:
            dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name)))
            size = int(np.prod(shapes[name])) * dtype.itemsize
            pinned = self._do("cudaMallocHost", size)
            held.append(("cudaFreeHost", pinned))
            self._device[name] = int(self._do("cudaMalloc", size))
            held.append(("cudaFree", self._device[name]))
            memory = (ctypes.c_byte * size).from_address(int(pinned))
            self._host[name] = np.frombuffer(memory, dtype).reshape(shapes[name])
            self._context.set_tensor_address(name, self._device[name])

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        stream = self._stream
        kind = self._cuda.cudaMemcpyKind
        to_device, to_host = kind.cudaMemcpyHostToDevice, kind.cudaMemcpyDeviceToHost
        for name in self._inputs:
            host = self._host[name]
            np.copyto(host, feeds[name])
            self._do("cudaMemcpyAsync", self._device[name], host.ctypes.data, host.nbytes, to_device, stream)
        if not self._context.execute_async_v3(int(stream)):
            raise BuildError("TensorRT could not enqueue the network", do="Build the engine again on this machine")
        for name in self._outputs:
            host = self._host[name]
            self._do("cudaMemcpyAsync", host.ctypes.data, self._device[name], host.nbytes, to_host, stream)
        self._do("cudaStreamSynchronize", stream)
        return {name: self._host[name].copy() for name in self._outputs}

    def _do(self, function: str, *arguments: Any) -> Any:
        """Call the CUDA runtime; its answer without the status. Raises MissingDependency naming the CUDA error."""
        status, *answer = getattr(self._cuda, function)(*arguments)
        if int(status) != 0:
            raise MissingDependency(
                f"{function} failed ({status.name})", do="Look at `edgecnn doctor`, or run with --precision int8"
            )
        return answer[0] if answer else None


def _load(runtime: str) -> tuple[Any, Any]:
    """→ cuda-python's runtime module and TensorRT. The GPU is asked for first: nothing else helps without it."""
    if not gpus():
        raise MissingDependency(
            "no CUDA device is usable here", wanted="one, for --precision engine", do="Run with --precision int8"
        )
    try:
        cuda = importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise MissingDependency("cuda-python is not here", do="Run: pip install 'edgecnn[cuda]'") from error
    try:
        return cuda, importlib.import_module(runtime)
    except ImportError as error:
        do = "pip install 'edgecnn[rtx]'" if runtime == "tensorrt_rtx" else "apt install python3-libnvinfer (JetPack)"
        raise MissingDependency(f"{runtime} is not here, and it built this engine", do=f"Run: {do}") from error


def _listener(trt: Any) -> Any:
    """A TensorRT logger that keeps the last error instead of printing."""

    class Listener(trt.ILogger):  # type: ignore[misc]
        last = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.last = message

    return Listener()


def _release(cuda: Any, held: list[tuple[str, Any]]) -> None:
    """Give back in reverse order; at this point nobody is left to tell about a failure."""
    for function, handle in reversed(held):
        getattr(cuda, function)(handle)
