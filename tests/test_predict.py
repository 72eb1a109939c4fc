"""Kernels of small graphs by hand, the roofline by hand and by properties, and the fit on published figures."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto
from tiny_onnx import SHAPE, Sketch, feeds, tiny

from edgecnn import cli
from edgecnn.build.half import half
from edgecnn.build.targets import TARGETS
from edgecnn.bundle import Bundle, ModelSpec, TensorSpec
from edgecnn.errors import BuildError, BundleError, InputError, ModelError
from edgecnn.predict import FITTED, boards, constants, error, plan_of, predict, summary
from edgecnn.predict.kernels import Kernel, Plan, plan
from edgecnn.predict.roofline import Columns, Constants, microseconds
from edgecnn.quantize.stage import quantize
from edgecnn.recipe import QuantizeSection

ROOT = Path(__file__).resolve().parents[1]
IDEAL = Constants(
    launch_us=0, compute=1, prologue=0, border=0, bandwidth=1, depthwise=1, enqueue_us=0, call_ms=0
)  # no overhead at all
PLACES = 16 * 24  # of tiny()'s maps after the stem


@pytest.fixture(scope="module")
def int8() -> ModelProto:
    return quantize(tiny(), feeds(4), QuantizeSection()).tensorrt


@pytest.fixture(scope="module", autouse=True)
def benchmarks() -> Iterator[None]:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield
    sys.path.remove(str(ROOT / "benchmarks"))


# ---- kernels


def test_a_float_network_becomes_one_kernel_a_convolution_pool_and_product() -> None:
    found = plan(tiny())
    assert [k.name for k in found.kernels] == ["stem", "depthwise", "pointwise", "left", "pool", "mix", "gap", "fc"]
    assert [k.kind for k in found.kernels[:3]] == ["conv", "depthwise", "conv"]
    sizes = {k.name: (k.groups, k.m, k.n, k.k) for k in found.kernels}
    assert sizes["stem"] == (1, PLACES, 16, 27) and sizes["depthwise"] == (16, PLACES, 1, 9)
    assert sizes["mix"] == (1, PLACES, 32, 288) and sizes["fc"] == (1, 1, 10, 32)
    assert found.macs == PLACES * (16 * 27 + 16 * 9 + 16 * 16 * 2 + 32 * 288) + 320
    # the residual Add joins the later convolution, and the Concat is a view
    assert set(found.kernels[2].read) == {"depthwise.relu", "stem.relu"}
    assert set(found.kernels[5].read) == {"left.relu", "pool"}
    assert found.weight_bytes == 4 * (16 * 27 + 16 * 9 + 2 * 16 * 16 + 32 * 288 + 320)
    assert found.peak_bytes() == 4 * PLACES * (16 + 16 + 32)  # mix: its inputs and its output


def test_precision_is_read_from_q_and_dq(int8: ModelProto) -> None:
    found = plan(int8)
    assert [k.name for k in found.kernels if k.kind in ("conv", "depthwise") and k.precision == "int8"] == [
        *("stem", "depthwise", "pointwise", "left", "mix", "fc")
    ]
    assert [k.name for k in found.kernels if k.op == "Reformat"] == ["x to int8"]
    assert next(k for k in found.kernels if k.name == "pool").precision == "int8"  # Q moves before the MaxPool
    assert found.kernels[-1].written == {"fc": "fp32"}
    assert found.weight_bytes * 4 == plan(tiny()).weight_bytes and found.macs == plan(tiny()).macs


@pytest.mark.parametrize("precision", ["int8", "fp16", "fp32"])
def test_an_asked_precision_makes_the_same_of_both_files(int8: ModelProto, precision: str) -> None:
    a, b = (plan(model, precision) for model in (tiny(), int8))
    assert [(k.name, k.kind, k.precision, k.macs) for k in a.kernels] == [
        (k.name, k.kind, k.precision, k.macs) for k in b.kernels
    ]
    assert (a.weight_bytes, a.peak_bytes()) == (b.weight_bytes, b.peak_bytes())


def test_a_skip_left_in_float_costs_a_reformat_and_wider_tensors(int8: ModelProto) -> None:
    """As in NVIDIA's ResNet-18 dumps: 12 reformats without Q on the skips, 3 with."""
    bare = ModelProto()
    bare.CopyFrom(int8)
    add = next(n for n in bare.graph.node if n.op_type == "Add")
    made = {name: node for node in bare.graph.node for name in node.output}
    index = next(i for i, name in enumerate(add.input) if made[name].op_type == "DequantizeLinear")
    add.input[index] = made[made[add.input[index]].input[0]].input[0]
    with_skip, without = plan(int8), plan(bare)
    reformats = [sum(k.op == "Reformat" for k in p.kernels) for p in (with_skip, without)]
    assert reformats == [1, 2]
    assert next(k for k in without.kernels if k.name == "stem").written == {"stem.relu": "fp32"}
    assert predict(without, "orin").graph_ms > predict(with_skip, "orin").graph_ms


