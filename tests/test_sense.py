"""Units, prefixes and the search by hand, against brute force and against quantize itself; a planted bad layer; the
command from the bundle to the page."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import onnx
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, numpy_helper
from tiny_detector import MODEL as LAMPS
from tiny_detector import lamp_box, lamp_picture, make_bundle
from tiny_onnx import SHAPE, Sketch, feeds, tiny

from edgecnn import cli
from edgecnn.bundle import Bundle, ModelSpec, TensorSpec
from edgecnn.check.accuracy import Vocabulary
from edgecnn.errors import BundleError, InputError, ModelError
from edgecnn.memo import Memo
from edgecnn.quantize import stage
from edgecnn.quantize.graph import View, prepare
from edgecnn.quantize.ranges import tapped
from edgecnn.recipe import CheckSection, DataSection, QuantizeSection, Recipe
from edgecnn.report import write_report
from edgecnn.report.svg import frontier
from edgecnn.scene import Letterbox, Truth
from edgecnn.sense import sense, summary, table
from edgecnn.sense.exam import Exam
from edgecnn.sense.network import Network, Unit, owners
from edgecnn.sense.prefixes import Prefixes, keys, live
from edgecnn.sense.search import Effect, Mark, effects, smallest
from edgecnn.vision import DecodeDetections, Preprocess

CLASSES = ("a", "b", "c", "d")
SPEC = ModelSpec(
    arch="onnx",
    task="classify",
    classes=CLASSES,
    input=TensorSpec("x", SHAPE),
    outputs=(TensorSpec("answer", (1, 4)),),
    mean=(128.0, 128.0, 128.0),
    std=(64.0, 64.0, 64.0),
    fit="stretch",
)


def classifier(planted: Iterable[str] = ()) -> ModelProto:
    """Six units: stem, one, two + skip, three, GAP, first, answer. `planted`: layers with an output channel a thousand
    times as loud as the others, which the next layer takes back: FP32 answers stay."""
    s = Sketch(3)
    stem = s.relu(s.conv("x", "stem", 12, 3, stride=2))
    one = s.relu(s.conv(stem, "one", 12, 12))
    joined = s.relu(s.node("Add", [s.conv(one, "two", 12, 12), stem], "add"))
    three = s.conv(joined, "three", 16, 12, stride=2)
    flat = s.node("Flatten", [s.node("GlobalAveragePool", [s.node("Tanh", [three], "tanh")], "gap")], "flat")
    first = s.relu(s.node("Gemm", [flat, s.weight("first.w", 16, 24, gain=4), s.weight("first.b", 24)], "first"))
    s.node("Gemm", [first, s.weight("answer.w", 24, 4), s.constant("answer.b", np.zeros(4, np.float32))], "answer")
    model = s.model({"answer": [1, 4]})
    weights = {t.name: t for t in model.graph.initializer}
    mean = answers(model, inputs(60)).mean(0)  # so that no class is the best everywhere
    weights["answer.b"].CopyFrom(numpy_helper.from_array(-mean, "answer.b"))
    for name, after in [(name, {"first": "answer", "one": "two"}[name]) for name in planted]:
        for key, rows, factor in ((f"{name}.w", True, 1000), (f"{name}.b", True, 1000), (f"{after}.w", False, 1e-3)):
            value = numpy_helper.to_array(weights[key]).copy()
            outputs_last = name == "first" and value.ndim == 2  # a Gemm's weights are (inputs, outputs) here
            value[(slice(None), 0) if rows == outputs_last and value.ndim > 1 else 0] *= np.float32(factor)
            weights[key].CopyFrom(numpy_helper.from_array(value, key))
    return model


def quantized(model: ModelProto, pictures: list[np.ndarray], *keep_float: str) -> stage.Quantized:
    return stage.quantize(model, pictures, QuantizeSection(keep_float=keep_float, ranges="max"))


def network(model: ModelProto, pictures: list[np.ndarray]) -> tuple[Network, stage.Quantized]:
    made = quantized(model, pictures)
    correction = stage.ranges_json(made, QuantizeSection(), len(pictures))["bias_correction"]
    return Network(made.tensorrt, correction, pictures[0]), made


def answers(model: ModelProto, pictures: list[np.ndarray]) -> np.ndarray:
    session = tapped(model, (), optimise=False)
    feed = session.get_inputs()[0].name
    return np.stack([session.run(None, {feed: x})[0][0] for x in pictures])


@pytest.fixture
def no_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weak kernels do not stay float by themselves."""
    monkeypatch.setattr(stage, "FLOOR_DB", -300.0)


