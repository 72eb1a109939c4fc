"""The CPU of this machine: its name, instruction sets, and what INT8 needs there. Imports nothing heavy."""

from __future__ import annotations

import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
VNNI = {"avx512_vnni", "avx_vnni"}  # dot products of u8 and s8 summed in 32 bits


def cpu() -> tuple[str, frozenset[str]]:
    """Its name and instruction sets; "" and none where /proc does not tell."""
    name, flags = "", frozenset[str]()
    text = CPUINFO.read_text("utf-8", "replace") if CPUINFO.is_file() else ""
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key in ("model name", "Model"):
            name = name or value
        elif key in ("flags", "Features"):
            flags = flags or frozenset(value.split())
    return name, flags


def cores() -> int:
    """Processors that this process may use; a container or `taskset` may grant fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def saturates() -> bool:
    """Whether fast INT8 kernels give wrong sums here: an x86 without VNNI adds u8·s8 products in pairs in 16 bits,
    where they overflow, and a detector's scores collapse without a word (.64 became .09 on an AVX2 CPU)."""
    return platform.machine().lower() in ("x86_64", "amd64", "i686", "x86") and not VNNI & cpu()[1]
