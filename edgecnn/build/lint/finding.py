"""The rules by name, and what a rule says when it finds something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Rule:
    """One line of the table in docs/lint.md."""

    severity: Severity
    what: str
    why: str  # what happens otherwise
    fix: str = ""  # what --fix does; empty: nothing, a person has to


@dataclass(frozen=True)
class Finding:
    """One thing to mend, with the node or tensor where it lies."""

    rule: str
    where: str
    came: str
    wanted: str
    do: str

    @property
    def severity(self) -> Severity:
        return RULES[self.rule].severity

    def __str__(self) -> str:
        return f"{self.where}: {self.came}; wanted {self.wanted}. {self.do}. [{self.rule}]"


RULES: Mapping[str, Rule] = {
    "op": Rule("error", "an operator that the target's parser refuses", "refused, often after minutes"),
    "new-op": Rule(
        "error",
        "an operator, or the meaning of its inputs, is newer than the target's opset",
        "refused, or read as the older operator",
        "lowers the opset, or converts it where onnx can",
    ),
    "opset": Rule(
        "warning",
        "the opset is newer than a release of the target, or older than 9",
        "the parser warns and tries",
        "lowers the opset, or converts it where onnx can",
    ),
    "dynamic-shape": Rule("error", "an input of no fixed shape, and no profile for it", "refused after parsing"),
    "no-int8": Rule(
        "error",
        "Q/DQ for a GPU that has no INT8 (Nano, TX2)",
        "refused by the builder",
        "takes the pairs out: build it in FP16",
    ),
    "sm75": Rule(
        "error",
        "Q/DQ for SM 75 and TensorRT for RTX",
        "silent: convolutions run in float",
        "takes the pairs out: build it in FP16",
    ),
    "implicit": Rule(
        "warning", "no Q/DQ, for a release without calibrators (TensorRT 11)", "silent: the engine runs in float"
    ),
    "channels": Rule("warning", "output channels that no hardware multiple divides", "silent: kernels compute padding"),
    "uint8": Rule(
        "error", "a uint8 pair", "refused", "int8 with zero point 0: exact from zero point 128, else a new scale"
    ),
    "zero-point": Rule("error", "an int8 pair whose zero point is not 0", "refused", "a symmetric scale"),
    "scale": Rule("error", "a scale that is not a positive number", "refused, or zeros"),
    "half": Rule(
        "warning",
        "a pair typed in float16",
        "refused by TensorRT 8; onnxruntime computes it wrongly on a CPU",
        "writes the network in float32, its inputs and outputs as they were",
    ),
    "activation-axis": Rule(
        "error",
        "an activation with a scale a channel",
        "silent: the convolution runs in float",
        "one scale, the largest",
    ),
    "weight-axis": Rule(
        "error",
        "weight scales on another axis than the outputs, first",
        "silent: every weight is scaled wrongly",
        "transposes so that outputs come first, or rounds anew with a scale an output",
    ),
    "bias": Rule("error", "a bias behind DequantizeLinear", "refused", "a bias in float"),
    "mixed-range": Rule(
        "error", "scores in [0, 1] share a coarse scale with other values", "silent: scores become zeros"
    ),
    "conv-output": Rule(
        "warning",
        "a pair between a convolution and its batch normalisation or activation",
        "silent: they don't fuse",
        "takes the pair out",
    ),
    "residual": Rule(
        "warning",
        "a residual Add of which not just the skip input is quantised",
        "slower than FP16: NVIDIA's engine dumps of ResNet-18, 1.096 against 1.017 ms",
        "the pair that the skip has elsewhere, or takes out the second pair",
    ),
    "pool-input": Rule(
        "warning",
        "the input of the global average pool is not quantised",
        "slower: NVIDIA's engine dumps of ResNet-18, 0.731 against 0.673 ms",
        "the pair that the tensor has elsewhere",
    ),
    "dla-qdq": Rule(
        "warning",
        "Q/DQ for the DLA",
        "refused by TensorRT 8 there; later releases are unverified",
        "takes the pairs out: give the DLA a calibration cache, or FP16",
    ),
    "dla-fallback": Rule(
        "warning", "layers that the DLA does not run", "silent: they run on the GPU, data copied over"
    ),
    "dla-cut": Rule("warning", "more than one DLA subgraph", "slow: 16 at most load, each change of device copies"),
}
