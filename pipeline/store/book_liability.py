"""How much the programme has promised: points that members may spend, by the month of earning.

Outstanding is what is available and reserved; it is what lots hold. A roll-forward tells, by what
was known at each moment, how it came from one moment to another:

    open + issued - spent - expired - forfeited +/- transferred +/- exchanged +/- adjusted = close

A transfer counts from the moment on at which it had happened **and** was known: so a report of a
moment that is past never changes, and the close of one is the open of the next. Its close is
`balance_at(None, T, T)`: points whose date is past at T, and whose lapse is not booked yet, have
expired. Reservations whose time is over at T and that are not ended yet are let end as a cut would;
what they leave (they may lapse, or pay what is owed) is `ended`, which is nothing after a cut.

A lot belongs to the month (**cohort**) in which its points were earned, by what was known at the
end; a correction of its date moves it, whole, to another one. The worth of points is
at the price they were issued at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, literal, select

from pipeline.ledger.accounts import AVAILABLE, DEBT, PENDING, RESERVED, EntryKind
from pipeline.ledger.terms import next_period, period_of, period_start_ns
from pipeline.model.stage import END_OF_TIME
from pipeline.rulebook.model import Programme
from pipeline.store import book_schema as tables
from pipeline.store.book_asof import AsOf

WAYS = (
    "open", "issued", "spent", "expired", "forfeited", "transferred", "exchanged", "adjusted",
)  # fmt: skip
WAY_OF = {
    EntryKind.EARN: "issued",
    EntryKind.CONFIRM: "issued",
    EntryKind.MIGRATE_OPEN: "issued",
    EntryKind.COMMIT: "spent",
    EntryKind.REFUND: "spent",
    EntryKind.EXPIRE: "expired",
    EntryKind.REINSTATE: "expired",
    EntryKind.FORFEIT: "forfeited",
    EntryKind.TRANSFER: "transferred",
    EntryKind.CONVERT_OUT: "exchanged",
    EntryKind.CONVERT_IN: "exchanged",
}
Key = tuple[str, str]  # cohort, issue price


class Cohort(NamedTuple):
    """Points earned in one month at one price; what is gone counts below zero."""

    month: str
    issue_price: str
    open: int = 0
    issued: int = 0
    spent: int = 0
    expired: int = 0
    forfeited: int = 0
    transferred: int = 0
    exchanged: int = 0
    adjusted: int = 0

    @property
    def close(self) -> int:
        """What is outstanding in the end."""
        return sum(self[2:])


class Liability(NamedTuple):
    """All cohorts; what reservations that were over left, at the beginning and in the end; beside
    them what is pending and owed in the end.
    """

    from_ns: int
    to_ns: int
    cohorts: tuple[Cohort, ...]
    ended_before: int
    ended: int
    pending: int
    owed: int

    @property
    def open(self) -> int:
        """What was outstanding in the beginning."""
        return sum(cohort.open for cohort in self.cohorts) + self.ended_before

    @property
    def close(self) -> int:
        """What is outstanding in the end: what is available and reserved."""
        return sum(cohort.close for cohort in self.cohorts) + self.ended

    def worth(self, price: Fraction) -> Fraction:
        """What is outstanding at the prices it was issued at, in money of a smallest unit.

        `price` is that of what reservations that were over leave.
        """
        found = sum((c.close * Fraction(c.issue_price) for c in self.cohorts), Fraction(0))
        return found + self.ended * price


def liability(connection: Connection, programme: Programme, from_ns: int, to_ns: int) -> Liability:
    """The roll-forward from one moment to another."""
    begins = AsOf(connection, programme, from_ns, from_ns)
    ends = AsOf(connection, programme, to_ns, to_ns)
    found: dict[Key, dict[str, int]] = defaultdict(lambda: dict.fromkeys(WAYS, 0))
    for month, price, kind, earlier, points in connection.execute(
        _moved(_months(connection, programme.timezone), from_ns, to_ns)
    ):
        way = "open" if earlier else WAY_OF.get(EntryKind(kind), "adjusted")
        found[month, price][way] += int(points)
    _let_lapse(found, connection, programme, begins.lapsing(), ends.lapsing(), to_ns)
    rows = ((key, [found[key][way] for way in WAYS]) for key in sorted(found))
    cohorts = [Cohort(*key, *points) for key, points in rows if any(points)]
    ended_before, change, at_end = begins.ended(None), ends.ended(None), ends.balance(None)
    return Liability(
        from_ns,
        to_ns,
        tuple(cohorts),
        ended_before[AVAILABLE] + ended_before[RESERVED],
        change[AVAILABLE] + change[RESERVED],
        at_end[PENDING] + change[PENDING],
        at_end[DEBT] + change[DEBT],
    )


def _let_lapse(
    found: dict[Key, dict[str, int]],
    connection: Connection,
    programme: Programme,
    before: dict[bytes, int],
    after: dict[bytes, int],
    to_ns: int,
) -> None:
    """Points whose date is past, and whose lapse is not booked, have expired all the same."""
    wanted = before.keys() | after.keys()
    if not wanted:
        return
    lots, terms = tables.lots, tables.terms
    query = select(lots.c.lot_id, _earned(to_ns), terms.c.issue_price).join(
        terms, terms.c.terms_id == lots.c.terms_id
    )
    for lot, earned_ns, price in connection.execute(query):
        if lot in wanted:
            row = found[period_of(earned_ns, programme.timezone), price]
            gone, going = before.get(lot, 0), after.get(lot, 0)
            row["open"] -= gone
            row["expired"] += gone - going


def _moved(months: list[tuple[int, str]], from_ns: int, to_ns: int) -> Select[Any]:
    """Month, price, kind, whether it was so in the beginning, and points that lots got."""
    t, p, b, m = tables.transfers, tables.postings, tables.bookings, tables.lot_moves
    lots, terms = tables.lots, tables.terms
    month = _month_of(_earned(to_ns), months).label("month")
    earlier = case((_known_by(from_ns), 1), else_=0).label("earlier")
    return (
        select(
            month, terms.c.issue_price, t.c.kind, earlier,
            func.sum(m.c.remaining_change + m.c.held_change),
        )
        .select_from(m)
        .join(t, t.c.transfer_number == m.c.transfer_number)
        .join(p, p.c.posting_number == t.c.posting_number)
        .join(b, b.c.booking_id == p.c.booking_id)
        .join(lots, lots.c.lot_id == m.c.lot_id)
        .join(terms, terms.c.terms_id == lots.c.terms_id)
        .where(_known_by(to_ns))
        .group_by("month", terms.c.issue_price, t.c.kind, "earlier")
    )  # fmt: skip


def _known_by(at_ns: int) -> ColumnElement[bool]:
    """Had it happened, and was it known?"""
    return and_(tables.postings.c.effective_ns <= at_ns, tables.bookings.c.booked_ns <= at_ns)


def _earned(known_ns: int) -> ColumnElement[int]:
    """When a lot's points were earned, by what was known at a time."""
    lots, d = tables.lots, tables.lot_dates
    former = (
        select(d.c.earned_ns)
        .where(d.c.lot_id == lots.c.lot_id, d.c.until_ns > known_ns)
        .order_by(d.c.until_ns)
        .limit(1)
        .correlate(lots)
        .scalar_subquery()
    )
    return func.coalesce(former, lots.c.earned_ns)


