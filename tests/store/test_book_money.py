"""Statements of partners and the roll-forward of points, on either database."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import pytest
from sqlalchemy import Connection, text

from pipeline.store import book_money
from pipeline.store.book import Book
from pipeline.store.book_money import Line, PartnerPoints, Span, Statement
from tests.ledger.asking import ask
from tests.ledger.stories import DAY_NS, EVENT_NS, KEYS, BookDesk, ns, rulebook, target, tell

ZONE = "Europe/Berlin"
MARCH, APRIL, MAY = (Span.of_period(f"2026-0{month}", ZONE) for month in (3, 4, 5))


@pytest.fixture
def desk(url: str) -> Iterator[BookDesk]:
    made = BookDesk(url, rulebook(manual_limit=10**6))
    yield made
    assert made.book.audit() == []
    assert made.book.money.problems() == []
    made.book.close()


def of(book: Book, span: Span, partner: str = "acme-shop", currency: str = "EUR") -> Statement:
    """One statement of a span."""
    found = [row for row in book.money.statements(span, partner) if row.currency == currency]
    return found[0] if found else Statement(partner, currency, 0, *[Line()] * 4, 0)


def test_the_facts_example(desk: BookDesk) -> None:
    """Commissions 100.00, reversals 8.00: 92.00; points given worth 60.00: margin 32.00."""
    tell(
        desk,
        """
        cut | do     | what | member | state     | points | money         | result
        1   | target | a    | ann    | available |   6000 | 9200/6000/3200 | ok
        1   | target | b    | bob    | available |    500 |  800/500/300   | ok
        2   | target | b    | bob    | none      |      0 |                | ok
        3   | target | c    | ann    | pending   |     70 |                | ok
        """,
    )
    found = of(desk.book, MARCH)
    assert (found.confirmed, found.reversed) == (Line(2, 10000), Line(1, -800))
    assert (found.late, found.adjusted, found.carried_in) == (Line(), Line(), 0)
    assert (found.commissions, found.cost, found.margin) == (9200, 6000, 3200)
    assert found.carried_out == 9200
    assert desk.book.money.points(MARCH) == {"acme-shop": PartnerPoints(6000, 70)}


def test_what_comes_after_the_end_of_a_period_is_in_the_next(desk: BookDesk) -> None:
    desk.post([target("a", 40, "available", money="50/40/10")], cut=1)
    desk.post([target("b", 10, "available", money="20/10/10")], cut=1)
    desk.post([target("c", 90, "pending")], cut=1)
    march = desk.book.money.statements(MARCH), desk.book.money.points(MARCH)
    bought = ns("2026-04-05T12:00")
    desk.command(ask("close_period", "march", period="2026-03"), cut=35)
    desk.post([target("a", 24, "available", money="30/24/6", fold=35)], cut=35)  # smaller
    desk.post([target("b", 0, "none", fold=35)], cut=35)  # declined
    desk.post([target("c", 90, "available", money="99/90/9", fold=35)], cut=35)  # late
    desk.post([target("d", 5, "available", money="7/5/2", event_ns=bought, fold=36)], cut=36)
    assert march == (desk.book.money.statements(MARCH), desk.book.money.points(MARCH))
    found = of(desk.book, APRIL)
    assert found.carried_in == of(desk.book, MARCH).carried_out == 70
    assert (found.confirmed, found.late) == (Line(1, 7), Line(1, 99))
    assert (found.reversed, found.adjusted) == (Line(1, -20), Line(1, -20))
    assert found.carried_out == 70 + 7 + 99 - 20 - 20
    assert found.cost == 5 + 90 - 10 - 16
    assert desk.book.money.points(APRIL) == {"acme-shop": PartnerPoints(5 + 90 - 10 - 16, 0)}
    assert of(desk.book, MAY).carried_in == of(desk.book, MAY).carried_out == found.carried_out
    assert desk.book.money.closed("2026-03")
    assert not desk.book.money.closed("2026-04")
    assert desk.book.money.periods() == ["2026-03", "2026-04"]


def test_a_reversal_and_its_revival_stand_against_each_other(desk: BookDesk) -> None:
    for cut, state, points, money in (
        (1, "available", 40, "50/40/10"), (2, "none", 0, ""), (3, "pending", 40, ""),
        (4, "available", 40, "50/40/10"),
    ):  # fmt: skip
        desk.post([target("a", points, state, money=money, fold=cut)], cut=cut)
    found = of(desk.book, MARCH)
    assert (found.confirmed, found.reversed) == (Line(2, 100), Line(1, -50))
    assert found.carried_out == 50


def test_currencies_and_partners_stand_apart(desk: BookDesk) -> None:
    desk.post(
        [
            target("a", 1, "available", money="50/40/10"),
            target("b", 1, "available", money="70/40/30", currency="USD"),
            target("c", 1, "available", money="5/4/1", partner="other"),
            target("d", 1, "available", money="90/90/0", partner="other", member="bob"),
        ]
    )
    rows = desk.book.money.statements(MARCH)
    assert [(row.partner, row.currency, row.carried_out) for row in rows] == [
        ("acme-shop", "EUR", 50), ("acme-shop", "USD", 70), ("other", "EUR", 95),
    ]  # fmt: skip
    assert len(desk.book.money.statements(MARCH, "other")) == 1
    assert desk.book.money.statements(MARCH, "nobody") == []


def test_another_currency_is_a_reversal_and_a_confirmation(desk: BookDesk) -> None:
    desk.post([target("a", 1, "available", money="50/40/10")], cut=1)
    desk.post([target("a", 1, "available", money="60/40/20", currency="USD", fold=2)], cut=2)
    assert of(desk.book, MARCH).reversed == Line(1, -50)
    assert of(desk.book, MARCH, currency="USD").confirmed == Line(1, 60)


def test_points_that_cost_more_than_the_partner_pays(desk: BookDesk) -> None:
    """A margin below zero; and a receivable of nothing is nothing, whatever its points cost."""
    desk.post([target("a", 80, "available", money="50/80/-30")], cut=1)
    desk.post([target("b", 8, "available", money="0/8/-8")], cut=1)
    found = of(desk.book, MARCH)
    assert (found.confirmed, found.adjusted) == (Line(1, 50), Line(1, 0))
    assert (found.cost, found.margin) == (88, -38)


@pytest.mark.parametrize(("hours", "late"), [(-2, True), (-1, False), (0, False)])
def test_a_purchase_is_late_before_the_first_local_midnight(
    desk: BookDesk, hours: int, late: bool
) -> None:
    """In Berlin, March begins an hour before it does in UTC."""
    bought = EVENT_NS + hours * 3600 * 10**9 - (1 if late else 0)
    desk.post([target("a", 1, "available", money="5/4/1", event_ns=bought)], cut=1)
    found = of(desk.book, MARCH)
    assert (found.late.conversions, found.confirmed.conversions) == (int(late), int(not late))


def test_a_span_of_times_is_told_by_when_things_were_booked(desk: BookDesk) -> None:
    for cut in (1, 2, 3):
        desk.post([target(f"a{cut}", 1, "available", money="5/4/1", fold=cut)], cut=cut)
    second = EVENT_NS + 2 * DAY_NS
    found = of(desk.book, Span(second, second + DAY_NS))
    assert (found.carried_in, found.carried_out) == (5, 10)
    assert found.late == Line(1, 5)  # all were bought before
    assert of(desk.book, Span(second, second + DAY_NS + 1)).carried_out == 15


# Does the audit see it?


def test_a_posting_in_a_period_that_was_over_is_found(url: str) -> None:
    desk = BookDesk(url)
    desk.post([target("a", 1, "available", money="5/4/1")], cut=1)
    desk.post([target("b", 1, "available", money="5/4/1", fold=40)], cut=40)
    assert desk.book.money.problems() == []
    change(desk.book, "UPDATE bookings SET period = '2026-05' WHERE cut = 1")
    assert [p for p in desk.book.money.problems() if "which was over" in p]
    desk.book.close()


def test_statements_that_do_not_meet_are_found(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is carried out of each period is carried into the next, and is what its account had."""
    desk = BookDesk(url)
    for cut in range(1, 200, 31):
        desk.post([target(f"a{cut}", 1, "available", money="5/4/1", fold=cut)], cut=cut)
    assert len(desk.book.money.periods()) == 7
    assert desk.book.money.problems() == []
    real = book_money.statements

    def wrong(connection: Connection, span: Span) -> list[Statement]:
        rows = real(connection, span)
        return [row._replace(late=Line(1, 6)) for row in rows] if span.period[-1] == "8" else rows

    monkeypatch.setattr(book_money, "statements", wrong)
    assert desk.book.money.problems() == [
        "31 EUR of acme-shop are carried out of 2026-08, its account had 30 then",
        "30 EUR of acme-shop are carried into 2026-09, 31 were carried out of the period before",
    ]
    desk.book.close()


