"""What commands have in common: options, and how a failure ends one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

from pipeline.model.access import Role

FAILED, WRONG = 1, 2
STATE = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="State folder: journal, ClickHouse store and book. Where an owner opened a door, that.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
AS = click.option(
    "--as",
    "role",
    type=click.Choice([str(role) for role in Role]),
    metavar="ROLE",
    help="In this role, if you have it; by default in your first that may.",
)


def guarded(work: Callable[[], int | None]) -> int:
    """Run a command; what users can mend is told in plain words, without a traceback."""
    from pipeline.run.failures import explain_failure

    try:
        return work() or 0
    except BrokenPipeError:
        sys.stderr.close()
        return FAILED
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
        return FAILED
    except Exception as error:
        known = explain_failure(error)
        if known is None:
            raise
        code, message = known
        click.echo(message, err=True)
        return code
