"""Which stage lost what a gate misses, and which layer: what `edgecnn check --bisect` adds.

Figures of three networks are at hand: before slimming, in FP32, in INT8. The first of them that is too far below what
the gate allows names the stage: train, slim or quantize. Where an earlier release tracked better and detected no
better, it is the loop behind the network. Within quantisation the layer is found by bisection: layer by layer, from the
picture on, the network becomes INT8, until half of the damage is done; what the layer costs is then measured with it
alone in float. Within slimming, pictures can't tell one layer's loss from another's after the fine-tuning: the step
that lost most is named, and the layer of which most is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgecnn.bundle import Bundle
from edgecnn.check import CheckReport, Gate, Measured
from edgecnn.check.gates import UNSLIMMED
from edgecnn.errors import EdgecnnError
from edgecnn.progress import bar
from edgecnn.recipe import CheckSection
from edgecnn.sense.marks import Marks

PICTURES = 64  # on which layers are judged
DOUBTED = 3  # layers of the lowest SQNR that are tried besides
DETECTION, TRACKING = "AP50", {"HOTA", "MOTA", "IDF1", "ttc_accuracy", "warned_in_time", "quiet"}

Stage = Literal["train", "train or slim", "slim", "quantize", "loop"]


@dataclass(frozen=True)
class Blame:
    """Where a gate's loss began."""

    gate: Gate
    stage: Stage
    evidence: str  # the figures that say so
    layer: str = ""  # "" = none can be named; `layer_evidence` says why
    layer_evidence: str = ""

    def __str__(self) -> str:
        layer = f", layer {self.layer}" if self.layer else ""
        why = f". {self.layer_evidence}" if self.layer_evidence else ""
        return f"{self.gate.metric}: first bad stage {self.stage}{layer}. {self.evidence}{why}"


def bisect(
    bundle: Bundle, report: CheckReport, section: CheckSection, baseline: Measured | None = None
) -> tuple[Blame, ...]:
    """A Blame for every gate of `report` that is missed. `baseline`: what its baseline gates were held against."""
    blames, layers = [], dict[Stage, tuple[str, str]]()
    for gate in report.gates:
        if not gate.ok:
            stage, evidence = first_bad(gate, report.figures, section, baseline, slimmed="slim" in bundle.stages)
            if stage not in layers:
                layers[stage] = _layer(bundle, stage, section)
            blames.append(Blame(gate, stage, evidence, *layers[stage]))
    return tuple(blames)


def first_bad(
    gate: Gate,
    figures: Mapping[str, Mapping[str, float]],
    section: CheckSection,
    baseline: Measured | None,
    *,
    slimmed: bool,
) -> tuple[Stage, str]:
    """The stage in which the figure of a missed gate first falls too low, and the figures that say so."""
    metric = gate.metric
    if gate.kind == "drop":
        return "quantize", _chain({p: row[metric] for p, row in figures.items()})
    if gate.kind == "slim":
        return "slim", _chain({p: row[metric] for p, row in figures.items()})
    earlier = baseline.figures if gate.kind == "baseline" and baseline else {}
    whole: Stage = "train or slim" if slimmed and UNSLIMMED not in figures else "slim" if slimmed else "train"
    stages: dict[str, Stage] = {UNSLIMMED: "train", "fp32": whole, "int8": "quantize"}
    if gate.kind == "baseline" and metric in TRACKING:
        before, now = (rows.get(gate.precision, {}).get(DETECTION) for rows in (earlier, figures))
        if before is not None and now is not None and before - now <= section.baseline_drop:
            return "loop", (
                f"The network finds as much as in the baseline ({DETECTION} {before:.4f}, now {now:.4f}): tracking or "
                f"scene analysis, its settings or its code, changed"
            )
    chain: dict[str, float] = {}
    for precision, row in figures.items():
        chain[precision] = row[metric]
        # where the baseline does not know this network's figure, what shipped then is the measure
        least = (
            section.gates[metric] if gate.kind == "least" else earlier.get(precision, earlier[gate.precision])[metric]
        )
        allowed = 0.0 if gate.kind == "least" else section.baseline_drop
        if not chain[precision] >= least - allowed:
            return stages[precision], f"{_chain(chain)}; at least {least - allowed:.4f} is wanted"
    return "quantize", _chain(chain)


