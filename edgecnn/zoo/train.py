"""The train stage: a zoo model with the recipe's weights, trained further or from scratch."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.bundle import Bundle, ModelSpec, sha256, stage_key
from edgecnn.errors import InputError
from edgecnn.recipe import Recipe
from edgecnn.zoo import build as build_net
from edgecnn.zoo import load, save_weights, spec_for, weights_path

if TYPE_CHECKING:
    from torch import nn

    from edgecnn.zoo.schedule import Epoch

VERSION = 2
FILE = "weights.safetensors"
CHECKPOINT = "train.checkpoint.pt"  # in the bundle's folder while training is under way


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
    """Write weights.safetensors. A run that was killed is taken up after the last epoch that it finished.

    Under torchrun the first process is here, and the others in `assist`.
    """
    import torch

    from edgecnn.zoo.count import size
    from edgecnn.zoo.evaluate import figure_name
    from edgecnn.zoo.resume import Checkpoint
    from edgecnn.zoo.schedule import best_epoch

    net, spec, epochs = trained(recipe, bundle.path)
    save_weights(bundle.path / FILE, net, spec)
    counted = size(build_net(spec), spec.input.shape)  # without auxiliary heads
    path = weights_path(recipe.model)
    facts: dict[str, Any] = {
        "parameters": counted.parameters,
        "macs": counted.macs,
        "bytes": (bundle.path / FILE).stat().st_size,
        "started_from": "random weights" if path is None else path.name,
        "losses": [round(epoch.loss, 4) for epoch in epochs],
        "rates": [float(f"{epoch.rate:.3g}") for epoch in epochs],
    }
    if (best := best_epoch(epochs)) is not None:
        facts["validation"] = [round(epoch.figure or 0.0, 4) for epoch in epochs]
        facts["figure"], facts["best_epoch"] = figure_name(spec), best + 1
    made = bundle.with_stage(
        "train",
        settings=settings(recipe),
        version=VERSION,
        files={"weights": FILE},
        facts=facts,
        tools={"torch": torch.__version__},
        model=spec,
    )
    Checkpoint(bundle.path / CHECKPOINT, "").remove()
    return made


def assist(folder: Path, recipe: Recipe) -> None:
    """Take this process's share of the training that the first process does for the bundle in `folder`. Says nothing,
    writes nothing."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
        trained(recipe, folder)


def trained(recipe: Recipe, folder: Path) -> tuple[nn.Module, ModelSpec, list[Epoch]]:
    """The network, its spec, and what each epoch came to."""
    import torch

    from edgecnn.zoo.batches import Batchable
    from edgecnn.zoo.fit import learn
    from edgecnn.zoo.parallel import joined
    from edgecnn.zoo.resume import Checkpoint

    section = recipe.train
    spec, path, train = spec_for(recipe.model), weights_path(recipe.model), section.epochs > 0
    torch.manual_seed(section.seed)
    if path is None:
        net = build_net(spec, aux=train)
    else:
        net, spec = load(path, spec, aux=train, new_head=train)
    if not train:
        return net, spec, []
    data = Batchable.read(spec, section.data, "pictures to train on")
    check = None
    if section.validate_on is not None:
        check = Batchable.read(spec, section.validate_on, "pictures to validate on")
    keep = Checkpoint(folder / CHECKPOINT, stage_key("", settings(recipe), VERSION))
    with joined():
        epochs = learn(net, spec, section, data, check, keep=keep)
    return net, spec, epochs
