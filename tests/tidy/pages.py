"""Writes the pages that follow from the code: `docs/` commands.md, streams.md and schema.md.

`python -m tests.tidy.pages` (or `make docs`) rewrites them; a test says when they are stale. What
click and the batches know is written once, there.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from pipeline.cli import main
from pipeline.model.batches import STREAMS
from pipeline.model.columns import Column, columns_of
from pipeline.store.clickhouse_schema import schema_page
from tests.need import REPOSITORY

WIDTH = 80


def commands(group: click.Group, parent: click.Context) -> Iterator[tuple[str, str]]:
    """Full name and help text of every command that is not hidden, those of subgroups too."""
    for name, command in sorted(group.commands.items()):
        context = click.Context(command, parent=parent, info_name=name, terminal_width=WIDTH)
        if isinstance(command, click.Group):
            yield from commands(command, context)
        elif not command.hidden:
            yield context.command_path, context.get_help()


def commands_page() -> str:
    """The command reference: what `--help` prints, of every command."""
    top = click.Context(
        main, info_name="mirrorpoint", terminal_width=WIDTH, **main.context_settings
    )
    sections = [f"## {name}\n\n```\n{text}\n```\n" for name, text in commands(main, top)]
    return (
        "# Commands\n\n"
        "What `mirrorpoint COMMAND --help` prints (`make docs` writes this page). Exit codes:\n"
        "0 done; 1 it ran and something failed; 2 the call, the input or the rules are wrong, and\n"
        "every mistake was listed. Progress goes to standard error, and only to a terminal.\n\n"
        + "\n".join(sections)
    )


def kind_of(column: Column) -> str:
    """A column's type as the page shows it."""
    if column.dtype is None:
        return "text"
    return "id" if column.dtype.kind == "V" else str(column.dtype)


def mark_of(column: Column) -> str:
    """Whether a column may leave the process, and how."""
    return "sealed" if column.sealed else "local" if column.local else ""


def streams_page() -> str:
    """The journal's streams, column by column."""
    parts = [
        "# Streams of the journal\n\n"
        "What the journal keeps, column by column (`make docs` writes this page from\n"
        "`pipeline/model/batches.py`). Times end in `_ns`: UTC nanoseconds. An `id` is 16 bytes,\n"
        "shown as a UUID; all zeros mean none. *Sealed* columns are encrypted on disk and never\n"
        "reach ClickHouse; *local* columns mean nothing outside the process and are not stored.\n"
    ]
    for name, batch in sorted(STREAMS.items()):
        rows = [f"| `{c.name}` | {kind_of(c)} | {mark_of(c)} |" for c in columns_of(batch)]
        doc = inspect.getdoc(batch) or ""
        parts.append(
            f"## {name}\n\n{doc}\n\n| column | type | |\n|---|---|---|\n" + "\n".join(rows) + "\n"
        )
    return "\n".join(parts)


PAGES = {
    REPOSITORY / "docs" / "commands.md": commands_page,
    REPOSITORY / "docs" / "streams.md": streams_page,
    REPOSITORY / "docs" / "schema.md": schema_page,
}


def write() -> list[Path]:
    """Rewrite the pages; returns those that changed."""
    changed = []
    for path, page in PAGES.items():
        text = page()
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            changed.append(path)
    return changed


if __name__ == "__main__":
    for written in write():
        click.echo(f"wrote {written.relative_to(REPOSITORY)}")
