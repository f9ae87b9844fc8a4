"""Posting targets: stories, the worked examples, and the ledger of coins as the naive twin.

Every story runs twice: against the posting logic alone, whose state stays in memory, and against a
book in SQLite, which reads and writes it for every request.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from pipeline.ledger.accounts import EntryKind
from pipeline.ledger.state import AMOUNT_MAX, FULL
from pipeline.model.words import Result
from tests.ledger.stories import (
    DAY_NS,
    EVENT_NS,
    BookDesk,
    Desk,
    PureDesk,
    name_id,
    order_batch,
    rulebook,
    target,
    tell,
)
from tests.naive.ledger import NaiveLedger


@pytest.fixture(params=[PureDesk, BookDesk])
def desk(request: pytest.FixtureRequest) -> Desk:
    return request.param()


STORIES = {
    "pending, confirmed in part, the rest returns": """
        cut | do     | what | member | state     | points | money    | result
        1   | target | a    | ann    | pending   |     40 |          | ok
        = ann 40 0 0 0
        2   | target | a    | ann    | available |     24 | 60/24/36 | ok
        = ann 0 24 0 0
    """,
    "confirmed for more than was pending": """
        cut | do     | what | member | state     | points | money | result
        1   | target | a    | ann    | pending   |     40 |       | ok
        2   | target | a    | ann    | available |     50 |       | ok
        = ann 0 50 0 0
    """,
    "a partial correction while pending: pending falls": """
        cut | do     | what | member | state   | points | money | result
        1   | target | a    | ann    | pending |     40 |       | ok
        2   | target | a    | ann    | pending |     24 |       | ok
        = ann 24 0 0 0
    """,
    "a partial correction after 30 of 40 were spent: 10 from the lot, 6 owed; then 10 earned": """
        cut | do     | what | member | state     | points | money | result
        1   | target | a    | ann    | available |     40 |       | ok
        2   | order  | o    | ann    |           |     30 |       | ok
        = ann 0 10 0 0
        3   | target | a    | ann    | available |     24 |       | ok
        = ann 0 0 0 6
        4   | target | b    | ann    | available |     10 |       | ok
        = ann 0 4 0 0
    """,
    "the correction is reversed: 16 come back, and clear the debt first": """
        cut | do     | what | member | state     | points | money | result
        1   | target | a    | ann    | available |     40 |       | ok
        2   | order  | o    | ann    |           |     30 |       | ok
        3   | target | a    | ann    | available |     24 |       | ok
        = ann 0 0 0 6
        4   | target | a    | ann    | available |     40 |       | ok
        = ann 0 10 0 0
    """,
    "declined while pending, approved again: a new generation": """
        cut | do     | what | member | state     | points | money    | result
        1   | target | a    | ann    | pending   |     40 |          | ok
        2   | target | a    | ann    | none      |      0 |          | ok
        = ann 0 0 0 0
        3   | target | a    | ann    | pending   |     40 |          | ok
        = ann 40 0 0 0
        4   | target | a    | ann    | available |     40 | 60/40/20 | ok
        = ann 0 40 0 0
    """,
    "declined after confirmation, with everything spent: all of it is owed": """
        cut | do     | what | member | state     | points | money | result
        1   | target | a    | ann    | available |     40 |       | ok
        2   | order  | o    | ann    |           |     40 |       | ok
        3   | target | a    | ann    | none      |      0 |       | ok
        = ann 0 0 0 40
        4   | target | a    | ann    | available |     40 |       | ok
        = ann 0 0 0 0
    """,
    "what the own lot lacks comes from the other lots, in spending order": """
        cut | do     | what | member | state     | points | event      | result
        1   | target | a    | ann    | available |     40 | 2026-01-10 | ok
        1   | target | b    | ann    | available |     30 | 2026-02-10 | ok
        2   | order  | o    | ann    |           |     35 | 2026-03-01 | ok
        = ann 0 35 0 0
        3   | target | a    | ann    | available |     10 | 2026-01-10 | ok
        = ann 0 5 0 0
    """,
    "back from available to pending is a reversal and a new wait": """
        cut | do     | what | member | state     | points | money    | result
        1   | target | a    | ann    | available |     40 | 60/40/20 | ok
        2   | target | a    | ann    | pending   |     40 |          | ok
        = ann 40 0 0 0
    """,
    "the conversion turns out to be somebody else's": """
        cut | do     | what | member | state     | points | money    | result
        1   | target | a    | ann    | available |     40 | 60/40/20 | ok
        2   | target | a    | bob    | available |     40 | 60/40/20 | ok
        = ann 0 0 0 0
        = bob 0 40 0 0
        3   | target | a    | ann    | pending   |     40 |          | ok
        = bob 0 0 0 0
        = ann 40 0 0 0
        4   | target | a    | bob    | pending   |     30 |          | ok
        = ann 0 0 0 0
        = bob 30 0 0 0
    """,
    "folds: lower is stale, equal exists, equal with other points is a mistake": """
        cut | do     | what | member | state     | points | fold | result
        5   | target | a    | ann    | available |     40 | 5    | ok
        6   | target | a    | ann    | available |     50 | 4    | stale
        6   | target | a    | ann    | available |     40 | 5    | exists
        6   | target | a    | ann    | available |     41 | 5    | exists_with_different_points
        6   | target | a    | ann    | pending   |     40 | 5    | exists_with_different_points
        6   | target | a    | bob    | available |     40 | 5    | exists_with_different_points
        = ann 0 40 0 0
    """,
    "a higher fold that says the same is remembered": """
        cut | do     | what | member | state     | points | fold | result
        1   | target | a    | ann    | available |     40 | 1    | ok
        3   | target | a    | ann    | available |     40 | 3    | exists
        4   | target | a    | ann    | available |     10 | 2    | stale
        = ann 0 40 0 0
    """,
    "the terms of the first rating hold, too": """
        cut | do     | what | member | state     | points | terms | book | result
        1   | target | a    | ann    | available |     40 | t1    | R1   | ok
        2   | target | a    | ann    | pending   |     40 | t2    | R2   | rule_version_pinned
        = ann 0 40 0 0
        2   | target | a    | ann    | available |     40 | t1    | R2   | exists
        3   | target | a    | ann    | available |     30 | t1    | R3   | ok
        4   | target | a    | ann    | available |     20 | t2    | R1   | ok
        5   | target | a    | ann    | available |     10 | t1    | R3   | rule_version_pinned
        = ann 0 20 0 0
    """,
    "a later rulebook that has no rule for it any more takes nothing back": """
        cut | do     | what | member | state     | points | rule | book | result
        1   | target | a    | ann    | available |     40 | r1   | R1   | ok
        2   | target | a    | ann    | none      |      0 | -    | R2   | rule_version_pinned
        = ann 0 40 0 0
        2   | target | a    | ann    | available |     40 | r1   | R1   | exists
        3   | target | a    | ann    | none      |      0 | -    | R1   | ok
        4   | target | a    | ann    | none      |      0 | -    | R2   | rule_version_pinned
        5   | target | a    | ann    | available |     40 | r1   | R1   | ok
    """,
    "within its rulebook the rule follows the facts": """
        cut | do     | what | member | state     | points | rule | book | result
        1   | target | a    | ann    | pending   |     40 | r2   | R1   | ok
        2   | target | a    | ann    | available |     70 | r1   | R1   | ok
        = ann 0 70 0 0
        3   | target | a    | ann    | available |     40 | r2   | R2   | rule_version_pinned
        4   | target | a    | ann    | available |     70 | r1   | R2   | exists
        5   | target | a    | ann    | available |     75 | r1   | R2   | ok
    """,
    "the rule of the first rating holds; what no rulebook rated needs none": """
        cut | do     | what | member | state     | points | rule | result
        1   | target | a    | ann    | none      |      0 | -    | ok
        2   | target | a    | ann    | pending   |     40 | r1   | ok
        3   | target | a    | ann    | available |     50 | r2   | rule_version_pinned
        = ann 40 0 0 0
        3   | target | a    | ann    | none      |      0 | -    | ok
        4   | target | a    | ann    | available |     50 | r2   | rule_version_pinned
        4   | target | a    | ann    | available |     40 | r1   | ok
        = ann 0 40 0 0
    """,
    "points of nobody and points below zero": """
        cut | do     | what | member | state     | points | result
        1   | target | a    | -      | available |     40 | unknown_member
        1   | target | b    | ann    | available |    -40 | not_positive
        1   | target | c    | -      | none      |      0 | ok
        = ann 0 0 0 0
    """,
    "money without points": """
        cut | do     | what | member | state     | points | money     | result
        1   | target | a    | -      | available |      0 | 100/0/100 | ok
        2   | target | a    | -      | available |      0 | 90/0/90   | ok
        2   | target | a    | -      | available |      0 | 80/0/80   | exists_with_different_points
    """,
}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_stories(desk: Desk, story: str) -> None:
    tell(desk, story)
    if isinstance(desk, BookDesk):
        assert desk.book.audit() == []


def test_money_is_cost_and_margin_and_moves_by_difference(desk: Desk) -> None:
    desk.post([target("a", 60, "available", money="10000/6000/4000")])
    desk.post([target("b", 40, "pending")])
    desk.post([target("a", 50, "available", fold=2, money="9200/5000/4200")], 2)
    assert desk.balances()["partner:acme-shop:receivable", "EUR"] == 9200
    assert desk.balances()["programme:cost_of_points", "EUR"] == -5000
    assert desk.balances()["margin:acme-shop", "EUR"] == -4200
    desk.post([target("a", 50, "available", fold=3, money="9000/5000/4000", currency="USD")], 3)
    money = {at: n for at, n in desk.balances().items() if at[1] in ("EUR", "USD")}
    assert {commodity for _, commodity in money} == {"USD"}
    desk.post([target("a", 0, "none", fold=4)], 4)
    assert not [at for at in desk.balances() if at[1] in ("EUR", "USD")]


def test_a_margin_may_be_below_zero(desk: Desk) -> None:
    desk.post([target("a", 60, "available", money="100/600/-500")])
    assert desk.balances()["margin:acme-shop", "EUR"] == 500


@pytest.mark.parametrize(
    "money", ["", f"{AMOUNT_MAX + 1}/0/{AMOUNT_MAX + 1}", f"0/{-AMOUNT_MAX - 1}/{AMOUNT_MAX + 1}"]
)
def test_overflow_is_an_answer_and_changes_nothing(desk: Desk, money: str) -> None:
    assert desk.post([target("a", AMOUNT_MAX, "available")]) == [Result.OK]
    before = desk.balances()
    points = 1 if money else AMOUNT_MAX + 1
    large = target("b", points, "available", member="bob", money=money)
    assert desk.post([large]) == [Result.OVERFLOW]
    order = order_batch([("o", "ann", AMOUNT_MAX + 1)])
    assert desk.command(order) == [Result.OVERFLOW]
    assert desk.balances() == before


def test_a_book_that_is_full_takes_nothing_more() -> None:
    """Long before a sum could run over: a batch cannot move more than what is left to the end."""
    desk = BookDesk()
    desk.post([target("a", 1, "available")])
    with desk.book._write() as connection:
        connection.execute(text("UPDATE accounts SET balance = :n"), {"n": FULL})
    assert desk.post([target("b", 1, "pending")]) == [Result.OVERFLOW]
    assert desk.order("o", "ann", 1, EVENT_NS) == Result.OVERFLOW
    assert desk.post([target("a", 1, "available")]) == [Result.EXISTS]


def test_a_lot_is_dated_by_the_newest_word(desk: Desk) -> None:
    """A lot does not depend on what was thought of its time before; nothing moves for it."""
    desk.post([target("a", 40, "available", event_ns=EVENT_NS)])
    desk.post([target("b", 40, "available", event_ns=EVENT_NS + DAY_NS)])
    later = target("a", 40, "available", fold=2, event_ns=EVENT_NS + 2 * DAY_NS)
    assert desk.post([later], 2) == [Result.EXISTS]
    order = order_batch([("o", "ann", 40)], EVENT_NS + 9 * DAY_NS)
    assert desk.command(order, 3) == [Result.OK]
    assert desk.lots("ann") == {name_id("conversion", "a"): 40}


def test_every_posting_names_its_way() -> None:
    desk = PureDesk()
    desk.post([target("a", 40, "pending"), target("a", 24, "available", fold=2, money="60/24/36")])
    desk.post([target("a", 0, "none", fold=3)._replace(click_id=bytes(16), visit_id=bytes(16))])
    kinds = [[EntryKind(t.kind) for t in posting.transfers] for posting in desk.postings]
    settled = [EntryKind.SETTLE] * 2
    assert kinds == [
        [EntryKind.EARN_PENDING],
        [EntryKind.CANCEL_PENDING, EntryKind.CONFIRM, *settled],
        [EntryKind.REVERSE, *settled],
    ]
    assert all(t.amount > 0 for posting in desk.postings for t in posting.transfers)
    assert {posting.cause.click_id for posting in desk.postings} == {name_id("click", "a")}
    assert desk.postings[-1].cause.origin.rule_version == name_id("rule", "r1")


# Against the ledger of coins

CONVERSIONS, MEMBERS = ("a", "b", "c"), ("ann", "bob")


@st.composite
def requests(draw: st.DrawFn) -> list[tuple]:
    """Targets and orders about few conversions and members; events never coincide."""
    made: list[tuple] = []
    for number in range(draw(st.integers(1, 14))):
        if draw(st.integers(0, 2)) == 0:
            ref = f"o{draw(st.integers(0, 5))}"
            at_ns = EVENT_NS + draw(st.sampled_from((0, 500, 500, 500, 1400))) * DAY_NS
            points = draw(st.integers(0, 30))
            made.append(("order", ref, draw(st.sampled_from(("ann", "ann", "bob"))), points, at_ns))
            continue
        what = draw(st.sampled_from(CONVERSIONS))
        state = draw(st.sampled_from(("none", "pending", "available", "available")))
        points = 0 if state == "none" else draw(st.integers(-1, 25))
        money = f"{points}/{points - 3}/3" if state == "available" and draw(st.booleans()) else ""
        days = 7 * draw(st.integers(-60, 60)) + CONVERSIONS.index(what)
        made.append(
            (
                "target",
                target(
                    what,
                    points,
                    state,
                    fold=max(1, number - draw(st.sampled_from((0, 0, 0, 0, 1, 3)))),
                    member=draw(st.sampled_from(("ann",) * 6 + ("bob", "-"))),
                    money=money,
                    event_ns=EVENT_NS + days * DAY_NS + number,
                    rule=draw(st.sampled_from(("r1",) * 9 + ("r2", "-")))
                    if state == "none"
                    else draw(st.sampled_from(("r1",) * 9 + ("r2",))),
                    terms=draw(st.sampled_from(("t1",) * 6 + ("t2",))),
                    book=draw(st.sampled_from(("R1",) * 3 + ("R2",))),
                ),
            )
        )
    return made


def run_both(desk: Desk, made: list[tuple]) -> None:
    naive = NaiveLedger()
    for request in made:
        if request[0] == "order":
            _, ref, member, points, at_ns = request
            expected = naive.order(name_id("order", ref), name_id("member", member), points, at_ns)
            assert desk.command(order_batch([(ref, member, points)], at_ns)) == [expected], request
        else:
            assert desk.post([request[1]]) == [naive.target(request[1])], request
        for member in MEMBERS:
            identity = name_id("member", member)
            assert desk.points(member) == naive.points(identity), request
            assert desk.lots(member) == naive.lots(identity), request
    balances = desk.balances()
    assert balances.get(("programme:issued", "PTS"), 0) == naive.issued()
    assert {at: n for at, n in balances.items() if at[1] == "EUR"} == naive.money()


@given(requests())
def test_the_logic_equals_the_ledger_of_coins(made: list[tuple]) -> None:
    run_both(PureDesk(rulebook(timezone="UTC")), made)


@pytest.mark.slow
@given(requests())
def test_the_book_equals_the_ledger_of_coins(made: list[tuple]) -> None:
    desk = BookDesk(book=rulebook(timezone="UTC"))
    run_both(desk, made)
    assert desk.book.audit() == []
    desk.book.close()
