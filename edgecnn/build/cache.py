"""The other dialect of the same scales: the calibration cache of TensorRT 8 to 10, for networks without Q/DQ pairs.

    TRT-8502-EntropyCalibration2
    x: 3c010204

A line a tensor: its name in the ONNX file, and scale = amax / 127 as the big-endian bytes of a float32 in hexadecimal,
without leading zeros. It is the very number that stands in the pair as y_scale, so the way there and back is bit-exact.
A cache says nothing about layers: those that stay in float are listed beside it, in the words of trtexec's
`--layerPrecisions`. TensorRT 11 has neither.

The number in the first line is major * 1000 + minor * 100 + patch for TensorRT 8 (8502 is 8.5.2). That it is major *
10000 + minor * 100 + patch for TensorRT 10 was not verified on a machine that has one; TensorRT refuses a cache of
another version in words that quote the number it wants, and `--trt` takes that number too.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from edgecnn import onnxfile
from edgecnn.build.lint import meant
from edgecnn.bundle import atomic, network_at
from edgecnn.errors import InputError, ModelError

KERNELS = ("Conv", "Gemm")
ABSORBED = ("Relu", "Clip")  # fused into the convolution before them: one scale serves both outputs
INTEGERS = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32)
_HEADER = re.compile(r"^TRT-(\d+)-(\w+)$")
_LINE = re.compile(r"^(?P<name>.*\S)\s*: (?P<hex>[0-9a-fA-F]{1,8})$")
_PRECISION = re.compile(r"^(?P<layer>.+):fp32$")


@dataclass(frozen=True)
class Calibration:
    """Scales of activations, and the layers that shall stay in float."""

    scales: Mapping[str, np.float32] = field(default_factory=dict)  # tensor → amax / 127
    floats: tuple[str, ...] = ()  # Conv and Gemm nodes


def number(version: str) -> int:
    """'8.5.2' → 8502, '10.3.0' → 100300; a number that is given as such is taken. Raises InputError for TensorRT 11."""
    if version.isdecimal():
        return int(version)
    parts = version.split(".")
    if len(parts) < 2 or not all(part.isdecimal() for part in parts):
        raise InputError(f"'{version}' is no version of TensorRT", wanted="one such as 8.5.2 or 10.3.0")
    major, minor, patch = (int(part) for part in [*parts, "0"][:3])
    if not 8 <= major <= 10:
        raise InputError(
            f"TensorRT {version} reads no calibration cache",
            wanted="8, 9 or 10",
            do="Give it the network with Q/DQ pairs: model.int8.onnx",
        )
    return major * (1000 if major < 10 else 10000) + minor * 100 + patch


def write(calibration: Calibration, version: str) -> str:
    """The text of a cache. Raises InputError for a version without one, ModelError for a name that it can't hold."""
    lines = [f"TRT-{number(version)}-EntropyCalibration2"]
    for name, scale in calibration.scales.items():
        if not name or name != name.strip() or "\n" in name or "\r" in name:
            raise ModelError(f"tensor {name!r} can't stand in a calibration cache", wanted="a name of one line")
        lines.append(f"{name}: {struct.pack('>f', scale).hex()}")
    return "\n".join([*lines, ""])


def read(text: str) -> Calibration:
    """The scales of a cache, whatever calibrator or version wrote it. Raises InputError where it is none."""
    first, *lines = text.replace("\r\n", "\n").split("\n")
    if not _HEADER.match(first):
        raise InputError(
            f"this is no calibration cache: it begins with {first[:40]!r}", wanted="TRT-<version>-EntropyCalibration2"
        )
    scales: dict[str, np.float32] = {}
    for row, line in enumerate(lines, 2):
        if not line.strip():
            continue
        match = _LINE.match(line)
        if match is None:
            raise InputError(
                f"line {row} of the calibration cache is {line[:60]!r}", wanted="tensor: hexadecimal scale"
            )
        scale = np.frombuffer(bytes.fromhex(match["hex"].zfill(8)), ">f4")[0].astype(np.float32)
        if not (np.isfinite(scale) and scale > 0):
            raise InputError(f"line {row}: the scale of {match['name']} is {scale}", wanted="a positive number")
        if scales.setdefault(match["name"], scale) != scale:
            raise InputError(f"line {row}: {match['name']} has two scales", wanted="one")
    if not scales:
        raise InputError("the calibration cache names no tensor", wanted="a line a tensor")
    return Calibration(scales)


def write_precisions(floats: Iterable[str]) -> str:
    """For trtexec's --layerPrecisions. Raises ModelError for a name that would end there."""
    names = list(floats)
    if bad := [name for name in names if "," in name or ":" in name or "\n" in name]:
        raise ModelError(f"layer {bad[0]!r} can't stand in --layerPrecisions", wanted="a name without comma and colon")
    return ",".join(f"{name}:fp32" for name in names)