def picture(seed: int) -> np.ndarray:
    """(32, 48, 3) uint8: four coarse blobs of colour and noise."""
    random = np.random.default_rng(seed)
    coarse = cv2.resize(random.uniform(0, 255, (2, 2, 3)).astype(np.float32), SHAPE[:1:-1])
    return np.clip(coarse + random.normal(0, 12, coarse.shape), 0, 255).astype(np.uint8)


def inputs(count: int) -> list[np.ndarray]:
    preprocess = Preprocess(SPEC)
    return [preprocess(picture(i))[0].copy() for i in range(count)]


def classifier_bundle(folder: Path, model: ModelProto, count: int = 60, int8: ModelProto | None = None) -> Bundle:
    """FP32 is right about every picture: it named their classes. `int8`: quantise another network than that."""
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    for name in CLASSES:
        (folder / "pictures" / name).mkdir(parents=True)
    for i, scores in enumerate(answers(model, inputs(count))):
        cv2.imwrite(str(folder / "pictures" / CLASSES[scores.argmax()] / f"{i:03}.png"), picture(i))
    data = {"kind": "classes", "path": str(folder / "pictures"), "pictures": count}
    bundle = Bundle(folder, "blobs", settings={"check": {"data": data}}).with_stage(
        "export", settings={}, version=1, files={"fp32": "model.onnx"}, facts={}, tools={}, model=SPEC
    )
    made = quantized(int8 or model, inputs(32))
    stage.save(made.tensorrt, folder / "model.int8.onnx")
    (folder / "ranges.json").write_text(json.dumps(stage.ranges_json(made, QuantizeSection(), 32)), "utf-8")
    files = {"int8": "model.int8.onnx", "ranges": "ranges.json"}
    return bundle.with_stage("quantize", settings={"keep_float": []}, version=1, files=files, facts={}, tools={})


# ---- units


def test_units_are_what_tensorrt_fuses() -> None:
    net, _ = network(tiny(), feeds(4))
    assert {unit.name: unit.operators for unit in net.units} == {
        "stem": ("Conv", "Relu"),
        "depthwise": ("Conv", "Relu"),
        "pointwise": ("Conv", "Add", "Relu"),
        "left": ("Conv", "Relu"),
        "mix": ("Conv", "Relu"),
        "fc": ("Gemm",),
    }
    # outputs × inputs a group × kernel × places
    places = 16 * 24
    macs = (16 * 3 * 9 * places, 16 * 9 * places, 16 * 16 * places, 16 * 16 * places, 32 * 32 * 9 * places, 320)
    assert [unit.macs for unit in net.units] == list(macs) and net.macs == sum(macs)
    assert net.share(frozenset({"fc", "left"})) == (320 + 16 * 16 * places) / sum(macs)


def test_silu_belongs_to_its_convolution() -> None:
    s = Sketch()
    conv = s.conv("x", "conv", 8, 3)
    s.node("Mul", [conv, s.node("Sigmoid", [conv], "gate")], "silu")
    s.node("MaxPool", ["silu"], "pool", kernel_shape=[2, 2], strides=[2, 2])
    s.node("Relu", ["pool"], "late")
    owner = owners(View(prepare(s.model({"late": [1, 8, 16, 24]}))))
    assert owner == {"conv": "conv", "gate": "conv", "silu": "conv", "pool": None, "late": None}


