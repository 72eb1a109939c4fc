"""The range of every tensor that will be quantised, measured on pictures that went through the one preprocess.

Histograms of |x| over the whole calibration list; a range is their maximum, a percentile, the clip at which 8 bits
lose the least information (Migacz, "8-bit Inference with TensorRT", GTC 2017: least Kullback-Leibler divergence), or
the clip with the least squared error of rounding and clipping together (Choukroun et al. 2019, arXiv:1902.06822).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import ModelProto

from edgecnn.cpu import saturates
from edgecnn.errors import InputError, ModelError, RecipeError
from edgecnn.scene import F32

Method = Literal["percentile", "entropy", "mse", "max"]
QUANTISED = 128  # magnitudes that int8 tells apart
CLIPPED = 0.05  # at most, of the values, by least divergence
CLIPS = 256  # clips that are tried, evenly spaced up to the maximum
TINY = 1e-20  # a tensor that never exceeds this is dead


class Histogram:
    """Counts of |x| in equal bins from 0. Its reach doubles when a larger value comes, so one pass is enough.

    Twice the bins asked for are kept: after a doubling the values still spread over at least that many.
    """

    def __init__(self, bins: int) -> None:
        self.counts: NDArray[np.int64] = np.zeros(2 * bins, np.int64)
        self.reach = 0.0
        self.max = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Raises ValueError for inf and nan."""
        size = np.abs(values).ravel()
        top = float(size.max(initial=0.0))
        if not np.isfinite(top):
            raise ValueError("not finite")
        if top < TINY and self.reach == 0.0:
            self.counts[0] += size.size  # it lies in the first bin whatever the reach will be
            return
        self.max = max(self.max, top)
        self.reach = self.reach or top
        while top > self.reach:
            self.reach *= 2
            half = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.concatenate([half, np.zeros_like(half)])
        last = len(self.counts) - 1
        index = np.minimum((size * np.float32((last + 1) / self.reach)).astype(np.int32), last)
        self.counts += np.bincount(index, minlength=last + 1)

    @property
    def width(self) -> float:
        return self.reach / len(self.counts)

    @property
    def values(self) -> NDArray[np.float64]:
        """What a count in each bin stands for: the bin's middle, but 0 for the first, where ReLU leaves its zeros."""
        middles = (np.arange(len(self.counts), dtype=np.float64) + 0.5) * np.float64(self.width)
        middles[0] = 0.0
        return middles

    def clipped(self, clip: float) -> float:
        """The share of the values that exceed a magnitude by more than a bin."""
        return float(self.counts[self.values - self.width / 2 > clip].sum() / max(self.counts.sum(), 1))

    def noise(self, clip: float) -> float:
        """The squared error, summed, of rounding to multiples of clip / 127 and clipping at `clip`."""
        values = self.values
        step = clip / (QUANTISED - 1)
        rounded = np.minimum(np.rint(values / step), QUANTISED - 1) * step
        return float(np.sum(self.counts * np.square(values - rounded)))

    def power(self) -> float:
        """The squares of the values, summed."""
        return float(np.sum(self.counts * np.square(self.values)))

    def coarse(self, bins: int) -> list[int]:
        """The counts in so many bins, from 0 to `reach`."""
        return [int(part.sum()) for part in np.array_split(self.counts, bins)]


def amax(histogram: Histogram, method: Method, percentile: float = 99.99) -> float:
    """The magnitude that becomes level 127."""
    if histogram.max == 0.0:
        return 0.0
    match method:
        case "max":
            return histogram.max
        case "percentile":
            share = np.cumsum(histogram.counts) / histogram.counts.sum()
            edge = int(np.searchsorted(share, percentile / 100)) + 1
            return min(edge * histogram.width, histogram.max)
        case "entropy":
            return min(_least_divergence(histogram.counts) * histogram.width, histogram.max)
        case "mse":
            clips = histogram.max * np.arange(1, CLIPS + 1) / CLIPS
            return float(min(clips[::-1], key=histogram.noise))  # of equals the widest


