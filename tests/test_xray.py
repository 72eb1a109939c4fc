"""What is read from build logs (one recorded), inspector JSON (made by hand after its documentation) and ONNX."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnx
import pytest
from onnx import ModelProto
from tiny_onnx import SHAPE, feeds, tiny

from edgecnn import cli
from edgecnn.build import readers
from edgecnn.build.xray import difference, look, xray
from edgecnn.bundle import Bundle, ModelSpec, TensorSpec
from edgecnn.errors import InputError
from edgecnn.quantize.stage import quantize
from edgecnn.recipe import QuantizeSection

ENGINES = Path(__file__).parent / "fixtures" / "engines"
MEANT = ("stem", "depthwise", "pointwise", "left", "mix", "fc")


@pytest.fixture(scope="module")
def int8() -> ModelProto:
    return quantize(tiny(), feeds(4), QuantizeSection()).tensorrt


@pytest.fixture(scope="module")
def fewer() -> ModelProto:
    return quantize(tiny(), feeds(4), QuantizeSection(keep_float=("left", "mix"))).tensorrt


# --- readers --------------------------------------------------------------------------------------------------------


def test_the_recorded_log() -> None:
    """Counted by hand in the file: 16 layers, 5 correlations and a gemm, all of Int8 input and constants, one Move."""
    layers = readers.log((ENGINES / "rtx-1.7.1.116.log").read_text("utf-8").splitlines())
    kernels = [layer for layer in layers if layer.kernel]
    assert (len(layers), len(kernels), sum(layer.reformat for layer in layers)) == (16, 6, 1)
    assert {(layer.input, layer.weight) for layer in kernels} == {("Int8", "Int8")}
    first = kernels[0]
    assert first.name.startswith("stem_") and first.nodes[0] == "stem" and first.computing == ("stem",)
    assert first.weights == 16 * 4 * 3 * 3 + 16 + 16  # the picture's third channel is padded to four
    assert str(xray(layers, MEANT)) == "6 of 6 kernels are INT8"


def test_inspector_of_tensorrt_8() -> None:
    layers = readers.inspector((ENGINES / "inspector-8.json").read_text("utf-8"))
    assert [(x.input, x.output, x.weight, x.weights, x.kernel, x.reformat) for x in layers] == [
        ("Float", "Int8", "", 0, False, True),
        ("Int8", "Int8", "Int8", 432, True, False),
        ("Half", "Half", "Half", 144, True, False),
        ("Half", "Int8", "", 0, False, True),
        ("Int8", "Int8", "Int8", 256, True, False),
        ("Int8", "Float", "Int8", 320, True, False),
    ]
    assert layers[4].nodes[2:] == ("pointwise", "add", "add.relu")
    assert layers[4].computing == ("pointwise", "add", "add.relu")  # without the weights and their pair
    seen = xray(layers, MEANT)
    assert (seen.int8, seen.floats, seen.unseen, seen.reformats) == (3, ("depthwise",), ("left", "mix"), 2)
    assert str(seen) == "3 of 6 kernels are INT8, in float: depthwise, not named in the log: left, mix"


def test_inspector_of_tensorrt_10_and_11() -> None:
    ten = readers.inspector((ENGINES / "inspector-10.json").read_text("utf-8"))
    assert (ten[1].nodes, ten[1].input) == (("stem.weight", "stem.weight_Q", "stem", "stem.relu"), "Int8")
    assert (ten[2].kernel, ten[2].input, ten[2].output, ten[2].nodes) == (
        *(True, "Float", "Half"),
        ("depthwise", "depthwise.relu"),
    )
    eleven = readers.inspector((ENGINES / "inspector-11.json").read_text("utf-8"))
    assert [(x.input, x.output, x.weight) for x in eleven] == [("Int8", "Int8", "Int8")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "this is no JSON"),
        ("{}", "holds no list 'Layers'"),
        ('{"Layers": []}', "holds no list 'Layers'"),
        ('{"Layers": ["stem + stem.relu"]}', "names layers and says nothing about them.*--profilingVerbosity=detailed"),
    ],
)
def test_what_is_no_inspector_json(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        readers.inspector(text)


def test_a_network_is_what_it_asks_for(int8: ModelProto) -> None:
    layers = {x.name: x for x in readers.network(int8)}
    assert {name for name, x in layers.items() if x.kernel and x.input == x.weight == "Int8"} == set(MEANT)
    assert (layers["mix"].weights, layers["fc"].weights) == (32 * 32 * 9, 320)
    assert (layers["stem.relu"].input, layers["stem.relu"].output) == ("Float", "Int8")
    assert all(x.input == "Float" for x in readers.network(tiny()))


def test_a_small_convolution_inside_of_a_generated_kernel() -> None:
    """OSNet's gate: fc1 has a kernel of its own; fc2 is computed where its input is made, rounded to INT8 there."""
    lines = (ENGINES / "rtx-1.7.1.116-gate.log").read_text("utf-8").splitlines()
    first, second = (f"/conv2/conv2.0/gate/{name}_3/Conv" for name in ("fc1", "fc2"))
    layers = readers.log(lines)
    assert [(layer.kernel, layer.inside) for layer in layers] == [(False, ""), (True, ""), (False, "Int8")]
    assert str(xray(layers, (first, second))) == "2 of 2 kernels are INT8"
    in_float = readers.log(line.replace("RounCastConcCorr", "Corr") for line in lines)
    assert xray(in_float, (first, second)).floats == (second,)


