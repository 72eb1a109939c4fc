"""One build in a process of its own, because a native library that crashes takes its process with it.

    python -m edgecnn.build.worker JOB    # JSON: onnx, dialect, sm, workspace_mib, and where engine and log go

Writes the engine and the log, and prints one line of JSON: the version, or the error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from edgecnn.build.targets import Target
from edgecnn.errors import BuildError, EdgecnnError, MissingDependency

ROOT = Path(__file__).resolve().parents[2]  # the child imports this very edgecnn, installed or not


@dataclass(frozen=True)
class Built:
    """What a build left behind besides the engine."""

    seconds: float
    version: str  # of the builder
    log: list[str]


def build_apart(onnx: Path, target: Target, workspace_mib: int, engine: Path) -> Built:
    """Build `engine` in a child process. Raises BuildError, also where the child crashes, and MissingDependency."""
    log = engine.with_suffix(".log")
    job = {
        "onnx": str(onnx),
        "dialect": target.dialect,
        "sm": target.sm,
        "workspace_mib": workspace_mib,
        "engine": str(engine),
        "log": str(log),
    }
    started = time.perf_counter()
    try:
        command = [sys.executable, "-m", "edgecnn.build.worker", json.dumps(job)]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        child = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=False, env={**os.environ, "PYTHONPATH": path}
        )
        answer = _answer(child.stdout)
        if child.returncode == 0 and "version" in answer:
            seconds = time.perf_counter() - started
            return Built(seconds, answer["version"], log.read_text("utf-8").splitlines())
    finally:
        log.unlink(missing_ok=True)
    if "error" in answer:
        raise (MissingDependency if answer["kind"] == "MissingDependency" else BuildError)(answer["error"])
    died = f"by signal {-child.returncode}" if child.returncode < 0 else f"with code {child.returncode}"
    raise BuildError(
        f"the engine builder ended {died} on {onnx.name} without a word",
        wanted="an engine",
        do="TensorRT crashed, or the machine ran out of memory: close other programs, or lower build.workspace_mib",
    )


def _answer(text: str) -> dict[str, str]:
    """The last line of what the child printed; empty if it is not ours."""
    lines = text.strip().splitlines()
    try:
        answer: dict[str, str] = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return answer


def main(job: dict[str, str | int]) -> int:
    match job["dialect"]:
        case "rtx":
            from edgecnn.build.rtx import build
        case "trt":
            from edgecnn.build.trt import build
        case other:
            raise ValueError(f"no dialect '{other}'")
    try:
        plan, log, version = build(Path(str(job["onnx"])), int(job["sm"]), int(job["workspace_mib"]))
    except EdgecnnError as error:
        print(json.dumps({"error": str(error), "kind": type(error).__name__}))
        return error.exit_code
    Path(str(job["engine"])).write_bytes(plan)
    Path(str(job["log"])).write_text("\n".join(log), "utf-8")
    print(json.dumps({"version": version}))
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
