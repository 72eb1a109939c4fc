"""What this machine has, what is missing, and the command that mends it.

Packages are looked up, not imported (PyAV aside, which alone knows its encoders): torch would take seconds to load.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edgecnn.build.targets import TARGETS
from edgecnn.cpu import cores, cpu

BOARD = ("numpy", "scipy", "av", "onnxruntime", "pydantic", "pyyaml", "typer", "rich")  # distributions
OPENCV = (
    "opencv-python-headless",
    "opencv-python",
    "opencv-contrib-python-headless",
    "opencv-contrib-python",
)
DESK = ("torch", "onnx", "safetensors", "torch-pruning", "pycocotools")
MEMINFO = Path("/proc/meminfo")
BOARD_MODEL, TEGRA = Path("/proc/device-tree/model"), Path("/etc/nv_tegra_release")
LEAST_GIB = 1.0


@dataclass(frozen=True)
class Check:
    """One line of `edgecnn doctor`."""

    name: str
    ok: bool
    found: str
    mend: str  # command or advice; "" where there is nothing to mend
    needed: bool  # by `edgecnn run` on any machine; the rest is for the desk, or for engines


def doctor() -> list[Check]:
    """Look at everything that edgecnn can use. Raises nothing: what can't be found out is not ok."""
    return [*_machine(), *_packages(), *_engines()]


def _machine() -> Iterator[Check]:
    version = platform.python_version()
    yield Check(
        "Python", sys.version_info >= (3, 10), version, _unless(sys.version_info >= (3, 10), "Python 3.10"), True
    )
    name, flags = cpu()
    gain, advice = int8_gain(flags)
    yield Check("CPU", True, f"{name or platform.machine()}; INT8: {gain}", advice, True)
    yield Check(
        "cores", cores() > 1, str(cores()), _unless(cores() > 1, "decoding and inference share one core"), False
    )
    total, free = memory_gib()
    enough = free >= LEAST_GIB
    yield Check("memory", enough, f"{free:.1f} of {total:.1f} GiB free", _unless(enough, "close other programs"), False)
    board = _text(BOARD_MODEL)
    if board or TEGRA.exists():
        yield Check("Jetson", True, f"{board or 'model unknown'}; {_text(TEGRA) or 'no nv_tegra_release'}", "", False)


def _packages() -> Iterator[Check]:
    for name in BOARD:
        yield _package(name, f"pip install {name}", True)
    opencv = next((name for name in OPENCV if _version(name)), OPENCV[0])
    yield _package(opencv, f"pip install {OPENCV[0]}", True)
    try:
        import av

        has = "libx264" in av.codecs_available
    except ImportError:
        has = False
    found = "libx264, for the annotated video" if has else "no libx264: no annotated video"
    yield Check("encoder", has, found, _unless(has, "pip install --upgrade av"), True)
    for name in DESK:
        yield _package(name, "pip install 'edgecnn[desk]' (training, export, quantisation, check)", False)
    yield _package("openvino", "pip install 'edgecnn[openvino]' (INT8 on an x86 CPU, see docs/cpu.md)", False)
    yield _package("tensorrt_rtx", "pip install 'edgecnn[rtx]' (builds engines on a PC, with or without a GPU)", False)
    yield _package("tensorrt", "comes with JetPack: apt install python3-libnvinfer", False)
    yield _package("cuda-bindings", "pip install 'edgecnn[cuda]' (runs engines)", False)


def _engines() -> Iterator[Check]:
    sms = yield from _cuda()
    runtime = {"rtx": _version("tensorrt_rtx"), "trt": _version("tensorrt")}
    usable = {name: target for name, target in TARGETS.items() if target.int8 and target.supported}
    here = [name for name, t in usable.items() if runtime[t.dialect] and (t.dialect == "rtx" or t.sm in sms)]
    found = f"for {', '.join(here)}" if here else "none can be built here"
    mend = _unless(bool(here), f"pip install 'edgecnn[rtx]', or build on the board; known: {', '.join(usable)}")
    yield Check("engine targets", bool(here), found, mend, False)


def _cuda() -> Generator[Check, None, set[int]]:
    """→ compute capabilities of the GPUs here, major * 10 + minor."""
    sms: set[int] = set()
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        yield Check(
            "CUDA driver", False, "libcuda.so.1 is not here", "engines need an NVIDIA GPU and its driver", False
        )
        return sms
    number = ctypes.c_int(0)
    driver.cuDriverGetVersion(ctypes.byref(number))
    yield Check("CUDA driver", True, f"for CUDA {number.value // 1000}.{number.value % 1000 // 10}", "", False)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(number)) != 0 or number.value == 0:
        yield Check("GPU", False, "the driver is here, but no GPU answers", "see: nvidia-smi", False)
        return sms
    for index in range(number.value):
        name, memory = ctypes.create_string_buffer(96), ctypes.c_size_t(0)
        major, minor = ctypes.c_int(0), ctypes.c_int(0)
        driver.cuDeviceGetName(name, 96, index)
        driver.cuDeviceTotalMem_v2(ctypes.byref(memory), index)
        driver.cuDeviceGetAttribute(ctypes.byref(major), 75, index)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
        driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, index)
        found = f"{name.value.decode()}, SM {major.value}.{minor.value}, {memory.value / 2**30:.1f} GiB"
        yield Check("GPU", True, found, "", False)
        sms.add(10 * major.value + minor.value)
    return sms


def int8_gain(flags: frozenset[str]) -> tuple[str, str]:
    """What INT8 brings over FP32 in onnxruntime on such a CPU, and an advice; for conv-BN-ReLU networks, one thread."""
    if flags & {"avx512_vnni", "avx_vnni", "avx10_1"}:
        kind = "avx512_vnni" if "avx512_vnni" in flags else "avx_vnni"
        return f"{kind}, 2 to 3.3 times faster than FP32 measured on such a CPU", ""
    if "avx2" in flags:
        width = "avx512f" if "avx512f" in flags else "avx2"
        gain = f"{width} without VNNI, 0.8 (depthwise layers) to 2.6 (dense ones) times FP32's speed measured"
        return gain, "pip install 'edgecnn[openvino]' (0.7 to 3.2 times measured), then see with: edgecnn bench"
    if flags & {"asimddp", "i8mm"}:
        return f"{'i8mm' if 'i8mm' in flags else 'asimddp'}, a gain (not measured)", "see with: edgecnn bench"
    return "no instructions for it known here", "see with: edgecnn bench"


def memory_gib() -> tuple[float, float]:
    """Total and available memory; 0 where /proc does not tell."""
    kib = {line.split(":")[0]: line.split()[1] for line in _text(MEMINFO).splitlines() if ":" in line}
    return int(kib.get("MemTotal", 0)) / 2**20, int(kib.get("MemAvailable", 0)) / 2**20


def _package(name: str, mend: str, needed: bool) -> Check:
    version = _version(name)
    return Check(name, bool(version), version or "not installed", _unless(bool(version), mend), needed)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _text(path: Path) -> str:
    """A file of /proc or /etc; "" where there is none."""
    try:
        return path.read_text("utf-8", "replace").strip("\0\n ")
    except OSError:
        return ""


def _unless(ok: bool, mend: str) -> str:
    return "" if ok else mend
