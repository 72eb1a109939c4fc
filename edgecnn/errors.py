"""Every way edgecnn refuses, and the exit code that says so.

    EdgecnnError            1   anything below, or an unforeseen failure of ours
    ├── InputError          3   a file, folder or stream is missing, empty, truncated or of the wrong type
    ├── RecipeError         4   a recipe has an unknown key, a wrong value, or sections that contradict each other
    ├── BundleError         5   a bundle is incomplete, was changed since it was made, or needs a stage first
    ├── ModelError          6   a model does not fit: its shapes, its decoder, its classes, its checkpoint
    ├── BuildError          7   the engine builder or the pre-flight check refuses the network
    ├── MissingDependency   8   a package or device that this command needs is not here
    └── GateFailed          9   `edgecnn check` ran, and the figures miss a gate

Exit code 2 is Typer's: the command line itself is wrong. 130 is Ctrl-C.

An error's text says what came, what was wanted, and what to do, in one line.
"""

from __future__ import annotations


class EdgecnnError(Exception):
    """Root of the tree. `str(error)` is the one line that a user reads."""

    exit_code = 1

    def __init__(self, what: str, *, wanted: str = "", do: str = "") -> None:
        parts = [what.rstrip(".")]
        if wanted:
            parts.append(f"wanted {wanted.rstrip('.')}")
        line = "; ".join(parts) + "."
        if do:
            line += f" {do.rstrip('.')}."
        super().__init__(" ".join(line.split()))


class InputError(EdgecnnError):
    """A file, folder or stream is missing, empty, truncated or of the wrong type."""

    exit_code = 3


class RecipeError(EdgecnnError):
    """A recipe has an unknown key, a wrong value, or sections that contradict each other."""

    exit_code = 4


class BundleError(EdgecnnError):
    """A bundle is incomplete, was changed since it was made, or needs a stage first."""

    exit_code = 5


class ModelError(EdgecnnError):
    """A model does not fit: its shapes, its decoder, its classes or its checkpoint."""

    exit_code = 6


class BuildError(EdgecnnError):
    """The engine builder, or the check before it, refuses the network."""

    exit_code = 7


class MissingDependency(EdgecnnError):
    """A package or device that this command needs is not here."""

    exit_code = 8


class GateFailed(EdgecnnError):
    """`edgecnn check` ran to its end, and the figures miss a gate."""

    exit_code = 9
