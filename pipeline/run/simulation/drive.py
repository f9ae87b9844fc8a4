"""Takes a book through a story beside the ledger of coins, and compares after every step.

What must agree: every answer; each member's points; every lot with points (granted, free, held,
lapsed, dates); every balance of points, money, stock and other programmes; what was issued against
what was granted (invariant 0), counted in coins and read from the book. A difference, an assertion
of the book or any other exception ends the story and is told as a `Failure`.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from pipeline.ledger.lots import lot_id
from pipeline.ledger.targets import Target
from pipeline.model.batches import CommandBatch, TargetBatch
from pipeline.model.columns import ID_DTYPE, TextColumn, columns_of, ids
from pipeline.model.identifiers import Keys, digest, id_text
from pipeline.model.words import Result
from pipeline.rulebook.model import Rulebook
from pipeline.run.simulation.model import LotRow
from pipeline.run.simulation.story import (
    POINTS,
    SECOND_NS,
    Failure,
    Step,
    Story,
    Twin,
    asked_of,
    batches,
    rulebook,
)
from pipeline.store.book import Book
from pipeline.store.book_engine import open_engine
from pipeline.store.book_migrate import migrate

KEYS = Keys.from_seed("simulation")
RUN = digest(KEYS.visit, "run", "simulation")
SHARED = Path("/dev/shm")  # memory, so that a commit costs no disk
MEMORY = SHARED if SHARED.is_dir() else None
AUDIT_EVERY = 40
EVERYBODY_EVERY = 10


class Difference(AssertionError):
    """The book says another thing than the ledger of coins."""


class Shelf:
    """Where a story's book stands: a file in memory, made by copying an empty one.

    Making the tables of a book takes longer than the rest of a story.
    """

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(dir=MEMORY)
        self._empty = Path(self._folder.name) / "empty.sqlite"
        self._number = 0
        engine = open_engine(f"sqlite:///{self._empty}")
        with engine.connect() as connection, connection.begin():
            migrate(connection)
        engine.dispose()

    def close(self) -> None:
        """Throw all books away."""
        self._folder.cleanup()

    def run(self, story: Story) -> Failure | None:
        """Take a new book through a story; what went wrong, if anything did."""
        return run_story(story, self.new_url())

    def new_url(self) -> str:
        """The URL of a book with nothing in it; the one before is thrown away."""
        for old in Path(self._folder.name).glob(f"book{self._number}.sqlite*"):
            old.unlink()
        self._number += 1
        path = Path(self._folder.name) / f"book{self._number}.sqlite"
        path.write_bytes(self._empty.read_bytes())
        return f"sqlite:///{path}"


class Comparison:
    """Compares a book with the twin that went the same way."""

    book: Book
    twin: Twin

    def __init__(self) -> None:
        self.lots: dict[bytes, list[LotRow]] = {}

    def same(self, what: str, got: object, expected: object) -> None:
        """Raise Difference where two things are not the same."""
        if got != expected:
            raise Difference(f"{what}: the book has {got}, the coins {expected}")

    def compare(self, everybody: bool = True) -> None:
        """Compare what the two hold; lots only of members whose lots changed, or of everybody.

        Raises Difference.
        """
        ledger = self.twin.ledger
        wrong = ledger.problems()
        if wrong:
            raise Difference("; ".join(wrong))
        for member in ledger.purses:
            rows = ledger.lot_rows(member)
            if everybody or rows != self.lots.get(member):
                self.lots[member] = rows
                self.compare_lots(member, rows)
            if everybody:
                self.compare_points(member)
        balances = self.book.balances()
        self.same("balances", balances, ledger.balances(POINTS))
        issued = balances.get(("programme:issued", POINTS), 0)
        self.same("issued", issued, ledger.granted())
        sums: dict[str, int] = {}
        for (_, commodity), balance in balances.items():
            sums[commodity] = sums.get(commodity, 0) + balance
        if any(sums.values()):
            raise Difference(f"balances do not sum to zero: {sums}")

    def compare_points(self, member: bytes) -> None:
        """Compare the four numbers of one member; they are balances, told in another way."""
        points = self.book.member(member)
        got = (points.pending, points.available, points.reserved, points.debt)
        self.same(f"points of {id_text(member)}", got, self.twin.ledger.points(member))

    def compare_lots(self, member: bytes, rows: list[LotRow]) -> None:
        """Compare the lots of one member that have points."""
        lots = {
            lot.lot_id: (lot.amount, lot.remaining, lot.held, lot.lapsed, lot.earned_ns,
                         lot.expires_ns)
            for lot in self.book.lots(member)
        }  # fmt: skip
        expected = {row[0]: row[1:] for row in rows if row[2] or row[3]}
        self.same(f"lots of {id_text(member)}", lots, expected)


class Driver(Comparison):
    """A book and its twin on their way through a story."""

    def __init__(self, begin: Step, url: str) -> None:
        self.begin, self.url = begin, url
        rules = rulebook(begin["zone"], begin["rules"])
        self.book = self.open(rules)
        programme = rules.programme.id
        self.twin = Twin(
            begin, lambda cause, member, at: lot_id(KEYS.audit, programme, cause, member, at)
        )
        super().__init__()

    def open(self, rules: Rulebook) -> Book:
        """Open the book, with these rules in force."""
        book = Book(self.url, KEYS, rules)
        book.import_rulebook(rules)
        return book

    def close(self) -> None:
        """Give back the book."""
        self.book.close()

    def take(self, steps: Story) -> None:
        """Take one batch of steps with both. Raises Difference."""
        first = steps[0]
        where = {
            "cut": first["cut"],
            "now_ns": first["now"] * SECOND_NS,
            "run_id": RUN,
            "actor": "simulation",
        }
        if first["do"] == "target":
            got = self.book.post_targets(
                target_batch([self.twin.target(s) for s in steps]), **where
            )
            self.same_answers(steps, got)
        elif first["do"] == "command":
            self.same_answers(steps, self.book.post_commands(command_batch(steps), **where))
        elif first["do"] == "due":
            due = self.book.post_due(**where)
            self.same("due", (due.released, due.lapsed), self.twin.apply(first))
        elif first["do"] == "publish":
            self.book.import_rulebook(rulebook(self.begin["zone"], first["rules"]))
            self.twin.apply(first)
        elif first["do"] == "reopen":
            self.book.close()
            self.book = self.open(self.twin.rulebook)

    def same_answers(self, steps: Story, got: np.ndarray) -> None:
        """Compare the answers to a batch."""
        expected = [self.twin.apply(step) for step in steps]
        for step, one, other in zip(steps, got.tolist(), expected, strict=True):
            assert isinstance(other, Result)
            what = f"the answer to {step.get('id') or step['what']}"
            self.same(what, Result(one).name.lower(), other.name.lower())


def run_story(story: Story, url: str) -> Failure | None:
    """Take the book at a URL, a new one, through a story; what went wrong, if anything did."""
    driver = Driver(story[0], url)
    taken = 1
    try:
        for number, steps in enumerate(batches(story[1:]), 1):
            driver.take(steps)
            taken += len(steps)
            driver.compare(number % EVERYBODY_EVERY == 0)
            if number % AUDIT_EVERY == 0:
                driver.same("audit", driver.book.audit(), [])
        driver.compare()
        driver.same("audit", driver.book.audit(), [])
    except Exception as error:
        return Failure(min(taken, len(story) - 1), f"{type(error).__name__}: {error}")
    finally:
        driver.close()
    return None


# Rows as the book takes them


def target_batch(targets: list[Target]) -> TargetBatch:
    """Targets as a batch."""
    columns: dict[str, np.ndarray | TextColumn] = {}
    for at, column in enumerate(columns_of(TargetBatch)):
        values: list[Any] = [target[at] for target in targets]
        if column.dtype is None:
            columns[column.name] = TextColumn.of(values)
        elif column.dtype == ID_DTYPE:
            columns[column.name] = ids(values)
        else:
            columns[column.name] = np.array(values, column.dtype)
    return TargetBatch(**columns)  # type: ignore[arg-type]


def command_batch(steps: Story) -> CommandBatch:
    """Commands as a batch."""
    asked = [asked_of(step) for step in steps]
    at_ns = np.array([each.at_ns for each in asked], np.int64)
    count = len(asked)
    return CommandBatch(
        ids([each.id for each in asked]),
        TextColumn.of([each.kind for each in asked]),
        TextColumn.of([step["id"] for step in steps]),
        TextColumn.of([each.actor for each in asked]),
        TextColumn.of([each.role for each in asked]),
        TextColumn.repeat("", count),
        ids([each.member for each in asked]),
        np.array([each.points for each in asked], np.int64),
        TextColumn.of([json.dumps(each.said) for each in asked]),
        at_ns,
        np.array([step["now"] * SECOND_NS for step in steps], np.int64),
    )
