"""How fast the book is, beside bare inserts: `python -m tests.bench.book [CONVERSIONS] [--json]`.

Conversions are seen pending, confirmed with the partner's money, corrected downward, sent once
more; then their members spend, reserve and commit. A transaction holds up to 1,000 requests and is
durable when it returns. A transfer is one movement between two accounts, as the book keeps it:

    seen pending            1   issued -> pending
    confirmed, with money   3   pending -> available; cost and margin
    corrected downward      3   available -> issued; cost and margin
    an order                2   available -> reserved -> redeemed, out of two lots each

Beside SQLite stands what it would take to write the same rows with the same statements and commits
by `sqlite3` alone, without reading, deciding, hashing or checking anything (`x bare`), and a plain
loop of `INSERT` of one row a transfer into one table, committed as often. On PostgreSQL (Debian's
server, over a socket) the same day runs once. The balance of a member is read out of a book that
has a million of them.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import event
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from pipeline.model.batches import CommandBatch, TargetBatch
from pipeline.model.words import Result
from pipeline.store import book_schema as tables
from pipeline.store.book import TRANSACTION_ROWS, Book
from pipeline.store.book_bulk import put_rows
from pipeline.store.book_pages import HEAD_COLUMNS
from pipeline.store.book_schema import metadata
from tests.bench.figures import Figure, machine, repeat
from tests.ledger.stories import (
    EVENT_NS,
    KEYS,
    booking,
    order_batch,
    rulebook,
    target,
    target_batch,
)
from tests.postgresql import serving

RUNS = 3
PER_MEMBER, PARTNERS = 4, 20
STAGES = (
    ("seen pending", "pending", 40, ""),
    ("confirmed, with money", "available", 40, "100/40/60"),
    ("corrected downward", "available", 24, "60/24/36"),
    ("sent once more", "available", 24, "60/24/36"),
)
ORDERS = "orders"
TRANSFERS = {"seen pending": 1, "confirmed, with money": 3, "corrected downward": 3, ORDERS: 2}
MEMBERS = 1_000_000
READS = 2_000
Writes = list[tuple[str, Any] | None]  # None is a commit


class Day:
    """The requests of a day over some conversions, cut into transactions."""

    def __init__(self, conversions: int) -> None:
        self.targets = {
            name: self._targets(conversions, min(fold, 3), state, points, money)
            for fold, (name, state, points, money) in enumerate(STAGES, 1)
        }
        self.orders: list[CommandBatch] = []
        members = conversions // PER_MEMBER
        for first in range(0, members, TRANSACTION_ROWS):
            some = range(first, min(first + TRANSACTION_ROWS, members))
            asked = [(f"o{n}", f"m{n}", 30) for n in some]
            self.orders.append(order_batch(asked, event_ns=EVENT_NS + conversions))

    def _targets(
        self, conversions: int, fold: int, state: str, points: int, money: str
    ) -> list[TargetBatch]:
        batches = []
        for first in range(0, conversions, TRANSACTION_ROWS):
            rows = [
                target(
                    f"c{n}", points, state, fold=fold, money=money, partner=f"p{n % PARTNERS}",
                    member=f"m{n // PER_MEMBER}", event_ns=EVENT_NS + n,
                )
                for n in range(first, min(first + TRANSACTION_ROWS, conversions))
            ]  # fmt: skip
            batches.append(target_batch(rows))
        return batches

    def requests(self, name: str) -> int:
        """How many requests a stage has."""
        return sum(map(len, self.targets.get(name, self.orders)))

    @property
    def transfers(self) -> int:
        """How many transfers all stages make."""
        return sum(self.requests(name) * each for name, each in TRANSFERS.items())


class Timed:
    """A book taking the stages of a day in turn; a new one for the first stage."""

    def __init__(self, day: Day, new_url: Any) -> None:
        self.day, self._new_url = day, new_url
        self.seconds: dict[str, list[float]] = {}
        self.book: Book | None = None

    def stage(self, name: str) -> None:
        """Post everything of one stage."""
        if name == STAGES[0][0]:
            self.begin()
        assert self.book is not None
        for batch in self.day.orders if name == ORDERS else self.day.targets[name]:
            began = time.perf_counter()
            if isinstance(batch, CommandBatch):
                results = self.book.post_commands(batch, **booking(5))
            else:
                results = self.book.post_targets(batch, **booking(int(batch.fold[0])))
            self.seconds.setdefault(name, []).append(time.perf_counter() - began)
            expected = Result.EXISTS if name == STAGES[3][0] else Result.OK
            assert (results == expected).all(), np.unique(results)

    def begin(self) -> None:
        """A new book in place of the last one."""
        if self.book is not None:
            self.book.close()
        self.book = Book(self._new_url(), KEYS, rulebook())


def names() -> list[str]:
    """All stages, in their order."""
    return [*(stage[0] for stage in STAGES), ORDERS]


def in_folder(folder: Path) -> Any:
    """Gives the URL of another SQLite book each time."""
    made = iter(range(10**6))
    return lambda: f"sqlite:///{folder / f'book-{next(made)}.sqlite'}"


def record(day: Day, folder: Path) -> tuple[dict[str, Writes], int]:
    """What the book writes for a day, stage by stage; and how many transfers that is."""
    timed = Timed(day, in_folder(folder))
    timed.begin()
    book = timed.book
    assert book is not None
    writes: dict[str, Writes] = {}
    current: Writes = []

    def note(_c: Any, _cursor: Any, statement: str, rows: Any, _x: Any, many: bool) -> None:
        if statement.startswith(("INSERT", "UPDATE", "DELETE")):
            current.append((statement, rows if many else [rows]))

    event.listen(book._engine, "before_cursor_execute", note)
    event.listen(book._engine, "commit", lambda _c: current.append(None))
    for name in names():
        current = writes[name] = []
        for batch in day.orders if name == ORDERS else day.targets[name]:
            if isinstance(batch, CommandBatch):
                book.post_commands(batch, **booking(5))
            else:
                book.post_targets(batch, **booking(int(batch.fold[0])))
    transfers = len({bytes(v) for v in book.entries(0, 10**9).transfer_id})
    assert book.audit() == []
    book.close()
    return writes, transfers


class Bare:
    """The same writes through `sqlite3` alone."""

    def __init__(self, writes: dict[str, Writes], folder: Path) -> None:
        self.writes, self.folder = writes, folder
        self.made = 0
        self.connection: sqlite3.Connection | None = None

    def stage(self, name: str) -> None:
        """Write everything of one stage."""
        if name == STAGES[0][0]:
            self.begin()
        assert self.connection is not None
        begun = False
        for write in self.writes[name]:
            if write is None:
                if begun:
                    self.connection.execute("COMMIT")
                begun = False
                continue
            if not begun:
                self.connection.execute("BEGIN IMMEDIATE")
                begun = True
            self.connection.executemany(*write)

    def begin(self) -> None:
        """A new file with the book's schema."""
        if self.connection is not None:
            self.connection.close()
        self.made += 1
        self.connection = _connect(self.folder / f"bare-{self.made}.sqlite")
        for table in metadata.sorted_tables:
            self.connection.execute(str(CreateTable(table).compile(dialect=sqlite.dialect())))
            for index in table.indexes:
                self.connection.execute(str(CreateIndex(index).compile(dialect=sqlite.dialect())))
        begun = (bytes(32) if name.endswith("link") else 0 for name in HEAD_COLUMNS)
        marks = ", ".join("?" * len(metadata.tables["heads"].columns))
        self.connection.execute(f"INSERT INTO heads VALUES ({marks})", (1, *begun))


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-65536",
                   "wal_autocheckpoint=8192"):  # fmt: skip
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


