"""`check --bisect`: the first bad stage by hand-made figures, planted bad layers found, what slimming took most of; the
network before slimming and the scenario tests as figures of a check."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from test_sense import classifier, classifier_bundle

from edgecnn import check as check_package
from edgecnn import cli
from edgecnn.blame import bisect, first_bad, quantized_layer
from edgecnn.bundle import Bundle
from edgecnn.check import Gate, Measured, check, judge
from edgecnn.check.gates import UNSLIMMED
from edgecnn.check.scenarios import Trial
from edgecnn.check.warned import warning_figures
from edgecnn.compile import compile_recipe
from edgecnn.data.scenario import find_scenario
from edgecnn.errors import MissingDependency, ModelError, RecipeError
from edgecnn.quantize import stage
from edgecnn.recipe import CheckSection, DataSection
from edgecnn.sense.marks import Marks
from edgecnn.sense.search import Mark

NAN = float("nan")


def figures(*values: float, metric: str = "AP50", **more: float) -> dict[str, dict[str, float]]:
    return {p: {metric: v, **more} for p, v in zip((UNSLIMMED, "fp32", "int8")[-len(values) :], values, strict=True)}


@pytest.mark.parametrize(
    ("now", "then", "kind", "stage"),
    [
        ((0.80, 0.79, 0.60), None, "drop", "quantize"),
        ((0.80, 0.60, 0.60), None, "slim", "slim"),
        ((0.60, 0.60, 0.60), None, "least", "train"),  # at least 0.7
        ((0.80, 0.60, 0.60), None, "least", "slim"),
        ((0.80, 0.79, 0.60), None, "least", "quantize"),
        ((0.80, NAN, 0.60), None, "least", "slim"),  # nothing to measure it on: no better than too low
        ((0.79, 0.60), None, "least", "quantize"),  # unslimmed was not measured
        ((0.60, 0.60), None, "least", "train or slim"),
        ((0.60, 0.60, 0.60), (0.80, 0.79, 0.79), "baseline", "train"),
        ((0.80, 0.60, 0.60), (0.80, 0.79, 0.79), "baseline", "slim"),
        ((0.80, 0.79, 0.60), (0.80, 0.79, 0.79), "baseline", "quantize"),
        ((0.90, 0.79, 0.60), (0.79, 0.79), "baseline", "quantize"),  # the baseline was measured without unslimmed
        ((0.70, 0.69, 0.60), (0.79, 0.79), "baseline", "train"),
    ],
)
def test_the_first_stage_whose_figure_is_too_low(now: Any, then: Any, kind: Any, stage: str) -> None:
    gate = Gate(kind, "AP50", "int8", 0.1, 0.7)
    section = CheckSection(gates={"AP50": 0.7}, baseline_drop=0.05)
    baseline = Measured(figures(*then), 9) if then else None
    found, evidence = first_bad(gate, figures(*now), section, baseline, slimmed=True)
    assert found == stage and f"{now[0]:.4f}" in evidence


@pytest.mark.parametrize(("ap_then", "stage"), [(0.81, "loop"), (0.90, "train")])
def test_tracking_that_fell_where_detection_did_not_is_the_loops(ap_then: float, stage: str) -> None:
    gate = Gate("baseline", "HOTA", "int8", 0.2, 0.05)
    then = Measured(figures(0.6, 0.6, 0.6, metric="HOTA", AP50=ap_then), 9)
    now = figures(0.4, 0.4, 0.4, metric="HOTA", AP50=0.8)
    found, evidence = first_bad(gate, now, CheckSection(baseline_drop=0.05), then, slimmed=True)
    assert found == stage and ("0.8000" if stage == "loop" else "0.4000") in evidence


@pytest.mark.parametrize("planted", ["first", "one"])
def test_a_planted_layer_is_named(planted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layer behind a planted one takes back what that made too loud, so it is the one that rounds badly."""
    monkeypatch.setattr(stage, "FLOOR_DB", -300.0)
    bundle = classifier_bundle(tmp_path / "b", classifier([planted]))
    marks = Marks.open(bundle, DataSection(**bundle.settings["check"]["data"]), 60)
    layer, evidence = quantized_layer(marks)
    alone = {unit.name: marks(frozenset([unit.name])).divergence for unit in marks.network.units}
    assert layer == min(alone, key=alone.__getitem__)  # brute force over all units
    assert "FP32 1.0000" in evidence and "dB" in evidence


