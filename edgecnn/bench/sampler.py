"""Looks at the board beside a measurement: a thread that is there only as long."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from types import TracebackType

from edgecnn.bench.sensors import Reading, cpu_clock, parse_tegrastats, read_sysfs

EVERY_S = 1.0


class Sampler:
    """Enter it before, leave it after; `rows` are (seconds since it was entered, reading), without empty ones.

    tegrastats counts over sysfs, where the machine has it: it runs once, and its lines are read as they come.
    """

    def __init__(self, every_s: float = EVERY_S) -> None:
        self.rows: list[tuple[float, Reading]] = []
        self._every_s, self._began_s = every_s, 0.0
        self._end = threading.Event()
        self._tool: subprocess.Popen[str] | None = None
        self._told: Reading | None = None  # what tegrastats said last
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Sampler:
        self._began_s = time.monotonic()
        if tool := shutil.which("tegrastats"):
            command = [tool, "--interval", str(round(1000 * self._every_s))]
            self._tool = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            self._threads.append(threading.Thread(target=self._listen, args=(self._tool,), name="tegrastats"))
        self._threads.append(threading.Thread(target=self._work, name="sensors"))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._end.set()
        if self._tool is not None:
            self._tool.terminate()
            self._tool.wait()
        for thread in self._threads:
            thread.join()
        if self._tool is not None and self._tool.stdout is not None:
            self._tool.stdout.close()

    @property
    def readings(self) -> list[Reading]:
        return [row for _, row in self.rows]

    def _work(self) -> None:
        while True:
            row = cpu_clock() | read_sysfs() | (self._told or Reading())
            if row != Reading():
                self.rows.append((time.monotonic() - self._began_s, row))
            if self._end.wait(self._every_s):
                return

    def _listen(self, tool: subprocess.Popen[str]) -> None:
        for line in tool.stdout or ():
            self._told = parse_tegrastats(line) or self._told
