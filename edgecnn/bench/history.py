"""What was measured before: one line of JSON a bench, in a file that only grows."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgecnn.errors import InputError

KEPT = ("name", "bundle", "source", "picture", "input", "frames", "threads", "machine", "board", "memory", "ratios")


def line_of(result: Mapping[str, Any], when: datetime | None = None) -> dict[str, Any]:
    """What the history keeps of a bench: when, on what, and each lane's frame and infer."""
    lanes = {
        name: {"role": lane["role"], "fps": lane["fps"]}
        | {stage: lane["stages"][stage] for stage in ("frame", "infer") if stage in lane["stages"]}
        for name, lane in result["lanes"].items()
    }
    at = (when or datetime.now(timezone.utc)).isoformat(timespec="seconds")
    return {"at": at, **{key: result[key] for key in KEPT if key in result}, "lanes": lanes}


def append(path: Path, result: Mapping[str, Any]) -> None:
    """Add a bench to `path`, whole or not at all; several may do so at once. Raises InputError where it can't be."""
    line = json.dumps(line_of(result), allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
                if file.read(1) != b"\n":  # the last one was cut off by a power cut
                    line = "\n" + line
            try:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), end)
                raise
    except OSError as error:
        raise InputError(f"the history {path} can't be written ({error.strerror})", wanted="a file") from error


def read(path: Path) -> list[dict[str, Any]]:
    """Its lines, oldest first; a last one that was cut off is left out. Raises InputError for anything else."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the history {path} can't be read ({error})", wanted="a file of --history") from error
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            row = json.loads(line)
            rows.append({"at": str(row["at"]), "lanes": dict(row["lanes"]), **row})
        except (ValueError, KeyError, TypeError) as error:
            if not line.startswith("{") or line.endswith("}"):
                raise InputError(f"{path} line {number} is no bench ({error})", wanted="a file of --history") from error
    return rows
