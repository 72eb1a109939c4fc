"""The audit of a calibration set: each fault is planted and found, a clean set gives no finding; and the pick."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_cli import called
from tiny_onnx import tiny

from edgecnn.bundle import Bundle, ModelSpec, TensorSpec
from edgecnn.compile import compile_recipe
from edgecnn.data.alike import Look, bits, copies, near_copies
from edgecnn.data.calibration import open_list, open_pictures
from edgecnn.data.sample import Sample
from edgecnn.errors import BundleError, InputError
from edgecnn.quantize import run_stage
from edgecnn.quantize.audit import Audit, audit, information, variants
from edgecnn.quantize.graph import prepare
from edgecnn.quantize.insert import insert, plan, removed
from edgecnn.quantize.pick import apart, binned, choose, different, pick_list, spread
from edgecnn.recipe import Recipe
from edgecnn.scene import Truth

SIDE = 32
COLOURS = {"orange": (40, 120, 220), "green": (50, 190, 60), "wine": (80, 30, 120)}  # BGR
NAMES = tuple(COLOURS)


def picture(colour: str, seed: int, light: float = 1.0) -> np.ndarray:
    """(SIDE, SIDE, 3) blobs over a colour: different seeds are different scenes."""
    random = np.random.default_rng(seed)
    blobs = cv2.resize(random.normal(0, 30, (9, 9)).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    grain = random.normal(0, 4, (SIDE, SIDE, 3))
    return (light * (np.array(COLOURS[colour]) + blobs[..., None] + grain)).clip(0, 255).astype(np.uint8)


class Pictures:
    """A data set of named pictures."""

    classes = NAMES

    def __init__(self, rows: list[tuple[str, np.ndarray]], *, labelled: bool = True) -> None:
        self.rows, self.labelled = rows, labelled

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Sample:
        name, bgr = self.rows[i]
        label = np.array([NAMES.index(name)] if self.labelled else [], np.int64)
        boxes = np.tile(np.array([[0, 0, SIDE, SIDE]], np.float32), (len(label), 1))
        return Sample(f"{name}{i}", bgr, Truth.of(boxes, label))


def drawn(count: int, seed: int = 0, light: Callable[[int], float] = lambda _: 1.0) -> Pictures:
    return Pictures([(NAMES[i % 3], picture(NAMES[i % 3], 1000 * seed + i, light(i))) for i in range(count)])


def colour_network() -> onnx.ModelProto:
    """Names colours by the distance of the picture's mean from each; its input is R, G, B from -1 to 1."""
    places = np.array([bgr[::-1] for bgr in COLOURS.values()], np.float32) / 127.5 - 1 + 2
    weight = {"conv.w": np.eye(3, dtype=np.float32)[..., None, None], "conv.b": np.full(3, 2, np.float32)}
    weight |= {"far.w": np.tile(np.vstack([np.eye(3), -np.eye(3)]), (3, 1)).astype(np.float32)}
    weight |= {"far.b": np.concatenate([np.concatenate([-place, place]) for place in places])}
    weight |= {"sum.w": np.kron(-4 * np.eye(3), np.ones((1, 6))).astype(np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "conv.w", "conv.b"], ["conv"], "conv"),
        helper.make_node("Relu", ["conv"], ["relu"], "relu"),
        helper.make_node("GlobalAveragePool", ["relu"], ["gap"], "gap"),
        helper.make_node("Flatten", ["gap"], ["flat"], "flat"),
        helper.make_node("Gemm", ["flat", "far.w", "far.b"], ["far"], "far", transB=1),
        helper.make_node("Relu", ["far"], ["far.relu"], "far.relu"),
        helper.make_node("Gemm", ["far.relu", "sum.w"], ["y"], "sum", transB=1),
    ]
    shapes = {"x": [1, 3, SIDE, SIDE], "y": [1, 3]}
    ends = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, shapes[n])] for n in shapes]
    initializers = [numpy_helper.from_array(value, name) for name, value in weight.items()]
    graph = helper.make_graph(nodes, "colours", *ends, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


SPEC = ModelSpec(
    *("onnx", "classify", NAMES, TensorSpec("x", (1, 3, SIDE, SIDE)), (TensorSpec("y", (1, 3)),)),
    mean=(127.5,) * 3,
    std=(127.5,) * 3,
    channels="rgb",
)


@pytest.fixture(scope="module")
def signs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 calibration pictures, 16 a class, as files."""
    folder = tmp_path_factory.mktemp("signs")
    for i, (name, bgr) in enumerate(drawn(48).rows):
        (folder / name).mkdir(exist_ok=True)
        cv2.imwrite(str(folder / name / f"{i:02}.png"), bgr)
    return folder


def made(folder: Path, signs: Path, spec: ModelSpec = SPEC, *, ranges: str = "percentile") -> Bundle:
    """A quantised bundle of the colour network."""
    onnx.save(colour_network(), folder / "model.onnx")
    bundle = Bundle(folder, "colours").with_stage(
        "export", settings={}, version=1, files={"fp32": "model.onnx"}, facts={}, tools={}, model=spec
    )
    data = {"kind": "classes", "path": signs}
    recipe = {"name": "colours", "model": {"arch": "lenet5"}, "quantize": {"data": data, "ranges": ranges}}
    return run_stage(bundle, Recipe.model_validate(recipe))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, signs: Path) -> Bundle:
    return made(tmp_path_factory.mktemp("colours"), signs)


def found(result: Audit) -> dict[str, str]:
    return {check.name: check.saw for check in result.findings}


# ---- the audit


def test_a_clean_set_gives_no_finding(bundle: Bundle, signs: Path) -> None:
    result = audit(bundle, open_pictures(signs), drawn(30, seed=1))
    assert found(result) == {} and result.pictures == 48
    assert [check.name for check in result.checks] == [
        *(
            "enough",
            "duplicates",
            "near-duplicates",
            "light",
            "input",
            "classes",
            "channel order",
            "preprocess",
            "clipped",
        )
    ]
    assert set(result.clipped) == {"x", "relu", "gap", "flat", "far.relu"} and max(result.clipped.values()) < 0.001


def test_too_few(bundle: Bundle) -> None:
    few = found(audit(bundle, drawn(4), drawn(30, seed=1)))
    assert "4 pictures; in the median tensor" in few["enough"]
    assert found(audit(bundle, drawn(1), None))["enough"] == "1 picture"


def test_halves_that_differ_are_too_few(bundle: Bundle) -> None:
    """Every second picture is dark: 24 of them, and still chance decides."""
    uneven = audit(bundle, drawn(24, light=lambda i: 1.0 if i % 2 else 0.1), None)
    assert "enough" in found(uneven)


def test_the_same_and_nearly_the_same_picture(bundle: Bundle) -> None:
    rows = drawn(20).rows
    jpeg = cv2.imdecode(cv2.imencode(".jpg", rows[7][1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1], cv2.IMREAD_COLOR)
    faults = found(audit(bundle, Pictures([*rows, rows[3], (rows[7][0], jpeg)]), None))
    assert faults["duplicates"] == "1 of 22 pictures (orange20 = orange3)"
    assert faults["near-duplicates"] == "1 of 22 pictures (green21 = green7)"


def test_light_never_seen(bundle: Bundle) -> None:
    night = drawn(30, seed=1, light=lambda i: 0.15 if i % 5 == 0 else 1.0)
    saw = found(audit(bundle, drawn(48), night))["light"]
    assert "6 of 30 are darker, as no calibration picture is" in saw
    both = drawn(48, light=lambda i: 0.15 if i % 4 == 0 else 1.0)
    assert "light" not in found(audit(bundle, both, night))


def test_pictures_that_were_rescaled(bundle: Bundle) -> None:
    """Stored as 0 to 1: the input is all but black."""
    dark = Pictures([(name, bgr // 255) for name, bgr in drawn(48).rows])
    assert {"input", "light"} <= set(found(audit(bundle, dark, drawn(30, seed=1))))


def test_classes_never_seen(bundle: Bundle) -> None:
    rows = [row for row in drawn(48).rows if row[0] != "green"]
    assert found(audit(bundle, Pictures(rows), None))["classes"] == "1 of 3 never seen: green"
    unlabelled = audit(bundle, Pictures(rows, labelled=False), None)
    assert "not looked at" in next(check.saw for check in unlabelled.checks if check.name == "classes")


def test_pictures_with_red_and_blue_swapped(bundle: Bundle) -> None:
    swapped = Pictures([(name, np.ascontiguousarray(bgr[..., ::-1])) for name, bgr in drawn(48).rows])
    assert "channel order" in found(audit(bundle, swapped, None))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.0, 255.0)])
def test_the_wrong_preprocess(tmp_path: Path, signs: Path, mean: float, std: float) -> None:
    wrong = made(tmp_path, signs, replace(SPEC, mean=(mean,) * 3, std=(std,) * 3))
    saw = found(audit(wrong, open_pictures(signs), None))
    assert "-1 to 1" in saw["preprocess"]


def test_ranges_that_clip(bundle: Bundle, tmp_path: Path, signs: Path) -> None:
    """Calibrated in the dark, run in daylight."""
    dark = tmp_path / "dark"
    dark.mkdir()
    for i, (name, bgr) in enumerate(drawn(24, light=lambda _: 0.5).rows):
        (dark / name).mkdir(exist_ok=True)
        cv2.imwrite(str(dark / name / f"{i:02}.png"), bgr)
    (tmp_path / "b").mkdir()
    result = audit(made(tmp_path / "b", dark), open_pictures(signs), None)
    assert result.clipped["relu"] > 0.05 and "relu" in found(result)["clipped"]


def test_an_empty_set_and_a_bundle_without_int8(bundle: Bundle) -> None:
    with pytest.raises(InputError, match="calibration set is empty"):
        audit(bundle, Pictures([]), None)
    with pytest.raises(BundleError, match="holds no 'int8' file"):
        audit(bundle.before("quantize"), drawn(20), None)


def test_information_by_hand() -> None:
    """Four classes: sure and always right tells 2 bits; sure of one class everywhere, or unsure, tells none."""
    assert information(np.eye(4, dtype=np.float32), classify=True) == pytest.approx([2, 2, 2, 2])
    assert information(np.tile(np.eye(4, dtype=np.float32)[0], (4, 1)), classify=True) == pytest.approx([0] * 4)
    assert information(np.full((4, 4), 0.25, np.float32), classify=True) == pytest.approx([0] * 4)
    scores = np.zeros((2, 10), np.float32)
    scores[0] = 1
    assert information(scores, classify=False) == pytest.approx([0.5, -0.5])


def test_variants_turn_with_the_channels() -> None:
    bgr = variants(replace(SPEC, channels="bgr"))["ImageNet's mean and deviation"]
    assert bgr.mean == (103.53, 116.28, 123.675) and "-1 to 1" not in variants(SPEC)
    assert "the other" not in variants(replace(SPEC, channels="grey"))


# ---- looks


def test_hash_survives_jpeg_and_light_and_tells_scenes_apart() -> None:
    scenes = [picture("green", seed) for seed in range(30)]
    apart_ = min((bits(a) != bits(b)).sum() for i, a in enumerate(scenes) for b in scenes[:i])
    brighter = max((bits(a) != bits(cv2.convertScaleAbs(a, alpha=1.05, beta=3))).sum() for a in scenes)
    assert brighter <= 4 < 8 < apart_


def test_copies_are_no_near_copies_and_flat_pictures_are_neither() -> None:
    def looks(*pictures: np.ndarray) -> list[Look]:
        empty = Truth.of(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
        return [Look.of(Sample(str(i), bgr, empty)) for i, bgr in enumerate(pictures)]

    a, b = picture("orange", 1), picture("orange", 2)
    assert copies(looks(a, b, a, a)) == [("2", "0"), ("3", "0")] and near_copies(looks(a, b, a, a)) == []
    flat = [np.full((SIDE, SIDE, 3), level, np.uint8) for level in (10, 200)]
    assert copies(looks(*flat)) == near_copies(looks(*flat)) == []


def test_removed_is_the_inverse_of_insert() -> None:
    model = prepare(tiny())
    chosen = plan(model)
    scale = {name: 0.01 * (i + 1) for i, name in enumerate(chosen.tensors)}
    plain, ranges = removed(insert(model, chosen.points, scale, chosen.kernels))
    assert ranges == pytest.approx({name: 127 * scale[name] for name in chosen.points})
    assert [(n.op_type, list(n.output)) for n in plain.graph.node] == [
        (n.op_type, list(n.output)) for n in model.graph.node
    ]
    kernels = {n.name: n for n in plain.graph.node}
    values = {t.name: numpy_helper.to_array(t) for t in (*plain.graph.initializer, *model.graph.initializer)}
    for node in model.graph.node:
        assert kernels[node.name].input[0] == node.input[0]
        if node.name in chosen.kernels:
            np.testing.assert_array_equal(values[kernels[node.name].input[1]], values[node.input[1]])


# ---- the pick


def test_bins_keep_order_and_count() -> None:
    shares = binned(np.array([[0.0, 1.0, -1.1, 1.25, 2.0, -1e9, 1e-12, 1.9]], np.float32))
    assert shares.sum() == pytest.approx(1)
    one = (127 - 97) * 4  # 1 to 1.25, 1.25 to 1.5, ...
    assert np.flatnonzero(shares).tolist() == [0, one, one + 1, one + 3, one + 4, 199]
    assert shares[[0, one, 199]] == pytest.approx([2 / 8, 2 / 8, 1 / 8])


def test_the_choice_is_that_of_trying_every_set() -> None:
    """Half of the pictures are loud: with two, one of each comes nearest to the whole."""
    shares = np.zeros((6, 1, 200), np.float32)
    shares[:, 0, 100], shares[3:, 0, 100] = 1.0, 0.98
    shares[3:, 0, 120] = 0.02
    assert sum(row >= 3 for row in choose(shares, 2)) == 1
    assert apart(shares, choose(shares, 2)) < 1e-6 < 0.5 < apart(shares, [0, 1])


def test_picked_ranges_are_nearer_than_random_ones(tmp_path: Path, bundle: Bundle) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for i, (_, bgr) in enumerate(drawn(120, light=lambda i: 1.4 if i % 10 == 0 else 0.5).rows):
        cv2.imwrite(str(folder / f"{i:03}.png"), bgr)
    cv2.imwrite(str(folder / "again.png"), drawn(1, light=lambda _: 1.4).rows[0][1])  # a copy of 000.png
    out = tmp_path / "lists" / "picked.yaml"
    picked = pick_list(bundle, folder, 8, out)
    data = open_list(out)
    assert len(data) == 8 and picked.among == 120 == len(different(folder))
    assert {entry.origin for entry in data.entries} == {"many"} and data[0].bgr.shape == (SIDE, SIDE, 3)
    shares = spread(bundle, different(folder))
    random = [apart(shares, np.random.default_rng(seed).choice(120, 8, replace=False)) for seed in range(20)]
    assert picked.apart < 0.01 < np.median(random)
    assert choose(shares, 8) == choose(shares, 16)[:8]
    with pytest.raises(InputError, match="holds 120 different pictures; wanted at least 121"):
        pick_list(bundle, folder, 121, out)


# ---- the command


def test_audit_of_a_bundle_and_of_a_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, bundle: Bundle
) -> None:
    assert called(monkeypatch, "calibrate", bundle.path, "--audit", "--strict") == 0  # its manifest names the pictures
    assert capsys.readouterr().out.startswith("check")
    for i, (_, bgr) in enumerate(drawn(4).rows):
        cv2.imwrite(str(tmp_path / f"{i}.png"), bgr)
    few = ("calibrate", bundle.path, "--audit", "--data", tmp_path, "--json")
    assert called(monkeypatch, *few) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["findings"] == 1 and [row["name"] for row in data["checks"] if row["finding"]] == ["enough"]
    assert called(monkeypatch, *few, "--strict") == 9
    assert "error: the audit has findings: enough." in capsys.readouterr().err
    assert called(monkeypatch, "calibrate", bundle.path, "--audit", "--data", tmp_path / "none") == 3


def test_a_recipe_picks_its_list_and_is_audited_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, signs: Path
) -> None:
    onnx.save(colour_network(), tmp_path / "net.onnx")
    model = {"onnx": "net.onnx", "decode": "logits", "classes": list(NAMES), "height": SIDE, "width": SIDE}
    model |= {"mean": [127.5] * 3, "std": [127.5] * 3, "channels": "rgb"}
    pictures = {"kind": "classes", "path": str(signs)}
    recipe = {"name": "colours", "model": model, "export": {"compare": pictures}, "build": None}
    recipe |= {"quantize": {"calibration": "lists/picked.yaml"}, "check": {"data": pictures}}
    (tmp_path / "colours.yaml").write_text(json.dumps(recipe))
    monkeypatch.chdir(tmp_path)
    pick = ("calibrate", "colours.yaml", "--pick", 20, "--data", signs, "--out", "lists/picked.yaml")
    assert called(monkeypatch, *pick, "--json") == 0
    came = json.loads(capsys.readouterr().out)
    assert (came["among"], len(came["pictures"]), came["list"]) == (48, 20, "lists/picked.yaml")
    assert len(open_list(tmp_path / "lists" / "picked.yaml")) == 20
    assert called(monkeypatch, "calibrate", "colours.yaml", "--audit") == 0
    rows = {line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "20 pictures" in rows["enough"] and "the pictures have no labels" in rows["classes"]
    assert "the pictures to check on" in rows["light"]


def test_half_a_command_line(monkeypatch: pytest.MonkeyPatch, bundle: Bundle, tmp_path: Path) -> None:
    assert called(monkeypatch, "calibrate", bundle.path) == 2
    assert called(monkeypatch, "calibrate", bundle.path, "--audit", "--pick", 6) == 2
    assert called(monkeypatch, "calibrate", bundle.path, "--pick", 6, "--data", tmp_path) == 2


# ---- a real network


@pytest.mark.slow
def test_roadnet_on_real_pictures_with_red_and_blue_swapped(shared_data: Path, tmp_path: Path) -> None:
    recipe = {"name": "road", "model": {"arch": "roadnet", "weights": "shipped"}, "build": None}
    recipe["quantize"] = {"data": {"kind": "sim", "seed": 9200, "pictures": 16}}
    (tmp_path / "road.yaml").write_text(json.dumps(recipe))
    bundle = compile_recipe(tmp_path / "road.yaml", tmp_path / "road.bundle", until="quantize").bundle
    swapped = tmp_path / "swapped"
    swapped.mkdir()
    right = sorted((shared_data / "detection" / "kitti_mini" / "image_2").iterdir())
    for file in right:
        cv2.imwrite(str(swapped / f"{file.stem}.png"), cv2.imread(str(file))[..., ::-1])
    assert "channel order" in found(audit(bundle, open_pictures(swapped), None))
    assert not {"channel order", "preprocess"} & set(found(audit(bundle, open_pictures(right[0].parent), None)))
