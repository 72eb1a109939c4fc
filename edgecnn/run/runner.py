"""Runs: one source, or several side by side that share one engine, through the loop into their sinks."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from edgecnn.backends import Backend, choose, open_backend
from edgecnn.bundle import Bundle
from edgecnn.progress import bar
from edgecnn.run.loop import RunSettings
from edgecnn.run.sources import Source, open_source
from edgecnn.run.stream import Outputs, Setup, SinkName, Stream
from edgecnn.run.tally import RunSummary

TICK_S = 0.1  # without a frame from any source, after which each is asked how it is


@dataclass(frozen=True)
class StreamEnd:
    """What became of one of several streams."""

    summary: RunSummary
    error: Exception | None  # what ended it early


def run(
    bundle: Bundle,
    source: str | Source,
    out: Path | None,
    settings: RunSettings | None = None,
    sinks: Collection[SinkName] = ("video", "events"),
    *,
    backend: Backend | None = None,
    setup: Setup | None = None,
) -> RunSummary:
    """Run a bundle on a source; `out` receives the sinks' files, stills and summary.json, None: nothing is written.

    After Ctrl-C or an error in mid-run the files hold everything until then, and the exception goes on.
    `backend` stands in for the bundle's own (see backends.replay); `reid` embeds, to know objects again. Raises
    InputError, BundleError, ModelError, MissingDependency.
    """
    source = open_source(source) if isinstance(source, str) else source
    (end,) = run_streams(bundle, [(source, Outputs("0", out, tuple(sinks)))], settings, setup, backend=backend)
    if end.error is not None:
        raise end.error
    return end.summary


def run_streams(
    bundle: Bundle,
    sources: Sequence[tuple[Source, Outputs]],
    settings: RunSettings | None = None,
    setup: Setup | None = None,
    *,
    backend: Backend | None = None,
) -> list[StreamEnd]:
    """Several sources side by side, each with its own tracker, modes and sinks, all through one engine.

    An engine serves one thread, so one thread works: a frame of each source in turn, a live one's newest. A stream that
    fails ends alone. Raises what `run` does before the first frame, and Ctrl-C.
    """
    settings = settings or RunSettings.of(bundle)
    bundle.require_model()
    role = choose(bundle, settings.precision) if backend is None else type(backend).__name__
    backend = backend or open_backend(bundle, settings.precision, threads=settings.threads)
    streams = [Stream(bundle, source, backend, role, settings, outputs, setup) for source, outputs in sources]
    wake = threading.Event()
    label = sources[0][0].name if len(sources) == 1 else f"{len(sources)} streams"
    totals = [source.total for source, _ in sources]
    with bar(label, sum(t or 0 for t in totals) if all(totals) else None) as advance, ExitStack() as stack:
        for stream in streams:
            stream.source.wake = wake
            stack.enter_context(stream)
        working = streams
        while working:
            wake.clear()
            worked = sum(stream.turn() for stream in working)
            working = [stream for stream in working if not stream.over]
            advance(worked)
            if working and not worked:
                wake.wait(TICK_S)
    return [StreamEnd(stream.summary(), stream.error) for stream in streams]
