"""Signed bundles, and every way to get an unsigned one past the check."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from test_cli import called
from tiny_detector import make_bundle

from edgecnn.bundle import MANIFEST, Bundle, _digest
from edgecnn.errors import BundleError, InputError
from edgecnn.signature import PASSWORD, SIGNATURE, sign, signed_by, verify_files


def key_files(folder: Path, password: str = "") -> tuple[Path, Path]:
    """A new pair: the private and the public PEM."""
    folder.mkdir(exist_ok=True)
    key = ed25519.Ed25519PrivateKey.generate()
    lock = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    private, public = folder / "private.pem", folder / "public.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, Path]:
    """A signed bundle, and the public key."""
    bundle = make_bundle(tmp_path / "lamps.bundle", int8=True)
    private, public = key_files(tmp_path / "ours")
    sign(bundle, private)
    return bundle.path, public


def read(path: Path, public: Path) -> Bundle:
    return Bundle.read(path, trust=signed_by(public, path))


def forge(path: Path) -> None:
    """Another manifest, its own checksum right: what an attacker who knows the format writes."""
    data = json.loads((path / MANIFEST).read_text("utf-8"))
    data["settings"] = {"run": {"score": 0.99}}
    data["sha256"] = _digest({k: v for k, v in data.items() if k != "sha256"})
    (path / MANIFEST).write_text(json.dumps(data), "utf-8")


def test_a_signed_bundle_is_read_and_every_file_is_whole(signed: tuple[Path, Path]) -> None:
    assert verify_files(read(*signed)) >= 2


def test_a_forged_manifest_is_refused_before_it_is_parsed(signed: tuple[Path, Path]) -> None:
    path, public = signed
    forge(path)
    Bundle.read(path)  # its own checksum does not tell
    with pytest.raises(BundleError, match="was changed after it was signed"):
        read(path, public)
    (path / MANIFEST).write_bytes(b"\x80\x04no JSON at all")
    with pytest.raises(BundleError, match="was changed after it was signed"):
        read(path, public)


def test_a_changed_model_is_refused_by_the_hash_that_was_signed(signed: tuple[Path, Path]) -> None:
    path, public = signed
    model = Bundle.read(path).file("fp32")
    model.write_bytes(model.read_bytes() + b"\0")
    with pytest.raises(BundleError, match="was changed"):
        read(path, public).file("fp32")
    with pytest.raises(BundleError, match="missing or was changed"):
        verify_files(read(path, public))
    with pytest.raises(BundleError, match="missing or was changed"):
        sign(Bundle.read(path), public.with_name("private.pem"))


def test_another_key_another_bundle_and_no_signature(signed: tuple[Path, Path], tmp_path: Path) -> None:
    path, public = signed
    _, theirs = key_files(tmp_path / "theirs")
    with pytest.raises(BundleError, match=r"is signed with the key [0-9a-f]{16}; wanted a signature of the key"):
        read(path, theirs)
    other = tmp_path / "other.bundle"
    shutil.copytree(path, other)
    forge(other)  # another bundle with the first one's signature
    with pytest.raises(BundleError, match="was changed after it was signed"):
        read(other, public)
    (path / SIGNATURE).unlink()
    with pytest.raises(BundleError, match="is not signed"):
        read(path, public)


def test_a_signature_that_names_our_key_but_is_not_its(signed: tuple[Path, Path], tmp_path: Path) -> None:
    path, public = signed
    ours = json.loads((path / SIGNATURE).read_text("utf-8"))["key"]
    private, _ = key_files(tmp_path / "theirs")
    sign(Bundle.read(path), private)
    forged = json.loads((path / SIGNATURE).read_text("utf-8")) | {"key": ours}
    (path / SIGNATURE).write_text(json.dumps(forged), "utf-8")
    with pytest.raises(BundleError, match="was changed after it was signed"):
        read(path, public)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"key": "a"}', '{"key": 1, "signature": "no base64!"}'])
def test_a_damaged_signature(signed: tuple[Path, Path], text: str) -> None:
    path, public = signed
    (path / SIGNATURE).write_text(text, "utf-8")
    with pytest.raises(BundleError, match="is damaged"):
        read(path, public)
    (path / SIGNATURE).write_text(json.dumps({"key": "a", "signature": "AAAA"}), "utf-8")  # far too short
    with pytest.raises(BundleError, match="wanted a signature"):
        read(path, public)


def test_keys_that_are_none(signed: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, public = signed
    bundle = Bundle.read(path)
    other = tmp_path / "rsa.pem"
    key = rsa.generate_private_key(65537, 2048)
    other.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(InputError, match="is a RSAPrivateKey; wanted an Ed25519 private key"):
        sign(bundle, other)
    with pytest.raises(InputError, match="not readable"):
        sign(bundle, tmp_path / "nowhere.pem")
    with pytest.raises(InputError, match="Ed25519 private key in PEM"):
        sign(bundle, public)  # the wrong half
    with pytest.raises(InputError, match="Ed25519 public key in PEM"):
        signed_by(path / MANIFEST, path)
    locked, _ = key_files(tmp_path / "locked", "sesame")
    with pytest.raises(InputError, match=PASSWORD):
        sign(bundle, locked)
    monkeypatch.setenv(PASSWORD, "wrong")
    with pytest.raises(InputError, match="its password is another"):
        sign(bundle, locked)
    monkeypatch.setenv(PASSWORD, "sesame")
    assert len(sign(bundle, locked)) == 16


def test_the_command_line_signs_verifies_and_refuses(
    signed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path, public = signed
    assert called(monkeypatch, "sign", path, "--key", public.with_name("private.pem")) == 0
    assert called(monkeypatch, "verify", path, "--key", public) == 0
    assert "files are good" in capfd.readouterr().out
    run = ("run", path, "--source", "sim:1", "--sink", "none")
    forge(path)
    assert called(monkeypatch, "verify", path, "--key", public) == 5
    assert called(monkeypatch, *run, "--require-signature", public) == 5
    monkeypatch.setenv("EDGECNN_REQUIRE_SIGNATURE", str(public))
    assert called(monkeypatch, *run) == 5
    assert called(monkeypatch, "bench", path) == 5
    told = capfd.readouterr()
    assert told.err.count("was changed after it was signed") == 4 and not told.out


def test_a_board_that_asks_for_no_signature_loads_no_cryptography(signed: tuple[Path, Path]) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom edgecnn.cli.common import trusted\n"
        f"trusted(Path({str(signed[0])!r}), None)\nassert 'cryptography' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
