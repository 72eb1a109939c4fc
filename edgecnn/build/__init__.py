"""Build: the INT8 network → an engine for one target, and evidence of what became INT8 in it.

model.<target>.half.onnx      the network that was built, where FP16 was asked for and types say it
model.<target>.engine         TensorRT's own format: it fits one GPU generation and one version only
model.<target>.log            every line that the builder said
model.<target>.layers.json    TensorRT's own list of the engine's layers, where the engine could be loaded
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.bundle import Bundle, StageRecord, atomic, sha256
from edgecnn.engine import installed, misfit, tie
from edgecnn.errors import MissingDependency, RecipeError
from edgecnn.progress import note

if TYPE_CHECKING:
    from edgecnn.build.network import Options
    from edgecnn.recipe import BuildSection, Recipe

VERSION = 3
MODULES = {"rtx": "tensorrt_rtx", "trt": "tensorrt"}  # dialect → the binding's name


def settings(recipe: Recipe) -> dict[str, Any]:
    """The recipe's `build` section."""
    return {} if recipe.build is None else recipe.build.model_dump(mode="json")


def require_target(recipe: Recipe) -> None:
    """Before hours of training, not after: BuildError for a target that is unknown or cannot run the precision."""
    from edgecnn.build import targets

    section = section_of(recipe)
    targets.find(section.target, int8=section.precision != "fp16")


def run_stage(bundle: Bundle, recipe: Recipe) -> Bundle:
    """Check the network, type it, build it, read the evidence. Raises BuildError, MissingDependency.

    An FP16 engine for a board without INT8 is built on the board: the BuildError tells what to carry there.
    """
    try:
        from edgecnn import onnxfile
    except ImportError as error:
        raise MissingDependency(
            "onnx is not installed: the check before the build needs it", do="Run: pip install onnx"
        ) from error

    from edgecnn.build import lint, readers, targets, typed, worker, xray

    section = section_of(recipe)
    target = targets.find(section.target, int8=section.precision != "fp16")
    network = "fp32" if section.precision == "fp16" else "int8"
    if not target.supported:
        raise targets.by_hand(section.target, bundle.file(network), section.workspace_mib)
    source = bundle.file(network)
    lint.require(source, lint.find(section.target))
    settled = options(section)
    facts: dict[str, Any] = {}
    contents: dict[str, tuple[str, bytes]] = {}  # role → how its file's name ends, and what is in it
    with tempfile.TemporaryDirectory(prefix="edgecnn-half-") as folder:
        if settled.fp16 and typed.strongly(target.dialect, installed(MODULES["trt"])):
            facts["fp16"], content = typed.typed(bundle, source)
            source, network, settled = Path(folder) / "half.onnx", "half", replace(settled, fp16=False)
            source.write_bytes(content)
            contents["half"] = ("half.onnx", content)
        built = worker.build_apart(source, target, settled)
        asked, digest = onnxfile.read(source), sha256(source)
        spec = bundle.require_model()
        if spec.regions is not None:
            small = Path(folder) / "regions.onnx"
            small.write_bytes(onnxfile.resized(asked, *spec.regions).SerializeToString(deterministic=True))
            contents["engine_regions"] = ("regions.engine", worker.build_apart(small, target, settled).engine)
    contents["engine"] = ("engine", built.engine)
    contents["build_log"] = ("log", "\n".join(built.log).encode())
    if built.layers:
        contents["layers"] = ("layers.json", built.layers.encode())
    files = {role: f"model.{section.target}.{ending}" for role, (ending, _) in contents.items()}
    for role, name in files.items():
        with atomic(bundle.path / name) as temporary:
            temporary.write_bytes(contents[role][1])
    layers = readers.inspector(built.layers) if built.layers else readers.log(built.log)
    seen = xray.xray(layers, lint.meant(asked), halves=xray.typed(readers.network(asked)))
    note(f"{section.target}: {seen}")
    runtime = MODULES[target.dialect]
    facts |= {
        "target": section.target,
        "sm": target.sm,
        "network": network,
        "seconds": round(built.seconds, 2),
        "bytes": len(built.engine),
        "kernels_meant_int8": seen.meant,
        "kernels_int8": seen.int8,
        "evidence": str(seen),
        "layers": seen.table().splitlines(),
        "engine": tie(digest, runtime, built.version, target.sm, built.flags),
    }
    return bundle.with_stage(
        "build",
        settings=settings(recipe),
        version=VERSION,
        files=files,
        facts=facts,
        tools={runtime: built.version},
    )


def section_of(recipe: Recipe) -> BuildSection:
    """The recipe's `build` section. Raises RecipeError where it has none."""
    if recipe.build is None:
        raise RecipeError("the recipe has no `build:` section", do="Add one with a target")
    return recipe.build


def options(section: BuildSection) -> Options:
    """What the recipe says to the builder."""
    from edgecnn.build.network import Options

    return Options(section.workspace_mib, section.precision != "int8", section.version_compatible)


def stale(record: StageRecord) -> str:
    """Why `edgecnn build` must build again although nothing in the bundle changed; "" if it need not.

    Only a TensorRT that is here counts: a desk without one keeps the engine that a board made.
    """
    tied = record.facts.get("engine")  # none: made by an older edgecnn, whose key is another one anyway
    here = installed(tied["runtime"]) if tied else ""
    why = misfit(tied, here) if tied and here else ""
    return f"the engine is stale ({why}), making it again" if why else ""
