"""The report: one file that needs nothing else, whatever is missing, and plots that say what the figures say."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tiny_detector import lamp_picture, make_bundle

from edgecnn.bundle import Bundle
from edgecnn.errors import InputError
from edgecnn.report import write_report
from edgecnn.report.runs import Run, fitted
from edgecnn.report.svg import bars, histograms, ticks
from edgecnn.report.timeline import COLUMNS, Timeline
from edgecnn.run import run

VOID = {"meta", "img", "line", "rect", "path", "br"}


class Balance(HTMLParser):
    """Holds every tag against its end; keeps what is loaded and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def parsed(path: Path) -> tuple[str, Balance]:
    text = path.read_text("utf-8")
    page = Balance()
    page.feed(text)
    assert page.open == []
    return text, page


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "lamps.bundle", int8=True)


@pytest.fixture
def ran(tmp_path: Path, bundle: Bundle) -> Path:
    """A run over twelve pictures of a lamp that moves."""
    folder = tmp_path / "a <b> & c"
    folder.mkdir()
    for i in range(12):
        picture = cv2.resize(lamp_picture(1 + i // 4, 3), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(folder / f"{i:03}.png"), picture)
    run(bundle, str(folder), tmp_path / "run")
    return tmp_path / "run"


CHECK = {
    "bundle": "lamps",
    "data": {"kind": "sim", "seed": 1},
    "samples": 10,
    "figures": {"fp32": {"AP50": 0.9, "AP_small": None}, "int8": {"AP50": 0.8, "AP_small": None}},
    "gates": [{"kind": "least", "metric": "AP50", "ok": False, "text": "AP50 0.8000 (int8), at least 0.85"}],
    "ok": False,
}
ROW = {"n": 10, "mean": 1.0, "p50": 1.0, "p95": 2.0, "p99": 4.0, "max": 5.0}
LANE = {"role": "fp32", "detect_every": 1, "detector_frames": 1.0, "fps": 50.0, "not_inference": 0.3}
BENCH = {
    "source": "sim:1",
    "frames": 10,
    "threads": 1,
    "machine": {"cpu": "a <cpu>"},
    "lanes": {
        "fp32": {**LANE, "stages": {"infer": {**ROW, "p50": 6.0, "p95": 7.0, "p99": 8.0}, "track": ROW}},
        "int8": {**LANE, "stages": {"infer": {**ROW, "p50": 2.0}}},
    },
    "ratios": {"int8": {"infer_p50": 3.0}},
}


def saved(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data), "utf-8")
    return path


def test_a_bundle_alone(tmp_path: Path, bundle: Bundle) -> None:
    text, page = parsed(write_report(bundle, tmp_path / "report.html"))
    assert "not checked" in text and "model.int8.cpu.onnx" in text
    assert page.loaded == []


def test_everything_on_one_page_and_nothing_outside_it(tmp_path: Path, bundle: Bundle, ran: Path) -> None:
    check, bench = saved(tmp_path / "check.json", CHECK), saved(tmp_path / "bench.json", BENCH)
    text, page = parsed(write_report(bundle, tmp_path / "report.html", runs=[ran], bench=bench, check=check))
    assert page.loaded and all(uri.startswith("data:image/jpeg;base64,") for uri in page.loaded)
    assert not re.search(r"https?://|url\(|@import|<script", text)
    words = " ".join(page.words)
    assert "1 of 1 gates missed" in words and "3.00 ×" in words and "AP50 0.8000 (int8), at least 0.85" in words
    assert "-0.1000" in words and "a <cpu>" in words
    assert "Run: a <b> & c" in words  # a folder's name is text, not HTML
    assert "frames 12" in " ".join(words.split())


def test_a_gate_on_too_few_pictures_is_passed_and_told(tmp_path: Path, bundle: Bundle) -> None:
    text = "AP50 loses 0.0500 (-0.0400 to 0.1400) by int8, at most 0.01"
    gate = {"kind": "drop", "metric": "AP50", "ok": True, "verdict": "unsure", "text": text}
    check = saved(tmp_path / "check.json", {**CHECK, "gates": [gate], "ok": True})
    _, page = parsed(write_report(bundle, tmp_path / "report.html", check=check))
    words = " ".join(page.words)
    assert "1 of 1 gates passed, 1 on too few pictures" in words and "too few pictures to tell" in words
    assert text in words


def test_how_far_a_run_could_be_trusted(tmp_path: Path, bundle: Bundle, ran: Path) -> None:
    summary = json.loads((ran / "summary.json").read_text("utf-8"))
    summary |= {"mode_seconds": {"NORMAL": 3.0, "REDUCED": 0.0, "WARN-OFF": 1.24, "STOP": 0.0}, "faults": {"black": 9}}
    summary |= {"late": 4, "stale": 0, "invalid": 2, "reconnects": 1}
    summary["stages"]["age"] = {"n": 12, "mean": 50.0, "p50": 41.0, "p95": 90.0, "p99": 99.0, "max": 120.0}
    event = {"t_ns": 0, "frame": 3, "track": 0, "ttc_s": None, "distance_m": 0.1}
    summary["events"] = [{**event, "kind": "ldw_left_on"}, {**event, "kind": "ldw_left_off"}]
    saved(ran / "summary.json", summary)
    _, page = parsed(write_report(bundle, tmp_path / "report.html", runs=[ran]))
    words = " ".join(" ".join(page.words).split())
    assert "modes 3.0 s NORMAL, 1.2 s WARN-OFF" in words and "camera faults black in 9 frames" in words
    assert "4 past the deadline, 2 without a valid answer" in words and "opened again 1 times" in words
    assert "age of frames p50 41 ms, p99 99 ms" in words
    assert "lane departure, left, warning" in words and "lane departure, left, ends" in words


def test_the_figures_on_top_are_those_after_slimming(tmp_path: Path, bundle: Bundle) -> None:
    facts = {"before": {"parameters": 2_000_000}, "after": {"parameters": 1_500_000}}
    (bundle.path / "slim.bin").write_bytes(b"slim")
    slim = bundle.with_stage("slim", settings={}, version=1, files={"slim": "slim.bin"}, facts=facts, tools={})
    text, _ = parsed(write_report(slim, tmp_path / "report.html"))
    assert "<b>1.50 M</b><span>parameters</span>" in text


def with_histograms(bundle: Bundle, text: str) -> Bundle:
    (bundle.path / "histograms.json").write_text(text, "utf-8")
    files = {"int8_cpu": "model.int8.cpu.onnx", "histograms": "histograms.json"}
    return bundle.with_stage("quantize", settings={}, version=1, files=files, facts={}, tools={})


def test_the_worst_ranges_are_drawn(tmp_path: Path, bundle: Bundle) -> None:
    row = {"reach": 8.0, "max": 7.5, "amax": 6.0, "clipped": 0.00125, "counts": [9, 0, 0, 1]}
    tensors = {f"layer{i}.<relu>": {**row, "sqnr_db": 50.0 - i} for i in range(10)}
    text, page = parsed(write_report(with_histograms(bundle, json.dumps(tensors)), tmp_path / "report.html"))
    plot = text.partition('aria-label="Magnitudes and ranges"')[2].partition("</svg>")[0]
    assert [f"layer{i}." in plot for i in range(10)] == [False, False, *[True] * 8]  # the least dB
    assert plot.count('class="level"') == 8 and plot.count("<rect") == 16
    words = " ".join(" ".join(page.words).split())
    assert "8 of 10 quantised tensors" in words and "layer9.<relu> 6 7.5 0.125% 41.0" in words


def test_histograms_that_are_damaged(tmp_path: Path, bundle: Bundle) -> None:
    with pytest.raises(InputError, match=r"histograms\.json is not readable"):
        write_report(with_histograms(bundle, '{"x": {}}'), tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_histogram_by_hand() -> None:
    """Counts of 1 and 3 are log 2 and log 4 high, of 70; three quarters of 340 lie below the mark."""
    plot = histograms({"x": ([1, 3], 4.0, 3.0)}, "t")
    assert re.findall(r'height="([\d.]+)"', plot) == ["35.0", "70.0"]
    assert re.search(r'class="level" x1="255\.0"', plot)
    assert "<rect" not in histograms({"dead": ([0, 0], 0.0, 0.0)}, "t")


def test_a_run_that_is_gone_or_damaged(tmp_path: Path, bundle: Bundle, ran: Path) -> None:
    with pytest.raises(InputError, match=r"holds no summary\.json"):
        write_report(bundle, tmp_path / "report.html", runs=[tmp_path])
    (ran / "events.jsonl").write_text('{"type": "fra', "utf-8")
    with pytest.raises(InputError, match="line 1, is cut off or damaged"):
        write_report(bundle, tmp_path / "report.html", runs=[ran])
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        ("bench", CHECK, "is of `edgecnn check --json`; wanted what `edgecnn bench --json` printed"),
        ("check", BENCH, "is of `edgecnn bench --json`; wanted what `edgecnn check --json` printed"),
        ("bench", {"ours": "a", "other": "b"}, "is of `edgecnn bench --compare --json`"),
        ("check", {"a": 1}, "holds something else"),
        (
            "bench",
            {**BENCH, "lanes": {"fp32": {**LANE, "stages": {"infer": {"p50": 1}}}}},
            "lanes.fp32.stages.infer.p95",
        ),
        ("check", {**CHECK, "figures": {"fp32": {"AP50": float("nan")}}}, "NaN is no JSON"),
    ],
)
def test_json_of_another_command_or_damaged(
    tmp_path: Path, bundle: Bundle, kind: str, data: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        write_report(bundle, tmp_path / "report.html", **{kind: saved(tmp_path / "x.json", data)})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value) and not (tmp_path / "report.html").exists()


