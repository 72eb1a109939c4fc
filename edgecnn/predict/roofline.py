"""Microseconds of every kernel on a board: the larger of arithmetic and memory traffic, and a launch.

A roofline (Williams et al. 2009, doi:10.1145/1498765.1498785) for each kernel.

A product of m x n x k runs as tiles on the board's SMs, so a small layer leaves SMs idle: for each tile size and each
split of k, waves = ceil(tiles / SMs), and a tile takes (k + prologue) products for each of its outputs. The fastest is
taken, as TensorRT's timing would. The six constants of a kernel and the two of a runtime that launches from the CPU
were fitted by `benchmarks/predict_table.py --fit` on published latencies; docs/targets.md tells the error, also on
boards and networks that the fit had not seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecnn.build.boards import Gpu, Target
from edgecnn.errors import BuildError
from edgecnn.predict.kernels import BYTES, Kernel, Plan

Floats = NDArray[np.float64]

TILES = np.array([(m, n) for m in (32, 64, 128, 256) for n in (16, 32, 64, 128, 256) if 2**10 <= m * n <= 2**15], float)
SPLITS = np.array([1.0, 2.0, 4.0, 8.0])  # parts of k that run beside one another
VECTOR = 32  # bytes of k that a load brings: fewer input channels are padded


@dataclass(frozen=True)
class Constants:
    """What no data sheet tells."""

    launch_us: float  # from one kernel's end to the next one's start, in a CUDA graph
    compute: float  # share of the peak rate that a large tile reaches
    prologue: float  # bytes of k that filling a tile's pipeline and writing it out are worth
    border: float  # loads: a tile of m x n outputs takes 1 + border (1/m + 1/n) times its arithmetic
    bandwidth: float  # share of the memory's bandwidth
    depthwise: float  # share of the CUDA cores' FP32 rate
    enqueue_us: float  # besides, a kernel that the CPU launches one by one
    call_ms: float  # besides, a call from Python that waits for the result


@dataclass(frozen=True)
class Columns:
    """A plan as arrays, an element a kernel."""

    product: NDArray[np.bool_]
    depthwise: NDArray[np.bool_]
    width: Floats  # bytes of an element of the inputs
    groups: Floats
    m: Floats
    n: Floats
    k: Floats
    moved: Floats  # bytes read and written, weights included

    @classmethod
    def of(cls, plan: Plan) -> Columns:
        def column(values: list[int]) -> Floats:
            return np.array(values, np.float64)

        kernels = plan.kernels
        return cls(
            np.array([k.kind == "conv" for k in kernels]),
            np.array([k.kind == "depthwise" for k in kernels]),
            column([BYTES[k.precision] for k in kernels]),
            column([k.groups for k in kernels]),
            column([k.m for k in kernels]),
            column([k.n for k in kernels]),
            column([k.k for k in kernels]),
            column([_moved(plan, k) for k in kernels]),
        )


def _moved(plan: Plan, kernel: Kernel) -> int:
    tensors = (*kernel.read.items(), *kernel.written.items())
    return kernel.weights * BYTES[kernel.precision] + sum(plan.size(*tensor) for tensor in tensors)


def microseconds(columns: Columns, target: Target, constants: Constants) -> tuple[Floats, Floats]:
    """Of each kernel: arithmetic and memory traffic. It takes the larger, and a launch.

    Raises BuildError for a target whose rates or bandwidth are not known.
    """
    gpu, sms, clock, bandwidth = target.gpu, target.sms, target.clock_ghz, target.bandwidth
    if gpu is None or sms is None or clock is None or bandwidth is None:
        raise BuildError(f"no source tells the arithmetic rates of {target.title}", wanted="a board with known rates")
    memory = columns.moved / (1e3 * bandwidth * constants.bandwidth)
    arithmetic = np.zeros_like(memory)
    products, depthwise = columns.product, columns.depthwise
    cycles = _cycles(columns, gpu, sms, constants)
    arithmetic[products] = cycles / (1e3 * clock * constants.compute)
    operations = 2 * (columns.groups * columns.m * columns.n * columns.k)[depthwise]
    arithmetic[depthwise] = operations / (1e3 * clock * sms * gpu.cuda * constants.depthwise)
    return arithmetic, memory


def _cycles(columns: Columns, gpu: Gpu, sms: int, constants: Constants) -> Floats:
    """Clocks of the products at the peak rate of an SM, with idle SMs, padding and borders."""
    rows = columns.product
    width = columns.width[rows, None, None]
    groups, m, n, k = (c[rows, None, None] for c in (columns.groups, columns.m, columns.n, columns.k))
    tile_m, tile_n = TILES[None, :, :1], TILES[None, :, 1:]
    vector = VECTOR / width
    padded = np.ceil(k / vector) * vector / SPLITS
    waves = np.ceil(groups * np.ceil(m / tile_m) * np.ceil(n / tile_n) * SPLITS / sms)
    products = tile_m * tile_n * (padded + constants.prologue / width)
    rate = np.select([width == 1, width == 2], [gpu.int8 or gpu.fp16, gpu.fp16], gpu.fp32)
    cycles: Floats = waves * products * (1 + constants.border * (1 / tile_m + 1 / tile_n)) * 2 / rate
    best: Floats = cycles.min(axis=(1, 2), initial=np.inf)
    return best
