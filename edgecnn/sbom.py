"""What a bundle is made of, as a CycloneDX 1.6 document (ECMA-424): its files, its model card, the Python packages.

The document follows from the bundle and the packages installed here alone: it holds no time and no random number, so
two of the same are the same bytes. cyclonedx-python-lib knows no model cards (in 11.12), so the JSON is written here,
and that library's strict validator is the oracle of the tests.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edgecnn import __version__
from edgecnn.bundle import MANIFEST, Bundle, ModelSpec, sha256
from edgecnn.signature import verify_files

Json = dict[str, Any]

SPEC = "1.6"
NETWORKS = {".onnx", ".engine", ".safetensors"}  # the rest is a file that no runtime loads
SHIPPED = Path(__file__).parent / "weights"  # under the licence of edgecnn itself
LICENCE = "Apache-2.0"
TASKS = {"classify": "image classification", "detect": "object detection", "embed": "image embedding"}


def sbom(bundle: Bundle) -> Json:
    """The document. Every file is hashed first; raises BundleError for one that is missing or was changed.

    Packages that made the bundle have the scope `excluded` and the version that the manifest holds; those that running
    it needs are `required`, as installed here (`optional`: the engine's runtime, which a CPU does without).
    """
    verify_files(bundle)
    model = _model(bundle)
    packages = _packages(bundle)
    files = list(_files(bundle))
    needed = [p["bom-ref"] for p in packages if p["scope"] != "excluded"]
    parts: Json = {
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "edgecnn", "version": __version__}]},
            "component": model,
        },
        "components": files + packages,
        "dependencies": [
            {"ref": model["bom-ref"], "dependsOn": sorted([f["bom-ref"] for f in files] + needed)},
        ],
    }
    content = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}",
        "version": 1,
        **parts,
    }


def _model(bundle: Bundle) -> Json:
    """The bundle as one machine-learning model, with its card."""
    model, stages = bundle.require_model(), bundle.stages
    digest = sha256(bundle.path / MANIFEST)
    component: Json = {
        "type": "machine-learning-model",
        "bom-ref": f"bundle:{bundle.name}",
        "name": bundle.name,
        "version": digest[:12],
        "hashes": _sha256(digest),
        "modelCard": {"modelParameters": _parameters(bundle, model)},
        "properties": _properties(
            {f"stage:{name}": record.key for name, record in stages.items()}
            | {f"class:{i}": name for i, name in enumerate(model.classes)}
        ),
    }
    train = stages.get("train")
    if train:
        origin: Json = {"type": "machine-learning-model", "name": str(train.facts.get("started_from", "not known"))}
        if start := train.settings.get("weights_sha256", {}).get("sha256"):
            origin["hashes"] = _sha256(start)
            if any(sha256(path) == start for path in sorted(SHIPPED.glob("*.safetensors"))):
                origin["licenses"] = [{"license": {"id": LICENCE}}]
        if not train.settings.get("train", {}).get("epochs") and "licenses" in origin:
            component["licenses"] = origin["licenses"]  # trained further, the data has a say as well: no claim
        component["pedigree"] = {"ancestors": [origin]}
    return component


def _parameters(bundle: Bundle, model: ModelSpec) -> Json:
    shape = "x".join(map(str, model.input.shape))
    return {
        "task": TASKS[model.task],
        "architectureFamily": "convolutional neural network",
        "modelArchitecture": model.arch,
        "datasets": list(_datasets(bundle)),
        "inputs": [{"format": f"{model.input.name}: {model.channels} picture, NCHW {shape}, {model.input.dtype}"}],
        "outputs": [{"format": f"{out.name}: {'x'.join(map(str, out.shape))}, {out.dtype}"} for out in model.outputs],
    }


def _datasets(bundle: Bundle) -> Iterator[Json]:
    """What the weights and the INT8 scales were fitted on, as the manifest says: digests, no paths of the desk."""
    train, quantize = bundle.stages.get("train"), bundle.stages.get("quantize")
    section: Mapping[str, Any] = train.settings.get("train", {}) if train else {}
    if section.get("epochs"):
        yield _dataset("training data", section.get("data"))
    if quantize:
        yield _dataset("calibration pictures", quantize.settings.get("calibration") or quantize.settings.get("data"))


def _dataset(name: str, told: Any) -> Json:
    """`told`: the sha256 of a list, or the settings that name the data, whose digest stands for them."""
    if isinstance(told, str):
        digest, of = told, "the list"
    else:
        digest, of = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest(), "the settings"
    kind = {"kind": told["kind"]} if isinstance(told, Mapping) and "kind" in told else {}
    facts = {f"sha256 of {of}": digest} | kind
    return {"type": "dataset", "name": name, "contents": {"properties": _properties(facts)}}


def _files(bundle: Bundle) -> Iterator[Json]:
    """The manifest, and every file that it names."""
    yield _file(MANIFEST, sha256(bundle.path / MANIFEST), {})
    for stage, record in bundle.stages.items():
        for role, (name, digest) in sorted(record.files.items()):
            yield _file(name, digest, {"role": role, "stage": stage})


def _file(name: str, digest: str, facts: Mapping[str, str]) -> Json:
    return {
        "type": "machine-learning-model" if Path(name).suffix in NETWORKS else "file",
        "bom-ref": f"file:{name}",
        "name": name,
        "hashes": _sha256(digest),
        "properties": _properties(facts),
    }


def _packages(bundle: Bundle) -> list[Json]:
    """By name and version; a package that made the bundle and runs it counts as needed to run it."""
    found: dict[tuple[str, str], Json] = {}
    for stage, record in bundle.stages.items():
        for told, version in record.made_on.items():
            name = str(canonicalize_name(told))
            package = found.setdefault((name, version), _package(name, version, "excluded"))
            package["properties"] += _properties({"made": stage})
            if stage == "build":  # what built an engine also loads it
                package["scope"] = "optional"
    for name in _needed("edgecnn"):
        version = metadata.version(name)
        made = found.get((name, version), {}).get("properties", [])
        found[name, version] = _package(name, version, "required") | {"properties": made}
    return [found[key] for key in sorted(found)]


def _needed(name: str) -> set[str]:
    """Every distribution that one needs here without its extras, itself included, down to the last. What this machine
    does not ask for (another system's, another Python's) or does not have is left out."""
    found: set[str] = set()
    ahead = [(str(canonicalize_name(name)), frozenset[str]())]
    asked: set[tuple[str, frozenset[str]]] = set()
    while ahead:
        step = ahead.pop()
        if step in asked:
            continue
        asked.add(step)
        try:
            requires = metadata.requires(step[0]) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(step[0])
        for requirement in map(Requirement, requires):
            extras = step[1] or {""}
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in extras):
                ahead.append((str(canonicalize_name(requirement.name)), frozenset(requirement.extras)))
    return found


def _package(name: str, version: str, scope: str) -> Json:
    purl = f"pkg:pypi/{name}@{version.replace('+', '%2B')}"
    licences = _licences(name, version)
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "scope": scope,
        "purl": purl,
        **({"licenses": licences} if licences else {}),
        "properties": [],
    }


def _licences(name: str, version: str) -> list[Json]:
    """What the installed package says of itself; none where another version, or none, is here."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return []
    if found.version != version:
        return []
    if expressions := found.metadata.get_all("License-Expression"):
        return [{"expression": expressions[0]}]
    classifiers: Iterable[str] = found.metadata.get_all("Classifier") or ()
    names = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License :: ") and c.count(" :: ") > 1]
    told = (found.metadata.get_all("License") or [""])[0]
    if not names and told and re.fullmatch(r"[^\n]{1,80}", told):  # longer: the licence's whole text
        names = [told]
    return [{"license": {"name": text}} for text in names]


def _sha256(digest: str) -> list[Json]:
    return [{"alg": "SHA-256", "content": digest}]


def _properties(facts: Mapping[str, str]) -> list[Json]:
    return [{"name": f"edgecnn:{name}", "value": value} for name, value in facts.items()]
