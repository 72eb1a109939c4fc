"""What is done with a bundle, and what needs none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgecnn.cli.common import BundlePath, Json, Precision, app, columns, show
from edgecnn.errors import GateFailed, MissingDependency

if TYPE_CHECKING:
    from edgecnn.run.runner import SinkName


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
        Precision,
        typer.Option(
            help="auto: the engine if it runs here, else INT8 or FP32, as suits the CPU; openvino: INT8 by OpenVINO."
        ),
    ] = Precision.auto,
    threads: Annotated[int, typer.Option(min=0, help="Of inference on a CPU; 0: every core but one.")] = 0,
    reid: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="Embeds: objects are known again by their looks.")
    ] = None,
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
    again = Bundle.read(reid) if reid else None
    summary = run_bundle(opened, stream, folder if sinks else None, settings, sinks, reid=again)
    made = [str(path) for path in summary.files.values() if isinstance(path, str)]
    line = (
        f"{summary.frames} frames in {summary.seconds:.1f} s ({summary.fps:.1f}/s) with {summary.role}; detector in "
        f"{summary.detector_frames}, {summary.tracks} tracks, {summary.cuts} cuts, {len(summary.events)} events"
    )
    show(as_json, (asdict(summary), "\n".join([line, *made])))


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
        show(True, (result, ""))
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
    show(as_json, (report.json(), columns(report.table())))
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
    show(as_json, (result, f"{columns(table(result))}\n{folder / 'explain.html'}"))


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
    show(as_json, (rows, columns(lines)))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Tell what this machine has, and lacks."""
    from edgecnn.doctor import doctor as look

    found = look()
    rows = [(_mark(c.ok, c.needed), c.name, c.found, c.mend) for c in found]
    show(as_json, ([vars(c) for c in found], columns(rows)))
    if missing := [c.name for c in found if c.needed and not c.ok]:
        raise MissingDependency(f"`edgecnn run` needs {', '.join(missing)}", do="See the last column")


def _mark(ok: bool, needed: bool) -> str:
    return "ok" if ok else "MISSING" if needed else "no"


@app.command()
def zoo(as_json: Json = False) -> None:
    """List the models, parameters and MACs."""
    from edgecnn.zoo.table import table

    rows = table()
    lines = [[f"{cell:,}" if isinstance(cell, int) else cell for cell in row.values()] for row in rows]
    show(as_json, (rows, columns([list(rows[0]), *lines])))


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
    show(as_json, ({"report": path}, str(path)))
