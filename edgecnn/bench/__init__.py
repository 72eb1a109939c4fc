"""How fast a bundle is on this machine: every stage, FP32 beside INT8, detection in every frame beside every k-th.

All variants take turns on each frame, in one process, so that a clock that drops or a neighbour that wakes hits all
alike; ratios are medians of ratios on the same frame. Frames are read first and held in memory: decoding, which has its
own thread in `run`, would disturb the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from itertools import islice
from typing import Any

import numpy as np

from edgecnn.backends import FRAME, Backend, Precision, choose, open_backend
from edgecnn.bench.sampler import Sampler
from edgecnn.bench.sensors import peak_mib, power_mode, summary
from edgecnn.bundle import Bundle, ModelSpec
from edgecnn.cpu import cpu
from edgecnn.errors import InputError
from edgecnn.progress import note, tracked
from edgecnn.run import Pipeline, RunSettings, open_source
from edgecnn.run.tally import versions
from edgecnn.run.timing import Laps, StageTimes, percentiles
from edgecnn.scene import Frame
from edgecnn.vision import Preprocess

SOURCE = "sim:1"
WARM = 5  # frames that are run and not counted
LEAST = 10  # frames that are counted

Lane = Callable[[Frame], Mapping[str, int]]  # runs one variant on a frame → stage times, ns


def bench(
    bundle: Bundle,
    source: str | None = None,
    *,
    frames: int = 100,
    threads: int = 1,
    settings: RunSettings | None = None,
) -> dict[str, Any]:
    """Time `frames` frames of a source (None: a simulated drive) on `threads` threads.

    → {lanes: {name: {role, detect_every, stages: {stage: percentiles in ms}, fps, not_inference}}, decode, ratios, …};
    JSON-able. `fps` is what one camera gets with decoding in its own thread; `not_inference` the share of the time of a
    frame, decoding apart, that is not the network's. `board` is what the machine told meanwhile (`sensors.summary`),
    `memory` the process's peak and of it the frames held. A classifier is timed in preprocess and infer alone.
    Raises InputError where the source gives too few frames, and what `open_backend` raises.
    """
    model, settings = bundle.require_model(), settings or RunSettings.of(bundle)
    backends = {name: open_backend(bundle, name, threads=threads) for name in precisions_of(bundle)}
    load = round(os.getloadavg()[0], 2)  # of the last minute, before the bench adds its own
    if load > (os.cpu_count() or 1) / 2:
        note(f"warning: the machine is busy (load {load}): times are too long, ratios suffer less")
    pictures, fps, decode = read_frames(source or SOURCE, frames)
    lanes = lanes_of(model, backends, settings, fps)
    times = {name: StageTimes() for name in lanes}
    order = list(lanes)
    with Sampler() as sampler:
        for count, frame in enumerate(tracked(pictures, "bench", len(pictures))):
            order.append(order.pop(0))  # nobody is always first after the pause
            for name in order:
                ns = lanes[name](frame)
                if count >= WARM:
                    times[name].add({**ns, "frame": sum(ns.values())})
    mode, peak = power_mode(), peak_mib()
    return {
        "bundle": str(bundle.path),
        "name": bundle.name,
        "source": source or SOURCE,
        "picture": list(pictures[0].bgr.shape[1::-1]),
        "input": [model.width, model.height],
        "frames": len(pictures) - WARM,
        "threads": threads,
        "machine": {"cpu": cpu()[0], "cores": os.cpu_count(), "load": load, "versions": versions()},
        "board": summary(sampler.readings) | ({"power_mode": mode} if mode else {}),
        "memory": {"frames_mib": round(sum(frame.bgr.nbytes for frame in pictures) / 2**20, 1)}
        | ({"peak_mib": peak} if peak else {}),
        "decode": percentiles(decode[WARM:]),
        "lanes": {name: _figures(name, times[name], bundle, settings, decode) for name in lanes},
        "ratios": _ratios(times),
    }


def precisions_of(bundle: Bundle) -> list[Precision]:
    """What can run here, the last also in every k-th frame. An engine counts only where `auto` would take it: there has
    to be a GPU for it."""
    known: list[Precision] = ["fp32"]
    if bundle.has("int8_cpu") and find_spec("openvino"):
        known.append("openvino")
    if bundle.has("int8") or bundle.has("int8_cpu"):
        known.append("int8")
    if choose(bundle, "auto") == "engine":
        known.append("engine")
    return known


def read_frames(text: str, frames: int) -> tuple[list[Frame], float, np.ndarray[Any, np.dtype[np.float64]]]:
    """→ frames, frames a second of the source, decoding times (N,) ms."""
    with open_source(text) as source:
        kept, decode = [], []
        for frame in islice(source, frames + WARM):
            kept.append(frame)
            decode.append(source.decode_ns / 1e6)
        if len(kept) < WARM + LEAST:
            raise InputError(f"{text} gave {len(kept)} frames", wanted=f"{WARM + LEAST} or more, to time them")
        return kept, source.fps, np.array(decode)


def lanes_of(
    model: ModelSpec, backends: Mapping[Precision, Backend], settings: RunSettings, fps: float
) -> dict[str, Lane]:
    if model.task != "detect":
        return {name: _single(model, backend) for name, backend in backends.items()}
    lanes: dict[str, Lane] = {}
    for name, backend in backends.items():
        lanes[name] = _tracker(Pipeline(model, backend, replace(settings, detect_every=1), fps=fps))
    if settings.detect_every > 1:
        name, backend = list(backends.items())[-1]
        lanes[f"{name}/{settings.detect_every}"] = _tracker(Pipeline(model, backend, settings, fps=fps))
    return lanes


def _tracker(pipeline: Pipeline) -> Lane:
    return lambda frame: pipeline.step(frame).ns


def _single(model: ModelSpec, backend: Backend) -> Lane:
    preprocess = Preprocess(model)

    def step(frame: Frame) -> Mapping[str, int]:
        laps = Laps()
        tensor, _ = preprocess(frame.bgr)
        laps.lap("preprocess")
        backend({model.input.name: tensor, FRAME: np.array(frame.index, np.int64)})
        laps.lap("infer")
        return laps.ns

    return step


def _figures(
    name: str, times: StageTimes, bundle: Bundle, settings: RunSettings, decode: np.ndarray[Any, np.dtype[np.float64]]
) -> dict[str, Any]:
    precision, _, every = name.partition("/")
    total, infer = times.ms("frame"), times.ms("infer")
    stages = {stage: {**row, "per_s": round(1e3 / row["mean"], 1)} for stage, row in times.table().items()}
    return {
        "role": choose(bundle, precision),  # type: ignore[arg-type]
        "detect_every": int(every or 1),
        "detector_frames": round(len(infer) / len(total), 4),
        "stages": stages,
        "fps": round(1e3 / max(float(total.mean()), float(decode[WARM:].mean())), 1),
        "not_inference": round(1 - float(infer.sum() / total.sum()), 4),
    }


def _ratios(times: Mapping[str, StageTimes]) -> dict[str, dict[str, float]]:
    """How many times faster each lane is than FP32 in every frame: quartiles over frames, and `total` over all."""
    ratios = {}
    base = times["fp32"]
    for name, other in times.items():
        if name == "fp32":
            continue
        frame = base.ms("frame") / other.ms("frame")
        p25, p50, p75 = np.percentile(frame, [25, 50, 75])
        row = {"frame_p25": p25, "frame_p50": p50, "frame_p75": p75}
        row["frame_total"] = base.ms("frame").sum() / other.ms("frame").sum()
        if len(other.ms("infer")) == len(base.ms("infer")):
            row["infer_p50"] = float(np.median(base.ms("infer") / other.ms("infer")))
        ratios[name] = {key: round(float(value), 3) for key, value in row.items()}
    return ratios
