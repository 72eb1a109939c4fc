"""The boards, and what a network would take on one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from edgecnn.cli.common import Json, app, columns, show


@app.command()
def targets(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One of them, with the sources.")] = None,
    as_json: Json = False,
) -> None:
    """List the boards that engines are built for."""
    from edgecnn.build.targets import TARGETS, lookup, row

    if name is not None:
        lookup(name)
        show(as_json, (row(name), _sheet(row(name))))
        return
    rows = [row(each) for each in TARGETS]
    head = ("target", "", "SM", "JetPack", "INT8", "DLA", "GiB", "GB/s", "INT8 TOPS", "FP16 TFLOPS", "W")
    lines = [head, *(_line(each) for each in rows)]
    show(as_json, (rows, f"{columns(lines)}\nTOPS: dense, of the GPU, computed. Sources: edgecnn targets NAME"))


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["name"],
        row["title"],
        row["sm"],
        ", ".join(row["jetpack"]),
        "yes" if row["int8"] else "no",
        f"{row['dla']} x {row['dla_version']}" if row["dla"] else "",
        _list(row["memory_gib"]),
        _number(row["bandwidth"]),
        _number(row["int8_tops"]),
        _number(row["fp16_tflops"]),
        _list(row["power_w"]),
    )


def _sheet(row: dict[str, Any]) -> str:
    """A line a figure, with its source."""
    source = row["sources"]
    computed = f"computed: SMs x operations a clock x clock; {source['rates']}" if "rates" in source else ""
    figures = [
        ("compute capability", row["sm"], "NVIDIA, CUDA GPU compute capability"),
        ("TensorRT", ", ".join(f"{v} (JetPack {k})" for k, v in row["jetpack"].items()), source.get("software", "")),
        ("INT8 on the GPU", "yes" if row["int8"] else "no", "NVIDIA TensorRT support matrix"),
        ("DLA", f"{row['dla']} of version {row['dla_version']}" if row["dla"] else "none", source.get("dla", "")),
        ("memory, GiB", _list(row["memory_gib"]), source.get("memory_gib", "")),
        ("bandwidth, GB/s", _number(row["bandwidth"]), source.get("bandwidth", "")),
        ("SMs", _number(row["sms"]), source.get("sms", "")),
        ("GPU clock, GHz", _number(row["clock_ghz"], 4), source.get("clock_ghz", "")),
        ("dense INT8 TOPS", _number(row["int8_tops"]), computed),
        ("dense FP16 TFLOPS", _number(row["fp16_tflops"]), computed),
        ("FP32 TFLOPS", _number(row["fp32_tflops"]), f"{computed}; TF32 where the tensor cores have it"),
        ("power modes, W", _list(row["power_w"]), source.get("power_w", "")),
    ]
    text = columns([(what, value, where if value not in ("", "no", "none") else "") for what, value, where in figures])
    return "\n".join(filter(None, [f"{row['name']}: {row['title']}", text, row["note"]]))


def _number(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}".rstrip("0").rstrip(".")


def _list(values: list[float]) -> str:
    return ", ".join(_number(value) for value in values)


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
