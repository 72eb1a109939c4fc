"""FP16 as types in the graph: what is typed, what stays FP32, the same numbers, and INT8 kernels that stay INT8."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tiny_onnx import SHAPE, Sketch, feeds, tiny

from edgecnn.build import lint, readers, run_stage, typed, worker
from edgecnn.build.half import LARGEST, emulated, half
from edgecnn.build.lint.parity import compare, random_feeds
from edgecnn.build.network import Options
from edgecnn.build.targets import find
from edgecnn.build.xray import look, xray
from edgecnn.build.xray import typed as typed_kernels
from edgecnn.bundle import Bundle, ModelSpec, TensorSpec, sha256
from edgecnn.errors import BuildError
from edgecnn.quantize.stage import quantize
from edgecnn.recipe import QuantizeSection, Recipe

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def residual() -> ModelProto:
    """Three residual blocks, GAP, Gemm: what a ResNet is made of."""
    s = Sketch(1)
    x = s.relu(s.conv("x", "stem", 16, 3, stride=2))
    for i in range(3):
        y = s.conv(s.relu(s.conv(x, f"b{i}.one", 16, 16)), f"b{i}.two", 16, 16)
        x = s.relu(s.node("Add", [y, x], f"b{i}.add"))
    flat = s.node("Flatten", [s.node("GlobalAveragePool", [x], "gap")], "flat")
    s.node("Gemm", [flat, s.weight("fc.w", 16, 10), s.weight("fc.b", 10)], "fc")
    return s.model({"fc": [1, 10]})


def detector() -> ModelProto:
    """SiLU, two scales joined, boxes and scores apart: a small YOLO."""
    s = Sketch(2)

    def silu(x: str) -> str:
        return s.node("Mul", [x, s.node("Sigmoid", [x], f"{x}.sigmoid")], f"{x}.silu")

    stem = silu(s.conv("x", "stem", 16, 3, stride=2))
    small = silu(s.conv(stem, "small", 16, 16, stride=2))
    scales = s.constant("double", np.array([1, 1, 2, 2], np.float32))
    large = s.node("Resize", [small, "", scales], "large", mode="nearest")
    mix = silu(s.conv(s.node("Concat", [large, stem], "cat", axis=1), "mix", 16, 32))
    shape = s.constant("shape", np.array([1, -1, 384], np.int64))
    s.node("Reshape", [s.conv(mix, "box", 4, 16, kernel=1), shape], "boxes")
    s.node("Sigmoid", [s.node("Reshape", [s.conv(mix, "obj", 2, 16, kernel=1), shape], "flat")], "scores")
    return s.model({"boxes": [1, 4, 384], "scores": [1, 2, 384]})


def int8(model: ModelProto, *keep: str) -> ModelProto:
    return quantize(model, feeds(4), QuantizeSection(keep_float=keep)).tensorrt


NETWORKS: dict[str, Callable[[], ModelProto]] = {
    "residual": lambda: int8(residual()),
    "detector": lambda: int8(detector()),
    "float tail": lambda: int8(tiny(), "left", "mix", "fc"),
    "float stem": lambda: int8(tiny(), "stem", "depthwise"),
    "no INT8": tiny,
}


def types(model: ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    return found | {t.name: t.data_type for t in graph.initializer}


# --- what is typed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_nodes_in_other_types(name: str) -> None:
    before = NETWORKS[name]()
    found = half(before)
    assert found.kept == {}
    onnx.checker.check_model(found.model, full_check=True)
    assert list(found.model.graph.input) == list(before.graph.input)
    assert [v.name for v in found.model.graph.output] == [v.name for v in before.graph.output]
    ops, wanted = (Counter(n.op_type for n in m.graph.node) for m in (found.model, before))
    casts = ops.pop("Cast")
    assert ops == wanted
    # one at every output; one at the input, unless its pair takes FP32 and gives FP16
    assert casts == len(before.graph.output) + (name in ("float stem", "no INT8"))
    kinds = types(found.model)
    written = [kinds[n.output[0]] for n in found.model.graph.node if n.op_type not in ("QuantizeLinear", "Cast")]
    assert set(written) == {HALF} and lint.meant(found.model) == lint.meant(before)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", [0, 1])
def test_answers_stay(name: str, seed: int) -> None:
    before = NETWORKS[name]()
    quiet = [{"x": np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)}]
    # a level of INT8 that rounds the other way costs more than FP16's own rounding
    assert compare(before, emulated(half(before).model), quiet, 0).sqnr_db > (60 if name == "no INT8" else 25)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_emulation_agrees_with_onnx_itself(name: str) -> None:
    """onnx's ReferenceEvaluator computes FP16 in FP16: it adds its own rounding, and levels that it tips over."""
    found = half(NETWORKS[name]()).model
    feed = {"x": feeds(1)[0]}
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    ours = ort.InferenceSession(emulated(found).SerializeToString(), options, providers=["CPUExecutionProvider"])
    for came, wanted in zip(
        ours.run(None, feed), onnx.reference.ReferenceEvaluator(found).run(None, feed), strict=True
    ):
        assert came.dtype == wanted.dtype == np.float32
        noise = np.square(came - wanted).sum()
        assert np.square(wanted).sum() > noise * (1e5 if name == "no INT8" else 1e2)


