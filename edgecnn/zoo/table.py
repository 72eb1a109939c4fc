"""The list that `edgecnn zoo` prints."""

from __future__ import annotations

from typing import Any

from edgecnn.recipe import SIM_CLASSES, ModelSection
from edgecnn.zoo import NAMES, build, spec_for

CLASSES = {"lenet5": 10, "resnet18": 1000}  # with as many as its published figures are for; roadnet with its four


def table() -> list[dict[str, Any]]:
    """One row a model: name, parameters, macs (multiply-accumulates of one picture), input, classes, about."""
    from edgecnn.zoo.count import size

    rows = []
    for name, about in NAMES.items():
        names = tuple(str(i) for i in range(CLASSES[name])) if name in CLASSES else SIM_CLASSES
        spec = spec_for(ModelSection.model_validate({"arch": name, "classes": names}))
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
