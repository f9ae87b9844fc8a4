"""Orders: points are spent once, in spending order, and each step of an order's life is a posting.

What commands are answered, and the worked examples of refunds, stand in `test_requests.py`.
"""

from __future__ import annotations

import pytest

from pipeline.ledger.accounts import AVAILABLE, RESERVED, EntryKind
from pipeline.ledger.transfers import Posting
from pipeline.model.words import Result
from tests.ledger.asking import ask, say
from tests.ledger.stories import (
    DAY_NS,
    EVENT_NS,
    BookDesk,
    Desk,
    PureDesk,
    name_id,
    ns,
    order_batch,
    rulebook,
    target,
    tell,
)

STORIES = {
    "spent once, whoever asks again": """
        cut | do     | what | member | state     | points | result
        1   | target | a    | ann    | available |     40 | ok
        2   | order  | o    | ann    |           |     30 | ok
        2   | order  | o    | ann    |           |     30 | exists
        3   | order  | o    | ann    |           |     31 | exists_with_different_points
        3   | order  | o    | bob    |           |     30 | exists_with_different_points
        = ann 0 10 0 0
    """,
    "a refusal stays a refusal, under a new reference it is asked anew": """
        cut | do     | what | member | state     | points | result
        1   | target | a    | ann    | available |     10 | ok
        2   | order  | o    | ann    |           |     30 | insufficient_points
        3   | target | b    | ann    | available |     50 | ok
        4   | order  | o    | ann    |           |     30 | insufficient_points
        4   | order  | p    | ann    |           |     30 | ok
        = ann 0 30 0 0
    """,
    "nothing, less than nothing, and a stranger": """
        cut | do     | what | member | state     | points | result
        1   | target | a    | ann    | available |     10 | ok
        2   | order  | o    | ann    |           |      0 | not_positive
        2   | order  | p    | ann    |           |     -5 | not_positive
        2   | order  | q    | bob    |           |      5 | unknown_member
        = ann 0 10 0 0
        = bob 0 0 0 0
    """,
    "pending points cannot be spent": """
        cut | do     | what | member | state     | points | result
        1   | target | a    | ann    | pending   |     10 | ok
        2   | order  | o    | ann    |           |      1 | insufficient_points
        = ann 10 0 0 0
    """,
    "points that have lapsed, or were not there yet, do not count": """
        cut | do     | what | member | state     | points | event      | result
        1   | target | a    | ann    | available |     10 | 2024-03-05 | ok
        1   | target | b    | ann    | available |     10 | 2025-02-01 | ok
        2   | order  | o    | ann    |           |     11 | 2027-01-10 | insufficient_points
        2   | order  | p    | ann    |           |     10 | 2027-01-10 | ok
        2   | order  | q    | ann    |           |     10 | 2024-03-04 | insufficient_points
        = ann 0 10 0 0
    """,
}


@pytest.fixture(params=[PureDesk, BookDesk])
def desk(request: pytest.FixtureRequest) -> Desk:
    return request.param()


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_stories(desk: Desk, story: str) -> None:
    tell(desk, story)
    if isinstance(desk, BookDesk):
        assert desk.book.audit() == []


def test_the_nearest_expiry_goes_first(desk: Desk) -> None:
    """The worked example: A 100 earned 2024-03-05, B 50 earned 2025-02-01; 120 on 2026-06-01."""
    desk.post([target("B", 50, "available", event_ns=ns("2025-02-01"))])
    desk.post([target("A", 100, "available", event_ns=ns("2024-03-05"))])
    assert desk.command(order_batch([("o", "ann", 120)], ns("2026-06-01"))) == [Result.OK]
    assert desk.lots("ann") == {name_id("conversion", "B"): 30}


def test_points_go_where_the_order_says(desk: Desk) -> None:
    desk.post([target("a", 40, "available")])
    for number, kind in enumerate(("service", "gift", "gift", "moon")):
        assert say(desk, "order", str(number), "ann", 5, redemption=kind) == "ok"
    spent = {a: n for (a, _), n in desk.balances().items() if a.startswith("programme:redeemed")}
    assert spent == {
        "programme:redeemed:service": -5,
        "programme:redeemed:gift": -10,
        "programme:redeemed:other": -5,
    }


# What is booked


def steps(posting: Posting) -> list[tuple[str, int]]:
    return [(EntryKind(t.kind).name.lower(), t.amount) for t in posting.transfers]


