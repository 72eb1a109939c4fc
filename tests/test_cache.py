"""The calibration cache: the published example, bit-exact round trips, and what can't stand in one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, helper, numpy_helper
from tiny_onnx import feeds, tiny

from edgecnn import cli
from edgecnn.build.cache import (
    Calibration,
    calibration,
    export,
    load,
    number,
    read,
    read_precisions,
    strip,
    write,
    write_precisions,
)
from edgecnn.errors import EdgecnnError, InputError, ModelError, RecipeError
from edgecnn.quantize.given import quantize_given
from edgecnn.quantize.stage import quantize
from edgecnn.recipe import QuantizeSection


@pytest.fixture(scope="module")
def int8() -> ModelProto:
    return quantize(tiny(), feeds(4), QuantizeSection(keep_float=("left",))).tensorrt


# --- the text --------------------------------------------------------------------------------------------------------


def test_the_known_example() -> None:
    """1/127 is 3c010204 (amax 1), under TensorRT 8.5.2's header."""
    text = write(Calibration({"x": np.float32(1 / 127), "conv1/out": np.float32(2)}), "8.5.2")
    assert text == "TRT-8502-EntropyCalibration2\nx: 3c010204\nconv1/out: 40000000\n"
    assert read(text).scales == {"x": np.float32(1 / 127), "conv1/out": np.float32(2)}


def test_a_cache_as_tensorrt_writes_it() -> None:
    """Other calibrators, unnamed layers, colons and blanks in names, hexadecimal without its leading zeros."""
    text = (
        "TRT-7202-MinMaxCalibration\r\n(Unnamed Layer* 4) [Fully Connected]_output: 3d65992f\r\nInput:0: 3c008912\r\n"
        "small: 1000000\r\n"
    )
    scales = read(text).scales
    assert list(scales) == ["(Unnamed Layer* 4) [Fully Connected]_output", "Input:0", "small"]
    assert scales["small"] == np.float32(2.0**-125)  # 01000000: exponent field 2, mantissa 0


@pytest.mark.parametrize(
    ("version", "wanted"),
    [("8.2.1", 8201), ("8.5.2.2", 8502), ("8.6", 8600), ("10.3.0", 100300), ("10.13", 101300), ("100304", 100304)],
)
def test_the_number_of_a_version(version: str, wanted: int) -> None:
    assert number(version) == wanted


@pytest.mark.parametrize(
    ("version", "words"),
    [("11.4.0", "reads no calibration cache"), ("7.1.3", "wanted 8, 9 or 10"), ("x", "no version")],
)
def test_versions_without_a_cache_are_refused(version: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        number(version)


names = st.text(
    st.characters(codec="utf-8", exclude_characters="\n\r", exclude_categories=("Cs", "Zs", "Cc", "Zl", "Zp")),
    min_size=1,
)
positive = st.floats(width=32, min_value=2.0**-126, allow_infinity=False).map(np.float32)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(names, positive, min_size=1), st.sampled_from(["8.2.1", "8.6.1", "10.3.0"]))
def test_any_scale_survives_bit_by_bit(scales: dict[str, np.float32], version: str) -> None:
    back = read(write(Calibration(scales), version)).scales
    assert {name: value.tobytes() for name, value in back.items()} == {n: v.tobytes() for n, v in scales.items()}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no calibration cache"),
        ("x: 3c010204\n", "it begins with 'x: 3c010204'"),
        ("TRT-8502-EntropyCalibration2\n", "names no tensor"),
        ("TRT-8502-EntropyCalibration2\nx 3c010204\n", "line 2 of the calibration cache is 'x 3c010204'"),
        ("TRT-8502-EntropyCalibration2\nx: 3c0102045\n", "line 2"),
        ("TRT-8502-EntropyCalibration2\nx: 7f800000\n", "the scale of x is inf"),
        ("TRT-8502-EntropyCalibration2\nx: 0\n", "the scale of x is 0"),
        ("TRT-8502-EntropyCalibration2\nx: bc010204\n", "wanted a positive number"),
        ("TRT-8502-EntropyCalibration2\nx: 3c010204\nx: 3c010205\n", "line 3: x has two scales"),
    ],
)
def test_what_is_no_cache_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "two\nlines", " x"])
def test_a_name_that_a_line_cannot_hold(name: str) -> None:
    with pytest.raises(ModelError, match="can't stand in a calibration cache"):
        write(Calibration({name: np.float32(1)}), "8.5.2")


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.text(st.characters(codec="ascii", exclude_characters=",:\n\r", exclude_categories=("Cc", "Zs")), min_size=1)
    )
)
def test_layer_lists_survive(floats: list[str]) -> None:
    assert read_precisions(write_precisions(floats)) == tuple(floats)


