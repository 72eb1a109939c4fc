"""What is done with a bundle, and what needs none."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgecnn.cli.common import BundlePath, Json, app, columns, show
from edgecnn.errors import GateFailed, MissingDependency


@app.command()
def check(
    bundle: BundlePath,
    recipe: Annotated[
        Path | None, typer.Option(metavar="RECIPE", help="Take `check:` from it, not from the one of the bundle.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the gates as JUnit XML.")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write them for a pull request.")] = None,
    update: Annotated[bool, typer.Option("--update", help="Make these figures the baseline of the recipe.")] = False,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is kept in the baseline.")] = "",
    bisect: Annotated[
        bool, typer.Option("--bisect", help="Where a gate is missed, name the first bad stage, and the layer.")
    ] = False,
    shipped: Annotated[
        bool,
        typer.Option("--shipped", help="Leave out the network before slimming: what a board without torch can do."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure accuracy and apply the gates.

    A loss misses its gate when it is beyond the limit and no accident of the pictures (paired bootstrap, 95 %). Where
    they are too few to tell, the gate is passed with a warning.
    """
    from edgecnn.bundle import Bundle, atomic
    from edgecnn.check import check as check_bundle
    from edgecnn.check import section_of
    from edgecnn.check.measured import read_baseline
    from edgecnn.recipe import load

    if update != bool(reason.strip()):
        raise typer.BadParameter("--update and --reason TEXT go together")
    opened = Bundle.read(bundle)
    section = load(recipe).check if recipe else section_of(opened)
    report = check_bundle(opened, section, update=reason.strip(), shipped=shipped)
    told, table, blames = report.json(), columns(report.table()), list[str]()
    if bisect and not report.ok:
        from edgecnn.blame import bisect as search

        found = search(opened, report, section, read_baseline(section.baseline) if section.baseline else None)
        told["blames"] = [{**vars(blame), "gate": blame.gate.metric} for blame in found]
        blames = [str(blame) for blame in found]
    show(as_json, (told, "\n".join([table, *([""] if blames else []), *blames])))
    for path, text in ((junit, report.junit()), (markdown, report.markdown(blames))):
        if path:
            with atomic(path) as temporary:
                temporary.write_text(text, "utf-8")
    for gate in report.unsure:
        typer.echo(f"Warning: {gate}; {report.samples} pictures are too few to tell.", err=True)
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
    history: Annotated[Path | None, typer.Option(metavar="FILE", help="What `edgecnn bench --history` keeps.")] = None,
    check: Annotated[Path | None, typer.Option(metavar="FILE", help="What `edgecnn check --json` printed.")] = None,
    as_json: Json = False,
) -> None:
    """Write one page: report.html."""
    from edgecnn.bundle import Bundle
    from edgecnn.report import write_report

    opened, past = Bundle.read(bundle), []
    if history:
        from edgecnn.bench.history import read

        past = read(history)
    path = write_report(opened, out or bundle / "report.html", runs=runs or (), bench=bench, history=past, check=check)
    show(as_json, ({"report": path}, str(path)))
