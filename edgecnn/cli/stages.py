"""The stages of a recipe: compile, and each alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgecnn.cli.common import BundleOut, Json, Policy, RecipePath, app, show, targets_like

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgecnn.compile import Compiled
    from edgecnn.recipe import Recipe


@app.command()
def compile(recipe: RecipePath, out: BundleOut = None, as_json: Json = False) -> None:
    """Bring a bundle up to date, all stages.

    Runs every stage whose inputs or files changed: train, slim, export, quantize, build.
    """
    _stage("build", recipe, out, as_json)


@app.command()
def train(recipe: RecipePath, out: BundleOut = None, as_json: Json = False) -> None:
    """Train the network, or take in its weights."""
    _stage("train", recipe, out, as_json)


@app.command()
def slim(
    recipe: RecipePath,
    out: BundleOut = None,
    target_latency: Annotated[
        float | None, typer.Option(metavar="MS", min=0.001, help="Search for a cut that takes so long here.")
    ] = None,
    target_macs: Annotated[
        str | None, typer.Option(metavar="X", help="Or of so many multiply-adds: 150M, 1.2G, or 0.5 for half.")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(metavar="P", min=0, max=1, help="Or the fastest that loses so little: 0.01 is a point."),
    ] = None,
    policy: Annotated[Policy | None, typer.Option(help="How to search.")] = None,
    as_json: Json = False,
) -> None:
    """Slim it: the recipe's steps, or a search to a target.

    A search takes the place of the recipe's prune and finetune steps, for this once; a `search` step in the recipe
    makes it last. Runs the stages before it where they are not up to date.
    """
    target = {"latency": target_latency, "macs": _count(target_macs), "drop": max_drop}
    if all(value is None for value in target.values()):
        if policy is not None:
            raise typer.BadParameter("it needs --target-latency, --target-macs or --max-drop", param_hint="--policy")
        _stage("slim", recipe, out, as_json)
    else:
        wanted = {**target, "policy": policy.value if policy else None}
        _stage("slim", recipe, out, as_json, lambda r: r.searching(**wanted))


def _count(text: str | None) -> float | None:
    """150M, 1.2G, 0.5 → a number."""
    if text is None:
        return None
    unit = {"k": 1e3, "M": 1e6, "G": 1e9}.get(text[-1:], 1.0)
    try:
        return float(text if unit == 1 else text[:-1]) * unit
    except ValueError:
        raise typer.BadParameter(f"'{text}' is no number such as 150M or 0.5", param_hint="--target-macs") from None


@app.command()
def export(recipe: RecipePath, out: BundleOut = None, as_json: Json = False) -> None:
    """Write FP32 ONNX and compare it with torch.

    Runs the stages before it where they are not up to date.
    """
    _stage("export", recipe, out, as_json)


@app.command()
def quantize(recipe: RecipePath, out: BundleOut = None, as_json: Json = False) -> None:
    """Measure ranges and write INT8 ONNX.

    Runs the stages before it where they are not up to date.
    """
    _stage("quantize", recipe, out, as_json)


@app.command()
def build(
    recipe: RecipePath,
    out: BundleOut = None,
    target: Annotated[
        str | None,
        typer.Option(help="In place of the recipe's build.target; see `edgecnn targets`.", autocompletion=targets_like),
    ] = None,
    precision: Annotated[
        Literal["int8", "int8+fp16", "fp16"] | None, typer.Option(help="In place of the recipe's build.precision.")
    ] = None,
    emit_script: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Build nothing: write build.sh and its files for the board.")
    ] = None,
    trt: Annotated[
        str, typer.Option(metavar="VERSION", help="Of the board's TensorRT, for the script; its newest unless given.")
    ] = "",
    implicit: Annotated[
        bool, typer.Option("--implicit", help="For the script: a calibration cache instead of Q/DQ pairs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Build the TensorRT engine.

    Runs the stages before it where they are not up to date. A board without Python 3.10 (JetPack 4.6, 5.1) builds with
    the script: one trtexec command.
    """

    def change(r: Recipe) -> Recipe:
        return r.building(target=target, precision=precision) if target or precision else r

    if emit_script is None:
        if trt or implicit:
            raise typer.BadParameter("it needs --emit-script", param_hint="--trt" if trt else "--implicit")
        _stage("build", recipe, out, as_json, change)
        return
    from edgecnn.build import options, section_of
    from edgecnn.build.script import emit
    from edgecnn.compile import compile_recipe
    from edgecnn.recipe import load

    section = section_of(change(load(recipe)))
    bundle = compile_recipe(recipe, out, until="quantize").bundle
    files = emit(
        bundle,
        section.target,
        options(section),
        emit_script,
        version=trt,
        int8=section.precision != "fp16",
        implicit=implicit,
    )
    show(as_json, ({"files": files}, "\n".join(map(str, files))))


def _stage(
    stage: str, recipe: Path, out: Path | None, as_json: bool, change: Callable[[Recipe], Recipe] | None = None
) -> None:
    from edgecnn.compile import compile_recipe

    done = compile_recipe(recipe, out, until=stage, change=change)
    if done.steps:  # none: a process that torchrun started to help the first one
        show(as_json, _compiled(done))


def _compiled(done: Compiled) -> tuple[dict[str, Any], str]:
    steps = [{"stage": s.stage, "outcome": s.outcome, "seconds": round(s.seconds, 2), "why": s.why} for s in done.steps]
    files = {
        role: str(done.bundle.path / name) for r in done.bundle.stages.values() for role, (name, _) in r.files.items()
    }
    lines = [f"{s.stage:<10} {s.outcome:<6} {s.seconds:8.1f} s  {s.why}" for s in done.steps]
    return {"bundle": str(done.bundle.path), "steps": steps, "files": files}, "\n".join([*lines, str(done.bundle.path)])
