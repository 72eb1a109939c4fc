"""Gates by hand; the vocabulary in which a network and a data set meet; a classifier's and a detector's whole check."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from tiny_detector import HEIGHT, MODEL, WIDTH, lamp_box, lamp_picture, make_bundle

from edgecnn.bundle import Bundle, sha256
from edgecnn.check import CheckReport, Measured, accuracy, check, judge
from edgecnn.check.accuracy import Vocabulary
from edgecnn.check.measured import read_baseline
from edgecnn.errors import InputError, ModelError, RecipeError
from edgecnn.metrics.redraw import DRAWS
from edgecnn.recipe import CheckSection, DataSection
from edgecnn.scene import Detections, Frame, Truth

NAN = float("nan")
FIGURES = {
    "fp32": {"AP": 0.50, "AP50": 0.80, "AP_small": NAN, "HOTA": 0.60, "misses": 4.0},
    "int8": {"AP": 0.48, "AP50": 0.79, "AP_small": NAN, "HOTA": 0.61, "misses": 5.0},
}
FOUND = Measured(FIGURES, 100)


def section(**keys: Any) -> CheckSection:
    return CheckSection.model_validate(keys)


@pytest.mark.parametrize(
    ("keys", "value", "ok"),
    [
        ({"gates": {"AP50": 0.79}}, 0.79, True),  # what ships is INT8
        ({"gates": {"AP50": 0.795}}, 0.79, False),
        ({"gates": {"AP_small": 0.0}}, NAN, False),  # nothing to measure it on: not passed
        ({"max_drop": {"AP50": 0.0101}}, 0.01, True),
        ({"max_drop": {"AP": 0.01}}, 0.02, False),
        ({"max_drop": {"HOTA": 0.0}}, -0.01, True),  # a gain
    ],
)
def test_one_gate(keys: dict[str, Any], value: float, ok: bool) -> None:
    (gate,) = judge(FOUND, section(**keys))
    assert gate.precision == "int8" and gate.ok is ok
    np.testing.assert_allclose(gate.value, value, atol=1e-12)


def test_without_int8_the_whole_network_ships_and_nothing_drops() -> None:
    alone = {"fp32": FIGURES["fp32"]}
    gates = judge(Measured(alone, 1), section(gates={"AP50": 0.8}, max_drop={"AP50": 0.0}))
    assert [(g.kind, g.precision, g.ok) for g in gates] == [("least", "fp32", True)]


def test_a_baseline_holds_the_headlines_and_never_the_counts() -> None:
    earlier = {"int8": {"AP": 0.485, "AP50": 0.82, "HOTA": 0.5, "misses": 0.0, "car/AP": 1.0}}
    gates = judge(FOUND, section(baseline_drop=0.01), Measured(earlier, 1))
    assert [(g.metric, g.ok) for g in gates] == [("AP", True), ("AP50", False), ("HOTA", True)]


def test_a_headline_that_is_no_longer_measurable_misses_its_baseline() -> None:
    now = {"int8": {**FIGURES["int8"], "HOTA": NAN}}
    assert [(g.metric, g.ok) for g in judge(Measured(now, 1), section(), Measured({"int8": {"HOTA": 0.5}}, 1))] == [
        ("HOTA", False)
    ]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"gates": {"AP5": 0.5}}, r"check\.gates names 'AP5'.*did you mean 'AP50'"),
        ({"max_drop": {"xyz": 0.5}}, r"check\.max_drop names 'xyz'.*known: AP, AP50"),
        ({"gates": {"misses": 3}}, r"check\.gates names 'misses'"),
    ],
)
def test_a_gate_on_what_is_not_measured(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        judge(FOUND, section(**keys))


def report(**keys: Any) -> CheckReport:
    gates = judge(FOUND, section(**keys))
    return CheckReport("adas <1>", {"kind": "sim"}, 100, FIGURES, tuple(gates))


def test_junit_has_a_testcase_a_gate() -> None:
    suite = ElementTree.fromstring(report(gates={"AP50": 0.9, "HOTA": 0.5}, max_drop={"AP": 0.05}).junit())
    assert (suite.get("tests"), suite.get("failures")) == ("3", "1")
    assert [c.get("name") for c in suite] == ["AP50 least", "HOTA least", "AP drop"]
    assert [f.get("message") for f in suite.iter("failure")] == ["AP50 0.7900 (int8), at least 0.9"]


def test_the_table_has_fp32_int8_delta_limit_and_verdict() -> None:
    rows = report(gates={"AP50": 0.9}, max_drop={"AP50": 0.02, "AP": 0.05}).table()
    assert rows[0] == ("metric", "fp32", "int8", "delta", "limit", "verdict")
    assert rows[1] == ("AP", "0.5000", "0.4800", "-0.0200", "drop ≤ 0.05", "ok")
    assert rows[2] == ("AP50", "0.8000", "0.7900", "-0.0100", "≥ 0.9, drop ≤ 0.02", "MISSED")
    assert rows[3] == ("AP_small", "–", "–", "–", "", "")
    assert rows[5] == ("misses", "4", "5", "+1", "", "")


def test_a_report_is_the_next_ones_baseline(tmp_path: Path) -> None:
    data = report(gates={"AP50": 0.5}).json()
    data["figures"] = {p: {m: None if v != v else v for m, v in row.items()} for p, row in data["figures"].items()}
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps(data), "utf-8")
    known = read_baseline(path)
    assert known.figures["int8"]["AP50"] == 0.79 and "AP_small" not in known.figures["int8"]
    assert all(gate.ok and gate.value == 0 for gate in judge(FOUND, section(), known))


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"figures": 3}', '{"figures": {"int8": {"AP": "x"}}}'])
def test_a_baseline_that_is_none(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "baseline.json"
    if text is not None:
        path.write_text(text, "utf-8")
    with pytest.raises(InputError, match=r"the baseline .*baseline\.json is not readable"):
        read_baseline(path)


# --- vocabulary ------------------------------------------------------------------------------------------------------

ROAD = ("car", "truck_bus", "two_wheeler", "person")
COCO = ("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck")


def test_the_data_sets_own_classes_where_the_network_knows_them() -> None:
    words = Vocabulary.of(COCO, ("bus", "person"))
    assert words.classes == ("bus", "person")
    assert words.of_model.tolist() == [1, -1, -1, -1, -1, 0, -1, -1] and words.of_data.tolist() == [0, 1]


def test_a_coco_network_on_the_road() -> None:
    words = Vocabulary.of(COCO, ROAD)
    assert words.classes == ROAD
    assert words.of_model.tolist() == [3, 2, 0, 2, -1, 1, 1, 1] and words.of_data.tolist() == [0, 1, 2, 3]
    assert words.groups() == {"vehicle": (0, 1)}
    found = words.found(Detections(np.zeros((3, 4), np.float32), np.ones(3, np.float32), np.array([7, 4, 0])))
    assert found.label.tolist() == [1, 3]  # a truck, no aeroplane, a person


def test_the_road_network_on_coco_pictures() -> None:
    words = Vocabulary.of(ROAD, COCO)
    assert words.classes == ROAD and words.of_model.tolist() == [0, 1, 2, 3]
    boxes = np.arange(16, dtype=np.float32).reshape(4, 4)
    truth = Truth.of(boxes, np.array([5, 4, -1, 4]), ignore=np.array([False, False, True, True]))
    kept = words.truth(truth)  # a bus; an aeroplane is not asked for; ignored places stay
    assert kept.label.tolist() == [1, -1, -1] and kept.ignore.tolist() == [False, True, True]


def test_nothing_in_common() -> None:
    with pytest.raises(ModelError, match="wanted a class in common"):
        Vocabulary.of(("lamp",), ("car",))


# --- whole checks ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    name: str
    bgr: Any
    truth: Truth


class Lamps:
    """Pictures of one lamp each; `wrong` of them claim that it is elsewhere."""

    classes = ("lamp", "never")

    def __init__(self, pictures: int, wrong: int = 0) -> None:
        self.pictures, self.wrong = pictures, wrong

    def __len__(self) -> int:
        return self.pictures

    def __getitem__(self, i: int) -> Sample:
        at = (1 + i % 9, 2)
        box = lamp_box(*at) if i >= self.wrong else np.array([0, 48, 16, 64], np.float32)
        return Sample(str(i), lamp_picture(*at), Truth.of(box[None], np.array([0]), id=np.array([1])))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "lamps.bundle", int8=True)


def test_a_detector_that_is_right_and_one_that_is_not(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    data = DataSection(pictures=8)
    monkeypatch.setattr(accuracy, "open_dataset", lambda section: Lamps(section.pictures))
    done = check(bundle, section(data=data, gates={"AP50": 0.99}, max_drop={"AP": 0.0}))
    assert done.samples == 8 and done.ok
    assert done.figures["fp32"]["lamp/AP"] == done.figures["int8"]["AP"] == pytest.approx(1)
    monkeypatch.setattr(accuracy, "open_dataset", lambda section: Lamps(section.pictures, wrong=4))
    missed = check(bundle, section(data=data, gates={"AP50": 0.99}))
    # half of the truth is found, every second detection is false: precision .5 up to recall .5 at best
    assert not missed.ok and 0 < missed.figures["int8"]["AP50"] < 0.6


def test_tracking_goes_through_the_loop(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    lamps = Lamps(9)

    def still_lamp(section: DataSection) -> Any:
        rows = [(Frame(i, i * 40_000_000, lamps[3].bgr), lamps[3].truth) for i in range(12)]
        yield accuracy.Clip("lamp", 25.0, len(rows), lamps.classes, rows)

    monkeypatch.setattr(accuracy, "open_clips", still_lamp)
    done = check(bundle, section(data={"kind": "sim_drive"}, gates={"HOTA": 0.9, "MOTA": 0.9, "IDF1": 0.9}))
    assert done.ok and done.samples == 12
    assert done.figures["int8"]["switches"] == 0 and done.figures["int8"]["AP50"] == pytest.approx(1)


def mot_folder(folder: Path, frames: int) -> Path:
    """A person that walks 4 px a frame, and one whom the truth of 2015 leaves out (flag 0)."""
    (folder / "img1").mkdir(parents=True)
    (folder / "gt").mkdir()
    info = f"[Sequence]\nname=walk\nframeRate=10\nseqLength={frames}\nimWidth=64\nimHeight=48\n"
    (folder / "seqinfo.ini").write_text(info, "utf-8")
    rows = [f"{i + 1},7,{4 * i + 1},10,8,20,1,-1,-1,-1\n{i + 1},8,40,1,9,9,0,-1,-1,-1" for i in range(frames)]
    (folder / "gt" / "gt.txt").write_text("\n".join(rows), "utf-8")
    for i in range(frames):
        cv2.imwrite(str(folder / "img1" / f"{i + 1:06d}.jpg"), np.full((48, 64, 3), 10 * i, np.uint8))
    return folder


def test_mot_sequences_one_or_many(tmp_path: Path) -> None:
    mot_folder(tmp_path / "b", 5)
    mot_folder(tmp_path / "a", 2)
    one = list(accuracy.open_clips(DataSection(kind="mot", path=tmp_path / "b", pictures=3)))
    assert [(clip.length, clip.fps, clip.classes) for clip in one] == [(3, 10.0, ("person",))]
    frames = list(one[0].frames)
    assert [f.t_ns for f, _ in frames] == [0, 100_000_000, 200_000_000]
    assert [round(float(f.bgr.mean())) for f, _ in frames] == [0, 10, 20]
    assert all(t.label.tolist() == [0] and t.ignore.tolist() == [False] for _, t in frames)
    many = accuracy.open_clips(DataSection(kind="mot", path=tmp_path))
    assert [len(list(clip.frames)) for clip in many] == [2, 5]


def test_no_sequence_at_all(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="data of kind mot holds no sequence"):
        check(bundle, section(data={"kind": "mot", "path": str(tmp_path)}))


def test_drives_are_as_many_and_as_long_as_asked_for() -> None:
    first, second = accuracy.open_clips(DataSection(kind="sim_drive", seed=5, pictures=2, drives=2))
    assert (first.name, second.name, first.length) == ("drive 5", "drive 6", 2)
    (frame, truth), _ = first.frames
    assert frame.bgr.shape[2] == 3 and len(truth.id) == len(truth.label)


def test_coco_pictures_are_compared_in_all_of_cocos_classes_where_the_network_has_them(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "cat"}]}
    (tmp_path / "annotations" / "instances_x.json").write_text(json.dumps(content), "utf-8")
    data = DataSection(kind="coco", path=tmp_path)
    assert accuracy.boxed(replace(MODEL, classes=("cat", "car", "dog")), data).classes == ("car", "cat")
    assert accuracy.boxed(replace(MODEL, classes=ROAD), data).classes == ROAD


def test_a_classifier(tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    class Darkness:
        """Its logits are the picture's mean and a constant: bright is class 0, dark is class 1."""

        def __call__(self, feeds: dict[str, Any]) -> dict[str, Any]:
            (tensor,) = feeds.values()
            return {"logits": np.array([[tensor.mean(), 100.0]], np.float32)}

    class Greys:
        classes = ("bright", "dark")

        def __len__(self) -> int:
            return 4

        def __getitem__(self, i: int) -> Sample:
            bgr = np.full((HEIGHT, WIDTH, 3), (200, 50, 180, 60)[i], np.uint8)
            true = np.array([(0, 1, 0, 0)[i]])  # the last is labelled wrongly
            return Sample(str(i), bgr, Truth.of(np.zeros((1, 4), np.float32), true))

    model = replace(bundle.require_model(), task="classify", decode="logits", classes=Greys.classes)
    monkeypatch.setattr("edgecnn.check.open_backend", lambda *_a, **_k: Darkness())
    monkeypatch.setattr(accuracy, "open_dataset", lambda _section: Greys())
    done = check(replace(bundle, model=model), section(gates={"top1": 0.75}))
    assert done.figures["int8"] == {"top1": 0.75} and done.ok
    with pytest.raises(ModelError, match=r"a network of 3 classes; wanted 2"):
        check(replace(bundle, model=replace(model, classes=("a", "b", "c"))), section())


