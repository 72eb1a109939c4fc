"""What `edgecnn bench` measured: bars a stage, FP32 beside INT8."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from edgecnn.report.html import legend, section, table
from edgecnn.report.svg import bars

PERCENTILES = ("p50", "p95", "p99")
Json = Mapping[str, Any]


def latency(bench: Json) -> str:
    if not bench:
        return ""
    times: dict[str, Json] = {name: lane["stages"] for name, lane in bench["lanes"].items()}
    names = list(dict.fromkeys(name for stages in times.values() for name in stages))
    rows = [(name, {lane: stages[name] for lane, stages in times.items() if name in stages}) for name in names]
    head = ["stage", *(f"{lane} {p}" for lane in times for p in PERCENTILES)]
    whole = table(
        head, [[name, *(f"{of[k][p]:.2f}" if k in of else "" for k in times for p in PERCENTILES)] for name, of in rows]
    )
    lanes = table(
        ["lane", "file", "detector ran in", "frames/s", "not inference"],
        [
            [name, v["role"], f"{v['detector_frames']:.0%}", f"{v['fps']:.1f}", f"{v['not_inference']:.0%}"]
            for name, v in bench["lanes"].items()
        ],
    )
    note = (
        f"<p>{bench['frames']} frames of {escape(bench['source'])}, {bench['threads']} thread(s), "
        f"{escape(bench['machine']['cpu'])}. Bar: p50; whiskers: p95 and p99; of the frames in which the stage ran.</p>"
    )
    colours = legend([(f"s{i}", lane) for i, lane in enumerate(times)])
    plot = bars(rows, list(times), "Latency of each stage")
    return section(
        "Latency", f"{plot}{colours}{note}{lanes}<details><summary>All percentiles</summary>{whole}</details>"
    )