def test_the_folder_of_several_streams_names_them(tmp_path: Path, bundle: Bundle) -> None:
    for name in ("front", "rear"):
        (tmp_path / name).mkdir()
        saved(tmp_path / name / "summary.json", {})
    with pytest.raises(InputError, match=r"Name one of its runs: front, rear\."):
        write_report(bundle, tmp_path / "report.html", runs=[tmp_path])


def test_a_cut_line_is_named(tmp_path: Path, bundle: Bundle, ran: Path) -> None:
    text = (ran / "events.jsonl").read_text("utf-8")
    (ran / "events.jsonl").write_text(text[:-20], "utf-8")
    with pytest.raises(InputError, match=rf"line {text.count(chr(10))}, is cut off"):
        write_report(bundle, tmp_path / "report.html", runs=[ran])


def test_words_of_a_run_never_become_html(tmp_path: Path, bundle: Bundle, ran: Path) -> None:
    evil = """"><script>alert(1)</script><img src=x onerror='alert(2)'>"""
    rows = [json.loads(line) for line in (ran / "events.jsonl").read_text("utf-8").splitlines()]
    for row in rows:
        if row["type"] == "frame":
            row |= {"detector": evil, "mode": evil, "invalid": evil, "warnings": [evil]}
            row["tracks"] = [{**track, "label": evil} for track in row["tracks"]]
    (ran / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    summary = json.loads((ran / "summary.json").read_text("utf-8"))
    saved(
        ran / "summary.json", {**summary, "source": f"sim:{evil}", "role": evil, "warning": evil, "reasons": {evil: 1}}
    )
    text, page = parsed(write_report(bundle, tmp_path / "report.html", runs=[ran]))
    assert "<script" not in text and "<img src=x" not in text and evil in " ".join(page.words)
    assert all(uri.startswith("data:image/jpeg;base64,") for uri in page.loaded)


def test_pictures_keep_to_their_room_and_those_with_a_warning_go_first(ran: Path) -> None:
    whole = Run.read(ran)
    stills = [s.model_copy(update={"warned": i == 1}) for i, s in enumerate(whole.stills)]
    assert len(stills) > 1
    run_ = replace(whole, stills=stills)
    room = run_.still(stills[1]).stat().st_size
    (kept,) = fitted([run_], room)
    assert [s.frame for s in kept.stills] == [stills[1].frame] and kept.left_out == len(stills) - 1
    assert fitted([run_])[0].left_out == 0


def test_a_long_run_is_thinned() -> None:
    plot = Timeline(3600)
    plot.marks("detector", [(i / 30, "why-worth", "x") for i in range(108_000)], 1 / 30)
    plot.curve("TTC", [(i / 30, 5.0 if i != 50_000 else 1.0) for i in range(108_000)], 10.0, (3.2, "warning"))
    drawn = plot.svg("t")
    assert drawn.count("<rect") <= COLUMNS + 1 and len(drawn) < 100_000
    path = re.search(r'class="curve" d="([^"]+)"', drawn)
    assert path and max(float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", path[1])) == pytest.approx(30 + 84 - 8.4)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_json_that_is_not_what_was_printed(tmp_path: Path, bundle: Bundle, text: str) -> None:
    path = tmp_path / "bench.json"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError, match=r"bench\.json"):
        write_report(bundle, tmp_path / "report.html", bench=path)


@pytest.mark.parametrize(
    ("top", "wanted"),
    [
        (10.0, [0, 2, 4, 6, 8, 10]),
        (7.0, [0, 2, 4, 6, 8]),
        (0.9, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (430, [0, 100, 200, 300, 400, 500]),
    ],
)
def test_ticks_are_round_and_reach_the_top(top: float, wanted: list[float]) -> None:
    np.testing.assert_allclose(ticks(top), wanted)


def test_ticks_of_nothing() -> None:
    assert ticks(0) == ticks(float("nan")) == ticks(float("inf")) == [0.0, 1.0]


def test_a_bar_is_as_long_as_its_median() -> None:
    one = {"p50": 1.0, "p95": 1.0, "p99": 1.0}
    four = {"p50": 4.0, "p95": 5.0, "p99": 6.0}
    svg = bars([("infer", {"fp32": four, "int8": one})], ["fp32", "int8"], "t")
    widths = [float(w) for w in re.findall(r'<rect class="s\d"[^>]*width="([\d.]+)"', svg)]
    assert len(widths) == 2 and widths[0] / widths[1] == pytest.approx(4, rel=0.01)


def test_spans_that_overlap_lie_in_different_rows() -> None:
    plot = Timeline(10)
    plot.spans("car", [((a, b, "s0", name), name, []) for a, b, name in ((0, 5, "a"), (4, 9, "b"), (5, 6, "c"))])
    tops = {name: top for top, name in re.findall(r'y="([\d.]+)"[^>]*><title>(\w)</title>', plot.svg("t"))}
    assert tops["a"] == tops["c"] != tops["b"]


def test_a_curve_has_gaps_where_nothing_closes_in() -> None:
    plot = Timeline(4)
    plot.curve("TTC", [(0, 3.0), (1, 2.0), (2, None), (3, 20.0), (4, 1.0)], 10.0, (3.2, "warning"))
    path = re.search(r'class="curve" d="([^"]+)"', plot.svg("t"))
    assert path and path[1].count("M") == 2 and path[1].count("L") == 2
