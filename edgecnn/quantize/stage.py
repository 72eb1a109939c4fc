"""The stage itself: plan → even channels → ranges → weak kernels back to float → biases → both files → how far off."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]
from onnx import ModelProto

from edgecnn.bundle import Bundle, ModelSpec, atomic
from edgecnn.data import Dataset, open_dataset
from edgecnn.data.calibration import open_list
from edgecnn.data.files import read_text
from edgecnn.errors import InputError
from edgecnn.onnxfile import resized
from edgecnn.progress import note, tracked
from edgecnn.quantize.correct import Rounding, corrected, decibel, measure
from edgecnn.quantize.cpu import cpu_form
from edgecnn.quantize.equalize import equalized
from edgecnn.quantize.graph import load, prepare
from edgecnn.quantize.insert import Plan, insert, plan, scales
from edgecnn.quantize.qat import Tune
from edgecnn.quantize.ranges import Histogram, amax, collect, methods, tapped
from edgecnn.recipe import QuantizeSection, Recipe
from edgecnn.scene import F32
from edgecnn.vision import Preprocess

FLOOR_DB = 20.0  # a kernel whose own rounding noise exceeds a hundredth of its output's power stays float
MEASURED = 32  # pictures on which rounding is measured and biases are corrected
COMPARED = 4  # pictures on which FP32 and INT8 outputs are compared
SHOWN_BINS = 64  # of the histograms that the report shows
FEW = 16  # fewer calibration pictures than this deserve a warning


@dataclass(frozen=True)
class Quantized:
    """Both INT8 forms of one network and what was found on the way."""

    tensorrt: ModelProto
    cpu: ModelProto
    plan: Plan
    amax: dict[str, float]  # tensor -> magnitude that becomes level 127
    histograms: dict[str, Histogram]  # of the same tensors
    rounding: dict[str, Rounding]  # kernel -> its error, the weak ones included
    weak: tuple[str, ...]  # kernels that stay float because of their error
    samples: list[F32]  # at most MEASURED of the inputs, spread over all
    qat: Mapping[str, Any] | None = None  # what training came to


def quantize(model: ModelProto, feeds: Sequence[F32], section: QuantizeSection, tune: Tune | None = None) -> Quantized:
    """Quantise an FP32 network on calibration inputs (1, C, H, W); with `tune`, train it under rounding as well.

    Raises InputError if there is none or `ranges_from` does not fit, RecipeError for an unknown name in `keep_float` or
    `ranges`, ModelError for inf or nan.
    """
    model = prepare(model)
    chosen = plan(model, section.keep_float)
    some = [feeds[i] for i in range(0, len(feeds), max(1, -(-len(feeds) // MEASURED)))]
    model = equalized(model, some)
    method = methods(chosen.tensors, section.ranges)
    every = (feeds[i] for i in range(len(feeds)))
    histograms = collect(model, chosen.tensors, tracked(every, "calibrate", len(feeds)), section.bins)
    ranges = {name: amax(h, method[name], section.percentile) for name, h in histograms.items()}
    if section.ranges_from is not None:
        ranges |= given(section.ranges_from, chosen.tensors)
    entry = model.graph.input[0].name
    if entry in ranges and histograms[entry].max <= 128 and all(np.array_equal(x, np.rint(x)) for x in some):
        ranges[entry] = 127.0  # whole numbers from -128 to 127, such as a picture less 128, are int8 as they stand
    scale = scales(chosen, ranges)
    rounding = measure(model, chosen, scale, tracked(some, "measure rounding", len(some)))
    weak = tuple(name for name, error in rounding.items() if error.sqnr_db < FLOOR_DB)
    if weak:
        chosen = plan(model, {*section.keep_float, *weak})
        scale = scales(chosen, ranges)
    better = corrected(model, {name: rounding[name] for name in chosen.kernels})
    tuned = None if tune is None else tune(model, better, chosen, scale)
    if tuned is not None and tuned.better:
        better, scale = tuned.model, tuned.scale
        rounding |= measure(better, chosen, scale, some)
    return Quantized(
        tensorrt=insert(better, chosen.points, scale, chosen.kernels),
        cpu=cpu_form(better, chosen, scale),
        plan=chosen,
        amax={name: value * 127 for name, value in scale.items()},
        histograms={name: histograms[name] for name in scale},
        rounding=rounding,
        weak=weak,
        samples=some,
        qat=None if tuned is None else tuned.facts,
    )


def sqnr(reference: ModelProto, other: ModelProto, feeds: Iterable[F32], *, optimise: bool) -> dict[str, float]:
    """Output → dB of the reference's power over the power of the difference, both on onnxruntime.

    Pairs in TensorRT's form are compared without graph optimisation, as written.
    """
    first, second = tapped(reference, ()), tapped(other, (), optimise=optimise)
    names, feed = [o.name for o in first.get_outputs()], first.get_inputs()[0].name
    power, noise = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for x in feeds:
        for name, a, b in zip(names, first.run(names, {feed: x}), second.run(names, {feed: x}), strict=True):
            power[name] += float(np.square(a, dtype=np.float64).sum())
            noise[name] += float(np.square(a.astype(np.float64) - b).sum())
    return {name: round(decibel(power[name], noise[name]), 1) for name in names}


def quantize_bundle(bundle: Bundle, recipe: Recipe, settings: dict[str, Any], version: int) -> Bundle:
    """Body of the stage."""
    spec, section = bundle.require_model(), recipe.quantize
    source = load(bundle.file("fp32"))
    data = calibration(section)
    if len(data) < FEW:
        note(f"calibrating on {len(data)} pictures only; 64 or more of the road that the camera will see are better")
    result = quantize(source, Inputs(spec, data), section, trainer(spec, section, data))
    files = {
        "int8": "model.int8.onnx",
        "int8_cpu": "model.int8.cpu.onnx",
        "ranges": "ranges.json",
        "histograms": "histograms.json",
    }
    save(result.tensorrt, bundle.path / files["int8"])
    save(result.cpu, bundle.path / files["int8_cpu"])
    if spec.regions is not None:  # the same scales and weights at the second input size
        files |= {"int8_regions": "model.regions.int8.onnx", "int8_cpu_regions": "model.regions.int8.cpu.onnx"}
        save(resized(result.tensorrt, *spec.regions), bundle.path / files["int8_regions"])
        save(resized(result.cpu, *spec.regions), bundle.path / files["int8_cpu_regions"])
    with atomic(bundle.path / files["ranges"]) as temporary:
        temporary.write_text(json.dumps(ranges_json(result, section, len(data)), indent=1), "utf-8")
    with atomic(bundle.path / files["histograms"]) as temporary:
        temporary.write_text(json.dumps(histograms_json(result), separators=(",", ":")), "utf-8")
    shown = result.samples[:: -(-len(result.samples) // COMPARED)]
    facts = {
        "kernels": len(result.plan.kernels) + len(result.plan.floats),
        "int8_kernels": len(result.plan.kernels),
        "kept_float": list(result.plan.floats),
        "weak": {name: round(result.rounding[name].sqnr_db, 1) for name in result.weak},
        "ranges": {name: _told(method, section.percentile) for name, method in section.ranges.items()},
        "pictures": len(data),
        "bytes": {role: (bundle.path / name).stat().st_size for role, name in files.items()},
        "sqnr_db": sqnr(source, result.tensorrt, shown, optimise=False),
        "sqnr_cpu_db": sqnr(source, result.cpu, shown, optimise=False),
    }
    if result.qat is not None:
        facts["qat"] = result.qat
    for name in result.weak:
        note(f"{name} stays float: rounding alone leaves it {result.rounding[name].sqnr_db:.1f} dB, under {FLOOR_DB:g}")
    tools = {"onnx": onnx.__version__, "onnxruntime": ort.__version__, "numpy": np.__version__}
    return bundle.with_stage("quantize", settings=settings, version=version, files=files, facts=facts, tools=tools)


class Inputs(Sequence[F32]):
    """Pictures through the one preprocess, (1, C, H, W) each, made when they are asked for."""

    def __init__(self, spec: ModelSpec, data: Dataset) -> None:
        self.preprocess, self.data = Preprocess(spec), data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> Any:
        return self.preprocess(self.data[index].bgr)[0].copy()


def calibration(section: QuantizeSection) -> Dataset:
    """The calibration list, or the data section where there is none."""
    if section.calibration is not None:
        return open_list(section.calibration)
    return open_dataset(section.data)


def trainer(spec: ModelSpec, section: QuantizeSection, data: Dataset) -> Tune | None:
    """What trains the network where the recipe asks for it. torch is loaded here, and nowhere else in the stage."""
    if section.qat is None:
        return None
    from edgecnn.quantize.qat.train import Trainer

    return Trainer(spec, section.qat, data if section.qat.data is None else open_dataset(section.qat.data))


def save(model: ModelProto, path: Path) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))


def given(path: Path, tensors: Sequence[str]) -> dict[str, float]:
    """Tensor → amax from the ranges.json of an earlier quantize, for those of the tensors that it has.

    Channels are evened before ranges are measured, so the figures hold for that network and those pictures.
    Raises InputError where the file is missing or damaged, or has none of the tensors.
    """
    text = read_text(path, "a ranges.json that `quantize` wrote")
    try:
        known = {name: float(value) for name, value in json.loads(text)["amax"].items() if name in tensors}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} holds no ranges ({error!r})", wanted="a ranges.json that `quantize` wrote") from None
    if not known or min(known.values()) <= 0:
        what = "a range that is not above 0" if known else f"none of the {len(tensors)} tensors, such as {tensors[0]}"
        raise InputError(f"{path} holds {what}", wanted="the ranges of this network")
    return known


def _told(method: str, percentile: float) -> str:
    return f"percentile {percentile:g}" if method == "percentile" else method


def ranges_json(result: Quantized, section: QuantizeSection, count: int) -> Mapping[str, Any]:
    trained = {} if result.qat is None else {"qat": result.qat}  # scales are learned from those of the method
    return trained | {
        "method": section.ranges,
        "percentile": section.percentile,
        "bins": section.bins,
        "pictures": count,
        "amax": {name: result.amax[name] for name in sorted(result.amax)},
        # what the INT8 files' biases hold beyond the network's own: whoever leaves a kernel float takes it back
        "bias_correction": {
            name: [float(f"{mean:.6g}") for mean in result.rounding[name].mean] for name in result.plan.kernels
        },
    }


def histograms_json(result: Quantized) -> Mapping[str, Any]:
    """Tensor → counts of |x| in SHOWN_BINS equal bins from 0 to `reach`, its range, and what that range costs."""
    rows = {}
    for name, h in sorted(result.histograms.items()):
        clip = result.amax[name]
        noise = h.noise(clip)
        rows[name] = {
            "reach": h.reach,
            "max": h.max,
            "amax": clip,
            "clipped": h.clipped(clip),
            "sqnr_db": round(decibel(h.power(), noise), 1) if noise else 200.0,  # of a dead tensor too
            "counts": h.coarse(SHOWN_BINS),
        }
    return rows
