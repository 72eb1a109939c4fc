"""One build in a process of its own, because a native library that crashes takes its process with it.

    python -m edgecnn.build.worker JOB    # JSON: onnx, dialect, sm, options, and the folder for what it makes

Writes engine, log and layers.json into the folder, and prints one line of JSON: version and flags, or the error.
Ctrl-C ends it at once, whatever the library is doing: no version of TensorRT has to offer a way to cancel.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgecnn.build.network import Options
from edgecnn.build.targets import Target
from edgecnn.errors import BuildError, EdgecnnError, MissingDependency

ROOT = Path(__file__).resolve().parents[2]  # the child imports this very edgecnn, installed or not


@dataclass(frozen=True)
class Built:
    """An engine and what is known about it."""

    engine: bytes
    seconds: float
    version: str  # of the builder
    flags: tuple[str, ...]
    log: list[str]
    layers: str  # the inspector's JSON; "" where the engine could not be loaded


def build_apart(onnx: Path, target: Target, options: Options) -> Built:
    """Build in a child process. Raises BuildError, also where the child crashes, and MissingDependency."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="edgecnn-build-") as folder:
        job = {
            "onnx": str(onnx),
            "dialect": target.dialect,
            "sm": target.sm,
            "options": asdict(options),
            "folder": folder,
        }
        command = [sys.executable, "-m", "edgecnn.build.worker", json.dumps(job)]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        env = {**os.environ, "PYTHONPATH": path}
        child = subprocess.run(command, stdout=subprocess.PIPE, stderr=_errors(), text=True, check=False, env=env)
        answer = _answer(child.stdout)
        if child.returncode == 0 and "version" in answer:
            made = Path(folder)
            return Built(
                engine=(made / "engine").read_bytes(),
                seconds=time.perf_counter() - started,
                version=answer["version"],
                flags=tuple(answer["flags"]),
                log=(made / "log").read_text("utf-8").splitlines(),
                layers=(made / "layers.json").read_text("utf-8"),
            )
    if "error" in answer:
        raise (MissingDependency if answer["kind"] == "MissingDependency" else BuildError)(answer["error"])
    died = f"by signal {-child.returncode}" if child.returncode < 0 else f"with code {child.returncode}"
    raise BuildError(
        f"the engine builder ended {died} on {onnx.name} without a word",
        wanted="an engine",
        do="TensorRT crashed, or the machine ran out of memory: close other programs, or lower build.workspace_mib",
    )


def _errors() -> int | None:
    """Where this process's messages go now: a sweep sends them to a file. None: where they always go."""
    try:
        return sys.stderr.fileno()
    except OSError:  # it is no file at all, but memory
        return None


def _answer(text: str) -> dict[str, Any]:
    """The last line of what the child printed; empty if it is not ours."""
    lines = text.strip().splitlines()
    try:
        answer: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return answer


def main(job: dict[str, Any]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    match job["dialect"]:
        case "rtx":
            from edgecnn.build.rtx import build
        case "trt":
            from edgecnn.build.trt import build
        case other:
            raise ValueError(f"no dialect '{other}'")
    try:
        plan, layers = build(Path(job["onnx"]), int(job["sm"]), Options(**job["options"]))
    except EdgecnnError as error:
        print(json.dumps({"error": str(error), "kind": type(error).__name__}))
        return error.exit_code
    folder = Path(job["folder"])
    (folder / "engine").write_bytes(plan.engine)
    (folder / "log").write_text("\n".join(plan.log), "utf-8")
    (folder / "layers.json").write_text(layers, "utf-8")
    print(json.dumps({"version": plan.version, "flags": plan.flags}))
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
