"""The check before a build, and its repairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecnn.cli.common import Json, app, columns, show
from edgecnn.errors import BuildError, InputError

if TYPE_CHECKING:
    from edgecnn.build.lint.finding import Finding


@app.command()
def lint(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file.")],
    target: Annotated[
        str, typer.Option(help="jetpack-4.6, jetpack-5.1, jetpack-6.x, jetpack-7.x, rtx, dla, or a board such as orin.")
    ],
    fix: Annotated[
        Path | None, typer.Option(metavar="OUT.onnx", help="Write a repaired network, if its answers stay.")
    ] = None,
    inputs: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="To compare the answers on; random unless given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find what TensorRT refuses, or gets wrong.

    Ends with 7 if errors are found, or remain behind --fix; warnings alone end with 0.
    """
    from edgecnn import onnxfile
    from edgecnn.build import lint as rules

    profile = rules.find(target)
    network = onnxfile.read(model)
    found = rules.check_model(network, profile)
    data: dict[str, Any] = {"target": profile.name, "memory": str(onnxfile.memory(network)), "findings": _json(found)}
    lines = [_table(found)]
    if fix is not None:
        from edgecnn.build.lint import fix as repairs

        fixed = repairs.fix(network, profile, _feeds(network, inputs))
        lines += [f"fixed    {repair}" for repair in fixed.repairs]
        if fixed.parity is None:
            lines.append("nothing here can be repaired without a person: no file was written")
        else:
            repairs.write(fixed, model, fix)
            lines += [f"parity   {fixed.parity}", f"written  {fix}", "remains:", _table(fixed.remaining)]
            data |= {"written": fix, "parity_db": fixed.parity.sqnr_db, "wanted_db": fixed.parity.wanted_db}
        found = list(fixed.remaining)
        data |= {"fixed": [vars(repair) for repair in fixed.repairs], "remaining": _json(found)}
    show(as_json, (data, "\n".join(lines)))
    wrong = rules.errors(found)
    if wrong:
        raise BuildError(f"{len(wrong)} errors for {profile.title}, the first: {wrong[0]}")


def _feeds(network: Any, path: Path | None) -> Any:
    if path is None:
        return ()
    import numpy as np

    from edgecnn.build.lint.parity import given_feeds

    try:
        with np.load(path, allow_pickle=False) as arrays:
            return given_feeds(network, dict(arrays))
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is no readable .npz ({error})"[:200], wanted="arrays named as the inputs") from error


def _json(found: Any) -> list[dict[str, str]]:
    return [{**vars(finding), "severity": finding.severity} for finding in found]


def _table(found: list[Finding] | tuple[Finding, ...]) -> str:
    if not found:
        return "no findings"
    return columns([(f.severity, f.rule, f"{f.where}: {f.came}; wanted {f.wanted}. {f.do}.") for f in found])