class Damages:
    """Marks of a network whose layers do so much damage each, whatever the others do."""

    def __init__(self, each: dict[str, float]) -> None:
        self.each, self.asked = each, 0
        self.network = SimpleNamespace(units=[SimpleNamespace(name=name) for name in each])
        self.exam = SimpleNamespace(metric="top1", inputs=[0] * 60)

    def __call__(self, floats: frozenset[str]) -> Mark:
        self.asked += 1
        done = sum(damage for name, damage in self.each.items() if name not in floats)
        return Mark(1 - done / 10, done)

    def whole(self) -> Mark:
        return Mark(1.0, 0.0)

    def sqnr(self) -> dict[str, float]:
        return {name: 30.0 + i for i, name in enumerate(self.each)}  # which does not tell


@pytest.mark.parametrize("worst", [0, 1, 63, 98, 99])
def test_one_layer_of_a_hundred_is_found_in_a_few_steps(worst: int) -> None:
    marks = Damages({f"layer{i}": 3.0 if i == worst else 0.02 for i in range(100)})
    layer, evidence = quantized_layer(cast(Any, marks))
    assert layer == f"layer{worst}" and marks.asked <= 1 + 7 + 4
    assert "INT8 0.5020" in evidence and "0.8020" in evidence and "60% of the divergence" in evidence


def test_no_layer_is_named_where_the_loss_is_spread() -> None:
    layer, evidence = quantized_layer(cast(Any, Damages({f"layer{i}": 0.05 for i in range(100)})))
    assert layer == "" and "spread over many layers" in evidence and "edgecnn sense" in evidence


def test_the_command_names_stage_and_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stage, "FLOOR_DB", -300.0)
    bundle = classifier_bundle(tmp_path / "b", classifier(["first"]))
    record = bundle.stages["quantize"]
    both = {"int8_cpu": "model.int8.onnx", **{role: name for role, (name, _) in record.files.items()}}
    bundle.with_stage("quantize", settings=record.settings, version=1, files=both, facts={}, tools={})
    recipe = tmp_path / "r.yaml"
    data = json.dumps(bundle.settings["check"]["data"])
    recipe.write_text(f"name: r\nmodel: {{arch: lenet5}}\ncheck: {{data: {data}, max_drop: {{top1: 0.05}}}}\n")
    arguments = ["edgecnn", "check", str(bundle.path), "--recipe", str(recipe), "--bisect"]
    for more in ([], ["--json"]):
        monkeypatch.setattr("sys.argv", [*arguments, *more])
        with pytest.raises(SystemExit) as end:
            cli.main()
        told = capsys.readouterr()
        assert end.value.code == 9 and "1 of 1 gates missed" in told.err
        if more:
            (blame,) = json.loads(told.out)["blames"]
            assert (blame["gate"], blame["stage"], blame["layer"]) == ("top1", "quantize", "answer")
        else:
            assert "top1: first bad stage quantize, layer answer." in told.out


# --- before slimming --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slimmed(tmp_path_factory: pytest.TempPathFactory, dark_and_light: Any) -> Bundle:
    """LeNet-5 that knows dark from light, and then lost most of its multiply-adds without being taught again."""
    folder, pictures = tmp_path_factory.mktemp("slimmed"), dark_and_light(12)
    data = f"{{kind: classes, path: {pictures.path}, pictures: 24}}"
    (folder / "r.yaml").write_text(
        f"name: tiny\nmodel: {{arch: lenet5, classes: [dark, light]}}\n"
        f"train: {{data: {data}, epochs: 8, batch: 8, lr: 0.02}}\n"
        f"slim: {{steps: [{{prune: {{macs: 0.6, round_to: 1, data: {data}}}}}], check: {data}}}\n"
        f"export: {{compare: {data}}}\nquantize: {{data: {data}}}\nbuild: null\n"
        f"check: {{data: {data}, max_slim_drop: {{top1: 0.01}}}}\n"
    )
    return compile_recipe(folder / "r.yaml", folder / "b").bundle


def test_the_network_before_slimming_is_measured_beside_the_others(slimmed: Bundle) -> None:
    report = check(slimmed)
    facts = slimmed.stages["slim"].facts
    assert list(report.figures) == [UNSLIMMED, "fp32", "int8"]
    for precision, told in ((UNSLIMMED, "before"), ("fp32", "after")):  # measured by torch when it was slimmed
        assert report.figures[precision]["top1"] == pytest.approx(facts[told]["accuracy"], abs=1e-3)
    gate = next(gate for gate in report.gates if gate.kind == "slim")
    assert gate.value == report.figures[UNSLIMMED]["top1"] - report.figures["fp32"]["top1"]
    assert facts["accuracies"] == [facts["after"]["accuracy"]]
    alone = check(slimmed, shipped=True)
    assert list(alone.figures) == ["fp32", "int8"] and not alone.gates


