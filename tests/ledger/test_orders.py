"""Orders: points are spent once, in spending order, and an answer is final."""

from __future__ import annotations

import pytest

from pipeline.ledger.orders import post_order
from pipeline.ledger.targets import Order
from pipeline.model.money import INT64_MAX
from pipeline.model.words import Result
from tests.ledger.stories import (
    DAY_NS,
    EVENT_NS,
    BookDesk,
    Desk,
    PureDesk,
    name_id,
    ns,
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
    assert desk.order("o", "ann", 120, ns("2026-06-01")) == Result.OK
    assert desk.lots("ann") == {name_id("conversion", "B"): 30}


def test_points_go_where_the_order_says() -> None:
    desk = PureDesk()
    desk.post([target("a", 40, "available")])
    for number, kind in enumerate(("service", "gift", "gift", "moon")):
        order = Order(
            bytes([number]) * 16, "", name_id("member", "ann"), 5, EVENT_NS, kind, "", "", ""
        )
        assert post_order(desk.state, order).result == Result.OK
    spent = {a: n for (a, _), n in desk.balances().items() if a.startswith("programme:redeemed")}
    assert spent == {
        "programme:redeemed:service": -5,
        "programme:redeemed:gift": -10,
        "programme:redeemed:other": -5,
    }


def test_an_order_is_reserved_and_committed_at_once() -> None:
    desk = PureDesk()
    desk.post([target("a", 40, "available")])
    desk.order("o", "ann", 30, EVENT_NS + DAY_NS)
    posting = desk.postings[-1]
    assert [t.kind for t in posting.transfers] == ["reserve", "commit"]
    assert [len(t.moves) for t in posting.transfers] == [0, 1]
    assert posting.cause is not None
    assert (posting.cause.kind, posting.cause.effective_ns) == ("order", EVENT_NS + DAY_NS)


def test_redemptions_may_not_outgrow_64_bits(desk: Desk) -> None:
    """Issued, spent, taken back as debt, issued again: redeemed would pass the largest number."""
    desk.post([target("a", INT64_MAX, "available")])
    assert desk.order("o", "ann", INT64_MAX, EVENT_NS) == Result.OK
    desk.post([target("a", 0, "none", fold=2)], 2)
    desk.post([target("b", 5, "available", member="bob")], 2)
    assert desk.order("p", "bob", 5, EVENT_NS) == Result.OVERFLOW
    assert desk.points("bob") == (0, 5, 0, 0)
    assert desk.points("ann") == (0, 0, 0, INT64_MAX)