def redrawn(lost: float, spread: float, units: int = 100) -> tuple[Measured, Measured]:
    """The release before and what ships now: AP50 fell by `lost`, which redrawn samples have by `spread` otherwise."""
    common, apart = np.random.default_rng(1).normal(0, 0.05, DRAWS), np.random.default_rng(2).normal(0, spread, DRAWS)
    rows = [{"int8": {"AP50": 0.8 + common}}, {"int8": {"AP50": 0.8 - lost + common + apart}}]
    values = [{"int8": {"AP50": 0.8}}, {"int8": {"AP50": 0.8 - lost}}]
    before, now = (Measured(v, 100, r, units, "same") for v, r in zip(values, rows, strict=True))
    return before, now


@pytest.mark.parametrize(
    ("lost", "spread", "units", "verdict"),
    [
        (0.05, 0.01, 100, "missed"),  # beyond the limit, and 5 deviations from no loss
        (0.05, 0.05, 100, "unsure"),  # beyond the limit, and perhaps an accident
        (0.05, 0.01, 19, "unsure"),  # too few units to know
        (0.005, 0.002, 100, "ok"),
        (0.005, 0.05, 100, "unsure"),  # within the limit, but a loss of the limit's size would not have been seen
        (0.02, 0.0001, 100, "ok"),  # at the limit
        (-0.05, 0.001, 100, "ok"),
    ],
)
def test_a_loss_counts_where_it_is_no_accident(lost: float, spread: float, units: int, verdict: str) -> None:
    before, now = redrawn(lost, spread, units)
    (gate,) = judge(now, section(baseline_drop=0.0200001), before)
    assert gate.verdict == verdict and gate.ok is (verdict != "missed")
    if units > 19:
        assert gate.high - gate.low == pytest.approx(4 * spread, rel=0.1)  # what both have in common cancels out


