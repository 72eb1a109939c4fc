"""The boards and GPU generations as data, each figure with its source. Nothing here was measured.

INT8 and FP16 rates are computed: SMs x operations an SM does in a clock x clock, dense (NVIDIA's headline figures count
sparse matrices twice, and add the DLAs). A figure that no source supports is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Dialect = Literal["trt", "rtx"]


@dataclass(frozen=True)
class Gpu:
    """What one SM of a generation does in a clock, in operations (two a multiply-accumulate), dense."""

    int8: int | None  # tensor cores
    fp16: int
    fp32: int  # as TensorRT runs it: TF32 where the tensor cores have it
    cuda: int  # FP32 without tensor cores: 2 x CUDA cores
    source: str


_MAXWELL = Gpu(None, 512, 256, 256, "128 CUDA cores an SM, FP16 at twice the FP32 rate (CUDA C++ Programming Guide)")
_VOLTA = Gpu(2048, 1024, 128, 128, "8 tensor cores an SM; NVIDIA states 22 TOPS INT8 and 11 TFLOPS FP16 for the GPU")
_AMPERE = Gpu(4096, 2048, 1024, 256, "Jetson AGX Orin Series Technical Brief: 170 sparse INT8 TOPS, 85 dense")

# by compute capability; an SM that is not here has no rate that could be supported
GPUS: Mapping[int, Gpu] = {53: _MAXWELL, 62: _MAXWELL, 72: _VOLTA, 87: _AMPERE}


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
    dla_version: str | None = None
    sms: int | None = None
    clock_ghz: float | None = None  # of the GPU, at most
    bandwidth: float | None = None  # GB/s of the memory
    power_w: tuple[float, ...] = ()  # modes that nvpmodel offers
    note: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)  # field → where it comes from

    @property
    def supported(self) -> bool:
        """Whether some JetPack brings a TensorRT that edgecnn's adapter speaks (10 or later)."""
        return self.dialect == "rtx" or any(int(v.split(".")[0]) >= 10 for v in (self.software or {}).values())

    @property
    def gpu(self) -> Gpu | None:
        return GPUS.get(self.sm)

    @property
    def int8_tops(self) -> float | None:
        """Dense, of the GPU alone."""
        return None if self.gpu is None else self.rate(self.gpu.int8)

    @property
    def fp16_tflops(self) -> float | None:
        return None if self.gpu is None else self.rate(self.gpu.fp16)

    @property
    def fp32_tflops(self) -> float | None:
        return None if self.gpu is None else self.rate(self.gpu.fp32)

    def rate(self, ops: int | None) -> float | None:
        """10^12 operations a second, where every SM does `ops` in a clock."""
        if ops is None or self.sms is None or self.clock_ghz is None:
            return None
        return self.sms * ops * self.clock_ghz / 1e3


_JETPACKS = "NVIDIA's JetPack archive"
_ORIN = {"5.1": "8.5.2", "6.0": "8.6", "6.1-6.2": "10.3", "7.2.1": "10.16", "7.2.2+": "11.4.1"}
_SUPER = {jetpack: version for jetpack, version in _ORIN.items() if jetpack[0] != "5" and jetpack != "6.0"}
_XAVIER = {"4.6": "8.2.1", "5.1": "8.5.2"}
_OLD = {"4.6": "8.2.1"}
_NO_INT8 = "CUDA cores only: TensorRT refuses a network with Q/DQ there"
_DLA_ORIN = "the DLAs: TensorRT 8 to 10.7, and again 11.4.1 (AGX Orin only)"


def _source(sheet: str, *, clock: str = "") -> dict[str, str]:
    """The same data sheet for all that one states; what it does not state by itself."""
    stated = ("memory_gib", "sms", "bandwidth", "power_w", "dla")
    return {**dict.fromkeys(stated, sheet), "clock_ghz": clock or sheet, "software": _JETPACKS}


