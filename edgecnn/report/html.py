"""What every section is made of: the document around it, headings, tables, pairs, legends, figures as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from edgecnn.report.style import CSS

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"  # the browser holds it
LINES = 6  # a longer list of texts stands line by line


def document(title: str, body: Iterable[str]) -> str:
    """Sections as a page of HTML."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{CSS}</style></head>\n<body><main>{''.join(body)}</main></body></html>\n"
    )


def tree(value: Any) -> str:
    """Figures of any shape: mappings as two columns, a list of mappings as a table, the rest as text."""
    if isinstance(value, Mapping):
        return pairs([(key, Raw(tree(inner))) for key, inner in value.items()])
    if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
        head = list(dict.fromkeys(key for row in value for key in row))
        return table(head, [[Raw(tree(row.get(key, ""))) for key in head] for row in value])
    if isinstance(value, list):
        long = len(value) > LINES
        return f"<pre>{escape(chr(10).join(map(str, value)))}</pre>" if long else escape(", ".join(map(str, value)))
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))


class Raw(str):
    """HTML that is not to be escaped again."""


def section(title: str, body: str, *, closed: bool = False) -> str:
    if closed:
        return f"<section><details><summary><h2>{escape(title)}</h2></summary>{body}</details></section>"
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> str:
    """A table that scrolls by itself where it is too wide, with the keyboard too; `caption` for who can't see it."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join("<tr>" + "".join(f"<td{_kind(cell)}>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    name = f'<caption class="unseen">{escape(caption)}</caption>' if caption else ""
    return (
        f'<div class="wide" tabindex="0"><table>{name}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def pairs(rows: Iterable[tuple[str, Any]]) -> str:
    inner = "".join(f"<dt>{escape(str(k).replace('_', ' '))}</dt><dd>{_cell(v)}</dd>" for k, v in rows)
    return f"<dl>{inner}</dl>"


def legend(entries: Iterable[tuple[str, str]]) -> str:
    inner = "".join(
        f'<span><svg viewBox="0 0 10 10" width="10" height="10"><rect class="{kind}" width="10" height="10"/></svg> '
        f"{escape(words)}</span>"
        for kind, words in entries
    )
    return f'<p class="legend">{inner}</p>'


def figure(body: str, caption: str = "") -> str:
    """A plot with its legend, and words under it."""
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{body}{words}</figure>"


def number(value: float | None, digits: int = 1, *, sign: bool = False) -> str:
    return "–" if value is None else f"{value:{'+' if sign else ''}.{digits}f}"


def size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def count(value: float) -> str:
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:.2f} {unit}"
    return f"{value:.0f}"


def _kind(cell: Any) -> str:
    return {"ok": ' class="good"', "MISSED": ' class="bad"'}.get(str(cell), "")


def _cell(value: Any) -> str:
    return value if isinstance(value, Raw) else escape(str(value))