def test_a_convolution_kept_in_float_reads_float() -> None:
    kept = quantize(tiny(), feeds(4), QuantizeSection(keep_float=("mix",))).tensorrt
    mix = next(k for k in plan(kept).kernels if k.name == "mix")
    assert mix.precision == "fp32" and set(mix.read.values()) == {"fp32"}


def test_a_gate_is_no_part_of_the_small_convolution_that_made_it() -> None:
    s = Sketch()
    x = s.conv("x", "first", 8, 3)
    gate = s.node("Sigmoid", [s.conv(s.node("GlobalAveragePool", [x], "gap"), "squeeze", 8, 8, kernel=1)], "gate")
    s.node("Mul", [x, gate], "scaled")
    found = plan(s.model({"scaled": [1, 8, 32, 48]}))
    assert [k.name for k in found.kernels] == ["first", "gap", "squeeze", "scaled"]


def test_shared_weights_count_once() -> None:
    s = Sketch()
    weight = s.weight("w", 3, 3, 3, 3)
    a = s.node("Conv", ["x", weight], "a", pads=[1] * 4)
    s.node("Conv", [a, weight], "b", pads=[1] * 4)
    assert plan(s.model({"b": [1, 3, 32, 48]})).weight_bytes == 81 * 4


def test_a_shape_that_is_not_fixed_is_refused() -> None:
    model = tiny()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    with pytest.raises(ModelError, match="input 'x' has no fixed shape"):
        plan(model)


# ---- the roofline


def one(kernel: Kernel, elements: dict[str, int]) -> Columns:
    return Columns.of(Plan((kernel,), elements, ()))


def test_a_product_by_hand() -> None:
    """16 SMs of 2048 INT8 products a clock: 16 tiles of 256 x 128 with k = 512 take 256 * 128 * 512 / 2048 clocks."""
    kernel = Kernel("c", "Conv", "conv", "int8", m=16 * 256, n=128, k=512)
    arithmetic, memory = microseconds(one(kernel, {}), TARGETS["orin"], IDEAL)
    assert arithmetic[0] == pytest.approx(256 * 128 * 512 / 2048 / 1.3e3)
    assert memory[0] == 0
    # one more row of outputs wastes the best tile's wave, never gains
    wider, _ = microseconds(one(replace(kernel, m=16 * 256 + 1), {}), TARGETS["orin"], IDEAL)
    assert wider[0] > arithmetic[0]


def test_bytes_and_depthwise_by_hand() -> None:
    kernel = Kernel("d", "Conv", "depthwise", "int8", groups=64, m=400, n=1, k=9, weights=576)
    kernel.read, kernel.written = {"a": "int8"}, {"b": "fp16"}
    arithmetic, memory = microseconds(one(kernel, {"a": 25600, "b": 25600}), TARGETS["orin-nano"], IDEAL)
    assert memory[0] == pytest.approx((576 + 25600 + 2 * 25600) / 68e3)
    assert arithmetic[0] == pytest.approx(2 * 64 * 400 * 9 / (8 * 256 * 0.625e3))


shapes = st.integers(1, 5000)


