"""Weights that lie beside an ONNX file: opened by hand, once, and only inside the file's own folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from edgecnn.onnxfile.wire import BITS, Malformed, Tensor


def graphs(model: ModelProto) -> Iterator[GraphProto]:
    """The main graph and every graph inside a node, a function's nodes included."""
    inner = [_inside(node) for function in model.functions for node in function.node]
    stack = [model.graph, *(graph for some in inner for graph in some)]
    while stack:
        graph = stack.pop()
        yield graph
        for node in graph.node:
            stack.extend(_inside(node))


def _inside(node: NodeProto) -> list[GraphProto]:
    return [g for a in node.attribute for g in ([a.g] if a.HasField("g") else []) + list(a.graphs)]


def tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Initialisers and tensors in attributes."""
    nodes = [node for function in model.functions for node in function.node]
    for graph in graphs(model):
        yield from graph.initializer
        nodes.extend(graph.node)
    for node in nodes:
        for a in node.attribute:
            if a.HasField("t"):
                yield a.t
            yield from a.tensors


def take_in(model: ModelProto, folder: Path, room: int) -> None:
    """Put the bytes of external files into their tensors. Raises Malformed; `room` bounds the sum in bytes."""
    for tensor in tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            if tensor.external_data:
                raise Malformed(f"tensor '{tensor.name}' names an external file and says that it lies inside")
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        claim = Tensor(tensor.name, tensor.data_type, list(tensor.dims)).bytes
        room -= claim
        if tensor.data_type not in BITS:
            raise Malformed(f"tensor '{tensor.name}' has no known data type ({tensor.data_type})")
        if room < 0:
            raise Malformed(
                f"tensor '{tensor.name}' claims {claim} bytes of an external file: more than fits the bound"
            )
        location = entries.get("location", "")
        offset, length = _number(entries, "offset", 0), _number(entries, "length", claim)
        if length != claim:
            raise Malformed(f"tensor '{tensor.name}' claims {claim} bytes and names {length} of '{location}'")
        tensor.raw_data = _slice(folder, location, offset, claim, tensor.name)
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def _number(entries: dict[str, str], key: str, default: int) -> int:
    text = entries.get(key, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Malformed(f"the {key} '{text[:40]}' of an external file is no number")
    return int(text)


def _slice(folder: Path, location: str, offset: int, length: int, name: str) -> bytes:
    """Bytes of a plain file in `folder`; each step of the way there is opened without following links."""
    parts = PurePosixPath(location).parts
    if not parts or ".." in parts or PurePosixPath(location).is_absolute() or PureWindowsPath(location).drive:
        raise Malformed(f"tensor '{name}' lies in '{location}', outside of the network's folder")
    if "\\" in location or "\0" in location:
        raise Malformed(f"tensor '{name}' lies in '{location!r}': a strange name")
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | (0 if last else os.O_DIRECTORY)
            step = os.open(part, flags, dir_fd=handle)
            os.close(handle)
            handle = step
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise Malformed(f"tensor '{name}' lies in '{location}', which is no plain file")
        if found.st_nlink > 1:
            raise Malformed(f"tensor '{name}' lies in '{location}', which has a second name elsewhere (a hard link)")
        if offset + length > found.st_size:
            raise Malformed(
                f"tensor '{name}' claims bytes {offset} to {offset + length} of '{location}', which has {found.st_size}"
            )
        with os.fdopen(os.dup(handle), "rb") as file:
            file.seek(offset)
            return file.read(length)
    except OSError as error:
        raise Malformed(f"tensor '{name}' lies in '{location}': {error.strerror} (links are not followed)") from error
    finally:
        os.close(handle)
