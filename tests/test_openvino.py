"""OpenVINO's answers are onnxruntime's, its sums do not overflow, and where it is missing the error says so."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny_detector import MODEL, make_bundle
from tiny_onnx import SHAPE, feeds, loud, tiny

from edgecnn.backends import open_backend
from edgecnn.bundle import Bundle, ModelSpec, TensorSpec
from edgecnn.errors import BundleError, MissingDependency, ModelError
from edgecnn.quantize.ranges import tapped
from edgecnn.quantize.stage import quantize
from edgecnn.recipe import QuantizeSection

TINY = ModelSpec("onnx", "classify", tuple("abcdefghij"), TensorSpec("x", SHAPE))


def test_where_it_is_missing_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "edgecnn.backends.openvino", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependency, match=r"pip install 'edgecnn\[openvino\]'"):
        open_backend(make_bundle(tmp_path, int8=True), "openvino")


@pytest.fixture(scope="module")
def openvino() -> Any:
    pytest.importorskip("openvino", reason="openvino is not installed")
    from edgecnn.backends import openvino as backend

    return backend


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "lamps.bundle", int8=True)


def test_answers_are_those_of_onnxruntime(openvino: Any, bundle: Bundle) -> None:
    x = {"images": np.random.default_rng(0).uniform(0, 255, MODEL.input.shape).astype(np.float32)}
    wanted = open_backend(bundle, "int8", threads=1)(x)
    backend = open_backend(bundle, "openvino", threads=1)
    came = backend(x)
    assert list(came) == ["boxes", "scores"]
    for name, value in wanted.items():
        np.testing.assert_allclose(came[name], value, rtol=1e-4, atol=1e-6)
    backend({"images": np.zeros_like(x["images"])})
    np.testing.assert_allclose(came["boxes"], wanted["boxes"], rtol=1e-4, atol=1e-6)  # the caller's own


@pytest.mark.parametrize("overflows", [True, False])
def test_a_quantised_network_as_written(
    openvino: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overflows: bool
) -> None:
    """Against the file as written, so without graph optimisation; rounding weights anew costs little."""
    monkeypatch.setattr(openvino, "saturates", lambda: overflows)
    network = quantize(tiny(), feeds(4), QuantizeSection()).cpu
    onnx.save(network, tmp_path / "tiny.onnx")
    backend = openvino.OpenVINO(tmp_path / "tiny.onnx", TINY, threads=1)
    written = tapped(network, (), optimise=False)
    wanted = np.stack([written.run(None, {"x": x})[0] for x in feeds(8)])
    came = np.stack([backend({"x": x})["fc"] for x in feeds(8)])
    noise = np.square(wanted - came).mean() / np.square(wanted).mean()
    assert 10 * np.log10(1 / noise) > 25


@pytest.mark.parametrize("groups", [1, 64])
def test_int8_sums_do_not_overflow(openvino: Any, tmp_path: Path, groups: int) -> None:
    """All activations 255, all weights 127: pairs of products leave 16 bits. 9 taps, 64 channels or one."""
    total = 9 * (64 // groups) * 255 * 127
    model = loud(np.full((64, 64 // groups, 3, 3), 127, np.int8), np.ones(64, np.float32), total, groups)
    onnx.save(model, tmp_path / "sums.onnx")
    spec = ModelSpec("onnx", "classify", tuple(map(str, range(64))), TensorSpec("x", (1, 3, 8, 8)))
    backend = openvino.OpenVINO(tmp_path / "sums.onnx", spec, threads=1)
    came = backend({"x": np.full((1, 3, 8, 8), 255, np.float32)})["logits"]
    np.testing.assert_allclose(came, total, rtol=0.01)  # 127 may have become 2 · 64


@pytest.mark.parametrize(
    ("weights", "factor"),
    [
        ([127, 127], 2.0),  # 254 / 127
        ([127, -127], 1.0),  # signs differ: products do not add up
        ([-100, -90], 190 / 127),
        ([64, 64], 1.0),
        ([1, 127, 127, 1], 1.0),  # pairs are (1, 127) and (127, 1)
        ([127, 0, 127], 1.0),  # the third has no partner
    ],
)
def test_how_much_coarser_by_hand(openvino: Any, weights: list[int], factor: float) -> None:
    came = openvino.coarser(np.array([weights, [0] * len(weights)], np.int8))
    assert came == pytest.approx([factor, 1.0])


@given(weight=arrays(np.int8, (2, 5, 2), elements=st.integers(-127, 127)))
def test_no_pair_of_rounded_weights_overflows(openvino: Any, weight: np.ndarray) -> None:
    factor = openvino.coarser(weight)
    whole = np.pad(np.rint(weight / factor.reshape(-1, 1, 1)), ((0, 0), (0, 1), (0, 0)))
    for sign in (1, -1):
        one_sign = np.maximum(sign * whole, 0)
        assert (255 * (one_sign[:, 0::2] + one_sign[:, 1::2])).max() <= 32767


def test_what_does_not_fit_is_refused(bundle: Bundle, openvino: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="asks for"):
        openvino.OpenVINO(bundle.file("int8_cpu"), TINY, threads=1)
    (tmp_path / "no.onnx").write_text("not a network")
    with pytest.raises(ModelError, match="does not load") as caught:
        openvino.OpenVINO(tmp_path / "no.onnx", MODEL, threads=1)
    assert "\n" not in str(caught.value)


def test_it_wants_the_int8_file(openvino: Any, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="edgecnn quantize RECIPE"):
        open_backend(make_bundle(tmp_path), "openvino")