def read_precisions(text: str) -> tuple[str, ...]:
    """Layers kept in float. Raises InputError for anything but `layer:fp32,...`."""
    parts = [part for part in text.strip().split(",") if part]
    found = [_PRECISION.match(part) for part in parts]
    if None in found:
        raise InputError(f"{parts[found.index(None)]!r} is no layer kept in float", wanted="layer:fp32,layer:fp32,...")
    return tuple(match["layer"] for match in found if match)


def calibration(model: ModelProto) -> Calibration:
    """What the pairs of a network in TensorRT's form say: scales in the graph's order, and kernels without pairs.

    TensorRT 8 looks for a scale on both sides of an INT8 layer, fused or not, so the output of a kernel before a
    ReLU or Clip has the scale of what comes after it. Raises ModelError for a network without pairs, for a scale a
    channel, and for two pairs that disagree about a tensor.
    """
    constants = {t.name: t for t in model.graph.initializer}
    producer = {name: node for node in model.graph.node for name in node.output}
    scales: dict[str, np.float32] = {}
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] in constants:
            continue
        tensor = node.input[0]
        scale = _scale(node, constants)
        if scales.setdefault(tensor, scale) != scale:
            raise ModelError(f"tensor {tensor} has two scales", wanted="one")
        maker = producer.get(tensor)
        if maker is not None and maker.op_type in ABSORBED:
            scales.setdefault(maker.input[0], scale)
    if not scales:
        raise ModelError("the network holds no Q/DQ pairs", wanted="a quantised one", do="Run: edgecnn quantize RECIPE")
    int8 = set(meant(model))
    return Calibration(scales, tuple(n.name for n in model.graph.node if n.op_type in KERNELS and n.name not in int8))


def _scale(node: NodeProto, constants: Mapping[str, TensorProto]) -> np.float32:
    tensor = constants.get(node.input[1])
    value = np.empty(0, np.float32) if tensor is None else numpy_helper.to_array(tensor)
    if value.size != 1:
        raise ModelError(
            f"{node.name or node.output[0]} has {value.size} scales for an activation", wanted="one, a constant"
        )
    return np.float32(value.ravel()[0])


def strip(model: ModelProto) -> ModelProto:
    """A copy without pairs, the same tensors and layers by name: what a calibration cache belongs to, and what a GPU
    without INT8 can run. Raises ModelError where weights are stored as integers."""
    plain = onnxfile.without_pairs(model)
    integers = {t.name for t in plain.graph.initializer if t.data_type in INTEGERS}
    layers = [node for node in model.graph.node if node.op_type not in onnxfile.PAIR]
    for was, node in zip(layers, plain.graph.node, strict=True):
        if any(name in integers and name != old for old, name in zip(was.input, node.input, strict=True)):
            raise ModelError(
                f"{node.name}: its weights are stored as integers", wanted="TensorRT's form, model.int8.onnx"
            )
    paired = {name for node in model.graph.node if node.op_type in onnxfile.PAIR for name in node.output}
    if lost := [output.name for output in model.graph.output if output.name in paired]:
        raise ModelError(f"the output {lost[0]} comes out of a Q/DQ pair", wanted="outputs that a layer computes")
    return plain


def load(path: Path) -> Calibration:
    """A cache, with the list of layers in `<cache without suffix>.precisions` where that lies beside it."""
    beside = path.with_suffix(".precisions")
    try:
        scales = read(path.read_text("utf-8")).scales
        floats = read_precisions(beside.read_text("utf-8")) if beside.is_file() else ()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not readable ({error})", wanted="a calibration cache") from error
    return Calibration(scales, floats)


def export(source: Path, out: Path, version: str) -> list[Path]:
    """Write the cache of a bundle or a Q/DQ network, and beside it what it belongs to: the network without pairs
    (.onnx) and, where layers stay in float, their list (.precisions). Returns the files.

    Raises InputError, BundleError or ModelError before anything is written.
    """
    path = network_at(source, "int8")
    model = onnxfile.read(path)
    found = calibration(model)
    texts = {out: write(found, version).encode(), out.with_suffix(".onnx"): strip(model).SerializeToString()}
    if found.floats:
        texts[out.with_suffix(".precisions")] = write_precisions(found.floats).encode()
    if len({*texts, path}) < len(texts) + 1 or out.suffix in (".onnx", ".precisions"):
        raise InputError(f"--out {out} would overwrite {path} or itself", wanted="a name such as calib.cache")
    for name, content in texts.items():
        with atomic(name) as temporary:
            temporary.write_bytes(content)
    if not found.floats:  # a list that an earlier run left there would be read with this cache
        out.with_suffix(".precisions").unlink(missing_ok=True)
    return list(texts)
