"""Balances as of any moment: what was so at one time, by what was known at another.

Every posting has two times: `effective_ns` (when it happened) and `booked_ns` (when the book
learned of it). A balance at `at_ns`, known at `known_ns`, is the sum of the transfers that had
happened and were known by then; and of the points that are left of it, those lapse whose date is
past at `at_ns` and whose lapse was not booked yet. So a time to come has an answer, too: the
balance that a cut at that time would leave if nothing else happened. The dates of lots are those
known at `known_ns` (`lot_dates`); where the date follows from activity, it is the activity known
then.

Planned lapse is derived and not stored: a lot's plan is what remains in it, at its date. So is the
end of reservations whose time is over at `at_ns`: their members are put together as they were, and
what is due of them is let end as a cut would (`ledger.due`), in memory.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sqlalchemy import CompoundSelect, Connection, Select, and_, func, or_, select

from pipeline.ledger.accounts import BUCKETS, Bucket, EntryKind
from pipeline.ledger.due import post_due
from pipeline.ledger.lots import Lot
from pipeline.ledger.state import Hold, LedgerState, Member, Order, rules_of
from pipeline.ledger.terms import INACTIVITY, inactive_ns
from pipeline.model.stage import END_OF_TIME
from pipeline.rulebook.model import Programme
from pipeline.store import book_schema as tables
from pipeline.store.book_reads import lot_of, read_terms

ACTIVE_KINDS = (
    EntryKind.EARN, EntryKind.CONFIRM, EntryKind.RESERVE, EntryKind.TRANSFER,
    EntryKind.CONVERT_OUT, EntryKind.CONVERT_IN,
)  # fmt: skip


Points = tuple[int, int, int, int]


def balance_at(
    connection: Connection,
    programme: Programme,
    subscriber_id: bytes | None,
    at_ns: int,
    known_ns: int,
) -> Points:
    """Pending, available, reserved and owed of a member, or (None) of all together."""
    asof = AsOf(connection, programme, at_ns, known_ns)
    held, change = asof.balance(subscriber_id), asof.ended(subscriber_id)
    found = [n + c for n, c in zip(held, change, strict=True)]
    return found[0], found[1], found[2], found[3]


class AsOf:
    """What was so at `at_ns`, by what was known at `known_ns`."""

    def __init__(
        self, connection: Connection, programme: Programme, at_ns: int, known_ns: int
    ) -> None:
        self._connection, self._programme = connection, programme
        self._moment = at_ns, known_ns

    def balance(self, subscriber_id: bytes | None) -> Points:
        """What transfers left, less what lapses of it; reservations hold on."""
        sums = _sums(self._connection, subscriber_id, *self._moment)
        lapsing = _lapsing(self._connection, self._programme, subscriber_id, *self._moment)
        planned = sum(lapsing.values())
        return -sums[0], -sums[1] - planned, -sums[2], sums[3]

    def lapsing(self) -> dict[bytes, int]:
        """By lot, the points of all members that lapse by `at_ns` and are not known to have."""
        return _lapsing(self._connection, self._programme, None, *self._moment)

    def ended(self, subscriber_id: bytes | None) -> Points:
        """What it changes that the reservations whose time is over end."""
        found = [0] * BUCKETS
        for who, holds in self.holds_over(subscriber_id).items():
            before = self.balance(who)
            after = self.when_over(who, holds, before)
            found = [n + b - a for n, a, b in zip(found, before, after, strict=True)]
        return found[0], found[1], found[2], found[3]

    def holds_over(self, subscriber_id: bytes | None) -> dict[bytes, dict[bytes, Order]]:
        """By member, the reservations that are open still, and whose time is over at `at_ns`."""
        t, p, m, o = tables.transfers, tables.postings, tables.lot_moves, tables.orders
        r, held = tables.requests, func.sum(m.c.held_change)
        query = (
            select(o.c.subscriber_id, o.c.order_id, o.c.hold_until_ns, m.c.lot_id, held)
            .select_from(p)
            .join(tables.bookings, _known(*self._moment))
            .join(r, r.c.request_id == p.c.cause_id)
            .join(o, o.c.request_number == r.c.request_number)
            .join(t, t.c.posting_number == p.c.posting_number)
            .join(m, m.c.transfer_number == t.c.transfer_number)
            .where(o.c.hold_until_ns <= self._moment[0])
            .group_by(o.c.subscriber_id, o.c.order_id, o.c.hold_until_ns, m.c.lot_id)
            .having(held > 0)
        )
        found: dict[bytes, dict[bytes, Order]] = defaultdict(dict)
        for who, order_id, until_ns, lot_id, points in self._connection.execute(
            _about(query, subscriber_id)
        ):
            order = found[who].setdefault(
                order_id, Order(order_id, who, 0, 0, 0, True, until_ns, 1, "", "", 0)
            )
            order.lots[lot_id] = Hold(held=int(points))
        return found

    def when_over(self, who: bytes, holds: dict[bytes, Order], before: Points) -> Points:
        """What a member has when these reservations have ended, and what is due has lapsed."""
        sums = _sums(self._connection, who, *self._moment)
        state = LedgerState(b"", rules_of(self._programme))
        active = _activity(self._connection, who, *self._moment)
        member = Member(1, who, active_ns=active[who])
        state.put_member(member, sums)
        dates = self._lots(state, who)
        if not all(_is_whole(lot) for lot in state.lots.values()):
            # A correction moved an event to before `at_ns`, and what it corrects lies behind.
            return self._without_lots(before, holds, dates)
        state.orders, member.holds = dict(holds), dict(holds)
        post_due(state, [who], self._moment[0])
        return (
            state.shown(member, Bucket.PENDING),
            state.shown(member, Bucket.AVAILABLE),
            state.shown(member, Bucket.RESERVED),
            state.shown(member, Bucket.DEBT),
        )

    def _lots(self, state: LedgerState, who: bytes) -> dict[bytes, int]:
        """Put a member's lots into a state as they were; when each lapses."""
        t, p, m, lots = tables.transfers, tables.postings, tables.lot_moves, tables.lots
        changes = (m.c.amount_change, m.c.remaining_change, m.c.held_change, m.c.lapsed_change)
        query = (
            select(m.c.lot_id, *(func.sum(change) for change in changes))
            .select_from(m)
            .join(t, t.c.transfer_number == m.c.transfer_number)
            .join(p, p.c.posting_number == t.c.posting_number)
            .join(tables.bookings, _known(*self._moment))
            .group_by(m.c.lot_id)
        )
        numbers = {row[0]: row[1:] for row in self._connection.execute(_about(query, who))}
        dates = _dates(self._connection, self._programme, who, *self._moment, set(numbers))
        terms = read_terms(self._connection)
        for row in self._connection.execute(select(lots).where(lots.c.subscriber_id == who)):
            if row.lot_id not in numbers:
                continue
            lot = lot_of(row, terms)
            lot.expires_ns = dates[lot.lot_id]
            lot.amount, lot.remaining, lot.held, lot.lapsed = map(int, numbers[lot.lot_id])
            state.put_lot(lot)
        return dates

    def _without_lots(
        self, before: Points, holds: dict[bytes, Order], dates: dict[bytes, int]
    ) -> Points:
        """The same where lots cannot tell: what is owed is paid first, then lots lapse."""
        pending, available, reserved, owed = before
        parts = [part for order in holds.values() for part in order.lots.items()]
        over = sum(hold.held for _, hold in parts)
        lost = sum(hold.held for lot, hold in parts if dates[lot] <= self._moment[0])
        paid = min(over, max(owed, 0))
        lost = min(lost, over - paid)
        return pending, available + over - paid - lost, reserved - over, owed - paid