def _chain(values: Mapping[str, float]) -> str:
    return "Figures: " + ", ".join(f"{precision} {value:.4f}" for precision, value in values.items())


def _layer(bundle: Bundle, stage: Stage, section: CheckSection) -> tuple[str, str]:
    try:
        match stage:
            case "quantize":
                return quantized_layer(Marks.open(bundle, section.data, PICTURES))
            case "slim":
                return slimmed_layer(bundle)
            case _:
                return "", ""
    except EdgecnnError as error:  # the gate's verdict must reach the reader, with or without a layer
        return "", f"No layer is named: {error}"


def quantized_layer(marks: Marks) -> tuple[str, str]:
    """The unit whose rounding does the most damage, and its figures; "" where it is spread over many, or where
    TensorRT's form of the network shows none."""
    units, metric = marks.network.units, marks.exam.metric
    names = [unit.name for unit in units]
    with bar("bisect", None) as marks.advance:
        whole, rounded = marks.whole(), marks(frozenset())
        few, many = 0, len(names)  # with so many INT8 from the picture on, less than half of the damage; half or more
        while many - few > 1:
            middle = (few + many) // 2
            done = marks(frozenset(names[middle:])).divergence
            few, many = (middle, many) if done < rounded.divergence / 2 else (few, middle)
        sqnr = marks.sqnr()
        doubted = [names[many - 1], *sorted(sqnr, key=lambda name: sqnr[name])[:DOUBTED]]
        without = {name: marks(frozenset([name])) for name in dict.fromkeys(doubted)}
    count = len(marks.exam.inputs)
    told = f"{metric} on {count} pictures: FP32 {whole.metric:.4f}, INT8 {rounded.metric:.4f}"
    best = min(without, key=lambda name: without[name].divergence)
    spared = 1 - without[best].divergence / max(rounded.divergence, 1e-12)
    alone = f"{told}, INT8 with {best} in float {without[best].metric:.4f}; {spared:.0%} of the divergence is gone"
    if spared >= 0.5:
        return best, f"{alone}. Its own rounding has {sqnr[best]:.1f} dB"
    return "", f"{alone}: the loss is spread over many layers, `edgecnn sense` ranks them"


def slimmed_layer(bundle: Bundle) -> tuple[str, str]:
    """The layer that lost the largest share of its channels, and the step that lost most."""
    from safetensors import safe_open

    def outputs(role: str) -> dict[str, int]:
        with safe_open(bundle.file(role), "np") as file:
            shapes: dict[str, Any] = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        return {n.removesuffix(".weight"): s[0] for n, s in shapes.items() if n.endswith(".weight") and len(s) > 1}

    before, now = outputs("weights"), outputs("slim")
    facts = bundle.stages["slim"].facts
    steps, accuracies = facts.get("steps", []), facts.get("accuracies", [])
    told = ""
    if len(accuracies) == len(steps) > 0:
        lost = [a - b for a, b in zip([facts["before"]["accuracy"], *accuracies], accuracies, strict=False)]
        worst = max(range(len(lost)), key=lost.__getitem__)
        step = steps[worst].partition(":")[0]
        told = f"Of the steps, {step} (number {worst + 1}) lost most {facts['figure']}: {lost[worst]:.4f}. "
    gone = {name: 1 - now[name] / count for name, count in before.items() if name in now and now[name] < count}
    replaced = [name for name in before if name not in now]
    if not gone:
        return (replaced[0], f"{told}It was replaced") if replaced else ("", f"{told}No layer lost channels")
    layer = max(gone, key=gone.__getitem__)
    return layer, f"{told}It has {now[layer]} of {before[layer]} channels left, the least of all layers"
