"""The slim stage: the recipe's steps, one after the other, each a pure function `(network, spec, step) -> (network,
spec, report line)`. A step that does not fit raises ModelError naming the layer, and leaves what it got untouched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.bundle import Bundle, ModelSpec
from edgecnn.errors import RecipeError
from edgecnn.progress import note
from edgecnn.recipe import DataSection, Recipe, SlimStep

if TYPE_CHECKING:
    from torch import nn

VERSION = 2
FILE = "slim.safetensors"


def settings(recipe: Recipe) -> dict[str, Any]:
    if recipe.slim is None:
        raise RecipeError("the recipe has no `slim:` section", do="Add one, e.g. slim: {steps: [{prune: {macs: 0.3}}]}")
    return {**recipe.slim.model_dump(mode="json"), "check": _checked_on(recipe).model_dump(mode="json")}


def _checked_on(recipe: Recipe) -> DataSection:
    assert recipe.slim is not None
    return recipe.slim.check or recipe.check.data


def apply(
    net: nn.Module,
    spec: ModelSpec,
    step: SlimStep,
    unslimmed: nn.Module,
    full: ModelSpec | None = None,
    folder: Path | None = None,
) -> tuple[nn.Module, ModelSpec, str]:
    """One step on a copy of the network; `unslimmed`, whose spec is `full`, teaches where the step distils. In `folder`
    a search keeps what it found."""
    match step:
        case SlimStep(gap=True):
            from edgecnn.slim.gap import with_gap

            return with_gap(net, spec)
        case SlimStep(low_rank=settings) if settings is not None:
            from edgecnn.slim.lowrank import low_ranked

            return low_ranked(net, spec, settings)
        case SlimStep(reduce=settings) if settings is not None:
            from edgecnn.slim.lowrank import reduced

            return reduced(net, spec, settings)
        case SlimStep(bottleneck=settings) if settings is not None:
            from edgecnn.slim.bottleneck import bottlenecked

            return bottlenecked(net, spec, settings)
        case SlimStep(factorize=settings) if settings is not None:
            from edgecnn.slim.factorize import factorized

            return factorized(net, spec, settings)
        case SlimStep(classes=settings) if settings is not None:
            from edgecnn.slim.classes import with_classes

            return with_classes(net, spec, settings)
        case SlimStep(prune=settings) if settings is not None:
            from edgecnn.slim.prune import pruned

            return pruned(net, spec, settings, unslimmed, full)
        case SlimStep(sparsify="2:4"):
            from edgecnn.slim.sparsify import sparsified

            return sparsified(net, spec)
        case SlimStep(search=settings) if settings is not None:
            from edgecnn.slim.search import searched

            return searched(net, spec, settings, unslimmed, full, folder)
        case SlimStep(finetune=settings) if settings is not None:
            from edgecnn.slim.finetune import finetuned

            return finetuned(net, spec, settings, unslimmed, full)
    raise AssertionError(step)


def run_stage(bundle: Bundle, recipe: Recipe) -> Bundle:
    """Write slim.safetensors, which describes its own layers and widths."""
    import torch
    import torch_pruning  # type: ignore[import-untyped]

    from edgecnn import zoo
    from edgecnn.zoo.count import size
    from edgecnn.zoo.fit import Batchable, accuracy

    section = recipe.slim
    assert section is not None
    seen: dict[Any, Batchable] = {}

    def measured(model: nn.Module, its: ModelSpec) -> float:
        """After a `classes` step, other pictures."""
        key = its.input, its.classes
        if key not in seen:
            seen[key] = Batchable.read(its, _checked_on(recipe), "pictures to check on")
        return round(accuracy(model, its, seen[key]), 4)

    before, full = zoo.load(bundle.file("weights"), bundle.require_model())
    net, spec, lines, accuracies = before, full, list[str](), list[float]()
    for step in section.steps:
        net, spec, line = apply(net, spec, step, before, full, bundle.path)
        note(line)
        lines.append(line)
        accuracies.append(measured(net, spec))
    zoo.save_weights(bundle.path / FILE, net, spec)

    rows: dict[str, dict[str, float]] = {}
    for name, model, its, told in (
        ("before", before, full, measured(before, full)),
        ("after", net, spec, accuracies[-1]),
    ):
        counted = size(model, its.input.shape)
        rows[name] = {
            "parameters": counted.parameters,
            "macs": counted.macs,
            "bytes": counted.bytes,
            "accuracy": told,
        }
    figure = "top-1" if spec.task == "classify" else "AP50"
    for key, unit in (("parameters", ""), ("macs", ""), ("bytes", ""), ("accuracy", f" ({figure})")):
        note(f"{key}{unit}: {rows['before'][key]:,} -> {rows['after'][key]:,}")
    facts = {**rows, "figure": figure, "steps": lines, "accuracies": accuracies}
    if any(step.search is not None for step in section.steps):
        from edgecnn.slim.search import POINTS

        facts["search"] = json.loads((bundle.path / POINTS).read_text("utf-8"))
    return bundle.with_stage(
        "slim",
        settings=settings(recipe),
        version=VERSION,
        files={"slim": FILE},
        facts=facts,
        tools={"torch": torch.__version__, "torch-pruning": torch_pruning.__version__},
        model=spec,
    )
