"""Engine files of TensorRT for RTX: the list that the build log of the same build has, in every field."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import ModelProto
from test_half import NETWORKS, detector
from tiny_onnx import SHAPE

from edgecnn.build import readers, worker
from edgecnn.build.half import half
from edgecnn.build.network import Options
from edgecnn.build.plan import plan
from edgecnn.build.targets import find
from edgecnn.build.xray import look
from edgecnn.errors import InputError

ENGINES = Path(__file__).parent / "fixtures" / "engines"
HEAD = (ENGINES / "rtx-1.7.1.116.engine").read_bytes()  # of an engine, up to where the program ends


def test_the_recorded_engine_and_the_log_of_the_same_build() -> None:
    layers = plan(HEAD)
    assert layers == readers.log((ENGINES / "rtx-1.7.1.116.log").read_text("utf-8").splitlines())
    assert (len(layers), sum(x.kernel for x in layers)) == (16, 6)


def dynamic() -> ModelProto:
    model = NETWORKS["float tail"]()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return model


MORE: dict[str, Callable[[], ModelProto]] = {
    "half": lambda: half(NETWORKS["float stem"]()).model,
    "half throughout": lambda: half(detector()).model,
    "dynamic": dynamic,
}


@pytest.mark.parametrize("target", ["rtx-sm86", "rtx-sm120"])
@pytest.mark.parametrize("name", ["residual", "detector", "float tail", "no INT8", *MORE])
def test_an_engine_says_what_its_build_log_says(name: str, target: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    model = MORE[name]() if name in MORE else NETWORKS[name]()
    shapes = {"x": (SHAPE, (4, *SHAPE[1:]), (8, *SHAPE[1:]))} if name == "dynamic" else {}
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    built = worker.build_apart(path, find(target, int8=False), Options(64, shapes=shapes))
    wanted = readers.log(built.log)
    assert any(x.kernel for x in wanted) and plan(built.engine) == wanted


def test_xray_reads_the_file_alone() -> None:
    seen = look(ENGINES / "rtx-1.7.1.116.engine")
    assert str(seen) == "6 of 6 kernels are INT8"
    assert seen.source.endswith("graph evidence from TensorRT for RTX, not Jetson speed")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "but not one of TensorRT for RTX"),
        (b"ptrt" + HEAD[4:], "but not one of TensorRT for RTX"),
        (HEAD[:24] + bytes((1, 7, 2, 0)) + HEAD[28:], r"by TensorRT for RTX 1\.7\.2\.0"),
        (HEAD[:24], "an engine by TensorRT for RTX"),
        (HEAD[:2000], "no program that can be read"),
        (HEAD[:-2], "no program that can be read"),
        (HEAD.replace(b"version = 5", b"version = 6"), "no program that can be read"),
        (HEAD[:28] + b"{ForeignNode[a...b]}" + HEAD[28:], "no program that can be read"),
    ],
)
def test_what_can_not_be_read_is_refused_in_one_line(data: bytes, words: str) -> None:
    with pytest.raises(
        InputError, match=rf"{words}.*; wanted the build log .* or the engine inspector's JSON"
    ) as caught:
        plan(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", range(20))
def test_damaged_programs_end_in_a_list_or_one_line(seed: int) -> None:
    dice = random.Random(seed)
    data = bytearray(HEAD)
    for _ in range(40):
        data[dice.randrange(3000, len(data))] = dice.randrange(256)
    try:
        assert len(plan(bytes(data))) <= 60
    except InputError as error:
        assert "\n" not in str(error)
