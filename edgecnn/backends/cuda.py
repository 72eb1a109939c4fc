"""CUDA memory behind one small interface, by cuda-python or by pycuda, whichever is here.

A buffer is a pinned array on the host and as many bytes on the device; one stream orders copies and the network. All
memory is taken when an engine is opened, none in a frame. What is done on the stream in a frame can be recorded as a
CUDA graph and launched as one (CUDA programming guide, "CUDA Graphs": stream capture); pycuda has none, up to 2025.1.
What fails says which of the usual causes it was: no driver, a library for another CUDA, or no memory left.

Written against the documented APIs (CUDA runtime API; pycuda.driver), and held against the real cuda-python as far as
that goes without a GPU. It has NOT yet run on one.
"""

from __future__ import annotations

import ctypes
import importlib
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgecnn.backends import Array
from edgecnn.engine import sms
from edgecnn.errors import EdgecnnError, MissingDependency

OUT_OF_MEMORY, OLD_DRIVER, WRONG_DEVICE = 2, 35, 100  # cudaErrorMemoryAllocation, ...InsufficientDriver, ...NoDevice
INSTEAD = "or run with --precision int8"


@dataclass(frozen=True)
class Buffer:
    """One tensor's memory. `host` stays where it is: the device copies to and from it directly."""

    host: Array
    device: int  # address


