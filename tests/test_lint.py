"""Each rule of `edgecnn lint`: a network that breaks it, the finding, the repaired one, the same answers, a build."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tiny_onnx import SHAPE, Sketch, feeds, tiny

from edgecnn import cli
from edgecnn.build import lint, readers, worker
from edgecnn.build.lint import RULES, check_model, find
from edgecnn.build.lint.dla import falls_back, partition
from edgecnn.build.lint.fix import fix, write
from edgecnn.build.lint.net import Net
from edgecnn.build.lint.parity import compare, random_feeds
from edgecnn.build.network import Options
from edgecnn.build.targets import TARGETS
from edgecnn.build.targets import find as find_board
from edgecnn.build.xray import xray
from edgecnn.errors import BuildError, InputError, ModelError
from edgecnn.quantize.graph import prepare
from edgecnn.quantize.stage import quantize
from edgecnn.recipe import QuantizeSection

Change = Callable[[ModelProto], None]
Q, DQ = "QuantizeLinear", "DequantizeLinear"


@pytest.fixture(scope="module")
def int8() -> ModelProto:
    """What edgecnn itself writes for TensorRT."""
    return quantize(tiny(), feeds(4), QuantizeSection()).tensorrt


def changed(model: ModelProto, change: Change) -> ModelProto:
    result = ModelProto()
    result.CopyFrom(model)
    change(result)
    onnx.checker.check_model(result)
    return result


def rules(model: ModelProto, target: str) -> set[str]:
    return {finding.rule for finding in check_model(model, find(target))}


# ---- one fault each


def node_named(model: ModelProto, name: str) -> onnx.NodeProto:
    return next(n for n in model.graph.node if n.name == name)


def constant(model: ModelProto, name: str) -> TensorProto:
    return next(t for t in model.graph.initializer if t.name == name)


def replace(name: str, value: np.ndarray) -> Change:
    return lambda model: constant(model, name).CopyFrom(numpy_helper.from_array(value, name))


def add(model: ModelProto, **values: np.ndarray) -> None:
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in values.items())


def uint8_at(zero: int) -> Change:
    """A uint8 pair on the input; from 128 its levels are those of int8 around 0."""

    def change(model: ModelProto) -> None:
        replace("x_zero", np.array(zero, np.uint8))(model)

    return change


def integer_weights(model: ModelProto, node: str) -> np.ndarray:
    """Let the weights of a kernel be int8 constants, as other tools write them; returns the levels."""
    name = f"{node}.weight"
    w = numpy_helper.to_array(constant(model, name))
    scale = numpy_helper.to_array(constant(model, f"{name}_scale")).reshape(-1, *[1] * (w.ndim - 1))
    levels = np.round(w / scale).clip(-128, 127).astype(np.int8)
    model.graph.node.remove(node_named(model, f"{name}_Q"))
    add(model, **{f"{name}_s8": levels})
    node_named(model, f"{name}_DQ").input[0] = f"{name}_s8"
    return levels


def gemm_weights_last(model: ModelProto) -> None:
    """(inputs, outputs) with scales on axis 1: onnxruntime's form."""
    levels = integer_weights(model, "fc")
    replace("fc.weight_s8", np.ascontiguousarray(levels.T))(model)
    node_named(model, "fc.weight_DQ").attribute[0].i = 1
    gemm = node_named(model, "fc")
    next(a for a in gemm.attribute if a.name == "transB").i = 0


def conv_scales_on_inputs(model: ModelProto) -> None:
    levels = integer_weights(model, "mix")
    node_named(model, "mix.weight_DQ").attribute[0].i = 1
    assert levels.shape[0] == levels.shape[1]


def int32_bias(model: ModelProto) -> None:
    bias = numpy_helper.to_array(constant(model, node_named(model, "mix").input[2]))
    scale = np.full(len(bias), 1e-4, np.float32)
    add(model, b=np.round(bias / scale).astype(np.int32), s=scale)
    model.graph.node.insert(0, helper.make_node(DQ, ["b", "s"], ["b_dq"], "b_DQ", axis=0))
    node_named(model, "mix").input[2] = "b_dq"