def test_the_emulation_rounds_and_nothing_else() -> None:
    """1 + 2^-11 is not in FP16; a third is 0.33325 there (by hand: 1365 / 4096)."""
    s = Sketch()
    s.node("Relu", ["x"], "a")
    found = emulated(half(s.model({"a": list(SHAPE)})).model)
    x = np.zeros(SHAPE, np.float32)
    x.flat[:3] = 1 + 2**-11, 1 / 3, 2049
    came = onnx.reference.ReferenceEvaluator(found).run(None, {"x": x})[0]
    assert came.flat[:3].tolist() == [1.0, 1365 / 4096, 2048.0]


def test_scales_of_a_pair_are_rounded_alike() -> None:
    """The picture's Q reads FP32 and its DQ writes FP16: the same number in both."""
    graph = half(int8(residual())).model.graph
    value = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    q = next(n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "x")
    dq = next(n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] == q.output[0])
    assert (value[q.input[1]].dtype, value[dq.input[1]].dtype) == (np.float32, np.float16)
    assert value[q.input[1]] == value[dq.input[1]]


# --- what stays FP32 ------------------------------------------------------------------------------------------------


def around(op: Callable[[Sketch, str], str], *, kernel_behind: bool = False) -> ModelProto:
    """x → conv → `op` → Relu, and a convolution behind it where the op is not to be the tail."""
    s = Sketch()
    y = s.relu(op(s, s.conv("x", "conv", 8, 3)))
    if kernel_behind:
        y = s.conv(y, "last", 8, 8)
    return s.model({y: ["n", "c", "h", "w"]})  # type: ignore[list-item]


GRID = np.arange(8 * 32 * 48, dtype=np.float32).reshape(1, 8, 32, 48) / 100
TINY = np.float32(1e-7) * np.arange(1, 9, dtype=np.float32).reshape(1, 8, 1, 1)


@pytest.mark.parametrize(
    ("op", "behind", "why"),
    [
        (lambda s, x: s.node("Exp", [x], "bad"), True, "beyond FP16"),
        (lambda s, x: s.node("Softmax", [x], "bad", axis=1), True, "beyond FP16"),
        (lambda s, x: s.node("LRN", [x], "bad", size=5), True, "squares above 255"),
        (lambda s, x: s.node("ReduceMean", [x], "bad", axes=[1, 2, 3]), False, "sums up 12288 numbers"),
        (lambda s, x: s.node("Mul", [x, s.constant("stride", np.float32(32))], "bad"), False, "decodes the network's"),
        (lambda s, x: s.node("Add", [x, s.constant("grid", GRID)], "bad"), False, "decodes the network's"),
        (lambda s, x: s.node("Mul", [x, s.constant("big", np.float32(7e4))], "bad"), True, "holds 70000, FP16 ends"),
        (lambda s, x: s.node("Mul", [x, s.constant("tiny", TINY)], "bad"), True, "100% of its numbers are below"),
    ],
)
def test_what_fp16_would_harm_stays_fp32(op: Callable[[Sketch, str], str], behind: bool, why: str) -> None:
    model = around(op, kernel_behind=behind)
    model.graph.node[1].name = "bad"
    found = half(model)
    assert list(found.kept) == ["bad"] and why in found.kept["bad"]
    assert why in str(found)
    kinds = types(found.model)
    assert kinds["conv"] == HALF and kinds["bad"] == FLOAT
    node = next(n for n in found.model.graph.node if n.name == "bad")
    assert all(kinds[name] == FLOAT for name in node.input)