TARGETS: Mapping[str, Target] = {
    "orin": Target(
        "Jetson AGX Orin 64 GB",
        "trt",
        87,
        True,
        2,
        (64,),
        _ORIN,
        dla_version="2.0",
        sms=16,
        clock_ghz=1.3,
        bandwidth=204.8,
        power_w=(15, 30, 50, 60),
        note=f"60 W is MAXN; the 32 GB module has 14 SMs at 0.93 GHz; {_DLA_ORIN}",
        sources=_source("NVIDIA Jetson AGX Orin Series data sheet"),
    ),
    "orin-nx": Target(
        "Jetson Orin NX 16 GB",
        "trt",
        87,
        True,
        2,
        (16,),
        _ORIN,
        dla_version="2.0",
        sms=8,
        clock_ghz=0.918,
        bandwidth=102.4,
        power_w=(10, 15, 25),
        note=f"without the Super modes of JetPack 6.2; {_DLA_ORIN}",
        sources=_source("NVIDIA Jetson Orin NX Series data sheet"),
    ),
    "orin-nx-8": Target(
        "Jetson Orin NX 8 GB",
        "trt",
        87,
        True,
        1,
        (8,),
        _ORIN,
        dla_version="2.0",
        sms=8,
        clock_ghz=0.765,
        bandwidth=102.4,
        power_w=(10, 15, 20),
        note=f"without the Super modes of JetPack 6.2; {_DLA_ORIN}",
        sources=_source("NVIDIA Jetson Orin NX Series data sheet"),
    ),
    "orin-nano": Target(
        "Jetson Orin Nano 8 GB",
        "trt",
        87,
        True,
        0,
        (8,),
        _ORIN,
        sms=8,
        clock_ghz=0.625,
        bandwidth=68.0,
        power_w=(7, 15),
        note="the 4 GB module has half of the SMs and of the bandwidth",
        sources=_source("NVIDIA Jetson Orin Nano Series data sheet"),
    ),
    "orin-nano-super": Target(
        "Jetson Orin Nano 8 GB, Super mode",
        "trt",
        87,
        True,
        0,
        (8,),
        _SUPER,
        sms=8,
        clock_ghz=1.02,
        bandwidth=102.0,
        power_w=(7, 15, 25),
        note="the same module with the clocks that JetPack 6.1 and later allow",
        sources=_source("NVIDIA Jetson Orin Nano Super Developer Kit data sheet"),
    ),
    "thor": Target(
        "Jetson Thor",
        "trt",
        110,
        True,
        0,
        (64, 128),
        {"7.0-7.1": "10.13", "7.2.1": "10.16", "7.2.2+": "11.4.1"},
        sms=20,
        bandwidth=273.0,
        power_w=(40, 130),
        note="figures of the 128 GB T5000; 40-130 W is the range; no source at hand for its dense INT8 rate and clock",
        sources=_source("NVIDIA Jetson Thor Series data sheet") | {"sms": "data sheet: 2560 CUDA cores, 128 an SM"},
    ),
    "xavier": Target(
        "Jetson AGX Xavier",
        "trt",
        72,
        True,
        2,
        (16, 32, 64),
        _XAVIER,
        dla_version="1.0",
        sms=8,
        clock_ghz=1.377,
        bandwidth=136.5,
        power_w=(10, 15, 30),
        sources=_source("NVIDIA Jetson AGX Xavier Series data sheet"),
    ),
    "xavier-nx": Target(
        "Jetson Xavier NX",
        "trt",
        72,
        True,
        2,
        (8, 16),
        _XAVIER,
        dla_version="1.0",
        sms=6,
        clock_ghz=1.1,
        bandwidth=59.7,
        power_w=(10, 15, 20),
        sources=_source("NVIDIA Jetson Xavier NX Series data sheet"),
    ),
    "nano": Target(
        "Jetson Nano",
        "trt",
        53,
        False,
        0,
        (2, 4),
        _OLD,
        sms=1,
        clock_ghz=0.9216,
        bandwidth=25.6,
        power_w=(5, 10),
        note=_NO_INT8,
        sources=_source("NVIDIA Jetson Nano data sheet", clock="data sheet: 472 GFLOPS FP16 at 921.6 MHz"),
    ),
    "tx2": Target(
        "Jetson TX2",
        "trt",
        62,
        False,
        0,
        (4, 8),
        _OLD,
        sms=2,
        clock_ghz=1.3,
        bandwidth=59.7,
        power_w=(7.5, 15),
        note=f"{_NO_INT8}; figures of the 8 GB module",
        sources=_source("NVIDIA Jetson TX2 Series data sheet", clock="data sheet: 1.33 TFLOPS FP16 at 1.3 GHz"),
    ),
    "rtx-sm75": Target("GeForce RTX 20 and GTX 16 (Turing)", "rtx", 75, False),
    "rtx-sm80": Target("A100, A30 (Ampere)", "rtx", 80, True),
    "rtx-sm86": Target("GeForce RTX 30 (Ampere)", "rtx", 86, True),
    "rtx-sm89": Target("GeForce RTX 40 (Ada)", "rtx", 89, True),
    "rtx-sm120": Target("GeForce RTX 50 (Blackwell)", "rtx", 120, True),
    "rtx-sm121": Target("DGX Spark (Blackwell)", "rtx", 121, True),
}
