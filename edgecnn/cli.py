"""The command line. Every body: load, call one function, print.

Nothing but typer is imported before a command runs: `edgecnn --help` must answer at once, and `edgecnn run` on a board
must never meet torch or onnx. Results go to standard output, progress and errors to standard error.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgecnn.errors import EdgecnnError, GateFailed, MissingDependency

if TYPE_CHECKING:
    from edgecnn.compile import Compiled
    from edgecnn.run.runner import SinkName

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


class Precision(str, Enum):
    """What `edgecnn run` loads."""

    auto = "auto"
    engine = "engine"
    int8 = "int8"
    fp32 = "fp32"


class Policy(str, Enum):
    """How `edgecnn slim` searches."""

    greedy = "greedy"
    evolutionary = "evolutionary"


RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file, such as recipes/adas.yaml.")]
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder that `edgecnn compile` made.")]
BundleOut = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="The bundle's folder; runs/NAME.bundle unless given.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


def main() -> None:
    """Entry point: errors become one line and a documented exit code."""
    # `docker stop` and systemd send SIGTERM: like Ctrl-C, it must leave a playable video behind
    signal.signal(signal.SIGTERM, signal.default_int_handler)
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
        _stage("slim", recipe, out, as_json, {**target, "policy": policy.value if policy else None})


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
def build(recipe: RecipePath, out: BundleOut = None, as_json: Json = False) -> None:
    """Build the TensorRT engine.

    Runs the stages before it where they are not up to date.
    """
    _stage("build", recipe, out, as_json)


@app.command()
def run(
    bundle: BundlePath,
    source: Annotated[
        str, typer.Option(help="FILE, FOLDER, sim:SEED, sim:SCENARIO:SEED, /dev/videoN, rtsp://... or http://...")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For what the sinks write; runs/NAME-SOURCE unless given.")
    ] = None,
    sink: Annotated[
        str, typer.Option(help="video,json: an annotated video and events.jsonl; or one of them; or none.")
    ] = "video,json",
    every: Annotated[
        int | None, typer.Option(metavar="K", min=1, help="Detect in every k-th frame; the recipe's unless given.")
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="auto: the engine if it runs here, else INT8 or FP32, as suits the CPU.")
    ] = Precision.auto,
    threads: Annotated[int, typer.Option(min=0, help="Of inference on a CPU; 0: every core but one.")] = 0,
    as_json: Json = False,
) -> None:
    """Detect and track on a video, camera or drive."""
    sinks = _sinks(sink)
    import re
    from dataclasses import asdict

    from edgecnn.bundle import Bundle
    from edgecnn.run import RunSettings, open_source
    from edgecnn.run import run as run_bundle

    opened = Bundle.read(bundle)
    settings = RunSettings.of(opened, detect_every=every, precision=precision.value, threads=threads)
    stream = open_source(source)
    slug = re.sub(r"[^\w.-]+", "-", Path(stream.name).stem).strip("-")
    folder = out or Path("runs") / f"{opened.name}-{slug}"
    summary = run_bundle(opened, stream, folder if sinks else None, settings, sinks)
    made = [str(path) for path in summary.files.values() if isinstance(path, str)]
    line = (
        f"{summary.frames} frames in {summary.seconds:.1f} s ({summary.fps:.1f}/s) with {summary.role}; detector in "
        f"{summary.detector_frames}, {summary.tracks} tracks, {summary.cuts} cuts, {len(summary.events)} events"
    )
    _print(as_json, (asdict(summary), "\n".join([line, *made])))


def _sinks(text: str) -> list[SinkName]:
    names: dict[str, list[SinkName]] = {"video": ["video"], "json": ["events"], "none": []}
    if unknown := [name for name in text.split(",") if name not in names]:
        raise typer.BadParameter(f"'{unknown[0]}' is none of {', '.join(names)}", param_hint="--sink")
    return [sink for name in text.split(",") for sink in names[name]]


@app.command()
def bench(
    bundle: BundlePath,
    source: Annotated[str | None, typer.Option(help="As for `edgecnn run`; a simulated drive unless given.")] = None,
    frames: Annotated[int, typer.Option(min=10, help="To be timed.")] = 100,
    threads: Annotated[int, typer.Option(min=1, help="Of inference on a CPU.")] = 1,
    as_json: Json = False,
) -> None:
    """Time every stage, FP32 beside INT8."""
    from edgecnn.bench import bench as bench_bundle
    from edgecnn.bench import table
    from edgecnn.bundle import Bundle

    result = bench_bundle(Bundle.read(bundle), source, frames=frames, threads=threads)
    if as_json:
        _print(True, (result, ""))
    else:
        from rich.console import Console

        Console().print(table(result))


@app.command()
def check(
    bundle: BundlePath,
    recipe: Annotated[
        Path | None, typer.Option(metavar="RECIPE", help="Take `check:` from it, not from the one of the bundle.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the gates as JUnit XML.")] = None,
    as_json: Json = False,
) -> None:
    """Measure accuracy and apply the gates."""
    from edgecnn.bundle import Bundle, atomic
    from edgecnn.check import check as check_bundle
    from edgecnn.recipe import load

    report = check_bundle(Bundle.read(bundle), load(recipe).check if recipe else None)
    _print(as_json, (report.json(), _columns(report.table())))
    if junit:
        with atomic(junit) as temporary:
            temporary.write_text(report.junit(), "utf-8")
    if not report.ok:
        missed = [str(gate) for gate in report.gates if not gate.ok]
        raise GateFailed(f"{len(missed)} of {len(report.gates)} gates missed: {'; '.join(missed)}")


@app.command()
def explain(
    bundle: BundlePath,
    picture: Annotated[list[Path], typer.Option(metavar="FILE", help="What to look at; may be given again.")],
    parts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV of picture,part,x,y,width,height; a 3x3 grid unless given.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="BUNDLE/explain unless given.")] = None,
    as_json: Json = False,
) -> None:
    """Look inside a classifier, picture by picture.

    Deconvnet, occlusion, correspondence of parts (three pictures or more), invariance: PNGs and explain.html.
    """
    from edgecnn.bundle import Bundle
    from edgecnn.explain import explain as look_inside
    from edgecnn.explain import table

    folder = out or bundle / "explain"
    result = look_inside(Bundle.read(bundle), picture, folder, parts)
    _print(as_json, (result, f"{_columns(table(result))}\n{folder / 'explain.html'}"))


@app.command()
def classify(
    bundle: BundlePath,
    picture: Annotated[list[Path], typer.Option(metavar="FILE", help="What to name; may be given again.")],
    method: Annotated[
        Literal["centre", "ten_crop", "dense"],
        typer.Option(help="One look; AlexNet's ten crops; VGG's whole picture, with FC layers as convolutions."),
    ] = "centre",
    as_json: Json = False,
) -> None:
    """Name what a classifier of the zoo sees in pictures."""
    from edgecnn.bundle import Bundle
    from edgecnn.classify import classify as name

    rows = name(Bundle.read(bundle), picture, method)
    lines = [(r["picture"], *(f"{c['name']} {c['probability']:.3f}" for c in r["classes"])) for r in rows]
    _print(as_json, (rows, _columns(lines)))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Tell what this machine has, and lacks."""
    from edgecnn.doctor import doctor as look

    found = look()
    rows = [(_mark(c.ok, c.needed), c.name, c.found, c.mend) for c in found]
    _print(as_json, ([vars(c) for c in found], _columns(rows)))
    if missing := [c.name for c in found if c.needed and not c.ok]:
        raise MissingDependency(f"`edgecnn run` needs {', '.join(missing)}", do="See the last column")


