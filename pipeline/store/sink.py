"""What delivery and the jobs need of an analytical store; `ClickHouse` is the embedded one.

A server with the native protocol can take its place: it has the same tables, takes the same Arrow
blocks with the same tokens and answers the same SQL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:  # the error below is also for those who deliver nothing
    import pyarrow as pa

    from pipeline.store.clickhouse_schema import Table


# Rows for a table that is kept for one question: its columns as SQL declares them, and the rows.
Given: TypeAlias = "tuple[str, pa.RecordBatch]"


class SinkError(RuntimeError):
    """The store could not take or give rows. `retryable`: doing the same again may help."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class Sink(Protocol):
    """A store of the tables in `clickhouse_schema`. Every method raises SinkError."""

    def query(self, sql: str) -> pa.Table:
        """The answer as Arrow; text as binary, a closed list as its number."""
        ...

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The answer as Python values: closed lists as words, ids and times as text."""
        ...

    def staged(
        self, steps: Mapping[str, str], sql: str, given: Mapping[str, Given] | None = None
    ) -> pa.Table:
        """The answer to `sql`, as in `query`. Each step is a question whose answer is kept, under
        its name, for those after it and for `sql`, and for nobody else; so are the rows `given`.
        """
        ...

    def insert(self, table: Table, rows: pa.RecordBatch, token: str, where: str) -> None:
        """Put rows into a table once; `where` selects exactly these rows of the table."""
        ...
