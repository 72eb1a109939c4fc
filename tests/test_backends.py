from __future__ import annotations

import ctypes
import enum
import sys
import types
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import pytest
from onnx import helper, numpy_helper
from tiny_detector import MODEL, make_bundle, write_network

from edgecnn.backends import FRAME, choose, open_backend
from edgecnn.backends import ort as ort_backend
from edgecnn.backends import trt as trt_backend
from edgecnn.backends.replay import Recorder, Replay
from edgecnn.bundle import Bundle, ModelSpec, TensorSpec
from edgecnn.errors import BuildError, BundleError, InputError, MissingDependency, ModelError


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "lamps.bundle", int8=True)


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, MODEL.input.shape).astype(np.float32)


def feeds(seed: int = 0, frame: int = 0) -> dict[str, np.ndarray]:
    return {"images": picture(seed), FRAME: np.array(frame)}


def test_onnxruntime_agrees_with_the_reference_evaluator(bundle: Bundle) -> None:
    came = open_backend(bundle, "fp32", threads=1)(feeds())
    reference = onnx.reference.ReferenceEvaluator(str(bundle.file("fp32")))
    wanted = dict(zip(["boxes", "scores"], reference.run(None, {"images": picture()}), strict=True))
    assert list(came) == ["boxes", "scores"]
    for name in wanted:
        np.testing.assert_allclose(came[name], wanted[name], rtol=1e-4, atol=1e-6)


def test_answers_stay_the_callers_own(bundle: Bundle) -> None:
    backend = open_backend(bundle, "fp32", threads=1)
    first = backend(feeds(0))
    before = first["scores"].copy()
    second = backend(feeds(1))
    assert not np.array_equal(second["scores"], before)
    np.testing.assert_array_equal(first["scores"], before)


@pytest.mark.parametrize(
    ("int8", "precision", "role"),
    [
        (False, "fp32", "fp32"),
        (False, "int8", "int8_cpu"),
        (False, "auto", "fp32"),
        (True, "int8", "int8_cpu"),
        (True, "auto", "int8_cpu"),
        (True, "engine", "engine"),
    ],
)
def test_precision_names_one_file(
    tmp_path: Path, int8: bool, precision: str, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort_backend, "saturates", lambda: False)  # a CPU with VNNI
    assert choose(make_bundle(tmp_path, int8=int8), precision) == role  # type: ignore[arg-type]


def test_a_missing_precision_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="edgecnn quantize RECIPE"):
        open_backend(make_bundle(tmp_path), "int8")


def test_an_unknown_precision_is_refused(bundle: Bundle) -> None:
    with pytest.raises(ModelError, match=r"'fp8'.*fp32, int8, engine, auto"):
        choose(bundle, "fp8")  # type: ignore[arg-type]


