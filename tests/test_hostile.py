"""Hostile ONNX: each attack made here, refused in one line by every entrance, and its harmless twin let in."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tiny_onnx import SHAPE, tiny

from edgecnn import cli, onnxfile
from edgecnn.build import lint
from edgecnn.errors import EdgecnnError, InputError
from edgecnn.export import take_in
from edgecnn.onnxfile import LIMIT, guard, memory, wire
from edgecnn.quantize.graph import load, prepare
from edgecnn.recipe import ModelSection

Path_ = Callable[[Path], Path]


def graph_of(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], output: str, rank: int = 2) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [f"d{i}" for i in range(rank)])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def external(folder: Path, location: str, **entries: object) -> Path:
    """A network whose one weight says that it lies in `location`."""
    model = graph_of([helper.make_node("Add", ["x", "w"], ["y"])], {}, "y")
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1, 4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        weight.external_data.add(key=key, value=str(value))
    model.graph.initializer.append(weight)
    folder.mkdir(exist_ok=True)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


def saved(tmp: Path, model: ModelProto) -> Path:
    (tmp / "m.onnx").write_bytes(model.SerializeToString())
    return tmp / "m.onnx"


def lying(dims: list[int], raw: bytes = b"1234") -> ModelProto:
    model = graph_of([helper.make_node("Add", ["x", "w"], ["y"])], {}, "y")
    model.graph.initializer.append(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, raw_data=raw))
    return model


def nested(depth: int) -> bytes:
    """Graph in attribute in node in graph: made by hand, because onnx's own makers give up."""

    def wrap(number: int, body: bytes) -> bytes:
        size = bytes([len(body) & 127 | 128, len(body) >> 7])
        return bytes([number << 3 | 2]) + size + body

    body = b""
    for _ in range(depth):
        body = wrap(1, wrap(5, wrap(6, body)))
    return wrap(7, body)


def shape(*dims: int) -> np.ndarray:
    return np.array(dims, np.int64)


def computed() -> ModelProto:
    """A bomb whose shape is the product of two harmless constants."""
    nodes = [helper.make_node("Mul", ["a", "a"], ["s"]), helper.make_node("ConstantOfShape", ["s"], ["y"])]
    return graph_of(nodes, {"a": shape(100_000, 100_000)}, "y")