@pytest.mark.parametrize("account", ["partner:acme-shop:receivable", "margin:acme-shop"])
def test_a_balance_that_is_not_its_periods_is_found(url: str, account: str) -> None:
    desk = BookDesk(url)
    desk.post([target("a", 1, "available", money="5/4/1")], cut=1)
    change(desk.book, f"UPDATE accounts SET balance = balance + 1 WHERE account = '{account}'")
    (problem,) = desk.book.money.problems()
    assert account in problem
    desk.book.close()


def test_members_who_have_more_than_cohorts_are_found(url: str) -> None:
    desk = BookDesk(url)
    desk.post([target("a", 30, "available")], cut=1)
    change(desk.book, "UPDATE members SET available = available - 7")
    (problem,) = desk.book.money.problems()
    assert "30 points outstanding, members have 37" in problem
    desk.book.close()


def change(book: Book, statement: str) -> None:
    with book._write() as connection:
        connection.execute(text(statement))


# The promise of points

JANUARY_2028 = ns("2028-12-31T23:00")  # when points of 2026 lapse in Berlin


def test_every_way_in_and_out_has_its_column(desk: BookDesk) -> None:
    start = EVENT_NS + DAY_NS
    desk.post([target("a", 1000, "available"), target("b", 9, "pending")], cut=1)
    desk.command(ask("adjust", "old", "ann", 70, reason="late"), cut=1)
    desk.command(ask("order", "o", "ann", 300), cut=2)
    desk.command(ask("refund", "back", order="o", points=100), cut=2)
    desk.command(ask("reserve", "r", "ann", 50, hold_seconds=10**7), cut=2)
    desk.command(ask("transfer", "t", "ann", 20, to="bob"), cut=2)
    desk.command(ask("forfeit", "f", "ann", 5, reason="left"), cut=2)
    earned = ns("2024-02-03")
    desk.command(ask("migrate", "m", "ann", 40, earned=earned, expires=start + DAY_NS), cut=2)
    desk.post([target("a", 990, "available", fold=3)], cut=3)
    desk.due(start + 2 * DAY_NS, cut=4)
    end = EVENT_NS + 5 * DAY_NS
    found = desk.book.money.liability(start, end)
    by_month = {row.month: row for row in found.cohorts}
    march, old = by_month["2026-03"], by_month["2024-02"]
    assert (march.open, march.issued, march.spent, march.expired) == (1070, 0, -200, 0)
    assert (march.forfeited, march.transferred, march.adjusted) == (-5, 0, -10)
    assert (old.open, old.issued, old.expired, old.close) == (0, 40, -40, 0)
    assert found.open == 1070
    assert found.close == march.close == 855
    assert (found.pending, found.owed, found.ended) == (9, 0, 0)
    agree(desk.book, end)


