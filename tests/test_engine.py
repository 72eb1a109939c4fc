"""TensorRT engines on a board that is not here: the sequence of calls is held against stand-ins for cuda-python, pycuda
and TensorRT, as their documentation has them; the names that are called against the real bindings in test_trt_api.py.
"""

from __future__ import annotations

import ctypes
import enum
import gc
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_detector import MODEL, make_bundle

from edgecnn import backends
from edgecnn.backends import choose, cuda, open_backend
from edgecnn.backends import trt as trt_backend
from edgecnn.bundle import Bundle
from edgecnn.engine import misfit, sms, tie
from edgecnn.errors import BuildError, BundleError, MissingDependency

STREAM = 77


class Status(enum.IntEnum):
    """Of CUDA's runtime API; numbers as in driver_types.h."""

    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorLaunchFailure = 719
    cudaErrorStreamCaptureInvalidated = 901


class Board:
    """Host memory stands in for device memory; every call is noted."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.memory: dict[int, Any] = {}
        self.fail: dict[str, Status] = {}
        self.recording: list[Callable[[], None]] | None = None  # what a stream in capture was asked for, and did not do

    def on_stream(self, name: str, work: Callable[[], None]) -> None:
        """Do it, or record it."""
        if self.recording is None:
            work()
            self.log.append(name)
        else:
            self.recording.append(work)

    def allocate(self, size: int) -> int:
        block = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(block)] = block
        return ctypes.addressof(block)


class CudaPythonModule(Board):
    """cuda.bindings.runtime: (status, answer)."""

    class cudaMemcpyKind:
        cudaMemcpyHostToDevice = 1
        cudaMemcpyDeviceToHost = 2

    class cudaStreamCaptureMode:
        cudaStreamCaptureModeThreadLocal = 1

    def call(self, name: str, *answer: object) -> tuple[object, ...]:
        self.log.append(name)
        status = self.fail.get(name, Status.cudaSuccess)
        return (status, *answer) if status == 0 else (status, *(None for _ in answer))

    def cudaStreamCreate(self) -> tuple[object, ...]:
        return self.call("cudaStreamCreate", STREAM)

    def cudaStreamDestroy(self, stream: int) -> tuple[object, ...]:
        return self.call("cudaStreamDestroy")

    def cudaMallocHost(self, size: int) -> tuple[object, ...]:
        return self.call("cudaMallocHost", self.allocate(size))

    def cudaMalloc(self, size: int) -> tuple[object, ...]:
        return self.call("cudaMalloc", self.allocate(size))

    def cudaFree(self, pointer: int) -> tuple[object, ...]:
        return self.call("cudaFree")

    def cudaFreeHost(self, pointer: int) -> tuple[object, ...]:
        return self.call("cudaFreeHost")

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> tuple[object, ...]:
        assert stream == STREAM
        self.on_stream("cudaMemcpyAsync", lambda: ctypes.memmove(to, source, size) and None)
        return (Status.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[object, ...]:
        assert self.recording is None  # CUDA refuses to wait for a stream in capture
        return self.call("cudaStreamSynchronize")

    def cudaGetLastError(self) -> tuple[object, ...]:
        return (Status.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[object, ...]:
        assert (stream, mode, self.recording) == (STREAM, 1, None)
        answer = self.call("cudaStreamBeginCapture")
        self.recording = [] if answer[0] == 0 else None
        return answer

    def cudaStreamEndCapture(self, stream: int) -> tuple[object, ...]:
        recorded, self.recording = self.recording, None
        assert recorded is not None
        return self.call("cudaStreamEndCapture", recorded)

    def cudaGraphInstantiateWithFlags(self, graph: list[Callable[[], None]], flags: int) -> tuple[object, ...]:
        assert flags == 0
        return self.call("cudaGraphInstantiateWithFlags", tuple(graph))

    def cudaGraphDestroy(self, graph: list[Callable[[], None]]) -> tuple[object, ...]:
        graph.clear()
        return self.call("cudaGraphDestroy")

    def cudaGraphLaunch(self, ready: tuple[Callable[[], None], ...], stream: int) -> tuple[object, ...]:
        assert stream == STREAM
        for work in ready:
            work()
        return self.call("cudaGraphLaunch")

    def cudaGraphExecDestroy(self, ready: object) -> tuple[object, ...]:
        return self.call("cudaGraphExecDestroy")


class PyCudaModule(Board):
    """pycuda.driver: raises."""

    class Error(Exception): ...

    class MemoryError(Error): ...

    def __init__(self) -> None:
        super().__init__()
        board = self

        class Context:
            @staticmethod
            def pop() -> None:
                board.log.append("pop")

            def push(self) -> None:
                board.log.append("push")

        class Device:
            def __init__(self, number: int) -> None:
                assert number == 0

            def retain_primary_context(self) -> Context:
                return Context()

        class Stream:
            handle = STREAM

            def synchronize(self) -> None:
                board.log.append("synchronize")

        class Allocation:
            def __init__(self, size: int) -> None:
                if "mem_alloc" in board.fail:
                    raise board.MemoryError("cuMemAlloc failed: out of memory")
                board.log.append("mem_alloc")
                self.address = board.allocate(size)

            def __int__(self) -> int:
                return self.address

            def free(self) -> None:
                board.log.append("free")

        self.Context, self.Device, self.Stream, self.mem_alloc = Context, Device, Stream, Allocation

    def init(self) -> None:
        if "init" in self.fail:
            raise self.Error("cuInit failed: unknown error")

    def pagelocked_empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        self.log.append("pagelocked_empty")
        return np.empty(shape, dtype)

    def memcpy_htod_async(self, to: int, host: np.ndarray, stream: Any) -> None:
        assert stream.handle == STREAM
        ctypes.memmove(to, host.ctypes.data, host.nbytes)
        self.log.append("htod")

    def memcpy_dtoh_async(self, host: np.ndarray, source: int, stream: Any) -> None:
        assert stream.handle == STREAM
        ctypes.memmove(host.ctypes.data, source, host.nbytes)
        self.log.append("dtoh")


class Engine:
    """Three tensors as MODEL wants them; running it writes the input's mean into the scores."""

    def __init__(self, board: Board, shapes: dict[str, tuple[int, ...]]) -> None:
        self.board, self.log, self.shapes, self.fixed = board, board.log, shapes, dict(shapes)
        self.address: dict[str, int] = {}

    def create_execution_context(self) -> Engine | None:
        return self

    def run(self) -> bool:
        if self.board.recording is not None and "record" in self.board.fail:
            return False  # as for a network with a loop that waits for the GPU

        def work() -> None:
            self.view("scores")[:] = self.view("images").mean()

        self.board.on_stream("execute", work)
        return True

    def view(self, name: str) -> np.ndarray:
        size = int(np.prod(self.fixed[name]))
        return np.frombuffer(memoryview((ctypes.c_float * size).from_address(self.address[name])), np.float32)