def broadcast() -> ModelProto:
    nodes = [helper.make_node("Add", ["x", "a"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
    return graph_of(nodes, {"a": np.zeros((1, 65536), np.float32), "b": np.zeros((65536, 1), np.float32)}, "y")


def calls(twice: int) -> ModelProto:
    """Functions that call one another twice each: 2 ** n nodes when written out."""
    model = graph_of([helper.make_node("f0", ["x"], ["y"], domain="d")], {}, "y")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]
    for i in range(twice):
        name, domain = (f"f{i + 1}", "d") if i + 1 < twice else ("Identity", "")
        nodes = [
            helper.make_node(name, ["a"], ["b"], domain=domain),
            helper.make_node(name, ["b"], ["c"], domain=domain),
        ]
        model.functions.append(helper.make_function("d", f"f{i}", ["a"], ["c"], nodes, opsets))
    model.opset_import.append(opsets[1])
    return model


def cyclic() -> ModelProto:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"], "first"), helper.make_node("Relu", ["a"], ["b"], "second")]
    return graph_of(nodes, {}, "b")


def linked(tmp: Path) -> Path:
    (tmp / "secret").write_bytes(b"0" * 16)
    path = external(tmp / "net", "w.bin")
    (tmp / "net" / "w.bin").symlink_to(tmp / "secret")
    return path


def linked_folder(tmp: Path) -> Path:
    (tmp / "elsewhere").mkdir()
    (tmp / "elsewhere" / "w.bin").write_bytes(b"0" * 16)
    path = external(tmp / "net", "sub/w.bin")
    (tmp / "net" / "sub").symlink_to(tmp / "elsewhere")
    return path


def hard_linked(tmp: Path) -> Path:
    (tmp / "secret").write_bytes(b"0" * 16)
    path = external(tmp / "net", "w.bin")
    os.link(tmp / "secret", tmp / "net" / "w.bin")
    return path


def pipe(tmp: Path) -> Path:
    path = external(tmp / "net", "w.bin")
    os.mkfifo(tmp / "net" / "w.bin")
    return path


def short(tmp: Path) -> Path:
    path = external(tmp / "net", "w.bin", offset=8)
    (tmp / "net" / "w.bin").write_bytes(b"0" * 16)
    return path


def huge_external(tmp: Path) -> Path:
    path = external(tmp / "net", "w.bin")
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].dims[:] = [1 << 20, 1 << 20]
    path.write_bytes(model.SerializeToString())
    with (tmp / "net" / "w.bin").open("wb") as file:
        file.truncate(1 << 42)  # a sparse file: nothing on the disk, four terabytes to a reader
    return path


def sparse_file(tmp: Path) -> Path:
    with (tmp / "m.onnx").open("wb") as file:
        file.truncate((1 << 31) + 1)
    return tmp / "m.onnx"


def written(content: bytes) -> Path_:
    def write(tmp: Path) -> Path:
        (tmp / "m.onnx").write_bytes(content)
        return tmp / "m.onnx"

    return write


def ranged() -> ModelProto:
    nodes = [helper.make_node("Range", ["a", "b", "c"], ["r"]), helper.make_node("Cast", ["r"], ["y"], to=1)]
    return graph_of(nodes, {"a": np.int64(0), "b": np.int64(1 << 40), "c": np.int64(1)}, "y", 1)


def model(made: Callable[..., ModelProto], *arguments: object) -> Path_:
    return lambda tmp: saved(tmp, made(*arguments))


def node(op: str, inputs: list[str], **constants: np.ndarray) -> Path_:
    return lambda tmp: saved(tmp, graph_of([helper.make_node(op, inputs, ["y"], "bomb")], constants, "y"))


TENSOR_TWICE = b"\x3a\x02\x08\x01" * 2  # two graphs, which protobuf would merge

ATTACKS: dict[str, tuple[Path_, str]] = {
    "empty": (written(b""), "the file is empty"),
    "text": (written(b"not a network\n"), "no ONNX"),
    "truncated": (lambda tmp: written(tiny().SerializeToString()[:5000])(tmp), "truncated"),
    "no graph": (written(ModelProto(ir_version=8).SerializeToString()), "no graph"),
    "over 2 GiB": (sparse_file, "protobuf ends at 2 GiB"),
    "two graphs": (written(TENSOR_TWICE), "comes twice"),
    "a length that lies": (written(b"\x3a\xff\xff\xff\xff\x07"), "truncated"),
    "a number without end": (written(b"\xff" * 30), "more than ten bytes"),
    "parent folder": (lambda tmp: external(tmp / "net", "../w.bin"), "outside of the network's folder"),
    "inner parent": (lambda tmp: external(tmp / "net", "a/../../w.bin"), "outside of the network's folder"),
    "absolute": (lambda tmp: external(tmp / "net", "/etc/hostname"), "outside of the network's folder"),
    "windows drive": (lambda tmp: external(tmp / "net", "C:/w.bin"), "outside of the network's folder"),
    "no location": (lambda tmp: external(tmp / "net", ""), "outside of the network's folder"),
    "symlink": (linked, "links are not followed"),
    "symlinked folder": (linked_folder, "links are not followed"),
    "hard link": (hard_linked, "second name elsewhere"),
    "pipe": (pipe, "no plain file"),
    "missing external file": (lambda tmp: external(tmp / "net", "w.bin"), "No such file"),
    "external file too short": (short, "which has 16"),
    "external length that lies": (lambda tmp: external(tmp / "net", "w.bin", length=1 << 40), "claims 16 bytes"),
    "offset no number": (lambda tmp: external(tmp / "net", "w.bin", offset="-8"), "is no number"),
    "huge external": (huge_external, "more than fits the bound"),
    "weights that lie": (model(lying, [1000, 1000]), "claims 4000000 bytes (1000×1000) and holds 4"),
    "weights beyond 64 bits": (model(lying, [1 << 62, 1 << 62]), "and holds 4"),
    "negative dimension": (model(lying, [-1, -4]), "negative dimension"),
    "no values": (model(lying, [4], b""), "and holds 0"),
    "many dimensions": (model(lying, [1] * 65), "more than 64 dimensions"),
    "nested": (written(nested(40)), "nested more than 32 deep"),
    "cycle": (model(cyclic), "cycle through Add 'first'"),
    "constant bomb": (node("ConstantOfShape", ["s"], s=shape(1 << 20, 1 << 20)), "'y' alone takes"),
    "expand bomb": (node("Expand", ["x", "s"], s=shape(1 << 20, 1 << 20)), "'y' alone takes"),
    "tile bomb": (node("Tile", ["x", "s"], s=shape(1 << 20, 1 << 20)), "'y' alone takes"),
    "range bomb": (model(ranged), "'r' alone takes"),
    "computed bomb": (model(computed), "'y' alone takes"),
    "broadcast bomb": (model(broadcast), "'y' alone takes"),
    "functions without end": (model(calls, 30), "nodes; wanted at most 100000"),
    "too deep functions": (model(calls, 60), "more than 32 deep"),
    "sparse tensor": (written(b"\x3a\x03\x7a\x01\x00"), "sparse tensor"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_is_refused_in_one_line(attack: str, tmp_path: Path) -> None:
    make, why = ATTACKS[attack]
    path = make(tmp_path)
    with pytest.raises(InputError) as caught:
        onnxfile.read(path)
    line = str(caught.value)
    assert why in line and str(path) in line and "\n" not in line and caught.value.exit_code == 3


def entrances(path: Path) -> dict[str, Callable[[], object]]:
    section = ModelSection.model_validate(
        {"onnx": path, "decode": "logits", "classes": ["a", "b"], "height": SHAPE[2], "width": SHAPE[3]}
    )
    return {
        "quantize": lambda: load(path),
        "export": lambda: take_in(section),
        "build": lambda: lint.require(path),
        "lint": lambda: lint.check(path),
    }


@pytest.mark.parametrize("attack", ["symlink", "expand bomb", "cycle", "text"])
@pytest.mark.parametrize("entrance", ["quantize", "export", "build", "lint"])
def test_every_entrance_has_the_same_guard(attack: str, entrance: str, tmp_path: Path) -> None:
    path = ATTACKS[attack][0](tmp_path)
    with pytest.raises(InputError, match="no sound ONNX network"):
        entrances(path)[entrance]()


def test_the_command_line_exits_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ATTACKS["symlink"][0](tmp_path)
    monkeypatch.setattr(sys, "argv", ["edgecnn", "lint", str(path), "--target", "rtx"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    came = capsys.readouterr()
    assert end.value.code == 3 and came.out == "" and came.err.count("\n") == 1


# ---- what is sound comes in


def test_external_weights_inside_the_folder_come_in(tmp_path: Path) -> None:
    values = np.arange(4, dtype=np.float32)
    path = external(tmp_path / "net", "sub/w.bin", offset=8, length=16)
    (tmp_path / "net" / "sub").mkdir()
    (tmp_path / "net" / "sub" / "w.bin").write_bytes(b"x" * 8 + values.tobytes() + b"more")
    model = onnxfile.read(path)
    assert np.array_equal(numpy_helper.to_array(model.graph.initializer[0]), values[None])
    assert not model.graph.initializer[0].external_data


def test_onnx_own_external_files_come_in(tmp_path: Path) -> None:
    onnx.save(tiny(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    model = onnxfile.read(tmp_path / "m.onnx")
    wanted = {t.name: numpy_helper.to_array(t) for t in tiny().graph.initializer}
    assert all(np.array_equal(numpy_helper.to_array(t), wanted[t.name]) for t in model.graph.initializer)


def test_a_link_to_the_network_itself_is_the_users_own(tmp_path: Path) -> None:
    onnx.save(tiny(), tmp_path / "m.onnx")
    (tmp_path / "link.onnx").symlink_to(tmp_path / "m.onnx")
    assert onnxfile.read(tmp_path / "link.onnx") == tiny()


def test_every_way_to_store_values_is_counted(tmp_path: Path) -> None:
    """onnx's own makers: typed fields, raw bytes, and small types that share an int32."""
    for kind in (*range(1, 8), 9, 10, 11, 12, 13, 16, 21, 22):
        values = ["a", "b"] if kind == TensorProto.STRING else [1, 0]
        for raw in (False, True):
            if kind == TensorProto.STRING and raw:
                continue
            made = helper.make_tensor("w", kind, [2], values)
            if raw:
                made = numpy_helper.from_array(numpy_helper.to_array(made), "w")
            model = tiny()
            model.graph.initializer.append(made)
            assert wire.walk(model.SerializeToString()) > 0


def test_functions_that_stay_small_come_in(tmp_path: Path) -> None:
    assert len(onnxfile.read(saved(tmp_path, calls(3))).functions) == 3


# ---- folding constants


def test_folding_stops_before_memory_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five constants of 256 KiB are more than 1 MiB, though each alone is less."""
    monkeypatch.setattr("edgecnn.onnxfile.bounds.LIMIT", 1 << 20)
    nodes = [helper.make_node("ConstantOfShape", ["s"], [f"c{i}"], f"c{i}") for i in range(5)]
    nodes.append(helper.make_node("Sum", ["x", *(f"c{i}" for i in range(5))], ["y"]))
    fewer = [*nodes[1:4], helper.make_node("Sum", ["x", "c1", "c2", "c3"], ["y"])]
    assert prepare(graph_of(fewer, {"s": shape(1 << 16, 1)}, "y"))
    with pytest.raises(InputError, match=r"ConstantOfShape 'c4' would make a constant of 2\.62e"):
        prepare(graph_of(nodes, {"s": shape(1 << 16, 1)}, "y"))


def test_memory_is_that_of_the_shapes() -> None:
    """x (1, 1) → (1, 100) → (1, 100): two of 400 bytes live at once, and the weight's 400 more."""
    nodes = [helper.make_node("Add", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    found = memory(graph_of(nodes, {"w": np.zeros((1, 100), np.float32)}, "y"))
    assert (found.weights, found.peak, found.largest, found.unknown) == (400, 800, 400, ())
    assert found.total < LIMIT


def test_refusing_costs_no_memory(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for attack in ("huge external", "over 2 GiB", "constant bomb", "weights that lie", "functions without end"):
        folder = tmp_path / attack
        folder.mkdir()
        with pytest.raises(InputError):
            guard.read(ATTACKS[attack][0](folder))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB


# ---- whatever the bytes are


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_mutated_networks_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "m.onnx"
    content = bytearray(graph_of([helper.make_node("Relu", ["x"], ["y"])], {"w": shape(1, 2)}, "y").SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        assert onnxfile.read(path).graph.node
    except EdgecnnError as error:
        assert isinstance(error, InputError) and "\n" not in str(error)