def _months(connection: Connection, timezone: str) -> list[tuple[int, str]]:
    """The months in which points may have been earned, with when each begins."""
    ends = [0, 0]
    for column in (tables.lots.c.earned_ns, tables.lot_dates.c.earned_ns):
        first, last = connection.execute(select(func.min(column), func.max(column))).one()
        if first is not None:
            ends = [min(ends[0] or first, first), max(ends[1], last)]
    found, month = [], period_of(ends[0], timezone)
    while month <= period_of(ends[1], timezone):
        found.append((period_start_ns(month, timezone), month))
        month = next_period(month)
    return found


def _month_of(moment: ColumnElement[int], months: list[tuple[int, str]]) -> ColumnElement[str]:
    """The month of a moment, by halves."""
    if len(months) == 1:
        return literal(months[0][1])
    middle = len(months) // 2
    earlier, later = months[:middle], months[middle:]
    return case((moment < later[0][0], _month_of(moment, earlier)), else_=_month_of(moment, later))


def outstanding_problems(connection: Connection, programme: Programme) -> Iterator[str]:
    """What lots were given and lost, by cohort, against what members have."""
    t = tables.members
    held = connection.execute(select(-func.sum(t.c.available + t.c.reserved))).scalar()
    query = _moved(_months(connection, programme.timezone), END_OF_TIME, END_OF_TIME)
    moved = sum(int(row[-1]) for row in connection.execute(query))
    if moved != int(held or 0):
        yield f"all cohorts come to {moved} points outstanding, members have {int(held or 0)}"