@pytest.mark.parametrize(
    "op",
    [
        lambda s, x: s.node("Mul", [x, s.constant("stride", np.float32(32))], "good"),
        lambda s, x: s.node("Clip", [x, "", s.constant("top", np.float32(3.4e38))], "good"),
        lambda s, x: s.node("GlobalAveragePool", [x], "good"),  # of 32 x 48 numbers
        lambda s, x: s.node("Sigmoid", [x], "good"),
    ],
)
def test_what_it_does_not_harm_becomes_fp16(op: Callable[[Sketch, str], str]) -> None:
    found = half(around(op, kernel_behind=True))
    assert found.kept == {} and types(found.model)["good"] == HALF
    if any(t.name == "top.half" for t in found.model.graph.initializer):
        top = next(t for t in found.model.graph.initializer if t.name == "top.half")
        assert numpy_helper.to_array(top) == LARGEST


def test_a_range_that_was_measured_counts() -> None:
    model = around(lambda s, x: s.node("Sigmoid", [x], "y"), kernel_behind=True)
    model.graph.node[0].name = "conv"
    assert half(model, {"conv": 30000.0}).kept == {}
    assert "up to 40000 were measured" in half(model, {"conv": 40000.0}).kept["conv"]


def test_a_scale_that_fp16_does_not_hold_keeps_its_kernel_in_fp32_and_int8() -> None:
    model = int8(residual())
    scale = next(t for t in model.graph.initializer if t.name == "b1.one.weight_scale")
    value = numpy_helper.to_array(scale).copy()
    value[3] = 1e-7
    scale.CopyFrom(numpy_helper.from_array(value, scale.name))
    found = half(model)
    (name,) = found.kept
    assert "FP16 does not hold its scale" in found.kept[name] and name in lint.meant(found.model)
    kinds = types(found.model)
    conv = next(n for n in found.model.graph.node if n.name == name)
    assert {kinds[i] for i in conv.input} == {kinds[conv.output[0]]} == {FLOAT}
    assert lint.meant(found.model) == lint.meant(model)  # its data come from a pair of their own, typed FP32
    onnx.checker.check_model(found.model, full_check=True)
    assert compare(model, emulated(found.model), random_feeds(model), 0).sqnr_db > 25


def test_tensors_read_twice_shape_nodes_and_constant_nodes() -> None:
    """An output that is also read inside, a Shape of a float tensor, a weight in a Constant node, a pair as output."""
    s = Sketch()
    conv = s.conv("x", "conv", 8, 3)
    kernel = s.random.normal(size=(8, 8, 1, 1)).astype(np.float32)
    s.nodes.append(helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(kernel)))
    s.node("Conv", [conv, "w"], "last")
    s.node("Shape", ["last"], "size")
    s.node("Greater", ["last", s.constant("half", np.float32(0.5))], "above")  # compared in FP32, as the constant is
    s.node("QuantizeLinear", ["last", s.constant("s", np.float32(0.1)), s.constant("z", np.int8(0))], "q")
    s.node("DequantizeLinear", ["q", "s", "z"], "dq")
    model = s.model({"conv": [1, 8, 32, 48], "dq": [1, 8, 32, 48]}, opset=19)
    model.graph.output.append(helper.make_tensor_value_info("size", TensorProto.INT64, [4]))
    model.graph.output.append(helper.make_tensor_value_info("above", TensorProto.BOOL, [1, 8, 32, 48]))
    found = half(model)
    kinds = types(found.model)
    assert (kinds["conv"], kinds["conv.half"], kinds["last"], kinds["dq"]) == (FLOAT, HALF, HALF, FLOAT)
    assert kinds["w.half"] == HALF and not any(n.op_type == "Constant" for n in found.model.graph.node)
    assert kinds["last.single"] == FLOAT
    assert compare(model, emulated(found.model), random_feeds(model), 0).sqnr_db > 20  # of `above`, a few of 0 and 1


def test_what_is_typed_already_is_refused() -> None:
    with pytest.raises(BuildError, match=r"has 16 bits already; wanted a network typed in FP32"):
        half(half(tiny()).model)


# --- TensorRT for RTX -----------------------------------------------------------------------------------------------


