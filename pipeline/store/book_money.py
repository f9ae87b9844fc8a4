"""Statements of the partners' money: a fold of transfers, by the period they were booked in.

A conversion's money is booked with its points (`settle`): the receivable of its partner, which is
the cost of the points and the margin. A statement of a partner in a currency tells how the
receivable came from what was carried in to what is carried out:

    confirmed    a conversion whose receivable was nothing has one, bought in this span
    late         the same, bought before it
    reversed     a conversion has none any more
    adjusted     one became larger or smaller

`Span` chooses bookings, by their accounting period or by the time they were booked at. What is
booked later, also about a purchase of long ago, is booked in a later period: so the statement of a
period that is over never changes, and what is carried out of it is what is carried into the next.
`problems` checks that, and that all periods together come to the accounts' balances (invariant 8).

Points stand beside: those given in the span (issued and no longer pending), and those that were
pending at its end.

Measured by `tests/bench/money.py` on two busy cores, in a SQLite book of a million conversions: the
statements of a month 8 s, points by partner 3 s, the liability 6 s, the audit of all this 23 s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, and_, case, func, literal, select

from pipeline.ledger.accounts import BUCKETS, ISSUED, EntryKind
from pipeline.ledger.terms import next_period, period_start_ns
from pipeline.ledger.transfers import CONVERSION
from pipeline.rulebook.model import Programme
from pipeline.store import book_schema as tables
from pipeline.store.book_liability import Liability, liability, outstanding_problems
from pipeline.store.book_schema import Session

RECEIVABLE = "partner:%:receivable"
CARRIED, CONFIRMED, LATE, REVERSED, ADJUSTED = range(5)
PERIODS_AUDITED = 3
MONEY_ACCOUNTS = (RECEIVABLE, "programme:cost_of_points", "margin:%")


class Span(NamedTuple):
    """Which bookings: of one accounting period, or (no period) booked from one time up to another.

    `from_ns` is also what tells a late confirmation: its purchase was before.
    """

    from_ns: int
    to_ns: int
    period: str = ""

    @classmethod
    def of_period(cls, period: str, timezone: str) -> Span:
        """The bookings of an accounting period, `YYYY-MM`."""
        begins = period_start_ns(period, timezone)
        return cls(begins, period_start_ns(next_period(period), timezone), period)


class Line(NamedTuple):
    """So many conversions, and what they came to in smallest units of a currency."""

    conversions: int = 0
    amount: int = 0


class Statement(NamedTuple):
    """One partner's receivable in one currency; cost and margin are what it was made of.

    `cost` and `margin` are those of the span; what is reversed counts below zero.
    """

    partner: str
    currency: str
    carried_in: int
    confirmed: Line
    late: Line
    reversed: Line
    adjusted: Line
    cost: int

    @property
    def commissions(self) -> int:
        """How much the receivable changed."""
        return sum(x.amount for x in (self.confirmed, self.late, self.reversed, self.adjusted))

    @property
    def carried_out(self) -> int:
        """What the partner owes in the end."""
        return self.carried_in + self.commissions

    @property
    def margin(self) -> int:
        """What is left of the commissions behind the points."""
        return self.commissions - self.cost


class PartnerPoints(NamedTuple):
    """Points for one partner's conversions: given in the span, and pending at its end."""

    given: int
    pending: int


class Money:
    """What a book says of money and of the worth of points; `programme` is the one in force."""

    def __init__(self, read: Session, programme: Callable[[], Programme]) -> None:
        self._read, self._programme = read, programme

    def periods(self) -> list[str]:
        """Accounting periods that something was booked in, in their order."""
        with self._read() as connection:
            return _periods(connection)

    def closed(self, period: str) -> bool:
        """Was an accounting period closed?"""
        t = tables.periods
        with self._read() as connection:
            found = connection.execute(select(t.c.period).where(t.c.period == period)).first()
        return found is not None

    def statements(self, span: Span, partner: str = "") -> list[Statement]:
        """A statement for each partner and currency that has ever had money, or of one partner."""
        with self._read() as connection:
            found = statements(connection, span)
        return [row for row in found if partner in ("", row.partner)]

    def points(self, span: Span) -> dict[str, PartnerPoints]:
        """Points by partner."""
        with self._read() as connection:
            return points_of(connection, span)

    def liability(self, from_ns: int, to_ns: int) -> Liability:
        """How the promise of points became what it is; see `book_liability`."""
        with self._read() as connection:
            return liability(connection, self._programme(), from_ns, to_ns)

    def owing(self) -> dict[bytes, int]:
        """Members who owe points, and how many."""
        t = tables.members
        query = select(t.c.subscriber_id, t.c.debt).where(t.c.debt > 0)
        with self._read() as connection:
            return {row.subscriber_id: row.debt for row in connection.execute(query)}

    def problems(self) -> list[str]:
        """A sentence for each way in which reports are not what the accounts are."""
        with self._read() as connection:
            found = [*_out_of_order(connection), *_unlike_balances(connection, self._programme())]
            return [*found, *outstanding_problems(connection, self._programme())]