def test_a_changed_file_is_never_loaded(bundle: Bundle) -> None:
    path = bundle.path / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(BundleError, match="was changed since it was made"):
        open_backend(bundle, "fp32")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 128}, "asks for .*128"),
        ({"input_name": "data"}, "asks for .*data"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    write_network(tmp_path / "model.onnx", **change)  # type: ignore[arg-type]
    bundle = Bundle(tmp_path).with_stage(
        "export", settings={}, version=1, files={"fp32": "model.onnx"}, facts={}, tools={}, model=MODEL
    )
    with pytest.raises(ModelError, match=message):
        open_backend(bundle, "fp32")


def test_outputs_are_held_against_the_decoder(tmp_path: Path) -> None:
    write_network(tmp_path / "model.onnx")
    wrong = ModelSpec(**{**vars(MODEL), "classes": ("one", "two", "three")})
    bundle = Bundle(tmp_path).with_stage(
        "export", settings={}, version=1, files={"fp32": "model.onnx"}, facts={}, tools={}, model=wrong
    )
    with pytest.raises(ModelError, match="3 classes"):
        open_backend(bundle, "fp32")


def test_no_network_at_all_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("not a network")
    bundle = Bundle(tmp_path).with_stage(
        "export", settings={}, version=1, files={"fp32": "model.onnx"}, facts={}, tools={}, model=MODEL
    )
    with pytest.raises(ModelError, match="does not load"):
        open_backend(bundle, "fp32")


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "wanted"),
    [
        ("x86_64", "flags\t\t: fpu avx2 avx512f avx512_vnni\n", False),
        ("x86_64", "flags\t\t: fpu avx2 avx_vnni\n", False),
        ("AMD64", "flags\t\t: fpu avx2 avx512f\n", True),
        ("x86_64", None, True),  # unknown: rather slow than wrong
        ("aarch64", "Features\t: fp asimd asimddp\n", False),
    ],
)
def test_x86_without_vnni_asks_for_exact_sums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, cpuinfo: str | None, wanted: bool
) -> None:
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(ort_backend, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(ort_backend.platform, "machine", lambda: machine)
    assert ort_backend.saturates() is wanted


def test_int8_sums_do_not_overflow(tmp_path: Path) -> None:
    """A 1x1 convolution over 64 channels, all 255 · 127: pairs of products leave 16 bits; the sum is 64 · 255 · 127."""
    channels, value = 64, 255 * 127
    array = {
        "one": np.array(1, np.float32),
        "zero_u8": np.array(0, np.uint8),
        "zero_s8": np.array(0, np.int8),
        "weight": np.full((2, channels, 1, 1), 127, np.int8),
        "large": np.array(channels * value / 200, np.float32),
        "spread": np.ones((channels, 3, 1, 1), np.float32) / 3,
    }
    nodes = [
        helper.make_node("Conv", ["x", "spread"], ["wide"]),
        helper.make_node("QuantizeLinear", ["wide", "one", "zero_u8"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "one", "zero_u8"], ["d"]),
        helper.make_node("DequantizeLinear", ["weight", "one", "zero_s8"], ["w"]),
        helper.make_node("Conv", ["d", "w"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "large", "zero_u8"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "large", "zero_u8"], ["yd"]),
        helper.make_node("GlobalAveragePool", ["yd"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "sums",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, (1, 2))],
        [numpy_helper.from_array(a, name) for name, a in array.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "sums.onnx"
    )
    model = ModelSpec("onnx", "classify", ("a", "b"), TensorSpec("x", (1, 3, 8, 8)))
    backend = ort_backend.OnnxRuntime(tmp_path / "sums.onnx", model, threads=1)
    came = backend({"x": np.full((1, 3, 8, 8), 255, np.float32)})["logits"]
    np.testing.assert_allclose(came, channels * value, rtol=1e-3)


def test_a_recording_answers_by_frame_number(bundle: Bundle, tmp_path: Path) -> None:
    recorder = Recorder(open_backend(bundle, "fp32", threads=1))
    wanted = {frame: recorder(feeds(frame, frame)) for frame in (0, 3, 7)}
    recorder.save(tmp_path / "answers.npz")
    replay = Replay(tmp_path / "answers.npz", MODEL)
    for frame in (7, 0, 3):
        came = replay({FRAME: np.array(frame)})
        assert list(came) == ["boxes", "scores"]
        for name, value in came.items():
            np.testing.assert_array_equal(value, wanted[frame][name])
    with pytest.raises(InputError, match="no frame 1 "):
        replay({FRAME: np.array(1)})


@pytest.mark.parametrize("content", [b"", b"hello", None])
def test_what_is_no_recording_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "answers.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="no recording"):
        Replay(path, MODEL)


def test_a_recording_of_another_network_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    recorder = Recorder(open_backend(bundle, "fp32", threads=1))
    recorder(feeds())
    recorder.save(tmp_path / "answers.npz")
    other = ModelSpec(**{**vars(MODEL), "input": TensorSpec("images", (1, 3, 128, 96))})
    with pytest.raises(ModelError, match="answers with"):
        Replay(tmp_path / "answers.npz", other)


# TensorRT. No GPU here: the sequence of calls is held against a stand-in for the CUDA runtime and for TensorRT, and the
# names that are called against the real bindings.


class Status(enum.IntEnum):
    ok = 0
    broken = 2


class FakeCuda:
    """Host memory stands in for device memory; every call is noted."""

    class cudaMemcpyKind:
        cudaMemcpyHostToDevice = 1
        cudaMemcpyDeviceToHost = 2

    def __init__(self) -> None:
        self.log: list[str] = []
        self.memory: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self.fail = ""

    def _call(self, name: str, *answer: object) -> tuple[object, ...]:
        self.log.append(name)
        return (Status.broken if name == self.fail else Status.ok, *answer)

    def _allocate(self, size: int) -> int:
        block = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def cudaStreamCreate(self) -> tuple[object, ...]:
        return self._call("cudaStreamCreate", 77)

    def cudaStreamDestroy(self, stream: int) -> tuple[object, ...]:
        return self._call("cudaStreamDestroy")

    def cudaMallocHost(self, size: int) -> tuple[object, ...]:
        return self._call("cudaMallocHost", self._allocate(size))

    def cudaMalloc(self, size: int) -> tuple[object, ...]:
        return self._call("cudaMalloc", self._allocate(size))

    def cudaFree(self, pointer: int) -> tuple[object, ...]:
        return self._call("cudaFree")

    def cudaFreeHost(self, pointer: int) -> tuple[object, ...]:
        return self._call("cudaFreeHost")

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> tuple[object, ...]:
        assert stream == 77
        ctypes.memmove(to, source, size)
        return self._call("cudaMemcpyAsync")

    def cudaStreamSynchronize(self, stream: int) -> tuple[object, ...]:
        return self._call("cudaStreamSynchronize")


class FakeEngine:
    """Three tensors as MODEL wants them; running it writes the input's mean into the scores."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.shapes = {"images": MODEL.input.shape, **{o.name: o.shape for o in MODEL.outputs}}
        self.num_io_tensors, self.cuda, self.address = len(self.shapes), cuda, dict[str, int]()

    def get_tensor_name(self, index: int) -> str:
        return list(self.shapes)[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == "images" else "out"

    def get_tensor_dtype(self, name: str) -> type:
        return np.float32

    def create_execution_context(self) -> FakeEngine:
        return self

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.address[name] = address
        return True

    def view(self, name: str) -> np.ndarray:
        size = int(np.prod(self.shapes[name]))
        return np.frombuffer((ctypes.c_float * size).from_address(self.address[name]), np.float32)

    def execute_async_v3(self, stream: int) -> bool:
        self.cuda.log.append("execute")
        self.view("scores")[:] = self.view("images").mean()
        return True


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> tuple[FakeCuda, types.SimpleNamespace]:
    """CUDA and `tensorrt` as modules that `trt` will import."""

    class Logger:
        Severity = types.SimpleNamespace(ERROR=1, INTERNAL_ERROR=0, INFO=3)

    class Runtime:
        def __init__(self, log: Logger) -> None:
            self.log = log

        def deserialize_cuda_engine(self, data: bytes) -> FakeEngine | None:
            if data != b"plan":
                self.log.log(1, "built for another device")  # type: ignore[attr-defined]
                return None
            return FakeEngine(cuda)

    cuda = FakeCuda()
    trt = types.SimpleNamespace(
        __name__="tensorrt", __version__="10.3", ILogger=Logger, Runtime=Runtime, nptype=lambda t: t
    )
    trt.TensorIOMode = types.SimpleNamespace(INPUT="in", OUTPUT="out")
    monkeypatch.setattr(trt_backend, "gpus", lambda: 1)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    return cuda, trt


def engine_file(tmp_path: Path, content: bytes = b"plan") -> Path:
    path = tmp_path / "model.orin.engine"
    path.write_bytes(content)
    return path


def test_tensorrt_copies_runs_and_copies_back_on_one_stream(
    fakes: tuple[FakeCuda, types.SimpleNamespace], tmp_path: Path
) -> None:
    cuda, _ = fakes
    backend = trt_backend.TensorRT(engine_file(tmp_path), MODEL)
    cuda.log.clear()
    answer = backend(feeds())
    assert cuda.log == ["cudaMemcpyAsync", "execute", "cudaMemcpyAsync", "cudaMemcpyAsync", "cudaStreamSynchronize"]
    np.testing.assert_allclose(answer["scores"], picture().mean(), rtol=1e-5)
    assert answer["boxes"].shape == MODEL.outputs[0].shape
    backend({"images": np.zeros(MODEL.input.shape, np.float32)})
    np.testing.assert_allclose(answer["scores"], picture().mean(), rtol=1e-5)  # the caller's own copy


def test_tensorrt_gives_its_memory_back(fakes: tuple[FakeCuda, types.SimpleNamespace], tmp_path: Path) -> None:
    cuda, _ = fakes
    backend = trt_backend.TensorRT(engine_file(tmp_path), MODEL)
    cuda.log.clear()
    del backend
    assert sorted(cuda.log) == ["cudaFree"] * 3 + ["cudaFreeHost"] * 3 + ["cudaStreamDestroy"]


def test_a_cuda_failure_is_named(fakes: tuple[FakeCuda, types.SimpleNamespace], tmp_path: Path) -> None:
    cuda, _ = fakes
    cuda.fail = "cudaMalloc"
    with pytest.raises(MissingDependency, match=r"cudaMalloc failed \(broken\)"):
        trt_backend.TensorRT(engine_file(tmp_path), MODEL)


def test_a_foreign_engine_says_why_and_what_to_do(
    fakes: tuple[FakeCuda, types.SimpleNamespace], tmp_path: Path
) -> None:
    with pytest.raises(BuildError, match=r"built for another device.*edgecnn build"):
        trt_backend.TensorRT(engine_file(tmp_path, b"other"), MODEL)


def test_without_a_gpu_the_engine_is_a_missing_dependency(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trt_backend, "gpus", lambda: 0)
    (bundle.path / "model.rtx-sm86.engine").write_bytes(b"plan")
    bundle = bundle.with_stage(
        "build", settings={}, version=1, files={"engine": "model.rtx-sm86.engine"}, facts={}, tools={}
    )
    monkeypatch.setattr(ort_backend, "saturates", lambda: False)
    assert choose(bundle, "auto") == "int8_cpu"
    monkeypatch.setattr(ort_backend, "saturates", lambda: True)
    assert choose(bundle, "auto") == "fp32"  # without VNNI, exact INT8 is the slower of the two
    with pytest.raises(MissingDependency, match=r"no CUDA device.*--precision int8"):
        open_backend(bundle, "engine")


def test_the_real_bindings_have_every_name_that_is_called() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    for owner, names in {
        trt.Runtime: ["deserialize_cuda_engine"],
        trt.ICudaEngine: [
            "num_io_tensors",
            "get_tensor_name",
            "get_tensor_shape",
            "get_tensor_mode",
            "get_tensor_dtype",
            "create_execution_context",
        ],
        trt.IExecutionContext: ["set_tensor_address", "execute_async_v3"],
        trt.TensorIOMode: ["INPUT", "OUTPUT"],
        trt.ILogger.Severity: ["ERROR", "INTERNAL_ERROR"],
        trt: ["nptype", "__version__"],
    }.items():
        assert [name for name in names if not hasattr(owner, name)] == []
    listener = trt_backend._listener(trt)
    assert trt.Runtime(listener) is not None
