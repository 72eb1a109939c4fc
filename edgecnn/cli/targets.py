"""The boards that engines are built for."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from edgecnn.cli.common import Json, app, columns, show, targets_like


@app.command()
def targets(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One of them, with the sources.", autocompletion=targets_like)
    ] = None,
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
    figures = [
        ("compute capability", row["sm"], "NVIDIA, CUDA GPU compute capability"),
        ("TensorRT", ", ".join(f"{v} (JetPack {k})" for k, v in row["jetpack"].items()), source.get("software", "")),
        ("INT8 on the GPU", "yes" if row["int8"] else "no", "NVIDIA TensorRT support matrix"),
        ("DLA", f"{row['dla']} of version {row['dla_version']}" if row["dla"] else "none", source.get("dla", "")),
        ("memory, GiB", _list(row["memory_gib"]), source.get("memory_gib", "")),
        ("bandwidth, GB/s", _number(row["bandwidth"]), source.get("bandwidth", "")),
        ("SMs", _number(row["sms"]), source.get("sms", "")),
        ("GPU clock, GHz", _number(row["clock_ghz"], 4), source.get("clock_ghz", "")),
        ("dense INT8 TOPS", _number(row["int8_tops"]), source.get("int8_tops", "")),
        ("dense FP16 TFLOPS", _number(row["fp16_tflops"]), source.get("fp16_tflops", "")),
        ("FP32 TFLOPS", _number(row["fp32_tflops"]), source.get("fp32_tflops", "")),
        ("power modes, W", _list(row["power_w"]), source.get("power_w", "")),
    ]
    text = columns([figure for figure in figures if figure[1]])
    return "\n".join(filter(None, [f"{row['name']}: {row['title']}", text, row["note"]]))


def _number(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}".rstrip("0").rstrip(".")


def _list(values: list[float]) -> str:
    return ", ".join(_number(value) for value in values)