def test_a_gate_that_is_unsure_is_told_everywhere_and_fails_nothing() -> None:
    before, now = redrawn(0.05, 0.05)
    done = CheckReport("b", {}, 100, now.figures, tuple(judge(now, section(baseline_drop=0.02), before)))
    assert done.ok and len(done.unsure) == 1
    assert done.table()[1][-1] == "unsure"
    (case,) = ElementTree.fromstring(done.junit())
    assert [child.tag for child in case] == ["system-out"] and "too few pictures" in str(case[0].text)
    assert "1 gates passed" in done.markdown() and "too few pictures to tell" in done.markdown()
    assert done.json()["gates"][0]["verdict"] == "unsure"


def test_markdown_names_what_is_missed_and_has_a_table() -> None:
    text = report(gates={"AP50": 0.9, "HOTA": 0.5}).markdown()
    assert "1 of 2 gates missed" in text and "- AP50 0.7900 (int8), at least 0.9: missed" in text
    assert "| AP50 | 0.8000 | 0.7900 | -0.0100 | ≥ 0.9 | MISSED |" in text


def test_a_baseline_of_other_pictures_is_refused() -> None:
    before, now = redrawn(0.0, 0.01)
    with pytest.raises(InputError, match=r"other pictures.*--update"):
        judge(replace(now, truth="other"), section(), before)


