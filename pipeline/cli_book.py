"""`mirrorpoint book`: what is asked of the book, and by whom; made from the table of its kinds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipeline.cli_options import AS, JSON, STATE, guarded
from pipeline.run.forms import FORMS, Field, Form

NUMBERS = ("points", "whole")
MEMBER = click.option(
    "--member", required=True, metavar="ID", help="Subscriber id of whose points they are."
)


@click.group()
def book() -> None:
    """Ask the book of points: give, spend, freeze, approve; and who did what.

    What is asked is journalled with who asks, in which role; the next `job accrue` answers it. What
    needs a second person waits until another approves it.
    """


def command_of(kind: str, form: Form) -> click.Command:
    """The command that asks for a kind."""

    def run(state: Path, ref: str, at: str, role: str | None, as_json: bool, **said: Any) -> None:
        from secrets import token_hex

        from pipeline.run.client import book_command

        told = {
            field.option: said[_name(field)]
            for field in form.fields
            if said[_name(field)] not in (None, "")
        }
        options = {"said": told, "ref": ref or token_hex(8), "at": at, "as": role}
        sys.exit(guarded(lambda: book_command(state, kind, options, as_json)))

    decorate: list[Callable[[Any], Any]] = [STATE, *map(_option, form.fields)]
    decorate += [
        click.option(
            "--ref",
            default="",
            help="Your own reference, which makes asking twice harmless; a random one without it.",
        ),
        click.option(
            "--at", default="", metavar="T", help="When it happened, ISO 8601 UTC; default now."
        ),
        AS,
        JSON,
    ]
    for one in reversed(decorate):
        run = one(run)
    return click.command(kind.replace("_", "-"), help=form.help)(run)


def _name(field: Field) -> str:
    return "said_" + field.option.replace("-", "_")


def _option(field: Field) -> Callable[[Any], Any]:
    return click.option(
        f"--{field.option}",
        _name(field),
        type=click.Choice(field.words) if field.words else int if field.says in NUMBERS else str,
        metavar=None if field.words else field.metavar,
        required=field.needed,
        help=field.help,
    )


for _kind, _form in FORMS.items():
    book.add_command(command_of(_kind, _form))


@book.command()
@STATE
@JSON
def waiting(state: Path, as_json: bool) -> None:
    """What waits for a second person: who asked for what, and since when."""
    from pipeline.run.client import book_command

    sys.exit(guarded(lambda: book_command(state, "waiting", {}, as_json)))


@book.command()
@STATE
@MEMBER
@click.option(
    "--at", default="", metavar="T", help="As of then, past or to come; by default the last cut."
)
@JSON
def balance(state: Path, member: str, at: str, as_json: bool) -> None:
    """A member's points, the lots that hold them, and what waits."""
    from pipeline.run.client import book_command

    options = {"member": member, "at": at}
    sys.exit(guarded(lambda: book_command(state, "balance", options, as_json)))


@book.command()
@STATE
@click.option("--after", default=0, metavar="N", help="Rows behind this number.")
@click.option("--limit", default=100, show_default=True, metavar="N", help="How many rows at most.")
@JSON
def trail(state: Path, after: int, limit: int, as_json: bool) -> None:
    """Who did what, and what was denied, as of the last cut."""
    from pipeline.run.client import book_command

    options = {"after": after, "limit": limit}
    sys.exit(guarded(lambda: book_command(state, "trail", options, as_json)))