def pair_on(model: ModelProto, tensor: str, scale: float, readers: dict[str, int], name: str) -> None:
    """Q/DQ on a tensor for some of its readers."""
    add(model, **{f"{name}_s": np.float32(scale), f"{name}_z": np.int8(0)})
    at = next(i for i, n in enumerate(model.graph.node) if tensor in n.output) + 1
    given = [f"{name}_s", f"{name}_z"]
    model.graph.node.insert(at, helper.make_node(Q, [tensor, *given], [f"{name}_q"], f"{name}_Q"))
    model.graph.node.insert(at + 1, helper.make_node(DQ, [f"{name}_q", *given], [f"{name}_f"], f"{name}_DQ"))
    for reader, index in readers.items():
        node_named(model, reader).input[index] = f"{name}_f"


def before_relu(model: ModelProto) -> None:
    pair_on(model, "mix", 0.05, {"mix.relu": 0}, "between")


def skip_in_float(model: ModelProto) -> None:
    node_named(model, "add").input[1] = "stem.relu"


def both_quantised(model: ModelProto) -> None:
    pair_on(model, "pointwise", 0.05, {"add": 0}, "main")


def pool_in_float(model: ModelProto) -> None:
    """The pool reads the tensor, another reader its pair."""
    gap = node_named(model, "gap")
    pair = gap.input[0]
    gap.input[0] = "mix.relu"
    model.graph.node.append(helper.make_node("ReduceMax", [pair], ["peak"], "peak", keepdims=0, axes=[1, 2, 3]))
    model.graph.output.append(helper.make_tensor_value_info("peak", TensorProto.FLOAT, [1]))


def mixed(model: ModelProto) -> None:
    cat = next(i for i, n in enumerate(model.graph.node) if n.name == "cat")
    model.graph.node.insert(cat, helper.make_node("Sigmoid", ["pool_dq"], ["p"], "p"))
    model.graph.node[cat + 1].input[1] = "p"
    replace("cat_scale", np.array(5.0, np.float32))(model)


def dynamic(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"


def with_node(op: str, domain: str = "") -> Change:
    def change(model: ModelProto) -> None:
        inputs = {"QLinearConv": 8, "NonMaxSuppression": 2, "RoiAlign": 3, "EfficientNMS_TRT": 2}.get(op, 1)
        names = [f"{op}_{i}" for i in range(inputs)]
        model.graph.input.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, 1]) for n in names)
        outputs = 3 if op == "DynamicQuantizeLinear" else 1
        out = [f"{op}_out{i}" for i in range(outputs)]
        model.graph.node.append(helper.make_node(op, names, out, "wrong", domain=domain))
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, 1))

    return change


def odd_channels(model: ModelProto) -> None:
    s = Sketch()
    s.conv("mix.relu", "odd", 5, 32, kernel=1)
    model.graph.node.extend(s.nodes)
    model.graph.initializer.extend(s.weights)
    model.graph.output.append(helper.make_tensor_value_info("odd", TensorProto.FLOAT, [1, 5, 16, 24]))


def scale_a_channel(model: ModelProto) -> None:
    replace("cat_scale", np.full(32, 0.1, np.float32))(model)
    replace("cat_zero", np.zeros(32, np.int8))(model)


def scale_in_a_vector(model: ModelProto) -> None:
    for name in ("cat_scale", "cat_zero"):
        replace(name, numpy_helper.to_array(constant(model, name)).reshape(1))(model)


NOTHING: Change = lambda model: None  # noqa: E731

