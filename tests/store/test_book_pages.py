"""Reading is set-based: the number of statements does not grow with the batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from pipeline.ledger.targets import Target
from pipeline.store import book_pages
from pipeline.store.book import Book
from pipeline.store.book_bulk import put_rows
from tests.ledger.stories import KEYS, BookDesk, booking, name_id, order_batch, rulebook, target
from tests.ledger.stories import target_batch as batch_of


@pytest.fixture
def book(url: str) -> Iterator[Book]:
    made = Book(url, KEYS, rulebook())
    yield made
    made.close()


@contextmanager
def statements(book: Book) -> Iterator[list[str]]:
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    event.listen(book._engine, "before_cursor_execute", note)
    yield seen
    event.remove(book._engine, "before_cursor_execute", note)


def many(count: int, fold: int, state: str, points: int = 40) -> list[Target]:
    return [
        target(f"c{n}", points, state, fold=fold, member=f"m{n % 300}", partner=f"p{n % 9}")
        for n in range(count)
    ]


@pytest.mark.parametrize("count", [10, 1000])
def test_a_transaction_has_few_statements(book: Book, count: int) -> None:
    story = [("pending", 40), ("available", 40), ("available", 24), ("none", 0)]
    for fold, (state, points) in enumerate(story, 1):
        with statements(book) as seen:
            book.post_targets(batch_of(many(count, fold, state, points)), **booking(fold))
        # BEGIN, head, terms; at most two reads of each of five kinds; one write per table.
        assert len(seen) <= 30, seen
    with statements(book) as seen:
        orders = order_batch([(f"o{n}", f"m{n % 300}", 1) for n in range(count)])
        book.post_commands(orders, **booking(9))
    assert len(seen) <= 20, seen


def test_nothing_is_written_where_nothing_moved(book: Book) -> None:
    book.post_targets(batch_of(many(50, 1, "available")), **booking(1))
    with statements(book) as seen:
        book.post_targets(batch_of(many(50, 1, "available")), **booking(1))
    assert not [s for s in seen if s.startswith(("INSERT", "UPDATE", "DELETE"))]


def test_other_lots_are_read_only_for_those_who_lack_points(book: Book) -> None:
    """Ann lost more than her lot of `a` has; Bob's correction fits into his own lot."""
    both = [target("a", 40, "available"), target("b", 40, "available", member="bob")]
    more = [target("c", 40, "available"), target("d", 40, "available", member="bob")]
    book.post_targets(batch_of([*both, *more]), **booking(1))
    book.post_commands(order_batch([("o", "ann", 35)]), **booking(1))
    down = [target("b", 20, "available", fold=2, member="bob")]
    with statements(book) as seen:
        book.post_targets(batch_of(down), **booking(2))
    assert not [s for s in seen if "lots.subscriber_id IN" in s]
    with statements(book) as seen:
        book.post_targets(batch_of([target("a", 0, "none", fold=2)]), **booking(2))
        book.post_targets(batch_of([target("c", 0, "none", fold=2)]), **booking(2))
    assert [s for s in seen if "lots.subscriber_id IN" in s]
    assert book.member(name_id("member", "ann")).debt == 35
    assert book.audit() == []


def test_lots_that_change_within_a_batch_are_known_to_the_next_target() -> None:
    """One batch: a takes from b's lot, b falls by more than is left, c is drawn in."""
    apart, together = BookDesk(), BookDesk()
    for desk in (apart, together):
        desk.post([target(what, 10, "available") for what in "abc"])
        desk.order("o", "ann", 8, booking(1)["now_ns"])
    steps = [
        target("a", 0, "none", fold=2),
        target("b", 1, "available", fold=2),
        target("a", 7, "pending", fold=3),
        target("c", 0, "none", fold=3),
        target("b", 0, "none", fold=4),
        target("a", 9, "available", fold=5),
    ]
    for step in steps:
        apart.post([step])
    together.post(steps)
    assert apart.book.ledger_hash() == together.book.ledger_hash()
    assert apart.points("ann") == together.points("ann") == (0, 1, 0, 0)
    assert apart.lots("ann") == together.lots("ann")
    assert together.book.audit() == []


def test_every_value_is_of_its_columns_type(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite takes a truth for a number and a number for a text; PostgreSQL does not."""
    seen = set()

    def check(connection: Any, table: Any, rows: Any) -> None:
        for row in rows:
            for column, value in zip(table.columns, row, strict=True):
                assert type(value) is column.type.python_type, (table.name, column.name, value)
        if rows:
            seen.add(table.name)
        put_rows(connection, table, rows)

    monkeypatch.setattr(book_pages, "put_rows", check)
    for fold, (state, points) in enumerate([("pending", 9), ("available", 8), ("none", 0)], 1):
        book.post_targets(batch_of(many(5, fold, state, points)), **booking(fold))
        book.post_commands(order_batch([(f"o{fold}", "m1", 4)]), **booking(fold))
    assert seen == {
        "accounts", "transfers", "entries", "outbox", "conversions", "terms", "pending_items",
        "lots", "lot_moves", "orders",
    }  # fmt: skip
