"""Evidence of what ran in INT8, read from the layer list that a verbose, detailed build prints.

The format is not documented: it was read from TensorRT for RTX 1.7.1.116. Where nothing can be read, the answer is "no
evidence", never success.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

READ_FROM = "1.7.1.116"  # the version whose log this was written against
COMPUTE = ("correlation", "gemm", "convolution", "cask", "matmul")

_LINE = re.compile(
    r"^Name: (?P<name>\S+), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*)\], Constants: \[(?P<constants>.*)\], "
    r"Outputs: \[(?P<outputs>.*)\], TacticName: .*?Metadata: ?(?P<metadata>.*)$"
)
_TYPE = re.compile(r"Datatype: (\w+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


@dataclass(frozen=True)
class Layer:
    """One line of the list; a type is "" where the line has none."""

    name: str
    kind: str
    input: str
    output: str
    constant: str
    nodes: tuple[str, ...]  # ONNX nodes that went into it


@dataclass(frozen=True)
class XRay:
    """What became of the kernels that the ONNX file marks for INT8."""

    meant: int
    int8: int | None  # None: no evidence
    floats: tuple[str, ...]  # kernels that were meant to be INT8 and are seen in float
    unseen: tuple[str, ...]  # kernels that no line names
    layers: tuple[Layer, ...]

    def __str__(self) -> str:
        if self.int8 is None:
            return f"no evidence: the build log names none of the {self.meant} kernels meant for INT8"
        missing = f", in float: {', '.join(self.floats[:3])}" if self.floats else ""
        missing += f", not named in the log: {', '.join(self.unseen[:3])}" if self.unseen else ""
        return f"{self.int8} of {self.meant} kernels are INT8{missing}"

    def table(self) -> str:
        """Layer, kind, and data types, one line a kernel."""
        rows = [("layer", "kind", "in", "out", "const")]
        rows += [(x.name, x.kind, x.input, x.output, x.constant) for x in self.layers if x.kind in COMPUTE]
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def layers(log: Iterable[str]) -> tuple[Layer, ...]:
    """The lines of a build log that describe layers."""
    found = []
    for line in log:
        match = _LINE.match(line.strip())
        if match is None or not match["outputs"]:
            continue  # a wait or a signal between streams computes nothing
        first = [(_TYPE.findall(match[part]) or [""])[0] for part in ("inputs", "outputs", "constants")]
        nodes = tuple(_NODE.findall(match["metadata"]))
        found.append(Layer(match["name"], match["kind"], first[0], first[1], first[2], nodes))
    return tuple(found)


def xray(log: Iterable[str], meant: Sequence[str]) -> XRay:
    """Hold the layers of a build log against the kernels that should be INT8."""
    seen = layers(log)
    state: dict[str, bool] = {}
    for layer in seen:
        if layer.kind in COMPUTE:
            for node in set(layer.nodes).intersection(meant):
                state[node] = state.get(node, False) or layer.input == "Int8"
    if not state and meant:
        return XRay(len(meant), None, (), tuple(meant), seen)
    return XRay(
        meant=len(meant),
        int8=sum(state.values()),
        floats=tuple(name for name in meant if state.get(name) is False),
        unseen=tuple(name for name in meant if name not in state),
        layers=seen,
    )