class Named(Engine):
    """TensorRT 8.5 and later."""

    @property
    def num_io_tensors(self) -> int:
        return len(self.shapes)

    def get_tensor_name(self, index: int) -> str:
        return list(self.shapes)[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.fixed[name]

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.log.append(f"set_input_shape {shape}")
        self.fixed = {n: tuple(shape[0] if d == -1 else d for d in s) for n, s in self.shapes.items()}
        return True

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == "images" else "out"

    def get_tensor_dtype(self, name: str) -> type:
        return np.float32

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.address[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == STREAM
        return self.run()


class Bound(Engine):
    """TensorRT 8.2 to 8.4."""

    @property
    def num_bindings(self) -> int:
        return len(self.shapes)

    def get_binding_name(self, index: int) -> str:
        return list(self.shapes)[index]

    def get_binding_shape(self, index: int) -> tuple[int, ...]:
        return list(self.shapes.values())[index]

    def get_binding_dtype(self, index: int) -> type:
        return np.float32

    def binding_is_input(self, index: int) -> bool:
        return index == 0

    def execute_async_v2(self, bindings: list[int], stream: int) -> bool:
        assert stream == STREAM
        self.address = dict(zip(self.shapes, bindings, strict=True))
        return self.run()


SHAPES = {"images": MODEL.input.shape, **{o.name: o.shape for o in MODEL.outputs}}
Fit = Callable[..., Board]


@pytest.fixture
def fit(monkeypatch: pytest.MonkeyPatch) -> Fit:
    """A board with the CUDA package and TensorRT asked for."""

    def put(
        board: Board, version: str = "10.3.0", *, kind: type[Engine] = Named, shapes: Any = None, context: bool = True
    ) -> Board:
        class Logger:
            ERROR, INTERNAL_ERROR = 1, 0

        class Runtime:
            engine_host_code_allowed = False

            def __init__(self, log: Any) -> None:
                self.log = log

            def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
                if data != b"plan":
                    self.log.log(1, "Serialization assertion failed")
                    return None
                board.log.append(f"host code {self.engine_host_code_allowed}")
                engine = kind(board, shapes or SHAPES)
                if not context:
                    engine.create_execution_context = lambda: self.log.log(1, "out of memory")  # type: ignore[method-assign]
                return engine

        trt = types.SimpleNamespace(
            __name__="tensorrt", __version__=version, ILogger=Logger, Runtime=Runtime, nptype=lambda t: t
        )
        trt.TensorIOMode = types.SimpleNamespace(INPUT="in", OUTPUT="out")
        for module in (backends, cuda, trt_backend):
            monkeypatch.setattr(module, "sms", lambda: (87,))
        python = isinstance(board, CudaPythonModule)
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", board if python else None)  # type: ignore[arg-type]
        monkeypatch.setitem(sys.modules, "pycuda.driver", None if python else board)  # type: ignore[arg-type]
        monkeypatch.setitem(sys.modules, "tensorrt", trt)  # type: ignore[arg-type]
        return board

    return put


def engine(tmp_path: Path, content: bytes = b"plan") -> Path:
    path = tmp_path / "model.orin.engine"
    path.write_bytes(content)
    return path


def tied(version: str = "10.3.0", sm: int = 87, flags: tuple[str, ...] = ()) -> dict[str, Any]:
    return tie("0" * 64, "tensorrt", version, sm, flags)


def images(seed: int = 0) -> dict[str, np.ndarray]:
    return {"images": np.random.default_rng(seed).random(MODEL.input.shape, np.float32)}


ONE_BY_ONE = ["cudaMemcpyAsync", "execute", *["cudaMemcpyAsync"] * 2, "cudaStreamSynchronize"]
FRAME = {
    CudaPythonModule: ["cudaGraphLaunch", "cudaStreamSynchronize"],
    PyCudaModule: ["htod", "execute", "dtoh", "dtoh", "synchronize"],
}


@pytest.mark.parametrize("package", [CudaPythonModule, PyCudaModule])
@pytest.mark.parametrize(("version", "kind"), [("8.2.1", Bound), ("8.5.2", Named), ("10.3.0", Named)])
def test_a_frame_is_copy_run_copy_back_and_nothing_else(
    package: type[Board], version: str, kind: type[Engine], fit: Fit, tmp_path: Path
) -> None:
    board = fit(package(), version, kind=kind)
    backend = trt_backend.TensorRT(engine(tmp_path), MODEL, tied(version))
    board.log.clear()
    feeds = images()
    answer = backend(feeds)
    assert board.log == FRAME[package]  # no allocation a frame, and one stream for all
    np.testing.assert_allclose(answer["scores"], feeds["images"].mean(), rtol=1e-5)
    assert answer["boxes"].shape == MODEL.outputs[0].shape
    backend({"images": np.zeros(MODEL.input.shape, np.float32)})
    np.testing.assert_allclose(answer["scores"], feeds["images"].mean(), rtol=1e-5)  # the caller's own copy


@pytest.mark.parametrize(
    ("package", "wanted"),
    [
        (CudaPythonModule, ["cudaFree"] * 3 + ["cudaFreeHost"] * 3 + ["cudaGraphExecDestroy", "cudaStreamDestroy"]),
        (PyCudaModule, ["free"] * 3 + ["pop"]),
    ],
)
def test_memory_is_given_back(package: type[Board], wanted: list[str], fit: Fit, tmp_path: Path) -> None:
    board = fit(package())
    backend = trt_backend.TensorRT(engine(tmp_path), MODEL, tied())
    board.log.clear()
    del backend
    gc.collect()
    assert sorted(board.log) == wanted


def test_a_frame_is_recorded_after_it_ran_once(fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = fit(CudaPythonModule())
    backend = trt_backend.TensorRT(engine(tmp_path), MODEL, tied())
    record = ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiateWithFlags", "cudaGraphDestroy"]
    assert board.log[-9:] == [*ONE_BY_ONE, *record] and backend is not None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("cudaStreamBeginCapture", r"cudaStreamBeginCapture failed \(cudaErrorLaunchFailure\)"),
        ("cudaStreamEndCapture", "cudaStreamEndCapture failed"),
        ("cudaGraphInstantiateWithFlags", "cudaGraphInstantiateWithFlags failed"),
        ("record", "TensorRT could not enqueue the network"),
    ],
)
def test_what_cannot_be_recorded_runs_call_by_call_and_a_note_says_why(
    call: str, words: str, fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = fit(CudaPythonModule())
    board.fail[call] = Status.cudaErrorLaunchFailure
    backend = trt_backend.TensorRT(engine(tmp_path), MODEL, tied())
    assert re.search(f"^no CUDA graph, each kernel is launched by itself: {words}", capsys.readouterr().err)
    board.log.clear()
    feeds = images()
    np.testing.assert_allclose(backend(feeds)["scores"], feeds["images"].mean(), rtol=1e-5)
    assert board.log == ONE_BY_ONE


def test_pycuda_has_no_graphs_and_a_note_says_so(fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(PyCudaModule())
    trt_backend.TensorRT(engine(tmp_path), MODEL, tied())
    assert "pycuda has no CUDA graphs. Where it can be had: pip install 'edgecnn[cuda]'" in capsys.readouterr().err


def test_variable_shapes_become_the_models(fit: Fit, tmp_path: Path) -> None:
    board = fit(CudaPythonModule(), shapes={name: (-1, *shape[1:]) for name, shape in SHAPES.items()})
    backend = trt_backend.TensorRT(engine(tmp_path), MODEL, tied())
    assert f"set_input_shape {MODEL.input.shape}" in board.log
    assert backend(images())["scores"].shape == MODEL.outputs[1].shape


@pytest.mark.parametrize("flags", [(), ("VERSION_COMPATIBLE",)])
def test_an_engines_own_code_runs_only_where_the_manifest_says_so(
    flags: tuple[str, ...], fit: Fit, tmp_path: Path
) -> None:
    board = fit(CudaPythonModule(), "10.7.0" if flags else "10.3.0")
    trt_backend.TensorRT(engine(tmp_path), MODEL, tied(flags=flags))
    assert f"host code {bool(flags)}" in board.log


# --- what goes wrong, and what it is called -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "status", "words"),
    [
        ("cudaMalloc", Status.cudaErrorMemoryAllocation, r"cudaMalloc of 0\.1 MiB failed .*the GPU has no memory left"),
        ("cudaMallocHost", Status.cudaErrorMemoryAllocation, "no memory left.*--precision int8"),
        ("cudaStreamCreate", Status.cudaErrorInsufficientDriver, "older than the CUDA that cuda-python was made for"),
        ("cudaStreamCreate", Status.cudaErrorNoDevice, "no GPU answers"),
        ("cudaStreamCreate", Status.cudaErrorLaunchFailure, r"cudaStreamCreate failed \(cudaErrorLaunchFailure\)"),
    ],
)
def test_a_failure_of_cuda_names_its_cause(call: str, status: Status, words: str, fit: Fit, tmp_path: Path) -> None:
    board = fit(CudaPythonModule())
    board.fail[call] = status
    with pytest.raises(MissingDependency, match=words):
        trt_backend.TensorRT(engine(tmp_path), MODEL, tied())


@pytest.mark.parametrize(
    ("call", "words"),
    [("mem_alloc", r"cuMemAlloc of 0\.1 MiB failed .*no memory left"), ("init", "cuInit failed .*doctor")],
)
def test_a_failure_of_pycuda_names_its_cause(call: str, words: str, fit: Fit, tmp_path: Path) -> None:
    board = fit(PyCudaModule())
    board.fail[call] = Status.cudaErrorMemoryAllocation
    with pytest.raises(MissingDependency, match=words):
        trt_backend.TensorRT(engine(tmp_path), MODEL, tied())


def test_no_package_and_a_broken_one_are_told_apart(fit: Fit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fit(CudaPythonModule())
    for name in ("cuda.bindings.runtime", "pycuda.driver"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    def none(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(cuda, "importlib", types.SimpleNamespace(import_module=none))
    with pytest.raises(MissingDependency, match=r"neither cuda-python nor pycuda is here.*edgecnn\[cuda\]"):
        cuda.open_memory()

    def broken(name: str) -> Any:
        raise ImportError("libcudart.so.11.0: cannot open shared object file")

    monkeypatch.setattr(cuda, "importlib", types.SimpleNamespace(import_module=broken))
    with pytest.raises(MissingDependency, match=r"does not load \(libcudart\.so\.11\.0.*CUDA of this machine's driver"):
        cuda.open_memory()


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (tied("10.0.1"), "it was built by tensorrt 10.0.1, and 10.3.0 is here"),
        (tied(sm=110), "it was built for SM 110, and the GPU here is SM 87"),
    ],
)
def test_a_stale_or_foreign_engine_is_explained_and_not_rebuilt(
    made: dict[str, Any], words: str, fit: Fit, tmp_path: Path
) -> None:
    board = fit(CudaPythonModule())
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(BuildError, match=rf"does not fit this machine: {words}\. Build it.*edgecnn build RECIPE"):
        trt_backend.TensorRT(engine(tmp_path), MODEL, made)
    assert not any(line.startswith("host code") for line in board.log)  # it was not even loaded
    assert sorted(p.name for p in tmp_path.iterdir()) == [*before, "model.orin.engine"]


def test_what_tensorrt_itself_refuses_is_quoted(fit: Fit, tmp_path: Path) -> None:
    fit(CudaPythonModule())
    with pytest.raises(BuildError, match=r"does not load .*Serialization assertion failed.*edgecnn build"):
        trt_backend.TensorRT(engine(tmp_path, b"other"), MODEL, tied())
    fit(CudaPythonModule(), context=False)
    with pytest.raises(MissingDependency, match=r"gets no memory to run in \(out of memory\)"):
        trt_backend.TensorRT(engine(tmp_path), MODEL, tied())


@pytest.mark.parametrize(
    ("made", "version", "here", "why"),
    [
        (tied("8.5.2.2"), "8.5.2.2", (87,), ""),
        (tied("8.5.2"), "8.5.2.2", (), ""),
        (tied("8.5.2"), "8.5.3", (), "built by tensorrt 8.5.2, and 8.5.3"),
        (tied("8.6.1", flags=("VERSION_COMPATIBLE",)), "10.3.0", (87,), ""),
        (tied("10.3.0", flags=("VERSION_COMPATIBLE",)), "8.6.1", (87,), "and 8.6.1 is here"),
        (tied(), "10.3.0", (72, 87), ""),
        (tied(flags=("VERSION_COMPATIBLE",)), "10.7.0", (72,), "built for SM 87"),
    ],
)
def test_which_engine_fits_where(made: dict[str, Any], version: str, here: tuple[int, ...], why: str) -> None:
    came = misfit(made, version, here)
    assert (why in came) if why else came == ""


def test_without_a_gpu_the_engine_is_a_missing_dependency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (backends, cuda):
        monkeypatch.setattr(module, "sms", lambda: ())
    bundle = make_bundle(tmp_path / "lamps.bundle", int8=True)
    (bundle.path / "model.rtx-sm86.engine").write_bytes(b"plan")

    def built(facts: dict[str, Any]) -> Bundle:
        return bundle.with_stage(
            "build", settings={}, version=1, files={"engine": "model.rtx-sm86.engine"}, facts=facts, tools={}
        )

    ready = built({"engine": tie("0" * 64, "tensorrt_rtx", "1.7.1.116", 86, [])})
    monkeypatch.setattr(backends, "saturates", lambda: False)
    assert choose(ready, "auto") == "int8_cpu"
    monkeypatch.setattr(backends, "saturates", lambda: True)
    assert choose(ready, "auto") == "fp32"  # without VNNI, exact INT8 is the slower of the two
    with pytest.raises(MissingDependency, match=r"no CUDA device.*--precision int8"):
        open_backend(ready, "engine")
    with pytest.raises(BundleError, match=r"does not say which TensorRT built its engine.*edgecnn build"):
        open_backend(built({}), "engine")


@pytest.mark.slow
def test_the_real_cuda_python_answers_as_the_stand_in_does(tmp_path: Path) -> None:
    """Without a driver it imports, and every call says so; on a GPU, this copies for real."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--retries", "1", "--timeout", "10", "--target", str(tmp_path), "cuda-bindings", "cuda-pathfinder"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cuda-python is not to be had here: {done.stderr.strip()[-200:]}")
    code = (
        "import sys, numpy as np\nsys.path.insert(0, sys.argv[1])\n"
        "import cuda.bindings.runtime as runtime\nfrom edgecnn.backends import cuda\n"
        "import re, pathlib\nsource = pathlib.Path(cuda.__file__).read_text()\n"
        "names = set(re.findall(r'\"(cuda[A-Z]\\w+)\"', source)) | set(re.findall(r'_cuda\\.(cuda\\w+)', source))\n"
        "missing = {name for name in names if not hasattr(runtime, name)}\n"
        "assert not missing and len(names) == 17, (missing, names)\n"
        "assert runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal == 1\n"
        "memory = cuda.CudaPython(runtime)\nbuffer = memory.buffer((2, 3), np.dtype('float32'))\n"
        "buffer.host[:] = 7\nmemory.upload(buffer)\nmemory.wait()\nbuffer.host[:] = 0\n"
        "memory.download(buffer)\nmemory.wait()\nassert (buffer.host == 7).all()\n"
        "launch = memory.record(lambda: memory.upload(buffer))\nbuffer.host[:] = 9\nlaunch()\nmemory.wait()\n"
        "buffer.host[:] = 0\nmemory.download(buffer)\nmemory.wait()\nassert (buffer.host == 9).all()\n"
    )
    root = Path(trt_backend.__file__).resolve().parents[2]
    came = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=root)
    if sms():
        assert came.returncode == 0, came.stderr
    else:
        assert "cudaStreamCreate failed (cudaErrorInsufficientDriver): the driver is older" in came.stderr