def _is_whole(lot: Lot) -> bool:
    return (
        min(lot.amount, lot.remaining, lot.held, lot.lapsed) >= 0
        and lot.remaining + lot.lapsed <= lot.amount
    )


def _known(at_ns: int, known_ns: int) -> Any:
    p, b = tables.postings, tables.bookings
    return and_(
        p.c.booking_id == b.c.booking_id, p.c.effective_ns <= at_ns, b.c.booked_ns <= known_ns
    )


def _sums(
    connection: Connection, subscriber_id: bytes | None, at_ns: int, known_ns: int
) -> tuple[int, int, int, int]:
    """What is in the four accounts, debits positive."""
    t, p = tables.transfers, tables.postings
    sums = [0] * BUCKETS
    for side, sign in ((t.c.debit, 1), (t.c.credit, -1)):
        bucket = (side % BUCKETS).label("bucket")
        query = (
            select(bucket, func.sum(t.c.amount))
            .select_from(t)
            .join(p, p.c.posting_number == t.c.posting_number)
            .join(tables.bookings, _known(at_ns, known_ns))
            .where(side > 0)
            .group_by(bucket)
        )
        for number, amount in connection.execute(_about(query, subscriber_id)):
            sums[number] += sign * int(amount)
    return sums[0], sums[1], sums[2], sums[3]


