"""`read`: an ONNX file, or one line that says why it is refused (InputError, exit code 3)."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import GraphProto, ModelProto

from edgecnn.errors import InputError
from edgecnn.onnxfile.bounds import LIMIT, memory
from edgecnn.onnxfile.external import graphs, take_in
from edgecnn.onnxfile.wire import Malformed, walk

PROTOBUF = (1 << 31) - 1  # bytes: no protobuf message may be larger, so no network with its weights inside
NODES = 100_000  # of a network with its functions written out


def read(path: Path) -> ModelProto:
    """A checked network, its external weights inside. It may be far from anything that TensorRT takes.

    Raises InputError: the file is missing, empty, truncated, text, larger than 2 GiB or no ONNX; a tensor claims more
    than it holds; external data leaves the folder, is a link, or is too short; messages are nested too deep; the graph
    has a cycle or no nodes; weights and activations together exceed 4 GiB (`bounds.LIMIT`).

    Costs twice the file's size in memory, the bytes and the parsed message, and as much again while onnx checks it.
    """
    try:
        data = _bytes(path)
        claimed = walk(data)
        model = ModelProto()
        model.ParseFromString(data)
        take_in(model, path.resolve().parent, PROTOBUF - claimed)
        _graphs(model)
        onnx.checker.check_model(model)
        _fits(model)
    except Malformed as error:
        raise _refused(path, str(error)) from error
    except (DecodeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise _refused(path, " ".join(str(error).split())[:200] or type(error).__name__) from error
    return model


def _refused(path: Path, why: str) -> InputError:
    return InputError(f"{path} is no sound ONNX network ({why})", do="Export or copy it again")


def _bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise InputError(f"no network at {path}", wanted="an ONNX file")
        size = path.stat().st_size
        if size == 0:
            raise Malformed("the file is empty")
        if size > PROTOBUF:
            raise Malformed(f"{size} bytes, protobuf ends at 2 GiB; wanted large weights as external data")
        with path.open("rb") as file:
            return file.read(PROTOBUF)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})", wanted="an ONNX file") from error


def _graphs(model: ModelProto) -> None:
    """Nodes, and the order that they need. Raises Malformed."""
    if not model.graph.node:
        raise Malformed("it holds no layers: the graph has no nodes")
    _expansion(model)
    for graph in graphs(model):
        _acyclic(graph)


def _fits(model: ModelProto) -> None:
    """The size of weights and activations. Raises Malformed."""
    need = memory(model)
    if max(need.total, need.largest) > LIMIT:
        raise Malformed(
            f"'{need.where}' alone takes {need.largest / 2**30:.3g} GiB, the network {need.total / 2**30:.3g} GiB by "
            f"its shapes; wanted at most {LIMIT >> 30} GiB"
        )


def _expansion(model: ModelProto) -> None:
    """Functions that call functions, written out, must stay a network."""
    bodies = {(f.domain, f.name): f for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(key: tuple[str, str], open_: tuple[tuple[str, str], ...]) -> int:
        if key in open_:
            raise Malformed(f"function '{key[1]}' calls itself")
        if len(open_) > 32:
            raise Malformed("its functions call one another more than 32 deep")
        if key not in sizes:
            calls = [(n.domain, n.op_type) for n in bodies[key].node]
            sizes[key] = sum(size(c, (*open_, key)) if c in bodies else 1 for c in calls)
        return sizes[key]

    total = 0
    for graph in graphs(model):
        total += sum(size(k, ()) if (k := (n.domain, n.op_type)) in bodies else 1 for n in graph.node)
    if total > NODES:
        raise Malformed(f"{total} nodes; wanted at most {NODES}")


def _acyclic(graph: GraphProto) -> None:
    """Kahn's algorithm: a node is done when every tensor of the graph's own that it reads is made."""
    maker = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    waits = [len({maker[name] for name in node.input if name in maker}) for node in graph.node]
    readers: dict[int, set[int]] = {}
    for i, node in enumerate(graph.node):
        for name in node.input:
            if name in maker:
                readers.setdefault(maker[name], set()).add(i)
    ready, done = deque(i for i, n in enumerate(waits) if n == 0), 0
    while ready:
        done += 1
        for i in readers.get(ready.popleft(), ()):
            waits[i] -= 1
            if waits[i] == 0:
                ready.append(i)
    if done < len(graph.node):
        stuck = next(node for node, n in zip(graph.node, waits, strict=True) if n)
        raise Malformed(f"the graph has a cycle through {stuck.op_type} '{stuck.name or stuck.output[0]}'")