def test_a_baseline_is_written_with_its_reason_and_read_again(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(accuracy, "open_dataset", lambda section: Lamps(section.pictures))
    path = tmp_path / "lamps.json"
    keys: dict[str, Any] = {"data": DataSection(pictures=24), "baseline": str(path), "baseline_drop": 0.01}
    check(bundle, section(**keys), update="the first")
    check(bundle, section(**keys), update="once more")
    body = json.loads(path.read_text("utf-8"))
    assert [row["reason"] for row in body["history"]] == ["the first", "once more"]
    assert body["history"][0]["model"] == sha256(bundle.file("int8_cpu"))
    again = check(bundle, section(**keys))
    assert {gate.metric: gate.verdict for gate in again.gates} == {"AP": "ok", "AP50": "ok"}
    assert all(gate.value == gate.low == gate.high == 0 for gate in again.gates)
    # a quarter of the truth moved: another sample by its pictures, but not by its objects
    monkeypatch.setattr(accuracy, "open_dataset", lambda section: Lamps(section.pictures, wrong=18))
    worse = check(bundle, section(**keys))
    assert not worse.ok and all(gate.low > 0 for gate in worse.gates)
    with pytest.raises(InputError, match="other pictures"):
        check(bundle, section(**{**keys, "data": DataSection(pictures=25)}))


def test_a_baseline_is_not_written_of_what_misses_its_gates_nor_over_another_file(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(accuracy, "open_dataset", lambda section: Lamps(section.pictures, wrong=1))
    path = tmp_path / "lamps.json"
    keys: dict[str, Any] = {"data": DataSection(pictures=24), "baseline": str(path), "gates": {"AP50": 0.99}}
    assert not check(bundle, section(**keys), update="why not").ok
    assert not path.exists()
    path.write_text("something else", "utf-8")
    with pytest.raises(InputError, match="not readable"):
        check(bundle, section(**keys), update="why not")
    assert path.read_text("utf-8") == "something else"
    with pytest.raises(InputError, match="no baseline to update"):
        check(bundle, section(data=DataSection(pictures=24)), update="why not")
