"""Whether two networks give the same answers: onnxruntime with graph optimisation off, on random or given inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper

from edgecnn.build.lint.net import Net, Q
from edgecnn.errors import InputError, ModelError
from edgecnn.onnxfile import memory

EXACT_DB = 60.0  # noise of a repair that changes no number but by float rounding
ROUNDING_DB = 20.0  # of one that moves where numbers are rounded: a hundredth of the output's power
STRIPPED_DB = 10.0  # of one that takes all rounding away: noise inputs tell INT8 from float by 15 to 30 dB
RANDOM, SIGMAS = 3, 4  # inputs; and where their range ends

Feeds = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Parity:
    """Answers before and after a repair."""

    sqnr_db: float  # of the worst output and input; inf if no bit differs
    wanted_db: float
    inputs: int

    @property
    def ok(self) -> bool:
        return self.sqnr_db >= self.wanted_db

    def __str__(self) -> str:
        return f"{self.sqnr_db:.1f} dB over {self.inputs} inputs, wanted {self.wanted_db:g} dB"


def compare(before: ModelProto, after: ModelProto, feeds: Sequence[Feeds], wanted_db: float) -> Parity:
    """Signal over noise of the outputs. Raises ModelError where either network does not run."""
    worst = float("inf")
    one, two = _session(before, feeds[0]), _session(after, feeds[0])
    for feed in feeds:
        try:
            pairs = zip(one.run(None, dict(feed)), two.run(None, dict(feed)), strict=True)
        except Exception as error:  # onnxruntime's errors share no base class
            raise ModelError(f"onnxruntime does not run the network ({' '.join(str(error).split())[:160]})") from error
        for a, b in pairs:
            worst = min(worst, _sqnr(np.asarray(a, np.float64), np.asarray(b, np.float64)))
    return Parity(worst, wanted_db, len(feeds))


def _sqnr(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    if a.shape != b.shape or not np.isfinite(b).all():
        return -float("inf")
    signal, noise = float(np.square(a).sum()), float(np.square(a - b).sum())
    if noise == 0:
        return float("inf")
    return 10 * float(np.log10(signal / noise)) if signal else -float("inf")


def _session(model: ModelProto, feed: Feeds) -> Any:
    import onnxruntime as ort  # type: ignore[import-untyped]

    fixed = ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        if value.name in feed:
            kind = value.type.tensor_type.elem_type
            value.CopyFrom(helper.make_tensor_value_info(value.name, kind, feed[value.name].shape))
    need = memory(fixed)
    if need.unknown:
        raise ModelError(
            f"'{need.unknown[0]}' has a size that only running it tells, so nothing bounds the memory that it takes",
            wanted="shapes that follow from the inputs'",
        )
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class
        raise ModelError(f"onnxruntime does not load the network ({' '.join(str(error).split())[:160]})") from error


def random_feeds(model: ModelProto) -> list[Feeds]:
    """Normal, 4 sigma at the end of the range that the network's own first pair covers, or at 4; seeds 0, 1, 2.

    Wider ones leave the calibrated ranges, and a network that saturates is no equal of one without pairs.

    Raises ModelError for a dynamic shape or a type that has no obvious values.
    """
    net = Net(model)
    inputs = [i for i in model.graph.input if i.name not in net.constants]
    made: list[Feeds] = []
    for seed in range(RANDOM):
        rng = np.random.default_rng(seed)
        feed = {}
        for value in inputs:
            kind, dims = value.type.tensor_type, net.dims(value.name)
            dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
            if any(d < 0 for d in dims):
                raise ModelError(f"input '{value.name}' has no fixed shape", do="Give pictures: --inputs FILE.npz")
            scales = [s for q, _ in net.readers[value.name] if q.op_type == Q and (s := net.scale(q)) is not None]
            if dtype == np.uint8:
                feed[value.name] = rng.integers(0, 256, dims).astype(dtype)
            elif not np.issubdtype(dtype, np.floating):
                raise ModelError(f"input '{value.name}' is {dtype}", do="Give values: --inputs FILE.npz")
            elif scales:
                feed[value.name] = (rng.normal(size=dims) * float(scales[0].max()) * 127 / SIGMAS).astype(dtype)
            else:
                feed[value.name] = rng.normal(size=dims).astype(dtype)
        made.append(feed)
    return made


def given_feeds(model: ModelProto, arrays: Mapping[str, NDArray[Any]]) -> list[Feeds]:
    """One set of inputs from named arrays. Raises InputError for a missing name."""
    constants = {t.name for t in model.graph.initializer}
    names = [i.name for i in model.graph.input if i.name not in constants]
    if missing := [name for name in names if name not in arrays]:
        raise InputError(
            f"the file of inputs has no '{missing[0]}' (it has: {', '.join(arrays) or 'nothing'})",
            wanted=f"arrays named {', '.join(names)}",
        )
    return [{name: arrays[name] for name in names}]
