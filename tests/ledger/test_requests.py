"""Commands: the life of an order, the worked examples of expiry and refund, and every refusal.

Every story runs against the logic alone and against a book in SQLite, one command a transaction.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from pipeline.ledger.state import AMOUNT_MAX
from pipeline.rulebook.model import Exchange, Location, Rulebook
from tests.ledger.asking import ask, asked, say
from tests.ledger.stories import (
    DAY_NS,
    EVENT_NS,
    BookDesk,
    Desk,
    PureDesk,
    name_id,
    ns,
    rulebook,
    target,
)

HOUR_NS = 3600 * 10**9
PLACE = Location("programme.toml", 1, "exchange")


def made(kind: type[Desk], **programme: Any) -> Desk:
    return kind(book=rulebook(**programme))


@pytest.fixture(params=[PureDesk, BookDesk])
def kind(request: pytest.FixtureRequest) -> type[Desk]:
    return request.param


@pytest.fixture
def desk(kind: type[Desk]) -> Desk:
    return made(kind)


@pytest.fixture(autouse=True)
def sound(request: pytest.FixtureRequest) -> Any:
    """Whatever a test did, its book has nothing to say against itself."""
    books: list[BookDesk] = []
    before = BookDesk.__init__

    def note(self: BookDesk, *args: Any, **named: Any) -> None:
        before(self, *args, **named)
        books.append(self)

    BookDesk.__init__ = note  # type: ignore[method-assign]
    yield
    BookDesk.__init__ = before  # type: ignore[method-assign]
    for each in books:
        assert each.book.audit() == []
        each.book.close()


def earn(desk: Desk, what: str, points: int, member: str = "ann", at: str = "2026-03-01") -> None:
    assert desk.post([target(what, points, "available", member=member, event_ns=ns(at))], 0)


# The life of an order


def test_what_is_reserved_is_spent_or_let_go(desk: Desk) -> None:
    earn(desk, "a", 100)
    assert say(desk, "reserve", "r", "ann", 60) == "ok"
    assert desk.points("ann") == (0, 40, 60, 0)
    assert say(desk, "order", "o", "ann", 50) == "insufficient_points"
    assert say(desk, "commit", "c", points=45, order="r") == "ok"
    assert desk.points("ann") == (0, 55, 0, 0)
    assert desk.balances()["programme:redeemed:service", "PTS"] == -45
    assert say(desk, "commit", "c2", order="r") == "closed_order"
    assert say(desk, "release", "l", order="r") == "closed_order"
    assert say(desk, "reserve", "r2", "ann", 55, redemption="gift") == "ok"
    assert say(desk, "release", "l2", order="r2") == "ok"
    assert desk.points("ann") == (0, 55, 0, 0)


def test_commit_and_release_are_answered_once(desk: Desk) -> None:
    earn(desk, "a", 100)
    say(desk, "reserve", "r", "ann", 60)
    assert say(desk, "commit", "c", points=45, order="r") == "ok"
    assert say(desk, "commit", "c", points=45, order="r") == "exists"
    assert say(desk, "commit", "c", points=46, order="r") == "exists_with_different_points"
    assert say(desk, "reserve", "r", "ann", 60) == "exists"
    assert say(desk, "reserve", "x", "ann", 900) == "insufficient_points"
    earn(desk, "b", 1000)
    assert say(desk, "reserve", "x", "ann", 900) == "insufficient_points"
    assert say(desk, "commit", "y", order="x") == "unknown_order"
    assert say(desk, "commit", "z", points=-1, order="r") == "closed_order"


def test_a_reservation_ends_by_event_time(desk: Desk) -> None:
    """Not when the cut comes, but before the next command that is about the member then."""
    earn(desk, "a", 100)
    assert say(desk, "reserve", "r", "ann", 100, EVENT_NS, hold_seconds=3600) == "ok"
    assert say(desk, "order", "o1", "ann", 10, EVENT_NS + HOUR_NS - 1) == "insufficient_points"
    assert say(desk, "commit", "c", at=EVENT_NS + HOUR_NS, order="r") == "closed_order"
    assert desk.points("ann") == (0, 100, 0, 0)
    assert say(desk, "order", "o2", "ann", 10, EVENT_NS + HOUR_NS) == "ok"
    assert say(desk, "reserve", "r2", "ann", 90, EVENT_NS + 2 * HOUR_NS) == "ok"
    assert desk.due(EVENT_NS + 2 * HOUR_NS + 15 * 60 * 10**9 - 1) == (0, 0)
    assert desk.due(EVENT_NS + 2 * HOUR_NS + 15 * 60 * 10**9) == (1, 0)
    assert desk.points("ann") == (0, 90, 0, 0)


def test_reserved_points_do_not_lapse(desk: Desk) -> None:
    earn(desk, "a", 100, at="2024-03-05")
    year = ns("2026-12-31T22:59:59")
    assert say(desk, "reserve", "r", "ann", 60, year, hold_seconds=30 * 86_400) == "ok"
    assert desk.due(ns("2027-01-10")) == (0, 1)
    assert desk.points("ann") == (0, 0, 60, 0)
    assert say(desk, "commit", "c", points=50, at="2027-01-20", order="r") == "ok"
    assert desk.points("ann") == (0, 10, 0, 0)
    assert desk.due(ns("2027-01-20")) == (0, 1)
    assert desk.points("ann") == (0, 0, 0, 0)
    assert desk.balances()["programme:lapsed", "PTS"] == -50


def test_a_conversion_goes_while_its_points_are_held(desk: Desk) -> None:
    """The reservation keeps them: the member owes, and release pays the debt."""
    earn(desk, "a", 40)
    say(desk, "reserve", "r", "ann", 30)
    desk.post([target("a", 0, "none", fold=2)], 2)
    assert desk.points("ann") == (0, 0, 30, 30)
    assert say(desk, "release", "l", order="r") == "ok"
    assert desk.points("ann") == (0, 0, 0, 0)
    assert not desk.balances()
    earn(desk, "b", 40)
    say(desk, "reserve", "r2", "ann", 30)
    desk.post([target("b", 0, "none", fold=2)], 2)
    assert say(desk, "commit", "c", order="r2") == "ok"
    assert desk.points("ann") == (0, 0, 0, 30)


def test_what_finds_no_room_in_its_lot_goes_to_the_lot_that_stood_in(desk: Desk) -> None:
    earn(desk, "a", 40, at="2026-01-01")
    earn(desk, "b", 50, at="2026-02-01")
    say(desk, "reserve", "r", "ann", 40)
    desk.post([target("a", 0, "none", fold=2)], 2)
    assert desk.points("ann") == (0, 10, 40, 0)
    assert say(desk, "release", "l", order="r") == "ok"
    assert desk.points("ann") == (0, 50, 0, 0)
    assert desk.lots("ann") == {name_id("conversion", "b"): 50}


# Lots: the worked examples


def test_expiry_by_the_worked_example(kind: type[Desk]) -> None:
    """Lot A 100 earned 2024-03-05, lot B 50 earned 2025-02-01; 120 spent; 30 are left."""
    desk = made(kind)
    earn(desk, "A", 100, at="2024-03-05")
    earn(desk, "B", 50, at="2025-02-01")
    assert say(desk, "order", "o", "ann", 120, "2026-06-01") == "ok"
    assert desk.due(ns("2027-01-02")) == (0, 0)
    assert desk.points("ann") == (0, 30, 0, 0)
    assert desk.due(ns("2028-01-02")) == (0, 1)
    assert desk.points("ann") == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("refund", "usable"),
    [("grace(30d)", "2027-03-03T22:59:59"), ("original", ""), ("fresh", "2029-12-31T22:59:59")],
)
def test_refund_after_lapse_by_the_worked_example(
    kind: type[Desk], refund: str, usable: str
) -> None:
    desk = made(kind, refund=refund)
    earn(desk, "A", 100, at="2024-03-05")
    earn(desk, "B", 50, at="2025-02-01")
    say(desk, "order", "o", "ann", 120, "2026-06-01")
    assert say(desk, "refund", "f", at="2027-02-01", order="o") == "ok"
    assert desk.points("ann") == (0, 150, 0, 0)
    a, b = name_id("conversion", "A"), name_id("conversion", "B")
    assert desk.lots("ann") == {a: 100, b: 50}
    if not usable:
        assert desk.due(ns("2027-02-01")) == (0, 1)
        assert desk.points("ann") == (0, 50, 0, 0)
        return
    at_ns = ns(usable)
    assert say(desk, "order", "late", "ann", 101, at_ns + 10**9) in ("insufficient_points", "ok")
    assert desk.due(at_ns)[1] == (0 if refund.startswith("grace") else 1)
    assert desk.due(at_ns + 10**9)[1] == 1


def test_refund_in_parts_last_lots_first(desk: Desk) -> None:
    earn(desk, "A", 100, at="2024-03-05")
    earn(desk, "B", 50, at="2025-02-01")
    say(desk, "order", "o", "ann", 120, "2026-06-01")
    a, b = name_id("conversion", "A"), name_id("conversion", "B")
    assert say(desk, "refund", "f1", points=15, at="2026-06-02", order="o") == "ok"
    assert desk.lots("ann") == {b: 45}
    assert say(desk, "refund", "f2", points=15, at="2026-06-02", order="o") == "ok"
    assert desk.lots("ann") == {a: 10, b: 50}
    assert say(desk, "refund", "f3", points=91, at="2026-06-02", order="o") == "insufficient_points"
    assert say(desk, "refund", "f4", at="2026-06-02", order="o") == "ok"
    assert say(desk, "refund", "f5", at="2026-06-02", order="o") == "insufficient_points"
    assert desk.points("ann") == (0, 150, 0, 0)


def test_refund_pays_what_is_owed_first(desk: Desk) -> None:
    earn(desk, "a", 40)
    say(desk, "order", "o", "ann", 40)
    desk.post([target("a", 10, "available", fold=2)], 2)
    assert desk.points("ann") == (0, 0, 0, 30)
    assert say(desk, "refund", "f", order="o") == "ok"
    assert desk.points("ann") == (0, 10, 0, 0)
    assert desk.lots("ann") == {name_id("conversion", "a"): 10}


def test_only_what_was_spent_is_refunded(desk: Desk) -> None:
    earn(desk, "a", 40)
    say(desk, "reserve", "r", "ann", 40)
    assert say(desk, "refund", "f", order="r") == "not_committed"
    assert say(desk, "refund", "g", order="nothing") == "unknown_order"
    say(desk, "commit", "c", order="r")
    assert say(desk, "refund", "h", points=-5, order="r") == "not_positive"


def test_points_that_lapsed_unused_are_owed_by_nobody(desk: Desk) -> None:
    """A conversion that goes after its points lapsed takes them from the lapsed ones."""
    earn(desk, "a", 40, at="2024-03-05")
    say(desk, "order", "o", "ann", 15, "2026-03-05")
    assert desk.due(ns("2027-01-02")) == (0, 1)
    desk.post([target("a", 0, "none", fold=2)], 2)
    assert desk.points("ann") == (0, 0, 0, 15)
    assert ("programme:lapsed", "PTS") not in desk.balances()


def test_validity_by_activity_rewrites_no_lot(kind: type[Desk]) -> None:
    desk = made(kind, expiry="inactivity(12)")
    earn(desk, "a", 10, at="2025-01-10")
    earn(desk, "b", 10, at="2025-06-10")
    assert say(desk, "order", "o", "ann", 5, "2026-02-01") == "ok", "the second earning kept it"
    assert desk.due(ns("2027-02-01T22:59:59")) == (0, 0)
    assert desk.due(ns("2027-02-01T23:00:00")) == (0, 2)
    assert desk.points("ann") == (0, 0, 0, 0)


def test_an_activity_learned_late_brings_back_what_lapsed(kind: type[Desk]) -> None:
    desk = made(kind, expiry="inactivity(12)")
    earn(desk, "a", 10, at="2025-04-10")
    assert desk.due(ns("2026-04-11")) == (0, 1)
    earn(desk, "b", 7, at="2026-03-24")
    assert desk.points("ann") == (0, 17, 0, 0)
    earn(desk, "c", 1, member="bob", at="2025-04-10")
    assert desk.due(ns("2026-04-11")) == (0, 1)
    earn(desk, "d", 2, member="bob", at="2026-05-01")
    assert desk.points("bob") == (0, 2, 0, 0), "it lapsed before"


def test_what_had_run_out_does_not_come_alive_with_a_later_activity(kind: type[Desk]) -> None:
    """The outcome does not depend on whether a cut came between."""
    ends = []
    for between in (True, False):
        desk = made(kind, expiry="inactivity(1)")
        earn(desk, "a", 10, at="2026-04-01")
        if between:
            assert desk.due(ns("2026-05-10")) == (0, 1)
        earn(desk, "b", 5, at="2026-06-10")
        assert desk.points("ann") == (0, 5, 0, 0)
        assert say(desk, "order", "o", "ann", 1, "2026-06-20") == "ok"
        ends.append(desk.balances())
    assert ends[0] == ends[1]


@pytest.mark.parametrize("points", [3, 9])
def test_a_correction_is_no_activity(kind: type[Desk], points: int) -> None:
    """Not of the points, nor of the time: the lot is dated anew, and nothing else lives longer."""
    desk = made(kind, expiry="inactivity(12)")
    earn(desk, "a", 10, at="2025-01-10")
    earn(desk, "b", 7, at="2025-04-10")
    later = ns("2025-12-01")
    assert desk.post([target("b", points, "available", fold=2, event_ns=later)])
    assert desk.due(ns("2026-04-11")) == (0, 1)
    assert desk.lots("ann") == {name_id("conversion", "b"): points}
    assert desk.due(ns("2026-12-02")) == (0, 1)


def test_a_member_who_never_had_points_has_nothing_to_wait_for(kind: type[Desk]) -> None:
    desk = made(kind, waiting_ns=HOUR_NS)
    desk.post([target("a", 1, "pending")], 0)
    assert say(desk, "reserve", "r", "ann", 1) == "insufficient_points"


def test_points_of_a_campaign_have_a_fixed_date(kind: type[Desk]) -> None:
    desk = made(kind, expiry="fixed_date(2026-06-30)")
    earn(desk, "a", 10)
    assert say(desk, "order", "o", "ann", 3, "2026-06-30T21:59:59") == "ok"
    assert say(desk, "order", "p", "ann", 3, "2026-06-30T22:00:00") == "insufficient_points"


# Members, exchanges, people


def test_points_given_to_another_keep_their_dates(desk: Desk) -> None:
    earn(desk, "A", 100, at="2024-03-05")
    earn(desk, "B", 50, at="2025-02-01")
    assert say(desk, "transfer", "t", "ann", 120, "2026-06-01", to="bob") == "ok"
    assert desk.points("ann") == (0, 30, 0, 0)
    assert desk.points("bob") == (0, 120, 0, 0)
    assert desk.due(ns("2027-01-02")) == (0, 1)
    assert desk.points("bob") == (0, 20, 0, 0)
    for name, to, expected in (("u", "ann", "unknown_member"), ("v", "", "unknown_member")):
        assert say(desk, "transfer", name, "ann", 1, "2026-06-01", to=to) == expected
    assert say(desk, "transfer", "w", "cid", 1, "2026-06-01", to="bob") == "unknown_member"
    assert say(desk, "transfer", "x", "ann", 31, "2026-06-01", to="bob") == "insufficient_points"


def test_a_gift_of_points_pays_the_receivers_debt(desk: Desk) -> None:
    earn(desk, "a", 40)
    earn(desk, "b", 40, member="bob")
    say(desk, "order", "o", "bob", 40)
    desk.post([target("b", 0, "none", fold=2, member="bob")], 2)
    assert say(desk, "transfer", "t", "ann", 40, to="bob") == "ok"
    assert desk.points("bob") == (0, 0, 0, 0)


def exchanging() -> Rulebook:
    there = Exchange("miles", "MILES", Fraction(3, 7), Fraction(3, 2), PLACE)
    return rulebook(exchanges=(there, Exchange("shut", "X", Fraction(0), Fraction(1), PLACE)))


def test_an_exchange_rounds_down_and_keeps_the_rest(kind: type[Desk]) -> None:
    desk = kind(book=exchanging())
    earn(desk, "a", 100)
    assert say(desk, "convert_out", "x", "ann", 50, programme="miles") == "ok"
    assert desk.points("ann") == (0, 51, 0, 0), "21 miles are 49 points"
    balances = desk.balances()
    assert balances["exchange:miles:owed", "MILES"] == -21
    assert balances["programme:redeemed:exchange", "PTS"] == -49
    assert say(desk, "convert_in", "y", "bob", 7, programme="miles") == "ok"
    assert desk.points("bob") == (0, 10, 0, 0)
    assert desk.balances()["exchange:miles:owed_to_us", "MILES"] == 7
    for name, points, programme, expected in (
        ("1", 2, "miles", "not_positive"), ("2", 0, "miles", "not_positive"),
        ("3", 9, "none", "unknown_exchange"), ("4", 9, "shut", "unknown_exchange"),
        ("5", 99, "miles", "insufficient_points"),
    ):  # fmt: skip
        assert say(desk, "convert_out", name, "ann", points, programme=programme) == expected
    assert say(desk, "convert_in", "6", "", 9, programme="miles") == "unknown_member"


def test_points_by_hand_need_a_reason_and_above_a_limit_two_people(kind: type[Desk]) -> None:
    desk = made(kind, manual_limit=50)
    assert say(desk, "adjust", "1", "ann", 50) == "no_reason"
    assert say(desk, "adjust", "2", "ann", 50, reason="complaint 7") == "ok"
    assert say(desk, "adjust", "3", "ann", 51, reason="complaint 8") == "awaiting_approval"
    assert desk.points("ann") == (0, 50, 0, 0)
    assert say(desk, "approve", "4", actor="ann", request="3") == "same_person"
    assert say(desk, "approve", "5", actor="bob", request="nothing") == "unknown_request"
    assert say(desk, "adjust", "3", "ann", 51, reason="complaint 8") == "awaiting_approval"
    assert say(desk, "approve", "6", actor="bob", request="3") == "ok"
    assert desk.points("ann") == (0, 101, 0, 0)
    assert say(desk, "approve", "7", actor="cid", request="3") == "closed_order"
    assert say(desk, "adjust", "3", "ann", 51, reason="complaint 8") == "exists"
    assert say(desk, "adjust", "8", "ann", -60, reason="wrong") == "awaiting_approval"
    assert say(desk, "reject", "9", actor="bob", request="8") == "ok"
    assert say(desk, "approve", "10", actor="bob", request="8") == "closed_order"
    assert say(desk, "adjust", "11", "ann", -50, reason="wrong") == "ok"
    assert desk.points("ann") == (0, 51, 0, 0)
    assert say(desk, "adjust", "12", "bob", -1, reason="wrong") == "unknown_member"
    assert say(desk, "adjust", "13", "", 1, reason="wrong") == "unknown_member"
    assert say(desk, "adjust", "14", "ann", 0, reason="wrong") == "not_positive"
    assert say(desk, "adjust", "15", "ann", AMOUNT_MAX + 1, reason="wrong") == "overflow"


def test_an_approval_may_come_too_late(desk: Desk) -> None:
    earn(desk, "a", 40)
    assert say(desk, "adjust", "1", "ann", -30, reason="wrong") == "awaiting_approval"
    say(desk, "order", "o", "ann", 20)
    assert say(desk, "approve", "2", actor="bob", request="1") == "insufficient_points"
    assert say(desk, "adjust", "1", "ann", -30, reason="wrong") == "insufficient_points"


def test_imported_lots_keep_their_dates(desk: Desk) -> None:
    body = {"earned": ns("2023-05-01"), "expires": ns("2026-05-01")}
    assert say(desk, "migrate", "m1", "ann", 70, **body) == "ok"
    assert say(desk, "migrate", "m2", "ann", 30) == "ok"
    assert desk.points("ann") == (0, 100, 0, 0)
    assert desk.due(ns("2026-05-01")) == (0, 1)
    assert desk.points("ann") == (0, 30, 0, 0)
    assert say(desk, "migrate", "m3", "ann", 0) == "not_positive"
    assert say(desk, "migrate", "m4", "", 5) == "unknown_member"


def test_who_is_frozen_spends_nothing_at_that_time(desk: Desk) -> None:
    earn(desk, "a", 40)
    assert say(desk, "freeze", "f", "ann", at="2026-04-01") == "ok"
    assert say(desk, "order", "o1", "ann", 1, "2026-03-31") == "ok"
    assert say(desk, "order", "o2", "ann", 1, "2026-04-01") == "frozen"
    assert say(desk, "transfer", "t", "ann", 1, "2026-04-02", to="bob") == "frozen"
    assert say(desk, "unfreeze", "u", "ann", at="2026-05-01") == "ok"
    assert say(desk, "order", "o3", "ann", 1, "2026-04-30") == "frozen"
    assert say(desk, "order", "o4", "ann", 1, "2026-05-01") == "ok"
    earn(desk, "b", 5, at="2026-04-15")
    assert desk.points("ann") == (0, 43, 0, 0)
    assert say(desk, "freeze", "g") == "unknown_member"


def test_a_new_member_earns_at_once_and_spends_later(kind: type[Desk]) -> None:
    desk = made(kind, waiting_ns=180 * DAY_NS)
    earn(desk, "a", 40)
    assert say(desk, "order", "o1", "ann", 1, EVENT_NS + 180 * DAY_NS - 1) == "waiting_period"
    assert say(desk, "order", "o2", "ann", 1, EVENT_NS + 180 * DAY_NS) == "ok"


def test_who_leaves_forfeits(desk: Desk) -> None:
    earn(desk, "a", 40)
    say(desk, "reserve", "r", "ann", 10)
    assert say(desk, "forfeit", "1", "ann") == "no_reason"
    assert say(desk, "forfeit", "2", "ann", 31, reason="left") == "insufficient_points"
    assert say(desk, "forfeit", "3", "ann", 5, reason="fraud") == "ok"
    assert say(desk, "forfeit", "4", "ann", reason="left") == "ok"
    assert desk.points("ann") == (0, 0, 10, 0)
    assert say(desk, "forfeit", "5", "ann", reason="left") == "not_positive"
    assert say(desk, "forfeit", "6", "bob", reason="left") == "unknown_member"
    assert desk.balances()["programme:forfeited", "PTS"] == -30


def test_gifts_are_ordered_as_far_as_they_are_there(desk: Desk) -> None:
    earn(desk, "a", 100)
    assert say(desk, "order", "o0", "ann", 10, item="cup") == "out_of_stock"
    assert say(desk, "stock", "s", "", 3, item="cup") == "ok"
    assert say(desk, "reserve", "r", "ann", 10, item="cup", quantity=2) == "ok"
    assert say(desk, "order", "o1", "ann", 10, item="cup", quantity=2) == "out_of_stock"
    assert say(desk, "order", "o2", "ann", 10, item="cup") == "ok"
    assert say(desk, "release", "l", order="r") == "ok"
    assert say(desk, "stock", "s2", "", -3, item="cup") == "out_of_stock"
    assert say(desk, "stock", "s3", "", -2, item="cup") == "ok"
    assert say(desk, "stock", "s4", "", 0, item="cup") == "not_positive"
    stock = {at: n for (at, _), n in desk.balances().items() if at.startswith("stock")}
    assert stock == {"stock:cup:gone": 1, "stock:cup:supplied": -1}


def test_a_gift_is_free_again_when_its_reservation_ends_by_itself(desk: Desk) -> None:
    earn(desk, "a", 8)
    assert say(desk, "stock", "s", "", 1, item="mug") == "ok"
    assert say(desk, "reserve", "r", "ann", 1, item="mug") == "ok"
    assert say(desk, "reserve", "r2", "ann", 0, EVENT_NS + HOUR_NS) == "not_positive"
    stock = {at: n for (at, _), n in desk.balances().items() if at.startswith("stock")}
    assert stock == {"stock:mug:free": 1, "stock:mug:supplied": -1}
    assert desk.points("ann") == (0, 8, 0, 0)


def test_a_period_closes_when_it_is_over(desk: Desk) -> None:
    assert say(desk, "close_period", "p1", period="2026-03") == "period_open"
    assert say(desk, "close_period", "p2", period="2026-02") == "ok"
    assert say(desk, "close_period", "p3", period="2026-02") == "exists"
    for name, period in (("a", "2026-13"), ("b", "26-1"), ("c", ""), ("d", "2026-2")):
        assert say(desk, "close_period", name, period=period) == "period_open"


# What all spending is refused for


@pytest.mark.parametrize("kind_of", ["order", "reserve", "transfer"])
def test_spending_is_refused_by_name(desk: Desk, kind_of: str) -> None:
    earn(desk, "a", 40)
    body = {"to": "bob"} if kind_of == "transfer" else {}
    for ref, member, points, expected in (
        ("1", "ann", 0, "not_positive"), ("2", "ann", -1, "not_positive"),
        ("3", "cid", 1, "unknown_member"), ("4", "ann", 41, "insufficient_points"),
        ("5", "ann", AMOUNT_MAX + 1, "overflow"),
    ):  # fmt: skip
        assert say(desk, kind_of, ref, member, points, **body) == expected
    early = EVENT_NS - 1
    assert say(desk, kind_of, "6", "ann", 1, early, **body) == "insufficient_points"


def test_bodies_that_say_nothing_are_taken_for_what_they_lack(desk: Desk) -> None:
    earn(desk, "a", 40)
    odd = ask("order", "o", "ann", 1).with_columns()
    assert say(desk, "reserve", "r", "ann", 1, hold_seconds="soon", quantity=None) == "ok"
    assert say(desk, "commit", "c", order=5) == "unknown_order"
    assert say(desk, "adjust", "j", "ann", 1, reason=["\0"]) in ("awaiting_approval", "ok")
    assert asked(desk, odd) == ["ok"]


def test_a_whole_life_in_one_batch_is_as_in_many(kind: type[Desk]) -> None:
    ends = []
    for whole in (True, False):
        desk = made(kind, manual_limit=50)
        earn(desk, "A", 100, at="2024-03-05")
        earn(desk, "B", 50, at="2025-02-01")
        batches = [
            ask("reserve", "r", "ann", 120, "2026-06-01"),
            ask("commit", "c", points=110, at="2026-06-01", order="r"),
            ask("refund", "f", points=30, at="2027-02-01", order="r"),
            ask("transfer", "t", "ann", 20, "2027-02-02", to="bob"),
            ask("adjust", "j", "bob", 60, "2027-02-02", reason="x"),
            ask("approve", "k", at="2027-02-02", actor="bob", request="j"),
            ask("reserve", "s", "bob", 30, "2027-02-03", hold_seconds=60),
            ask("order", "o", "bob", 70, "2027-02-04"),
        ]
        if whole:
            answers = asked(desk, *batches)
        else:
            answers = [answer for batch in batches for answer in asked(desk, batch)]
        ends.append((answers, desk.balances(), desk.lots("ann"), desk.lots("bob")))
    assert ends[0] == ends[1]
    assert ends[0][0] == ["ok", "ok", "ok", "ok", "awaiting_approval", "ok", "ok", "ok"]