@settings(deadline=None, max_examples=60)
@given(m=shapes, n=st.integers(1, 600), k=shapes, groups=st.integers(1, 4), precision=st.sampled_from(["int8", "fp16"]))
def test_no_product_beats_the_peak_and_more_of_anything_is_no_slower(
    m: int, n: int, k: int, groups: int, precision: str
) -> None:
    board = TARGETS["orin-nano"]
    kernel = Kernel("c", "Conv", "conv", precision, groups, m, n, k, weights=n * k)
    time, memory = (t[0] for t in microseconds(one(kernel, {}), board, constants()))
    peak = board.int8_tops if precision == "int8" else board.fp16_tflops
    assert peak is not None and time >= 2 * kernel.macs / (peak * 1e6)
    assert microseconds(one(kernel, {}), TARGETS["orin"], constants())[0][0] <= time
    assert microseconds(one(replace(kernel, k=k + 64), {}), board, constants())[0][0] >= time
    quick = replace(board, bandwidth=2 * (board.bandwidth or 0))
    assert microseconds(one(kernel, {}), quick, constants())[1][0] == pytest.approx(memory / 2)


# ---- published networks and latencies


def test_the_graphs_have_the_published_parameters_and_operations() -> None:
    from published_nets import NETWORKS, PUBLISHED

    for name, (parameters, operations) in PUBLISHED.items():
        found = plan(NETWORKS[name](), "fp32")
        assert 2 * found.macs / 1e9 == pytest.approx(operations, rel=0.015), name
        # MLPerf counts the whole ResNet-34, of which the detector leaves out the last stage and the classifier
        if name != "SSD-ResNet34":
            assert found.weight_bytes / 4e6 == pytest.approx(parameters, rel=0.03), name


@pytest.mark.slow
def test_resnet50_is_the_zoos() -> None:
    import torch
    from published_nets import resnet50

    from edgecnn.zoo import count
    from edgecnn.zoo.resnet import build

    with torch.device("meta"):
        net = build("resnet50", 1000)
    assert plan(resnet50()).macs == count.size(net, (1, 3, 224, 224)).macs


def test_the_error_on_the_figures_that_were_fitted_on() -> None:
    import predict_table as table

    found = table.error([table.predicted(figure, constants()) for figure in table.FIGURES])
    assert found["median"] <= 0.1 and found["worst"] <= 1.5
    assert error()["median"] <= 0.25 and error()["worst"] <= 2  # the aim, on boards that the fit did not see


def test_the_stored_constants_and_errors_are_those_of_the_fit() -> None:
    import predict_table as table

    stored = json.loads(FITTED.read_text("utf-8"))
    anew = table.fitted(table.FIGURES)
    for figure in table.FIGURES:
        assert table.predicted(figure, anew) == pytest.approx(table.predicted(figure, constants()), rel=0.02)
    found = table.error(table.unseen(lambda figure: figure.board))
    assert found["figures"] == stored["error"]["figures"] == 26
    assert found["median"] == pytest.approx(stored["error"]["median"], abs=0.02)
    assert found["worst"] == pytest.approx(stored["error"]["worst"], abs=0.05)
    assert stored["sm"] == [72, 87]


def test_a_board_that_no_fit_saw_and_without_tensor_cores_stays_within_a_factor_of_two() -> None:
    import predict_table as table

    assert abs(math.log2(table.predicted(table.NANO, constants()) / table.NANO.ms)) < 1


def test_the_page_shows_what_is_stored() -> None:
    last = next(line for line in (ROOT / "docs/targets.md").read_text("utf-8").splitlines() if "median, worst" in line)
    assert f"**{error()['median']:.0%}, {error()['worst']:.2f}x**" in last


@pytest.mark.parametrize("network", ["ResNet-50", "YOLO11n"])
def test_fewer_bits_are_faster_and_smaller(network: str) -> None:
    from published_nets import NETWORKS

    plans = {how: plan(NETWORKS[network](), how) for how in ("fp32", "fp16", "int8")}
    found = [predict(plans[how], "orin-nano", how) for how in plans]
    times, sizes = [p.graph_ms for p in found], [p.memory_mib for p in found]
    assert times == sorted(times, reverse=True) and sizes == sorted(sizes, reverse=True)


# ---- what a user sees


def test_a_prediction_says_what_it_is(int8: ModelProto) -> None:
    found = predict(plan(int8), "orin-nano")
    told = summary(found)
    assert told["predicted_not_measured"] is True and told["error"] == error()
    assert found.graph_ms == pytest.approx(sum(k.us for k in found.kernels) / 1e3) and found.graph_ms < found.python_ms
    assert told["by_precision"] == {"int8": 8, "fp32": 1} and told["reformats"] == 1
    assert told["memory_mib"]["sum"] == pytest.approx(256 + (10624 + 24576) / 2**20)
    assert json.loads(json.dumps(told)) == told