def statements(connection: Connection, span: Span) -> list[Statement]:
    """All statements of a span, by partner and currency."""
    accounts = _receivables(connection)
    sums: dict[int, list[list[int]]] = {at: [[0] * 3 for _ in range(5)] for at in accounts}
    for account, line, count, amount, cost in connection.execute(_lines(span)):
        sums[account][line] = [int(count), int(amount), int(cost)]
    found = []
    for account, (partner, currency) in accounts.items():
        carried, *lines = sums[account]
        if any(map(any, sums[account])):
            parts = [Line(*line[:2]) for line in lines]
            cost = sum(line[2] for line in lines)
            new, late, back, other = parts
            found.append(Statement(partner, currency, carried[1], new, late, back, other, cost))
    return sorted(found)


def _receivables(connection: Connection) -> dict[int, tuple[str, str]]:
    """Partner and currency by the number of their account."""
    t = tables.accounts
    query = select(t.c.account_id, t.c.account, t.c.commodity).where(t.c.account.like(RECEIVABLE))
    return {row[0]: (row[1].split(":")[1], row[2]) for row in connection.execute(query)}


def _lines(span: Span) -> Select[Any]:
    """Account, line, conversions, receivable and cost."""
    moves = _moves(span).subquery()
    m = moves.c
    after = func.sum(m.change).over(
        partition_by=(m.cause_id, m.receivable), order_by=m.posting_number
    )
    run = select(*m, after.label("after")).subquery().c
    line = case(
        (run.earlier == 1, CARRIED),
        (run.change == 0, ADJUSTED),
        (and_(run.after == run.change, run.effective_ns >= span.from_ns), CONFIRMED),
        (run.after == run.change, LATE),
        (run.after == 0, REVERSED),
        else_=ADJUSTED,
    ).label("line")
    return select(
        run.receivable, line, func.count(), func.sum(run.change), func.sum(run.cost)
    ).group_by(run.receivable, line)


def _moves(span: Span) -> Select[Any]:
    """What each posting did to a receivable, up to the end of a span."""
    t, p, b = tables.transfers, tables.postings, tables.bookings
    debit = tables.accounts.alias("debit")
    credit = tables.accounts.alias("credit")
    owes = debit.c.account.like(RECEIVABLE)
    change = case((owes, t.c.amount), else_=-t.c.amount)
    other = case((owes, credit.c.account), else_=debit.c.account)
    is_cost = other == MONEY_ACCOUNTS[1]
    receivable = case((owes, t.c.debit), else_=t.c.credit).label("receivable")
    return (
        select(
            p.c.posting_number, p.c.cause_id, p.c.effective_ns, receivable,
            _earlier(span).label("earlier"), func.sum(change).label("change"),
            func.sum(case((is_cost, change), else_=0)).label("cost"),
        )
        .select_from(t)
        .join(p, p.c.posting_number == t.c.posting_number)
        .join(b, b.c.booking_id == p.c.booking_id)
        .join(debit, debit.c.account_id == t.c.debit)
        .join(credit, credit.c.account_id == t.c.credit)
        .where(t.c.kind == int(EntryKind.SETTLE), _until(span))
        .group_by(p.c.posting_number, p.c.cause_id, p.c.effective_ns, receivable, "earlier")
    )  # fmt: skip


def _earlier(span: Span) -> Any:
    """1 of a booking before the span, 0 of one in it."""
    b = tables.bookings
    before = b.c.period < span.period if span.period else b.c.booked_ns < span.from_ns
    return case((before, 1), else_=0)


def _until(span: Span) -> Any:
    b = tables.bookings
    return b.c.period <= span.period if span.period else b.c.booked_ns < span.to_ns


