"""The preview page: over plain HTTP, with slow clients, and in a real browser where one is."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from scripted import Script, roads
from tiny_detector import make_bundle

from edgecnn.errors import InputError
from edgecnn.run import Outputs, RunSettings, Source, open_source, run_streams
from edgecnn.run.modes import Status
from edgecnn.run.preview import CLIENTS, Preview

PICTURE = np.full((48, 64, 3), (30, 160, 90), np.uint8)
WELL = Status("NORMAL", (), ms=9.1, age_s=0.043, fps=25.0)


@pytest.fixture
def preview() -> Iterator[Preview]:
    server = Preview()
    yield server
    server.close()


def get(preview: Preview, path: str, **headers: str) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection(urlsplit(preview.url).netloc, timeout=5)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers["Content-Type"], body


def status(preview: Preview) -> list[dict[str, Any]]:
    return json.loads(get(preview, "/status.json")[2])  # type: ignore[no-any-return]


def watch(preview: Preview, number: int = 0) -> socket.socket:
    connection = socket.create_connection((urlsplit(preview.url).hostname or "", urlsplit(preview.url).port or 0))
    connection.sendall(f"GET /stream/{number} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return connection


def until(condition: Any) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Showing:
    """Publishes 50 pictures a second to every board, until left."""

    def __init__(self, *shown: tuple[Any, Status, tuple[str, ...]]) -> None:
        self._shown, self._stop = shown, threading.Event()
        self.longest_s, self.count = 0.0, 0
        self._thread = threading.Thread(target=self._go)

    def __enter__(self) -> Showing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _go(self) -> None:
        while not self._stop.wait(0.02):
            began = time.monotonic()
            for board, how, warnings in self._shown:
                board.show(how, warnings)
                board.publish(PICTURE)
            self.longest_s, self.count = max(self.longest_s, time.monotonic() - began), self.count + 1


def test_it_listens_on_this_machine_alone(preview: Preview) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", preview.url)
    assert preview._server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "192.168.0.7"])
def test_another_name_for_this_machine_is_refused(preview: Preview, host: str) -> None:
    assert get(preview, "/", Host=host)[0] == 403
    assert get(preview, "/status.json", Host=host)[0] == 403
    assert get(preview, "/", Host="localhost:8080")[0] == 200


def test_the_page_loads_nothing_from_elsewhere(preview: Preview) -> None:
    code, kind, body = get(preview, "/")
    assert code == 200 and kind.startswith("text/html")
    assert "http" not in re.sub(rb"<!doctype html>", b"", body).decode() and "NOT MONITORING" in body.decode()


@pytest.mark.parametrize("path", ["/x", "/stream/0", "/frame/0.jpg", "/stream/-1", "/stream/a", "/../etc/passwd"])
def test_what_is_not_there_is_404(preview: Preview, path: str) -> None:
    assert get(preview, path)[0] == 404


def test_status_tells_what_is_known_and_silence_is_not_monitoring(preview: Preview) -> None:
    board = preview.add("front")
    before = status(preview)[0]
    assert (before["monitoring"], before["causes"], before["silent_s"]) == (False, ["no frames"], None)
    board.show(WELL, ("fcw",))
    (now,) = status(preview)
    assert now["monitoring"] and now["warnings"] == ["fcw"]
    assert (now["mode"], now["age_ms"], now["fps"], now["ms"]) == ("NORMAL", 43, 25.0, 9.1)
    board._at_s -= 2.0
    assert not status(preview)[0]["monitoring"]
    board.show(Status("WARN-OFF", ("black",)), ())
    assert not status(preview)[0]["monitoring"]
    board.show(WELL, (), ended=True)
    assert not status(preview)[0]["monitoring"]


def test_a_still_is_the_newest_picture(preview: Preview) -> None:
    board = preview.add("front")
    board.publish(np.zeros_like(PICTURE))
    assert not board.watched
    with Showing((board, WELL, ())):
        code, kind, body = get(preview, "/frame/0.jpg?1")
    assert (code, kind) == (200, "image/jpeg")
    came = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    assert came is not None and np.abs(came.astype(int) - PICTURE).mean() < 4


def test_large_pictures_are_made_smaller(preview: Preview) -> None:
    board = preview.add("front")
    board.publish(np.zeros((1080, 1920, 3), np.uint8))
    came = cv2.imdecode(np.frombuffer(board.newer(0, 0)[0], np.uint8), cv2.IMREAD_COLOR)
    assert came is not None and came.shape == (540, 960, 3)


def test_the_stream_is_pictures_in_parts(preview: Preview) -> None:
    board = preview.add("front")
    with Showing((board, WELL, ())), watch(preview) as connection:
        data = b""
        while data.count(b"--frame") < 4:
            data += connection.recv(65536)
    head, _, rest = data.partition(b"\r\n\r\n")
    assert b"multipart/x-mixed-replace; boundary=frame" in head
    for part in rest.split(b"--frame\r\n")[1:3]:
        fields, _, body = part.partition(b"\r\n\r\n")
        length = int(re.search(rb"Content-Length: (\d+)", fields)[1])  # type: ignore[index]
        assert cv2.imdecode(np.frombuffer(body[:length], np.uint8), cv2.IMREAD_COLOR) is not None


def test_a_client_that_reads_nothing_holds_nobody_up(preview: Preview) -> None:
    board = preview.add("front")
    noise = np.random.default_rng(0).integers(0, 255, (540, 960, 3)).astype(np.uint8)
    with watch(preview), watch(preview) as quick:
        until(lambda: board.clients == 2)
        longest, got = 0.0, 0
        for _ in range(80):  # 80 pictures of half a megabyte: more than any socket buffers
            began = time.monotonic()
            board.publish(noise)
            longest = max(longest, time.monotonic() - began)
            got += len(quick.recv(1 << 20))
    assert longest < 1.0 and got > 1_000_000
    until(lambda: board.publish(noise) is None and board.clients <= 1)  # the one that left is forgotten


def test_clients_are_limited(preview: Preview) -> None:
    board = preview.add("front")
    watchers = [watch(preview) for _ in range(CLIENTS)]
    until(lambda: board.clients == CLIENTS)
    assert get(preview, "/stream/0")[0] == 503
    for watcher in watchers:
        watcher.close()


def test_a_taken_port_is_one_line(preview: Preview) -> None:
    with pytest.raises(InputError, match="Try --preview 0"):
        Preview(urlsplit(preview.url).port or 0)


def test_closing_ends_with_a_client_that_watches() -> None:
    preview = Preview()
    preview.add("front")
    with watch(preview):
        began = time.monotonic()
        preview.close()
    assert time.monotonic() - began < 3


def test_a_run_shows_its_streams(preview: Preview, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "lamps.bundle")
    seen: list[Any] = []

    def look() -> None:
        until(lambda: len(preview.boards) == 2 and preview.boards[0]._count and preview.boards[1]._count)
        seen.append((status(preview), get(preview, "/frame/1.jpg")))

    looker = threading.Thread(target=look)
    looker.start()
    sources = [Source(Script(roads(80), name=n, live=True, pause_s=0.02)) for n in ("a", "b")]
    run_streams(
        bundle, [(s, Outputs(s.name, preview=preview)) for s in sources], RunSettings(detect_every=3, threads=1)
    )
    looker.join()
    (during, (code, _, _)) = seen[0]
    assert [s["name"] for s in during] == ["a", "b"] and code == 200
    assert during[1]["mode"] == "NORMAL" and during[1]["monitoring"] and during[1]["age_ms"] is not None
    assert [s["ended"] for s in status(preview)] == [True, True]


def test_the_stream_is_a_source_too(preview: Preview) -> None:
    """MJPEG over HTTP, as many cameras deliver it: here to ourselves, through FFmpeg."""
    board = preview.add("front")
    with Showing((board, WELL, ())), open_source(f"{preview.url}stream/0") as source:
        frames = list(islice(source, 10))
    assert source.live and all(frame.bgr.shape == PICTURE.shape for frame in frames)
    assert np.abs(frames[-1].bgr.astype(int) - PICTURE).mean() < 4


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium on this machine")
def test_a_real_browser_shows_it(preview: Preview, tmp_path: Path) -> None:
    well, off = preview.add("front <b>"), preview.add("rear")
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={tmp_path}", "--virtual-time-budget=4000", "--dump-dom", preview.url]
    with Showing((well, WELL, ("fcw", "ldw_left")), (off, Status("WARN-OFF", ("black",)), ())):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    first, second = re.findall(r"<article.*?</article>", done.stdout, re.S)
    assert 'class="NORMAL warned"' in first and 'class="off"' in second
    assert all('data-pictures="1"' in article for article in (first, second))  # the pictures arrived and were decoded
    assert "front &lt;b&gt;" in first and "FORWARD COLLISION · LANE LEFT" in first
    assert "25.0 frames/s · 9 ms each · picture 43 ms old" in first
    assert "NOT MONITORING: black" in second and "<b>WARN-OFF</b>" in second
