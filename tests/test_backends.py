from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import pytest
from tiny_detector import MODEL, make_bundle, write_network
from tiny_onnx import loud

from edgecnn import backends, cpu
from edgecnn.backends import FRAME, choose, open_backend
from edgecnn.backends.ort import OnnxRuntime
from edgecnn.backends.replay import Recorder, Replay
from edgecnn.bundle import Bundle, ModelSpec, TensorSpec
from edgecnn.errors import BundleError, InputError, ModelError


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
    monkeypatch.setattr(backends, "saturates", lambda: False)  # a CPU with VNNI
    assert choose(make_bundle(tmp_path, int8=int8), precision) == role  # type: ignore[arg-type]


def test_a_missing_precision_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="edgecnn quantize RECIPE"):
        open_backend(make_bundle(tmp_path), "int8")


def test_an_unknown_precision_is_refused(bundle: Bundle) -> None:
    with pytest.raises(ModelError, match=r"'fp8'.*fp32, int8, openvino, engine, auto"):
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
    monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(cpu.platform, "machine", lambda: machine)
    assert cpu.saturates() is wanted


def test_int8_sums_do_not_overflow(tmp_path: Path) -> None:
    """A 1x1 convolution over 64 channels, all 255 · 127: pairs of products leave 16 bits; the sum is 64 · 255 · 127."""
    channels, value = 64, 255 * 127
    network = loud(np.full((2, channels, 1, 1), 127, np.int8), np.array(1, np.float32), channels * value)
    onnx.save(network, tmp_path / "sums.onnx")
    model = ModelSpec("onnx", "classify", ("a", "b"), TensorSpec("x", (1, 3, 8, 8)))
    backend = OnnxRuntime(tmp_path / "sums.onnx", model, threads=1)
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
