"""What a network would take on a board that is not at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from edgecnn.cli.common import Json, app, columns, show


@app.command()
def predict(
    network: Annotated[Path, typer.Argument(metavar="BUNDLE|ONNX", help="A compiled bundle, or an ONNX file.")],
    target: Annotated[str, typer.Option(help="A board, such as orin-nano; see `edgecnn targets`.")],
    precision: Annotated[
        Literal["int8", "fp16", "fp32"] | None,
        typer.Option(help="As if it were built so; as the file's Q/DQ pairs say unless given."),
    ] = None,
    fps: Annotated[
        float | None, typer.Option(metavar="N", min=0.001, help="List which boards hold so many frames a second.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict latency and memory on a board.

    A roofline over the kernels that TensorRT would make, fitted on published latencies. It replaces no measurement.
    """
    from edgecnn.predict import boards, plan_of, summary
    from edgecnn.predict import predict as predict_on

    found = summary(predict_on(plan_of(network, precision), target, precision))
    if fps is not None:
        found |= {"fps": fps, "boards": boards(network, precision, fps)}
    show(as_json, (found, _predicted(found)))


def _predicted(found: dict[str, Any]) -> str:
    memory, error = found["memory_mib"], found["error"]
    counts = [f"{count} {kind}" for kind, count in found["by_precision"].items()]
    bounds = [f"{kind} {count}" for kind, count in found["by_bound"].items()]
    unseen = "" if found["generation_fitted"] else "; no latency of this GPU's generation was fitted on"
    lines = [
        f"predicted, not measured: {found['target']}, precision {found['precision']}",
        f"latency  {found['graph_ms']:.2f} ms as a CUDA graph, {found['python_ms']:.2f} ms launched from Python",
        f"error    median {error['median']:.0%}, worst {error['worst']:.1f}x: {error['figures']} published latencies, "
        f"each on a board that the fit had not seen{unseen}",
        f"kernels  {found['kernels']} ({', '.join(counts)}), {found['reformats']} reformats; "
        f"most of the time: {', '.join(bounds)}",
        f"memory   weights {memory['weights']:.1f} + activations {memory['activations']:.1f} + workspace at most "
        f"{memory['workspace']} = {memory['sum']:.0f} MiB, without CUDA's own context",
        "",
        columns([("slowest kernel", "", "", "us", "bound by"), *(_kernel(k) for k in found["slowest"])]),
    ]
    if "boards" in found:
        head = ("board", "", "CUDA graph ms", "Python ms", f"{found['fps']:g} frames/s")
        lines += ["", "predicted, not measured", columns([head, *(_board(b) for b in found["boards"])])]
    return "\n".join(lines)


def _kernel(kernel: dict[str, Any]) -> tuple[str, ...]:
    return kernel["name"], kernel["op"], kernel["precision"], f"{kernel['us']:.1f}", kernel["bound"]


def _board(board: dict[str, Any]) -> tuple[str, ...]:
    if board["graph_ms"] is None:
        return board["target"], "", "", "", "its rates are not known"
    verdict = board["holds"] if board["fits"] else "its memory is too small"
    return board["target"], board["precision"], f"{board['graph_ms']:.2f}", f"{board['python_ms']:.2f}", verdict
