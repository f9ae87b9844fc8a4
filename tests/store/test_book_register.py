"""What the book keeps beside the points: rule versions with their text, runs, cuts done."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.model.batches import CutBatch
from pipeline.model.columns import TextColumn, ids
from pipeline.model.identifiers import NO_ID
from pipeline.rulebook.read import load
from pipeline.store.book import Book
from pipeline.store.book_register import DoneCut, Run, versions_of
from tests.ledger.stories import KEYS, RUN, name_id, rulebook


@pytest.fixture
def book(url: str) -> Iterator[Book]:
    made = Book(url, KEYS, rulebook())
    yield made
    made.close()


def a_cut(number: int, repeat_of: int = 0) -> CutBatch:
    return CutBatch(
        ids([name_id("cut", str(number))]),
        np.array([number], np.int64),
        TextColumn.of([f"cut {number}"]),
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


def test_a_run_is_written_and_closed(book: Book) -> None:
    book.put_run(Run(RUN, "accrue", "tests", started_ns=5))
    assert book.runs() == [Run(RUN, "accrue", "tests", started_ns=5)]
    ended = Run(RUN, "accrue", "tests", started_ns=5, ended_ns=9, outcome="done", detail="{}")
    book.put_run(ended)
    book.put_run(Run(NO_ID, "audit", "tests", started_ns=4))
    assert [run.kind for run in book.runs()] == ["audit", "accrue"]
    assert book.runs()[1] == ended
