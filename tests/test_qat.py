"""Quantisation-aware training: torch against onnxruntime, gradients by hand, ties, and the stage itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, helper
from test_quantize import calibrated, detector
from thin_nets import spec as zoo_spec
from thin_nets import thin
from tiny_onnx import SHAPE, Sketch, feeds, tiny

from edgecnn import export, zoo
from edgecnn.build.lint import check_model
from edgecnn.bundle import Bundle, ModelSpec, TensorSpec
from edgecnn.data import Sample, open_dataset
from edgecnn.errors import InputError, ModelError, RecipeError
from edgecnn.quantize import run_stage, stage
from edgecnn.quantize import settings as stage_settings
from edgecnn.quantize.cpu import cpu_form
from edgecnn.quantize.graph import View, prepare
from edgecnn.quantize.insert import insert, plan, scales, weight_scales
from edgecnn.quantize.qat.loss import distance
from edgecnn.quantize.qat.network import Form, Network, Rounded, rounded_weight
from edgecnn.quantize.qat.train import Trainer, agree
from edgecnn.quantize.ranges import tapped
from edgecnn.recipe import DataSection, QatSection, QuantizeSection, Recipe
from edgecnn.recipe import load as load_recipe
from edgecnn.scene import F32, Truth


def spec(**changes: object) -> ModelSpec:
    given = ModelSpec("onnx", "classify", tuple("abcdefghij"), TensorSpec("x", SHAPE), (), mean=(128.0,) * 3)
    return replace(given, std=(64.0,) * 3, **changes)


NOTHING = Truth.of(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))


class Blobs:
    """Pictures of coloured noise without labels, the size of the tiny network's input."""

    classes = ()

    def __init__(self, count: int = 48) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Sample:
        random = np.random.default_rng(i)
        coarse = random.integers(0, 256, (4, 6, 3), dtype=np.uint8)
        return Sample(f"blob {i}", np.kron(coarse, np.ones((8, 8, 1), np.uint8)), NOTHING)


def run(model: ModelProto, x: F32, *, optimise: bool = False) -> list[F32]:
    """onnxruntime's answers, picture by picture: graphs are made for one."""
    session = tapped(model, (), optimise=optimise)
    rows = [session.run(None, {session.get_inputs()[0].name: one[None]}) for one in x]
    return [np.concatenate(values) for values in zip(*rows, strict=True)]


def torched(network: Network, x: F32, form: Form | None = None) -> list[F32]:
    with torch.no_grad():
        return [value.numpy() for value in network(torch.from_numpy(x), form)]


# ---- the network in torch


@pytest.mark.parametrize("arch", ["lenet5", "lenet5_original", "zfnet", "resnet50", "roadnet"])
def test_float_answers_are_onnxruntimes_on_the_zoo(arch: str, tmp_path: Path) -> None:
    small = {"roadnet": {"height": 96, "width": 96}, "resnet50": {"height": 64, "width": 64}}
    if arch in ("lenet5", "lenet5_original", "roadnet"):
        torch.manual_seed(0)
        model_spec = zoo_spec(arch, **small.get(arch, {}))
        net = zoo.build(model_spec)
    else:
        net, model_spec = thin(arch, **small.get(arch, {}))
    export.write(net, model_spec, path := tmp_path / "net.onnx", 17)
    model = prepare(onnx.load(path))
    x = np.random.default_rng(0).normal(size=(3, *model_spec.input.shape[1:])).astype(np.float32)
    for came, wanted in zip(torched(Network(model), x), run(model, x), strict=True):
        np.testing.assert_allclose(came, wanted, atol=1e-4 * max(np.ptp(wanted), 1e-3))