class Memory(Protocol):
    """Buffers and the stream in which they are copied. All is given back when the object goes."""

    stream: int  # handle, as TensorRT takes it

    def buffer(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Buffer: ...

    def upload(self, buffer: Buffer) -> None: ...

    def download(self, buffer: Buffer) -> None: ...

    def wait(self) -> None: ...

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """What `work` does on the stream, as one launch; nothing runs meanwhile. Raises EdgecnnError where it can't."""
        ...


def open_memory() -> Memory:
    """cuda-python's if it is here, else pycuda's. Raises MissingDependency, which names the cause.

    The GPU is asked for first: nothing else helps without it.
    """
    if not sms():
        raise MissingDependency(
            "no CUDA device is usable here (no driver, or no GPU)",
            wanted="one, for --precision engine",
            do="Look at `edgecnn doctor`, or run with --precision int8",
        )
    broken = ""
    for module, kind in (("cuda.bindings.runtime", CudaPython), ("pycuda.driver", PyCuda)):
        try:
            return kind(importlib.import_module(module))
        except ModuleNotFoundError:
            continue
        except ImportError as error:
            broken = f"{module} does not load ({error})"
    if broken:
        raise MissingDependency(
            broken, wanted="one for the CUDA of this machine's driver", do=f"Install that, {INSTEAD}"
        )
    raise MissingDependency("neither cuda-python nor pycuda is here", do="Run: pip install 'edgecnn[cuda]'")


class CudaPython:
    """cuda.bindings.runtime: functions return (status, answer)."""

    def __init__(self, runtime: Any) -> None:
        self._cuda = runtime
        self._held: list[tuple[str, Any]] = []
        weakref.finalize(self, _release, runtime, self._held)
        stream = self._do("cudaStreamCreate")
        self._held.append(("cudaStreamDestroy", stream))
        self.stream = int(stream)
        self._handle = stream

    def buffer(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Buffer:
        size = math.prod(shape) * dtype.itemsize
        pinned = self._do("cudaMallocHost", size)
        self._held.append(("cudaFreeHost", pinned))
        device = self._do("cudaMalloc", size)
        self._held.append(("cudaFree", device))
        memory = (ctypes.c_byte * size).from_address(int(pinned))
        return Buffer(np.frombuffer(memoryview(memory), dtype).reshape(shape), int(device))

    def upload(self, buffer: Buffer) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        host = buffer.host
        self._do("cudaMemcpyAsync", buffer.device, host.ctypes.data, host.nbytes, kind, self._handle)

    def download(self, buffer: Buffer) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        host = buffer.host
        self._do("cudaMemcpyAsync", host.ctypes.data, buffer.device, host.nbytes, kind, self._handle)

    def wait(self) -> None:
        self._do("cudaStreamSynchronize", self._handle)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal  # other threads may use CUDA meanwhile
        self._do("cudaStreamBeginCapture", self._handle, mode)
        try:
            work()
        except EdgecnnError:
            self._cuda.cudaStreamEndCapture(self._handle)  # or nothing would run on the stream any more
            raise
        graph = self._do("cudaStreamEndCapture", self._handle)
        try:
            ready = self._do("cudaGraphInstantiateWithFlags", graph, 0)
        finally:
            self._do("cudaGraphDestroy", graph)
        self._held.append(("cudaGraphExecDestroy", ready))
        return lambda: self._do("cudaGraphLaunch", ready, self._handle)

    def _do(self, function: str, *arguments: Any) -> Any:
        """The answer without the status."""
        status, *answer = getattr(self._cuda, function)(*arguments)
        if int(status) != 0:
            self._cuda.cudaGetLastError()  # or the next call would report it again
            size = arguments[0] if function in ("cudaMalloc", "cudaMallocHost") else 0
            raise failure(function, int(status), status.name, size)
        return answer[0] if answer else None


class PyCuda:
    """pycuda.driver: functions raise. The context is the device's primary one, which TensorRT shares."""

    def __init__(self, driver: Any) -> None:
        self._cuda = driver
        self._device: list[Any] = []  # keeps the allocations alive
        self._do("cuInit", driver.init)
        context = self._do("cuDevicePrimaryCtxRetain", lambda: driver.Device(0).retain_primary_context())
        context.push()
        weakref.finalize(self, _leave, driver.Context, self._device)
        self._handle = self._do("cuStreamCreate", driver.Stream)
        self.stream = int(self._handle.handle)

    def buffer(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Buffer:
        size = math.prod(shape) * dtype.itemsize
        host = self._do("cuMemHostAlloc", lambda: self._cuda.pagelocked_empty(shape, dtype), size)
        device = self._do("cuMemAlloc", lambda: self._cuda.mem_alloc(size), size)
        self._device.append(device)
        return Buffer(host, int(device))

    def upload(self, buffer: Buffer) -> None:
        self._do("cuMemcpyHtoDAsync", lambda: self._cuda.memcpy_htod_async(buffer.device, buffer.host, self._handle))

    def download(self, buffer: Buffer) -> None:
        self._do("cuMemcpyDtoHAsync", lambda: self._cuda.memcpy_dtoh_async(buffer.host, buffer.device, self._handle))

    def wait(self) -> None:
        self._do("cuStreamSynchronize", self._handle.synchronize)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        raise MissingDependency("pycuda has no CUDA graphs", do="Where it can be had: pip install 'edgecnn[cuda]'")

    def _do(self, function: str, call: Callable[[], Any], size: int = 0) -> Any:
        try:
            return call()
        except self._cuda.MemoryError as error:
            raise failure(function, OUT_OF_MEMORY, str(error), size) from error
        except self._cuda.Error as error:
            raise failure(function, -1, str(error), size) from error


def failure(function: str, status: int, name: str, size: int = 0) -> MissingDependency:
    """The error for a failed call of CUDA's, by its cause. `size` in bytes, where memory was asked for."""
    if status == OUT_OF_MEMORY:
        asked = f" of {size / 2**20:.1f} MiB" if size else ""
        return MissingDependency(
            f"{function}{asked} failed ({name}): the GPU has no memory left",
            do=f"Close what else uses it (a Jetson shares it with the CPU), {INSTEAD}",
        )
    if status == OLD_DRIVER:
        return MissingDependency(
            f"{function} failed ({name}): the driver is older than the CUDA that cuda-python was made for",
            do=f"Install the cuda-python of the driver's CUDA, such as pip install 'cuda-python<13', {INSTEAD}",
        )
    if status == WRONG_DEVICE:
        return MissingDependency(
            f"{function} failed ({name}): no GPU answers", do=f"Look at `edgecnn doctor`, {INSTEAD}"
        )
    return MissingDependency(f"{function} failed ({name})", do=f"Look at `edgecnn doctor`, {INSTEAD}")


def _release(cuda: Any, held: list[tuple[str, Any]]) -> None:
    """Give back in reverse order; at this point nobody is left to tell about a failure."""
    for function, handle in reversed(held):
        getattr(cuda, function)(handle)


def _leave(context: Any, held: list[Any]) -> None:
    for allocation in reversed(held):
        allocation.free()
    context.pop()
