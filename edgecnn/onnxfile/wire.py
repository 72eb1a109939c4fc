"""A walk over the bytes of an ONNX file that allocates nothing: lengths, nesting, and what tensors claim to hold.

Protobuf's wire format (protobuf.dev/programming-guides/encoding) is a row of fields, each a varint tag (number * 8 +
wire type) and a value. A length that lies, a group, or a message too deep is found here, before a parser believes it.
Field numbers are those of onnx.proto3 (github.com/onnx/onnx).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

DEPTH = 32  # messages inside one another; protobuf's own limit is 100, a network of edgecnn needs 5
FIELDS = 4_000_000  # of a whole file; ResNet-101 has about 10 000

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# message -> field number -> the message that lies there
CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute", 12: "value"},
    "graph": {1: "node", 5: "tensor", 11: "value", 12: "value", 13: "value", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        14: "type",
        15: "type",
        22: "sparse",
        23: "sparse",
    },
    "value": {2: "type"},
    "type": {4: "holder", 5: "holder", 9: "holder"},  # sequence, map, optional
    "holder": {1: "type", 2: "type"},
    "tensor": {},
}
ONCE = {("model", 7), ("attribute", 5), ("attribute", 6)}  # protobuf would merge a second one into the first

# TensorProto.DataType -> bits an element; a string's length is its own
BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16}
BITS |= {17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2}
STRING, DIMS, KIND, NAME, RAW, EXTERNAL = 8, 1, 2, 8, 9, 13
TYPED = {4: 4, 5: 1, 6: 1, 7: 1, 10: 8, 11: 1}  # field of a tensor's values -> least bytes an element of it takes


class Malformed(Exception):
    """The bytes are no ONNX file, or one made to hurt; the text says why."""


@dataclass
class Tensor:
    """What one TensorProto says of itself."""

    name: str = ""
    kind: int = 0
    dims: list[int] = field(default_factory=list)
    raw: int | None = None  # bytes of raw_data
    values: int = 0  # at most so many elements lie in the typed fields
    external: bool = False

    @property
    def bytes(self) -> int:
        """The size that its type and dimensions claim."""
        return -(-math.prod(self.dims) * BITS.get(self.kind, 8) // 8)


def walk(data: bytes) -> int:
    """The bytes that all tensors inside the file claim together. Raises Malformed."""
    walker = _Walker(data)
    walker.message("model", 0, len(data), 0)
    if not walker.has_graph:
        raise Malformed("it holds no graph")
    return walker.claimed


class _Walker:
    def __init__(self, data: bytes) -> None:
        self.data, self.fields, self.claimed, self.has_graph = data, 0, 0, False

    def message(self, kind: str, start: int, end: int, depth: int) -> None:
        if depth > DEPTH:
            raise Malformed(f"its messages are nested more than {DEPTH} deep")
        children, seen = CHILDREN[kind], set()
        tensor = Tensor()
        for number, wire, value, stop in self.split(start, end):
            if (kind, number) in ONCE:
                if number in seen:
                    raise Malformed(f"field {number} of its {kind} comes twice")
                seen.add(number)
            if (child := children.get(number)) is not None and wire == BYTES:
                self.has_graph |= child == "graph"
                if child == "sparse":
                    raise Malformed("it holds a sparse tensor; wanted dense ones")
                self.message(child, value, stop, depth + 1)
            elif kind == "tensor":
                self.tensor(tensor, number, wire, value, stop)
        if kind == "tensor":
            self.judge(tensor)

    def split(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """(field number, wire type, value or start, end of the value) of each field of a message."""
        at = start
        while at < end:
            self.fields += 1
            if self.fields > FIELDS:
                raise Malformed(f"it has more than {FIELDS} fields")
            tag, at = self.varint(at, end)
            number, wire = tag >> 3, tag & 7
            value = at
            if wire == VARINT:
                value, at = self.varint(at, end)
            elif wire == FIXED64:
                at += 8
            elif wire == FIXED32:
                at += 4
            elif wire == BYTES:
                length, value = self.varint(at, end)
                at = value + length
            else:
                raise Malformed(f"wire type {wire} at byte {at}: these bytes are no ONNX")
            if number == 0 or at > end:
                raise Malformed(f"the field at byte {value} ends behind its message: truncated, or no ONNX")
            yield number, wire, value, at

    def varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                raise Malformed(f"it ends at byte {at} in the middle of a number: truncated, or no ONNX")
            byte = self.data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, at
        raise Malformed(f"the number at byte {at} has more than ten bytes: these bytes are no ONNX")

    def tensor(self, tensor: Tensor, number: int, wire: int, value: int, stop: int) -> None:
        """One field of a TensorProto."""
        if number == DIMS and wire == BYTES:
            while value < stop:
                dim, value = self.varint(value, stop)
                tensor.dims.append(dim)
        elif number == DIMS and wire == VARINT:
            tensor.dims.append(value)
        elif number == KIND and wire == VARINT:
            tensor.kind = value
        elif number == NAME and wire == BYTES:
            tensor.name = self.data[value : min(stop, value + 80)].decode("utf-8", "replace")
        elif number == RAW and wire == BYTES:
            tensor.raw = stop - value
        elif number == EXTERNAL:
            tensor.external = True
        elif number in TYPED:
            tensor.values += (stop - value) // TYPED[number] if wire == BYTES else 1
        if len(tensor.dims) > 64:
            raise Malformed(f"tensor '{tensor.name}' has more than 64 dimensions")

    def judge(self, tensor: Tensor) -> None:
        """Hold the claim of a tensor against the bytes that are there."""
        shape = "×".join(map(str, tensor.dims)) or "scalar"
        if any(dim >= 1 << 63 for dim in tensor.dims):
            raise Malformed(f"tensor '{tensor.name}' has a negative dimension")
        elements = math.prod(tensor.dims)
        if tensor.external or tensor.kind == STRING:
            return  # an external file is held against the claim when it is opened
        if tensor.kind not in BITS:
            raise Malformed(f"tensor '{tensor.name}' has no known data type ({tensor.kind})")
        held, wanted = (tensor.values, elements) if tensor.raw is None else (tensor.raw, tensor.bytes)
        packed = tensor.raw is None and BITS[tensor.kind] < 8  # several small numbers share an int32
        if (held * 8 // BITS[tensor.kind] if packed else held) < wanted:
            unit = "values" if tensor.raw is None else "bytes"
            raise Malformed(f"tensor '{tensor.name}' claims {wanted} {unit} ({shape}) and holds {held}")
        self.claimed += tensor.bytes
