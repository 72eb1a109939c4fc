"""A run's folder read back: the summary, the frames of events.jsonl, the stills."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecnn.errors import InputError
from edgecnn.report.svg import Timeline

TTC_TOP_S = 10.0  # the plot's upper edge: a longer time to collision is no news
LONGEST = 40  # tracks drawn


@dataclass(frozen=True)
class Run:
    """What `edgecnn run --out` left."""

    folder: Path
    summary: Mapping[str, Any]
    frames: list[dict[str, Any]]  # the `frame` lines of events.jsonl
    stills: list[tuple[dict[str, Any], str]]  # (frame, tracks, warned; data URI)
    warn_s: float  # time to collision at which the forward-collision warning began

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Raises InputError where the folder is no finished run, or a file in it is damaged."""
        summary, events = folder / "summary.json", folder / "events.jsonl"
        if not summary.is_file():
            raise InputError(f"{folder} holds no summary.json", wanted="a folder that `edgecnn run --out` made")
        try:
            data = json.loads(summary.read_text("utf-8"))
            lines = events.read_text("utf-8").splitlines() if events.is_file() else []
            frames = [row for row in map(json.loads, lines) if row["type"] == "frame"]
            stills = [(s, picture(folder / "stills" / Path(s["path"]).name)) for s in data["files"].get("stills", [])]
            warn_s = float(data["thresholds"]["fcw_on_s"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{folder} holds a damaged run ({error})", do="Run it again: edgecnn run") from error
        return cls(folder, data, frames, stills, warn_s)

    @property
    def source(self) -> str:
        """Its name for a heading: a file's without the folders."""
        name = str(self.summary["source"])
        return name if "://" in name or name.startswith("sim:") else Path(name).name

    def timeline(self) -> str:
        """When the detector ran and why, which tracks lived when, and the shortest time to collision in the path."""
        if not self.frames:
            return ""
        start = self.frames[0]["t_s"]
        at = [row["t_s"] - start for row in self.frames]
        seconds = max(at[-1], 1e-3)
        step = seconds / max(1, len(at) - 1)
        plot = Timeline(seconds)
        looks = [
            (t, f"why-{row['detector']}", f"frame {row['index']}: {row['detector']}")
            for t, row in zip(at, self.frames, strict=True)
            if row["detector"]
        ]
        plot.marks("detector", looks, step)
        plot.spans("tracks", self._lives(at))
        danger = [
            (t, min((k["ttc_s"] for k in row["tracks"] if k["in_path"] and k["ttc_s"] is not None), default=None))
            for t, row in zip(at, self.frames, strict=True)
        ]
        plot.curve("TTC, s", danger, TTC_TOP_S, (self.warn_s, "warning"))
        when = dict(zip((row["index"] for row in self.frames), at, strict=True))
        on = [e for e in self.summary["events"] if e["kind"].endswith("_on") and e["frame"] in when]
        plot.marks("warnings", [(when[e["frame"]], "warn", e["kind"].removesuffix("_on")) for e in on], step)
        plot.cuts([t for t, row in zip(at, self.frames, strict=True) if row["cut"]])
        return plot.svg(f"Timeline of {self.source}")

    def colours(self) -> dict[str, str]:
        """Label -> class of its tracks' bars."""
        labels = sorted({track["label"] for row in self.frames for track in row["tracks"]})
        return {label: f"t{i % 6}" for i, label in enumerate(labels)}

    def _lives(self, at: list[float]) -> list[tuple[float, float, str, str]]:
        """(from, to, class, tip) of the tracks that lived longest."""
        first: dict[int, float] = {}
        last: dict[int, float] = {}
        label: dict[int, str] = {}
        for t, row in zip(at, self.frames, strict=True):
            for track in row["tracks"]:
                first.setdefault(track["id"], t)
                last[track["id"]], label[track["id"]] = t, track["label"]
        kinds = self.colours()
        lives = sorted(first, key=lambda i: first[i] - last[i])[:LONGEST]
        return [(first[i], last[i], kinds[label[i]], f"{label[i]} {i}: {last[i] - first[i]:.1f} s") for i in lives]


def picture(path: Path) -> str:
    """A JPEG as a data URI. Raises InputError where it is gone."""
    if not path.is_file():
        raise InputError(f"{path} is missing", do="Run it again: edgecnn run")
    return "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode()
