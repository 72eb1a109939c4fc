"""What an engine can be built for: the Jetson boards, and the GPU generations that TensorRT for RTX compiles for.

An engine for a board is made on that board. The `rtx-` targets need no GPU at all: they are engines for a PC's GPU, and
evidence that a network parses, builds and keeps its INT8 kernels. They are no Jetson artefacts and say nothing about a
Jetson's speed.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edgecnn.errors import BuildError

Dialect = Literal["trt", "rtx"]


@dataclass(frozen=True)
class Target:
    """A board, or a generation of GPUs."""

    title: str
    dialect: Dialect
    sm: int  # CUDA compute capability, major * 10 + minor
    int8: bool  # whether convolutions can run in INT8
    dla: int = 0  # deep-learning accelerators
    memory_gib: tuple[int, ...] = ()  # of the variants sold; shared by CPU and GPU on a Jetson
    software: Mapping[str, str] | None = None  # JetPack → TensorRT

    @property
    def supported(self) -> bool:
        """Whether some JetPack brings a TensorRT that edgecnn's adapter speaks (10 or later)."""
        return self.dialect == "rtx" or any(int(v.split(".")[0]) >= 10 for v in (self.software or {}).values())


_ORIN = {"5.1": "8.5.2", "6.0": "8.6", "6.1-6.2": "10.3", "7.2.1": "10.16", "7.2.2+": "11.4.1"}
_XAVIER = {"4.6": "8.2.1", "5.1": "8.5.2"}
_OLD = {"4.6": "8.2.1"}

# Memory sizes are NVIDIA's module data sheets'; nothing here was measured.
TARGETS: Mapping[str, Target] = {
    "orin": Target("Jetson AGX Orin", "trt", 87, True, 2, (32, 64), _ORIN),
    "orin-nx": Target("Jetson Orin NX (16 GB: two DLAs, 8 GB: one)", "trt", 87, True, 2, (8, 16), _ORIN),
    "orin-nano": Target("Jetson Orin Nano", "trt", 87, True, 0, (4, 8), _ORIN),
    "thor": Target("Jetson Thor", "trt", 110, True, 0, (64, 128), {"7.0-7.1": "10.13", "7.2.1": "10.16"}),
    "xavier": Target("Jetson AGX Xavier", "trt", 72, True, 2, (16, 32, 64), _XAVIER),
    "xavier-nx": Target("Jetson Xavier NX", "trt", 72, True, 2, (8, 16), _XAVIER),
    "nano": Target("Jetson Nano", "trt", 53, False, 0, (2, 4), _OLD),
    "tx2": Target("Jetson TX2", "trt", 62, False, 0, (4, 8), _OLD),
    "rtx-sm75": Target("GeForce RTX 20 and GTX 16 (Turing)", "rtx", 75, False),
    "rtx-sm80": Target("A100, A30 (Ampere)", "rtx", 80, True),
    "rtx-sm86": Target("GeForce RTX 30 (Ampere)", "rtx", 86, True),
    "rtx-sm89": Target("GeForce RTX 40 (Ada)", "rtx", 89, True),
    "rtx-sm120": Target("GeForce RTX 50 (Blackwell)", "rtx", 120, True),
    "rtx-sm121": Target("DGX Spark (Blackwell)", "rtx", 121, True),
}


def find(name: str) -> Target:
    """Raises BuildError for an unknown name, and for a board on which an INT8 network cannot become an INT8 engine."""
    target = TARGETS.get(name)
    if target is None:
        near = difflib.get_close_matches(name, TARGETS, 1)
        raise BuildError(
            f"no target '{name}'{f', did you mean {near[0]!r}?' if near else ''}", wanted=f"one of {', '.join(TARGETS)}"
        )
    if not target.int8:
        why = (
            "TensorRT for RTX turns INT8 convolutions into float there without a word"
            if target.dialect == "rtx"
            else "its GPU has no INT8, and TensorRT refuses a Q/DQ network there"
        )
        raise BuildError(f"{target.title} ({name}, SM {target.sm}) cannot run INT8: {why}", wanted="a target with INT8")
    if not target.supported:
        newest = ", ".join(f"JetPack {k}: TensorRT {v}" for k, v in (target.software or {}).items())
        raise BuildError(f"{target.title} ends at {newest}", wanted="TensorRT 10 or 11, which edgecnn's adapter speaks")
    return target
