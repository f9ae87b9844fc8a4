"""A state folder: keys, journal, ClickHouse store and book, opened together by their one owner.

STATE/keys/        one file per purpose, mode 0600; says whether they are test keys
STATE/journal/     the log; everything else can be rebuilt from it
STATE/clickhouse/  projection for analysts and jobs (chDB)
STATE/book.sqlite  the book of points
STATE/owner.lock   held by the process that may write
STATE/owner.sock   where `sql`, `job`, `book` and `explain` ask that process
STATE/access.toml  who may do what; written by the operator, see `permissions.py`
STATE/closed       left by an owner that closed everything; see `folder.py`
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.engine import Rows
from pipeline.model.batches import BasisBatch, CommandBatch, CutBatch, RulebookBatch
from pipeline.model.columns import TextColumn, ids
from pipeline.model.identifiers import NO_ID, Keys, digest
from pipeline.model.words import BOOK_COMMANDS
from pipeline.rulebook.model import Rulebook
from pipeline.rulebook.read import from_texts
from pipeline.run.accrue import AccrualReport, accrue, deliver_outbox
from pipeline.run.answers import answer_rows, answers_to, doubts_told
from pipeline.run.folder import Closed, book_of, clickhouse_of, leave_mark, take_mark
from pipeline.score.orders import command_id
from pipeline.store.book import Book
from pipeline.store.book_rules import in_force
from pipeline.store.clickhouse import ClickHouse
from pipeline.store.clickhouse_schema import fingerprint
from pipeline.store.crash import crash_point
from pipeline.store.journal import Journal
from pipeline.store.runs import accrual_run

Progress = Callable[[str], None]


class State:
    """Journal, store and book of one folder. Only its owner makes one with `writable`."""

    def __init__(
        self,
        folder: Path,
        keys: Keys,
        rulebook: Rulebook,
        *,
        clickhouse_url: str | None = None,
        database: str = "mirrorpoint",
        book_url: str | None = None,
    ) -> None:
        self.folder, self.keys = folder, keys
        self._is_whole = clickhouse_url is None and book_url is None  # all of it is in the folder
        take_mark(folder)
        self.journal = Journal(folder / "journal", keys)
        url = clickhouse_url or clickhouse_of(folder)
        self.clickhouse = ClickHouse(url, database=database, keys=keys)
        self.book = Book(book_url or book_of(folder), keys, rulebook)
        self.rulebooks: dict[bytes, Rulebook] = {}
        self.rulebook = rulebook
        self._rulebook_rows, self._recorded = 0, b""  # rows read, and the hash of the last one
        self.access: str | None = None  # the hash of the permissions last put on record, if asked
        self.reload_rulebooks()

    def close(self) -> None:
        """Give back files and connections; say so if all went well and all is in the folder."""
        self.clickhouse.close()
        self.book.close()
        self.journal.close()
        if self._is_whole and self.rulebooks and self.journal.whole:
            last = self._recorded.hex()
            found = Closed(fingerprint(), len(self.rulebooks), last, self.access or "")
            leave_mark(self.folder, self.keys, found)

    def emit(self, rows: Rows) -> None:
        """Append rows to the journal; who is new to the circle enters the identity table."""
        for stream, batch in rows:
            self.journal.append(stream, batch)
            if isinstance(batch, BasisBatch):
                subscribers = [bytes(row) for row in batch.subscriber_id]
                logins = dict(zip(subscribers, batch.login.to_list(), strict=True))
                self.book.put_identities({who: login for who, login in logins.items() if login})

    def use_rulebook(self, rulebook: Rulebook, received_ns: int) -> None:
        """Keep the full text of a rulebook and rate by it from now on.

        The last row of the stream says what is in force, also after a way back to earlier rules.
        """
        self.rulebook = rulebook
        if rulebook.hash != self._recorded or self.journal.resuming:
            self._append_rulebook(rulebook, received_ns, proposed=False)
            self._recorded = rulebook.hash
        self.rulebooks[rulebook.hash] = rulebook
        self.book.import_rulebook(rulebook)

    def propose_rulebook(self, rulebook: Rulebook, received_ns: int) -> None:
        """Keep the full text of a rulebook that is not in force. Raises BookError, before that,
        where this book can never use it.
        """
        self.book.know_rulebook(rulebook)
        self._append_rulebook(rulebook, received_ns, proposed=True)
        self.rulebooks[rulebook.hash] = rulebook

    def _append_rulebook(self, rulebook: Rulebook, received_ns: int, proposed: bool) -> None:
        row = RulebookBatch(
            ids([rulebook.hash]),
            np.array([proposed], np.uint8),
            TextColumn.of([rulebook.text()]),
            np.array([received_ns], np.int64),
        )
        self.journal.append("rulebooks", row)
        self._rulebook_rows = self.journal.rows("rulebooks")

    def take_due_rulebook(self, now_ns: int) -> None:
        """Rate by what was published, approved, and has come into force by `now_ns`."""
        found = in_force(self.book.publications(), now_ns)
        if found is not None and found.rulebook_hash != self._recorded:
            self.use_rulebook(self.rulebooks[found.rulebook_hash], now_ns)

    def reload_rulebooks(self) -> None:
        """Read every rulebook that the journal has and that is not known yet."""
        for batch in self.journal.read("rulebooks", self._rulebook_rows):
            assert isinstance(batch, RulebookBatch)
            self._rulebook_rows += len(batch)
            for row in range(len(batch)):
                found, proposed = bytes(batch.rulebook_hash[row]), bool(batch.proposed[row])
                if found not in self.rulebooks:
                    self.rulebooks[found] = from_texts(json.loads(batch.text.text(row)))
                    self.book.know_rulebook(self.rulebooks[found])
                if not proposed:
                    self._recorded = found
                    self.book.use(self.rulebooks[found])

    def rulebook_of(self, rulebook_hash: bytes) -> Rulebook | None:
        """The rulebook with this hash; None where the journal has none."""
        return self.rulebooks.get(rulebook_hash)

    def use_last_rulebook(self) -> bool:
        """Rate by the rulebook that the journal says is in force; is there one?"""
        if self._recorded:
            self.rulebook = self.rulebooks[self._recorded]
        return bool(self._recorded)

    def command(
        self,
        kind: str,
        ref: str,
        body: dict[str, Any],
        actor: str,
        received_ns: int,
        subscriber_id: bytes = NO_ID,
        event_ns: int | None = None,
        points: int = 0,
        role: str = "",
        scope: str = "",
    ) -> None:
        """Append one command of ours to the journal; `event_ns` is what it is about, else now."""
        self.journal.append(
            "commands",
            CommandBatch(
                ids([command_id(self.keys, kind, ref)]),
                TextColumn.of([kind]),
                TextColumn.of([ref]),
                TextColumn.of([actor]),
                TextColumn.of([role]),
                TextColumn.of([scope]),
                ids([subscriber_id]),
                np.array([points], np.int64),
                TextColumn.of([json.dumps(body, sort_keys=True)]),
                np.array([received_ns if event_ns is None else event_ns], np.int64),
                np.array([received_ns], np.int64),
            ),
        )

    def cuts(self) -> list[CutBatch]:
        """All cuts in the journal, one batch of one row each, in their order."""
        found: list[CutBatch] = []
        for batch in self.journal.read("cuts"):
            assert isinstance(batch, CutBatch)
            found += [batch.slice(row, row + 1) for row in range(len(batch))]
        return found

    def make_cut(self, number: int, name: str, now_ns: int, repeat: CutBatch | None) -> CutBatch:
        """Fix a position and a `now`: seal the open segments, append the cut, make it durable."""
        if repeat is not None:
            cut = repeat.with_columns(
                cut_id=ids([digest(self.keys.visit, "cut", number, name)]),
                number=np.array([number], np.int64),
                name=TextColumn.of([name]),
                repeat_of=repeat.number,
            )
        else:
            position = {s: n for s, n in self.journal.position().items() if s != "cuts"}
            cut = CutBatch(
                ids([digest(self.keys.visit, "cut", number, name)]),
                np.array([number], np.int64),
                TextColumn.of([name]),
                np.array([now_ns], np.int64),
                TextColumn.of([json.dumps(position, sort_keys=True)]),
                np.zeros(1, np.int64),
                ids([self.rulebook.hash]),
            )
        self.journal.append("cuts", cut)
        self.journal.seal()
        self.journal.sync()
        crash_point("accrue.after_cut")
        return cut

    def accrue(self, cut: CutBatch, actor: str, progress: Progress | None = None) -> AccrualReport:
        """Run accrual at a cut; doing it again is harmless."""
        return accrue(
            self.journal,
            self.clickhouse,
            self.book,
            self.rulebooks,
            cut,
            run_id=accrual_run(self.keys, bytes(cut.cut_id[0])),
            actor=actor,
            progress=progress,
        )

    def complete_cuts(self, actor: str) -> None:
        """Run the job of every cut that a crash left open."""
        for cut in self.cuts():
            if not self.book.cut_done(int(cut.number[0])):
                self.accrue(cut, actor)

    def refill_store(self) -> bool:
        """Deliver journal and entries again where the store was lost; was it?

        Every owner delivers the rulebooks first of all, so a store without any was never filled.
        What accrual answered at earlier cuts is in neither source, and stays away.
        """
        ((there,),) = self.clickhouse.rows("SELECT count() FROM rulebooks_log")
        sealed = any(segment.sealed for segment in self.journal.segments("rulebooks"))
        if int(there) or not sealed:
            return False
        self.clickhouse.project(self.journal)
        deliver_outbox(self.clickhouse, self.book)
        self._deliver_answers()
        return True

    def _deliver_answers(self) -> None:
        """Deliver again what was answered to commands, cut by cut; the book has kept it."""
        before = 0
        for cut in self.cuts():
            number = int(cut.number[0])
            if not self.book.cut_done(number) or int(cut.repeat_of[0]):
                continue
            after = json.loads(cut.position.text(0)).get("commands", 0)
            commands, places = self.clickhouse.commands(BOOK_COMMANDS, before, after)
            answers = answers_to(self.book, commands, number)
            run_id = accrual_run(self.keys, bytes(cut.cut_id[0]))
            told = doubts_told(self.book, commands)
            rows = answer_rows(commands, places, answers, number, told)
            self.clickhouse.deliver_answers(rows, number, run_id)
            before = after

    def deliver(self) -> None:
        """Bring the store up to the journal."""
        self.journal.seal()
        self.journal.sync()
        self.clickhouse.project(self.journal)


def now_ns() -> int:
    """The wall clock, UTC nanoseconds; only the outermost layer asks it."""
    return time.time_ns()
