"""Between the book's tables and the state of postings: read what is needed, write what changed.

Reading is a handful of queries per batch (`book_reads`), writing one `executemany` per table, and
in between postings are numbered, identified and chained.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Table, select

from pipeline.ledger.accounts import BUCKETS, touches_member
from pipeline.ledger.commands import Command
from pipeline.ledger.lots import Lot
from pipeline.ledger.state import Conversion, LedgerState, Member, Order, PendingItem
from pipeline.ledger.terms import Terms
from pipeline.ledger.transfers import (
    Booking,
    Origin,
    Posting,
    link_of,
    posting_bytes,
    posting_id,
    shared_bytes,
)
from pipeline.model.words import Result
from pipeline.store import book_schema as tables
from pipeline.store.book_bulk import change_rows, put_rows
from pipeline.store.book_reads import FREEZES, TARGET_COLUMNS, Reads
from pipeline.store.book_trail import Trail, request_link

CHANGING = {
    tables.conversions: tuple(c.name for c in tables.conversions.columns)[2:],
    tables.pending_items: ("amount", "confirmed", "returned", "resolved"),
    tables.lots: (
        "contract_version", "rule_version", "earned_ns", "spendable_from_ns", "expires_ns",
        "amount", "remaining", "held", "lapsed", "changes", "lapsed_ns",
        "lapsed_last",
    ),
    tables.accounts: ("balance",),
    tables.members: (
        "pending", "available", "reserved", "debt", "since_ns", "active_ns", "flags",
        "last_posting",
    ),
    tables.orders: ("committed", "refunded", "is_open", "number"),
    tables.order_lots: ("held", "committed", "refunded"),
}  # fmt: skip
HEAD_COLUMNS = tuple(column.name for column in tables.heads.columns)[1:]
# A lot whose dates stay is found by its numbers alone: no index has to be written anew.
LOT_NUMBERS = ("amount", "remaining", "held", "lapsed", "changes", "lapsed_ns", "lapsed_last")


class Pages(Reads):
    """The part of the book that one transaction works on."""

    def __init__(self, connection: Connection, state: LedgerState) -> None:
        # The row is locked before anything is read: who waited for it reads what came meanwhile.
        head = connection.execute(select(tables.heads).with_for_update()).one()
        super().__init__(connection, state)
        self.posting, self.transfer = head.postings, head.transfers
        state.last_account, state.last_member = head.accounts, head.members
        self.conversion, self.request = head.conversions, head.requests
        self.link: bytes = head.link
        self.requests_link: bytes = head.requests_link
        self.trail = Trail(connection, state.key, head.trail, head.trail_link)
        self.head = self._head()
        self.first_new = self.transfer + 1
        self.rows: dict[Table, list[tuple[Any, ...]]] = {
            tables.postings: [],
            tables.transfers: [],
            tables.lot_moves: [],
            tables.requests: [],
            tables.doubts: [],
        }
        self._moved: set[int] = set()  # accounts
        self._shared: dict[Origin | Booking, tuple[int, bytes]] = {}
        self.terms_ids = {found: number for number, found in self.terms_by_id.items()}

    def write(self, postings: Iterable[Posting], booking: Booking) -> None:
        """Number, identify and chain what was posted."""
        state, rows, names = self.state, self.rows, self.state.names
        key, programme, moved = state.key, state.programme, self._moved
        booking_id, booking_bytes = self._share(booking)
        for posting in postings:
            transfers = posting.transfers
            if not transfers:
                continue
            cause = posting.cause
            origin_id, origin_bytes = self._share(cause.origin)
            identifier = posting_id(
                key, programme, cause.origin.cause_kind, cause.id, cause.version
            )
            head = posting_bytes(identifier, cause, origin_bytes, booking_bytes)
            self.link = link_of(key, self.link, head, transfers, names, posting.moves)
            self.posting += 1
            number, first, previous = self.posting, self.transfer + 1, 0
            member = state.members.get(cause.subscriber_id)
            # Money that moves before somebody has points is not yet about a member.
            if member is not None and (member.last_posting or touches_member(transfers)):
                previous, member.last_posting = member.last_posting, number
            rows[tables.postings].append(
                (
                    number, identifier, cause.id, cause.version, cause.effective_ns,
                    cause.subscriber_id, previous, cause.click_id, cause.visit_id, origin_id,
                    booking_id, first, len(transfers), self.link,
                )
            )  # fmt: skip
            at = first
            for transfer in transfers:
                rows[tables.transfers].append((at, number, *transfer))
                moved.update(transfer[1:3])
                at += 1
            self.transfer = at - 1
            if posting.moves:
                rows[tables.lot_moves] += [(first + move[0], *move[1:]) for move in posting.moves]

    def _share(self, row: Origin | Booking) -> tuple[int, bytes]:
        """The number of what many postings share, written down where it is new; and its bytes."""
        found = self._shared.get(row)
        if found is None:
            table = tables.origins if isinstance(row, Origin) else tables.bookings
            found = self._shared[row] = put_shared(self.connection, table, row), shared_bytes(row)
        return found

    def write_request(
        self, command: Command, result: Result, booking: Booking, doubt: str = ""
    ) -> None:
        """Keep a command with its answer; `doubt` is why it waits, where it does."""
        self.request += 1
        order = self.state.orders.get(command.command_id)
        if order is not None:
            order.row = self.request
        row = (
            self.request, command.command_id, command.kind, command.ref, command.subscriber_id,
            command.points, command.event_ns, command.body, command.content,
        )  # fmt: skip
        number, booked = self._share(booking)
        key, before = self.state.key, self.requests_link
        self.requests_link = link = request_link(key, before, row, int(result), booked)
        self.rows[tables.requests].append((*row, int(result), number, 0, link))
        if doubt and result == Result.AWAITING_APPROVAL:
            self.rows[tables.doubts].append((self.request, doubt))

    def write_trail(
        self,
        command: Command,
        place: int,
        points: tuple[str, str],
        result: str,
        booking: Booking,
    ) -> None:
        """Keep what a person did, or was denied."""
        self.trail.add(command, place, points, result, *self._share(booking))

    def flush(self, now_ns: int) -> None:
        """Write everything down, in an order that references allow."""
        state = self.state
        self._put_accounts()
        for table, rows in self.rows.items():
            put_rows(self.connection, table, rows)
        self._put_conversions()
        self._put(
            tables.pending_items,
            {at: self._pending_row(state.pending[at]) for at in sorted(state.changed_pending)},
        )
        self._put_lots()
        self._put_dates(now_ns)
        self._put_orders()
        self.trail.flush()
        self._put_seldom(now_ns)
        if self.transfer >= self.first_new:
            put_rows(self.connection, tables.outbox, [(self.first_new, self.transfer)])
        head = self._head()
        if head != self.head:
            change_rows(self.connection, tables.heads, HEAD_COLUMNS, [head])

    def _head(self) -> tuple[Any, ...]:
        state = self.state
        return (
            1, self.posting, self.transfer, state.last_account, state.last_member,
            self.conversion, self.request, self.trail.number, self.link, self.requests_link,
            self.trail.link,
        )  # fmt: skip

    def _put_conversions(self) -> None:
        """New conversions are numbered in the order in which they were first posted."""
        state = self.state
        for key in state.conversions:
            if key in state.changed_conversions and not state.conversions[key].row:
                self.conversion += 1
                state.conversions[key] = state.conversions[key]._replace(row=self.conversion)
        self._put(
            tables.conversions,
            {at: conversion_row(state.conversions[at]) for at in state.changed_conversions},
        )

    def _put_accounts(self) -> None:
        state = self.state
        rows = []
        by_number = {number: at for at, number in state.accounts.items()}
        for number in sorted(n for n in self._moved if n < 0):
            rows.append((number, *by_number[number], state.balances[number]))
        new = [row for row in rows if row[0] not in self.stored]
        put_rows(self.connection, tables.accounts, new)
        known = [row for row in rows if row[0] in self.stored]
        change_rows(self.connection, tables.accounts, CHANGING[tables.accounts], known)
        touched = [state.members[who] for who in state.changed_members]
        touched.sort(key=lambda member: member.number)
        put_rows(
            self.connection, tables.members, [self._member_row(m) for m in touched if not m.stored]
        )
        change_rows(
            self.connection,
            tables.members,
            CHANGING[tables.members],
            [self._member_row(m) for m in touched if m.stored],
        )

    def _member_row(self, member: Member) -> tuple[Any, ...]:
        first, balances = member.number * BUCKETS, self.state.balances
        flags = member.flags | (FREEZES if member.freezes else 0)
        return (
            member.number, member.subscriber_id, balances[first], balances[first + 1],
            balances[first + 2], balances[first + 3], member.since_ns, member.active_ns, flags,
            member.last_posting,
        )  # fmt: skip

    def _put_lots(self) -> None:
        lots = sorted(self.state.changed_lots.values(), key=lambda lot: lot.lot_id)
        put_rows(
            self.connection, tables.lots, [self._lot_row(lot) for lot in lots if not lot.stored]
        )
        dated = self.state.dated_lots
        some = [lot for lot in lots if lot.stored and lot.lot_id not in dated]
        rest = [lot for lot in lots if lot.stored and lot.lot_id in dated]
        change_rows(self.connection, tables.lots, LOT_NUMBERS, [self._lot_row(lot) for lot in some])
        change_rows(
            self.connection, tables.lots, CHANGING[tables.lots], [self._lot_row(x) for x in rest]
        )

    def _put_dates(self, now_ns: int) -> None:
        """The dates that lots had until now; what was so for no time leaves no trace."""
        t, former = tables.lot_dates, self.state.former_dates
        there = {row[0] for row in self._chosen(t, t.c.lot_id.in_, former, t.c.until_ns == now_ns)}
        rows = [(lot, now_ns, *dates) for lot, dates in sorted(former.items()) if lot not in there]
        put_rows(self.connection, t, rows)

    def _put_orders(self) -> None:
        self._number_approved()
        orders = sorted(self.state.changed_orders.values(), key=lambda order: order.row)
        put_rows(self.connection, tables.orders, [order_row(o) for o in orders if not o.stored])
        change_rows(
            self.connection,
            tables.orders,
            CHANGING[tables.orders],
            [order_row(o) for o in orders if o.stored],
        )
        new: list[tuple[Any, ...]] = []
        known: list[tuple[Any, ...]] = []
        for order in orders:
            for lot_id, hold in order.lots.items():
                row = (order.row, lot_id, hold.held, hold.committed, hold.refunded)
                (known if hold.stored else new).append(row)
        put_rows(self.connection, tables.order_lots, new)
        names = CHANGING[tables.order_lots]
        change_rows(self.connection, tables.order_lots, names, known)

    def _number_approved(self) -> None:
        """Orders that somebody approved have the number of the command that asked for them."""
        wanted = {o.order_id: o for o in self.state.changed_orders.values() if not o.row}
        t = tables.requests
        there = [(row[1], row[0]) for row in self.rows[t] if row[1] in wanted]
        chosen = self._chosen(t, t.c.request_id.in_, wanted) if len(there) < len(wanted) else ()
        for identifier, number in [*there, *((row.request_id, row[0]) for row in chosen)]:
            wanted[identifier].row = number

    def _put_seldom(self, now_ns: int) -> None:
        """Freezes, decisions and closed periods."""
        state, there = self.state, {row[1] for row in self.rows[tables.requests]}
        put_rows(self.connection, tables.freezes, state.freezes)
        t = tables.requests
        numbers = {row[1]: row[0] for row in self.rows[tables.requests]}
        for identifier, (result, decision) in sorted(state.decided.items()):
            change = t.update().where(t.c.request_id == identifier)
            decided = {"result": int(result), "decided_by": numbers[decision]}
            self.connection.execute(change.values(decided))
        periods = [
            (period, request, now_ns, self.posting, self.link)
            for period, request in sorted(state.periods.items())
            if request in there
        ]
        put_rows(self.connection, tables.periods, periods)

    def _put(self, table: Table, rows: dict[Any, tuple[Any, ...]]) -> None:
        """Insert the rows that are new and update those that are there."""
        new = sorted(row for at, row in rows.items() if at not in self.stored)
        put_rows(self.connection, table, new)
        known = sorted(row for at, row in rows.items() if at in self.stored)
        change_rows(self.connection, table, CHANGING[table], known)

    def _lot_row(self, lot: Lot) -> tuple[Any, ...]:
        return (
            lot.lot_id, lot.cause_kind, lot.cause_id, lot.conversion_key, lot.parent_lot_id,
            lot.subscriber_id, self._terms_number(lot.terms), lot.contract_version,
            lot.rule_version, lot.earned_ns, lot.spendable_from_ns, lot.expires_ns, lot.amount,
            lot.remaining, lot.held, lot.lapsed, lot.changes, lot.lapsed_ns, lot.lapsed_last,
        )  # fmt: skip

    def _pending_row(self, item: PendingItem) -> tuple[Any, ...]:
        row = self.state.conversions[item.conversion_key].row
        return (row, *item[1:3], self._terms_number(item.terms), *item[4:])

    def _terms_number(self, wanted: Terms) -> int:
        number = self.terms_ids.get(wanted)
        if number is None:
            number = self.terms_ids[wanted] = put_terms(self.connection, wanted)
        return number


def put_terms(connection: Connection, wanted: Terms) -> int:
    """The number of terms, which are added where they are new."""
    return put_shared(connection, tables.terms, wanted)


def put_shared(connection: Connection, table: Table, wanted: Sequence[Any]) -> int:
    """The number of a row that others point to, which is added where it is new."""
    key, *columns = table.columns
    same = (column == value for column, value in zip(columns, wanted, strict=True))
    number = connection.execute(select(key).where(*same)).scalar()
    if number is None:
        last = connection.execute(select(key).order_by(key.desc()).limit(1)).scalar() or 0
        number = last + 1
        put_rows(connection, table, [(number, *wanted)])
    return int(number)


def order_row(order: Order) -> tuple[Any, ...]:
    """An order as its row."""
    return (
        order.row, order.order_id, order.subscriber_id, order.points, order.committed,
        order.refunded, order.is_open, order.hold_until_ns, order.number, order.redemption,
        order.item, order.quantity, *order.words,
    )  # fmt: skip


def conversion_row(conversion: Conversion) -> tuple[Any, ...]:
    """A conversion as its row."""
    return (
        conversion.row, *conversion.target[:TARGET_COLUMNS], conversion.number,
        conversion.generation, *conversion.pin,
    )  # fmt: skip
