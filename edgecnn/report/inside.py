"""What `edgecnn explain` saw inside of a classifier: a page of its own, and sections of the bundle's report."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from edgecnn.bundle import Bundle, atomic
from edgecnn.errors import InputError
from edgecnn.report.html import document, section, table

Json = Mapping[str, Any]
FOLDER = "explain"  # in a bundle
PAPER = "Zeiler and Fergus 2013, arXiv:1311.2901"


def write_page(folder: Path) -> Path:
    """Write explain.html beside explain.json, atomically. Raises InputError where that or a PNG of it is missing."""
    found = _read(folder)
    title = f"{found['bundle']} – looking inside"
    head = f"<header><div><h1>{escape(title)}</h1><p>{escape(found['arch'])} · methods of {PAPER}</p></div></header>"
    path = folder / "explain.html"
    with atomic(path) as temporary:
        temporary.write_text(document(title, [head, *_sections(folder, found)]), "utf-8")
    return path


def inside(bundle: Bundle) -> str:
    """The sections of the bundle's `explain` folder; "" where there is none, or it is about other weights."""
    folder = bundle.path / FOLDER
    if not (folder / "explain.json").is_file():
        return ""
    found = _read(folder)
    weights = bundle.stages.get("slim") or bundle.stages.get("train")
    return "".join(_sections(folder, found)) if weights and weights.key == found["key"] else ""


def _read(folder: Path) -> Json:
    path = folder / "explain.json"
    try:
        data = json.loads(path.read_text("utf-8"))
        return {key: data[key] for key in ("bundle", "arch", "key", "pictures", "correspondence", "grid", "invariance")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not readable ({error})", do="Run it again: edgecnn explain") from error


def _sections(folder: Path, found: Json) -> list[str]:
    curves = (
        f"{_image(folder, found['invariance'], 'curves')}<p>How far the features of the first and the last layer are "
        "from those of the unchanged picture (Euclidean distance), and what becomes of the class (figure 5).</p>"
    )
    return [
        *(_picture(folder, row) for row in found["pictures"]),
        _correspondence(found["correspondence"], grid=found["grid"]),
        section("Shifted, scaled, turned", curves),
    ]


def _picture(folder: Path, row: Json) -> str:
    hidden = row["occlusion"]
    place = f"x {hidden['x']}, y {hidden['y']} of the network's input"
    body = [
        f"<p><b>{escape(row['class'])}</b>, probability {row['probability']:.3f}.</p><h3>Occlusion</h3>",
        _image(folder, hidden["file"], "the picture, the probability of the class, the sum of the strongest map"),
        f"<p>A grey square of {hidden['size']} px, {hidden['stride']} px at a time. Middle: the class's probability "
        f"with the square there, blue 0, red 1; the least is {hidden['least']:.3f} at {place}; at "
        f"{hidden['changed']:.0%} of the places another class wins. Right: the sum of map {hidden['channel']} of "
        f"{escape(hidden['layer'])}, the strongest of the last layer, red the most.</p>",
    ]
    if row["deconvnet"]:
        body.append("<h3>Deconvnet</h3>")
    for layer in row["deconvnet"]:
        maps = ", ".join(f"{each['channel']} ({each['value']:.3g})" for each in layer["maps"])
        body.append(_image(folder, layer["file"], f"projections of {layer['layer']}"))
        body.append(
            f"<p><b>{escape(layer['layer'])}</b>: above, what made each of the strongest maps answer; below, that part "
            f"of the picture. Maps (answer): {maps}.</p>"
        )
    if "no_deconvnet" in row:
        body.append(f"<p>No deconvnet: {escape(row['no_deconvnet'])}</p>")
    return section(f"Inside: {row['picture']}", "".join(body))


def _correspondence(rows: Sequence[Json], *, grid: bool) -> str:
    if not rows:
        return ""
    cells = [
        [
            row["part"],
            row["layer"],
            row["pictures"],
            f"{row['delta']:.4f} ± {row['error']:.4f}",
            f"{row['random']:.4f} ± {row['random_error']:.4f}",
            f"{row['below']:.0%}",
        ]
        for row in rows
    ]
    words = (
        "Delta: in how many features the same part, masked in two pictures, moves the network differently (mean over "
        "pairs ± standard error); less than at random places: the network treats the parts alike (section 4.4)."
    )
    if grid:
        words += (
            " Parts are the cells of a 3x3 grid: they show the same only in aligned pictures. Random: one place in all."
        )
    head = ["part", "layer", "pictures", "Delta", "at random places", "random ≤ part"]
    return section("Correspondence of parts", f"<p>{words}</p>{table(head, cells)}")


def _image(folder: Path, name: str, words: str) -> str:
    path = folder / Path(name).name
    if not path.is_file():
        raise InputError(f"{path} is missing", do="Run it again: edgecnn explain")
    uri = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    return f'<figure><img src="{uri}" alt="{escape(words)}" style="width:auto;max-width:100%"></figure>'