# rule, target, what breaks it, whether --fix mends it
BROKEN: list[tuple[str, str, Change, bool]] = [
    ("uint8", "rtx", uint8_at(128), True),
    ("uint8", "rtx", uint8_at(100), True),
    ("zero-point", "rtx", replace("x_zero", np.array(3, np.int8)), True),
    ("scale", "rtx", replace("x_scale", np.array(0, np.float32)), False),
    ("scale", "rtx", replace("x_scale", np.array(np.nan, np.float32)), False),
    ("activation-axis", "rtx", scale_a_channel, True),
    ("activation-axis", "rtx", scale_in_a_vector, True),
    ("weight-axis", "rtx", gemm_weights_last, True),
    ("weight-axis", "rtx", conv_scales_on_inputs, True),
    ("bias", "rtx", int32_bias, True),
    ("mixed-range", "rtx", mixed, False),
    ("conv-output", "rtx", before_relu, True),
    ("residual", "rtx", skip_in_float, True),
    ("residual", "rtx", both_quantised, True),
    ("pool-input", "rtx", pool_in_float, True),
    ("dynamic-shape", "rtx", dynamic, False),
    ("op", "rtx", with_node("NonMaxSuppression"), False),
    ("op", "rtx", with_node("NonZero"), False),
    ("op", "rtx", with_node("RoiAlign"), False),
    ("op", "rtx", with_node("QLinearConv"), False),
    ("op", "jetpack-7.x", with_node("QLinearConv"), False),
    ("op", "jetpack-6.x", with_node("DynamicQuantizeLinear"), False),
    ("op", "rtx", with_node("EfficientNMS_TRT", "plug"), False),
    ("op", "jetpack-4.6", with_node("NonZero"), False),
    ("no-int8", "nano", NOTHING, True),
    ("no-int8", "tx2", NOTHING, True),
    ("sm75", "rtx-sm75", NOTHING, True),
    ("channels", "rtx", odd_channels, False),
    ("opset", "jetpack-4.6", NOTHING, True),
    ("dla-qdq", "dla", NOTHING, True),
]


@pytest.mark.parametrize(("rule", "target", "change", "mends"), BROKEN, ids=[f"{b[0]}-{b[1]}" for b in BROKEN])
def test_a_fault_is_found_and_where_possible_mended(
    int8: ModelProto, rule: str, target: str, change: Change, mends: bool
) -> None:
    bad = ModelProto()
    bad.CopyFrom(int8)
    usual = rules(bad, "orin" if target in ("nano", "tx2", "rtx-sm75", "dla", "jetpack-4.6") else target)
    change(bad)
    found = [f for f in check_model(bad, find(target)) if f.rule == rule]
    assert found and usual == set()
    assert all(f.where and f.came and f.wanted and f.do and "\n" not in str(f) for f in found)
    if target == "rtx":
        assert rules(bad, target) == {rule}, "one fault, one rule"
    if not mends:
        assert RULES[rule].fix == ""
        return
    assert RULES[rule].fix
    fixed = fix(bad, find(target))
    onnx.checker.check_model(fixed.model, full_check=True)
    assert rule in {repair.rule for repair in fixed.repairs}
    assert rule not in rules(fixed.model, target) and not lint.errors(fixed.remaining)
    assert fixed.parity is not None and fixed.parity.ok
    exact = all(repair.exact for repair in fixed.repairs)
    assert fixed.parity.wanted_db == (10 if rule in ("dla-qdq", "sm75", "no-int8") else 60 if exact else 20)
    assert bad == changed(int8, change) if rule != "scale" else True, "the network that came is untouched"


def test_what_edgecnn_writes_has_no_findings(int8: ModelProto) -> None:
    for target in ("jetpack-5.1", "jetpack-6.x", "jetpack-7.x", "rtx", "orin", "thor", "xavier"):
        assert rules(int8, target) <= {"opset"}
    assert check_model(int8) == []


def test_its_cpu_form_is_for_the_cpu() -> None:
    cpu = quantize(tiny(), feeds(4), QuantizeSection()).cpu
    assert {"uint8", "bias"} <= rules(cpu, "rtx")


# ---- builds: the fault refused or silent, the repaired network whole


def built(model: ModelProto, folder: Path, sm: str = "rtx-sm86") -> str:
    path = folder / "m.onnx"
    onnx.save(model, path)
    result = worker.build_apart(path, find_board(sm), Options(64))
    return str(xray(readers.log(result.log), lint.meant(model)))


