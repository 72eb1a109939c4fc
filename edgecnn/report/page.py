"""The page itself: sections of HTML, one style sheet, no scripts, nothing loaded from anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from html import escape
from typing import Any

from edgecnn import __version__
from edgecnn.bundle import Bundle
from edgecnn.report.runs import Run
from edgecnn.report.style import CSS
from edgecnn.report.svg import bars, curves, scatter

STAGE_WORDS = {
    "train": "Train",
    "slim": "Slim",
    "export": "Export to ONNX",
    "quantize": "Quantise to INT8",
    "build": "Build the engine",
}
LINES = 6  # a longer list of texts stands line by line
PERCENTILES = ("p50", "p95", "p99")
REASONS = (  # why the detector ran
    ("why-stride", "every k-th frame"),
    ("why-worth", "parts worth a look"),
    ("why-unsure", "unsure of a track"),
    ("why-closing", "closing in"),
    ("why-cut", "cut, or first frame"),
)
WARNINGS = {
    "fcw": "collision",
    "pedestrian": "pedestrian",
    "headway": "headway",
    "ldw_left": "lane departure, left,",
    "ldw_right": "lane departure, right,",
}
Json = Mapping[str, Any]


def page(bundle: Bundle, runs: Sequence[Run], bench: Json, check: Json, inside: str = "") -> str:
    """The whole document. Sections without data are left out; `inside`: further ones, of the network."""
    title = f"{bundle.name} – edgecnn report"
    body = [
        _header(bundle, check),
        _cards(bundle, bench, check, runs),
        *(_run(run) for run in runs),
        _bench(bench),
        _check(check),
        inside,
        _learning(bundle),
        _search(bundle),
        _stages(bundle),
        *(_facts(name, record.facts) for name, record in bundle.stages.items()),
        _versions(bundle),
    ]
    return document(title, body)


def document(title: str, body: Iterable[str]) -> str:
    """Sections as a page of HTML."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{CSS}</style></head>\n<body><main>{''.join(body)}</main></body></html>\n"
    )


def _header(bundle: Bundle, check: Json) -> str:
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


def _cards(bundle: Bundle, bench: Json, check: Json, runs: Sequence[Run]) -> str:
    cards: list[tuple[str, str]] = []
    sizes = {role: (bundle.path / name) for r in bundle.stages.values() for role, (name, _) in r.files.items()}
    for role, words in (("fp32", "ONNX FP32"), ("int8_cpu", "ONNX INT8, for CPUs"), ("engine", "engine")):
        if role in sizes and sizes[role].is_file():
            cards.append((words, _size(sizes[role].stat().st_size)))
    facts = {key: value for record in bundle.stages.values() for key, value in record.facts.items()}
    facts |= facts.get("after", {})  # of slimming
    for key, words in (("parameters", "parameters"), ("macs", "multiply-adds")):
        if isinstance(facts.get(key), int | float):
            cards.append((words, _count(facts[key])))
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


def _run(run: Run) -> str:
    s = run.summary
    reasons = ", ".join(f"{count} {why}" for why, count in s["reasons"].items())
    facts = [
        ("frames", f"{s['frames']}" + (f", {s['dropped']} dropped" if s["dropped"] else "")),
        ("frames a second", f"{s['fps']:.1f}"),
        ("file that ran", s["role"]),
        ("detector ran in", f"{s['detector_frames']} frames ({reasons})"),
        ("multiply-adds saved", f"{100 * s['macs_saved']:.0f} %"),
        ("tracks", s["tracks"]),
        ("hard cuts", s["cuts"]),
        *_trust(s),
        *([("warning", s["warning"])] if s["warning"] else []),
    ]
    caption = "<p>TTC: the shortest time to collision in the path. Dotted: hard cuts, where tracks are forgotten.</p>"
    tracks = [(kind, f"track of a {label.replace('_', ' ')}") for label, kind in run.colours().items()]
    stills = "".join(_still(still, uri) for still, uri in run.stills)
    times = _table(
        ["stage", "frames", "p50 ms", "p95 ms", "p99 ms"],
        [[name, row["n"], *(f"{row[p]:.2f}" for p in PERCENTILES)] for name, row in s["stages"].items()],
    )
    return _section(
        f"Run: {run.source}",
        f'<div class="stills">{stills}</div>{run.timeline()}{_legend([*REASONS, *tracks])}{caption}'
        f"{_pairs(facts)}{_events(s['events'])}"
        f"<details><summary>Time a stage</summary>{times}</details>",
    )