def agree(book: Book, at_ns: int) -> None:
    """The roll-forward ends where the balance of that moment is."""
    found, wanted = book.money.liability(EVENT_NS, at_ns), book.liability_at(at_ns, at_ns)
    assert found.close == wanted.available + wanted.reserved
    assert (found.pending, found.owed) == (wanted.pending, wanted.debt)


def test_points_that_lapse_on_a_day_to_come(desk: BookDesk) -> None:
    desk.post([target("a", 100, "available")], cut=1)
    before, after = JANUARY_2028 - 1, JANUARY_2028
    agree(desk.book, before)
    agree(desk.book, after)
    (row,) = desk.book.money.liability(before, after).cohorts
    assert (row.open, row.expired, row.close) == (100, -100, 0)
    assert desk.book.money.liability(after, after + 1).cohorts == ()
    assert desk.book.money.liability(before, after).open == 100


def test_a_reservation_that_is_over_lapses_with_its_lot(desk: BookDesk) -> None:
    desk.post([target("a", 100, "available")], cut=1)
    hold = (JANUARY_2028 - EVENT_NS) // 10**9 - 3600
    at = JANUARY_2028 - hold * 10**9
    desk.command(ask("reserve", "r", "ann", 60, at, hold_seconds=hold + 10), cut=2)
    end = JANUARY_2028 + 60 * 10**9
    found = desk.book.money.liability(EVENT_NS + 5 * DAY_NS, end)
    assert (found.ended, found.close) == (-60, 0)
    agree(desk.book, end)
    later = desk.book.money.liability(end, end + DAY_NS)
    assert (later.ended_before, later.open, later.close) == (-60, 0, 0)


