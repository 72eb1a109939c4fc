"""Work spread over processes: the same results as in one, and what becomes of it when a worker is killed."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import closing
from pathlib import Path

import pytest

from edgecnn import workers
from edgecnn.errors import EdgecnnError, InputError, MissingDependency, ModelError
from edgecnn.workers import Lost, Workers, spread

TWO = Workers(local=2)


def squared(n: int) -> tuple[int, int]:
    """And the process that did it."""
    time.sleep(0.05)
    return n * n, os.getpid()


def killing(task: tuple[Path, int, int]) -> int:
    """Ends its own process as `kill -9` does, the first so many times; a file counts them."""
    folder, number, times = task
    with (folder / str(number)).open("a") as file:
        file.write("x")
    if (folder / str(number)).stat().st_size <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def refusing(n: int) -> int:
    if n == 1:
        raise ModelError("the network does not fit", wanted="another", do="Take another")
    return n


def test_without_workers_all_is_done_here_and_in_order() -> None:
    assert list(spread(squared, range(4))) == [(i, (i * i, os.getpid())) for i in range(4)]


def test_two_workers_do_what_one_process_does_and_nobody_else_can_reach_them() -> None:
    psutil = pytest.importorskip("psutil", reason="comes with distributed")
    found, listening = {}, set()
    with closing(spread(squared, range(8), TWO)) as results:
        for place, (result, process) in results:  # type: ignore[misc]
            found[place] = result, process
            family = [psutil.Process(), *psutil.Process().children(recursive=True)]
            for each in family:
                listening |= {c.laddr.ip for c in each.net_connections() if c.status == "LISTEN"}
    assert {place: result for place, (result, _) in found.items()} == {i: i * i for i in range(8)}
    assert len({process for _, process in found.values()} - {os.getpid()}) == 2
    assert listening == {"127.0.0.1"}


def test_the_work_of_a_killed_worker_is_done_by_another(tmp_path: Path) -> None:
    """Every other item kills its worker the first time: all come, each once. An item whose result died with its worker
    is worked on again."""
    pytest.importorskip("distributed", reason="the extra `sweep` is not installed")
    tasks = [(tmp_path, n, n % 2) for n in range(4)]
    assert sorted(spread(killing, tasks, TWO)) == [(n, n) for n in range(4)]
    assert all((tmp_path / str(n)).stat().st_size >= 2 for n in (1, 3))


def test_what_kills_every_worker_is_given_up_and_the_rest_is_done(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="the extra `sweep` is not installed")
    tasks = [(tmp_path, n, 99 if n == 1 else 0) for n in range(5)]
    found = dict(spread(killing, tasks, TWO))
    lost = found.pop(1)
    assert isinstance(lost, Lost) and "its worker died each time" in lost.why
    assert (tmp_path / "1").stat().st_size == workers.TRIES
    assert found == {n: n for n in (0, 2, 3, 4)}


def test_what_the_work_raises_is_raised_here() -> None:
    pytest.importorskip("distributed", reason="the extra `sweep` is not installed")
    with pytest.raises(ModelError, match=r"^the network does not fit; wanted another. Take another.$"):
        list(spread(refusing, range(3), Workers(local=1)))


def test_another_version_is_refused() -> None:
    with pytest.raises(EdgecnnError, match=r"has edgecnn .*; wanted 0.0.1, as where the command was typed"):
        workers._call("0.0.1", squared, 3)


def test_a_scheduler_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="the extra `sweep` is not installed")
    monkeypatch.setattr(workers, "PATIENCE_S", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for address in (f"tcp://127.0.0.1:{port}", "nowhere://127.0.0.1"):
            with pytest.raises(InputError, match=f"no scheduler answers at {address}") as error:
                list(spread(squared, range(2), Workers(scheduler=address)))
            assert "\n" not in str(error.value)


def test_without_dask_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(MissingDependency, match=r"edgecnn\[sweep\]"):
        list(spread(squared, range(2), TWO))