def points_of(connection: Connection, span: Span) -> dict[str, PartnerPoints]:
    """Points given for each partner's conversions, and pending."""
    t, p, b, o = tables.transfers, tables.postings, tables.bookings, tables.origins
    issued = _issued(connection)
    given = case((t.c.debit == issued, t.c.amount), (t.c.credit == issued, -t.c.amount), else_=0)
    waits = [and_(side > 0, side % BUCKETS == 0) for side in (t.c.debit, t.c.credit)]
    pending = case((waits[1], t.c.amount), (waits[0], -t.c.amount), else_=0)
    earlier = _earlier(span).label("earlier")
    query = (
        select(o.c.partner, earlier, func.sum(given), func.sum(pending))
        .select_from(t)
        .join(p, p.c.posting_number == t.c.posting_number)
        .join(b, b.c.booking_id == p.c.booking_id)
        .join(o, o.c.origin_id == p.c.origin_id)
        .where(o.c.cause_kind == CONVERSION, _until(span))
        .group_by(o.c.partner, earlier)
    )
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for partner, before, issues, waiting in connection.execute(query):
        found[partner][1] += int(waiting)
        if not before:
            found[partner][0] += int(issues) - int(waiting)
    return {partner: PartnerPoints(*found[partner]) for partner in sorted(found)}


def _issued(connection: Connection) -> int:
    t = tables.accounts
    found = connection.execute(select(t.c.account_id).where(t.c.account == ISSUED)).scalar()
    return int(found or 0)


# Checks


def _periods(connection: Connection) -> list[str]:
    t = tables.bookings
    rows = connection.execute(select(t.c.period).distinct().order_by(t.c.period))
    return [row[0] for row in rows]


def _out_of_order(connection: Connection) -> Iterable[str]:
    """Nothing may be booked in a period after something was booked in a later one."""
    p, b = tables.postings, tables.bookings
    number = p.c.posting_number
    query = (
        select(b.c.period, func.min(number), func.max(number))
        .join(b, b.c.booking_id == p.c.booking_id)
        .group_by(b.c.period)
        .order_by(b.c.period)
    )
    last = 0
    for period, first, newest in connection.execute(query):
        if first < last:
            yield f"posting {first} is in period {period}, which was over: its statement changed"
        last = max(last, newest)


def _unlike_balances(connection: Connection, programme: Programme) -> Iterable[str]:
    """What periods come to, by their statements and by their transfers, against the balances.

    Statements are made of the last periods only: what was booked in those before does not change.
    """
    t = tables.accounts
    wanted = {
        row.account_id: row
        for pattern in MONEY_ACCOUNTS
        for row in connection.execute(select(t).where(t.c.account.like(pattern)))
    }
    receivables = _receivables(connection)
    numbers = {at: number for number, at in receivables.items()}
    sums, running = _by_period(connection), dict.fromkeys(wanted, 0)
    carried: dict[int, int] = dict.fromkeys(receivables, 0)
    periods = _periods(connection)
    for number, period in enumerate(periods):
        for (at, account), amount in sums.items():
            if at == period and account in running:
                running[account] += amount
        if number < len(periods) - PERIODS_AUDITED:
            carried = {account: running[account] for account in receivables}
            continue
        told = {
            numbers[row.partner, row.currency]: row
            for row in statements(connection, Span.of_period(period, programme.timezone))
        }
        for account, name in receivables.items():
            said = told.get(account)
            opens, closes = (said.carried_in, said.carried_out) if said else (0, 0)
            if opens != carried[account]:
                yield (
                    f"{opens} {name[1]} of {name[0]} are carried into {period},"
                    f" {carried[account]} were carried out of the period before"
                )
            if closes != running[account]:
                yield (
                    f"{closes} {name[1]} of {name[0]} are carried out of {period},"
                    f" its account had {running[account]} then"
                )
            carried[account] = closes
    for account, row in wanted.items():
        if running[account] != row.balance:
            yield (
                f"all periods of {row.account} come to {running[account]} {row.commodity},"
                f" its balance is {row.balance}"
            )


def _by_period(connection: Connection) -> dict[tuple[str, int], int]:
    """What was moved in each period on each account that takes part in settling."""
    t, p, b = tables.transfers, tables.postings, tables.bookings
    found: dict[tuple[str, int], int] = defaultdict(int)
    for side, sign in ((t.c.debit, 1), (t.c.credit, -1)):
        query = (
            select(b.c.period, side, func.sum(t.c.amount * literal(sign)))
            .select_from(t)
            .join(p, p.c.posting_number == t.c.posting_number)
            .join(b, b.c.booking_id == p.c.booking_id)
            .where(t.c.kind == int(EntryKind.SETTLE))
            .group_by(b.c.period, side)
        )
        for period, account, amount in connection.execute(query):
            found[period, account] += int(amount)
    return found
