"""How fast a bundle is on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgecnn.cli.common import BundlePath, Json, Signed, app, show, trusted


def counts(text: str) -> list[int]:
    """`1,2,4` → [1, 2, 4]. Raises typer.BadParameter."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1 or len(set(found)) < len(found):
        raise typer.BadParameter(f"{text!r}: wanted different whole numbers from 1 on, such as 1,2,4")
    return found


@app.command()
def bench(
    bundle: BundlePath,
    source: Annotated[str | None, typer.Option(help="As for `edgecnn run`; a simulated drive unless given.")] = None,
    frames: Annotated[int, typer.Option(min=10, help="To be timed; p99.9 needs 1000.")] = 100,
    threads: Annotated[
        str, typer.Option(metavar="N[,N...]", help="Of inference on a CPU; several are compared with the first.")
    ] = "1",
    batch: Annotated[
        str | None, typer.Option(metavar="N,N...", help="Pictures at once: latency and throughput of each.")
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Time the layers of the network too.")] = False,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Run on for as long: does it throttle? Ten seconds a window.")
    ] = None,
    history: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Add a line to it: see `edgecnn report --history`.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="Another bundle, side by side: is it faster or slower?")
    ] = None,
    require_signature: Signed = None,
    as_json: Json = False,
) -> None:
    """Time every stage, FP32 beside INT8."""
    number, sizes = counts(threads), counts(batch) if batch else [1]
    if compare:
        if layers or batch or minutes or history or len(number) > 1:
            raise typer.BadParameter("--compare goes with --source, --frames and one number of --threads")
        _compare(bundle, compare, source, frames, number[0], require_signature, as_json)
        return
    from edgecnn.bench import bench as bench_bundle
    from edgecnn.bench.show import board_lines, table

    opened = trusted(bundle, require_signature)
    if len(number) > 1 or batch:
        from edgecnn.bench.sweep import sweep

        swept = sweep(opened, source, threads=number, batches=sizes)
    result = bench_bundle(opened, source, frames=frames, threads=number[0])
    parts: list[Any] = [table(result), board_lines(result)]
    if len(number) > 1 or batch:
        from edgecnn.bench.sweep import sweep_table

        result["sweep"] = swept
        parts.append(sweep_table(swept))
    if layers:
        from edgecnn.bench.layers import layers as time_layers
        from edgecnn.bench.layers import layers_table

        result["layers"] = time_layers(opened, source, threads=number[0])
        parts.append(layers_table(result["layers"]))
    if minutes:
        from edgecnn.bench.show import sustained_table
        from edgecnn.bench.sustained import sustained

        result["sustained"] = sustained(opened, source, minutes=minutes, threads=number[0])
        parts.append(sustained_table(result["sustained"]))
    if history:
        from edgecnn.bench.history import append

        append(history, result)
    _print(as_json, result, parts)


def _compare(
    bundle: Path, other: Path, source: str | None, frames: int, threads: int, key: Path | None, as_json: bool
) -> None:
    from edgecnn.versus import compare, versus_table

    found = compare(trusted(bundle, key), trusted(other, key), source, frames=frames, threads=threads)
    _print(as_json, found, [versus_table(found)])


def _print(as_json: bool, result: Any, parts: list[Any]) -> None:
    if as_json:
        show(True, (result, ""))
        return
    from rich.console import Console

    console = Console()
    for part in parts:
        console.print(part, highlight=False)