def _about(query: Select[Any], subscriber_id: bytes | None) -> Select[Any]:
    """Of one member, whose postings are found from the last one backwards."""
    if subscriber_id is None:
        return query
    p, m = tables.postings, tables.members
    mine = (
        select(m.c.last_posting.label("number"))
        .where(m.c.subscriber_id == subscriber_id)
        .cte("mine", recursive=True)
    )
    mine = mine.union_all(
        select(p.c.previous).join(mine, p.c.posting_number == mine.c.number).where(p.c.previous > 0)
    )
    return query.join(mine, mine.c.number == p.c.posting_number)


def _lapsing(
    connection: Connection,
    programme: Programme,
    subscriber_id: bytes | None,
    at_ns: int,
    known_ns: int,
) -> dict[bytes, int]:
    """By lot, points that will have lapsed by `at_ns`, whose lapse is not among what is known."""
    t, p, m = tables.transfers, tables.postings, tables.lot_moves
    query = (
        select(m.c.lot_id, func.sum(m.c.remaining_change))
        .select_from(m)
        .join(t, t.c.transfer_number == m.c.transfer_number)
        .join(p, p.c.posting_number == t.c.posting_number)
        .join(tables.bookings, _known(at_ns, known_ns))
        .where(m.c.lot_id.in_(_may_lapse(at_ns, known_ns)))
        .group_by(m.c.lot_id)
    )
    left = {
        lot: int(points)
        for lot, points in connection.execute(_about(query, subscriber_id))
        if points
    }
    if not left:
        return {}
    dates = _dates(connection, programme, subscriber_id, at_ns, known_ns, set(left))
    return {lot: points for lot, points in left.items() if dates[lot] <= at_ns}


def _may_lapse(at_ns: int, known_ns: int) -> CompoundSelect[Any]:
    """Lots that lapse by then, had other dates by what was known, or follow activity."""
    lots, terms, d = tables.lots, tables.terms, tables.lot_dates
    idle = select(terms.c.terms_id).where(terms.c.expiry_policy.startswith(INACTIVITY))
    undated = and_(lots.c.expires_ns == END_OF_TIME, lots.c.terms_id.in_(idle))
    found = select(lots.c.lot_id).where(or_(lots.c.expires_ns <= at_ns, undated))
    return found.union(select(d.c.lot_id).where(d.c.until_ns > known_ns))


def _dates(
    connection: Connection,
    programme: Programme,
    subscriber_id: bytes | None,
    at_ns: int,
    known_ns: int,
    wanted: set[bytes],
) -> dict[bytes, int]:
    """When these lots lapse, by what was known."""
    lots, terms = tables.lots, read_terms(connection)
    query = select(
        lots.c.lot_id, lots.c.subscriber_id, lots.c.terms_id, lots.c.earned_ns, lots.c.expires_ns
    )
    if subscriber_id is not None:
        query = query.where(lots.c.subscriber_id == subscriber_id)
    former = _former(connection, known_ns)
    active = None
    found = {}
    for lot, who, number, earned_ns, until_ns in connection.execute(query):
        if lot not in wanted:
            continue
        earned_ns, until_ns = former.get(lot, (earned_ns, until_ns))
        policy = terms[number].expiry_policy
        if until_ns == END_OF_TIME and policy.startswith(INACTIVITY):
            if active is None:
                active = _activity(connection, subscriber_id, at_ns, known_ns)
            until_ns = inactive_ns(policy, max(active[who], earned_ns), programme.timezone)
        found[lot] = until_ns
    return found


def _former(connection: Connection, known_ns: int) -> dict[bytes, tuple[int, int]]:
    """The dates that lots had at `known_ns`, of those that were given others since."""
    d = tables.lot_dates
    query = select(d.c.lot_id, d.c.earned_ns, d.c.expires_ns).where(d.c.until_ns > known_ns)
    rows = connection.execute(query.order_by(d.c.until_ns.desc()))
    return {row[0]: (row[1], row[2]) for row in rows}


def _activity(
    connection: Connection, subscriber_id: bytes | None, at_ns: int, known_ns: int
) -> dict[bytes, int]:
    """The last time each member was active, as far as it was known."""
    t, p = tables.transfers, tables.postings
    gives = (t.c.kind != int(EntryKind.TRANSFER)) | (t.c.debit > 0)
    query = (
        select(p.c.subscriber_id, func.max(p.c.effective_ns))
        .select_from(t)
        .join(p, p.c.posting_number == t.c.posting_number)
        .join(tables.bookings, _known(at_ns, known_ns))
        .where(t.c.kind.in_([int(kind) for kind in ACTIVE_KINDS]), gives)
        .group_by(p.c.subscriber_id)
    )
    rows = connection.execute(_about(query, subscriber_id))
    return defaultdict(int, {who: int(last) for who, last in rows})
