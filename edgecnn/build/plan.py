"""Layers of an engine file of TensorRT for RTX, read from the program that lies in it as text.

Such a file begins with `vtrt`; its version stands at byte 24. The program names every tensor with type and dimensions,
and every kernel with its inputs, outputs and ONNX nodes. None of that is documented: it was read from files of version
1.7.1.116, where it gives the very list of the build log (tests/test_plan.py). Other versions are not tried, nor files
of more than one program.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgecnn.build.readers import NODE, RTX, Layer, kind_of, moves
from edgecnn.errors import InputError

MAGIC, VERSION_AT = b"vtrt", 24
START, MAIN, END = b"header {\n  version = 5\n", b"\nmain {\n", b"\n}"

KINDS = {"function": "kgen", "corrltn": "correlation", "fully_connected": "gemm"}  # as the build log calls them
TYPES = {"float": "Float", "half": "Half", "int8": "Int8", "bf16": "BFloat16", "int32": "Int32", "int64": "Int64"}
INSTEAD = "the build log (model.<target>.log beside it) or the engine inspector's JSON"

_PROGRAM = re.compile(rb"\{ForeignNode\[[^\]]*\]\}")
_ITEM = re.compile(r"^  (\w+)=\{ (.*)\}$")
_NAMES = r"=\{ ?((?:\"[^\"]*\" ?)*)\}"
_INPUTS, _OUTPUTS = re.compile(rf" input(?:_args)?{_NAMES}"), re.compile(rf" output(?:_args)?{_NAMES}")
_QUOTED = re.compile(r'"([^"]*)"')
_TENSOR = re.compile(r' dims=\{([^}]*)\} .*?name="([^"]*)" .* type=(\w+) ')
_NAME = re.compile(r'^name=(?:"([^"]*)"|(\S+))')


@dataclass(frozen=True)
class _Tensor:
    kind: str
    count: int
    constant: bool


def plan(data: bytes, name: str = "this file") -> tuple[Layer, ...]:
    """The kernels of an engine, in the order of the build log. Raises InputError for any other file."""
    version = ".".join(map(str, data[VERSION_AT : VERSION_AT + 4]))
    if not data.startswith(MAGIC) or version != RTX:
        what = f"by TensorRT for RTX {version}" if data.startswith(MAGIC) else "but not one of TensorRT for RTX"
        raise InputError(f"{name} is an engine {what}, which nothing but its own GPU reads", wanted=INSTEAD)
    start = data.find(START)
    main = data.find(MAIN, max(0, start))
    end = data.find(END, max(0, main))
    if min(start, main, end) < 0 or len(set(_PROGRAM.findall(data, 0, start))) != 1:
        raise InputError(f"{name} holds no program that can be read", wanted=INSTEAD)
    tensors: dict[str, _Tensor] = {}
    found = []
    number = 0
    for line in data[start:end].decode("utf-8", "replace").splitlines():
        item = _ITEM.match(line)
        if item is None:
            continue
        kind, text = item.groups()
        if kind in ("tensor", "sub_tensor"):
            if tensor := _TENSOR.search(f" {text} "):
                dims, key, typed = tensor.groups()
                count = math.prod(int(n) for n in dims.split() if n.isdigit())
                tensors[key] = _Tensor(TYPES.get(typed, typed), count, " const_payload_size=" in text)
        elif (named := _NAME.match(text)) is not None:
            if outputs := _OUTPUTS.search(f" {text}"):
                found.append(_layer(kind, f"{named[1] or named[2]}_myl0_{number}", f" {text}", outputs[1], tensors))
            number += 1  # a wait or a signal between streams counts, and computes nothing
    return tuple(found)


def _layer(kind: str, name: str, text: str, outputs: str, tensors: Mapping[str, _Tensor]) -> Layer:
    inputs = _INPUTS.search(text)
    read = [tensors[key] for key in _QUOTED.findall(inputs[1] if inputs else "") if key in tensors]
    written = [tensors[key] for key in _QUOTED.findall(outputs) if key in tensors]
    constants = [t for t in read if t.constant]
    return Layer(
        name,
        kind_of(KINDS.get(kind, kind), name),
        next((t.kind for t in read if not t.constant), ""),
        next((t.kind for t in written), ""),
        next((t.kind for t in constants), ""),
        tuple(NODE.findall(text)),
        sum(t.count for t in constants),
        moves(name),
    )
