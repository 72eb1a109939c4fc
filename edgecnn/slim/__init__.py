"""The slim stage: global average pooling in place of FC, channel pruning, and fine-tuning under the old network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgecnn.bundle import Bundle
from edgecnn.errors import RecipeError
from edgecnn.progress import note
from edgecnn.recipe import Recipe

VERSION = 1
FILE = "slim.safetensors"


def settings(recipe: Recipe) -> dict[str, Any]:
    if recipe.slim is None:
        raise RecipeError("the recipe has no `slim:` section", do="Add one, e.g. slim: {prune: 0.3}")
    return recipe.slim.model_dump(mode="json")


def run_stage(bundle: Bundle, recipe: Recipe) -> Bundle:
    """Write slim.safetensors, which describes its own widths."""
    import torch
    import torch_pruning  # type: ignore[import-untyped]

    from edgecnn import zoo
    from edgecnn.slim.gap import with_gap
    from edgecnn.slim.prune import prune
    from edgecnn.zoo.count import size
    from edgecnn.zoo.fit import Batchable, accuracy, add_gradients, fit
    from edgecnn.zoo.widths import read_widths

    section = recipe.slim
    assert section is not None
    before, spec = zoo.load(bundle.file("weights"), bundle.require_model())
    net = before
    if section.gap:
        net, spec = with_gap(net, spec)
    if section.prune:
        add_gradients(net, spec, section.finetune)
        net = prune(net, spec.input.shape, section.prune, section.round_to)
        spec = replace(spec, widths=read_widths(net))
    losses = fit(net, spec, section.finetune, guide=before)
    zoo.save_weights(bundle.path / FILE, net, spec)

    seen = Batchable.read(spec, section.check, "pictures to check on")
    rows: dict[str, dict[str, float]] = {}
    for name, model in (("before", before), ("after", net)):
        counted = size(model, spec.input.shape)
        rows[name] = {
            "parameters": counted.parameters,
            "macs": counted.macs,
            "bytes": counted.bytes,
            "accuracy": round(accuracy(model, spec, seen), 4),
        }
    figure = "top-1" if spec.task == "classify" else "AP50"
    for key, unit in (("parameters", ""), ("macs", ""), ("bytes", ""), ("accuracy", f" ({figure})")):
        note(f"{key}{unit}: {rows['before'][key]:,} -> {rows['after'][key]:,}")
    return bundle.with_stage(
        "slim",
        settings=settings(recipe),
        version=VERSION,
        files={"slim": FILE},
        facts={**rows, "figure": figure, "losses": [round(loss, 4) for loss in losses]},
        tools={"torch": torch.__version__, "torch-pruning": torch_pruning.__version__},
        model=spec,
    )
