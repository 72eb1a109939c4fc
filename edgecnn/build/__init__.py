"""Build: the INT8 network → an engine for one target, and evidence of what became INT8 in it.

model.<target>.engine    TensorRT's own format: it fits one GPU generation and one version only
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgecnn.bundle import Bundle, atomic
from edgecnn.errors import MissingDependency, RecipeError
from edgecnn.progress import note

if TYPE_CHECKING:
    from edgecnn.recipe import Recipe

VERSION = 1


def settings(recipe: Recipe) -> dict[str, Any]:
    """The recipe's `build` section."""
    return {} if recipe.build is None else recipe.build.model_dump(mode="json")


def run_stage(bundle: Bundle, recipe: Recipe) -> Bundle:
    """Check the INT8 file, build it, read the evidence. Raises BuildError, MissingDependency."""
    try:
        from edgecnn import onnxfile
    except ImportError as error:
        raise MissingDependency(
            "onnx is not installed: the check before the build needs it", do="Run: pip install onnx"
        ) from error

    from edgecnn.build import lint, targets, worker, xray

    section = recipe.build
    if section is None:
        raise RecipeError("the recipe has no `build:` section", do="Add one with a target")
    target = targets.find(section.target)
    source = bundle.file("int8")
    lint.require(source, lint.find(section.target))
    name = f"model.{section.target}.engine"
    with atomic(bundle.path / name) as temporary:
        built = worker.build_apart(source, target, section.workspace_mib, temporary)
    seen = xray.xray(built.log, lint.meant(onnxfile.read(source)))
    note(f"{section.target}: {seen}")
    facts = {
        "target": section.target,
        "sm": target.sm,
        "seconds": round(built.seconds, 2),
        "bytes": (bundle.path / name).stat().st_size,
        "kernels_meant_int8": seen.meant,
        "kernels_int8": seen.int8,
        "evidence": str(seen),
        "layers": seen.table().splitlines(),
    }
    return bundle.with_stage(
        "build",
        settings=settings(recipe),
        version=VERSION,
        files={"engine": name},
        facts=facts,
        tools={"tensorrt_rtx" if target.dialect == "rtx" else "tensorrt": built.version},
    )
