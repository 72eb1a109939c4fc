"""Ranges, placement, both INT8 forms, bias correction, and the stage; onnxruntime and numpy are the oracles."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tiny_onnx import SHAPE, Sketch, feeds, tiny

from edgecnn import zoo
from edgecnn.build.lint import check_model
from edgecnn.bundle import Bundle, ModelSpec, TensorSpec
from edgecnn.data import Sample, open_dataset
from edgecnn.data.calibration import open_list
from edgecnn.errors import InputError, ModelError, RecipeError
from edgecnn.export import write
from edgecnn.quantize import run_stage, stage
from edgecnn.quantize import settings as stage_settings
from edgecnn.quantize.correct import corrected, measure
from edgecnn.quantize.cpu import cpu_form, pack, to_unsigned
from edgecnn.quantize.equalize import equalized, spans
from edgecnn.quantize.graph import View, load, prepare
from edgecnn.quantize.insert import Plan, insert, plan, scales, weight_scales
from edgecnn.quantize.ranges import Histogram, amax, collect, methods, tapped
from edgecnn.recipe import DataSection, QuantizeSection, Recipe
from edgecnn.recipe import load as load_recipe
from edgecnn.scene import Truth
from edgecnn.vision import DecodeDetections, Preprocess


def answers(model: ModelProto, x: np.ndarray, *, optimise: bool = False) -> list[np.ndarray]:
    session = tapped(model, (), optimise=optimise)
    return session.run(None, {session.get_inputs()[0].name: x})


def calibrated(model: ModelProto, chosen: Plan, pictures: list[np.ndarray]) -> dict[str, float]:
    return {k: amax(h, "max") for k, h in collect(model, chosen.tensors, pictures, 2048).items()}


# ---- ranges


def test_histogram_grows_without_losing_counts() -> None:
    h = Histogram(2048)
    h.add(np.zeros(5, np.float32))  # before the reach is known
    h.add(np.array([0.5, -1.0], np.float32))
    h.add(np.array([-7.0], np.float32))
    assert (h.max, h.reach, h.counts.sum()) == (7.0, 8.0, 8)
    assert np.flatnonzero(h.counts).tolist() == [0, 256, 511, 3584]  # 4096 bins of 1/512


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=50, max_size=200), st.integers(1, 20))
def test_order_and_pieces_do_not_matter(values: list[float], pieces: int) -> None:
    x = np.array(values, np.float32)
    h = Histogram(2048)
    for part in np.array_split(np.sort(np.abs(x)), pieces):
        h.add(part)
    assert h.counts.sum() == len(x)
    assert amax(h, "max") == (np.abs(x).max() if np.abs(x).max() > 1e-20 else 0)


def test_percentile_agrees_with_numpy() -> None:
    x = np.random.default_rng(0).laplace(size=200_000).astype(np.float32)
    h = Histogram(4096)
    for part in np.array_split(x, 7):
        h.add(part)
    assert len(np.flatnonzero(h.counts)) > 1500
    for percentile in (90, 99, 99.9, 99.99):
        assert amax(h, "percentile", percentile) == pytest.approx(np.percentile(np.abs(x), percentile), abs=2 * h.width)
    assert amax(h, "percentile", 100) == amax(h, "max") == np.abs(x).max()


def test_entropy_clips_a_lone_outlier_and_keeps_an_even_spread() -> None:
    random = np.random.default_rng(0)
    outlier, even = Histogram(2048), Histogram(2048)
    outlier.add(np.append(random.normal(size=100_000), 100).astype(np.float32))
    even.add(random.uniform(-1, 1, 100_000).astype(np.float32))
    assert 2 < amax(outlier, "entropy") < 15
    assert amax(even, "entropy") > 0.95


def test_entropy_keeps_values_that_all_lie_far_from_zero() -> None:
    """A gate of OSNet's: a sigmoid's few values around 0.6, and a lone one that ends where some clip does."""
    values = np.random.default_rng(0).normal(0.6, 0.05, 1280)
    for lone in np.linspace(0.1, 0.11, 40):
        gate = Histogram(2048)
        gate.add(np.append(values, lone).astype(np.float32))
        assert gate.clipped(amax(gate, "entropy")) < 0.05


@pytest.mark.parametrize(("clip", "error"), [(127.0, 0.25 * 10), (63.5, 63.5**2), (31.75, 95.25**2)])
def test_error_of_a_clip_by_hand(clip: float, error: float) -> None:
    """Ten values of 0.5 and one of 127: steps of 1 round the ten to 0 or 1; steps of 1/2, 1/4 clip the one."""
    h = Histogram(2048)
    h.add(np.array([127.0, *[0.5] * 10], np.float32))
    assert h.noise(clip) == pytest.approx(error, rel=0.07)  # values are known to half a bin, 1/64
    assert h.clipped(clip) == (0 if clip == 127 else pytest.approx(1 / 11))
    assert h.power() == pytest.approx(127**2 + 10 * 0.25, rel=0.01)


def squared_error(x: np.ndarray, clip: float) -> float:
    step = clip / 127
    return float(np.square(x - np.clip(np.rint(x / step), -127, 127) * step).sum())


@pytest.mark.parametrize("outliers", [0, 1, 20])
def test_mse_finds_what_trying_every_clip_on_the_values_finds(outliers: int) -> None:
    random = np.random.default_rng(outliers)
    x = np.concatenate([random.laplace(size=20_000), random.uniform(20, 60, outliers)]).astype(np.float32)
    h = Histogram(4096)
    for part in np.array_split(x, 5):
        h.add(part)
    least = min(squared_error(x, clip) for clip in np.linspace(0.5, np.abs(x).max(), 400))
    assert squared_error(x, amax(h, "mse")) <= 1.02 * least
    assert all(h.noise(amax(h, "mse")) <= h.noise(amax(h, m)) * 1.01 for m in ("max", "percentile", "entropy"))


def test_methods_by_name() -> None:
    names = ["x", "stem.relu", "stem.pool", "fc"]
    assert methods(names, {"default": "mse"}) == dict.fromkeys(names, "mse")
    by_name = {"default": "percentile", "stem.relu": "entropy", "stem.*": "max"}
    assert list(methods(names, by_name).values()) == ["percentile", "entropy", "max", "percentile"]
    with pytest.raises(RecipeError, match=r"quantize\.ranges names 'steem\.\*'; wanted .* such as x, stem\.relu"):
        methods(names, {"default": "max", "steem.*": "max"})


def test_ranges_in_a_recipe(tmp_path: Path) -> None:
    assert QuantizeSection(ranges="mse").ranges == {"default": "mse"}
    assert QuantizeSection(ranges={"fc": "max"}).ranges == {"default": "percentile", "fc": "max"}
    path = tmp_path / "r.yaml"
    path.write_text("name: t\nmodel: {arch: lenet5}\nquantize: {ranges: {fc: maxx}}\n")
    with pytest.raises(RecipeError, match=r"quantize\.ranges\.fc': did you mean 'max'"):
        load_recipe(path)


def test_each_tensor_gets_the_range_of_its_method() -> None:
    wide = stage.quantize(tiny(), feeds(), QuantizeSection(ranges="max"))
    mixed = stage.quantize(tiny(), feeds(), QuantizeSection(ranges={"default": "max", "mix.*": "mse"}))
    changed = {name for name in wide.amax if wide.amax[name] != mixed.amax[name]}
    assert changed == {"mix.relu"} and mixed.amax["mix.relu"] < wide.amax["mix.relu"]


def test_ranges_from_an_earlier_quantize(tmp_path: Path) -> None:
    path = tmp_path / "ranges.json"
    first = stage.quantize(tiny(), feeds(), QuantizeSection(ranges="entropy"))
    path.write_text(json.dumps({"amax": first.amax}))
    again = stage.quantize(tiny(), feeds(), QuantizeSection(ranges="max", ranges_from=path))
    assert again.amax == pytest.approx(first.amax) and again.tensorrt == first.tensorrt
    for text, words in (
        ("[", "holds no ranges"),
        ('{"amax": {"y": 1}}', "none of the"),
        ('{"amax": {"x": 0}}', "not above 0"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            stage.quantize(tiny(), feeds(), QuantizeSection(ranges_from=path))


def test_the_shipped_ranges_fit_the_shipped_network_and_give_their_scales(tmp_path: Path) -> None:
    """The layers without a range are those that `quantize` keeps float by themselves; slimming renames none."""
    root = Path(__file__).resolve().parents[1]
    path, recipe = root / "calibration" / "adas.ranges.json", load_recipe(root / "recipes" / "adas.yaml")
    known = json.loads(path.read_text("utf-8"))
    assert known["method"] == recipe.quantize.ranges and known["percentile"] == recipe.quantize.percentile
    assert known["pictures"] == len(open_list(recipe.quantize.calibration or Path()))
    weights = zoo.weights_path(recipe.model)
    assert weights is not None
    net, spec = zoo.load(weights, zoo.spec_for(recipe.model))
    write(net, spec, tmp_path / "road.onnx", 17)
    model = prepare(load(tmp_path / "road.onnx"))
    nodes = {node.name: node for node in model.graph.node}
    without = {name for name in plan(model).kernels if nodes[name].input[0] not in known["amax"]}
    chosen = plan(model, without)
    assert set(chosen.tensors) == set(known["amax"]) and 0 < len(without) < 10
    again = scales(chosen, stage.given(path, chosen.tensors))
    assert {name: scale * 127 for name, scale in again.items()} == pytest.approx(known["amax"], rel=1e-12)


def test_dead_and_broken_tensors() -> None:
    dead = Histogram(2048)
    dead.add(np.zeros(10, np.float32))
    assert [amax(dead, m) for m in ("max", "percentile", "entropy", "mse")] == [0, 0, 0, 0]
    model = prepare(tiny())
    with pytest.raises(InputError, match="calibration list is empty"):
        collect(model, ["x"], [], 2048)
    with pytest.raises(ModelError, match="x becomes inf or nan on calibration picture 1"):
        collect(model, ["x"], [np.full(SHAPE, np.nan, np.float32)], 2048)


# ---- preparation


def test_prepare_keeps_the_answers() -> None:
    s = Sketch(1)
    conv = s.conv("x", "conv", 8, 3)
    norm = [s.constant(f"bn{i}", s.random.uniform(0.5, 2, 8).astype(np.float32)) for i in range(4)]
    s.node("BatchNormalization", [conv, *norm], "bn")
    s.node("Identity", ["bn"], "same")
    gap = s.node("GlobalAveragePool", [s.relu("same")], "gap")
    shape = helper.make_tensor("v", TensorProto.INT64, [2], [1, 8])
    s.nodes.append(helper.make_node("Constant", [], ["shape"], value=shape))
    flat = s.node("Reshape", [gap, "shape"], "flat")
    half = s.node("Mul", [s.weight("w", 8, 5), s.constant("half", np.float32(0.5).reshape(()))], "w.half")
    s.nodes.append(helper.make_node("Gemm", [flat, half, s.weight("b", 5)], ["y"]))
    model = s.model({"y": [1, 5]}, opset=11)
    ready = prepare(model)
    assert [n.op_type for n in ready.graph.node] == ["Conv", "Relu", "GlobalAveragePool", "Reshape", "Gemm"]
    assert ready.opset_import[0].version == 13 and all(n.name for n in ready.graph.node)
    for x in feeds(2):
        np.testing.assert_allclose(answers(ready, x)[0], answers(model, x)[0], atol=1e-5)


@pytest.mark.parametrize("content", [b"", b"hello\n", tiny().SerializeToString()[:3000]])
def test_load_refuses_what_is_no_network(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"net\.onnx"):
        load(path)


# ---- placement


def test_placement_on_the_tiny_network() -> None:
    chosen = plan(prepare(tiny()))
    assert chosen.kernels == ("stem", "depthwise", "pointwise", "left", "mix", "fc")
    assert chosen.points == {
        "x": [("stem", 0)],
        "stem.relu": [("depthwise", 0), ("add", 1)],  # the skip, not the convolution's output
        "depthwise.relu": [("pointwise", 0)],
        "add.relu": [("left", 0), ("pool", 0)],
        "left.relu": [("cat", 0)],
        "pool": [("cat", 1)],
        "cat": [("mix", 0)],
        "mix.relu": [("gap", 0)],
        "gap": [("flat", 0)],
        "flat": [("fc", 0)],
    }
    assert chosen.cpu_points == {"pointwise": [("add", 0)]}
    assert set(chosen.ties) == {("left.relu", "pool", "cat"), ("add.relu", "pool"), ("gap", "flat")}


def detector() -> ModelProto:
    """Focus slices, SiLU, and a tail in which boxes and scores are concatenated."""
    s = Sketch(2)
    parts = []
    for i in range(2):
        names = [
            s.constant(f"{k}{i}", np.array([v], np.int64)) for k, v in zip("bcde", (i, 2**31 - 1, 3, 2), strict=True)
        ]
        parts.append(s.node("Slice", ["x", *names], f"slice{i}"))
    body = s.conv(s.node("Concat", parts, "focus", axis=1), "body", 8, 6)
    silu = s.node("Mul", [body, s.node("Sigmoid", [body], "gate")], "silu")
    box, score = s.conv(silu, "box", 4, 8, kernel=1), s.node("Sigmoid", [s.conv(silu, "score", 2, 8, kernel=1)], "p")
    far = s.node("Mul", [box, s.constant("far", np.float32(640).reshape(()))], "far.box")
    s.node("Concat", [far, score], "y", axis=1)
    return s.model({"y": [1, 6, 32, 24]})


def test_tail_stays_float_and_focus_is_quantised_once() -> None:
    chosen = plan(prepare(detector()))
    assert chosen.points == {"focus": [("body", 0)], "silu": [("box", 0), ("score", 0)]}
    assert chosen.cpu_points == {"body": [("gate", 0), ("silu", 0)], "gate": [("silu", 1)]}
    result = stage.quantize(detector(), feeds(), QuantizeSection())
    exact, rounded = answers(detector(), feeds(1)[0])[0], answers(result.tensorrt, feeds(1)[0])[0]
    assert np.abs(exact[:, 4:] - rounded[:, 4:]).max() < 0.05  # scores survive beside boxes 640 times as large


def test_keep_float() -> None:
    model = prepare(tiny())
    chosen = plan(model, ["left"])
    assert chosen.floats == ("left",) and ("left", 0) not in chosen.points["add.relu"]
    with pytest.raises(RecipeError, match="keep_float names 'lefft'"):
        plan(model, ["lefft"])


def test_scales_are_shared_only_where_ranges_allow() -> None:
    chosen = plan(prepare(tiny()))
    amaxes = dict.fromkeys(chosen.tensors, 1.0)
    near = scales(chosen, {**amaxes, "left.relu": 3.0})
    assert near["left.relu"] == near["cat"] == near["pool"] == near["add.relu"] == pytest.approx(3 / 127)
    far = scales(chosen, {**amaxes, "left.relu": 100.0, "cat": 100.0})
    assert far["left.relu"] == far["cat"] == pytest.approx(100 / 127) or far["pool"] == pytest.approx(1 / 127)
    assert far["add.relu"] == far["pool"] == pytest.approx(1 / 127)


def test_weight_scales_keep_biases_of_dead_channels_in_int32() -> None:
    weight = np.array([[1.27], [0.0]], np.float32)
    got = weight_scales(weight, np.array([5.0, 5.0], np.float32), x_scale=0.1)
    assert got[0] == pytest.approx(0.01)
    assert 5.0 / (0.1 * got[1]) <= 2**30


# ---- the two forms


@pytest.fixture(scope="module")
def form() -> tuple[ModelProto, Plan, dict[str, float], ModelProto]:
    model = prepare(tiny())
    chosen = plan(model)
    scale = scales(chosen, calibrated(model, chosen, feeds()))
    return model, chosen, scale, insert(model, chosen.points, scale, chosen.kernels)


Form = tuple[ModelProto, Plan, dict[str, float], ModelProto]


def test_tensorrt_form_is_clean(form: Form) -> None:
    s8 = form[3]
    onnx.checker.check_model(s8, full_check=True)
    assert check_model(s8) == []
    zeros = {n.input[2] for n in s8.graph.node if n.op_type == "QuantizeLinear"}
    types = {t.data_type for t in s8.graph.initializer if t.name in zeros}
    assert types == {TensorProto.INT8}
    assert "fc.weight_DQ" in {n.name for n in s8.graph.node}


def test_zero_point_128_is_bit_exact(form: Form) -> None:
    """The reference is the file as written, so graph optimisation is off on both sides."""
    same = to_unsigned(form[3], relu_zero=False)
    for x in feeds(4):
        np.testing.assert_array_equal(answers(form[3], x)[0], answers(same, x)[0])


def test_zero_point_0_differs_only_above_the_range(form: Form) -> None:
    model, chosen, scale, _ = form
    roomy = {name: 2 * value for name, value in scale.items()}  # nothing saturates
    s8 = insert(model, chosen.points, roomy, chosen.kernels)
    for x in feeds(4):
        np.testing.assert_array_equal(answers(s8, x)[0], answers(to_unsigned(s8), x)[0])
    tight = {name: value / 3 for name, value in scale.items()}
    s8 = insert(model, chosen.points, tight, chosen.kernels)
    assert not np.array_equal(answers(s8, x)[0], answers(to_unsigned(s8), x)[0])


def test_packed_weights_and_biases(form: Form) -> None:
    unsigned = to_unsigned(form[3])
    packed = pack(unsigned)
    onnx.checker.check_model(packed, full_check=True)
    kinds = {t.name: t.data_type for t in packed.graph.initializer}
    assert kinds["mix.weight"] == TensorProto.INT8 and kinds["mix.bias_int"] == TensorProto.INT32
    for x in feeds(3):
        np.testing.assert_allclose(answers(packed, x)[0], answers(unsigned, x)[0], atol=0.05)


def test_onnxruntime_runs_the_cpu_form_in_integers(form: Form, tmp_path: Path) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(cpu_form(*form[:3]).SerializeToString(), options, providers=["CPUExecutionProvider"])
    nodes = [n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert nodes.count("QLinearConv") == 5 and "Conv" not in nodes and "QLinearAdd" in nodes


def test_a_convolution_with_no_pair_behind_it_has_float_weights(tmp_path: Path) -> None:
    """A head's last convolution runs in float: its weights are rounded as in TensorRT's form, and not scaled back for
    every picture. Only activations are dequantised in what onnxruntime makes of the file."""
    import onnxruntime as ort

    s = Sketch()
    s.conv(s.relu(s.conv("x", "body", 16, 3)), "head", 8, 16, kernel=1)
    model = prepare(s.model({"head": [1, 8, 32, 48]}))
    chosen = plan(model)
    scale = scales(chosen, calibrated(model, chosen, feeds(4)))
    trt, cpu = insert(model, chosen.points, scale, chosen.kernels), cpu_form(model, chosen, scale)
    view = View(cpu)
    weight, whole = view.constant("head.weight"), view.constant("body.weight")
    assert weight is not None and weight.dtype == np.float32 and whole is not None and whole.dtype == np.int8
    steps = View(trt).constant("head.weight_scale")
    assert steps is not None
    levels = weight / steps.reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)
    assert np.abs(levels).max() == pytest.approx(127)
    for x in feeds(3):
        np.testing.assert_allclose(answers(cpu, x)[0], answers(to_unsigned(trt), x)[0], atol=0.05)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED  # before layouts of this CPU
    ort.InferenceSession(cpu.SerializeToString(), options, providers=["CPUExecutionProvider"])
    nodes = [n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert sorted(nodes) == ["Conv", "DequantizeLinear", "QLinearConv", "QuantizeLinear"]


# ---- rounding and its correction


def test_correction_takes_out_the_mean_error() -> None:
    s = Sketch(3)
    s.relu(s.conv("x", "conv", 8, 3))
    model = prepare(s.model({"conv.relu": [1, 8, 32, 48]}))
    chosen = plan(model)
    pictures = [np.abs(x) + 0.3 for x in feeds(8)]  # not centred, so rounded weights leave a mean error
    scale = scales(chosen, {"x": 1.0})  # clips

    def means(network: ModelProto) -> np.ndarray:
        session = tapped(network, ["conv"])
        return np.mean([session.run(["conv"], {"x": x})[0] for x in pictures], axis=(0, 1, 3, 4))

    def rounded(network: ModelProto) -> np.ndarray:
        return means(insert(network, chosen.points, scale, chosen.kernels))

    error = measure(model, chosen, scale, pictures)
    assert np.abs(rounded(model) - means(model)).max() > 0.01
    np.testing.assert_allclose(rounded(model) + error["conv"].mean, means(model), atol=1e-4)
    np.testing.assert_allclose(rounded(corrected(model, error)), means(model), atol=1e-4)


def uneven() -> ModelProto:
    """Channels of very different loudness: to a depthwise reader, and behind MaxPool and Concat to a dense one."""
    s = Sketch(5)
    first = s.relu(s.conv("x", "first", 8, 3))
    tail = s.relu(s.conv(first, "depth", 8, 8, groups=8))
    cat = s.node("Concat", [s.relu(s.conv("x", "other", 4, 3)), tail, tail], "cat", axis=1)
    pool = s.node("MaxPool", [cat], "pool", kernel_shape=[2, 2])
    s.relu(s.conv(pool, "dense", 8, 20))
    s.conv("dense.relu", "last", 4, 8)
    gains = {"first": 8, "depth": 8, "other": 4}
    for name, count in gains.items():
        gain = np.geomspace(1, 30, count, dtype=np.float32)
        for part in ("w", "b"):
            tensor = next(t for t in s.weights if t.name == f"{name}.{part}")
            value = numpy_helper.to_array(tensor)
            value = value * gain.reshape(-1, *[1] * (value.ndim - 1))
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return s.model({"last": [1, 4, 31, 47]})


def test_evening_channels_keeps_the_answers_and_helps() -> None:
    model = prepare(uneven())
    assert [(x.tensor, [(r.conv.name, r.offset) for r in x.readers]) for x in spans(View(model))] == [
        ("first.relu", [("depth", 0)]),
        ("depth.relu", [("dense", 4), ("dense", 12)]),
        ("other.relu", [("dense", 0)]),
        ("dense.relu", [("last", 0)]),
    ]
    better = equalized(model, feeds(4))
    loud = [np.abs(tapped(better, ["first.relu"]).run(["first.relu"], {"x": x})[0]).max((0, 2, 3)) for x in feeds(4)]
    assert np.ptp(np.mean(loud, axis=0)) < 1e-3 * np.mean(loud)  # as loud as one another for the depthwise reader
    chosen = plan(model)
    noise = []
    for network in (model, better):
        for x in feeds(2):
            np.testing.assert_allclose(answers(network, x)[0], answers(model, x)[0], rtol=1e-4, atol=1e-4)
        rounded = insert(network, chosen.points, scales(chosen, calibrated(network, chosen, feeds(4))), chosen.kernels)
        noise.append(stage.sqnr(model, rounded, feeds(4), optimise=False)["last"])
    assert noise[1] > noise[0] + 1.5


def test_residuals_and_outputs_are_not_evened() -> None:
    """The stem is read by an Add, the joined tensor comes from one, and a shared weight can serve only one reader."""
    assert [x.tensor for x in spans(View(prepare(tiny())))] == ["depthwise.relu", "left.relu"]


def test_a_kernel_that_rounding_ruins_stays_float() -> None:
    """One channel 1000 times as loud as the others leaves them a single level; a depthwise kernel needs them all."""
    s = Sketch(4)
    loud = s.constant("gain", np.array([1000] + [1] * 7, np.float32).reshape(1, 8, 1, 1))
    wide = s.relu(s.node("Mul", [s.conv("x", "first", 8, 3), loud], "loud"))
    s.conv(wide, "depth", 8, 8, groups=8)
    quiet = numpy_helper.to_array(next(t for t in s.weights if t.name == "depth.w")).copy()
    quiet[0] = 1e-4  # the loud channel hardly counts in the output
    next(t for t in s.weights if t.name == "depth.w").CopyFrom(numpy_helper.from_array(quiet, "depth.w"))
    result = stage.quantize(s.model({"depth": [1, 8, 32, 48]}), feeds(), QuantizeSection())
    assert result.weak == ("depth",) and result.plan.kernels == ("first",)
    assert result.rounding["depth"].sqnr_db < 20 < result.rounding["first"].sqnr_db


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse", "max"])
def test_answers_stay_close(method: str) -> None:
    result = stage.quantize(tiny(), feeds(), QuantizeSection(ranges=method))
    for file in (result.tensorrt, result.cpu):
        assert stage.sqnr(tiny(), file, feeds(4), optimise=False)["fc"] > 20


# ---- the stage


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Bundle, Recipe]:
    spec = ModelSpec("onnx", "classify", tuple("0123456789"), TensorSpec("x", SHAPE), mean=(128,) * 3, std=(60,) * 3)
    onnx.save(tiny(), tmp_path / "model.onnx")
    bundle = Bundle(tmp_path, "tiny").with_stage(
        "export", settings={}, version=1, files={"fp32": "model.onnx"}, facts={}, tools={}, model=spec
    )
    random = np.random.default_rng(0)
    truth = Truth.of(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    samples = [Sample("", random.integers(0, 256, (40, 60, 3), dtype=np.uint8), truth) for _ in range(20)]
    monkeypatch.setattr(stage, "open_dataset", lambda section: samples)
    recipe = Recipe.model_validate({"name": "tiny", "model": {"arch": "lenet5"}})
    return bundle, recipe


def test_stage_writes_files_and_facts(made: tuple[Bundle, Recipe]) -> None:
    bundle = run_stage(*made)
    facts = bundle.stages["quantize"].facts
    assert (facts["int8_kernels"], facts["kernels"], facts["pictures"]) == (6, 6, 20)
    assert facts["bytes"]["int8_cpu"] == bundle.file("int8_cpu").stat().st_size < bundle.file("fp32").stat().st_size
    assert facts["sqnr_db"]["fc"] > 20 and facts["sqnr_cpu_db"]["fc"] > 20
    ranges = json.loads(bundle.file("ranges").read_text())
    assert ranges["amax"]["x"] == pytest.approx(128 / 60, rel=0.1)  # resizing averages the extremes
    shown = json.loads(bundle.file("histograms").read_text())
    assert list(shown) == list(ranges["amax"])
    for name, row in shown.items():
        assert row["amax"] == ranges["amax"][name] and len(row["counts"]) == stage.SHOWN_BINS
        assert 0 <= row["clipped"] < 0.01 and row["sqnr_db"] > 20 and row["max"] <= row["reach"]
    assert sum(shown["x"]["counts"]) == 20 * np.prod(SHAPE)  # 20 pictures
    first = bundle.file("int8").read_bytes()
    assert run_stage(*made).file("int8").read_bytes() == first


def test_settings_follow_the_calibration_list(tmp_path: Path) -> None:
    listed = tmp_path / "list.json"
    listed.write_text("[]")
    recipe = {"name": "t", "model": {"arch": "lenet5"}, "quantize": {"calibration": listed}}
    before = stage_settings(Recipe.model_validate(recipe))
    listed.write_text("[1]")
    assert stage_settings(Recipe.model_validate(recipe)) != before
    assert "data" not in before and str(tmp_path) not in json.dumps(before)
    ranges = tmp_path / "ranges.json"
    recipe["quantize"]["ranges_from"] = ranges
    missing = stage_settings(Recipe.model_validate(recipe))
    ranges.write_text("{}")
    assert missing["ranges_from"] == "missing" != stage_settings(Recipe.model_validate(recipe))["ranges_from"]


# ---- a real network


@pytest.mark.slow
def test_yolox_nano_still_finds_the_bus_and_its_people(shared_data: Path) -> None:
    """SiLU, Focus slices and a concatenated tail; FP32 finds the bus at .91 and persons at .85, .81 and .68."""
    spec = ModelSpec(
        *("onnx", "detect", tuple(map(str, range(80))), TensorSpec("images", (1, 3, 416, 416))),
        decode="yolox",
        strides=(8, 16, 32),
    )
    section = DataSection(kind="folder", path=shared_data / "detection" / "voc100" / "images", pictures=48)
    source = load(shared_data / "weights" / "yolox_nano_coco80_416.onnx")
    result = stage.quantize(source, stage.Inputs(spec, open_dataset(section)), QuantizeSection())
    assert result.weak == ("Conv_44",) and len(result.plan.kernels) == 112
    assert check_model(result.tensorrt) == []
    x, box = Preprocess(spec)(cv2.imread(str(shared_data / "images" / "bus.jpg")))
    for file, tolerance in ((result.tensorrt, 0.05), (result.cpu, 0.12)):
        found = DecodeDetections(spec)({"output": answers(file, x)[0]}, box)
        assert found.label[:4].tolist() == [5, 0, 0, 0]
        np.testing.assert_allclose(found.score[:4], [0.91, 0.85, 0.81, 0.68], atol=tolerance)
        assert len(found) <= 5