@pytest.mark.parametrize("rule", ["uint8", "zero-point", "bias"])
def test_what_tensorrt_refuses_it_builds_after_the_repair(int8: ModelProto, rule: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    bad = changed(int8, next(change for name, _, change, _ in BROKEN if name == rule))
    with pytest.raises(BuildError, match="does not read"):
        built(bad, tmp_path)
    assert built(fix(bad, find("rtx")).model, tmp_path) == "6 of 6 kernels are INT8"


@pytest.mark.parametrize("change", [scale_a_channel, scale_in_a_vector])
def test_silent_floats_are_found_and_become_int8(int8: ModelProto, change: Change, tmp_path: Path) -> None:
    """The second stands in no document that was read: it was met here."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    bad = changed(int8, change)
    assert rules(bad, "rtx") == {"activation-axis"}
    assert "in float: mix" in built(bad, tmp_path)
    assert built(fix(bad, find("rtx")).model, tmp_path) == "6 of 6 kernels are INT8"


@pytest.mark.parametrize(
    "change", [gemm_weights_last, conv_scales_on_inputs, skip_in_float, before_relu, pool_in_float]
)
def test_the_repaired_forms_build_to_int8(int8: ModelProto, change: Change, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    assert built(fix(changed(int8, change), find("rtx")).model, tmp_path) == "6 of 6 kernels are INT8"


def test_a_stripped_network_builds_in_float(int8: ModelProto, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    plain = fix(int8, find("nano")).model
    assert not {Q, DQ} & {n.op_type for n in plain.graph.node} and built(plain, tmp_path).startswith("0 of 0")


# ---- other tools' networks


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("unsigned", [False, True])
def test_onnxruntimes_own_quantisation_is_mended(per_channel: bool, unsigned: bool, tmp_path: Path) -> None:
    """It drops each Relu whose output has the lowest level for 0: a pair around 0 needs it back."""
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = iter([{"x": x} for x in feeds(4)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rows, None)

    kind = quantization.QuantType.QUInt8 if unsigned else quantization.QuantType.QInt8
    onnx.save(tiny(), tmp_path / "float.onnx")
    quantization.quantize_static(
        tmp_path / "float.onnx", tmp_path / "q.onnx", Reader(), per_channel=per_channel, activation_type=kind
    )
    theirs = onnx.load(tmp_path / "q.onnx")
    assert {"uint8" if unsigned else "zero-point", "bias", "residual"} <= rules(theirs, "rtx")
    assert "Relu" not in {n.op_type for n in theirs.graph.node}
    fixed = fix(theirs, find("rtx"))
    assert fixed.remaining == () and fixed.parity is not None and fixed.parity.sqnr_db > 20
    if find_spec_rtx():
        assert built(fixed.model, tmp_path) == "6 of 6 kernels are INT8"
    assert rules(fix(theirs, find("nano")).model, "nano") <= {"opset"}


def find_spec_rtx() -> bool:
    from importlib.util import find_spec

    return find_spec("tensorrt_rtx") is not None


def test_float16_pairs_become_float32() -> None:
    s = Sketch()
    w = s.constant("w", (np.random.default_rng(0).normal(size=(8, 3, 3, 3)) / 5).astype(np.float16))
    pair = [s.constant("s", np.float16(0.03)), s.constant("z", np.int8(0))]
    s.node("Conv", [s.node(DQ, [s.node(Q, ["x", *pair], "q"), *pair], "dq"), w], "y")
    model = s.model({"y": [1, 8, 30, 46]}, opset=19)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    assert rules(model, "rtx") == {"half"}
    fixed = fix(model, find("rtx"))
    assert rules(fixed.model, "rtx") == set() and fixed.parity is not None and fixed.parity.sqnr_db > 40
    assert [v.type.tensor_type.elem_type for v in (*fixed.model.graph.input, *fixed.model.graph.output)] == [10, 10]
    assert {t.data_type for t in fixed.model.graph.initializer} == {TensorProto.FLOAT, TensorProto.INT8}


def test_a_matmul_weight_goes_outputs_first(tmp_path: Path) -> None:
    s = Sketch()
    levels = np.random.default_rng(0).integers(-127, 128, (48, 16)).astype(np.int8)
    pair = [s.constant("s", np.float32(0.03)), s.constant("z", np.int8(0))]
    scales = s.constant("ws", np.linspace(0.01, 0.09, 16, dtype=np.float32))
    w = s.node(DQ, [s.constant("w", levels), scales, s.constant("wz", np.zeros(16, np.int8))], "wf", axis=1)
    s.node("MatMul", [s.node(DQ, [s.node(Q, ["x", *pair], "q"), *pair], "dq"), w], "y")
    model = s.model({"y": [1, 3, 32, 16]})
    assert rules(model, "rtx") == {"weight-axis"}
    fixed = fix(model, find("rtx"))
    assert fixed.remaining == () and fixed.parity is not None and fixed.parity.wanted_db == 60
    if find_spec_rtx():
        built(fixed.model, tmp_path)


# ---- targets


def test_targets_of_lint_are_those_of_the_facts() -> None:
    assert find("jetpack-6.x").opsets == {"8.6": 17, "10.3": 20}
    assert find("nano").int8 is False and find("orin").int8 and find("rtx-sm75").sm75 and find("dla").dla
    assert all(find(name).releases for name in TARGETS), "every board has a TensorRT whose opset is known"
    with pytest.raises(BuildError, match=r"did you mean 'jetpack-5\.1'"):
        find("jetpack-5.2")


def test_opsets_tell_what_changed_from_what_merely_grew() -> None:
    """Relu of opset 14 reads as that of 13; ReduceMean of 18 takes its axes from an input, Mish is new."""
    s = Sketch()
    s.node("ReduceMean", [s.node("Mish", [s.relu("x")], "m"), s.constant("axes", np.array([2, 3]))], "y")
    model = s.model({"y": [1, 3, 1, 1]}, opset=18)
    found = [(f.rule, f.where) for f in check_model(model, find("jetpack-5.1"))]
    assert sorted(found) == [("new-op", "m"), ("new-op", "y"), ("opset", "tiny")]
    assert {f.rule for f in check_model(model, find("jetpack-6.x"))} == {"opset"}
    assert check_model(model, find("rtx")) == []


def test_an_operator_that_is_too_new_is_converted() -> None:
    """ReduceMean of opset 18 takes its axes as an input; that of 13 has an attribute."""
    s = Sketch()
    s.node("ReduceMean", [s.relu("x"), s.constant("axes", np.array([2, 3]))], "y")
    model = s.model({"y": [1, 3, 1, 1]}, opset=18)
    assert rules(model, "jetpack-5.1") == {"new-op", "opset"}
    fixed = fix(model, find("jetpack-5.1"))
    assert fixed.remaining == () and fixed.parity is not None and fixed.parity.wanted_db == 60


def test_an_attribute_at_its_default_does_not_hold_up_an_older_opset() -> None:
    """Reshape has `allowzero` since opset 14, and PyTorch writes its default; 1 means something that 13 can't say."""

    def reshaped(allow: int) -> ModelProto:
        s = Sketch()
        shape = s.constant("shape", np.array([1, 3, 32 * 48]))
        s.node("Reshape", [s.relu("x"), shape], "y", allowzero=allow)
        return s.model({"y": [1, 3, 32 * 48]}, opset=17)

    fixed = fix(reshaped(0), find("jetpack-4.6"))
    assert fixed.model.opset_import[0].version == 13 and fixed.remaining == ()
    assert fix(reshaped(1), find("jetpack-4.6")).repairs == ()


def test_no_pairs_for_tensorrt_11_is_a_warning() -> None:
    assert "implicit" in rules(tiny(), "jetpack-7.x") and "implicit" not in rules(tiny(), "jetpack-6.x")


def test_a_profile_makes_a_dynamic_shape_good_except_on_the_dla(int8: ModelProto) -> None:
    bad = changed(int8, dynamic)
    assert "dynamic-shape" not in {f.rule for f in check_model(bad, find("rtx"), ["x"])}
    assert "dynamic-shape" in {f.rule for f in check_model(bad, find("dla"), ["x"])}


# ---- the DLA


def one(op: str, inputs: int = 1, shape: tuple[int, ...] = SHAPE, out: list[int] | None = None, **given: object) -> str:
    """Why a single node falls back."""
    s = Sketch()
    weights = {k: given.pop(k) for k in list(given) if isinstance(given[k], np.ndarray)}
    names = [s.constant(k, np.asarray(v)) for k, v in weights.items()]
    s.node(op, ["x"] * inputs + names, "y", **given)
    model = s.model({"y": list(out or shape)})
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape)))
    net = Net(model)
    return falls_back(net, net.graph.node[0])


