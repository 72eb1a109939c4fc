"""Signed bundles: Ed25519 (RFC 8032) over the manifest, which holds the sha256 of every file.

    manifest.sig    JSON: whose key (the first 16 hex digits of the sha256 of its 32 bytes), and the signature in base64

The manifest's bytes are verified before they are parsed, and every file is hashed before it is opened
(`edgecnn.bundle`), so nothing unsigned is ever read as a model. Keys are PEM files, as openssl makes them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn.bundle import MANIFEST, Bundle, atomic
from edgecnn.errors import BundleError, InputError, MissingDependency

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE = "manifest.sig"
PASSWORD = "EDGECNN_KEY_PASSWORD"  # the environment variable that opens an encrypted private key
_CONTEXT = b"edgecnn bundle manifest 1\n"  # so that a signature of something else is none of a bundle


def sign(bundle: Bundle, key: Path) -> str:
    """Sign a bundle whose files are all whole; returns the key's name.

    Raises InputError for a key that is none, BundleError where a file was changed since the bundle was made.
    """
    private = _private(key)
    verify_files(bundle)
    name = _name(private.public_key())
    signature = private.sign(_CONTEXT + (bundle.path / MANIFEST).read_bytes())
    with atomic(bundle.path / SIGNATURE) as temporary:
        text = json.dumps({"key": name, "signature": base64.b64encode(signature).decode()})
        temporary.write_text(text + "\n", "utf-8")
    return name


def signed_by(key: Path, path: Path) -> Callable[[bytes], None]:
    """For `Bundle.read`: raises BundleError unless the manifest of the bundle at `path` was signed with `key`'s
    private half. Raises InputError at once for a key that is none."""
    public = _public(key)

    def trust(manifest: bytes) -> None:
        from cryptography.exceptions import InvalidSignature

        name, signature = _read(path / SIGNATURE)
        try:
            public.verify(signature, _CONTEXT + manifest)
        except InvalidSignature:
            other = f"{path} is signed with the key {name}" if name != _name(public) else ""
            raise BundleError(
                other or f"{path / MANIFEST} was changed after it was signed",
                wanted=f"a signature of the key {_name(public)} ({key})",
                do="Get the bundle again from where it was signed, or sign it: edgecnn sign BUNDLE --key PRIVATE.pem",
            ) from None

    return trust


def verify_files(bundle: Bundle) -> int:
    """Hash every file that the manifest names; how many there are. Raises BundleError for one that is not whole."""
    for stage in bundle.stages:
        if not bundle.intact(stage):
            raise BundleError(
                f"a file of {bundle.path} (stage {stage}) is missing or was changed since it was made",
                do="Compile the recipe again",
            )
    return sum(len(record.files) for record in bundle.stages.values())


def _read(path: Path) -> tuple[str, bytes]:
    """Whose signature it says it is, and the signature."""
    if not path.is_file():
        raise BundleError(
            f"{path.parent} is not signed (there is no {SIGNATURE})", do="Run: edgecnn sign BUNDLE --key PRIVATE.pem"
        )
    try:
        data = json.loads(path.read_text("utf-8"))
        return str(data["key"]), base64.b64decode(data["signature"], validate=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path} is damaged ({error})", wanted="what `edgecnn sign` wrote") from error


def _name(public: Ed25519PublicKey) -> str:
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]


def _private(path: Path) -> Ed25519PrivateKey:
    password = os.environ.get(PASSWORD)
    key = _loaded(path, "private", password.encode() if password else None)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if not isinstance(key, Ed25519PrivateKey):
        raise _wrong(path, f"a {type(key).__name__}", "private")
    return key


def _public(path: Path) -> Ed25519PublicKey:
    key = _loaded(path, "public", None)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if not isinstance(key, Ed25519PublicKey):
        raise _wrong(path, f"a {type(key).__name__}", "public")
    return key


def _loaded(path: Path, half: str, password: bytes | None) -> object:
    """A key of any kind. Raises MissingDependency where the package is not there."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
    except ModuleNotFoundError as error:
        raise MissingDependency(
            "signatures need the package cryptography", do="Run: pip install 'edgecnn[sign]'"
        ) from error

    try:
        pem = path.read_bytes()
        if half == "public":
            return serialization.load_pem_public_key(pem)
        return serialization.load_pem_private_key(pem, password)
    except OSError as error:
        raise InputError(f"the key {path} is not readable ({error.strerror})", wanted=_MAKE[half]) from error
    except TypeError as error:  # cryptography's, for a password that is missing or not needed
        raise InputError(f"the key {path} does not open ({error})", wanted=f"its password in {PASSWORD}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _wrong(path, "no such key, or its password is another", half) from error


def _wrong(path: Path, came: str, half: str) -> InputError:
    return InputError(f"{path} is {came}", wanted=f"an Ed25519 {half} key in PEM, made by: {_MAKE[half]}")


_MAKE = {
    "private": "openssl genpkey -algorithm ed25519 -out private.pem",
    "public": "openssl pkey -in private.pem -pubout -out public.pem",
}
