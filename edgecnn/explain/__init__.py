"""`edgecnn explain`: looking inside a classifier, as ZFNet's authors did (Zeiler and Fergus 2013, arXiv:1311.2901).

Of the paper's methods the evolution of features during training (figure 4) is not among them: it needs the weights of
many epochs, and a bundle holds those of the last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.bundle import Bundle, ModelSpec, atomic
from edgecnn.errors import InputError, ModelError
from edgecnn.progress import note

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgecnn.explain.invariance import Curve
    from edgecnn.scene import Picture


def explain(bundle: Bundle, pictures: Sequence[Path], out: Path, parts: Path | None = None) -> dict[str, Any]:
    """Look at each picture by deconvnet, occlusion and invariance, at three or more by correspondence. Writes PNGs,
    explain.json and explain.html into `out`, and returns what explain.json holds.

    `parts`: a CSV of picture, part, x, y, width, height (px of the file), the same part in three pictures or more;
    without it, parts are the cells of a 3x3 grid. The class is the one that the network sees in the whole picture.
    Raises ModelError for anything but a classifier of the zoo, InputError for a picture or CSV that is not readable.
    """
    spec = bundle.require_model()
    if spec.task != "classify" or spec.arch == "onnx":
        what = "a network from an ONNX file" if spec.arch == "onnx" else f"a detector, {spec.arch}"
        raise ModelError(f"{bundle.path} holds {what}", wanted="a classifier of the zoo, such as lenet5 or resnet18")
    if not pictures:
        raise InputError("no picture to look at", wanted="one or more")
    import torch

    from edgecnn import zoo
    from edgecnn.data.files import read_picture
    from edgecnn.explain import correspondence as same
    from edgecnn.explain import drawing
    from edgecnn.explain.parts import read_parts
    from edgecnn.report.inside import write_page
    from edgecnn.vision import Preprocess

    preprocess = Preprocess(spec)
    laid = [(torch.from_numpy(tensor.copy()), box) for tensor, box in map(preprocess, map(read_picture, pictures))]
    x = torch.cat([tensor for tensor, _ in laid])
    marked = {}
    if parts is not None:
        marked = read_parts(parts, pictures, [box for _, box in laid], spec, same.FEWEST)
    elif len(laid) >= same.FEWEST:
        marked = same.grid(len(laid), spec.height, spec.width)
    role, stage = ("slim", "slim") if bundle.has("slim") else ("weights", "train")
    net, spec = zoo.load(bundle.file(role), spec)

    rows, curves = [], []
    for number, path in enumerate(pictures, 1):
        note(f"{path} ({number} of {len(pictures)})")
        slug = re.sub(r"[^\w.-]+", "-", path.stem)
        row, found = _one(net, spec, x[number - 1 : number], out, f"{number}-{slug}")
        rows.append({"picture": path.name, **row})
        curves.append((path.name, found))
    deltas = same.correspondence(net, x, marked) if marked else []
    _write(out / "invariance.png", drawing.curves(curves))
    result: dict[str, Any] = {
        "bundle": bundle.name,
        "arch": spec.arch,
        "key": bundle.stages[stage].key,  # of the weights: the report leaves out what was seen in others
        "pictures": rows,
        "correspondence": [asdict(delta) for delta in deltas],
        "grid": parts is None,
        "invariance": "invariance.png",
    }
    with atomic(out / "explain.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1), "utf-8")
    write_page(out)
    return result


def table(result: dict[str, Any]) -> list[list[str]]:
    """A line a picture: what the network sees in it, and how much of that one grey square can take away."""
    head = ["picture", "class", "probability", "least under the square", "places with another class"]
    rows = [
        [
            row["picture"],
            row["class"],
            f"{row['probability']:.3f}",
            f"{row['occlusion']['least']:.3f} at x {row['occlusion']['x']}, y {row['occlusion']['y']}",
            f"{row['occlusion']['changed']:.0%}",
        ]
        for row in result["pictures"]
    ]
    return [head, *rows]


def _one(net: nn.Module, spec: ModelSpec, x: Tensor, out: Path, slug: str) -> tuple[dict[str, Any], list[Curve]]:
    """What is to be said of one picture, its PNGs written; and its curves."""
    import torch

    from edgecnn.explain import drawing
    from edgecnn.explain.deconvnet import project
    from edgecnn.explain.invariance import invariance
    from edgecnn.explain.occlusion import occlude

    with torch.no_grad():
        label = int(net(x).argmax())
    picture = drawing.unprocessed(x[0].numpy(), spec)
    row: dict[str, Any] = {"class": spec.classes[label], "label": label}

    hidden = occlude(net, x, label)
    name = f"{slug}-occlusion.png"
    _write(out / name, drawing.occlusion(hidden, picture))
    rows, columns = hidden.probability.shape
    least = divmod(int(hidden.probability.argmin()), columns)
    row["probability"] = hidden.whole
    row["occlusion"] = {
        "file": name,
        "size": hidden.size,
        "stride": hidden.stride,
        "least": float(hidden.probability.min()),
        "x": round((least[1] + 0.5) * spec.width / columns),
        "y": round((least[0] + 0.5) * spec.height / rows),
        "changed": float((hidden.answer != label).mean()),
        "layer": hidden.layer,
        "channel": hidden.channel,
        "map": hidden.probability.round(4).tolist(),
    }

    layers: dict[str, list[Any]] = {}
    try:
        for one in project(net, x):
            layers.setdefault(one.layer, []).append(one)
    except ModelError as error:  # no ReLU: the other methods do not need one
        row["no_deconvnet"] = str(error)
        note(f"no deconvnet: {error}")
    row["deconvnet"] = []
    for layer, found in layers.items():
        name = f"{slug}-deconvnet-{layer}.png"
        _write(out / name, drawing.projections(found, picture, spec))
        maps = [{"channel": one.channel, "value": one.value, "place": one.place} for one in found]
        row["deconvnet"].append({"layer": layer, "file": name, "maps": maps})

    fill = [(spec.pad - mean) / std for mean, std in zip(spec.mean, spec.std, strict=True)][: x.shape[1]]
    curves = invariance(net, x, label, fill)
    row["invariance"] = [
        {
            "kind": curve.kind,
            "amount": curve.amount,
            "first": curve.first.tolist(),
            "last": curve.last.tolist(),
            "probability": curve.probability.tolist(),
        }
        for curve in curves
    ]
    return row, curves


def _write(path: Path, picture: Picture) -> None:
    import cv2

    with atomic(path) as temporary:
        if not cv2.imwrite(str(temporary), picture):
            raise InputError(f"{path} can't be written")
