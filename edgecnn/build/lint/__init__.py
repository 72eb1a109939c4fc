"""The check before a build: what TensorRT refuses, and what it accepts silently and gets wrong.

TensorRT for RTX 1.7 parses an empty file as a network of no layers, reads a weight scale on another axis as if it were
on the first, and runs a convolution in float when its activation has a scale a channel; none of that raises an error
there. `finding.RULES` lists every rule; `fix` repairs what can be repaired.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from onnx import ModelProto

from edgecnn import onnxfile
from edgecnn.build.lint.dla import dla
from edgecnn.build.lint.finding import RULES, Finding
from edgecnn.build.lint.net import Net, is_int8
from edgecnn.build.lint.network import channels, operators, opsets, precision, shapes
from edgecnn.build.lint.pairs import kernels, pairs
from edgecnn.build.lint.placement import conv_output, mixed_range, pool_input, residual
from edgecnn.build.lint.target import ANY, PROFILES, Profile, find
from edgecnn.errors import BuildError

__all__ = [
    "ANY",
    "PROFILES",
    "RULES",
    "Finding",
    "Profile",
    "check",
    "check_model",
    "errors",
    "find",
    "meant",
    "require",
]

FAMILIES = (operators, opsets, precision, pairs, kernels, mixed_range, conv_output, residual, pool_input, channels, dla)


def check(path: Path, target: Profile = ANY, profiled: Collection[str] = ()) -> list[Finding]:
    """All findings in an ONNX file, errors first. Raises InputError for a file that is no sound network."""
    return check_model(onnxfile.read(path), target, profiled)


def check_model(model: ModelProto, target: Profile = ANY, profiled: Collection[str] = ()) -> list[Finding]:
    """The same for a network in memory; `profiled` names inputs that get an optimisation profile."""
    net = Net(model)
    found = list(shapes(net, target, frozenset(profiled)))
    for family in FAMILIES:
        found += family(net, target)
    return sorted(found, key=lambda finding: finding.severity != "error")


def errors(findings: Collection[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == "error"]


def require(path: Path, target: Profile = ANY, profiled: Collection[str] = ()) -> None:
    """Raises InputError as `check` does, and BuildError with the first error and how many more there are."""
    found = errors(check(path, target, profiled))
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise BuildError(f"{found[0]}{more}", do="Mend it with `edgecnn lint --fix`, or quantise with edgecnn")


def meant(model: ModelProto) -> tuple[str, ...]:
    """Conv and Gemm nodes whose data and weights both come out of a DequantizeLinear: they should run in INT8."""
    net = Net(model)
    return tuple(n.name for n in model.graph.node if n.op_type in ("Conv", "Gemm") and is_int8(net, n))