@pytest.mark.parametrize("text", ["conv1:fp16", "conv1", "conv1:fp32,conv2"])
def test_a_list_of_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="wanted layer:fp32"):
        read_precisions(text)


# --- networks --------------------------------------------------------------------------------------------------------


def activation_scales(model: ModelProto) -> dict[str, bytes]:
    """Read from the file itself, not with the code under test."""
    value = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    return {
        n.input[0]: value[n.input[1]].tobytes()
        for n in model.graph.node
        if n.op_type == "QuantizeLinear" and n.input[0] not in value
    }


def test_pairs_become_a_cache_and_a_cache_becomes_the_same_pairs(int8: ModelProto) -> None:
    found = calibration(int8)
    assert found.floats == ("left",)
    wanted = activation_scales(int8)
    assert {name: found.scales[name].tobytes() for name in wanted} == wanted
    # the output of a kernel before its ReLU goes with what comes after, as TensorRT 8 wants it
    assert found.scales["depthwise"] == found.scales["depthwise.relu"]
    text, floats = write(found, "8.5.2"), write_precisions(found.floats)
    again, kept = quantize_given(strip(int8), read(text).scales, read_precisions(floats))
    onnx.checker.check_model(again, full_check=True)
    assert kept == ("left",) and activation_scales(again) == wanted
    assert calibration(again) == found


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_scales_go_there_and_back(int8: ModelProto, data: st.DataObject) -> None:
    changed = ModelProto()
    changed.CopyFrom(int8)
    for name in activation_scales(int8):
        tensor = next(t for t in changed.graph.initializer if t.name == f"{name}_scale")
        tensor.CopyFrom(numpy_helper.from_array(np.array(data.draw(positive)), tensor.name))
    again, _ = quantize_given(strip(changed), read(write(calibration(changed), "10.3.0")).scales, ("left",))
    assert activation_scales(again) == activation_scales(changed)


def test_without_pairs_the_network_computes_as_before_quantisation(int8: ModelProto) -> None:
    plain = strip(int8)
    assert {n.op_type for n in plain.graph.node}.isdisjoint({"QuantizeLinear", "DequantizeLinear"})
    onnx.checker.check_model(plain, full_check=True)
    x = feeds(1)[0]
    one, other = (ort.InferenceSession(m.SerializeToString()).run(None, {"x": x})[0] for m in (plain, tiny()))
    assert np.abs(one - other).max() < 0.05 * np.ptp(other)  # biases were corrected, weights evened out


def test_the_cpu_form_can_not_be_stripped() -> None:
    with pytest.raises(ModelError, match=r"stored as integers; wanted TensorRT's form, model\.int8\.onnx"):
        strip(quantize(tiny(), feeds(4), QuantizeSection()).cpu)


def test_a_network_without_pairs_or_with_a_scale_a_channel_has_no_cache(int8: ModelProto) -> None:
    with pytest.raises(ModelError, match=r"holds no Q/DQ pairs.*edgecnn quantize"):
        calibration(tiny())
    bad = ModelProto()
    bad.CopyFrom(int8)
    tensor = next(t for t in bad.graph.initializer if t.name == "x_scale")
    tensor.CopyFrom(numpy_helper.from_array(np.ones(3, np.float32), "x_scale"))
    with pytest.raises(ModelError, match="x_Q has 3 scales for an activation"):
        calibration(bad)


def test_a_foreign_cache_names_more_tensors_or_fewer(int8: ModelProto) -> None:
    """TensorRT's own caches name every tensor; a kernel whose input is not named stays float."""
    found, plain = calibration(int8), strip(int8)
    more = {**found.scales, "(Unnamed Layer* 8) [Constant]_output": np.float32(1), "fc": np.float32(3)}
    again, _ = quantize_given(plain, more, ("left",))
    assert activation_scales(again) == activation_scales(int8)
    fewer = {name: scale for name, scale in found.scales.items() if name != "cat"}
    again, kept = quantize_given(plain, fewer, ("left",))
    assert set(kept) == {"left", "mix"}
    onnx.checker.check_model(again, full_check=True)
    with pytest.raises(ModelError, match=r"no scale fits this network: it asks for x, .*they name images"):
        quantize_given(plain, {"images": np.float32(1)})
    with pytest.raises(RecipeError, match="keep_float names 'nobody'"):
        quantize_given(plain, found.scales, ("nobody",))


