"""The page of `edgecnn xray`: every layer of an engine, its types, and what differs between two."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from edgecnn.bundle import atomic
from edgecnn.report.html import document, section, table

Json = Mapping[str, Any]
HEAD = ("layer", "kind", "in", "out", "weights", "numbers", "INT8 asked for", "ONNX nodes")


def write_page(path: Path, rays: Sequence[Json], difference: Iterable[Sequence[str]]) -> None:
    """Write the page atomically. `rays`: what `XRay.json` gives, one or two; `difference`: (kernel, in a, in b)."""
    head = (
        f"<header><div><h1>Engine x-ray</h1><p>{' · '.join(escape(ray['source']) for ray in rays)}</p></div></header>"
    )
    body = [head, *map(_ray, rays)]
    if len(rays) == 2:
        rows = list(difference)
        differs = table(("kernel", "first", "second"), rows) if rows else "<p>No kernel differs.</p>"
        body.insert(1, section("What differs", differs))
    with atomic(path) as temporary:
        temporary.write_text(document("edgecnn x-ray", body), "utf-8")


def _ray(ray: Json) -> str:
    cards = [(ray["meant"], "kernels that ask for INT8")]
    if ray["built"]:
        got = "no evidence" if ray["int8"] is None else f"{ray['int8']} of {ray['meant']}"
        cards = [(got, "kernels are INT8 where asked for"), (ray["reformats"], "layers that only reformat")]
        if ray["meant_half"]:
            cards.insert(1, (f"{ray['half']} of {ray['meant_half']}", "kernels are FP16 where typed so"))
    shown = "".join(f"<div><b>{escape(str(value))}</b><span>{words}</span></div>" for value, words in cards)
    rows = table(HEAD, [_row(layer, ray) for layer in ray["layers"]])
    return section(ray["source"], f'<div class="cards">{shown}</div><p>{escape(ray["summary"])}</p>{rows}')


def _row(layer: Json, ray: Json) -> tuple[str, ...]:
    missed = layer["kernel"] and set(layer["nodes"]) & set(ray["floats"])
    asked = "MISSED" if missed else "ok" if layer["kernel"] and layer["input"] == "Int8" else ""
    numbers = f"{layer['weights']:,}" if layer["weights"] else ""
    types = (layer["input"], layer["output"], layer["weight"])
    return layer["name"], layer["kind"], *types, numbers, asked, ", ".join(layer["nodes"])
