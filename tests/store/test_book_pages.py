"""Reading is set-based: the number of statements does not grow with the batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import pytest
from sqlalchemy import Column, event

from pipeline.ledger.targets import Target
from pipeline.model.columns import concat
from pipeline.model.words import Result
from pipeline.store import book_pages, book_trail
from pipeline.store.book import Book
from pipeline.store.book_bulk import change_rows, put_rows
from pipeline.store.book_schema import metadata
from tests.ledger.asking import ask
from tests.ledger.stories import (
    DAY_NS,
    EVENT_NS,
    KEYS,
    BookDesk,
    booking,
    name_id,
    ns,
    order_batch,
    rulebook,
    target,
)
from tests.ledger.stories import target_batch as batch_of

PARTNERS = 9


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
        target(f"c{n}", points, state, fold=fold, member=f"m{n % 300}", partner=f"p{n % PARTNERS}")
        for n in range(count)
    ]


@pytest.mark.parametrize("count", [10, 1000])
def test_a_transaction_has_few_statements(book: Book, count: int) -> None:
    story = [("pending", 40), ("available", 40), ("available", 24), ("none", 0)]
    for fold, (state, points) in enumerate(story, 1):
        with statements(book) as seen:
            book.post_targets(batch_of(many(count, fold, state, points)), **booking(fold))
        # BEGIN, head, terms, rulebooks, period, booking; at most two reads of each of five kinds;
        # one write per table. Then up to three for each partner: its origin is found or written.
        origins = [s for s in seen if "origins" in s]
        assert len(seen) - len(origins) <= 28, seen
        assert len(origins) <= 3 * PARTNERS, origins


@pytest.mark.parametrize("count", [10, 1000])
def test_commands_and_what_is_due_have_few_statements(book: Book, count: int) -> None:
    """BEGIN, head, terms, rulebooks, period, booking, origin; at most two reads of each of seven
    kinds, three of orders, one write per table and the trail.
    """
    book.post_targets(batch_of(many(count, 1, "available")), **booking(1))
    every = range(count)
    for batches in (
        [ask("order", f"o{n}", f"m{n % 300}", 1) for n in every],
        [ask("reserve", f"r{n}", f"m{n % 300}", 3) for n in every],
        [ask("commit", f"c{n}", points=2, order=f"r{n}") for n in every],
        [ask("refund", f"f{n}", points=1, order=f"r{n}") for n in every],
        [ask("transfer", f"t{n}", f"m{n % 300}", 1, to=f"m{(n + 1) % 300}") for n in every],
        [ask("reserve", f"s{n}", f"m{n % 300}", 3) for n in every],
    ):
        with statements(book) as seen:
            results = book.post_commands(concat(batches), **booking(9))
        assert set(results.tolist()) == {Result.OK}
        assert len(seen) <= 34, seen
    with statements(book) as seen:
        due = book.post_due(**{**booking(9), "now_ns": ns("2030-01-01")})
    assert due.released == count
    assert len(seen) <= 42, "two transactions: the second finds nothing"


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
        desk.command(order_batch([("o", "ann", 8)], booking(1)["now_ns"]))
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


LIFE = [
    ask("stock", "s", points=9, item="cup"),
    ask("reserve", "r", "m1", 9, item="cup", quantity=2),
    ask("commit", "c", points=5, order="r"),
    ask("refund", "f", points=2, at="2027-06-01", order="r"),
    ask("freeze", "z", "m2"),
    ask("adjust", "j", "m3", 5000, reason="x"),
    ask("approve", "k", actor="bob", request="j"),
    ask("transfer", "t", "m3", 7, "2027-06-01", to="m4"),
    ask("close_period", "p", period="2026-02"),
    ask("order", "o", "m3", 10**9),
]


def fits(column: Column[Any], value: Any) -> bool:
    """Is a value of a column's type? A kind or result is a number."""
    kind = column.type.python_type
    return type(value) is kind or (kind is int and isinstance(value, IntEnum))


def typed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the tables that something was put into, each value of its column's type."""
    seen = set()

    def check(connection: Any, table: Any, rows: Any) -> None:
        for row in rows:
            for column, value in zip(table.columns, row, strict=True):
                assert fits(column, value), (table.name, column.name, value)
        if rows:
            seen.add(table.name)
        put_rows(connection, table, rows)

    def changed(connection: Any, table: Any, names: Any, rows: Any) -> None:
        for row in rows:
            values = dict(zip(table.columns.keys(), row, strict=True))
            for name in (*names, *table.primary_key.columns.keys()):
                assert fits(table.columns[name], values[name]), (table.name, name, values[name])
        change_rows(connection, table, names, rows)

    for module in (book_pages, book_trail):
        monkeypatch.setattr(module, "put_rows", check)
    monkeypatch.setattr(book_pages, "change_rows", changed)
    return seen


def test_every_value_is_of_its_columns_type(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite takes a truth for a number and a number for a text; PostgreSQL does not."""
    seen = typed(monkeypatch)
    old = EVENT_NS - 700 * DAY_NS
    for fold, (state, points) in enumerate([("pending", 9), ("available", 30)], 1):
        targets = [t._replace(event_ns=old) for t in many(5, fold, state, points)]
        book.post_targets(batch_of(targets), **booking(fold))
    for each in LIFE:
        (result,) = book.post_commands(each, **booking(3)).tolist()
        assert result in (Result.OK, Result.AWAITING_APPROVAL, Result.INSUFFICIENT_POINTS)
    doubtful = ask("order", "doubtful", "m1", 1, EVENT_NS)
    doubts = {name_id("order", "doubtful"): "[]"}
    waits = book.post_commands(doubtful, **booking(3), doubts=doubts).tolist()
    assert waits == [Result.AWAITING_APPROVAL]
    assert book.post_due(**{**booking(9), "now_ns": ns("2027-07-01")}).lapsed == 4
    book.post_targets(batch_of(many(5, 3, "none", 0)), **{**booking(9), "now_ns": ns("2027-07-01")})
    assert book.audit() == []
    assert seen == {
        "accounts", "members", "origins", "bookings", "postings", "transfers", "lot_moves",
        "outbox", "conversions", "terms", "pending_items", "lots", "lot_dates", "requests",
        "orders", "order_lots", "freezes", "periods", "trail", "doubts",
    }  # fmt: skip
    # What is told by other calls of the book, or once.
    others = {"meta", "heads", "identities", "runs", "rulebooks", "rule_versions", "cuts"}
    assert seen | others == set(metadata.tables)
