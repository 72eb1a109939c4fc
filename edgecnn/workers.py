"""Work spread over processes, on this machine or others, by Dask: a worker may die, and its work is done by another.

Without workers all is done in this process, one item after the other, and Dask is not imported.

What travels is pickled, so whoever reaches the scheduler or a worker can run code as its user. Local workers are
therefore bound to the loopback address and speak TLS with certificates made for this once; of another scheduler its
network must be trusted, or it must speak TLS too (docs/sweeps.md).
"""

from __future__ import annotations

import logging
import socket
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from edgecnn import __version__
from edgecnn.errors import EdgecnnError, InputError, MissingDependency
from edgecnn.progress import note

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")
R = TypeVar("R")

TRIES = 3  # of one item, each by a worker that died of it; another scheduler counts by its own `allowed-failures`
PATIENCE_S = 30  # for another scheduler to answer, and to have a worker
SETTINGS = {
    "distributed.scheduler.allowed-failures": TRIES - 1,
    "distributed.worker.daemon": False,  # a daemon may start no process; ours end with this one all the same
    "distributed.scheduler.http.routes": [],  # pages about their work, which nobody asked for
    "distributed.worker.http.routes": [],
}


@dataclass(frozen=True)
class Workers:
    """Who does the work: `local` processes of this machine, or those of the scheduler at an address, or this one."""

    local: int = 0
    scheduler: str = ""  # tcp://HOST:PORT or tls://HOST:PORT

    @property
    def here(self) -> bool:
        """Whether this process does it all."""
        return not self.local and not self.scheduler


HERE = Workers()


@dataclass(frozen=True)
class Lost:
    """What came of an item whose workers died, each time it was tried."""

    why: str


def spread(
    function: Callable[[T], R], items: Sequence[T], workers: Workers = HERE
) -> Generator[tuple[int, R | Lost], None, None]:
    """`function` of each item: (place of the item, result) as they are ready, in order only where this process works.

    The function is one of a module of ours, and item and result can be pickled. It may be called again for an item
    whose worker died, so it must not mind what a half-done call left behind. What it raises is raised here, and ends
    the rest. Close the iterator (contextlib.closing) where it may be left early: the workers end with it.

    Raises MissingDependency without Dask, InputError where no scheduler answers or none has a worker, EdgecnnError
    where a worker has another version of edgecnn, or the scheduler goes away.
    """
    if workers.here:
        for place, item in enumerate(items):
            yield place, function(item)
        return
    try:
        from distributed import KilledWorker, as_completed
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"--workers and --scheduler need the package {error.name}", do="Run: pip install 'edgecnn[sweep]'"
        ) from None
    from concurrent.futures import CancelledError

    with _client(workers) as client:
        run, ready = uuid.uuid4().hex[:8], as_completed(loop=client.loop)
        place_of: dict[str, int] = {}  # of those begun

        known: set[str] = set()

        def feed() -> None:
            """One item a thread, not more: an item that waits beside one that kills its worker would be blamed too."""
            threads = client.nthreads()
            if gone := known - set(threads):
                note(f"{len(gone)} of {len(known)} workers died or left; their work is begun again")
            known.clear()
            known.update(threads)
            while len(place_of) < len(items) and ready.count() < max(1, sum(threads.values())):
                place = len(place_of)
                future = client.submit(_call, __version__, function, items[place], key=f"edgecnn-{run}-{place}")
                place_of[str(future.key)] = place
                ready.add(future)

        feed()
        for future in ready:
            place = place_of[str(future.key)]
            try:
                result: R | Lost = future.result()
            except KilledWorker:
                result = Lost("its worker died each time it was tried: out of memory, or a crash of a library")
            except CancelledError:
                raise EdgecnnError(
                    "the scheduler went away", do="Run the same command again: what was finished is kept"
                ) from None
            except ModuleNotFoundError as error:
                if not (error.name or "").startswith("edgecnn"):
                    raise
                raise EdgecnnError(
                    f"a worker has no module {error.name}", wanted=f"edgecnn {__version__} on each"
                ) from error
            future.release()
            feed()
            yield place, result


def _call(version: str, function: Callable[[T], R], item: T) -> R:
    """In a worker."""
    if version != __version__:
        raise EdgecnnError(
            f"the worker on {socket.gethostname()} has edgecnn {__version__}",
            wanted=f"{version}, as where the command was typed",
        )
    return function(item)


@contextmanager
def _client(workers: Workers) -> Iterator[Client]:
    import dask
    from distributed import Client, LocalCluster
    from distributed.security import Security

    if workers.scheduler:
        try:
            client = Client(workers.scheduler, timeout=PATIENCE_S, set_as_default=False)
        except (OSError, ValueError) as error:  # ValueError: no such protocol
            raise InputError(
                f"no scheduler answers at {workers.scheduler} ({error})", wanted="tcp://HOST:PORT of `dask scheduler`"
            ) from error
        with client:
            try:
                client.wait_for_workers(1, timeout=PATIENCE_S)
            except TimeoutError:
                raise InputError(
                    f"the scheduler at {workers.scheduler} has no worker", do="Start one: dask worker ADDRESS"
                ) from None
            note(f"{len(client.nthreads())} workers at {workers.scheduler}")
            yield client
        return
    with (
        dask.config.set(SETTINGS),
        LocalCluster(
            n_workers=workers.local,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},  # its HTTP port, open even without a dashboard
            memory_limit=0,  # the system's own limits hold; Dask would pause a worker for good that torch keeps large
            security=Security.temporary(),
            silence_logs=logging.ERROR,  # the death of a worker is told by `spread`
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client
