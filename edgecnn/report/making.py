"""How the bundle came about: curves of the training, cuts that a search compared, stages and their facts."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from edgecnn.bundle import Bundle
from edgecnn.report.html import legend, section, size, table, tree
from edgecnn.report.svg import curves, scatter

Json = Mapping[str, Any]
STAGE_WORDS = {
    "train": "Train",
    "slim": "Slim",
    "export": "Export to ONNX",
    "quantize": "Quantise to INT8",
    "build": "Build the engine",
}


def learning(bundle: Bundle) -> str:
    """Curves of the training, where there was more than one epoch of it."""
    facts = bundle.stages["train"].facts if "train" in bundle.stages else {}
    named = (("losses", "loss"), ("validation", facts.get("figure", "")), ("rates", "rate"))
    rows = {words: facts[key] for key, words in named if len(facts.get(key, ())) > 1}
    if not rows:
        return ""
    words = "Mean loss of each epoch, and the learning rate at its end."
    if "best_epoch" in facts:
        words += (
            f" {facts['figure']} is on the validation pictures; the weights are those of epoch {facts['best_epoch']}."
        )
    return section("Learning curves", f"{curves(rows, 'Learning curves')}<p>{escape(words)}</p>")


def search(bundle: Bundle) -> str:
    """Price and loss of the cuts that a search compared."""
    found = bundle.stages["slim"].facts.get("search") if "slim" in bundle.stages else None
    if not found:
        return ""
    rows = {name: [(point["price"], point["loss"]) for point in row] for name, row in found["points"].items()}
    plot = scatter(rows, found["unit"], "loss", "Cuts: price and loss")
    words = "Loss on the pictures at hand before fine-tuning, over the price that the layers add up to"
    colours = legend([(f"s{i}", name) for i, name in enumerate(rows)])
    return section("Where to cut", f"{plot}{colours}<p>{escape(words)} ({escape(found['machine'])}).</p>")


def stages(bundle: Bundle) -> str:
    rows = []
    for name, record in bundle.stages.items():
        for role, (file, digest) in record.files.items():
            path = bundle.path / file
            weight = size(path.stat().st_size) if path.is_file() else "missing"
            seconds = f"{record.facts.get('stage_seconds', 0):.1f}"
            rows.append([STAGE_WORDS[name], role, file, weight, digest[:12], seconds])
    return section("From recipe to engine", table(["stage", "role", "file", "size", "sha256", "stage s"], rows))


def facts(stage: str, facts: Json) -> str:
    return section(STAGE_WORDS[stage], tree(facts), closed=True) if facts else ""
