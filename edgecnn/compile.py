"""The stage driver: recipe → train → slim → export → quantize → build → bundle.

Stages never call one another; each is `bundle, recipe → bundle` and they meet in a folder. A stage whose key (its
parent's key, its settings, its code's version) is the one in the manifest, and whose files are there byte for byte, is
not run again. Nothing heavy is imported before a stage has to run.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from edgecnn.bundle import MANIFEST, STAGES, Bundle, stage_key
from edgecnn.errors import BundleError, InputError, RecipeError
from edgecnn.progress import note
from edgecnn.recipe import Recipe, load


class Stage(Protocol):
    """What a stage's module offers."""

    VERSION: int  # raised when the same settings would give other files

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        """All that the result depends on besides the parent, JSON-able, files by sha256. Imports nothing heavy."""

    def run_stage(self, bundle: Bundle, recipe: Recipe) -> Bundle:
        """Write the stage's files into `bundle.path`, record them with `Bundle.with_stage`, return the new bundle."""


@dataclass(frozen=True)
class Step:
    """What became of one stage."""

    stage: str
    outcome: Literal["made", "kept"]
    seconds: float
    why: str  # one line for the reader: "as it was", "not made yet", ...


@dataclass(frozen=True)
class Compiled:
    """A bundle, and what it took to make it."""

    bundle: Bundle
    steps: tuple[Step, ...]


def compile_recipe(
    path: Path | str, out: Path | None = None, *, until: str = "build", change: Callable[[Recipe], Recipe] | None = None
) -> Compiled:
    """Bring a recipe's bundle up to date, as far as stage `until`. `out` is runs/<recipe name>.bundle unless given.

    `change` is what the command line asks of the recipe for this once, such as `Recipe.searching`.
    A stage that fails leaves the manifest as it was. Raises every EdgecnnError that a stage may raise, RecipeError
    where the recipe has no stage `until`, BundleError where the folder holds something else, or another compile runs.
    Under torchrun the first process does all this, and the others help it to train.
    """
    recipe = load(path) if change is None else change(load(path))
    stages = planned(recipe)
    if until not in stages:
        if until != STAGES[-1]:
            raise RecipeError(f"{path}: {_missing(until, recipe)}; its stages are {', '.join(stages)}")
        until = stages[-1]
    if until == "build":
        from edgecnn.build import require_target

        require_target(recipe)
    folder = out or Path("runs") / f"{recipe.name}.bundle"
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and int(os.environ.get("RANK", "0")) > 0:
        return _assist(folder, recipe, stages)
    with _locked(folder):
        bundle, steps = _open(folder, recipe, stages), []
        for stage in stages[: stages.index(until) + 1]:
            bundle, step = _step(stage, bundle, recipe)
            steps.append(step)
    return Compiled(bundle, tuple(steps))


def final_key(recipe: Recipe) -> str:
    """The key that the last stage of a compiled recipe has: other settings or input files, another key."""
    key = ""
    for stage in planned(recipe):
        module = _module(stage)
        key = stage_key(key, module.settings(recipe), module.VERSION)
    return key


def _step(stage: str, bundle: Bundle, recipe: Recipe) -> tuple[Bundle, Step]:
    started = time.perf_counter()
    module = _module(stage)
    key = stage_key(bundle.parent_key(stage), module.settings(recipe), module.VERSION)
    why = _reason(stage, bundle, key)
    if not why:
        return bundle, Step(stage, "kept", time.perf_counter() - started, "as it was")
    note(f"{stage}: {why}")
    bundle = module.run_stage(bundle.before(stage), recipe)
    seconds = time.perf_counter() - started
    record = bundle.stages[stage]
    facts = {**record.facts, "stage_seconds": round(seconds, 2)}
    bundle = replace(bundle, stages={**bundle.stages, stage: replace(record, facts=facts)})
    bundle.write()
    return bundle, Step(stage, "made", seconds, why)


def _assist(folder: Path, recipe: Recipe, stages: list[str]) -> Compiled:
    """Under torchrun all processes but the first only train, if training is due: no stage made, no file written.

    Each finds by itself what the first one finds: the train stage can't end, and its record change, without them.
    """
    from edgecnn.zoo import train

    bundle = Bundle(folder, recipe.name)
    with suppress(BundleError, InputError):
        bundle = Bundle.read(folder)
    if "train" in stages and _reason("train", bundle, stage_key("", train.settings(recipe), train.VERSION)):
        train.assist(folder, recipe)
    return Compiled(bundle, ())


def _reason(stage: str, bundle: Bundle, key: str) -> str:
    """Why a stage must run; empty if it need not."""
    record = bundle.stages.get(stage)
    if record is None:
        return "not made yet"
    if record.key != key:
        return "its inputs changed, making it again"
    if not bundle.intact(stage):
        names = ", ".join(name for name, _ in record.files.values())
        return f"a file was changed or lost since it was made ({names}), making it again"
    if stage == "build":
        from edgecnn.build import stale

        return stale(record)
    return ""


def planned(recipe: Recipe) -> list[str]:
    """The stages that a recipe has, in their order."""
    return [stage for stage in STAGES if not _missing(stage, recipe)]


def _missing(stage: str, recipe: Recipe) -> str:
    """Why a recipe has no such stage; empty if it has."""
    if recipe.model.onnx is not None and stage in ("train", "slim"):
        return f"no {stage} stage for a network that comes as ONNX"
    if (stage == "slim" and recipe.slim is None) or (stage == "build" and recipe.build is None):
        return f"it has no `{stage}:` section"
    return ""


def _module(stage: str) -> Stage:
    """The one place that knows where stages live; only the stage asked for is imported."""
    match stage:
        case "train":
            from edgecnn.zoo import train

            return train
        case "slim":
            from edgecnn import slim

            return slim
        case "export":
            from edgecnn import export

            return export
        case "quantize":
            from edgecnn import quantize

            return quantize
        case "build":
            from edgecnn import build

            return build
        case other:
            raise ValueError(f"no stage '{other}'")


def _open(folder: Path, recipe: Recipe, stages: list[str]) -> Bundle:
    """The bundle in the folder, without the stages that the recipe no longer has, or a new one."""
    settings = {"run": recipe.run.model_dump(mode="json"), "check": recipe.check.model_dump(mode="json")}
    fresh = Bundle(folder, recipe.name, settings=settings)
    if not (folder / MANIFEST).exists():
        fresh.write()
        return fresh
    try:
        bundle = Bundle.read(folder)
    except BundleError as error:
        note(f"{error} Making every stage again.")
        return fresh
    for stage in STAGES:
        if stage in bundle.stages and stage not in stages:
            bundle = bundle.before(stage)
    wanted = replace(bundle, name=recipe.name, settings=settings)
    if wanted != bundle:
        wanted.write()
    return wanted


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One compile at a time in a folder; the lock ends with the process, however that ends."""
    if folder.exists() and not folder.is_dir():
        raise BundleError(f"{folder} is a file", wanted="a folder for the bundle", do="Name another one with --out")
    lock = folder / ".lock"
    if folder.is_dir() and any(folder.iterdir()) and not ((folder / MANIFEST).exists() or lock.exists()):
        raise BundleError(
            f"{folder} is not empty and holds no bundle",
            wanted="a bundle, or an empty folder",
            do="Name one with --out",
        )
    folder.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BundleError(
                f"another compile is at work in {folder}", do="Wait for it, or name another --out"
            ) from None
        for left in folder.glob(".*.*.*"):  # by a compile that was killed: see `atomic`
            left.unlink()
        yield