@pytest.mark.parametrize("floats", [(), ("stem",), ("mix",), ("pointwise", "fc"), ("stem", "depthwise", "left", "fc")])
def test_a_set_in_float_answers_as_quantize_with_the_same_keep_float(floats: tuple[str, ...]) -> None:
    """Quantize is the oracle: the search's figures must be those of the recipe that the user will then write."""
    pictures = feeds(6)
    net, _ = network(tiny(), pictures)
    ours = np.stack([row["fc"][0] for row in Prefixes(net, pictures).run(frozenset(floats))])
    theirs = answers(quantized(tiny(), pictures, *floats).tensorrt, pictures)
    np.testing.assert_allclose(ours, theirs, atol=2e-5 * np.abs(theirs).max())


def test_all_units_in_float_answer_as_fp32() -> None:
    pictures = feeds(6)
    net, _ = network(tiny(), pictures)
    rows = Prefixes(net, pictures).run(frozenset(unit.name for unit in net.units))
    whole = answers(tiny(), pictures)
    np.testing.assert_allclose(np.stack([row["fc"][0] for row in rows]), whole, atol=1e-5 * np.abs(whole).max())


def test_a_network_without_a_pair_has_nothing_to_sense() -> None:
    with pytest.raises(ModelError, match="no Conv or Gemm of the network is INT8"):
        Network(prepare(tiny()), {}, feeds(1)[0])


# ---- prefixes


def test_what_is_alive_between_nodes() -> None:
    model = prepare(tiny())
    names = [node.name for node in model.graph.node]
    alive = dict(zip(names, live(model), strict=False))  # just before each node
    assert alive["stem"] == ("x",)
    assert set(alive["depthwise"]) == {"stem.relu"}
    assert set(alive["add"]) == {"stem.relu", "pointwise"}
    assert set(alive["cat"]) == {"left.relu", "pool"}
    assert live(model)[-1] == ("fc",)


def test_keys_agree_up_to_the_first_difference() -> None:
    net, _ = network(tiny(), feeds(4))
    one, other = keys(net.graph(frozenset())), keys(net.graph(frozenset({"mix"})))
    same = {name for name in net.positions if one[name] == other[name]}  # nodes are named as their outputs
    assert {"stem", "depthwise", "pointwise", "add"} <= same
    assert not same & {"mix", "gap", "fc"}


def test_keeping_activations_changes_no_answer_and_spares_work() -> None:
    pictures = feeds(3)
    net, _ = network(classifier(), pictures)
    every = frozenset(unit.name for unit in net.units)
    sets = [s for unit in net.units for s in (frozenset({unit.name}), every - {unit.name})]
    kept, plain = Prefixes(net, pictures), Prefixes(net, pictures, room=0)
    for floats in sets:
        for a, b in zip(kept.run(floats), plain.run(floats), strict=True):
            np.testing.assert_array_equal(a["answer"], b["answer"])
    assert kept.whole == plain.whole == net.macs * len(pictures) * len(sets)
    assert kept.done < 0.7 * kept.whole
    assert plain.done >= plain.whole
    small = Prefixes(net, pictures, room=200_000)
    for floats in sets:
        small.run(floats)
        assert sum(v.nbytes for rows in small._kept.values() for row in rows for v in row.values()) <= 200_000
    assert kept.done < small.done < plain.done


# ---- search


def judged(costs: list[float]) -> tuple[list[Effect], dict[frozenset[str], Mark]]:
    """Units whose costs add up: the fewest to keep in float are the costliest."""
    units = [Unit(str(i), ("Conv",), 1 + i) for i in range(len(costs))]
    marks = {}
    for count in range(len(units) + 1):
        for names in itertools.combinations([u.name for u in units], count):
            lost = sum(cost for unit, cost in zip(units, costs, strict=True) if unit.name not in names)
            marks[frozenset(names)] = Mark(1 - lost, lost)
    return effects(units, Mark(1, 0), marks.__getitem__), marks


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=7), st.integers(0, 60))
def test_where_costs_add_up_the_smallest_set_is_brute_forces(costs: list[int], drop: int) -> None:
    found, marks = judged([cost / 256 for cost in costs])  # sums of these are exact
    least = 1 - drop / 256
    chosen = smallest(found, marks.__getitem__, least)
    assert chosen is not None and marks[chosen].metric >= least
    assert len(chosen) == min(len(names) for names, mark in marks.items() if mark.metric >= least)
    assert [(e.cost.metric, e.gain.divergence) for e in found] == [(cost / 256, cost / 256) for cost in costs]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=32, max_size=32), st.integers(1, 9))