def moved(posting: Posting) -> list[tuple[int, int, int]]:
    """Step, and what it did to free and held points, of every lot move."""
    return [(move.step, move.remaining, move.held) for move in posting.moves]


def test_an_order_is_reserved_and_committed_at_once() -> None:
    desk = PureDesk()
    desk.post([target("a", 40, "available")])
    desk.command(order_batch([("o", "ann", 30)], EVENT_NS + DAY_NS))
    posting = desk.postings[-1]
    assert steps(posting) == [("reserve", 30), ("commit", 30)]
    assert moved(posting) == [(0, -30, 30), (1, 0, -30)]
    assert posting.cause.origin.cause_kind == "order"
    assert (posting.cause.version, posting.cause.effective_ns) == (1, EVENT_NS + DAY_NS)
    member = desk.state.members[name_id("member", "ann")]
    first, second = posting.transfers
    assert (first.debit, first.credit) == (member.account(AVAILABLE), member.account(RESERVED))
    assert second.debit == member.account(RESERVED)


def test_every_step_of_an_order_is_about_the_order() -> None:
    desk = PureDesk()
    desk.post([target("a", 40, "available")])
    desk.command(ask("stock", "s", points=5, item="cup"))
    later = EVENT_NS + DAY_NS // 100
    for batch in (
        ask("reserve", "r", "ann", 30, item="cup", quantity=2, hold_seconds=3600),
        ask("commit", "c", points=20, at=later, order="r"),
        ask("refund", "f", points=5, at=later, order="r"),
    ):
        assert desk.command(batch) == [Result.OK]
    life = [posting for posting in desk.postings if posting.cause.id == name_id("order", "r")]
    assert [steps(posting) for posting in life] == [
        [("reserve", 30), ("stock", 2)],
        [("commit", 20), ("stock", 2), ("release", 10)],
        [("refund", 5)],
    ]
    assert [moved(posting) for posting in life] == [
        [(0, -30, 30)],
        [(0, 0, -20), (2, 10, -10)],
        [(0, 5, 0)],
    ]
    assert [posting.cause.version for posting in life] == [1, 2, 3]
    order = desk.state.orders[name_id("order", "r")]
    assert (order.number, order.committed, order.refunded, order.is_open) == (3, 20, 5, False)
    assert [(h.held, h.committed, h.refunded) for h in order.lots.values()] == [(0, 20, 5)]


def test_a_time_out_is_effective_when_the_time_was_over() -> None:
    """And two of them come in the order of their times, then of their ids."""
    desk = PureDesk()
    desk.post([target("a", 40, "available")])
    for ref, seconds in (("r1", 300), ("r2", 200), ("r3", 300)):
        assert say(desk, "reserve", ref, "ann", 10, hold_seconds=seconds) == "ok"
    assert say(desk, "order", "o", "ann", 40, EVENT_NS + DAY_NS) == "ok"
    outs = [p for p in desk.postings if [kind for kind, _ in steps(p)] == ["release"]]
    tied = sorted(name_id("order", ref) for ref in ("r1", "r3"))
    assert [p.cause.id for p in outs] == [name_id("order", "r2"), *tied]
    assert [p.cause.effective_ns - EVENT_NS for p in outs] == [200 * 10**9, *[300 * 10**9] * 2]


@pytest.mark.parametrize(
    ("hold", "asked", "seconds"),
    [(900, 0, 900), (900, -5, 900), (60, 0, 60), (900, 10**12, 366 * 86_400)],
)
def test_how_long_a_reservation_holds(hold: int, asked: int, seconds: int) -> None:
    desk = PureDesk(rulebook(hold_ns=hold * 10**9))
    desk.post([target("a", 40, "available")])
    assert say(desk, "reserve", "r", "ann", 10, hold_seconds=asked) == "ok"
    assert desk.state.orders[name_id("order", "r")].hold_until_ns == EVENT_NS + seconds * 10**9


@pytest.mark.parametrize("quantity", [0, -3, None, "many"])
def test_a_gift_is_at_least_one(desk: Desk, quantity: object) -> None:
    desk.post([target("a", 40, "available")])
    desk.command(ask("stock", "s", points=1, item="cup"))
    assert say(desk, "order", "o", "ann", 10, item="cup", quantity=quantity) == "ok"
    assert say(desk, "order", "p", "ann", 10, item="cup") == "out_of_stock"