def kernel(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("why", "came"),
    [
        ("", one("Relu")),
        ("", one("Conv", w=kernel(4, 3, 32, 32))),
        ("kernel [33, 1]", one("Conv", shape=(1, 3, 64, 64), w=kernel(4, 3, 33, 1))),
        ("stride [9, 1]", one("Conv", w=kernel(4, 3, 1, 1), strides=[9, 1])),
        ("dilation [33, 1]", one("Conv", shape=(1, 3, 99, 99), w=kernel(4, 3, 3, 3), dilations=[33, 1])),
        ("padding [32", one("Conv", w=kernel(4, 3, 1, 1), pads=[32, 0, 0, 0])),
        ("padding, which must be 0", one("ConvTranspose", w=kernel(3, 4, 2, 2), pads=[1, 1, 1, 1])),
        ("groups", one("ConvTranspose", w=kernel(3, 1, 2, 2), group=3)),
        ("", one("MaxPool", kernel_shape=[8, 8])),
        ("window [9, 9]", one("MaxPool", kernel_shape=[9, 9])),
        ("leaves out the padding", one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1])),
        ("a dimension over 8192", one("Relu", shape=(1, 3, 1, 8193))),
        ("", one("Concat", 2, axis=1)),
        ("another axis", one("Concat", 2, axis=2)),
        ("", one("Add", 2)),
        ("broadcast", one("Add", w=kernel(32, 48))),
        ("", one("Add", w=kernel(1, 3, 1, 1))),
        ("moves the batch", one("Transpose", perm=[1, 0, 2, 3])),
        ("", one("Transpose", perm=[0, 2, 3, 1])),
        ("rank 4 to 2", one("Flatten")),
        ("(uncertain)", one("Softmax", axis=1)),
        ("(uncertain)", one("GlobalAveragePool")),
        ("no such layer", one("Erf")),
    ],
)
def test_dla_limits_are_those_of_nvidias_table(why: str, came: str) -> None:
    assert (came == "") if not why else why in came


