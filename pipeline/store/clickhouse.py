"""The ClickHouse store: embedded (chDB), one folder, owned by one process.

What is here is a projection: the journal and the book can deliver it again. Analysts ask it, jobs
that pay read it at a cut, nothing else rests on it. chDB allows one process a folder and one folder
a process; inside the process every thread has its own connection, one that writes and one that
cannot (`readonly = 1`).

Every insert is one Arrow block into a table without partitions, hence one part: it is there whole
or not at all. It carries a token that ClickHouse remembers, so the same insert twice is one insert.
Before and after, it is asked which of the rows are there: what is there is not sent again (tokens
are forgotten one day), and a kill between the writing of the token and that of its rows leaves a
token without rows, which then go under another one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.model.batches import CommandBatch, EntryBatch, FoldBatch, UsageBatch
from pipeline.model.identifiers import Keys
from pipeline.store import folds, projection, usage
from pipeline.store.clickhouse_rows import arrow_stream, batch_of, select_of
from pipeline.store.clickhouse_schema import (
    TABLES,
    AnswerBatch,
    ConversionBatch,
    RunBatch,
    Table,
    changes,
    fingerprint,
    statements,
    views,
)
from pipeline.store.connections import NAME, Connections, said
from pipeline.store.crash import crash_point
from pipeline.store.journal import Journal
from pipeline.store.readonly import QueryError
from pipeline.store.runs import Runs
from pipeline.store.sink import Given, SinkError
from pipeline.store.usage import Limits

__all__ = ["ClickHouse", "QueryError", "SinkError"]


class ClickHouse(Connections):
    """One database of an embedded store. May be used by several threads.

    `url`: `chdb:///absolute/folder` or `chdb://:memory:`. Raises SinkError where the folder is in
    use by another process, or was made by a version whose tables are different. With `keys` of the
    state a cut names the run at it.
    """

    def __init__(self, url: str, database: str = "mirrorpoint", keys: Keys | None = None) -> None:
        super().__init__(url, database)
        self._runs = Runs(keys)
        if self._path != ":memory:":
            Path(self._path).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._complete: dict[str, int] = {}
        try:
            self._create()
        except BaseException:
            self.close()
            raise

    # Asking

    def query(self, sql: str) -> pa.Table:
        """The answer as Arrow; text as binary, closed lists as numbers. For questions of ours."""
        return _arrow(self._ask(sql, "ArrowStream"))

    def staged(
        self, steps: Mapping[str, str], sql: str, given: Mapping[str, Given] | None = None
    ) -> pa.Table:
        """The answer to `sql`, as in `query`, after steps whose answers are kept meanwhile.

        `given` are rows of the asker's, by the name of the table they are kept in.
        """
        given = given or {}
        kept = [*given, *steps]
        for name in kept:
            self._do(f"DROP TEMPORARY TABLE IF EXISTS {name}", "staging")
        try:
            for name, (columns, rows) in given.items():
                self._do(f"CREATE TEMPORARY TABLE {name} ({columns}) ENGINE = Memory", "staging")
                self._fill(name, rows)
            for name, step in steps.items():
                self._do(f"CREATE TEMPORARY TABLE {name} ENGINE = Memory AS {step}", "staging")
            return _arrow(self._ask(sql, "ArrowStream", use="staging"))
        finally:
            for name in kept:
                self._do(f"DROP TEMPORARY TABLE IF EXISTS {name}", "staging")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The answer as Python values: closed lists as words, ids and times as text."""
        lines = self._ask(sql, "JSONCompactEachRow").splitlines()
        return [tuple(json.loads(line)) for line in lines]

    def dicts(self, sql: str, **parameters: str) -> list[dict[str, Any]]:
        """Rows by column name, as in `rows`; `{name:Type}` in the text stands for a parameter."""
        lines = self._ask(sql, "JSONEachRow", parameters).splitlines()
        return [json.loads(line) for line in lines]

    # Delivery

    def project(self, journal: Journal) -> int:
        """Deliver every sealed segment that is not here yet; how many were. Raises SinkError."""
        return projection.project(self, journal, self._runs, self._complete)

    def differences(self, journal: Journal) -> list[str]:
        """A line for each difference between the sealed segments and the rows here, read whole."""
        return projection.differences(self, journal)

    def verify_against(self, journal: Journal) -> None:
        """Raise SinkError, naming the segments, unless all are here exactly as in the journal."""
        projection.verify_against(self, journal)

    def entries_delivered(self) -> int:
        """The number of the last entry here. Raises SinkError where one before it is missing."""
        return projection.entries_delivered(self)

    def deliver_entries(self, entries: EntryBatch) -> int:
        """Deliver entries of the book that are not here yet; how many were new."""
        return projection.deliver_entries(self, entries)

    def deliver_conversions(
        self, outcomes: ConversionBatch, cut: int, run_id: bytes, first: int = 0
    ) -> None:
        """Deliver what accrual sent at a cut and what was answered, from row `first` on; once."""
        projection.deliver_conversions(self, outcomes, cut, run_id, first)

    def deliver_answers(self, answers: AnswerBatch, cut: int, run_id: bytes) -> None:
        """Deliver what was answered to the commands of a cut; once."""
        projection.deliver_answers(self, answers, cut, run_id)

    def deliver_run(self, run: RunBatch) -> None:
        """Deliver that a run started, or that it is done; once."""
        projection.deliver_run(self, run)

    def insert(self, table: Table, rows: pa.RecordBatch, token: str, where: str) -> None:
        """Put rows into a table once. `where` selects exactly these rows of the table.

        What is there already stays and is not sent again. Raises SinkError where, before or in the
        end, other rows are there than these.
        """
        offsets = np.asarray(rows.column(rows.schema.get_field_index("stream_offset")))
        missing = self._missing(table, offsets, where)
        if missing.any():
            whole = bool(missing.all())
            self._send(table, rows.filter(pa.array(missing)), token if whole else f"{token}:rest")
            missing = self._missing(table, offsets, where)
        if missing.any():
            self._send(table, rows.filter(pa.array(missing)), f"{token}:again")
            missing = self._missing(table, offsets, where)
        if missing.any():
            raise SinkError(f"{table.log}, {where}: {missing.sum()} of {len(rows)} rows got lost")

    def execute(self, statement: str) -> None:
        """Do something to the store itself, as its owner. Raises SinkError."""
        self._do(statement, "writing")

    # What accrual reads

    def folds(
        self,
        position: Mapping[str, int],
        previous: Mapping[str, int] | None,
        now_ns: int,
        fold: int,
    ) -> FoldBatch:
        """What is known of each conversion at `position`; see `folds.folds`."""
        return folds.folds(self, position, previous, now_ns, fold)

    def usage(
        self,
        position: Mapping[str, int],
        previous: Mapping[str, int] | None,
        now_ns: int,
        fold: int,
        limits: Limits,
    ) -> UsageBatch:
        """What conversions that are not folded hold of caps and budgets; see `usage.usage`."""
        return usage.usage(self, position, previous, now_ns, fold, limits)

    def usage_of_others(self, conversion_keys: np.ndarray, fold: int, limits: Limits) -> UsageBatch:
        """What all conversions but these hold; see `usage.usage_of_others`."""
        return usage.usage_of_others(self, conversion_keys, fold, limits)

    def commands(
        self, kinds: Collection[str], start: int, stop: int
    ) -> tuple[CommandBatch, np.ndarray]:
        """Commands of these kinds among rows `start` up to `stop` of their stream, in its order.

        And which rows of the stream they are (int64).
        """
        assert all(NAME.match(kind) for kind in kinds)
        table = TABLES["commands"]
        listed = ", ".join(f"'{kind}'" for kind in kinds)
        chosen = (
            f"FROM {table.log} WHERE kind IN ({listed})"
            f" AND stream_offset >= {int(start)} AND stream_offset < {int(stop)}"
            " ORDER BY stream_offset"
        )
        batch = batch_of(CommandBatch, self.query(f"SELECT {select_of(table)} {chosen}"))
        places = [int(row[0]) for row in self.rows(f"SELECT stream_offset {chosen}")]
        return batch, np.array(places, np.int64)

    def entries(self, after_sequence: int, limit: int) -> EntryBatch:
        """The entries numbered from `after_sequence` + 1, at most `limit` of them, in order."""
        table = TABLES["entries"]
        return batch_of(
            EntryBatch,
            self.query(
                f"SELECT {select_of(table)} FROM {table.log}"
                f" WHERE sequence > {int(after_sequence)}"
                f" AND sequence <= {int(after_sequence) + int(limit)} ORDER BY sequence"
            ),
        )

    # Making

    def _create(self) -> None:
        try:
            self._make()
        except SinkError:
            raise
        except RuntimeError as error:
            raise SinkError(f"{self._path}: {said(error)}") from None

    def _make(self) -> None:
        """Make tables and views, unless a mark says that they are as these statements make them."""
        if self.made_by() == fingerprint():
            return
        connection = self._connect()
        for statement in statements(self.database):
            connection.query(statement)
        alter, problems = changes(self._columns(), self.database)
        if problems:
            raise SinkError(
                f"{self._path}: another version made this store; "
                "deliver it again into an empty folder\n" + "\n".join(problems)
            )
        for statement in (*alter, *views(self.database)):
            connection.query(statement)

    def _columns(self) -> list[tuple[str, str, str]]:
        found = self.rows(
            "SELECT table, name, type FROM system.columns"
            f" WHERE database = '{self.database}' AND endsWith(table, '_log')"
        )
        return [(str(table), str(name), str(kind)) for table, name, kind in found]

    def _fill(self, name: str, rows: pa.RecordBatch) -> None:
        """Put rows into a table that is kept for a while."""
        names = ", ".join(rows.schema.names)
        try:
            statement = f"INSERT INTO {name} ({names})"
            with self._connection("staging").send_insert(statement, "ArrowStream") as stream:
                stream.append(arrow_stream(rows))
                stream.finish()
        except RuntimeError as error:
            raise SinkError(said(error)) from None

    def _do(self, statement: str, use: str) -> None:
        try:
            self._connection(use).query(statement)
        except RuntimeError as error:
            raise SinkError(said(error)) from None

    def _send(self, table: Table, rows: pa.RecordBatch, token: str) -> None:
        assert "'" not in token
        names = ", ".join(rows.schema.names)
        statement = (
            f"INSERT INTO {table.log} ({names}) SETTINGS insert_deduplication_token = '{token}'"
        )
        raw = arrow_stream(rows)
        connection = self._connection("writing")
        try:
            with connection.send_insert(statement, "ArrowStream") as stream:
                crash_point("project.half_insert", half=lambda: stream.append(raw[: len(raw) // 2]))
                stream.append(raw)
                stream.finish()
        except RuntimeError as error:
            raise SinkError(f"{table.log}, {token}: {said(error)}", retryable=True) from None

    def _missing(self, table: Table, offsets: np.ndarray, where: str) -> np.ndarray:
        """Which of these rows are not there (bool); raises SinkError where others are."""
        found = self.query(f"SELECT stream_offset FROM {table.log} WHERE {where}")
        there = np.asarray(found.column(0), dtype=np.uint64)
        missing = ~np.isin(offsets, there)
        if len(there) != len(offsets) - missing.sum():
            raise SinkError(
                f"{table.log}, {where}: {len(there)} rows are there that are not all among the"
                f" {len(offsets)} that belong there"
            )
        return missing


def _arrow(raw: bytes) -> pa.Table:
    try:
        return pa.ipc.open_stream(raw).read_all()
    except pa.ArrowInvalid as error:
        raise SinkError(f"an answer that is no Arrow stream: {error}") from None
