"""The bill of materials: valid by CycloneDX's own schema, true to the files, the same every time."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from test_cli import called
from tiny_detector import MODEL, make_bundle

from edgecnn.bundle import MANIFEST, Bundle, sha256
from edgecnn.errors import BundleError
from edgecnn.sbom import SHIPPED, sbom


def trained(folder: Path, *, start: str, epochs: int = 3) -> Bundle:
    """Two stages more than `make_bundle`: weights that were trained on, and an engine's runtime."""
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"weights")
    bundle = Bundle(folder, "lamps").with_stage(
        "train",
        settings={"train": {"epochs": epochs, "data": {"kind": "sim", "seed": 1}}, "weights_sha256": {"sha256": start}},
        version=1,
        files={"weights": "weights.safetensors"},
        facts={"started_from": "roadnet.safetensors"},
        tools={"torch": "2.13.0+cpu"},
        model=MODEL,
    )
    (folder / "model.engine").write_bytes(b"engine")
    return bundle.with_stage(
        "build",
        settings={},
        version=1,
        files={"engine": "model.engine"},
        facts={},
        tools={"tensorrt_rtx": "1.7.1.116"},
    )


def valid(document: Any) -> None:
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document))
    assert error is None, error


def named(document: Any) -> dict[str, Any]:
    return {component["name"]: component for component in document["components"]}


def test_it_is_valid_and_its_hashes_are_the_files(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "lamps.bundle", int8=True)
    document = sbom(bundle)
    valid(document)
    files = {c["name"]: c for c in document["components"] if c["bom-ref"].startswith("file:")}
    assert set(files) == {path.name for path in bundle.path.iterdir()}
    for name, file in files.items():
        assert file["hashes"] == [{"alg": "SHA-256", "content": sha256(bundle.path / name)}]
    assert files["model.onnx"]["type"] == "machine-learning-model" and files[MANIFEST]["type"] == "file"


def test_the_model_card(tmp_path: Path) -> None:
    document = sbom(trained(tmp_path / "a", start=sha256(SHIPPED / "roadnet.safetensors")))
    valid(document)
    model = document["metadata"]["component"]
    card = model["modelCard"]["modelParameters"]
    assert card["task"] == "object detection" and card["modelArchitecture"] == "onnx"
    assert [o["format"] for o in card["outputs"]] == ["boxes: 1x96x4, float32", "scores: 1x96x2, float32"]
    properties = {p["name"]: p["value"] for p in model["properties"]}
    assert (properties["edgecnn:class:0"], properties["edgecnn:class:1"]) == ("lamp", "never")
    assert [d["name"] for d in card["datasets"]] == ["training data"]
    (origin,) = model["pedigree"]["ancestors"]
    assert origin["name"] == "roadnet.safetensors" and origin["licenses"] == [{"license": {"id": "Apache-2.0"}}]


def test_the_shipped_weights_keep_their_licence_until_they_are_trained_further(tmp_path: Path) -> None:
    start = sha256(SHIPPED / "roadnet.safetensors")
    untouched = sbom(trained(tmp_path / "a", start=start, epochs=0))["metadata"]["component"]
    assert untouched["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert "licenses" not in sbom(trained(tmp_path / "b", start=start))["metadata"]["component"]


def test_weights_of_others_get_no_licence_of_ours(tmp_path: Path) -> None:
    document = sbom(trained(tmp_path / "a", start="0" * 64))
    valid(document)
    model = document["metadata"]["component"]
    assert "licenses" not in model and "licenses" not in model["pedigree"]["ancestors"][0]


def test_packages_have_the_manifests_versions_or_those_installed_here(tmp_path: Path) -> None:
    found = named(sbom(trained(tmp_path / "a", start="0" * 64)))
    assert found["torch"]["version"] == "2.13.0+cpu" and found["torch"]["purl"] == "pkg:pypi/torch@2.13.0%2Bcpu"
    assert found["torch"]["scope"] == "excluded" and found["tensorrt-rtx"]["scope"] == "optional"
    required = {name for name, c in found.items() if c.get("scope") == "required"}
    direct = [r for r in map(Requirement, metadata.requires("edgecnn") or []) if r.marker is None]
    assert {r.name.lower() for r in direct} <= required and "torch" not in required
    assert "pydantic-core" in required  # needed by what is needed
    for name in required:
        assert found[name]["version"] == metadata.version(name)
    assert found["numpy"]["licenses"]


def test_it_is_the_same_every_time_and_another_for_another_bundle(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "lamps.bundle")
    assert json.dumps(sbom(bundle)) == json.dumps(sbom(Bundle.read(bundle.path)))
    other = make_bundle(tmp_path / "two.bundle", int8=True)
    assert sbom(other)["serialNumber"] != sbom(bundle)["serialNumber"]


def test_nothing_of_the_desk_is_told(tmp_path: Path) -> None:
    assert str(tmp_path) not in json.dumps(sbom(make_bundle(tmp_path / "lamps.bundle")))


def test_a_changed_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path / "lamps.bundle")
    network = bundle.file("fp32")
    network.write_bytes(network.read_bytes() + b"\0")
    with pytest.raises(BundleError, match="missing or was changed"):
        sbom(bundle)
    assert called(monkeypatch, "sbom", bundle.path, "--out", tmp_path / "out.json") == 5
    assert not (tmp_path / "out.json").exists() and capsys.readouterr().err.count("\n") == 1


def test_the_command_writes_what_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path / "lamps.bundle")
    assert called(monkeypatch, "sbom", bundle.path, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert called(monkeypatch, "sbom", bundle.path, "--out", tmp_path / "out.json", "--json") == 0
    assert json.loads((tmp_path / "out.json").read_text("utf-8")) == printed == sbom(bundle)
    assert json.loads(capsys.readouterr().out)["components"] == len(printed["components"])