def odd() -> ModelProto:
    """The operators and variants that the zoo does not have."""
    s = Sketch(5)
    whole = lambda name, *values: s.constant(name, np.array(values, np.int64))  # noqa: E731
    x = s.conv("x", "stem", 8, 3)
    for i, (op, attributes) in enumerate(
        [
            ("LeakyRelu", {"alpha": 0.2}),
            ("HardSwish", {}),
            ("Elu", {}),
            ("HardSigmoid", {}),
            ("Softplus", {}),
            ("Exp", {}),
        ]
    ):
        x = s.node(op, [x], f"act{i}", **attributes)
    x = s.node("Clip", [x, s.constant("low", np.float32(0.3).reshape(())), ""], "clip")
    x = s.node("PRelu", [s.node("Neg", [x], "neg"), s.weight("slope", 8, 1, 1)], "prelu")
    x = s.node("MaxPool", [x], "pool", kernel_shape=[3, 2], strides=[2, 2], pads=[0, 0, 1, 1])
    x = s.node("AveragePool", [x], "avg", kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4, ceil_mode=1)
    x = s.node("ConvTranspose", [x, s.weight("up.w", 8, 4, 2, 2)], "up", strides=[2, 2])
    x = s.node("Conv", [x, s.weight("same.w", 8, 4, 3, 3)], "same", auto_pad="SAME_UPPER", strides=[2, 2])
    a, b = "left", "right"
    s.nodes.append(helper.make_node("Split", [x, whole("sizes", 3, 5)], [a, b], "split", axis=1))
    x = s.node("Concat", [s.node("Pow", [a, s.constant("two", np.float32(2).reshape(()))], "pow"), b], "cat", axis=1)
    x = s.node("Resize", [x, "", s.constant("by", np.array([1, 1, 2, 3], np.float32))], "big", mode="nearest")
    sizes = whole("size", 1, 8, 20, 30)
    x = s.node("Resize", [x, "", "", sizes], "lin", mode="linear", coordinate_transformation_mode="half_pixel")
    x = s.node("Pad", [x, whole("pads", 0, 0, 1, 0, 0, 0, 0, 2)], "padded")
    x = s.node("Slice", [x, whole("from", 1), whole("to", -1), whole("axis", 3), whole("step", 2)], "slice")
    x = s.node("Gather", [x, whole("rows", 5, 0, -1)], "gather", axis=1)
    x = s.node("Softmax", [s.node("Transpose", [x], "nhwc", perm=[0, 2, 3, 1])], "softmax", axis=-1)
    x = s.node("ReduceMean", [x], "mean", axes=[1], keepdims=0)
    x = s.node("Sqrt", [s.node("ReduceSum", [x, whole("one", 1)], "sum", keepdims=1)], "root")
    x = s.node("Squeeze", [s.node("Unsqueeze", [x, whole("at", 0, -1)], "deep"), whole("first", 0)], "flatter")
    x = s.node("Reshape", [x, whole("shape", 1, -1)], "row")
    s.node("MatMul", [x, s.weight("fc.w", 3, 4)], "y")
    return s.model({"y": [1, 4]}, opset=14)


def test_odd_operators_are_onnxruntimes() -> None:
    model, x = prepare(odd()), np.concatenate(feeds(3))
    np.testing.assert_allclose(torched(Network(model), x)[0], run(model, x)[0], rtol=1e-4, atol=1e-6)


def test_an_unknown_operator_is_named() -> None:
    s = Sketch()
    s.node("Sin", [s.conv("x", "stem", 4, 3)], "wave")
    with pytest.raises(ModelError, match=r"node wave, a Sin; wanted operators among Add, .* Leave qat out"):
        Network(prepare(s.model({"wave": [1, 4, 32, 48]})))
    s = Sketch()
    back = [s.constant(n, np.array([v], np.int64)) for n, v in (("a", -1), ("b", -9), ("c", 3), ("d", -1))]
    s.node("Slice", [s.conv("x", "stem", 4, 3), *back], "mirror")
    with pytest.raises(ModelError, match=r"run node mirror, a Slice \(a step backwards\)"):
        torched(Network(prepare(s.model({"mirror": [1, 4, 32, 8]}))), feeds(1)[0])


def test_a_network_that_mixes_pictures_is_refused() -> None:
    s = Sketch()
    x = s.node("Flatten", [s.conv("x", "stem", 4, 3)], "flat", axis=0)
    s.node("ReduceMean", [x], "y", axes=[1])
    network = Network(prepare(s.model({"y": [1, 1]})))
    agree(network, torch.from_numpy(feeds(1)[0]))
    with pytest.raises(ModelError, match="output y of this network on torch is not onnxruntime's"):
        agree(network, torch.from_numpy(np.concatenate(feeds(2))))


# ---- rounding


