"""What an engine can be built for: the Jetson boards, and the GPU generations that TensorRT for RTX compiles for.

An engine for a board is made on that board. The `rtx-` targets need no GPU at all: they are engines for a PC's GPU, and
evidence that a network parses, builds and keeps its INT8 kernels. They are no Jetson artefacts and say nothing about a
Jetson's speed.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from edgecnn.build.boards import TARGETS, Dialect, Gpu, Target
from edgecnn.errors import BuildError

__all__ = ["TARGETS", "Dialect", "Gpu", "Target", "by_hand", "find", "lookup", "row"]


def lookup(name: str) -> Target:
    """Any known target. Raises BuildError for an unknown name, with the nearest known one."""
    target = TARGETS.get(name)
    if target is None:
        near = difflib.get_close_matches(name, TARGETS, 1)
        raise BuildError(
            f"no target '{name}'{f', did you mean {near[0]!r}?' if near else ''}", wanted=f"one of {', '.join(TARGETS)}"
        )
    return target


def find(name: str, *, int8: bool = True) -> Target:
    """A target for which an engine can be built here or there, with INT8 in it or without.

    Raises BuildError for an unknown name, for a board on which an INT8 network cannot become an INT8 engine, and for a
    board on which edgecnn itself does not run (without INT8, `by_hand` tells what to do there).
    """
    target = lookup(name)
    if int8 and not target.int8:
        rtx = "TensorRT for RTX turns INT8 convolutions into float there without a word"
        board = "its GPU has no INT8, and TensorRT refuses a Q/DQ network there"
        raise BuildError(
            f"{target.title} ({name}, SM {target.sm}) cannot run INT8: {rtx if target.dialect == 'rtx' else board}",
            do=f"Build FP16 for it instead: `build: {{target: {name}, precision: fp16}}`, or --precision fp16",
        )
    if target.int8 and not target.supported:
        newest = ", ".join(f"JetPack {k}: TensorRT {v}" for k, v in (target.software or {}).items())
        raise BuildError(
            f"{target.title} ends at {newest}, whose Python is older than the 3.10 that edgecnn needs",
            do="Run: edgecnn build RECIPE --emit-script DIR, and the script in it on the board",
        )
    return target


def by_hand(name: str, network: Path, workspace_mib: int) -> BuildError:
    """What to carry to a board without INT8, and to type there: its TensorRT 8.2 has no Python that edgecnn runs on."""
    target = lookup(name)
    (jetpack, version), *_ = (target.software or {}).items()
    engine = f"{network.stem}.{name}.engine"
    return BuildError(
        f"an FP16 engine for {target.title} is built on the board, by TensorRT {version} of JetPack {jetpack}",
        do=f"Carry {network} there and run: /usr/src/tensorrt/bin/trtexec --onnx={network.name} --fp16 "
        f"--workspace={workspace_mib} --saveEngine={engine}",
    )


def row(name: str) -> dict[str, Any]:
    """All that is known of a target, the computed rates included, for tables and JSON; None: not known."""
    target = TARGETS[name]
    return {
        "name": name,
        "title": target.title,
        "sm": f"{target.sm // 10}.{target.sm % 10}",
        "dialect": target.dialect,
        "int8": target.int8,
        "jetpack": dict(target.software or {}),
        "dla": target.dla,
        "dla_version": target.dla_version,
        "memory_gib": list(target.memory_gib),
        "sms": target.sms,
        "clock_ghz": target.clock_ghz,
        "bandwidth": target.bandwidth,
        "int8_tops": target.int8_tops,
        "fp16_tflops": target.fp16_tflops,
        "fp32_tflops": target.fp32_tflops,
        "power_w": list(target.power_w),
        "note": target.note,
        "sources": {**target.sources, **_computed(target)},
    }


def _computed(target: Target) -> dict[str, str]:
    """How the rates were computed."""
    gpu = target.gpu
    if gpu is None:
        return {}
    per_clock = {"int8_tops": gpu.int8, "fp16_tflops": gpu.fp16, "fp32_tflops": gpu.fp32}
    return {
        rate: f"computed: {target.sms} SMs x {ops} operations x {target.clock_ghz} GHz; {gpu.source}"
        for rate, ops in per_clock.items()
        if ops is not None
    }
