"""What a terminal shows: tables; and bars and notes, on standard error so that standard output is free for results."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")


class Advance(Protocol):
    """Moves a bar by n; a text takes the place of its label."""

    def __call__(self, n: int, text: str = "", /) -> None: ...


def note(text: str) -> None:
    """One line for the person who waits."""
    print(text, file=sys.stderr, flush=True)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows as text, each column as wide as its widest cell."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


@contextmanager
def bar(label: str, total: int | None) -> Iterator[Advance]:
    """A bar with the time that remains; yields `advance(n, text)`. Off a terminal it says when it starts and ends."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(file=sys.stderr)  # as it is now: what runs meanwhile may send its own elsewhere
    if not console.is_terminal:
        note(f"{label} ({total}) ..." if total else f"{label} ...")
        yield lambda _n, _text="": None
        return
    parts = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*parts, console=console) as shown:
        task = shown.add_task(label, total=total)
        yield lambda n, text="": shown.update(task, advance=n, description=text or label)


def tracked(items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
    """The items, with a bar that counts them."""
    with bar(label, total) as advance:
        for item in items:
            yield item
            advance(1)