@pytest.mark.parametrize(
    ("mode", "scale", "why"), [("nearest", 2, ""), ("nearest", 33, "scales"), ("linear", 2, "uncertain")]
)
def test_dla_resizes(mode: str, scale: int, why: str) -> None:
    s = Sketch()
    s.node("Resize", ["x", "", s.constant("s", np.float32([1, 1, scale, scale]))], "y", mode=mode)
    net = Net(s.model({"y": [1, 3, 32 * scale, 48 * scale]}))
    came = falls_back(net, net.graph.node[0])
    assert why in came and bool(came) == bool(why)


def test_dla_pieces_and_the_cut() -> None:
    """conv, relu | Erf | conv, relu: two subgraphs; before the Erf one remains, with half of the layers."""
    s = Sketch()
    first = s.relu(s.conv("x", "a", 8, 3))
    s.relu(s.conv(s.node("Erf", [first], "erf"), "b", 8, 8))
    model = s.model({"b.relu": [1, 8, 32, 48]})
    found = partition(Net(model))
    assert [len(p) for p in found.pieces] == [2, 2] and found.cut == ("erf",)
    findings = {f.rule: f for f in check_model(model, find("dla"))}
    assert set(findings) == {"opset", "dla-fallback", "dla-cut"}
    assert "Cut before erf: one subgraph remains, with 50%" in findings["dla-cut"].do
    del model.graph.node[2:]  # what is left when it is cut there
    model.graph.output[0].name = "a.relu"
    assert len(partition(Net(model)).pieces) == 1


def test_a_skip_around_the_gpu_splits_the_dla() -> None:
    """a → Erf → Add(a): the Add waits for the GPU, so it can't lie in the piece that feeds the GPU."""
    s = Sketch()
    a = s.conv("x", "a", 8, 3)
    s.relu(s.node("Add", [a, s.node("Erf", [a], "erf")], "sum"))
    found = partition(Net(s.model({"sum.relu": [1, 8, 32, 48]})))
    assert [len(p) for p in found.pieces] == [1, 2] and set(found.cut) == {"erf", "sum"}


