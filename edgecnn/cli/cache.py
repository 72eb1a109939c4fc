"""The calibration cache of TensorRT 8 to 10: written from Q/DQ pairs, and read back into them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecnn.cli.common import Json, app, show


@app.command()
def cache(
    model: Annotated[Path, typer.Argument(help="A bundle or Q/DQ .onnx; with --read, the .onnx without pairs.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The cache; with --read, the .onnx with Q/DQ pairs.")],
    trt: Annotated[
        str, typer.Option(metavar="VERSION", help="Of the TensorRT that shall read the cache: 8.2.1 to 10.16.")
    ] = "8.5.2",
    read: Annotated[
        Path | None, typer.Option(metavar="CACHE", help="Take the scales from this cache and insert the pairs.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Turn Q/DQ pairs into a calibration cache, or back.

    For implicit INT8, as TensorRT 8 to 10 and the DLA have it. Beside calib.cache lie calib.onnx, the network without
    pairs that it belongs to, and calib.precisions, the layers that stay in float. The way there and back is bit-exact.
    """
    from edgecnn.build import cache as caches

    if read is None:
        files = caches.export(model, out, trt)
        show(as_json, ({"files": files}, "\n".join(map(str, files))))
        return
    from edgecnn.quantize.given import quantize_file

    found = caches.load(read)
    made = quantize_file(model, out, found.scales, found.floats)
    kept = f"; in float: {', '.join(map(str, found.floats))}" if found.floats else ""
    show(as_json, (made, f"{out}: {made['pairs']} pairs{kept}"))