def built(model: ModelProto, path: Path) -> tuple[int, int | None, int, int]:
    """Layers, INT8 kernels, FP16 kernels, layers that only reformat, as the build log has them."""
    onnx.save(model, path)
    log = readers.log(worker.build_apart(path, find("rtx-sm86", int8=False), Options(64)).log)
    seen = xray(log, lint.meant(model), halves=typed_kernels(readers.network(model)))
    assert seen.half == seen.meant_half and seen.int8 == seen.meant
    return len(log), seen.int8, seen.half, seen.reformats


@pytest.mark.parametrize(("name", "halves"), [("residual", 0), ("detector", 0), ("float tail", 3), ("float stem", 2)])
def test_int8_kernels_stay_and_float_ones_become_fp16(name: str, halves: int, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    before = NETWORKS[name]()
    layers, kernels, none, _ = built(before, tmp_path / "before.onnx")
    assert none == 0 and kernels == len(lint.meant(before))
    now, still, found, _ = built(half(before).model, tmp_path / "half.onnx")
    assert (still, found) == (kernels, halves)
    assert now <= layers + halves  # no pair has left its kernel; a Cast at most where float kernels begin


def test_a_network_without_int8_is_fp16_throughout(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    assert built(half(detector()).model, tmp_path / "half.onnx")[1:3] == (0, 5)


# --- the stage ------------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    onnx.save(tiny(), tmp_path / "model.onnx")
    onnx.save(int8(tiny(), "left"), tmp_path / "model.int8.onnx")
    spec = ModelSpec("onnx", "classify", tuple("0123456789"), TensorSpec("x", SHAPE), std=(64.0, 64.0, 64.0))
    return Bundle(tmp_path, "tiny").with_stage(
        "quantize",
        settings={},
        version=1,
        files={"int8": "model.int8.onnx", "fp32": "model.onnx"},
        facts={},
        tools={},
        model=spec,
    )


def recipe(precision: str, target: str = "rtx-sm86") -> Recipe:
    build = {"target": target, "precision": precision}
    return Recipe.model_validate({"name": "tiny", "model": {"arch": "lenet5"}, "build": build})


@pytest.mark.parametrize(
    ("precision", "target", "network", "evidence"),
    [
        ("int8", "rtx-sm86", "int8", "5 of 5 kernels are INT8"),
        ("int8+fp16", "rtx-sm86", "half", "5 of 5 kernels are INT8; 1 of 1 kernels are FP16"),
        ("fp16", "rtx-sm86", "half", "6 of 6 kernels are FP16"),
        ("fp16", "rtx-sm75", "half", "6 of 6 kernels are FP16"),
    ],
)
def test_one_key_says_what_is_built(precision: str, target: str, network: str, evidence: str, bundle: Bundle) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    done = run_stage(bundle, recipe(precision, target))
    facts = done.stages["build"].facts
    assert (facts["network"], facts["evidence"]) == (network, evidence)
    assert facts["engine"]["onnx"] == sha256(done.file(network))  # the engine is tied to what was built
    assert list(facts["engine"]["flags"]) == ["STRONGLY_TYPED"]
    assert str(look(done.path)) == evidence
    if network == "half":
        assert done.file("half").name == f"model.{target}.half.onnx"
        found = facts["fp16"]
        assert found["kept_fp32"] == {} and found["sqnr_db"] > (20 if precision == "int8+fp16" else 60)
        assert precision == "fp16" or abs(found["sqnr_db"] - found["sqnr_before_db"]) < 1  # INT8 is most of the noise
    assert done.has("half") == ("fp16" in facts)


def test_a_network_that_overflows_is_not_built(bundle: Bundle, tmp_path: Path) -> None:
    """Weights that FP16 holds, and sums that it does not."""
    model = tiny()
    weight = next(t for t in model.graph.initializer if t.name == "stem.w")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 60000, weight.name))
    onnx.save(model, tmp_path / "loud.onnx")
    before = sorted(p.name for p in tmp_path.iterdir())
    loud = bundle.with_stage(
        "quantize", settings={}, version=1, files={"fp32": "loud.onnx"}, facts={}, tools={}, model=bundle.model
    )
    with pytest.raises(BuildError, match=r"answers overflow in FP16\. Build it with `precision: int8`"):
        run_stage(loud, recipe("fp16"))
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("dialect", "version", "wanted"),
    [("rtx", "", True), ("trt", "8.2.1", False), ("trt", "8.6.1", False), ("trt", "10.3.0", True), ("trt", "", True)],
)
def test_types_say_fp16_from_tensorrt_10_on(dialect: str, version: str, wanted: bool) -> None:
    assert typed.strongly(dialect, version) is wanted