# ---- repairs that must not be written


def test_a_repair_that_changes_answers_is_refused(int8: ModelProto) -> None:
    """Clipping at a tenth of the range is part of this network: without pairs its answers are others."""
    bad = changed(int8, replace("x_scale", np.array(0.002, np.float32)))
    loud = [{"x": x * 4} for x in feeds(2)]
    with pytest.raises(ModelError, match=r"answers otherwise .* wanted 10 dB"):
        fix(bad, find("nano"), loud)


def test_sizes_that_only_running_tells_are_not_run() -> None:
    s = Sketch()
    shape = s.node("Cast", [s.node("ReduceMax", ["x"], "m", keepdims=0)], "n", to=7)
    s.node("ConstantOfShape", [s.node("Reshape", [shape, s.constant("one", np.array([1]))], "s")], "y")
    model = s.model({"y": ["any"]})  # type: ignore[list-item]
    with pytest.raises(ModelError, match="only running it tells"):
        compare(model, model, random_feeds(model), 60)


def test_the_source_is_never_overwritten(int8: ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(int8, path)
    (tmp_path / "link.onnx").symlink_to(path)
    fixed = fix(int8, find("nano"))
    for out in (path, tmp_path / "link.onnx"):
        with pytest.raises(InputError, match="is the network itself"):
            write(fixed, path, out)
    assert onnx.load(path) == int8


# ---- the command


def called(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["edgecnn", "lint", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_the_command_finds_fixes_and_compares(
    int8: ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "m.onnx", tmp_path / "fixed.onnx"
    onnx.save(changed(int8, int32_bias), path)
    assert called(monkeypatch, path, "--target", "orin") == 7
    came = capsys.readouterr()
    assert "mix: its bias lies behind a DequantizeLinear" in came.out and came.err.startswith("error: 1 errors for")
    np.savez(tmp_path / "in.npz", x=feeds(1)[0])
    given = ["--fix", out, "--inputs", tmp_path / "in.npz", "--json"]
    assert called(monkeypatch, path, "--target", "rtx", *given) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["fixed"][0]["rule"] == "bias" and answer["remaining"] == [] and answer["wanted_db"] == 60
    assert called(monkeypatch, out, "--target", "rtx") == 0
    assert capsys.readouterr().out == "no findings\n"


def test_the_command_writes_nothing_where_nothing_is_mended(
    int8: ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(int8, path)
    assert called(monkeypatch, path, "--target", "rtx", "--fix", tmp_path / "out.onnx") == 0
    assert "no file was written" in capsys.readouterr().out and not (tmp_path / "out.onnx").exists()
    (tmp_path / "bad.npz").write_text("no arrays", "utf-8")
    assert called(monkeypatch, path, "--target", "rtx", "--fix", "o.onnx", "--inputs", tmp_path / "bad.npz") == 3


# ---- networks from elsewhere


@pytest.mark.parametrize("name", ["yolox_nano_coco80_416", "osnet_x0_25_msmt17_reid_256x128"])
def test_float_networks_from_elsewhere_have_no_errors(shared_data: Path, name: str) -> None:
    path = shared_data / "weights" / f"{name}.onnx"
    for target in ("jetpack-4.6", "jetpack-5.1", "jetpack-6.x", "jetpack-7.x", "rtx", "dla", "nano"):
        assert lint.errors(lint.check(path, find(target))) == []
    assert lint.errors(check_model(prepare(onnx.load(path)), find("jetpack-5.1"))) == []


# ---- the table


def test_docs_list_every_rule() -> None:
    text = (Path(__file__).resolve().parents[1] / "docs" / "lint.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| (\w+) \| (.*) \| (.*) \| (.*) \|$", text, re.MULTILINE)
    wanted = [(name, r.severity, r.what, r.why, r.fix or "–") for name, r in RULES.items()]
    assert rows == wanted


def test_every_rule_is_tried_here() -> None:
    tried = {b[0] for b in BROKEN} | {"new-op", "implicit", "half", "dla-fallback", "dla-cut"}
    assert tried == set(RULES)
