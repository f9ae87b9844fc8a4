"""What the book is asked for in rows: entries by id and cause, lot moves, orders, answers, and what
waits. Every way to a row leads to the row that is there when all are read in booking order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event, text

from pipeline.ledger.lots import spending_key
from pipeline.model.identifiers import NO_ID, id_text, parse_id
from pipeline.model.words import Result
from pipeline.store.book import Book
from tests.ledger.asking import ask
from tests.ledger.stories import (
    EVENT_NS,
    KEYS,
    RUN,
    booking,
    name_id,
    ns,
    rulebook,
    target,
    target_batch,
)
from tests.store.test_book import rows_of

ANN, BOB = name_id("member", "ann"), name_id("member", "bob")
HOUR_NS = 3600 * 10**9
A, B = name_id("conversion", "a"), name_id("conversion", "b")


@pytest.fixture
def book(url: str) -> Iterator[Book]:
    """Causes of all kinds: conversions, orders, commands, and lots that lapse and come back."""
    made = Book(url, KEYS, rulebook(manual_limit=100, expiry="inactivity(1)"))
    earned = [target("a", 40, "pending"), target("b", 30, "available")]
    made.post_targets(target_batch(earned), **booking(1))
    made.post_targets(target_batch([target("a", 24, "available", fold=2)]), **booking(2))
    for batch in (
        ask("stock", "s", points=5, item="cup"),
        ask("reserve", "r", "ann", 34, item="cup", hold_seconds=9000),
        ask("commit", "c", points=30, order="r"),
        ask("refund", "f", points=10, order="r"),
        ask("reserve", "r2", "ann", 4, hold_seconds=60),
        ask("order", "o", "ann", 5, EVENT_NS + HOUR_NS, redemption="gift", payee="shop"),
        ask("order", "o2", "ann", 900, EVENT_NS + HOUR_NS),
        ask("transfer", "t", "ann", 6, EVENT_NS + HOUR_NS, to="bob"),
        ask("adjust", "j", "bob", 7, EVENT_NS + HOUR_NS, reason="x"),
        ask("adjust", "j2", "bob", 700, EVENT_NS + HOUR_NS, "cid", "call_centre", reason="y"),
        ask("adjust", "j1", "ann", -500, EVENT_NS, "dan", "admin", reason="z"),
        ask("migrate", "m", "bob", 9, EVENT_NS + HOUR_NS),
        ask("forfeit", "q", "bob", 3, EVENT_NS + HOUR_NS, reason="z"),
        ask("freeze", "z", "cid"),
    ):
        made.post_commands(batch, **booking(3))
    later = {"cut": 4, "now_ns": ns("2026-05-01"), "run_id": RUN, "actor": "tests"}
    assert made.post_due(**later).lapsed > 2
    late = target("d", 1, "available", event_ns=ns("2026-03-20"))
    made.post_targets(target_batch([late]), **later)
    assert made.audit() == []
    yield made
    made.close()


def test_every_cause_has_its_entries(book: Book) -> None:
    """Of whatever kind it is: those that reading all in booking order finds, in that order."""
    everything = book.entries(0)
    rows = rows_of(everything)
    kinds = dict(zip(map(bytes, everything.cause_id), everything.cause_kind.to_list(), strict=True))
    assert set(kinds.values()) == {"conversion", "order", "command", "lot"}
    for cause in kinds:
        place = [bytes(value) == cause for value in everything.cause_id]
        expected = [row for row, mine in zip(rows, place, strict=True) if mine]
        assert rows_of(book.entries_of(cause)) == expected, kinds[cause]
    assert len(book.entries_of(b"nobody knows it!")) == 0
    assert len(book.entries_of(name_id("order", "z"))) == 0, "a freeze moves nothing"


@pytest.mark.parametrize(
    ("cause", "kinds"),
    [
        (A, ["earn_pending", "cancel_pending", "confirm"]),
        (B, ["earn"]),
        (name_id("order", "r"), ["reserve", "stock", "commit", "stock", "release", "refund"]),
        (name_id("order", "r2"), ["reserve", "release"]),
        (name_id("order", "o"), ["reserve", "commit"]),
        (name_id("order", "o2"), []),
        (name_id("order", "c"), []),  # a commit is about its order
        (name_id("order", "s"), ["stock"]),
        (name_id("order", "t"), ["transfer", "transfer"]),
        (name_id("order", "j"), ["manual_adjust"]),
        (name_id("order", "j2"), []),
        (name_id("order", "m"), ["migrate_open"]),
        (name_id("order", "q"), ["forfeit"]),
    ],
)
def test_what_each_cause_did(book: Book, cause: bytes, kinds: list[str]) -> None:
    assert book.entries_of(cause).kind.to_list()[::2] == kinds


def test_a_lapse_is_about_its_lot(book: Book) -> None:
    lot = next(lot for lot in book.lots(ANN) if lot.conversion_key == B)
    entries = book.entries_of(lot.lot_id)
    assert entries.kind.to_list() == ["expire"] * 2 + ["reinstate"] * 2
    assert entries.cause_version.tolist() == [1, 1, 2, 2]
    assert {bytes(key) for key in entries.conversion_key} == {B}
    assert len(set(entries.effective_ns.tolist())) == 1
    of_bob = [e for e in rows_of(book.entries(0)) if "expire" in e and BOB in map(_raw, e)]
    assert of_bob, "points that were given by hand lapse, too"


def _raw(value: Any) -> bytes:
    return value if isinstance(value, bytes) else b""


def test_every_entry_is_found_by_its_id(book: Book) -> None:
    everything = book.entries(0)
    rows = rows_of(everything)
    for number, identifier in enumerate(everything.entry_id):
        assert rows_of(book.entry(bytes(identifier))) == rows[number : number + 1]
    for identifier in (*everything.transfer_id[:4], NO_ID):
        assert len(book.entry(bytes(identifier))) == 0


def test_every_transfer_tells_its_lots(book: Book) -> None:
    """By the rows of lot moves; in spending order; as JSON with the entries, too."""
    everything = book.entries(0)
    with book._read() as connection:
        moved: dict[int, dict[bytes, tuple]] = {}
        for number, lot, *changes in connection.execute(text("SELECT * FROM lot_moves")):
            moved.setdefault(number, {})[bytes(lot)] = tuple(changes)
    first: dict[bytes, int] = {}
    for row in range(0, len(everything), 2):
        number = row // 2 + 1
        found = book.moves(bytes(everything.transfer_id[row]))
        assert {lot.lot_id: tuple(move[2:]) for lot, move in found} == moved.get(number, {})
        assert [lot for lot, _ in found] == sorted((lot for lot, _ in found), key=spending_key)
        begins = first.setdefault(bytes(everything.cause_id[row]), number)
        assert all(0 <= move.step <= number - begins for _, move in found)
        told = json.loads(everything.lots[row] or b"[]")
        assert {parse_id(lot): points for lot, _, points in told} == {
            lot: max(map(abs, changes[1:])) or abs(changes[0])
            for lot, changes in moved.get(number, {}).items()
        }
    assert book.moves(b"nobody knows it!") == []


def test_lots_of_an_entry_say_what_they_came_from(book: Book) -> None:
    adjusted = book.entries_of(name_id("order", "j"))
    assert [source for _, source, _ in json.loads(adjusted.lots[0])] == [
        id_text(name_id("order", "j"))
    ]
    given = book.entries_of(name_id("order", "t"))
    out, into = (json.loads(given.lots[row]) for row in (0, 2))
    assert [each[1:] for each in out] == [each[1:] for each in into], "of one origin"
    assert {each[0] for each in out}.isdisjoint(each[0] for each in into)


def test_what_is_owed_is_not_told_of_a_lot(book: Book) -> None:
    """30 of 40 are spent, 16 are taken back: 10 of them out of the lot."""
    fay = {"member": "fay", "event_ns": ns("2026-04-20")}
    where = {"cut": 5, "now_ns": ns("2026-05-01"), "run_id": RUN, "actor": "tests"}
    book.post_targets(target_batch([target("x", 40, "available", **fay)]), **where)
    order = ask("order", "ox", "fay", 30, "2026-04-21")
    assert book.post_commands(order, **where).tolist() == [Result.OK]
    book.post_targets(target_batch([target("x", 24, "available", fold=2, **fay)]), **where)
    taken = book.entries_of(name_id("conversion", "x")).slice(2, 6)
    assert taken.amount.tolist() == [10, -10, 6, -6]
    points = [[each[2] for each in json.loads(raw or b"[]")] for raw in taken.lots.to_list()]
    assert points == [[10], [10], [], []]


def test_causes_that_lie_far_apart_do_not_read_what_is_between(book: Book) -> None:
    seen: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, rows: Any, *_rest: Any) -> None:
        seen.append((statement, rows))

    event.listen(book._engine, "before_cursor_execute", note)
    book.entries_of(A)
    book.entries(0)
    event.remove(book._engine, "before_cursor_execute", note)
    of_cause, of_all = (statement for statement, _ in seen if "FROM lot_moves" in statement)
    assert "BETWEEN" not in of_cause
    assert "BETWEEN" in of_all


# Orders


def test_an_order_is_told_as_it_stands(book: Book) -> None:
    order = book.order(name_id("order", "r"))
    assert order is not None
    assert (order.points, order.committed, order.refunded, order.is_open) == (34, 30, 10, False)
    assert (order.item, order.quantity, order.redemption) == ("cup", 1, "service")
    assert order.number == 3
    assert order.hold_until_ns == EVENT_NS + 9000 * 10**9
    assert order.subscriber_id == ANN
    total = [(h.held, h.committed, h.refunded) for h in order.lots.values()]
    assert [sum(each) for each in zip(*total, strict=True)] == [0, 30, 10]
    plain = book.order(name_id("order", "o"))
    assert plain is not None
    assert (plain.committed, plain.redemption, plain.words) == (5, "gift", ("", "", "shop"))
    out = book.order(name_id("order", "r2"))
    assert out is not None
    assert (out.points, out.committed, out.is_open, out.number) == (4, 0, False, 2)


def test_what_is_no_order(book: Book) -> None:
    for name in ("o2", "j", "c", "nothing"):
        assert book.order(name_id("order", name)) is None, name
    assert book.order(A) is None


def test_an_open_order_holds_lots(book: Book) -> None:
    where = {"cut": 5, "now_ns": ns("2026-05-01"), "run_id": RUN, "actor": "tests"}
    there = {lot.lot_id: lot for lot in book.lots(ANN)}
    held = ask("reserve", "open", "ann", 5, "2026-03-21", hold_seconds=10**7)
    assert book.post_commands(held, **where).tolist() == [Result.OK]
    order = book.order(name_id("order", "open"))
    assert order is not None
    assert order.is_open
    assert sum(hold.held for hold in order.lots.values()) == 5
    for lot in book.lots(ANN):
        hold = order.lots.get(lot.lot_id)
        taken = there[lot.lot_id].remaining - lot.remaining
        assert (lot.held, taken) == ((hold.held, hold.held) if hold else (0, 0))


# Answers, and what waits


def test_answers_are_kept(book: Book) -> None:
    expected = {
        "r": Result.OK, "c": Result.OK, "o": Result.OK, "z": Result.OK,
        "o2": Result.INSUFFICIENT_POINTS, "j2": Result.AWAITING_APPROVAL, "nothing": None,
    }  # fmt: skip
    assert {name: book.request(name_id("order", name)) for name in expected} == expected
    found = book.settled(name_id("order", name) for name in expected)
    assert {identifier: each.result for identifier, each in found.items()} == {
        name_id("order", name): result for name, result in expected.items() if result is not None
    }
    assert {each.cut for each in found.values()} == {3}


def test_what_waits_is_told_in_the_order_of_its_time(book: Book) -> None:
    first, second = book.awaiting()
    assert (first.request_id, first.subscriber_id, first.points) == (
        name_id("order", "j1"), ANN, -500,
    )  # fmt: skip
    assert (first.kind, first.ref, first.actor, first.role) == ("adjust", "j1", "dan", "admin")
    assert (second.ref, second.points, second.event_ns) == ("j2", 700, EVENT_NS + HOUR_NS)
    assert (second.actor, second.role, second.scope) == ("cid", "call_centre", "")
    assert json.loads(second.body) == {"reason": "y"}


def test_what_was_decided_waits_no_more(book: Book) -> None:
    where = {"cut": 5, "now_ns": ns("2026-05-01"), "run_id": RUN, "actor": "tests"}
    before = book.member(BOB).available
    for kind, name in (("approve", "j2"), ("reject", "j1")):
        decision = ask(kind, f"for {name}", actor="eve", request=name)
        assert book.post_commands(decision, **where).tolist() == [Result.OK]
    assert book.awaiting() == []
    assert book.request(name_id("order", "j2")) == Result.OK
    assert book.request(name_id("order", "j1")) == Result.CLOSED_ORDER
    assert book.member(BOB).available == before + 700
    entries = book.entries_of(name_id("order", "j2"))
    assert entries.kind.to_list() == ["manual_adjust"] * 2
    assert entries.actor.to_list() == ["eve"] * 2, "by whom it was booked"
    assert set(entries.effective_ns.tolist()) == {EVENT_NS + HOUR_NS}, "when it was asked"
    assert book.audit() == []
