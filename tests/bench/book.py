"""How fast the book is, beside bare SQLite: `python -m tests.bench.book [CONVERSIONS]`.

Conversions are seen pending, confirmed with the partner's money, corrected downward, sent once
more; then their members spend. A transaction holds 1,000 targets and is durable when it returns.
The limit is the same statements with the same rows and the same commits, written by `sqlite3` into
tables of the same schema, by somebody who need not read, decide, hash or check anything.
"""

from __future__ import annotations

import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import event
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from pipeline.model.batches import CommandBatch, TargetBatch
from pipeline.model.words import Result
from pipeline.store.book import TRANSACTION_ROWS, Book
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

RUNS = 3
PER_MEMBER, PARTNERS = 4, 20
STAGES = (
    ("seen pending", "pending", 40, ""),
    ("confirmed, with money", "available", 40, "100/40/60"),
    ("corrected downward", "available", 24, "60/24/36"),
    ("sent once more", "available", 24, "60/24/36"),
)
ORDERS = "orders"
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


class Timed:
    """A book in a folder, taking the stages of a day in turn; a new one for the first stage."""

    def __init__(self, day: Day, folder: Path) -> None:
        self.day, self.folder = day, folder
        self.seconds: dict[str, list[float]] = {}
        self.book: Book | None = None
        self.made = 0

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
        self.made += 1
        self.book = Book(f"sqlite:///{self.folder / f'book-{self.made}.sqlite'}", KEYS, rulebook())


def record(day: Day, folder: Path) -> tuple[dict[str, Writes], int]:
    """What the book writes for a day, stage by stage; and how many transfers that is."""
    timed = Timed(day, folder)
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
    for name in (*(stage[0] for stage in STAGES), ORDERS):
        batches = day.orders if name == ORDERS else day.targets[name]
        current = writes[name] = []
        for batch in batches:
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
        path = self.folder / f"bare-{self.made}.sqlite"
        self.connection = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-65536",
                       "wal_autocheckpoint=8192"):  # fmt: skip
            self.connection.execute(f"PRAGMA {pragma}").fetchall()
        for table in metadata.sorted_tables:
            self.connection.execute(str(CreateTable(table).compile(dialect=sqlite.dialect())))
            for index in table.indexes:
                self.connection.execute(str(CreateIndex(index).compile(dialect=sqlite.dialect())))
        self.connection.execute("INSERT INTO heads VALUES (1, 0, 0, 0, zeroblob(32))")


def measure(conversions: int, folder: Path) -> tuple[dict[str, Figure], Timed, int]:
    """Figures by stage, of the book and (with `bare:` before) of the bare writes."""
    day = Day(conversions)
    recorded = folder / "recorded"
    recorded.mkdir()
    writes, transfers = record(day, recorded)
    timed, bare = Timed(day, folder), Bare(writes, folder)
    names = [*(stage[0] for stage in STAGES), ORDERS]
    sizes = {name: sum(map(len, day.targets.get(name, day.orders))) for name in names}
    works = [(n, sizes[n], lambda n=n: timed.stage(n)) for n in names]
    works += [(f"bare: {n}", sizes[n], lambda n=n: bare.stage(n)) for n in names]
    return repeat(works, RUNS), timed, transfers


def main() -> None:
    conversions = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    with tempfile.TemporaryDirectory(prefix="book-bench-") as folder:
        found, timed, transfers = measure(conversions, Path(folder))
    lines = [
        machine(),
        f"{conversions:,} conversions of {conversions // PER_MEMBER:,} members,"
        f" {TRANSACTION_ROWS:,} targets a commit, {transfers:,} transfers in all",
        f"  {'':24}{'requests/s':>12}{'a CPU s':>12}{'bare/s':>12}{'x bare':>8}"
        f"{'p50 ms':>8}{'p99 ms':>8}",
    ]
    total = bare_total = cpu = 0.0
    for name, seconds in timed.seconds.items():
        figure, bare = found[name], found[f"bare: {name}"]
        total, bare_total = total + figure.seconds, bare_total + bare.seconds
        cpu += figure.cpu_seconds
        cuts = statistics.quantiles(seconds, n=100) if len(seconds) > 1 else seconds * 99
        busy = "  busy" if figure.disturbed else ""
        # What is sent once more is not written at all, so there is nothing to compare with.
        rate = f"{bare.rate:12,.0f}" if bare.seconds > 0.01 else f"{'nothing':>12}"
        share = f"{bare.seconds / figure.seconds:8.2f}" if bare.seconds > 0.01 else f"{'-':>8}"
        of_cpu = figure.packets / figure.cpu_seconds
        lines.append(
            f"  {name:24}{figure.rate:12,.0f}{of_cpu:12,.0f}{rate}{share}"
            f"{1e3 * cuts[49]:8.0f}{1e3 * cuts[98]:8.0f}{busy}"
        )
    lines.append(
        f"  {'transfers, all stages':24}{transfers / total:12,.0f}{transfers / cpu:12,.0f}"
        f"{transfers / bare_total:12,.0f}{bare_total / total:8.2f}"
    )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