def test_whatever_the_figures_it_suffices_and_nothing_can_be_spared(figures: list[int], least: int) -> None:
    units = [Unit(str(i), ("Conv",), 1) for i in range(5)]
    sets = [frozenset(names) for n in range(6) for names in itertools.combinations([u.name for u in units], n)]
    marks = {names: Mark(figure, 9 - figure) for names, figure in zip(sets, figures, strict=True)}
    chosen = smallest(effects(units, Mark(9, 0), marks.__getitem__), marks.__getitem__, least)
    if chosen is None:
        assert marks[sets[-1]].metric < least
        return
    assert marks[chosen].metric >= least
    assert all(marks[chosen - {name}].metric < least for name in chosen)


def test_one_unit_that_suffices_is_the_one_of_fewest_multiply_adds() -> None:
    found, marks = judged([3 / 256, 2 / 256, 3 / 256])
    assert smallest(found, marks.__getitem__, 1 - 6 / 256) == {"0"}
    assert smallest(found, marks.__getitem__, 1) == {"0", "1", "2"}
    assert smallest(found, marks.__getitem__, 1 - 8 / 256) == frozenset()


@pytest.mark.parametrize(
    "planted",
    [("first", "one"), *(pytest.param(some, marks=pytest.mark.slow) for some in ((), ("one",), ("first",)))],
    ids=lambda planted: "+".join(planted) or "none",
)
def test_a_real_network_against_all_subsets(planted: tuple[str, ...], no_floor: None, tmp_path: Path) -> None:
    bundle = classifier_bundle(tmp_path / "b", classifier(planted))
    exam = Exam.open(SPEC, CheckSection.model_validate(bundle.settings["check"]).data, 500, 0.5)
    correction = json.loads(bundle.file("ranges").read_text())["bias_correction"]
    net = Network(onnx.load(bundle.file("int8")), correction, exam.inputs[0])
    runner, names = Prefixes(net, exam.inputs), [unit.name for unit in net.units]
    sets = [frozenset(some) for n in range(7) for some in itertools.combinations(names, n)]
    figures = {some: exam.score(runner.run(some)) for some in sets}
    for drop in (0.0, 0.01, 0.02, 0.05):
        (bundle.path / "sense" / "evaluations.json").unlink(missing_ok=True)
        result = sense(bundle, max_drop=drop)
        assert len(result["kept"]["units"]) == min(len(s) for s, f in figures.items() if f >= 1 - drop - 1e-9)
        assert result["kept"]["metric"] == figures[frozenset(result["kept"]["units"])]
        assert result["evaluations"]["all"] <= 21 and result["evaluations"]["brute_force"] == len(sets) == 64


# ---- marks


def test_divergence_of_a_classifier_by_hand() -> None:
    exam = Exam(SPEC, [], [], [], None)
    whole, answer = ({"answer": np.array([[0, np.log(3)]], np.float32)}, {"answer": np.zeros((1, 2), np.float32)})
    assert exam.divergence([whole], [whole]) == 0
    np.testing.assert_allclose(exam.divergence([whole], [answer]), 0.25 * np.log(0.5) + 0.75 * np.log(1.5), rtol=1e-6)


def test_divergence_of_a_detector_by_hand() -> None:
    words = Vocabulary.of(LAMPS.classes, LAMPS.classes)
    exam = Exam(LAMPS, [], [], [], (words, DecodeDetections(LAMPS)))
    boxes, scores = np.zeros((1, 96, 4), np.float32), np.full((1, 96, 2), 0.5, np.float32)
    whole = {"boxes": boxes, "scores": scores}
    moved, unsure = boxes.copy(), scores.copy()
    moved[0, 0, 1] = 2.0  # two strides, of an object of score .5: .5 * 2²/2
    unsure[0, 5, 0] = 0.25  # .5 ln(.5/.25) + .5 ln(.5/.75)
    assert exam.divergence([whole], [whole]) == 0
    np.testing.assert_allclose(exam.divergence([whole], [{"boxes": moved, "scores": scores}]), 1.0)
    np.testing.assert_allclose(
        exam.divergence([whole], [{"boxes": boxes, "scores": unsure}]), 0.5 * np.log(2) + 0.5 * np.log(2 / 3)
    )


