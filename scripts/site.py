"""The pages of the site that nobody writes: commands, reference, navigation. Run by mkdocs (`make docs`).

Commands come from Typer, with every line of the docs that uses them; the reference from docstrings. Files that stand
outside docs/ and are linked to, such as README.md, become pages, and links between them and docs/ are turned.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click
import mkdocs_gen_files
from typer.main import get_command

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from edgecnn.cli import HELP, app  # noqa: E402

LINK = re.compile(r"\]\(([^)#:\s]+)((?:#[^)]*)?)\)")
OUTER = {"README.md": "index.md"}  # by another name on the site
FIRST = ("onnx.md",)
PARTS = [p for p in sorted((ROOT / "edgecnn").iterdir()) if not p.name.startswith("_") and p.name != "cli"]


def write(path: str, text: str) -> None:
    with mkdocs_gen_files.open(path, "w") as file:
        file.write(text)


def on_site(path: Path) -> str:
    """Where a file of the repository stands on the site; those of docs/ at its root."""
    inner = path.relative_to(ROOT).as_posix()
    return OUTER.get(inner, inner.removeprefix("docs/"))


def page(path: Path, done: set[Path]) -> None:
    """A Markdown file with its links turned, and the files outside docs/ that it links to."""
    if path in done:
        return
    done.add(path)
    linked: list[Path] = []

    def turn(match: re.Match[str]) -> str:
        target = (path.parent / match[1]).resolve()
        if target == ROOT / "docs":
            return f"]({up}index.md)"
        if not target.is_file():
            return match[0]  # mkdocs refuses it
        linked.append(target)
        return f"]({up}{on_site(target)}{match[2]})"

    up = "../" * on_site(path).count("/")
    text = LINK.sub(turn, path.read_text("utf-8"))
    write(on_site(path), text)
    for target in linked:
        if target.suffix == ".md":
            page(target, done)
        elif not target.is_relative_to(ROOT / "docs"):
            with mkdocs_gen_files.open(on_site(target), "wb") as file:
                file.write(target.read_bytes())


def uses(command: str, sources: list[Path]) -> list[tuple[str, Path]]:
    """Lines of the docs that call a command, each once, with the page."""
    found: dict[str, Path] = {}
    for source in sources:
        for line in source.read_text("utf-8").splitlines():
            if re.match(rf"(    |\$ )+edgecnn {command}\b", line):
                found.setdefault(line.strip().removeprefix("$ "), source)
    return list(found.items())


def command_page(name: str, command: click.Command, sources: list[Path]) -> str:
    context = click.Context(command, info_name=f"edgecnn {name}")
    lines = [f"# edgecnn {name}", "", "    " + command.get_usage(context).removeprefix("Usage: "), ""]
    lines += [(command.help or "").strip(), ""]
    if examples := uses(name, sources):
        lines += ["## How to", ""]
        for source in dict.fromkeys(source for _, source in examples):
            lines += [f"From [{source.name}](../{on_site(source)}):", ""]
            lines += [f"    {line}" for line, of in examples if of == source] + [""]
    records = [p.get_help_record(context) for p in command.get_params(context)]
    rows = [(p, record) for p, record in zip(command.get_params(context), records, strict=True)]
    lines += ["## Arguments and options", "", "| | |", "|---|---|"]
    for parameter, record in rows:
        left, right = record or (parameter.make_metavar(context), getattr(parameter, "help", "") or "")
        lines.append(f"| `{left.replace('|', '&#124;')}` | {right.replace('|', '&#124;')} |".replace("`&#124;", "`|"))
    return "\n".join(lines) + "\n"


docs = sorted((ROOT / "docs").glob("*.md"))
outer = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "BENCHMARKS.md", "CHANGELOG.md", "SECURITY.md")]
seen: set[Path] = set()
for each in (*outer, *docs):
    page(each, seen)

commands = get_command(app).commands  # type: ignore[attr-defined]
for name in HELP:
    write(f"commands/{name}.md", command_page(name, commands[name], [*outer[:1], *docs]))
for part in PARTS:
    if part.suffix == ".py" or (part / "__init__.py").is_file():
        write(f"reference/{part.stem}.md", f"# edgecnn.{part.stem}\n\n::: edgecnn.{part.stem}\n")


def title(path: Path) -> str:
    return path.read_text("utf-8").split("\n", 1)[0].removeprefix("# ")


nav = ["* [edgecnn](index.md)", *(f"* [{title(ROOT / 'docs' / name)}]({name})" for name in FIRST), "* How to"]
nav += [f"    * [{name}](commands/{name}.md)" for name in HELP]
nav += ["* Explanation"]
nav += [f"    * [{title(p)}]({p.name})" for p in docs if p.name not in FIRST]
nav += [f"    * [{title(p)}]({p.name})" for p in outer[1:]]
nav += ["* Reference"]
nav += [f"    * [{p.stem}](reference/{p.stem}.md)" for p in PARTS if p.suffix == ".py" or (p / "__init__.py").is_file()]
write("SUMMARY.md", "\n".join(nav) + "\n")