@app.command()
def zoo(as_json: Json = False) -> None:
    """List the models, parameters and MACs."""
    from edgecnn.zoo.table import table

    rows = table()
    lines = [[f"{cell:,}" if isinstance(cell, int) else cell for cell in row.values()] for row in rows]
    _print(as_json, (rows, _columns([list(rows[0]), *lines])))


@app.command()
def report(
    bundle: BundlePath,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="BUNDLE/report.html unless given.")] = None,
    runs: Annotated[list[Path] | None, typer.Option("--run", metavar="DIR", help="What `edgecnn run` wrote.")] = None,
    bench: Annotated[Path | None, typer.Option(metavar="FILE", help="What `edgecnn bench --json` printed.")] = None,
    check: Annotated[Path | None, typer.Option(metavar="FILE", help="What `edgecnn check --json` printed.")] = None,
    as_json: Json = False,
) -> None:
    """Write one page: report.html."""
    from edgecnn.bundle import Bundle
    from edgecnn.report import write_report

    opened = Bundle.read(bundle)
    path = write_report(opened, out or bundle / "report.html", runs=runs or (), bench=bench, check=check)
    _print(as_json, ({"report": path}, str(path)))


def _stage(stage: str, recipe: Path, out: Path | None, as_json: bool, search: dict[str, Any] | None = None) -> None:
    from edgecnn.compile import compile_recipe

    done = compile_recipe(recipe, out, until=stage, search=search)
    if done.steps:  # none: a process that torchrun started to help the first one
        _print(as_json, _compiled(done))


def _compiled(done: Compiled) -> tuple[dict[str, Any], str]:
    steps = [{"stage": s.stage, "outcome": s.outcome, "seconds": round(s.seconds, 2), "why": s.why} for s in done.steps]
    files = {
        role: str(done.bundle.path / name) for r in done.bundle.stages.values() for role, (name, _) in r.files.items()
    }
    lines = [f"{s.stage:<10} {s.outcome:<6} {s.seconds:8.1f} s  {s.why}" for s in done.steps]
    return {"bundle": str(done.bundle.path), "steps": steps, "files": files}, "\n".join([*lines, str(done.bundle.path)])


def _columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows as text, each column as wide as its widest cell."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _mark(ok: bool, needed: bool) -> str:
    return "ok" if ok else "MISSING" if needed else "no"


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