def _trust(s: Json) -> list[tuple[str, str]]:
    """How far the run could be trusted: the modes, and what was counted against it. Older runs don't tell."""
    seconds = [f"{value:.1f} s {mode}" for mode, value in s.get("mode_seconds", {}).items() if value]
    words = (
        ("late", "past the deadline"),
        ("stale", "too old to warn on"),
        ("invalid", "without a valid answer"),
        ("odd_times", "with odd time stamps"),
    )
    against = [f"{s[key]} {text}" for key, text in words if s.get(key)]
    faults = [f"{name} in {frames} frames" for name, frames in s.get("faults", {}).items()]
    age = s["stages"].get("age")
    rows = (
        ("modes", ", ".join(seconds)),
        ("frames counted against it", ", ".join(against)),
        ("camera faults", ", ".join(faults)),
        ("age of frames", f"p50 {age['p50']:.0f} ms, p99 {age['p99']:.0f} ms" if age else ""),
        ("opened again", f"{s['reconnects']} times" if s.get("reconnects") else ""),
    )
    return [row for row in rows if row[1]]


def _still(still: Json, uri: str) -> str:
    words = f"frame {still['frame']}, {still['tracks']} tracks"
    warned = ", <b>warning</b>" if still["warned"] else ""
    return f'<figure><img src="{uri}" alt="{words}"><figcaption>{words}{warned}</figcaption></figure>'


def _events(events: Sequence[Json]) -> str:
    if not events:
        return "<p>No warning was raised.</p>"
    rows = [
        [f"{e['t_ns'] / 1e9:.2f}", _warning(e["kind"]), e["track"] or "", _number(e["ttc_s"]), _number(e["distance_m"])]
        for e in events
    ]
    return f"<h3>Events</h3>{_table(['second', 'event', 'track', 'TTC, s', 'distance, m'], rows)}"


def _warning(kind: str) -> str:
    """`fcw_on` in words."""
    name, _, what = kind.rpartition("_")
    return f"{WARNINGS[name]} {'warning' if what == 'on' else 'ends'}"


