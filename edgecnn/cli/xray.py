"""What became of a network in an engine, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecnn.cli.common import Json, app, columns, show


@app.command()
def xray(
    what: Annotated[Path, typer.Argument(help="A bundle, .onnx, .engine of RTX, build log, or inspector's .json.")],
    other: Annotated[Path | None, typer.Argument(help="A second one: what differs between the two.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page.")] = None,
    as_json: Json = False,
) -> None:
    """Show precision, fusion and reformats by layer.

    And where INT8 was asked for and not got. What TensorRT for RTX built is evidence about the graph, and says nothing
    about speed on a Jetson.
    """
    from edgecnn.build import xray as rays

    seen = [rays.look(path) for path in (what, other) if path is not None]
    differs = rays.difference(*seen) if len(seen) == 2 else []
    if html:
        from edgecnn.report.xray import write_page

        write_page(html, [ray.json() for ray in seen], differs)
    lines = []
    for ray in seen:
        lines += [ray.source, columns([rays.HEAD, *ray.rows()]), ray.summary(), str(ray), ""]
    if len(seen) == 2:
        rows = columns([("kernel", what.name, str(other)), *differs]) if differs else "no kernel differs"
        lines = [*(f"{ray.source}: {ray.summary()}" for ray in seen), rows]
    if html:
        lines.append(str(html))
    data = {"xrays": [ray.json() for ray in seen], "difference": differs}
    show(as_json, (data, "\n".join(lines).rstrip()))
