"""The head of the page: what it is about, the verdict, the figures that matter most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from html import escape
from typing import Any

from edgecnn.bundle import Bundle
from edgecnn.report.html import count, size
from edgecnn.report.runs import Run

Json = Mapping[str, Any]


def header(bundle: Bundle, check: Json) -> str:
    gates = check.get("gates", [])
    missed = sum(not gate["ok"] for gate in gates)
    if not check:
        verdict, kind = "not checked: run edgecnn check", ""
    elif missed:
        verdict, kind = f"{missed} of {len(gates)} gates missed", "bad"
    else:
        unsure = sum(gate.get("verdict") == "unsure" for gate in gates)
        passed = f"{len(gates)} of {len(gates)} gates passed" + (f", {unsure} on too few pictures" if unsure else "")
        verdict, kind = passed if gates else "measured, no gates set", "good"
    model, line = bundle.model, "no model yet"
    if model:
        line = f"{model.arch}, {model.task}, input {model.width} × {model.height}"
        line += f", {len(model.classes)} classes" if model.classes else ""
    when = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"<header><div><h1>{escape(bundle.name)}</h1><p>{escape(line)} · {when}</p></div>"
        f'<p class="verdict {kind}">{verdict}</p></header>'
    )


def cards(bundle: Bundle, bench: Json, check: Json, runs: Sequence[Run]) -> str:
    cards: list[tuple[str, str]] = []
    sizes = {role: (bundle.path / name) for r in bundle.stages.values() for role, (name, _) in r.files.items()}
    for role, words in (("fp32", "ONNX FP32"), ("int8_cpu", "ONNX INT8, for CPUs"), ("engine", "engine")):
        if role in sizes and sizes[role].is_file():
            cards.append((words, size(sizes[role].stat().st_size)))
    facts = {key: value for record in bundle.stages.values() for key, value in record.facts.items()}
    facts |= facts.get("after", {})  # of slimming
    for key, words in (("parameters", "parameters"), ("macs", "multiply-adds")):
        if isinstance(facts.get(key), int | float):
            cards.append((words, count(facts[key])))
    if "kernels_meant_int8" in facts:
        cards.append(("kernels INT8 in the engine", f"{facts['kernels_int8']} of {facts['kernels_meant_int8']}"))
    ratio = bench.get("ratios", {}).get("int8", {}).get("infer_p50")
    if ratio is not None:
        cards.append(("INT8 speed over FP32", f"{ratio:.2f} ×"))
    shipped = list(check["figures"].values())[-1] if check else {}
    for metric in ("AP50", "HOTA", "top1", "cosine"):
        if shipped.get(metric) is not None:
            cards.append((f"{metric}, INT8" if len(check["figures"]) > 1 else metric, f"{shipped[metric]:.3f}"))
    if runs:
        saved = [float(run.summary["macs_saved"]) for run in runs]
        cards.append(("multiply-adds saved by tracking", f"{100 * sum(saved) / len(saved):.0f} %"))
    inner = "".join(f"<div><b>{escape(value)}</b><span>{escape(words)}</span></div>" for words, value in cards)
    return f'<section class="cards">{inner}</section>'