def test_verdicts_leave_room_for_the_error(int8: ModelProto) -> None:
    found = predict(plan(int8), "orin-nano")
    fps = 1e3 / found.python_ms
    assert found.holds(fps / error()["worst"] * 0.99) == "yes"
    assert found.holds(fps) == "perhaps"
    assert found.holds(1e3 / found.graph_ms * error()["worst"] * 1.01) == "no"
    assert predict(plan(tiny(), "fp16"), "nano", "fp16").holds(0.1) == "perhaps"  # its generation was not fitted on


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nano", "has no INT8. Predict with --precision fp16"),
        ("thor", "no source tells the arithmetic rates of Jetson Thor"),
        ("orinn", "did you mean 'orin'"),
    ],
)
def test_what_cannot_be_predicted_is_refused(int8: ModelProto, name: str, why: str) -> None:
    with pytest.raises(BuildError, match=why):
        predict(plan(int8), name)


def test_a_bundle_gives_its_int8_file_and_fp32_where_that_is_asked_for(int8: ModelProto, tmp_path: Path) -> None:
    bundle = Bundle(tmp_path, "tiny")
    spec = ModelSpec("onnx", "classify", tuple("0123456789"), TensorSpec("x", SHAPE))
    for stage, role, model in (("export", "fp32", tiny()), ("quantize", "int8", int8)):
        onnx.save(model, tmp_path / f"{role}.onnx")
        bundle = bundle.with_stage(
            stage, settings={}, version=1, files={role: f"{role}.onnx"}, facts={}, tools={}, model=spec
        )
        assert {k.precision for k in plan_of(tmp_path).kernels if k.kind == "conv"} == {role}
    assert {k.precision for k in plan_of(tmp_path, "fp16").kernels} == {"fp16"}
    mixed = quantize(tiny(), feeds(4), QuantizeSection(keep_float=("left",))).tensorrt
    onnx.save(half(mixed).model, tmp_path / "half.onnx")
    built = bundle.with_stage("build", settings={}, version=1, files={"half": "half.onnx"}, facts={}, tools={})
    assert {k.precision for k in plan_of(built.path).kernels if k.kind == "conv"} == {"int8", "fp16"}
    assert {k.precision for k in plan_of(built.path, "int8").kernels if k.kind == "conv"} == {"int8"}
    (tmp_path / "fp32.onnx").unlink()
    plan_of(tmp_path, "int8")
    with pytest.raises(BundleError, match=r"fp32\.onnx is missing"):
        plan_of(tmp_path, "fp16")
    with pytest.raises(InputError, match="there is nothing at"):
        plan_of(tmp_path / "none.onnx")


def called(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["edgecnn", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_the_command(
    int8: ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tiny.onnx"
    onnx.save(int8, path)
    assert called(monkeypatch, "predict", path, "--target", "orin-nano", "--fps", "30") == 0
    out = capsys.readouterr().out
    assert out.count("predicted, not measured") == 2 and "26 published latencies" in out
    assert called(monkeypatch, "predict", path, "--target", "orin-nano", "--fps", "30", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["target"]: row for row in found["boards"]}
    assert list(rows) == [name for name, target in TARGETS.items() if target.dialect == "trt"]
    assert (rows["nano"]["precision"], rows["nano"]["holds"]) == ("fp16", "perhaps")
    assert (rows["orin"]["precision"], rows["orin"]["holds"], rows["thor"]["graph_ms"]) == ("file", "yes", None)
    assert rows["orin-nano"]["graph_ms"] == pytest.approx(found["graph_ms"])
    assert called(monkeypatch, "predict", path, "--target", "nano") == BuildError.exit_code
    assert called(monkeypatch, "predict", tmp_path / "none.onnx", "--target", "orin") == InputError.exit_code


def test_no_board_holds_a_million_frames(int8: ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    onnx.save(int8, path)
    assert {row["holds"] for row in boards(path, None, 1e6)} == {"no", None}
    assert np.isfinite([row["graph_ms"] for row in boards(path, "fp32", 30) if row["graph_ms"]]).all()
