"""What the book keeps beside the points: rule versions with their text, runs, cuts done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict

import numpy as np
import pytest
from sqlalchemy import Connection

from pipeline.model.batches import CutBatch
from pipeline.model.columns import TextColumn, ids
from pipeline.model.identifiers import NO_ID
from pipeline.rulebook.read import load
from pipeline.store.book import Book
from pipeline.store.book_register import DoneCut, RuleVersion, Run, versions_of
from pipeline.store.book_schema import rule_versions
from tests.ledger.stories import KEYS, RUN, name_id, rulebook


@pytest.fixture
def book(url: str) -> Iterator[Book]:
    made = Book(url, KEYS, rulebook())
    yield made
    made.close()


def a_cut(number: int, repeat_of: int = 0, name: str = "") -> CutBatch:
    return CutBatch(
        ids([name_id("cut", str(number))]),
        np.array([number], np.int64),
        TextColumn.of([name or f"cut {number}"]),
        np.array([number * 100], np.int64),
        TextColumn.of(['{"purchases":5}']),
        np.array([repeat_of], np.int64),
        ids([NO_ID]),
    )


def test_the_shipped_rules_can_be_shown_as_they_were() -> None:
    shipped = load(None)
    book = Book("sqlite://", KEYS, shipped)
    book.import_rulebook(shipped)
    book.import_rulebook(shipped)
    assert book.rulebook_text(shipped.hash) == shipped.text()
    assert book.rulebook_text(NO_ID) is None
    versions = list(versions_of(shipped))
    assert {"programme", "policy", "tracker", "partner", "accrual"} == {v.kind for v in versions}
    for version in versions:
        found = book.rule_version(version.version)
        assert found is not None
        assert found.text == shipped.files[found.file]
        assert 1 <= found.line <= found.text.count("\n") + 1
        assert found.rulebook_hash == shipped.hash
    assert book.rule_version(NO_ID) is None
    assert book.audit() == []


def test_a_version_keeps_where_it_was_first_seen(book: Book) -> None:
    first, second = rulebook(), rulebook(title="Another")
    book.import_rulebook(first)
    book.import_rulebook(second)
    policy = book.rule_version(first.policy.version)
    assert policy is not None
    assert policy.rulebook_hash == first.hash
    for each in (first, second):
        version = book.rule_version(each.programme.version)
        assert version is not None
        assert version.rulebook_hash == each.hash


def test_a_cut_is_done_once(book: Book) -> None:
    assert book.last_cut() is None
    assert not book.cut_done(1)
    book.finish_cut(a_cut(1), RUN)
    book.finish_cut(a_cut(2, repeat_of=1), RUN)
    book.finish_cut(a_cut(1), NO_ID)
    assert book.cut_done(1)
    assert not book.cut_done(3)
    assert book.last_cut() == DoneCut(2, "cut 2", 200, '{"purchases":5}', 1, RUN)


WORK = {
    "put_run": lambda book: book.put_run(Run(RUN, "accrue", "tests")),
    "finish_cut": lambda book: (WORK["put_run"](book), book.finish_cut(a_cut(1), RUN)),
    "import_rulebook": lambda book: book.import_rulebook(rulebook()),
    "put_identity": lambda book: book.put_identity(RUN, "ann@access.example"),
    "erase": lambda book: book.erase(RUN, 5),
}


@pytest.mark.parametrize("work", WORK)
def test_two_programs_may_do_the_same(url: str, book: Book, work: str) -> None:
    """The other one is done just before we have the lock, whatever we saw until then."""
    other, write = Book(url, KEYS, rulebook()), book._write

    def overtaken() -> AbstractContextManager[Connection]:
        WORK[work](other)
        return write()

    book.register._write = book._identities._write = overtaken
    WORK[work](book)
    WORK[work](book)
    assert book.audit() == []
    other.close()


def test_texts_that_no_database_takes_are_written_as_well_as_they_can_be(book: Book) -> None:
    """An error's message may hold anything, such as the name of a file with bytes of old."""
    book.put_run(Run(RUN, "accrue", "te\0sts", outcome="\0", detail="a\0b \udcff.pcap ü"))
    (run,) = book.runs()
    assert (run.actor, run.outcome, run.detail) == (
        "te\ufffdsts",
        "\ufffd",
        "a\ufffdb \ufffd.pcap ü",
    )
    book.finish_cut(a_cut(1, name="no\0on"), RUN)
    assert book.last_cut() == DoneCut(1, "no\ufffdon", 100, '{"purchases":5}', 0, RUN)


def test_the_first_of_rules_with_one_content_is_so_by_its_letters(book: Book) -> None:
    """Not by a language's order, which databases differ in: there, a comes before B."""
    rows = [RuleVersion(RUN, "accrual", name, NO_ID, "f", 1, "k", "t") for name in ("a", "B")]
    with book._write() as connection:
        connection.execute(rule_versions.insert(), [asdict(row) for row in rows])
    assert book.rule_version(RUN) == rows[1]


def test_a_run_is_written_and_closed(book: Book) -> None:
    book.put_run(Run(RUN, "accrue", "tests", started_ns=5))
    assert book.runs() == [Run(RUN, "accrue", "tests", started_ns=5)]
    ended = Run(RUN, "accrue", "tests", started_ns=5, ended_ns=9, outcome="done", detail="{}")
    book.put_run(ended)
    book.put_run(Run(NO_ID, "audit", "tests", started_ns=4))
    assert [run.kind for run in book.runs()] == ["audit", "accrue"]
    assert book.runs()[1] == ended