def test_a_layer_list_beside_the_cache_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "calib.cache").write_text("TRT-8502-EntropyCalibration2\nx: 3c010204\n", "utf-8")
    assert load(tmp_path / "calib.cache").floats == ()
    (tmp_path / "calib.precisions").write_text("left:fp32,fc:fp32", "utf-8")
    assert load(tmp_path / "calib.cache") == Calibration({"x": np.float32(1 / 127)}, ("left", "fc"))
    (tmp_path / "calib.cache").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not readable"):
        load(tmp_path / "calib.cache")


def test_an_output_behind_a_pair_is_refused(int8: ModelProto) -> None:
    odd = ModelProto()
    odd.CopyFrom(int8)
    odd.graph.output.append(helper.make_tensor_value_info("cat_dq", onnx.TensorProto.FLOAT, None))
    with pytest.raises(EdgecnnError, match="cat_dq comes out of a Q/DQ pair"):
        strip(odd)


# --- the command ----------------------------------------------------------------------------------------------------


def called(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["edgecnn", "cache", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_the_command_writes_a_cache_and_reads_it_back(
    int8: ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(int8, tmp_path / "model.int8.onnx")
    out = tmp_path / "made" / "calib.cache"
    assert called(monkeypatch, tmp_path / "model.int8.onnx", "--trt", "10.3.0", "--out", out, "--json") == 0
    made = [Path(file).name for file in json.loads(capsys.readouterr().out)["files"]]
    assert made == ["calib.cache", "calib.onnx", "calib.precisions"]
    assert out.read_text("utf-8").startswith("TRT-100300-EntropyCalibration2\n")
    back = tmp_path / "back.onnx"
    assert called(monkeypatch, out.with_suffix(".onnx"), "--read", out, "--out", back) == 0
    assert capsys.readouterr().out.endswith("in float: left\n")
    assert activation_scales(onnx.load(back)) == activation_scales(int8)
    assert calibration(onnx.load(back)) == calibration(int8)


def test_a_list_that_an_earlier_run_left_is_taken_away(int8: ModelProto, tmp_path: Path) -> None:
    """Else it would be read with a cache that it does not belong to."""
    onnx.save(int8, tmp_path / "some.onnx")
    export(tmp_path / "some.onnx", tmp_path / "calib.cache", "8.5.2")
    assert load(tmp_path / "calib.cache").floats == ("left",)
    onnx.save(quantize(tiny(), feeds(4), QuantizeSection()).tensorrt, tmp_path / "all.onnx")
    export(tmp_path / "all.onnx", tmp_path / "calib.cache", "8.5.2")
    assert load(tmp_path / "calib.cache").floats == ()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["none.onnx", "--out", "calib.cache"], 3, "there is nothing at none.onnx"),
        (["plain.onnx", "--out", "calib.cache"], 6, "holds no Q/DQ pairs"),
        (["int8.onnx", "--out", "int8.onnx"], 3, "would overwrite int8.onnx or itself"),
        (["int8.onnx", "--out", "int8.cache"], 3, "would overwrite int8.onnx"),
        (["int8.onnx", "--out", "calib.cache", "--trt", "11.4.0"], 3, "TensorRT 11.4.0 reads no calibration cache"),
        (["plain.onnx", "--read", "none.cache", "--out", "q.onnx"], 3, "none.cache is not readable"),
        (["int8.onnx", "--read", "x.cache", "--out", "q.onnx"], 6, "holds Q/DQ pairs already"),
        (["plain.onnx", "--read", "x.cache", "--out", "x.cache"], 3, "no place for the result"),
        (["plain.onnx", "--read", "x.cache", "--out", "plain.onnx"], 3, "no place for the result"),
    ],
)
def test_the_command_refuses_and_writes_nothing(
    arguments: list[str],
    code: int,
    words: str,
    int8: ModelProto,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(int8, "int8.onnx")
    onnx.save(tiny(), "plain.onnx")
    Path("x.cache").write_text("TRT-8502-EntropyCalibration2\nx: 3c010204\n", "utf-8")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert called(monkeypatch, *arguments) == code
    came = capsys.readouterr()
    assert words in came.err and came.err.count("\n") == 1 and came.out == ""
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
