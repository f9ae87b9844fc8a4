"""Many rows of one table in one call: tuples to the driver, by a statement SQLAlchemy compiled.

SQLAlchemy builds a dictionary of every row and asks a type about every value, which costs more than
the database does. All values of the book are bytes, integers and text, which every driver takes as
they are; so a Core statement is compiled once for the dialect, and the rows go to the driver's
`executemany` in the order and form that the dialect's parameters have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Dialect, Table, bindparam, insert, update
from sqlalchemy.sql import Executable
from sqlalchemy.sql.compiler import SQLCompiler

Row = tuple[Any, ...]
Arrange = Callable[[Row], Any]


def put_rows(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Insert rows: values in the order of the table's columns, of which the last may be missing."""
    if rows:
        text, arrange = _insertion(connection.dialect, table, len(rows[0]))
        connection.exec_driver_sql(text, [arrange(row) for row in rows])


def change_rows(
    connection: Connection, table: Table, columns: tuple[str, ...], rows: Sequence[Row]
) -> None:
    """Set `columns` of the rows with these primary keys; rows are whole, as for `put_rows`.

    Only what may change is named, since a database rewrites an index whose column is set.
    """
    if rows:
        text, arrange = _change(connection.dialect, table, columns)
        connection.exec_driver_sql(text, [arrange(row) for row in rows])


@lru_cache(maxsize=256)
def _insertion(dialect: Dialect, table: Table, count: int) -> tuple[str, Arrange]:
    names = [column.name for column in table.columns][:count]
    compiled = insert(table).compile(dialect=dialect, column_keys=names)
    return _arranged(compiled, {name: at for at, name in enumerate(names)})


@lru_cache(maxsize=256)
def _change(dialect: Dialect, table: Table, columns: tuple[str, ...]) -> tuple[str, Arrange]:
    places = {column.name: at for at, column in enumerate(table.columns)}
    keys = [column.name for column in table.primary_key.columns]
    statement: Executable = (
        update(table)
        .where(*(table.c[name] == bindparam(f"at_{name}") for name in keys))
        .values({name: bindparam(f"to_{name}") for name in columns})
    )
    where = {f"at_{name}": places[name] for name in keys}
    what = {f"to_{name}": places[name] for name in columns}
    return _arranged(statement.compile(dialect=dialect), where | what)  # type: ignore[attr-defined]


def _arranged(compiled: SQLCompiler, places: dict[str, int]) -> tuple[str, Arrange]:
    """The statement's text, and what makes a row into its parameters."""
    if not compiled.positional:
        named = tuple(places.items())
        return str(compiled), lambda row: {name: row[at] for name, at in named}
    return str(compiled), itemgetter(*(places[name] for name in compiled.positiontup or ()))