# ---- memo


def test_a_memo_survives_a_stop_and_forgets_what_is_of_another_key(tmp_path: Path) -> None:
    path = tmp_path / "memo.json"
    memo = Memo.open(path, "k")
    assert memo.get("a", lambda: {"metric": 0.5}) == {"metric": 0.5}
    again = Memo.open(path, "k")
    assert again.get("a", lambda: pytest.fail("it is known")) == {"metric": 0.5}
    assert Memo.open(path, "other").values == {}
    path.write_text(path.read_text()[:-4])
    assert Memo.open(path, "k").values == {}


# ---- the whole


def test_a_planted_layer_is_found_kept_and_the_recipe_that_keeps_it_is_as_good(no_floor: None, tmp_path: Path) -> None:
    model = classifier(["first"])
    bundle = classifier_bundle(tmp_path / "b", model)
    result = sense(bundle, max_drop=0.02)
    assert result["fp32"]["metric"] == 1.0 and result["int8"]["metric"] < 0.9
    assert result["kept"]["units"] == result["keep_float"] == ["answer"]
    worst = max(result["units"], key=lambda u: u["gain_nats"])
    assert worst["unit"] == "answer" == min(result["units"], key=lambda u: u["sqnr_db"])["unit"]
    kept = answers(quantized(model, inputs(32), "answer").tensorrt, inputs(60)).argmax(1)
    np.testing.assert_allclose(np.mean(kept == answers(model, inputs(60)).argmax(1)), result["kept"]["metric"])
    assert table(result)[1][0] == "answer" and "keep in float" in table(result)[1]
    line = next(row for row in summary(result).splitlines() if row.startswith("quantize:"))
    pasted = Recipe.model_validate({"name": "r", "model": {"arch": "lenet5"}, **yaml.safe_load(line)})
    assert pasted.quantize.keep_float == ("answer",)


