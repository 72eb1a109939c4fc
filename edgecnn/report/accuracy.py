"""What `edgecnn check` measured, and the gates."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from edgecnn.report.html import number, section, table

Json = Mapping[str, Any]
VERDICTS = {"missed": "MISSED", "unsure": "too few pictures to tell", "ok": "ok"}  # the worst first


def accuracy(check: Json) -> str:
    if not check:
        return ""
    precisions = list(check["figures"])
    rows = []
    for metric in check["figures"][precisions[0]]:
        values = [check["figures"][p].get(metric) for p in precisions]
        gates = [gate for gate in check["gates"] if gate["metric"] == metric]
        told = {gate.get("verdict", "ok" if gate["ok"] else "missed") for gate in gates}  # older files have `ok` alone
        verdict = next((word for kind, word in VERDICTS.items() if kind in told), "")
        delta = [] if len(values) < 2 else [number(None if None in values else values[-1] - values[0], 4, sign=True)]
        rows.append([metric, *(number(v, 4) for v in values), *delta, verdict, "; ".join(g["text"] for g in gates)])
    head = ["metric", *precisions, *(["delta"] if len(precisions) > 1 else []), "verdict", "gate"]
    data = ", ".join(f"{key} {value}" for key, value in check["data"].items())
    return section("Accuracy", f"<p>{check['samples']} pictures: {escape(data)}</p>{table(head, rows)}")
