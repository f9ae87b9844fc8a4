"""Connections to the embedded ClickHouse store (chDB), and the questions anybody may ask over them.

This is as much of the store as an answer needs; who makes, fills and checks the store is
`clickhouse.py`. Every thread has connections of its own, one for each use. What a connection may do
is set when it is opened: `questions` are anybody's and `reading` is our own, and neither can write
(`readonly = 1`); `staging` keeps answers for a while; `writing` is the owner's.
"""

from __future__ import annotations

import json
import re
import threading
import weakref
from collections.abc import Mapping
from typing import Any

from pipeline.store.readonly import QueryError, check_question
from pipeline.store.sink import SinkError

# A view that says by which statements a store was made.
MARK = "made_by"

URL = re.compile(r"chdb://(?P<path>:memory:|/.*)\Z")
NAME = re.compile(r"[a-z_][a-z0-9_]{0,63}\Z", re.ASCII)
QUESTION_BYTES_MAX = 2 << 30
QUESTION_SECONDS_MAX = 60
SETTINGS = {
    "writing": (),
    "staging": ("output_format_arrow_string_as_string = 0",),
    "reading": (
        "output_format_arrow_string_as_string = 0",
        "output_format_json_quote_64bit_integers = 0",
        "asterisk_include_alias_columns = 1",
        "readonly = 1",
    ),
    # A question runs in the process that owns the money, so it may not use that up.
    "questions": (
        "output_format_json_quote_64bit_integers = 0",
        f"max_memory_usage = {QUESTION_BYTES_MAX}",
        f"max_execution_time = {QUESTION_SECONDS_MAX}",
        "readonly = 1",
    ),
}
CODE = re.compile(r"Code: \d+\. (?:DB::Exception: )?")
FINGERPRINT = re.compile(rb"'(?P<fingerprint>[0-9a-f]{32})'")


class Connections:
    """Connections to one database of the store at `url`, for several threads.

    `url`: `chdb:///absolute/folder` or `chdb://:memory:`. Nothing is opened before it is needed and
    nothing is made. Raises SinkError, then, where the folder is in use by another process.
    """

    def __init__(self, url: str, database: str = "mirrorpoint") -> None:
        found = URL.match(url)
        if not found or not NAME.match(database):
            raise SinkError(
                f"{url}, database {database}: expected chdb:///folder or chdb://:memory:"
            )
        self.database = database
        self._path = re.sub("^//+", "/", found["path"])
        self._local = threading.local()
        self._open: weakref.WeakSet[Any] = weakref.WeakSet()
        self._functions: frozenset[str] | None = None
        self._mutex, self._closed = threading.Lock(), False

    def close(self) -> None:
        """Give the folder back. No other thread may be asking."""
        self._closed = True
        for connection in list(self._open):
            connection.close()
        self._open = weakref.WeakSet()
        self._local = threading.local()

    def ask(self, sql: str, format: str = "JSON") -> bytes:
        """Answer somebody's question in one of ClickHouse's output formats. Raises QueryError."""
        if not re.fullmatch(r"\w+", format, re.ASCII):
            raise QueryError(f"{format} is not a format")
        check_question(sql, self._table_functions())
        try:
            return self._ask(sql, format, use="questions")
        except SinkError as error:
            raise QueryError(str(error)) from None

    def made_by(self) -> str:
        """The fingerprint of the statements that made the tables and views; empty without one."""
        marked = f"database = '{self.database}' AND name = '{MARK}'"
        raw = self._fresh().query(f"SELECT as_select FROM system.tables WHERE {marked}", "TSVRaw")
        found = FINGERPRINT.search(raw.bytes())
        return found["fingerprint"].decode() if found else ""

    def _table_functions(self) -> frozenset[str]:
        if self._functions is None:
            query = "SELECT lower(name) FROM system.table_functions"
            lines = self._ask(query, "JSONCompactEachRow", use="questions").splitlines()
            self._functions = frozenset(str(json.loads(line)[0]) for line in lines)
        return self._functions

    def _connection(self, use: str) -> Any:
        connection = getattr(self._local, use, None)
        if connection is None:
            connection = self._fresh()
            del self._local.fresh
            for setting in (f"USE {self.database}", *(f"SET {s}" for s in SETTINGS[use])):
                connection.query(setting)
            setattr(self._local, use, connection)
        return connection

    def _fresh(self) -> Any:
        """This thread's connection that has no use yet."""
        connection = getattr(self._local, "fresh", None)
        if connection is None:
            connection = self._local.fresh = self._connect()
        return connection

    def _connect(self) -> Any:
        import chdb  # a large library: only a process that opens a store loads it

        if self._closed:
            raise SinkError(f"{self._path}: the store is closed")
        try:
            connection = chdb.connect(self._path)
        except RuntimeError as error:
            raise SinkError(
                f"{self._path}: the store cannot be opened, perhaps another process has it"
                f" ({said(error)})",
                retryable=True,
            ) from None
        with self._mutex:
            self._open.add(connection)
        return connection

    def _ask(
        self,
        sql: str,
        format: str,
        parameters: Mapping[str, str] | None = None,
        use: str = "reading",
    ) -> bytes:
        connection = self._connection(use)
        try:
            values = {name: _escaped(text) for name, text in (parameters or {}).items()}
            found: bytes = connection.query(sql, format, params=values).bytes()
        except RuntimeError as error:
            raise SinkError(said(error)) from None
        return found


def said(error: Exception) -> str:
    """ClickHouse's message without its codes and its stack."""
    text = CODE.sub("", str(error)).strip()
    return text.split("Stack trace:")[0].strip()


def _escaped(text: str) -> str:
    """A parameter's value as ClickHouse reads it: as in a file of tab-separated values."""
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")
