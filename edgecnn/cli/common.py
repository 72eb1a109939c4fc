"""What the commands share: the application, their options, and how a result is shown."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecnn.errors import InputError
from edgecnn.progress import columns as columns

if TYPE_CHECKING:
    from edgecnn.bundle import Bundle
    from edgecnn.recipe import Recipe
    from edgecnn.workers import Workers

EPILOG = """\
Exit codes: 0 done; 1 a fault of edgecnn's own; 2 wrong command line; 3 unusable input file, folder or stream;
4 wrong recipe; 5 incomplete or changed bundle; 6 the model does not fit; 7 the engine builder refuses;
8 a package or device is missing; 9 a gate or an audit is missed; 130 Ctrl-C.
"""

app = typer.Typer(
    name="edgecnn",
    help="From a CNN recipe to an INT8 TensorRT engine, and the detect-plus-track loop that runs it on the board.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class Precision(str, Enum):
    """What `edgecnn run` loads."""

    auto = "auto"
    engine = "engine"
    int8 = "int8"
    openvino = "openvino"
    fp32 = "fp32"


class Policy(str, Enum):
    """How `edgecnn slim` searches."""

    greedy = "greedy"
    evolutionary = "evolutionary"
    ranked = "ranked"


def _recipes(incomplete: str) -> list[str]:
    """For the shell: shipped recipes and YAML files here. Where there is none, the shell offers files by itself."""
    from edgecnn.shipped import names

    here = [str(path) for path in Path().glob("*.yaml")]
    return [name for name in [*names(), *here] if name.startswith(incomplete)]


def _bundles(incomplete: str) -> list[str]:
    """For the shell: bundles here and in runs/."""
    found = [path.parent.as_posix() for pattern in ("*/", "runs/*/") for path in Path().glob(f"{pattern}manifest.json")]
    return [name for name in sorted(found) if name.startswith(incomplete)]


def targets_like(incomplete: str) -> list[str]:
    """For the shell: boards."""
    from edgecnn.build.targets import TARGETS

    return [name for name in TARGETS if name.startswith(incomplete)]


RecipePath = Annotated[
    Path,
    typer.Argument(
        metavar="RECIPE", help="A YAML file, or the name of a shipped recipe: adas.", autocompletion=_recipes
    ),
]
BundlePath = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="A folder that `edgecnn compile` made.", autocompletion=_bundles)
]
RecipeOrBundle = Annotated[
    Path, typer.Argument(metavar="RECIPE|BUNDLE", help="A bundle, or a recipe, whose stages are run as far as needed.")
]
BundleOut = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="The bundle's folder; runs/NAME.bundle unless given.")
]
Signed = Annotated[
    Path | None,
    typer.Option(
        "--require-signature",
        metavar="PEM",
        envvar="EDGECNN_REQUIRE_SIGNATURE",
        help="Refuse a bundle that was not signed (`edgecnn sign`) with this public key's private half.",
    ),
]
LocalWorkers = Annotated[
    int, typer.Option("--workers", metavar="N", min=0, help="Processes of this machine; none: this one, one by one.")
]
Scheduler = Annotated[
    str, typer.Option(metavar="ADDRESS", help="Or the workers of a Dask scheduler, tls://HOST:PORT or tcp://HOST:PORT.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


def crew(workers: int, scheduler: str) -> Workers:
    """Who works, as `--workers` and `--scheduler` say."""
    from edgecnn.workers import Workers

    if workers and scheduler:
        raise typer.BadParameter("it is either this or --workers", param_hint="--scheduler")
    return Workers(workers, scheduler)


def trusted(path: Path, key: Path | None) -> Bundle:
    """The bundle at `path`; where a key is given, only if it was signed with it."""
    from edgecnn.bundle import Bundle

    if key is None:
        return Bundle.read(path)
    from edgecnn.signature import signed_by

    return Bundle.read(path, trust=signed_by(key, path))


def opened(path: Path, stage: str, out: Path | None = None) -> tuple[Bundle, Recipe | None]:
    """A bundle as it is; a recipe's own, brought up to date as far as a stage, and the recipe.

    Raises InputError (exit code 3) where there is nothing, BundleError (5) for a folder that is no bundle or lacks
    what is asked of it, RecipeError (4) for a file that is no recipe: as every command does.
    """
    if path.is_dir():
        from edgecnn.bundle import Bundle

        return Bundle.read(path), None
    from edgecnn.compile import compile_recipe
    from edgecnn.recipe import load
    from edgecnn.shipped import find

    if not find(path).exists():
        raise InputError(f"there is nothing at {path}", wanted="a recipe (.yaml), or a bundle")
    recipe = load(path)
    return compile_recipe(path, out, until=stage).bundle, recipe


def show(as_json: bool, result: tuple[Any, str]) -> None:
    """A result as JSON (nan and inf become null: JSON has neither) or as text."""
    data, text = result
    if not as_json:
        print(text)
        return
    import json

    print(json.dumps(_plain(data), indent=1, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not (abs(value) < float("inf")):
        return None
    return str(value) if isinstance(value, Path) else value
