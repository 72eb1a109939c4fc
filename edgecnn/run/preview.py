"""A page on 127.0.0.1 that shows what the loop sees: `/`, `/status.json`, `/stream/N` (MJPEG), `/frame/N.jpg`.

The loop hands over a picture and goes on. Each client's thread takes the newest picture when it is ready for one, so a
slow client sees fewer pictures and holds nobody up. Nothing outside of this machine is served: the server listens on
the loopback address alone, and answers only to a Host of that name, so that a page of the web can't read it by a
name of its own (DNS rebinding).
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2

from edgecnn.errors import InputError
from edgecnn.run.modes import Status
from edgecnn.run.preview_page import PAGE
from edgecnn.scene import Picture

HOST = "127.0.0.1"
WIDTH = 960  # px: wider pictures are made smaller before they are sent
QUALITY = 75  # of JPEG
CLIENTS = 8  # that may watch at once
PATIENCE_S = 10.0  # for a client that takes nothing


class Board:
    """What is known of one stream, newest only."""

    def __init__(self, name: str) -> None:
        self.name, self.clients = name, 0
        self._status, self._ended = Status(mode="WARN-OFF", causes=("no frames",)), False
        self._warnings: tuple[str, ...] = ()
        self._at_s = -math.inf
        self._jpeg, self._count = b"", 0
        self._change = threading.Condition()

    @property
    def watched(self) -> bool:
        """Whether a picture would be seen, or none was made yet."""
        return self.clients > 0 or not self._count

    def show(self, status: Status, warnings: tuple[str, ...], *, ended: bool = False) -> None:
        """After each frame, and where none came."""
        self._status, self._warnings, self._ended = status, warnings, ended
        self._at_s = time.monotonic()

    def publish(self, picture: Picture) -> None:
        """(H, W, 3) BGR, annotated."""
        height, width = picture.shape[:2]
        if width > WIDTH:
            size = (WIDTH, max(1, round(height * WIDTH / width)))
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        done, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        if not done:
            raise RuntimeError("OpenCV could not encode a preview as JPEG")
        with self._change:
            self._jpeg, self._count = jpeg.tobytes(), self._count + 1
            self._change.notify_all()

    def newer(self, than: int, wait_s: float) -> tuple[bytes, int]:
        """The newest JPEG and its number, once it is above `than`; b"" where none came in time."""
        with self._change:
            came = self._change.wait_for(lambda: self._count > than, wait_s)
            return (self._jpeg if came else b""), self._count

    @contextmanager
    def watching(self) -> Iterator[bool]:
        """Counts a client while it watches; False where there are too many already."""
        with self._change:
            free = self.clients < CLIENTS
            self.clients += free
        try:
            yield free
        finally:
            with self._change:
                self.clients -= free

    def json(self) -> dict[str, Any]:
        s, silent_s = self._status, time.monotonic() - self._at_s
        return {
            "name": self.name,
            "mode": s.mode,
            "monitoring": s.monitoring and silent_s < 1.0 and not self._ended,
            "causes": list(s.causes),
            "fps": round(s.fps, 1),
            "ms": round(s.ms, 1),
            "age_ms": None if math.isnan(s.age_s) else round(1e3 * s.age_s),
            "dropped": s.dropped,
            "warnings": list(self._warnings),
            "silent_s": None if math.isinf(silent_s) else round(silent_s, 2),
            "ended": self._ended,
        }


class Preview:
    """The server in its threads, from construction to `close`. `port` 0: any free one. Raises InputError where the
    port is taken."""

    def __init__(self, port: int = 0) -> None:
        self.boards: list[Board] = []
        try:
            self._server = _Server((HOST, port), _Handler)
        except OSError as error:
            raise InputError(
                f"no preview on {HOST}:{port} ({error.strerror})", wanted="a free port", do="Try --preview 0"
            ) from error
        self._server.boards = self.boards
        self.url = f"http://{HOST}:{self._server.server_address[1]}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="preview", daemon=True)
        self._thread.start()

    def add(self, name: str) -> Board:
        board = Board(name)
        self.boards.append(board)
        return board

    def close(self) -> None:
        self._server.closing = True
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(1.0)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client that hangs must not hang the program
    boards: list[Board]
    closing = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = PATIENCE_S
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        path = self.path.partition("?")[0]
        kind, _, number = path.strip("/").partition("/")
        number = number.removesuffix(".jpg")
        board = self._board(number)
        if host not in (HOST, "localhost"):
            self._answer(403, "text/plain", b"this page is for this machine alone\n")
        elif path == "/":
            self._answer(200, "text/html; charset=utf-8", PAGE.encode())
        elif path == "/status.json":
            body = json.dumps([b.json() for b in self.server.boards], allow_nan=False)
            self._answer(200, "application/json", body.encode())
        elif board is not None and kind == "frame":
            self._frame(board)
        elif board is not None and kind == "stream":
            self._stream(board)
        else:
            self._answer(404, "text/plain", b"there is /, /status.json, /stream/N and /frame/N.jpg\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are no news."""

    def _board(self, number: str) -> Board | None:
        boards = self.server.boards
        return boards[int(number)] if number.isdecimal() and int(number) < len(boards) else None

    def _answer(self, code: int, kind: str, body: bytes) -> None:
        self._head(code, kind, len(body))
        self.wfile.write(body)

    def _head(self, code: int, kind: str, length: int | None) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()

    def _frame(self, board: Board) -> None:
        with board.watching():
            before = board.newer(-1, 0)[1]
            jpeg = board.newer(before, 1.0)[0] or board.newer(0, 0)[0]
        self._answer(200 if jpeg else 503, "image/jpeg" if jpeg else "text/plain", jpeg or b"no picture yet\n")

    def _stream(self, board: Board) -> None:
        with board.watching() as free:
            if not free:
                self._answer(503, "text/plain", b"too many watch already\n")
                return
            self._head(200, "multipart/x-mixed-replace; boundary=frame", None)
            seen = 0
            while not self.server.closing:  # until it goes away, or takes nothing for PATIENCE_S: an OSError
                jpeg, count = board.newer(seen, 0.5)
                if jpeg:
                    seen = count
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
