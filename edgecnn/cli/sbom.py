"""What a bundle is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecnn.cli.common import BundlePath, Json, app, show


@app.command()
def sbom(
    bundle: BundlePath,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write it there; to standard output unless given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List a bundle's files, model card and packages (CycloneDX 1.6).

    Files are hashed: one that was changed is refused. Packages: those that made it, and those that running it needs
    here.
    """
    import json

    from edgecnn.bundle import Bundle, atomic
    from edgecnn.sbom import sbom as document

    found = document(Bundle.read(bundle))
    text = json.dumps(found, indent=1)
    if out is None:
        show(as_json, (found, text))
        return
    with atomic(out) as temporary:
        temporary.write_text(text + "\n", "utf-8")
    counted = {"sbom": str(out), "components": len(found["components"])}
    show(as_json, (counted, f"{out}: {counted['components']} components"))
