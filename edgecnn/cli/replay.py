"""Run a recording again, and compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecnn.cli.common import Json, app, columns, show
from edgecnn.errors import GateFailed

if TYPE_CHECKING:
    from edgecnn.run.replay import Replayed

SHOWN = 20  # rows of the table


@app.command()
def replay(
    recording: Annotated[Path, typer.Argument(metavar="RECORDING", help="A folder that `run --record` wrote.")],
    bundle: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="Its network answers anew; else the recorded answers count.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(metavar="PATH", help="Where the recorded video lies now, if not where it did.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For the new events.jsonl; nothing is written unless given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a recording again; show what differs."""
    from edgecnn.bundle import Bundle
    from edgecnn.run.recording import Recording
    from edgecnn.run.replay import as_json as plain
    from edgecnn.run.replay import replay as run_again

    result = run_again(Recording(recording), Bundle.read(bundle) if bundle else None, source=source, out=out)
    show(as_json, (plain(result), _text(result)))
    if not result.same:
        raise GateFailed(f"{recording}: {result.differences} differences in {result.frames} frames", wanted="none")


def _text(result: Replayed) -> str:
    lines = [f"{name}: recorded with {was}, here {now}" for name, (was, now) in result.versions.items()]
    if result.pictures:
        lines.append(f"the pictures of {result.pictures} frames are not those recorded")
    if result.ended:
        lines.append(f"the recording ends early: {result.ended}")
    if result.same:
        lines.append(f"same bytes: {result.lines} lines of {result.frames} frames")
    else:
        rows = [tuple(map(_word, row)) for row in result.rows[:SHOWN]]
        lines.append(columns([("frame", "track", "field", "recorded", "now"), *rows]))
        if result.differences > SHOWN:
            lines.append(f"and {result.differences - SHOWN} more")
    return "\n".join(lines)


def _word(value: Any) -> str:
    return "-" if value is None else str(value)