def test_a_second_run_answers_from_the_first_and_a_stopped_one_goes_on(
    no_floor: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = classifier_bundle(tmp_path / "b", classifier(["first"]), count=24)
    real, runs = Prefixes.run, []

    def stopped(self: Prefixes, floats: frozenset[str]) -> object:
        runs.append(floats)
        if len(runs) == 6:
            raise KeyboardInterrupt
        return real(self, floats)

    monkeypatch.setattr(Prefixes, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        sense(bundle, max_drop=0.0)
    whole = sense(bundle, max_drop=0.0)
    assert whole["evaluations"]["now"] == whole["evaluations"]["all"] - 5
    again = sense(bundle, max_drop=0.0)
    assert again["evaluations"] == {**whole["evaluations"], "now": 0} and again["spared"] is None
    assert {k: v for k, v in again.items() if k not in ("evaluations", "seconds", "spared")} == {
        k: v for k, v in whole.items() if k not in ("evaluations", "seconds", "spared")
    }
    assert sense(bundle, max_drop=0.0, pictures=12)["evaluations"]["now"] > 0  # other pictures, other figures


def test_what_cannot_be_sensed_is_said(
    no_floor: None, tmp_path: Path, dark_and_light: Callable[[int], DataSection]
) -> None:
    bundle = classifier_bundle(tmp_path / "b", classifier(), count=24)
    with pytest.raises(BundleError, match=r"no 'int8' file.*edgecnn quantize"):
        sense(bundle.before("quantize"))
    with pytest.raises(InputError, match="nowhere"):
        sense(bundle, CheckSection(data=DataSection(kind="classes", path=tmp_path / "nowhere")))
    with pytest.raises(ModelError, match="4 classes; wanted 2"):
        sense(bundle, CheckSection(data=dark_and_light(2)))


def test_all_in_float_and_still_too_far_off(no_floor: None, tmp_path: Path) -> None:
    turned = classifier()
    for t in turned.graph.initializer:
        if t.name == "answer.b":
            t.CopyFrom(numpy_helper.from_array(np.array([90, 0, 0, 0], np.float32), t.name))
    bundle = classifier_bundle(tmp_path / "b", classifier(), count=24, int8=turned)
    with pytest.raises(ModelError, match=r"top1 is 1.0000 in FP32 and 0\.\d+ with all units in float"):
        sense(bundle, max_drop=0.05)


def test_a_bundle_of_an_earlier_edgecnn_is_to_be_quantised_again(no_floor: None, tmp_path: Path) -> None:
    bundle = classifier_bundle(tmp_path / "b", classifier(), count=24)
    (bundle.path / "ranges.json").write_text('{"amax": {}}', "utf-8")
    record = bundle.stages["quantize"]
    files = {role: name for role, (name, _) in record.files.items()}
    old = bundle.with_stage("quantize", settings={}, version=1, files=files, facts={}, tools={})
    with pytest.raises(BundleError, match="earlier edgecnn"):
        sense(old)


def test_a_detector_that_finds_nothing_can_lose_nothing(tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "lamps.bundle")
    session = tapped(onnx.load(made.file("fp32")), ())
    assert session.get_inputs()[0].name == "images"
    words = Vocabulary.of(LAMPS.classes, LAMPS.classes)
    box = lamp_box(3, 2)[None]
    truth = Truth.of(box, np.array([0]))
    exam = Exam(LAMPS, [], [truth], [Letterbox(1, 1, 0, 0, 96, 64)], (words, DecodeDetections(LAMPS, score=0.01)))
    lit, _ = Preprocess(LAMPS)(lamp_picture(3, 2))
    names = [o.name for o in session.get_outputs()]
    row = dict(zip(names, session.run(names, {"images": lit}), strict=True))
    assert exam.metric == "AP50" and exam.score([row]) == pytest.approx(1.0)
    dark = {**row, "scores": np.zeros_like(row["scores"])}
    assert exam.score([dark]) == 0.0


# ---- page and command


def test_the_command_and_the_page(
    no_floor: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = classifier_bundle(tmp_path / "b", classifier(["first"]), count=24)

    def called(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["edgecnn", "sense", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0)

    assert called(str(bundle.path), "--max-drop", "0.02", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["keep_float"] == ["answer"]
    assert called(str(bundle.path), "--max-drop", "0.02") == 0
    assert 'quantize: {keep_float: ["answer"]}' in capsys.readouterr().out
    html = (bundle.path / "sense" / "sense.html").read_text("utf-8")
    assert "What INT8 costs" in html and html.count("<circle") == result["evaluations"]["all"]
    report = write_report(bundle, tmp_path / "report.html").read_text("utf-8")
    assert "What INT8 costs, unit by unit" in report
    other = replace(bundle, stages={**bundle.stages, "quantize": replace(bundle.stages["quantize"], key="another")})
    assert "What INT8 costs" not in write_report(other, tmp_path / "report.html").read_text("utf-8")
    assert called(str(tmp_path / "missing.yaml")) == InputError.exit_code
    assert "there is nothing at" in capsys.readouterr().err


def test_the_frontier_rises_and_is_well_formed() -> None:
    rows = {"a": [(0.0, 0.5), (10.0, 0.7), (20.0, 0.6)], "b": [(40.0, 0.9)]}
    svg = ElementTree.fromstring(frontier(rows, (0.8, "limit"), "%", "top1", "title"))
    circles = [node for node in svg.iter() if node.tag == "circle"]
    (curve,) = (node for node in svg.iter() if node.tag == "path")
    assert len(circles) == 4 and curve.attrib["d"].count("L") == 2  # 0.6 at 20 % is no better than 0.7 at 10 %
    heights = [float(pair.split()[1]) for pair in curve.attrib["d"][1:].split("L")]
    assert heights == sorted(heights, reverse=True)
