"""Recorded outputs, answered by frame number: runs the rest of the loop with no network, always the same way.

The file is an .npz with `frame` (N,) int64 and one (N, ...) array an output; where the network also ran at its second
input size, the same once more with `regions/` before each name.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgecnn.backends import FRAME, Array, Backend
from edgecnn.bundle import ModelSpec, atomic, check_outputs
from edgecnn.errors import InputError

SMALL = "regions/"


class Replay:
    """Raises InputError where the file is no recording or lacks a frame, ModelError where it does not fit `model`."""

    def __init__(self, path: Path, model: ModelSpec) -> None:
        try:
            with np.load(path, allow_pickle=False) as file:
                every = {name: file[name] for name in file.files}
            small = {name.removeprefix(SMALL): every.pop(name) for name in list(every) if name.startswith(SMALL)}
            sizes = [(columns, columns.pop(FRAME)) for columns in (every, *([small] if small else []))]
        except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is no recording ({error})", wanted="an .npz that Recorder.save wrote") from error
        self._path = path
        self._answers: dict[int, dict[str, Array]] = {}
        for (columns, frames), spec in zip(sizes, (model, model.at_regions) if small else (model,), strict=True):
            check_outputs(spec, {name: (1, *column.shape[2:]) for name, column in columns.items()})
            for row, frame in enumerate(frames):
                self._answers[int(frame)] = {name: column[row] for name, column in columns.items()}

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        frame = int(feeds[FRAME])
        if frame not in self._answers:
            raise InputError(
                f"{self._path} holds no frame {frame} (it has {len(self._answers)} frames)",
                do="Record it with the same source and detection interval",
            )
        return self._answers[frame]


class Recorder:
    """Passes calls on to a backend and keeps a copy of what it answered."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._sizes: dict[int, tuple[list[int], list[dict[str, Array]]]] = {}  # length of an answer → frames, answers

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        answer = self._backend(feeds)
        frames, answers = self._sizes.setdefault(sum(value.size for value in answer.values()), ([], []))
        frames.append(int(feeds[FRAME]))
        answers.append({name: value.copy() for name, value in answer.items()})
        return answer

    def save(self, path: Path) -> None:
        """Write the recording atomically. Raises InputError where nothing was recorded."""
        if not self._sizes:
            raise InputError(f"nothing was recorded for {path}", wanted="one frame or more")
        columns: dict[str, Array] = {}
        for size, prefix in zip(sorted(self._sizes, reverse=True), ("", SMALL), strict=False):
            frames, answers = self._sizes[size]
            columns[f"{prefix}{FRAME}"] = np.array(frames, np.int64)
            columns |= {f"{prefix}{name}": np.stack([answer[name] for answer in answers]) for name in answers[0]}
        with atomic(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **columns)  # type: ignore[arg-type]
