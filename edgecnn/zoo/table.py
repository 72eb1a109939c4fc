"""The list that `edgecnn zoo` prints."""

from __future__ import annotations

from typing import Any

from edgecnn.recipe import SIM_CLASSES, ModelSection
from edgecnn.zoo import NAMES, build, spec_for
from edgecnn.zoo.models import MODELS


def table() -> list[dict[str, Any]]:
    """One row a model: name, parameters, macs (multiply-accumulates of one picture), input, classes, about.

    Each has as many classes as its published figures are for; roadnet, its four. No weights are made.
    """
    import torch

    from edgecnn.zoo.count import size

    rows = []
    for name, about in NAMES.items():
        names = tuple(map(str, range(MODELS[name].classes))) if name in MODELS else SIM_CLASSES
        spec = spec_for(ModelSection.model_validate({"arch": name, "classes": names}))
        with torch.device("meta"):
            count = size(build(spec), spec.input.shape)
        rows.append(
            {
                "name": name,
                "parameters": count.parameters,
                "macs": count.macs,
                "input": "x".join(map(str, spec.input.shape)),
                "classes": len(names),
                "about": about,
            }
        )
    return rows
