"""What `edgecnn sense` found: a page of its own, and a section of the bundle's report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from edgecnn.bundle import Bundle, atomic
from edgecnn.errors import InputError
from edgecnn.report.html import document, legend, pairs, section, table
from edgecnn.report.svg import frontier

Json = Mapping[str, Any]
FOLDER = "sense"  # in a bundle
KEYS = ("bundle", "key", "metric", "pictures", "max_drop", "fp32", "int8", "kept", "keep_float", "units", "points")


def write_page(folder: Path) -> Path:
    """Write sense.html beside sense.json, atomically. Raises InputError where that is missing or damaged."""
    found = _read(folder)
    title = f"{found['bundle']} – what INT8 costs"
    path = folder / "sense.html"
    with atomic(path) as temporary:
        temporary.write_text(document(title, [f"<header><h1>{escape(title)}</h1></header>", _body(found)]), "utf-8")
    return path


def sensed(bundle: Bundle) -> str:
    """The section of the bundle's `sense` folder; "" where there is none, or it is about another quantisation."""
    folder, record = bundle.path / FOLDER, bundle.stages.get("quantize")
    if record is None or not (folder / "sense.json").is_file():
        return ""
    found = _read(folder)
    return _body(found) if found["key"] == record.key else ""


def _read(folder: Path) -> Json:
    path = folder / "sense.json"
    try:
        data = json.loads(path.read_text("utf-8"))
        return {key: data[key] for key in (*KEYS, "evaluations")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not readable ({error})", do="Run it again: edgecnn sense") from error


def _body(found: Json) -> str:
    metric, kept = found["metric"], found["kept"]
    rows = {kind: [(100 * x, y) for x, y in row] for kind, row in found["points"].items()}
    least = found["fp32"]["metric"] - found["max_drop"]
    plot = frontier(
        rows, (least, f"may lose {found['max_drop']:g}"), "% of multiply-adds in float", metric, "What float buys"
    )
    facts = [
        (f"{metric}, FP32", f"{found['fp32']['metric']:.4f}"),
        (f"{metric}, INT8", f"{found['int8']['metric']:.4f}"),
        ("units to keep in float", ", ".join(kept["units"]) or "none"),
        (f"{metric}, with these in float", f"{kept['metric']:.4f}, {kept['share']:.1%} of the multiply-adds in float"),
        ("pictures", found["pictures"]),
        ("evaluations", f"{found['evaluations']['all']}; brute force: {found['evaluations']['brute_force']:.4g}"),
    ]
    head = ["unit", "operators", "MACs %", "SQNR dB", "cost", "gain", "cost, nats", "gain, nats", "float"]
    whole = table(
        head,
        [
            [
                u["unit"],
                "+".join(u["operators"]),
                f"{100 * u['share']:.1f}",
                f"{u['sqnr_db']:.1f}",
                *(f"{100 * u[name]:+.2f}" for name in ("cost", "gain")),
                *(f"{u[name]:.2e}" for name in ("cost_nats", "gain_nats")),
                "keep" if u["float"] else "",
            ]
            for u in sorted(found["units"], key=lambda u: -max(u["gain_nats"], u["cost_nats"]))
        ],
    )
    words = (
        "<p>Cost: points lost with this unit alone in INT8. Gain: points won back with it alone in float. Nats: the "
        "same by the divergence from FP32's answers, which tells units apart that the metric can't.</p>"
    )
    colours = legend([(f"s{i}", kind) for i, kind in enumerate(rows)])
    return section("What INT8 costs, unit by unit", f"{plot}{colours}{pairs(facts)}{words}{whole}")
