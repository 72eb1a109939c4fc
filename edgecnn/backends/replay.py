"""Recorded outputs, answered by frame number: runs the rest of the loop with no network, always the same way.

The file is an .npz with `frame` (N,) int64 and one (N, ...) array an output.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgecnn.backends import FRAME, Array, Backend
from edgecnn.bundle import ModelSpec, atomic, check_outputs
from edgecnn.errors import InputError


class Replay:
    """Raises InputError where the file is no recording or lacks a frame, ModelError where it does not fit `model`."""

    def __init__(self, path: Path, model: ModelSpec) -> None:
        try:
            with np.load(path, allow_pickle=False) as file:
                columns = {name: file[name] for name in file.files}
            frames = columns.pop(FRAME)
        except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is no recording ({error})", wanted="an .npz that Recorder.save wrote") from error
        check_outputs(model, {name: (1, *column.shape[2:]) for name, column in columns.items()})
        self._path, self._columns = path, columns
        self._row = {int(frame): row for row, frame in enumerate(frames)}

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        frame = int(feeds[FRAME])
        if frame not in self._row:
            raise InputError(
                f"{self._path} holds no frame {frame} (it has {len(self._row)} frames)",
                do="Record it with the same source and detection interval",
            )
        row = self._row[frame]
        return {name: column[row] for name, column in self._columns.items()}


class Recorder:
    """Passes calls on to a backend and keeps a copy of what it answered."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._frames: list[int] = []
        self._answers: list[dict[str, Array]] = []

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        answer = self._backend(feeds)
        self._frames.append(int(feeds[FRAME]))
        self._answers.append({name: value.copy() for name, value in answer.items()})
        return answer

    def save(self, path: Path) -> None:
        """Write the recording atomically. Raises InputError where nothing was recorded."""
        if not self._frames:
            raise InputError(f"nothing was recorded for {path}", wanted="one frame or more")
        columns = {name: np.stack([answer[name] for answer in self._answers]) for name in self._answers[0]}
        with atomic(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **{FRAME: np.array(self._frames, np.int64)}, **columns)  # type: ignore[arg-type]
