"""The report opened in a real browser: it draws what it was given, is silent on the console, and asks for nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from test_report import BENCH, CHECK, bundle, parsed, ran, saved

from edgecnn.bundle import Bundle
from edgecnn.report import write_report

__all__ = ["bundle", "ran"]  # fixtures

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "chrome-headless-shell")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr", "--log-level=0"),
    "--host-resolver-rules=MAP * ~NOTFOUND",  # no name is looked up: the test itself sends nothing
)

OWN = re.compile(r"https?://[\w.-]+\.google\.com/")  # what the browser asks its maker by itself, whatever the page


def opened(page: Path, folder: Path) -> tuple[str, str, list[str]]:
    """-> the DOM as the browser has it, its console, the addresses that it asked for."""
    asked = folder / "net.json"
    assert CHROMIUM
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={asked}", "--dump-dom"]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return done.stdout, console, re.findall(r'"url":"([^"]*)"', asked.read_text("utf-8"))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_report_in_a_browser(tmp_path: Path, bundle: Bundle, ran: Path) -> None:
    check, bench = saved(tmp_path / "check.json", CHECK), saved(tmp_path / "bench.json", BENCH)
    report = write_report(bundle, tmp_path / "report.html", runs=[ran], bench=bench, check=check)
    dom, console, asked = opened(report, tmp_path)
    assert console == ""
    assert not [url for url in asked if not OWN.match(url)]
    (tmp_path / "dom.html").write_text(dom, "utf-8")
    text, _ = parsed(tmp_path / "dom.html")
    plots = dict(re.findall(r'<svg [^>]*aria-label="([^"]+)"[^>]*>(.*?)</svg>', text, re.S))
    assert len(plots) == 2 and all("<rect" in body for body in plots.values())
    tips = re.findall(
        r"<title>(\w+) (\w+): p50 ([\d.]+) ms, p95 ([\d.]+) ms, p99 ([\d.]+) ms", plots["Latency of each stage"]
    )
    drawn = {(stage, lane): tuple(map(float, times)) for stage, lane, *times in tips}
    lanes = json.loads(bench.read_text("utf-8"))["lanes"]
    assert drawn == {
        (stage, lane): (row["p50"], row["p95"], row["p99"])
        for lane, of in lanes.items()
        for stage, row in of["stages"].items()
    }


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_script_in_the_page_would_not_run_and_would_be_told(tmp_path: Path, bundle: Bundle) -> None:
    """What the test above rests on: the policy holds in this browser, and the console is read."""
    report = write_report(bundle, tmp_path / "report.html")
    report.write_text(
        report.read_text("utf-8").replace("<main>", "<main><script>document.title='ran'</script>"), "utf-8"
    )
    dom, console, _ = opened(report, tmp_path)
    assert "<title>ran" not in dom and "Content Security Policy" in console


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_page_that_asks_for_something_is_seen_to(tmp_path: Path) -> None:
    """The other thing that the first test rests on."""
    page = tmp_path / "page.html"
    page.write_text('<img src="http://asked.invalid/a.png">', "utf-8")
    assert "http://asked.invalid/a.png" in opened(page, tmp_path)[2]