def test_a_late_correction_does_not_change_what_was_known(desk: BookDesk) -> None:
    """Nor does it move points to another month in a report of a time before it."""
    desk.post([target("a", 100, "available")], cut=1)
    end = EVENT_NS + 5 * DAY_NS
    before = desk.book.money.liability(EVENT_NS, end)
    desk.post([target("a", 60, "available", event_ns=ns("2026-01-07"), fold=9)], cut=9)
    assert desk.book.money.liability(EVENT_NS, end) == before
    now = desk.book.money.liability(end, EVENT_NS + 9 * DAY_NS)
    assert [(row.month, row.open, row.adjusted) for row in now.cohorts] == [("2026-01", 100, -40)]
    assert now.open == before.close


def test_what_is_spent_and_taken_back_is_owed(desk: BookDesk) -> None:
    desk.post([target("a", 100, "available")], cut=1)
    desk.command(ask("order", "o", "ann", 80), cut=2)
    desk.post([target("a", 0, "none", fold=3)], cut=3)
    desk.post([target("b", 50, "available", fold=4)], cut=4)
    end = EVENT_NS + 5 * DAY_NS
    found = desk.book.money.liability(EVENT_NS, end)
    (row,) = found.cohorts
    assert (row.issued, row.spent, row.adjusted, row.close) == (150, -80, -20 - 50, 0)
    assert found.owed == 30
    agree(desk.book, end)


def test_worth_is_at_the_price_of_issue(url: str) -> None:
    """10,000 points at 0.01, of which a fifth will lapse, are worth 80.00."""
    desk = BookDesk(url)
    desk.post([target("a", 10_000, "available")], cut=1)
    found = desk.book.money.liability(EVENT_NS, EVENT_NS + 2 * DAY_NS)
    assert found.worth(Fraction(1)) * (1 - Fraction(1, 5)) == 80
    dearer = rulebook(issue_price=Fraction(1, 50))
    desk.book.import_rulebook(dearer)
    desk.command(ask("migrate", "m", "bob", 100), cut=2)
    found = desk.book.money.liability(EVENT_NS, EVENT_NS + 2 * DAY_NS)
    assert found.worth(Fraction(1)) == 102
    assert [row.issue_price for row in found.cohorts] == ["1/100", "1/50"]
    desk.book.close()


def test_nothing_was_booked(url: str) -> None:
    book = Book(url, KEYS, rulebook())
    assert book.money.statements(MARCH) == []
    assert book.money.points(MARCH) == {}
    assert book.money.periods() == []
    assert book.money.problems() == []
    found = book.money.liability(EVENT_NS, EVENT_NS + DAY_NS)
    assert (found.cohorts, found.open, found.close, found.pending) == ((), 0, 0, 0)
    book.close()