# --- two placements -------------------------------------------------------------------------------------------------


def test_two_placements_differ_where_one_keeps_float(int8: ModelProto, fewer: ModelProto, tmp_path: Path) -> None:
    onnx.save(int8, tmp_path / "a.onnx")
    onnx.save(fewer, tmp_path / "b.onnx")
    a, b = look(tmp_path / "a.onnx"), look(tmp_path / "b.onnx")
    assert difference(a, a) == []
    differs = {node: (one, other) for node, one, other in difference(a, b)}
    for node in ("left", "mix"):
        assert differs.pop(node) == ("Int8 × Int8 → Float", "Float × Float → Float")
    # without them nothing asks for INT8 around the pool and the Concat, nor for what feeds them
    assert set(differs) == {"add", "add.relu", "left.relu", "pool", "cat", "mix.relu", "gap", "flat"}
    assert differs["add"] == ("Float+Int8 → Float", "Float → Float")  # of the residual, only the skip
    assert differs["pool"] == ("Int8 → Int8", "Float → Float")
    assert str(a) == "INT8 is asked for in 6 kernels" and not a.built
    engine = look(ENGINES / "inspector-8.json")
    assert ("depthwise", "Int8 × Int8 → Float", "Half × Half → Half") in difference(a, engine)
    assert ("mix", "Int8 × Int8 → Float", "not there") in difference(a, engine)


# --- files, bundles and pages ---------------------------------------------------------------------------------------


@pytest.fixture
def built(int8: ModelProto, tmp_path: Path) -> Bundle:
    """A bundle with an engine whose evidence is the recorded log."""
    onnx.save(int8, tmp_path / "model.int8.onnx")
    (tmp_path / "e.engine").write_bytes(b"plan")
    (tmp_path / "e.log").write_bytes((ENGINES / "rtx-1.7.1.116.log").read_bytes())
    spec = ModelSpec("onnx", "classify", tuple("0123456789"), TensorSpec("x", SHAPE))
    files = {"int8": "model.int8.onnx"}
    first = Bundle(tmp_path, "t").with_stage(
        "quantize", settings={}, version=1, files=files, facts={}, tools={}, model=spec
    )
    return first.with_stage(
        "build",
        settings={},
        version=1,
        files={"engine": "e.engine", "build_log": "e.log"},
        facts={"target": "rtx-sm86"},
        tools={"tensorrt_rtx": "1.7.1.116"},
    )


def test_a_bundle_is_read_with_what_was_asked_for(built: Bundle) -> None:
    seen = look(built.path)
    assert (seen.int8, seen.meant) == (6, 6)
    assert seen.source == (
        "engine for rtx-sm86 by tensorrt_rtx 1.7.1.116: graph evidence from TensorRT for RTX, not Jetson speed"
    )
    built.before("build").write()
    assert look(built.path).source == "model.int8.onnx: what the network asks for; no engine was built"


def test_the_inspector_is_better_evidence_than_the_log(built: Bundle) -> None:
    (built.path / "e.layers.json").write_bytes((ENGINES / "inspector-8.json").read_bytes())
    record = built.stages["build"]
    files = {role: name for role, (name, _) in record.files.items()} | {"layers": "e.layers.json"}
    built.with_stage(
        "build", settings={}, version=1, files=files, facts={"target": "orin"}, tools={"tensorrt": "8.5.2"}
    )
    seen = look(built.path)
    assert seen.source == "engine for orin by tensorrt 8.5.2: TensorRT's engine inspector" and seen.int8 == 3


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.log", None, "there is nothing at"),
        ("a.engine", b"plan", "which nothing but its own GPU reads"),
        ("a.log", b"hello\n", "describes no layers"),
        ("a.log", b"\xff\xfe\x00", "is no text"),
        ("a.json", b"[]", "holds no list 'Layers'"),
        ("a.onnx", b"hello", "a.onnx"),
    ],
)
def test_files_that_hold_no_layers(name: str, content: bytes | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        look(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_the_command(
    built: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page" / "xray.html"

    def called(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["edgecnn", "xray", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code
        return capsys.readouterr().out

    text = called(built.path)
    assert text.splitlines()[0].endswith("not Jetson speed") and "6 of 6 kernels are INT8" in text
    data = json.loads(called(built.path, ENGINES / "inspector-8.json", "--html", page, "--json"))
    assert [ray["int8"] for ray in data["xrays"]] == [6, 3]
    assert ["depthwise", "Int8 × Int8 → Float", "Half × Half → Half"] in data["difference"]
    html = page.read_text("utf-8")
    assert (
        "What differs" in html
        and "not Jetson speed" in html
        and "<script" not in html
        and "http:" not in html
        and "https:" not in html
    )
