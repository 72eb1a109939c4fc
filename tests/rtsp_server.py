"""A camera that speaks RTSP (RFC 2326) on the loopback address: one transport stream in RTP (RFC 2250), over TCP."""

from __future__ import annotations

import io
import socket
import struct
import threading
import time
from collections.abc import Sequence
from types import TracebackType

import av

from edgecnn.scene import Picture

SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track1\r\n"
TS, TOGETHER = 188, 7  # bytes of a transport packet, and how many an RTP packet holds


def transport_stream(pictures: Sequence[Picture], fps: int = 25) -> bytes:
    data = io.BytesIO()
    with av.open(data, "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=fps, options={"tune": "zerolatency", "g": "5"})
        stream.width, stream.height, stream.pix_fmt = pictures[0].shape[1], pictures[0].shape[0], "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode(None))
    return data.getvalue()


class RtspServer:
    """Plays the pictures once to each client, `pause_s` between two RTP packets; then hangs up, or is `silent`."""

    def __init__(self, pictures: Sequence[Picture], *, pause_s: float = 0.002, silent: bool = False) -> None:
        self.clients = 0
        self._data, self._pause_s, self._silent = transport_stream(pictures), pause_s, silent
        self._closing = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"rtsp://user:secret@127.0.0.1:{self._server.getsockname()[1]}/camera"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> RtspServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._closing.set()
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.clients += 1
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            pending = b""
            while not self._closing.is_set():
                data = connection.recv(4096)
                if not data:
                    return
                pending += data
                while b"\r\n\r\n" in pending:
                    request, _, pending = pending.partition(b"\r\n\r\n")
                    method, *_ = request.decode().split()
                    number = next(line[5:].strip() for line in request.decode().splitlines() if line[:5] == "CSeq:")
                    connection.sendall(self._answer(method, number))
                    if method == "PLAY":
                        self._play(connection)
                        return

    def _answer(self, method: str, number: str) -> bytes:
        head, body = f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n", ""
        if method == "OPTIONS":
            head += "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        elif method == "DESCRIBE":
            body = SDP
            head += f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
        else:
            head += "Session: 1\r\n"
        if method == "SETUP":
            head += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
        return f"{head}\r\n{body}".encode()

    def _play(self, connection: socket.socket) -> None:
        try:
            for number, at in enumerate(range(0, len(self._data), TS * TOGETHER)):
                if self._closing.is_set():
                    return
                payload = self._data[at : at + TS * TOGETHER]
                packet = struct.pack(">BBHII", 0x80, 33, number & 0xFFFF, number * 300, 7) + payload
                connection.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)
                time.sleep(self._pause_s)
            if self._silent:
                self._closing.wait(20)
        except OSError:
            return  # the client has gone
