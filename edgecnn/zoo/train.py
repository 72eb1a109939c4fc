"""The train stage: a zoo model with the recipe's weights, trained further or from scratch."""

from __future__ import annotations

from typing import Any

from edgecnn.bundle import Bundle, sha256
from edgecnn.errors import InputError
from edgecnn.recipe import Recipe
from edgecnn.zoo import build as build_net
from edgecnn.zoo import load, save_weights, spec_for, weights_path

VERSION = 1
FILE = "weights.safetensors"


def settings(recipe: Recipe) -> dict[str, Any]:
    own = {
        "model": recipe.model.model_dump(mode="json", exclude={"weights"}),
        "train": recipe.train.model_dump(mode="json"),
    }
    path = weights_path(recipe.model)
    if path is not None:
        if not path.is_file():
            raise InputError(f"no weights at {path}", do="Name a file under model.weights, or `shipped`")
        own["weights_sha256"] = {"sha256": sha256(path)}
    return own


def run_stage(bundle: Bundle, recipe: Recipe) -> Bundle:
    """Write weights.safetensors."""
    import torch

    from edgecnn.zoo.count import size
    from edgecnn.zoo.fit import fit

    spec, path = spec_for(recipe.model), weights_path(recipe.model)
    torch.manual_seed(recipe.train.seed)
    if path is None:
        net = build_net(spec)
    else:
        net, spec = load(path, spec)
    losses = fit(net, spec, recipe.train)
    save_weights(bundle.path / FILE, net, spec)
    counted = size(net, spec.input.shape)
    facts = {
        "parameters": counted.parameters,
        "macs": counted.macs,
        "bytes": (bundle.path / FILE).stat().st_size,
        "losses": [round(loss, 4) for loss in losses],
        "started_from": "random weights" if path is None else path.name,
    }
    return bundle.with_stage(
        "train",
        settings=settings(recipe),
        version=VERSION,
        files={"weights": FILE},
        facts=facts,
        tools={"torch": torch.__version__},
        model=spec,
    )
