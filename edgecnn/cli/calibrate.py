"""Judge a calibration set, or pick one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecnn.cli.common import Json, RecipeOrBundle, app, columns, opened, show
from edgecnn.errors import GateFailed

if TYPE_CHECKING:
    from edgecnn.bundle import Bundle
    from edgecnn.data import Dataset
    from edgecnn.recipe import Recipe


@app.command()
def calibrate(
    model: RecipeOrBundle,
    audit: Annotated[bool, typer.Option("--audit", help="Judge the calibration pictures.")] = False,
    pick: Annotated[
        int | None, typer.Option(metavar="K", min=1, help="Pick the K most useful pictures of --data for --out.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER|LIST", help="Pictures; the recipe's calibration unless given.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="LIST", help="Where --pick writes its list.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 9 if the audit finds something.")] = False,
    as_json: Json = False,
) -> None:
    """Audit calibration pictures, or pick them."""
    if audit == (pick is not None):
        raise typer.BadParameter("name one of --audit and --pick K", param_hint="--audit")
    if audit:
        _audit(model, data, strict, as_json)
        return
    if data is None or out is None:
        raise typer.BadParameter("it needs --data FOLDER and --out LIST", param_hint="--pick")
    assert pick is not None
    _pick(model, pick, data, out, as_json)


def _audit(model: Path, data: Path | None, strict: bool, as_json: bool) -> None:
    from edgecnn.quantize.audit import audit

    bundle, recipe = opened(model, "quantize")
    found = audit(bundle, _pictures(bundle, recipe, data), _reference(bundle, recipe))
    show(as_json, (found.json(), columns(found.table())))
    if strict and found.findings:
        raise GateFailed(f"the audit has findings: {', '.join(check.name for check in found.findings)}")


def _pick(model: Path, count: int, data: Path, out: Path, as_json: bool) -> None:
    from edgecnn.quantize.pick import pick_list

    bundle, _ = opened(model, "export")
    picked = pick_list(bundle, data, count, out)
    line = f"{len(picked.entries)} of {picked.among} pictures; ranges are {picked.apart:.1%} from those of all: {out}"
    names = [entry.path for entry in picked.entries]
    show(as_json, ({"list": out, "among": picked.among, "apart": picked.apart, "pictures": names}, line))


def _pictures(bundle: Bundle, recipe: Recipe | None, data: Path | None) -> Dataset:
    """What --data names, else the recipe's calibration, else the data that the bundle's quantize stage records."""
    from edgecnn.data import open_dataset
    from edgecnn.data.calibration import open_pictures
    from edgecnn.errors import InputError
    from edgecnn.quantize.stage import calibration
    from edgecnn.recipe import DataSection

    if data is not None:
        return open_pictures(data)
    if recipe is not None:
        return calibration(recipe.quantize)
    settings = bundle.stages["quantize"].settings if "quantize" in bundle.stages else {}
    if "data" not in settings:
        raise InputError(f"{bundle.path} does not say where its calibration pictures are", do="Name them with --data")
    return open_dataset(DataSection(**settings["data"]))


def _reference(bundle: Bundle, recipe: Recipe | None) -> Dataset | None:
    """The pictures that accuracy is checked on, where they are at hand."""
    from edgecnn.data import open_dataset
    from edgecnn.errors import InputError
    from edgecnn.progress import note
    from edgecnn.recipe import CheckSection

    section = recipe.check if recipe else CheckSection(**bundle.settings["check"]) if bundle.settings else None
    if section is None:
        return None
    try:
        return open_dataset(section.data)
    except InputError as error:
        note(f"no pictures to check on: {error}")
        return None
