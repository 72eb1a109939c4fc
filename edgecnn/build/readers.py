"""Layers of an engine, or of a network to be built, read from wherever they are written down.

- the log of a verbose, detailed build by TensorRT for RTX (undocumented; read from version 1.7.1.116);
- the JSON of TensorRT's engine inspector, 8.2 to 11 (developer guide, "Engine Inspector"; the layers' "Format/Datatype"
  of 8 and 10, and type and format as two fields, as 11 has them for an engine's inputs and outputs);
- an ONNX network: what it asks for.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgecnn.errors import InputError

if TYPE_CHECKING:
    from onnx import ModelProto

RTX = "1.7.1.116"  # the version whose log this was written against
KERNELS = ("correlation", "gemm", "convolution", "deconvolution", "cask", "matmul", "matrixmultiply", "fullyconnected")

_LINE = re.compile(
    r"^Name: (?P<name>\S+), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*)\], Constants: \[(?P<constants>.*)\], "
    r"Outputs: \[(?P<outputs>.*)\], TacticName: (?P<tactic>.*?), StreamId:.*?Metadata: ?(?P<metadata>.*)$"
)
_GENERATED = re.compile(r"(RounCast(?:Conc)?)?Corr")  # a convolution among what a generated kernel does, in its name
_TENSOR = re.compile(r"Dimensions: \[([^\]]*)\].*?Datatype: (\w+)")  # a variable dimension is no number
NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_PLUMBING = re.compile(r"(_Q|_DQ|_Cast|\.weight|\.bias)$|quantize", re.IGNORECASE)
_TYPES = (  # a word in the inspector's text → the one name that edgecnn has for the type
    (r"\bint8\b", "Int8"),
    (r"\b(fp16|half)\b", "Half"),
    (r"\b(fp32|float)\b", "Float"),
    (r"\b(bf16|bfloat16)\b", "BFloat16"),
    (r"\b(fp8)\b", "FP8"),
    (r"\bint32\b", "Int32"),
    (r"\bint64\b", "Int64"),
    (r"\bbool\b", "Bool"),
)


@dataclass(frozen=True)
class Layer:
    """One layer; a type is "" where nothing tells it."""

    name: str
    kind: str
    input: str
    output: str
    weight: str
    nodes: tuple[str, ...]  # ONNX nodes that went into it
    weights: int = 0  # how many numbers its constants hold
    reformat: bool = False  # it only moves data into another order or type
    inside: str = ""  # a kernel generated around a small convolution: what type that one multiplies in

    @property
    def kernel(self) -> bool:
        """Whether it is a convolution or a matrix product."""
        return any(word in self.kind.lower() for word in KERNELS)

    @property
    def computing(self) -> tuple[str, ...]:
        """Its ONNX nodes, without Q/DQ pairs, Casts, and the constants that TensorRT 8 names among them."""
        return tuple(name for name in self.nodes if not _PLUMBING.search(name))


def log(lines: Iterable[str]) -> tuple[Layer, ...]:
    """The lines of a build log that describe layers; empty where there are none."""
    found = []
    for line in lines:
        match = _LINE.match(line.strip())
        if match is None or not match["outputs"]:
            continue  # a wait or a signal between streams computes nothing
        tensors = {part: _TENSOR.findall(match[part]) for part in ("inputs", "outputs", "constants")}
        first = {part: rows[0][1] if rows else "" for part, rows in tensors.items()}
        generated = _GENERATED.search(match["name"]) if match["kind"] == "kgen" else None
        rounded = generated and generated[1] and any(kind == "Int8" for _, kind in tensors["constants"])
        found.append(
            Layer(
                match["name"],
                kind_of(match["kind"], match["name"]),
                first["inputs"],
                first["outputs"],
                first["constants"],
                tuple(NODE.findall(match["metadata"])),
                sum(math.prod(int(n) for n in dims.split(",") if n.isdigit()) for dims, _ in tensors["constants"]),
                moves(match["tactic"]),
                "" if generated is None else "Int8" if rounded else first["inputs"],
            )
        )
    return tuple(found)


def kind_of(kind: str, name: str) -> str:
    """A layer's kind in TensorRT for RTX; of fused ones only the name tells whether a convolution is inside."""
    return "fused correlation" if kind == "runtime_fusion" and "Corr" in name else kind