class Plain:
    """A loop of `INSERT`: one row a transfer into one table, committed as often as the book."""

    def __init__(self, rows: int, folder: Path) -> None:
        self.rows, self.folder, self.made = rows, folder, 0

    def run(self) -> None:
        """Insert all rows, one statement each."""
        self.made += 1
        connection = _connect(self.folder / f"plain-{self.made}.sqlite")
        connection.execute(
            "CREATE TABLE plain (number INTEGER PRIMARY KEY, kind INTEGER, debit INTEGER,"
            " credit INTEGER, amount INTEGER)"
        )
        for first in range(0, self.rows, TRANSACTION_ROWS):
            connection.execute("BEGIN IMMEDIATE")
            for number in range(first, min(first + TRANSACTION_ROWS, self.rows)):
                connection.execute(
                    "INSERT INTO plain VALUES (?, ?, ?, ?, ?)", (number, 1, number, -1, 40)
                )
            connection.execute("COMMIT")
        connection.close()


@dataclass(frozen=True, slots=True)
class Measured:
    """What a day came to on one database."""

    figures: dict[str, Figure]
    seconds: dict[str, list[float]]  # of each transaction, by stage
    transfers: int

    @property
    def rate(self) -> float:
        """Durable transfers a second over all stages that make some, by the median of each."""
        return self.transfers / sum(self.figures[name].seconds for name in TRANSFERS)

    @property
    def cpu_rate(self) -> float:
        """The same by processor time."""
        return self.transfers / sum(self.figures[name].cpu_seconds for name in TRANSFERS)

    def p99_ms(self) -> float:
        """The 99th percentile of a transaction, commit included."""
        every = [s for name in TRANSFERS for s in self.seconds[name]]
        return 1e3 * _quantiles(every)[98]


def _quantiles(seconds: list[float]) -> list[float]:
    return statistics.quantiles(seconds, n=100) if len(seconds) > 1 else seconds * 99


def measure(conversions: int, folder: Path) -> tuple[dict[str, Figure], Timed, int]:
    """Figures by stage on SQLite, of the bare writes (`bare:` before) and of plain inserts."""
    day = Day(conversions)
    recorded = folder / "recorded"
    recorded.mkdir()
    writes, transfers = record(day, recorded)
    timed, bare = Timed(day, in_folder(folder)), Bare(writes, folder)
    plain = Plain(transfers, folder)
    works = [(n, day.requests(n), lambda n=n: timed.stage(n)) for n in names()]
    works += [(f"bare: {n}", day.requests(n), lambda n=n: bare.stage(n)) for n in names()]
    works.append(("plain", transfers, plain.run))
    return repeat(works, RUNS), timed, transfers