def test_a_loss_by_slimming_names_the_step_and_the_layer(slimmed: Bundle) -> None:
    section = CheckSection.model_validate(slimmed.settings["check"])
    found = {UNSLIMMED: {"top1": 1.0}, "fp32": {"top1": 0.5}, "int8": {"top1": 0.5}}
    report = replace(check(slimmed), figures=found, gates=tuple(judge(Measured(found, 24), section)))
    (blame,) = bisect(slimmed, report, section)
    assert blame.stage == "slim" and "prune (number 1) lost most top-1" in str(blame)
    widths = slimmed.require_model().widths
    share = {name: widths[name][1] / full for name, full in _full(slimmed).items() if name in widths}
    assert blame.layer == min(share, key=share.__getitem__) and share[blame.layer] < 1


def _full(bundle: Bundle) -> dict[str, int]:
    """Layer → output channels before slimming."""
    from safetensors.numpy import load_file

    tensors = load_file(bundle.file("weights"))
    return {n.removesuffix(".weight"): v.shape[0] for n, v in tensors.items() if n.endswith(".weight") and v.ndim > 1}


def test_without_torch_a_slim_gate_is_refused_and_the_rest_is_measured(
    slimmed: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("edgecnn.check.before.importlib.util.find_spec", lambda _name: None)
    with pytest.raises(MissingDependency, match=r"torch is not installed.*--shipped"):
        check(slimmed)
    section = CheckSection.model_validate({**slimmed.settings["check"], "max_slim_drop": {}})
    assert list(check(slimmed, section).figures) == ["fp32", "int8"]
    assert "Not measured before slimming" in capsys.readouterr().err


def test_other_classes_after_slimming_are_not_comparable(slimmed: Bundle) -> None:
    record = slimmed.stages["train"]
    assert record.model is not None
    other = replace(record, model=replace(record.model, classes=("a", "b", "c")))
    with pytest.raises(ModelError, match="not comparable"):
        check(replace(slimmed, stages={**slimmed.stages, "train": other}))


# --- warnings ---------------------------------------------------------------------------------------------------------


def test_warnings_missed_and_false_by_hand() -> None:
    due, calm = find_scenario("ccrs_50"), find_scenario("oncoming")
    rows = [
        (due, Trial(1, "in time", 2.0, ())),
        (due, Trial(2, "none", NAN, ("headway",))),
        (due, Trial(3, "late", 0.4, ())),
        (due, Trial(4, "in time", 2.0, ())),
        (calm, Trial(1, "quiet", NAN, ())),
        (calm, Trial(2, "false alarm", NAN, ("fcw", "fcw"))),
    ]
    assert warning_figures(rows) == {
        "warned_in_time": 0.5, "quiet": 4 / 6, "missed_warnings": 1.0, "false_warnings": 3.0
    }  # fmt: skip
    assert np.isnan(warning_figures(rows[4:])["warned_in_time"])


def test_scenarios_become_figures_and_gates(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten trials, of which every fourth comes too late; INT8's warns of nothing."""
    from edgecnn.check import warned

    def judged(seed: int, alerts: Any, _expect: Any) -> Trial:
        return Trial(seed, "late" if seed % 4 == 0 else "in time", 2.0, ()) if alerts else Trial(seed, "none", NAN, ())

    monkeypatch.setattr(warned, "play", lambda _bundle, backend, *_: [backend] if backend.precision == "fp32" else [])
    monkeypatch.setattr(warned, "judge_trial", judged)
    monkeypatch.setattr(warned, "Drive", lambda *_a, **_k: None)
    found = {p: {"AP50": 0.8} for p in ("fp32", "int8")}
    measured = Measured(found, 100, {p: {} for p in found}, 100, "x")
    backends: Any = {p: SimpleNamespace(precision=p) for p in found}
    tests = CheckSection.model_validate({"scenarios": {"names": ["ccrs_50"], "trials": 40, "seed": 0}}).scenarios
    assert tests is not None
    both: Any = check_package.with_warnings(measured, bundle, backends, tests, None)  # type: ignore[arg-type]
    assert both.figures["fp32"]["warned_in_time"] == 0.75 and both.figures["int8"]["missed_warnings"] == 40
    (gate,) = judge(both, CheckSection(max_drop={"warned_in_time": 0.1}))
    assert gate.verdict == "missed" and gate.low == pytest.approx(0.75 - 1.96 * (0.1875 / 40) ** 0.5, abs=0.03)
    assert both.truth != measured.truth
    few = tests.model_copy(update={"trials": 4})
    unsure: Any = check_package.with_warnings(measured, bundle, backends, few, None)  # type: ignore[arg-type]
    assert judge(unsure, CheckSection(max_drop={"warned_in_time": 0.1}))[0].verdict == "unsure"


def test_scenarios_are_for_detectors(slimmed: Bundle) -> None:
    section = {**slimmed.settings["check"], "scenarios": {"names": ["ccrs_50"]}}
    with pytest.raises(RecipeError, match="need a detector"):
        check(slimmed, CheckSection.model_validate(section))