@pytest.mark.parametrize("make", [tiny, detector])
def test_rounded_answers_are_those_of_both_files(make: object) -> None:
    """Sums in another order may turn a tie over: one step of one value, which then goes on through the network. The
    CPU's file rounds its biases too."""
    model = prepare(make())  # type: ignore[operator]
    chosen = plan(model)
    scale = scales(chosen, calibrated(model, chosen, feeds()))
    network, x = Network(model), np.concatenate(feeds(8))
    network.quantise(chosen, scale)
    assert network.scales() == {name: float(np.float32(value)) for name, value in scale.items()}
    exact = run(model, x)[0]
    np.testing.assert_allclose(torched(network, x)[0], exact, atol=1e-5 * np.ptp(exact))
    off = {}
    for form, file in (
        ("tensorrt", insert(model, chosen.points, scale, chosen.kernels)),
        ("cpu", cpu_form(model, chosen, scale)),
    ):
        written = run(file, x)[0]
        noise = np.square(exact - written).mean()
        off = {f: np.square(torched(network, x, f)[0] - written).mean() / noise for f in ("tensorrt", "cpu")}
        assert noise > 0 and off[form] < (0.01 if form == "tensorrt" else 0.1)
        assert off[form] == min(off.values())


def test_weights_round_as_they_are_written() -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=(5, 3, 3, 3)).astype(np.float32)
    weight[1] = 0  # a dead channel: its scale comes from the bias
    for bias in (None, random.normal(size=5).astype(np.float32)):
        scale = weight_scales(weight, bias, 0.02).reshape(-1, 1, 1, 1)
        wanted = np.clip(np.rint(weight / scale), -128, 127) * scale
        ours = rounded_weight(*(None if v is None else torch.from_numpy(v) for v in (weight, bias)), torch.tensor(0.02))
        np.testing.assert_allclose(ours.numpy(), wanted, rtol=0, atol=1e-7)