def on_postgresql(conversions: int, runs: int = 1) -> Measured:
    """The same day on a PostgreSQL server of one's own."""
    day = Day(conversions)
    with serving() as server:
        timed = Timed(day, server.new_database)
        works = [(n, day.requests(n), lambda n=n: timed.stage(n)) for n in names()]
        figures = repeat(works, runs)
        assert timed.book is not None
        timed.book.close()
    return Measured(figures, timed.seconds, day.transfers)


def balance_reads(folder: Path, members: int = MEMBERS) -> list[float]:
    """Seconds of reading one member's balance, out of a book with so many of them."""
    book = Book(f"sqlite:///{folder / 'many.sqlite'}", KEYS, rulebook())
    ids = [n.to_bytes(16, "big") for n in range(1, members + 1)]
    with book._write() as connection:
        for first in range(0, members, 50_000):
            rows = [
                (n + 1, ids[n], 0, -n, 0, 0, 0, 0, 0, 0)
                for n in range(first, min(first + 50_000, members))
            ]
            put_rows(connection, tables.members, rows)
    chosen, seconds = random.Random(7), []
    for _ in range(READS):
        n = chosen.randrange(members)
        began = time.perf_counter()
        found = book.member(ids[n])
        seconds.append(time.perf_counter() - began)
        assert found.available == n
    book.close()
    return seconds


def _lines(measured: Measured, conversions: int) -> list[str]:
    found = measured.figures
    lines = [
        f"{conversions:,} conversions of {conversions // PER_MEMBER:,} members,"
        f" {TRANSACTION_ROWS:,} requests a commit, {measured.transfers:,} transfers",
        f"  {'SQLite, synchronous=FULL':24}{'requests/s':>12}{'transfers/s':>12}{'a CPU s':>10}"
        f"{'x bare':>8}{'p50 ms':>8}{'p99 ms':>8}",
    ]
    for name in names():
        figure, bare = found[name], found[f"bare: {name}"]
        cuts = _quantiles(measured.seconds[name])
        each = TRANSFERS.get(name, 0)
        # What is sent once more is not written at all, so there is nothing to compare with.
        share = f"{bare.seconds / figure.seconds:8.2f}" if bare.seconds > 0.01 else f"{'-':>8}"
        of_cpu = each * figure.packets / figure.cpu_seconds
        busy = "  busy" if figure.disturbed else ""
        lines.append(
            f"  {name:24}{figure.rate:12,.0f}{each * figure.rate:12,.0f}{of_cpu:10,.0f}{share}"
            f"{1e3 * cuts[49]:8.0f}{1e3 * cuts[98]:8.0f}{busy}"
        )
    bare_seconds = sum(found[f"bare: {name}"].seconds for name in TRANSFERS)
    lines.append(
        f"  {'durable transfers':24}{'':12}{measured.rate:12,.0f}{measured.cpu_rate:10,.0f}"
        f"{measured.rate * bare_seconds / measured.transfers:8.2f}{'':8}{measured.p99_ms():8.0f}"
    )
    lines.append(
        f"  {'plain INSERT loop':24}{'':12}{found['plain'].rate:12,.0f}"
        f"   the book does {measured.rate / found['plain'].rate:.2f} of it"
    )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("conversions", nargs="?", type=int, default=50_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--members", type=int, default=MEMBERS, help="of the balance read")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="book-bench-") as folder:
        found, timed, transfers = measure(given.conversions, Path(folder))
        here = Measured(found, timed.seconds, transfers)
        reads = balance_reads(Path(folder), given.members)
    there = on_postgresql(given.conversions)
    told = {
        "sqlite_transfers_per_second": here.rate,
        "sqlite_transfers_per_cpu_second": here.cpu_rate,
        "sqlite_p99_commit_ms": here.p99_ms(),
        "plain_inserts_per_second": found["plain"].rate,
        "postgresql_transfers_per_second": there.rate,
        "postgresql_p99_commit_ms": there.p99_ms(),
        "balance_read_ms_p50": 1e3 * statistics.median(reads),
        "balance_read_ms_p99": 1e3 * _quantiles(reads)[98],
    }
    if given.json:
        sys.stdout.write(json.dumps({"machine": machine(), **told}, indent=2) + "\n")
        return
    lines = [machine(), *_lines(here, given.conversions)]
    lines.append(
        f"PostgreSQL, synchronous_commit=on: {there.rate:,.0f} transfers/s,"
        f" p99 commit {there.p99_ms():.0f} ms"
    )
    lines.append(
        f"balance of one of {given.members:,} members: p50 {told['balance_read_ms_p50']:.2f} ms,"
        f" p99 {told['balance_read_ms_p99']:.2f} ms"
    )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