def methods(tensors: Sequence[str], ranges: Mapping[str, Method]) -> dict[str, Method]:
    """Tensor → method. Keys are names, with * as in file names: the first that fits counts, else `default`.

    Raises RecipeError for a key that fits no tensor.
    """
    patterns = [key for key in ranges if key != "default"]
    for key in patterns:
        if not any(fnmatchcase(name, key) for name in tensors):
            raise RecipeError(
                f"quantize.ranges names {key!r}", wanted=f"a quantised tensor, such as {', '.join(tensors[:4])}"
            )
    return {name: ranges[next((key for key in patterns if fnmatchcase(name, key)), "default")] for name in tensors}


def _least_divergence(counts: NDArray[np.int64], candidates: int = 256) -> int:
    """The number of bins to keep. The mass beyond joins the last kept bin; zeros would drown all else, so the first bin
    counts like the second, as NVIDIA's calibrators have it.

    Where the values lie far from 0, such as those of a sigmoid gate, a clip that leaves one of them inside diverges not
    at all: all mass is in one bin, before and after. So none is tried that clips more than CLIPPED.
    """
    counts = counts.astype(np.float64)
    counts[0] = counts[1]
    filled = int(np.flatnonzero(counts)[-1]) + 1 if counts.any() else 1
    if filled <= QUANTISED:
        return filled
    best, kept = np.inf, filled
    for edge in np.unique(np.linspace(QUANTISED, filled, candidates).astype(int)):
        inside = counts[:edge]
        if counts[edge:].sum() > CLIPPED * counts.sum():
            continue
        reference = inside.copy()
        reference[-1] += counts[edge:].sum()
        starts = (np.arange(QUANTISED) * edge) // QUANTISED
        some = inside > 0
        mass, many = np.add.reduceat(inside, starts), np.add.reduceat(some.astype(np.float64), starts)
        level = np.divide(mass, many, out=np.zeros_like(mass), where=many > 0)
        coarse = np.repeat(level, np.diff([*starts, edge])) * some
        p, q = reference / reference.sum(), coarse / max(coarse.sum(), 1e-12)
        divergence = float(np.sum(p[p > 0] * np.log(p[p > 0] / np.maximum(q[p > 0], 1e-9))))
        if divergence < best:
            best, kept = divergence, int(edge)
    return kept


def collect(model: ModelProto, tensors: Sequence[str], feeds: Iterable[F32], bins: int) -> dict[str, Histogram]:
    """Run the network on each (1, C, H, W) input and fill a histogram a tensor.

    Raises InputError if there is no picture, ModelError if a tensor becomes inf or nan.
    """
    session = tapped(model, tensors)
    feed = session.get_inputs()[0].name
    inner = [name for name in tensors if name != feed]
    histograms = {name: Histogram(bins) for name in tensors}
    pictures = 0
    for x in feeds:
        values = dict(zip(inner, session.run(inner, {feed: x}), strict=True)) if inner else {}
        if feed in histograms:
            values[feed] = x
        for name, value in values.items():
            try:
                histograms[name].add(value)
            except ValueError as error:
                raise ModelError(
                    f"tensor {name} becomes inf or nan on calibration picture {pictures + 1}",
                    wanted="finite values",
                    do="Check the weights and the preprocess of the recipe",
                ) from error
        pictures += 1
    if not pictures:
        raise InputError("the calibration list is empty", wanted="at least one picture, better 64 or more")
    return histograms


def tapped(model: ModelProto, tensors: Sequence[str], *, optimise: bool = True) -> ort.InferenceSession:
    """A CPU session of the network with further tensors among its outputs."""
    copy = ModelProto()
    copy.CopyFrom(model)
    known = {i.name for i in copy.graph.input} | {o.name for o in copy.graph.output}
    copy.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in tensors if name not in known
    )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    elif saturates():
        options.add_session_config_entry("session.x64quantprecision", "1")
    return ort.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