def test_gradients_by_hand() -> None:
    """Scale 0.5; 0.6 rounds to 1 step, -3.1 to -6, 70 clips at 127 steps, -70 at -128."""
    x = torch.tensor([0.6, -3.1, 70.0, -70.0], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    y = Rounded.apply(x, scale)
    assert y.tolist() == [0.5, -3.0, 63.5, -64.0]
    (y * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [1, 2, 0, 0]  # straight through, but where it clips
    assert float(scale.grad) == pytest.approx((1 - 1.2) + 2 * (-6 + 6.2) + 3 * 127 + 4 * -128)  # type: ignore[arg-type]
    weight = torch.randn(4, 3, requires_grad=True)
    rounded_weight(weight, None, torch.tensor(1.0)).sum().backward()
    assert weight.grad is not None and bool((weight.grad == 1).all())


# ---- the loss


def test_the_teachers_own_answers_cost_nothing_and_silence_costs_one() -> None:
    torch.manual_seed(0)
    logits, boxes, scores = torch.randn(4, 10), torch.randn(4, 50, 4), torch.rand(4, 50, 6)
    for decode, answer in (
        ("logits", [logits]),
        ("roadnet", [boxes, scores]),
        ("yolox", [torch.cat([boxes, scores], 2)]),
    ):
        assert float(distance(decode, answer, answer)) == 0  # type: ignore[arg-type]
        silent = [torch.zeros_like(a) for a in answer]
        assert float(distance(decode, silent, answer)) == pytest.approx(1, abs=1e-4)  # type: ignore[arg-type]


def test_boxes_of_the_background_do_not_count() -> None:
    boxes, scores = torch.randn(1, 2, 4), torch.tensor([[[0.9, 0.8], [0.0, 0.8]]])
    moved = boxes.clone()
    moved[:, 1] += 5  # yolox: objectness, the first score, is 0 there
    answer, other = (torch.cat([b, scores], 2) for b in (boxes, moved))
    assert float(distance("yolox", [other], [answer])) == pytest.approx(0, abs=1e-6)
    assert float(distance("roadnet", [moved, scores], [boxes, scores])) > 0


# ---- training


# a range that clips 5 % of every tensor leaves something to learn
SECTION = QuantizeSection(percentile=95, qat=QatSection(epochs=3, lr=4e-3))
PLAIN = SECTION.model_copy(update={"qat": None})


def tuned(model: ModelProto, section: QuantizeSection = SECTION, count: int = 48) -> stage.Quantized:
    data = Blobs(count)
    assert section.qat is not None
    return stage.quantize(model, stage.Inputs(spec(), Blobs(16)), section, Trainer(spec(), section.qat, data))


@pytest.fixture(scope="module")
def pair() -> tuple[stage.Quantized, stage.Quantized]:
    plain = stage.quantize(tiny(), stage.Inputs(spec(), Blobs(16)), PLAIN)
    return plain, tuned(tiny())


def test_training_brings_the_answers_nearer(pair: tuple[stage.Quantized, stage.Quantized]) -> None:
    """On pictures that neither calibration nor training saw."""
    trained = pair[1]
    assert trained.qat is not None and trained.qat["best_epoch"] > 0
    assert min(trained.qat["after_db"].values()) > min(trained.qat["before_db"].values())
    assert (trained.qat["pictures"], trained.qat["held_out"]) == (36, 12)
    fresh = Blobs(80)
    x = np.concatenate([stage.Inputs(spec(), fresh)[i] for i in range(60, 80)])
    exact = run(prepare(tiny()), x)[0]
    before, after = (
        max(np.square(run(form, x)[0] - exact).mean() for form in (made.tensorrt, made.cpu)) for made in pair
    )
    assert after < 0.9 * before


def test_the_form_is_the_same(pair: tuple[stage.Quantized, stage.Quantized]) -> None:
    plain, trained = pair
    assert trained.plan == plain.plan
    for form in ("tensorrt", "cpu"):
        ours, theirs = getattr(trained, form).graph, getattr(plain, form).graph
        nodes = [[(n.name, n.op_type, *n.input[:2]) for n in graph.node] for graph in (ours, theirs)]
        assert nodes[0] == nodes[1]
    view = View(trained.tensorrt)
    for name in trained.plan.kernels:  # weight scales follow the trained weights
        weight, scale = (view.constant(f"{name}.weight{part}") for part in ("", "_scale"))
        assert weight is not None and scale is not None
        np.testing.assert_allclose(scale, np.abs(weight.reshape(len(weight), -1)).max(1) / 127, rtol=1e-5)


def test_tied_scales_stay_tied_and_learn(pair: tuple[stage.Quantized, stage.Quantized]) -> None:
    plain, trained = (q.amax for q in pair)
    for tie in pair[0].plan.ties:
        if len({plain[name] for name in tie}) == 1:
            assert len({trained[name] for name in tie}) == 1
    assert sum(plain[name] != trained[name] for name in plain) == len(plain)


def test_what_is_not_tied_does_not_become_so() -> None:
    """A Concat of ranges 8-fold apart keeps two scales, though training may bring them together."""
    chosen = plan(prepare(tiny()))
    amax = dict.fromkeys(chosen.tensors, 1.0) | {"left.relu": 8.0, "cat": 8.0}
    network = Network(prepare(tiny()))
    network.quantise(chosen, scales(chosen, amax))
    assert network.group["left.relu"] != network.group["pool"] == network.group["add.relu"]


def test_the_same_seed_gives_the_same_files() -> None:
    one, again = (tuned(tiny(), SECTION.model_copy(update={"qat": QatSection(epochs=1, lr=4e-3)})) for _ in range(2))
    assert one.tensorrt.SerializeToString(deterministic=True) == again.tensorrt.SerializeToString(deterministic=True)
    other = tuned(tiny(), SECTION.model_copy(update={"qat": QatSection(epochs=1, lr=4e-3, seed=1)}))
    assert other.tensorrt != one.tensorrt


def test_where_training_does_not_help_nothing_changes() -> None:
    wild = SECTION.model_copy(update={"qat": QatSection(epochs=1, lr=0.5)})
    plain = stage.quantize(tiny(), stage.Inputs(spec(), Blobs(16)), PLAIN)
    trained = tuned(tiny(), wild)
    assert trained.qat is not None and trained.qat["best_epoch"] == 0
    assert trained.tensorrt == plain.tensorrt and trained.cpu == plain.cpu and trained.amax == plain.amax


def test_corrections_can_be_taken_back(pair: tuple[stage.Quantized, stage.Quantized]) -> None:
    """ranges.json says by how much rounding moves each kernel's mean: without it in the bias, the float network with
    the trained weights has INT8's means, so whoever leaves a kernel float takes it back as without qat."""
    trained = pair[1]
    view = View(trained.tensorrt)
    told = stage.ranges_json(trained, SECTION, 16)["bias_correction"]
    assert set(told) == set(trained.plan.kernels)
    node = next(n for n in trained.tensorrt.graph.node if n.name == "stem")
    weight, bias = view.constant("stem.weight"), view.constant(node.input[2])
    assert weight is not None and bias is not None
    x, weight, bias = (torch.tensor(v) for v in (np.concatenate(trained.samples), weight, bias))
    scale = torch.tensor(trained.amax["x"] / 127)
    exact = torch.nn.functional.conv2d(x, weight, stride=2, padding=1)
    ours = rounded_weight(weight, bias, scale)
    rounded = torch.nn.functional.conv2d(Rounded.apply(x, scale), ours, stride=2, padding=1)  # type: ignore
    wanted = (exact - rounded).mean((0, 2, 3)).numpy()
    np.testing.assert_allclose(told["stem"], wanted, atol=1e-3 * np.abs(wanted).max())


def test_too_few_pictures_and_divergence() -> None:
    with pytest.raises(InputError, match=r"quantize\.qat has 3 pictures to train on; wanted at least 8"):
        tuned(tiny(), count=3)
    with pytest.raises(ModelError, match=r"diverged in epoch 1.*Lower quantize\.qat\.lr"):
        tuned(tiny(), SECTION.model_copy(update={"qat": QatSection(epochs=1, lr=1e6)}))


# ---- recipe and stage


def test_recipe_and_key(tmp_path: Path) -> None:
    plain = Recipe(name="t", model={"arch": "lenet5"})
    assert "qat" not in stage_settings(plain)  # bundles without it keep their key
    raw = {"name": "t", "model": {"arch": "lenet5"}, "quantize": {"qat": {"epochs": 2}}}
    bare = Recipe.model_validate(raw)
    assert bare.quantize.qat == QatSection(epochs=2) and bare.quantize.qat.data is None
    assert stage_settings(bare)["qat"]["epochs"] == 2
    data = {"kind": "mnist", "path": "digits", "pictures": 500}
    filled = Recipe.model_validate(raw | {"train": {"data": data}})
    assert filled.quantize.qat is not None and filled.quantize.qat.data == DataSection(**data)
    assert filled.quantize.data.pictures == 64
    path = tmp_path / "r.yaml"
    path.write_text("name: t\nmodel: {arch: lenet5}\nquantize: {qat: {epoch: 3}}\n")
    with pytest.raises(RecipeError, match=r"unknown key 'quantize\.qat\.epoch'; did you mean 'epochs'"):
        load_recipe(path)
    path.write_text("name: t\nmodel: {arch: lenet5}\ntrain: {data: {kind: mnist, path: d}}\nquantize: {qat: {lr: 0}}\n")
    with pytest.raises(RecipeError, match=r"key 'quantize\.qat\.lr': .*greater than 0"):
        load_recipe(path)
    path.write_text(json.dumps({"name": "t", "model": {"arch": "lenet5"}, "quantize": {"qat": {"data": data}}}))
    found = load_recipe(path).quantize.qat
    assert found is not None and found.data is not None and found.data.path == tmp_path / "digits"


def test_the_stage_trains_on_calibration_pictures_unless_told() -> None:
    assert stage.trainer(spec(), QuantizeSection(), Blobs()) is None
    data = Blobs()
    own = stage.trainer(spec(), QuantizeSection(qat=QatSection()), data)
    assert isinstance(own, Trainer) and own.data is data
    section = DataSection(seed=1, pictures=5)
    other = stage.trainer(spec(), QuantizeSection(qat=QatSection(data=section)), data)
    assert isinstance(other, Trainer) and len(other.data) == len(open_dataset(section)) == 5


def test_stage_writes_the_same_files_and_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(tiny(), tmp_path / "model.onnx")
    bundle = Bundle(tmp_path, "tiny").with_stage(
        "export", settings={}, version=1, files={"fp32": "model.onnx"}, facts={}, tools={}, model=spec()
    )
    monkeypatch.setattr(stage, "open_dataset", lambda section: Blobs(section.pictures))
    quantize = {"percentile": 95, "data": {"pictures": 16}, "qat": {"lr": 4e-3, "epochs": 2, "data": {"pictures": 40}}}
    recipe = {"name": "tiny", "model": {"arch": "lenet5"}, "quantize": quantize}
    plain = run_stage(bundle, Recipe.model_validate(recipe | {"quantize": quantize | {"qat": None}}))
    files, before = dict(plain.stages["quantize"].files), json.loads(plain.file("ranges").read_text())
    exact = bundle.file("fp32").read_bytes()
    trained = run_stage(bundle, Recipe.model_validate(recipe))
    facts, after = trained.stages["quantize"].facts, json.loads(trained.file("ranges").read_text())
    assert {role: name for role, (name, _) in trained.stages["quantize"].files.items()} == {
        role: name for role, (name, _) in files.items()
    }
    assert trained.file("fp32").read_bytes() == exact
    assert facts["qat"] == after["qat"] and "qat" not in before
    assert facts["qat"]["pictures"] == 30 and facts["qat"]["best_epoch"] > 0
    assert facts["qat"]["after_db"].keys() == facts["qat"]["before_db"].keys() == {"tensorrt", "cpu"}
    assert after["amax"].keys() == before["amax"].keys() and after["amax"] != before["amax"]
    assert check_model(onnx.load(trained.file("int8"))) == []
