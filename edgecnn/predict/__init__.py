"""Predict: what a network would take on a board that is not at hand. Predicted, never measured.

A layer-wise roofline (`roofline.py`) over the kernels that TensorRT would make (`kernels.py`). `fitted.json` holds its
constants and its error against published latencies, as `benchmarks/predict_table.py --fit` wrote them.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgecnn.build.targets import TARGETS, Target, lookup
from edgecnn.bundle import network_at
from edgecnn.errors import BuildError
from edgecnn.recipe import BuildSection

if TYPE_CHECKING:
    from edgecnn.predict.kernels import Plan, Precision
    from edgecnn.predict.roofline import Constants

FITTED = Path(__file__).with_name("fitted.json")
WORKSPACE_MIB = BuildSection().workspace_mib

Verdict = Literal["yes", "perhaps", "no"]
Bound = Literal["arithmetic", "memory", "launch"]


@dataclass(frozen=True)
class Timed:
    """One kernel."""

    name: str
    op: str
    precision: str
    us: float  # with its launch
    bound: Bound  # what the most of its time goes to


@dataclass(frozen=True)
class Prediction:
    """One network on one board."""

    target: str
    precision: str  # as asked for; "file": as Q/DQ pairs and tensor types say
    graph_ms: float  # a call whose kernels are replayed as a CUDA graph
    python_ms: float  # a call from Python that launches kernel by kernel and waits
    kernels: tuple[Timed, ...]  # in the order of the graph
    macs: int
    weight_mib: float
    activation_mib: float  # the largest sum of tensors alive at once
    workspace_mib: int  # what the builder may take besides
    fitted: bool  # whether latencies of this GPU generation were among those fitted on

    @property
    def memory_mib(self) -> float:
        """At most, without CUDA's own context and TensorRT's libraries."""
        return self.weight_mib + self.activation_mib + self.workspace_mib

    def holds(self, fps: float) -> Verdict:
        """`yes`: even if it is as wrong as it was at worst on an unseen board; `no`: not even then, in our favour.

        A generation of which no latency was fitted on gets no `yes`.
        """
        worst = error()["worst"]
        if self.fitted and 1e3 / fps >= self.python_ms * worst:
            return "yes"
        return "no" if 1e3 / fps < self.graph_ms / worst else "perhaps"


def plan_of(path: Path, precision: Precision | None = None) -> Plan:
    """Kernels of an ONNX file, or of a bundle: of its network typed in FP16 where one was built and no precision is
    asked for, else of the INT8 one, or of the FP32 one where that is asked for or all there is.

    Raises BundleError, InputError, ModelError.
    """
    from edgecnn.predict.kernels import plan
    from edgecnn.quantize.graph import load

    first = {None: ("half", "int8"), "int8": ("int8",)}.get(precision, ())
    return plan(load(network_at(path, *first, "fp32")), precision)


def predict(plan: Plan, name: str, precision: Precision | None = None) -> Prediction:
    """Latency and memory on target `name`. `precision` is the one that the plan was made with.

    Raises BuildError for an unknown target, one whose rates no source tells, and INT8 where the board has none.
    """
    from edgecnn.predict.roofline import Columns, microseconds

    target = lookup(name)
    if not target.int8 and any(k.kind in ("conv", "depthwise") and k.precision == "int8" for k in plan.kernels):
        raise BuildError(f"{target.title} has no INT8", do="Predict with --precision fp16, as it can be built there")
    fit = constants()
    arithmetic, memory = microseconds(Columns.of(plan), target, fit)
    timed = []
    for kernel, a, m in zip(plan.kernels, arithmetic.tolist(), memory.tolist(), strict=True):
        parts: dict[Bound, float] = {"arithmetic": a, "memory": m, "launch": fit.launch_us}
        bound = max(parts, key=lambda part: parts[part])
        timed.append(Timed(kernel.name, kernel.op, kernel.precision, max(a, m) + fit.launch_us, bound))
    graph_ms = sum(kernel.us for kernel in timed) / 1e3
    return Prediction(
        target=name,
        precision=precision or "file",
        graph_ms=graph_ms,
        python_ms=graph_ms + len(timed) * fit.enqueue_us / 1e3 + fit.call_ms,
        kernels=tuple(timed),
        macs=plan.macs,
        weight_mib=plan.weight_bytes / 2**20,
        activation_mib=plan.peak_bytes() / 2**20,
        workspace_mib=WORKSPACE_MIB,
        fitted=target.sm in _fitted()["sm"],
    )


def boards(path: Path, precision: Precision | None, fps: float) -> list[dict[str, Any]]:
    """Every Jetson of edgecnn.build.boards: predicted latency, and whether it holds so many frames a second.

    A board without INT8 is taken with FP16; one whose rates no source tells has None.
    """
    jetsons = {name: target for name, target in TARGETS.items() if target.dialect == "trt"}
    plans = {how: plan_of(path, how) for how in {_suited(t, precision) for t in jetsons.values()}}
    rows = []
    for name, target in jetsons.items():
        how = _suited(target, precision)
        known = target.fp16_tflops is not None and target.bandwidth is not None
        found = predict(plans[how], name, how) if known else None
        rows.append(
            {
                "target": name,
                "title": target.title,
                "precision": how or "file",
                "graph_ms": found and found.graph_ms,
                "python_ms": found and found.python_ms,
                "holds": found and found.holds(fps),
                "fits": found and found.memory_mib < 1024 * min(target.memory_gib),
            }
        )
    return rows


def _suited(target: Target, precision: Precision | None) -> Precision | None:
    return "fp16" if not target.int8 and precision in (None, "int8") else precision


def summary(found: Prediction) -> dict[str, Any]:
    """A prediction as JSON, with its error and the words that it is none but a prediction."""
    return {
        "predicted_not_measured": True,
        "target": found.target,
        "precision": found.precision,
        "graph_ms": found.graph_ms,
        "python_ms": found.python_ms,
        "error": error(),
        "generation_fitted": found.fitted,
        "macs": found.macs,
        "kernels": len(found.kernels),
        "by_precision": dict(Counter(k.precision for k in found.kernels)),
        "by_bound": dict(Counter(k.bound for k in found.kernels)),
        "reformats": sum(k.op == "Reformat" for k in found.kernels),
        "memory_mib": {
            "weights": found.weight_mib,
            "activations": found.activation_mib,
            "workspace": found.workspace_mib,
            "sum": found.memory_mib,
        },
        "slowest": [vars(k) for k in sorted(found.kernels, key=lambda k: -k.us)[:8]],
    }


def error() -> dict[str, float]:
    """Against published latencies of boards that the fit had not seen: `median` share, `worst` factor, `figures`."""
    found: dict[str, float] = _fitted()["error"]
    return found


def constants() -> Constants:
    from edgecnn.predict.roofline import Constants

    return Constants(**_fitted()["constants"])


@cache
def _fitted() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(FITTED.read_text("utf-8"))
    return data