def moves(kernel: str) -> bool:
    """Whether a kernel of TensorRT for RTX, by its name, only moves data."""
    return kernel.startswith(("__myl_Move", "__myl_Tran", "__myl_Cast_"))


def inspector(text: str) -> tuple[Layer, ...]:
    """The engine inspector's JSON, for an engine or for one layer.

    Raises InputError where it is no such JSON, or names layers only: an engine built without detailed verbosity.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise InputError(f"this is no JSON ({error})", wanted="what TensorRT's engine inspector wrote") from error
    rows = data.get("Layers") if isinstance(data, Mapping) else data
    if not isinstance(rows, list) or not rows:
        raise InputError("this JSON holds no list 'Layers'", wanted="what TensorRT's engine inspector wrote")
    if not all(isinstance(row, Mapping) for row in rows):
        raise InputError(
            "the inspector names layers and says nothing about them",
            wanted="an engine built with detailed profiling verbosity",
            do="Build it again: edgecnn build, or trtexec --profilingVerbosity=detailed",
        )
    return tuple(_inspected(row) for row in rows)


def _inspected(row: Mapping[str, Any]) -> Layer:
    name, kind = str(row.get("Name", "")), str(row.get("LayerType", ""))
    inside = str(row.get("ParameterType", "")) or kind  # CaskConvolution, or Convolution within CaskGemmConvolution
    weights = row.get("Weights")
    weights = weights if isinstance(weights, Mapping) else {}
    count = weights.get("Count")
    nodes = NODE.findall(str(row.get("Metadata", ""))) or re.split(r" \+ ", name)
    return Layer(
        name,
        kind if any(word in kind.lower() for word in KERNELS) else inside,
        _first(row.get("Inputs")),
        _first(row.get("Outputs")),
        _type(str(weights.get("Type", ""))),
        tuple(dict.fromkeys(nodes)),
        count if isinstance(count, int) else 0,
        "reformat" in f"{kind} {inside}".lower() or name.startswith("Reformatting"),
    )


def _first(tensors: Any) -> str:
    """The type of the first tensor of a list."""
    for tensor in tensors if isinstance(tensors, list) else []:
        words = (str(tensor.get(key, "")) for key in ("Format/Datatype", "DataType", "Datatype", "Format"))
        return _type(" ".join(words)) if isinstance(tensor, Mapping) else ""
    return ""


def _type(text: str) -> str:
    return next((name for pattern, name in _TYPES if re.search(pattern, text, re.IGNORECASE)), "")


def network(model: ModelProto) -> tuple[Layer, ...]:
    """What an ONNX network asks for: a layer a node, pairs left out; INT8 is what comes out of a pair.

    An Add of which only one input is quantised has the input "Float+Int8". FP16 is told of kernels, by their weights.
    """
    from onnx import TensorProto

    pairs = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    asked = {n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    source = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type in ("DequantizeLinear", "QuantizeLinear")}
    halves = {t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT16}
    sizes = {t.name: math.prod(t.dims) for t in model.graph.initializer if t.data_type != TensorProto.INT64}
    found = []
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Constant"):
            continue
        kernel = node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")
        typed = "Half" if kernel and node.input[1] in halves else "Float"
        kinds = ["Int8" if name in pairs else typed for name in node.input if name not in sizes]
        data = kinds[:1] if kernel or len(set(kinds)) == 1 else kinds
        root = node.input[1] if kernel else ""
        while root in source:
            root = source[root]
        found.append(
            Layer(
                node.name or node.output[0],
                "convolution" if node.op_type in ("Conv", "ConvTranspose") else "gemm" if kernel else node.op_type,
                "+".join(data),
                "Int8" if node.output[0] in asked else typed,
                "" if not kernel else "Int8" if node.input[1] in pairs else typed,
                (node.name or node.output[0],),
                sizes.get(root, 0),
            )
        )
    return tuple(found)