def _bench(bench: Json) -> str:
    if not bench:
        return ""
    times: dict[str, Json] = {name: lane["stages"] for name, lane in bench["lanes"].items()}
    names = list(dict.fromkeys(name for stages in times.values() for name in stages))
    rows = [(name, {lane: stages[name] for lane, stages in times.items() if name in stages}) for name in names]
    head = ["stage", *(f"{lane} {p}" for lane in times for p in PERCENTILES)]
    table = _table(
        head, [[name, *(f"{of[k][p]:.2f}" if k in of else "" for k in times for p in PERCENTILES)] for name, of in rows]
    )
    lanes = _table(
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
    legend = _legend([(f"s{i}", lane) for i, lane in enumerate(times)])
    plot = bars(rows, list(times), "Latency of each stage")
    return _section(
        "Latency", f"{plot}{legend}{note}{lanes}<details><summary>All percentiles</summary>{table}</details>"
    )


_VERDICTS = {"missed": "MISSED", "unsure": "too few pictures to tell", "ok": "ok"}  # the worst first


def _check(check: Json) -> str:
    if not check:
        return ""
    precisions = list(check["figures"])
    rows = []
    for metric in check["figures"][precisions[0]]:
        values = [check["figures"][p].get(metric) for p in precisions]
        gates = [gate for gate in check["gates"] if gate["metric"] == metric]
        told = {gate.get("verdict", "ok" if gate["ok"] else "missed") for gate in gates}  # older files have `ok` alone
        verdict = next((word for kind, word in _VERDICTS.items() if kind in told), "")
        delta = [] if len(values) < 2 else [_number(None if None in values else values[-1] - values[0], 4, sign=True)]
        rows.append([metric, *(_number(v, 4) for v in values), *delta, verdict, "; ".join(g["text"] for g in gates)])
    head = ["metric", *precisions, *(["delta"] if len(precisions) > 1 else []), "verdict", "gate"]
    data = ", ".join(f"{key} {value}" for key, value in check["data"].items())
    return _section("Accuracy", f"<p>{check['samples']} pictures: {escape(data)}</p>{_table(head, rows)}")


def _stages(bundle: Bundle) -> str:
    rows = []
    for name, record in bundle.stages.items():
        for role, (file, digest) in record.files.items():
            path = bundle.path / file
            size = _size(path.stat().st_size) if path.is_file() else "missing"
            seconds = f"{record.facts.get('stage_seconds', 0):.1f}"
            rows.append([STAGE_WORDS[name], role, file, size, digest[:12], seconds])
    return _section("From recipe to engine", _table(["stage", "role", "file", "size", "sha256", "stage s"], rows))


def _learning(bundle: Bundle) -> str:
    """Curves of the training, where there was more than one epoch of it."""
    facts = bundle.stages["train"].facts if "train" in bundle.stages else {}
    named = (("losses", "loss"), ("validation", facts.get("figure", "")), ("rates", "rate"))
    rows = {words: facts[key] for key, words in named if len(facts.get(key, ())) > 1}
    if not rows:
        return ""
    words = "Mean loss of each epoch, and the learning rate at its end."
    if "best_epoch" in facts:
        words += (
            f" {facts['figure']} is on the validation pictures; the weights are those of epoch {facts['best_epoch']}."
        )
    return _section("Learning curves", f"{curves(rows, 'Learning curves')}<p>{escape(words)}</p>")


def _search(bundle: Bundle) -> str:
    """Price and loss of the cuts that a search compared."""
    found = bundle.stages["slim"].facts.get("search") if "slim" in bundle.stages else None
    if not found:
        return ""
    rows = {name: [(point["price"], point["loss"]) for point in row] for name, row in found["points"].items()}
    plot = scatter(rows, found["unit"], "loss", "Cuts: price and loss")
    words = "Loss on the pictures at hand before fine-tuning, over the price that the layers add up to"
    legend = _legend([(f"s{i}", name) for i, name in enumerate(rows)])
    return _section("Where to cut", f"{plot}{legend}<p>{escape(words)} ({escape(found['machine'])}).</p>")


def _facts(stage: str, facts: Json) -> str:
    return _section(STAGE_WORDS[stage], _tree(facts), closed=True) if facts else ""


def _tree(value: Any) -> str:
    """Figures of any shape: mappings as two columns, a list of mappings as a table, the rest as text."""
    if isinstance(value, Mapping):
        return _pairs([(key, _Raw(_tree(inner))) for key, inner in value.items()])
    if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
        head = list(dict.fromkeys(key for row in value for key in row))
        return _table(head, [[_Raw(_tree(row.get(key, ""))) for key in head] for row in value])
    if isinstance(value, list):
        long = len(value) > LINES
        return f"<pre>{escape(chr(10).join(map(str, value)))}</pre>" if long else escape(", ".join(map(str, value)))
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))


def _versions(bundle: Bundle) -> str:
    tools: dict[str, str] = {"edgecnn": __version__}
    for record in bundle.stages.values():
        tools |= record.made_on
    return _section("Made with", _pairs(sorted(tools.items())), closed=True)


class _Raw(str):
    """HTML that is not to be escaped again."""


def _cell(value: Any) -> str:
    return value if isinstance(value, _Raw) else escape(str(value))


def _section(title: str, body: str, *, closed: bool = False) -> str:
    if closed:
        return f"<section><details><summary><h2>{escape(title)}</h2></summary>{body}</details></section>"
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td{_kind(cell)}>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _kind(cell: Any) -> str:
    return {"ok": ' class="good"', "MISSED": ' class="bad"'}.get(str(cell), "")


def _pairs(rows: Iterable[tuple[str, Any]]) -> str:
    inner = "".join(f"<dt>{escape(str(k).replace('_', ' '))}</dt><dd>{_cell(v)}</dd>" for k, v in rows)
    return f"<dl>{inner}</dl>"


def _legend(entries: Iterable[tuple[str, str]]) -> str:
    inner = "".join(
        f'<span><svg viewBox="0 0 10 10" width="10" height="10"><rect class="{kind}" width="10" height="10"/></svg> '
        f"{escape(words)}</span>"
        for kind, words in entries
    )
    return f'<p class="legend">{inner}</p>'


def _number(value: float | None, digits: int = 1, *, sign: bool = False) -> str:
    return "–" if value is None else f"{value:{'+' if sign else ''}.{digits}f}"


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def _count(value: float) -> str:
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:.2f} {unit}"
    return f"{value:.0f}"
