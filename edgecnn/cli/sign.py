"""Signatures of bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecnn.cli.common import BundlePath, Json, app, show


@app.command()
def sign(
    bundle: BundlePath,
    key: Annotated[Path, typer.Option(metavar="PEM", help="An Ed25519 private key; EDGECNN_KEY_PASSWORD opens it.")],
    as_json: Json = False,
) -> None:
    """Sign a bundle, for `run --require-signature`.

    `openssl genpkey -algorithm ed25519 -out private.pem` makes a key, `openssl pkey -in private.pem -pubout` its public
    half.
    """
    from edgecnn.bundle import Bundle
    from edgecnn.signature import SIGNATURE
    from edgecnn.signature import sign as sign_bundle

    name = sign_bundle(Bundle.read(bundle), key)
    found = {"signature": str(bundle / SIGNATURE), "key": name}
    show(as_json, (found, f"{bundle / SIGNATURE}\nsigned with the key {name}"))


@app.command()
def verify(
    bundle: BundlePath,
    key: Annotated[Path, typer.Option(metavar="PEM", help="The Ed25519 public key.")],
    as_json: Json = False,
) -> None:
    """Verify a bundle's signature and every file."""
    from edgecnn.bundle import Bundle
    from edgecnn.signature import signed_by, verify_files

    count = verify_files(Bundle.read(bundle, trust=signed_by(key, bundle)))
    found = {"bundle": str(bundle), "files": count}
    show(as_json, (found, f"{bundle}: the signature and {count} files are good"))
