"""The command line. Every body: load, call one function, print.

Nothing but typer is imported before a command runs: `edgecnn --help` must answer at once, and `edgecnn run` on a board
must never meet torch or onnx. Results go to standard output, progress and errors to standard error.
"""

from __future__ import annotations

import errno
import os
import signal
import sys

from edgecnn.cli import (
    bench,
    cache,
    calibrate,
    lint,
    predict,
    recipes,
    replay,
    run,
    sbom,
    scenarios,
    sense,
    sign,
    stages,
    sweep,
    targets,
    track,
    use,
    xray,
)
from edgecnn.cli.common import app
from edgecnn.errors import EdgecnnError, InputError, MissingDependency

__all__ = [
    "app",
    "bench",
    "cache",
    "calibrate",
    "lint",
    "main",
    "predict",
    "recipes",
    "replay",
    "run",
    "sbom",
    "scenarios",
    "sense",
    "sign",
    "stages",
    "sweep",
    "targets",
    "track",
    "use",
    "xray",
]

HELP = (  # the order in which they are listed
    *("compile", "train", "slim", "export", "calibrate", "quantize", "sense", "lint", "build", "xray", "cache"),
    *("sweep", "targets", "predict", "run", "replay", "track", "bench", "check", "scenarios", "report", "sign"),
    *("verify", "sbom", "explain", "classify", "doctor", "recipes", "zoo"),
)
app.registered_commands.sort(key=lambda command: HELP.index(getattr(command.callback, "__name__", "")))
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
DESK = {"torch", "torch_pruning", "onnx", "safetensors", "pycocotools"}  # what the extra `desk` brings


def main() -> None:
    """Entry point: errors become one line and a documented exit code."""
    # `docker stop` and systemd send SIGTERM: like Ctrl-C, it must leave a playable video behind
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except EdgecnnError as error:
        _fail(error)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in DESK:
            _crash(error)
        _fail(MissingDependency(f"this command needs the package {package}", do="Run: pip install 'edgecnn[desk]'"))
    except MemoryError:
        _fail(EdgecnnError("there is not enough memory", do="Free some, or take fewer pictures or a smaller batch"))
    except OSError as error:
        if error.errno not in NO_ROOM:
            _crash(error)
        where = error.filename or "a file"
        _fail(InputError(f"{where} cannot be written ({error.strerror})", wanted="room on a disk that may be written"))
    except Exception as error:
        _crash(error)


def _fail(error: EdgecnnError) -> None:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)


def _crash(error: Exception) -> None:
    """A failure that nobody foresaw."""
    if os.environ.get("EDGECNN_DEBUG"):
        raise error
    text = " ".join(str(error).split())[:300]
    print(f"error: {type(error).__name__}: {text} (set EDGECNN_DEBUG=1 for the traceback).", file=sys.stderr)
    sys.exit(EdgecnnError.exit_code)
