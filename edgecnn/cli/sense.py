"""Which layers cost the accuracy of INT8."""

from __future__ import annotations

from typing import Annotated

import typer

from edgecnn.cli.common import BundleOut, Json, RecipeOrBundle, app, columns, opened, show


@app.command()
def sense(
    path: RecipeOrBundle,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            min=0,
            max=1,
            help="May be lost of top-1 or AP50: 0.01 is a point; the recipe's unless given.",
        ),
    ] = None,
    pictures: Annotated[int, typer.Option(min=1, help="At most, spread evenly over the data of `check:`.")] = 500,
    out: BundleOut = None,
    as_json: Json = False,
) -> None:
    """Find the layers that INT8 costs most.

    What each layer costs, with what TensorRT fuses into it, by top-1 or AP50; the smallest set to keep in float for
    --max-drop. Evaluations are kept in BUNDLE/sense: a run that was stopped goes on.
    """
    from edgecnn.sense import sense as measure
    from edgecnn.sense import summary, table

    bundle, _ = opened(path, "quantize", out)
    result = measure(bundle, max_drop=max_drop, pictures=pictures)
    rows = table(result)
    hidden = len(result["units"]) + 1 - len(rows)
    more = f"\n... and {hidden} more" if hidden else ""
    page = bundle.path / "sense" / "sense.html"
    show(as_json, (result, f"{columns(rows)}{more}\n{summary(result)}\n{page}"))
