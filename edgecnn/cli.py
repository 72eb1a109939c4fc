"""The command line. Every body: load, call one function, print.

Nothing but typer is imported before a command runs: `edgecnn --help` must answer at once, and `edgecnn run` on a board
must never meet torch or onnx. Results go to standard output, progress and errors to standard error.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecnn.errors import EdgecnnError, MissingDependency

if TYPE_CHECKING:
    from edgecnn.compile import Compiled

EPILOG = """\
Exit codes: 0 done; 1 a fault of edgecnn's own; 2 wrong command line; 3 unusable input file, folder or stream;
4 wrong recipe; 5 incomplete or changed bundle; 6 the model does not fit; 7 the engine builder refuses;
8 a package or device is missing; 9 a gate is missed; 130 Ctrl-C.
"""

DESK = {"torch", "torch_pruning", "onnx", "safetensors", "pycocotools"}  # what the extra `desk` brings

app = typer.Typer(
    name="edgecnn",
    help="From a CNN recipe to an INT8 TensorRT engine, and the detect-plus-track loop that runs it on the board.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file, such as recipes/adas.yaml.")]
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder that `edgecnn compile` made.")]
BundleOut = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="The bundle's folder; runs/NAME.bundle unless given.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


def main() -> None:
    """Entry point: errors become one line and a documented exit code."""
    try:
        app()
    except EdgecnnError as error:
        _fail(error)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in DESK:
            _crash(error)
        _fail(MissingDependency(f"this command needs the package {package}", do="Run: pip install 'edgecnn[desk]'"))
    except Exception as error:
        _crash(error)


def _fail(error: EdgecnnError) -> None:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)


def _crash(error: Exception) -> None:
    """A failure that nobody foresaw."""
    if os.environ.get("EDGECNN_DEBUG"):
        raise error
    text = " ".join(str(error).split())[:300]
    print(f"error: {type(error).__name__}: {text} (set EDGECNN_DEBUG=1 for the traceback).", file=sys.stderr)
    sys.exit(EdgecnnError.exit_code)


@app.command()
def compile(recipe: RecipePath, out: BundleOut = None, as_json: Json = False) -> None:
    """Run every stage that is not up to date: train, slim, export, quantize, build."""
    _stage("build", recipe, out, as_json)


@app.command()
def train(recipe: RecipePath, out: BundleOut = None, as_json: Json = False) -> None:
    """Train the recipe's network, or take in the weights that it names."""
    _stage("train", recipe, out, as_json)


@app.command()
def slim(recipe: RecipePath, out: BundleOut = None, as_json: Json = False) -> None:
    """Slim the network, after the stages before it: GAP for FC, pruning, fine-tuning."""
    _stage("slim", recipe, out, as_json)


@app.command()
def export(recipe: RecipePath, out: BundleOut = None, as_json: Json = False) -> None:
    """Write the FP32 ONNX file, after the stages before it, and compare it with torch."""
    _stage("export", recipe, out, as_json)


@app.command()
def quantize(recipe: RecipePath, out: BundleOut = None, as_json: Json = False) -> None:
    """Measure ranges and write the INT8 ONNX files, after the stages before."""
    _stage("quantize", recipe, out, as_json)


@app.command()
def build(recipe: RecipePath, out: BundleOut = None, as_json: Json = False) -> None:
    """Build the TensorRT engine, after the stages before."""
    _stage("build", recipe, out, as_json)


def _stage(stage: str, recipe: Path, out: Path | None, as_json: bool) -> None:
    from edgecnn.compile import compile_recipe

    _print(as_json, _compiled(compile_recipe(recipe, out, until=stage)))


def _compiled(done: Compiled) -> tuple[dict[str, Any], str]:
    steps = [{"stage": s.stage, "outcome": s.outcome, "seconds": round(s.seconds, 2), "why": s.why} for s in done.steps]
    files = {
        role: str(done.bundle.path / name) for r in done.bundle.stages.values() for role, (name, _) in r.files.items()
    }
    lines = [f"{s.stage:<10} {s.outcome:<6} {s.seconds:8.1f} s  {s.why}" for s in done.steps]
    return {"bundle": str(done.bundle.path), "steps": steps, "files": files}, "\n".join([*lines, str(done.bundle.path)])


def _print(as_json: bool, result: tuple[Any, str]) -> None:
    """A result as JSON (nan and inf become null: JSON has neither) or as text."""
    data, text = result
    if not as_json:
        print(text)
        return
    import json

    print(json.dumps(_plain(data), indent=1, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not (abs(value) < float("inf")):
        return None
    return str(value) if isinstance(value, Path) else value
