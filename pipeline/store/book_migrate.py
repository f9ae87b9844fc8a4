"""Opening a book brings its tables to what this program knows, in the transaction of the opening.

Each change of the tables is a revision of its own in `migrations/versions`; none is ever changed or
taken out, and there is no way back: a book only grows. The newest one's name stands here, so that
a book that is up to date is opened without a look at them.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, select, text

from pipeline.store import book_schema as tables

HEAD = "0002"  # the newest revision
FIRST, FIRST_VERSION = "0001", "2"  # what a book has whose tables no revision made
VERSIONS = "alembic_version"  # Alembic's own table


class MigrationError(RuntimeError):
    """The tables cannot be brought to what this program knows; the message says why."""


def migrate(connection: Connection) -> None:
    """Bring the tables up to date. Raises MigrationError for those of a newer program."""
    found = revision_of(connection)
    if found == HEAD:
        return
    from alembic import command  # a quarter of a second, for a book that is opened every time
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise MigrationError(f"this book was made by a newer program: its tables are of {found!r}")
    if found is None and inspect(connection).has_table(tables.meta.name):
        _check_first(connection)
        command.stamp(config, FIRST)
    try:
        command.upgrade(config, HEAD)
    except RuntimeError as error:
        raise MigrationError(str(error)) from error


def revision_of(connection: Connection) -> str | None:
    """The revision of the tables; None where none made them."""
    if not inspect(connection).has_table(VERSIONS):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSIONS}")).scalar()


def _check_first(connection: Connection) -> None:
    """Are the tables those of before there were revisions?"""
    meta = tables.meta
    query = select(meta.c.value).where(meta.c.name == "schema_version")
    version = connection.execute(query).scalar()
    if version != FIRST_VERSION:
        raise MigrationError(f"this book has tables of version {version!r}, which nothing reads")
