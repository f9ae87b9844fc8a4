"""Between the book's tables and the state of postings: read what is needed, write what changed.

Reading is a handful of set-based queries per batch, whatever its size: the conversions named, their
open pending items and own lots, the accounts of the members and partners concerned, and the
non-empty lots of those members who may have to give points from other lots. Writing is one
`executemany` per table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    select,
)

from pipeline.ledger.accounts import (
    ISSUED,
    money_accounts,
    redeemed_account,
)
from pipeline.ledger.lots import Lot
from pipeline.ledger.state import Balance, Conversion, LedgerState, PendingItem, Pin, SettledOrder
from pipeline.ledger.targets import Order, Target
from pipeline.ledger.terms import Terms
from pipeline.ledger.transfers import (
    Header,
    Leg,
    Posting,
    entry_link,
    header_bytes,
    transfer_id,
)
from pipeline.model.identifiers import NO_ID
from pipeline.model.words import Result, TargetState
from pipeline.store import book_schema as tables
from pipeline.store.book_bulk import change_rows, put_rows
from pipeline.store.book_schema import AnyRow

CHUNK = 500  # values in one IN list
NO_CONSENT, NO_CAMPAIGN = NO_ID, ""  # no cause brings them yet
TARGET_COLUMNS = len(Target._fields)
CHANGING_CONVERSION = tuple(
    column.name for column in tables.conversions.columns if not column.primary_key
)


class Booking(NamedTuple):
    """What everything booked by one call has in common."""

    cut: int
    now_ns: int
    period: str
    run_id: bytes
    actor: str


class Pages:
    """The part of the book that one transaction works on."""

    def __init__(self, connection: Connection, state: LedgerState) -> None:
        self.connection, self.state = connection, state
        head = connection.execute(select(tables.heads).with_for_update()).one()
        self.sequence, self.transfers, self.last_account = head[1], head[2], head[3]
        self.link: bytes = head[4]
        self.first_new = self.sequence + 1
        self.account_ids: dict[Balance, int] = {}
        self.owners: dict[str, bytes] = {}
        self.stored: set[Any] = set()  # keys of rows that are there already
        self.rows: dict[Table, list[tuple[Any, ...]]] = {
            tables.transfers: [],
            tables.entries: [],
            tables.lot_moves: [],
            tables.orders: [],
        }
        self.terms_by_id = read_terms(connection)
        self.terms_ids = {found: number for number, found in self.terms_by_id.items()}
        books = tables.rulebooks
        state.terms_by_rulebook = {
            rulebook: self.terms_by_id[number]
            for rulebook, number in connection.execute(
                select(books.c.rulebook_hash, books.c.terms_id)
            )
        }

    # Reading

    def read_for_targets(self, targets: Sequence[Target]) -> None:
        """Fill the state with all that these targets need."""
        state, t = self.state, tables.conversions
        for row in self._chosen(t, t.c.conversion_key.in_, {x.conversion_key for x in targets}):
            self._put_conversion(row)
        held = [c.target for c in state.conversions.values()]
        sides = [*targets, *held]
        members = {x.subscriber_id for x in sides if x.subscriber_id != NO_ID and x.points}
        names = {ISSUED}.union(*(money_accounts(p) for p in {x.partner for x in sides}))
        self._read_accounts(names, members)
        waiting = {x.conversion_key for x in held if x.standing == TargetState.PENDING}
        for row in self._chosen(
            tables.pending_items,
            tables.pending_items.c.conversion_key.in_,
            waiting,
            tables.pending_items.c.resolved.is_(False),
        ):
            self._put_pending(row)
        available = [x for x in sides if x.standing == TargetState.AVAILABLE]
        own = {state.own_lot_id(x.conversion_key, x.subscriber_id) for x in available}
        self._read_lots(tables.lots.c.lot_id.in_, own)
        givers = self._givers(targets)  # after own lots, which tell who lacks points
        self._read_lots(tables.lots.c.subscriber_id.in_, givers, tables.lots.c.remaining > 0)

    def _givers(self, targets: Sequence[Target]) -> set[bytes]:
        """Members who may lose more points than their own lot has: others of their lots give them.

        A conversion that comes twice in a batch may do so in between, so its members always count.
        """
        givers = set()
        times = Counter(target.conversion_key for target in targets)
        for target in targets:
            held = self.state.conversions.get(target.conversion_key)
            if held is not None and held.target.standing == TargetState.AVAILABLE:
                old = held.target
                own = self.state.lots[self.state.own_lot_id(old.conversion_key, old.subscriber_id)]
                stays = old.subscriber_id == target.subscriber_id
                left = target.points if stays and target.standing == old.standing else 0
                if own.remaining < old.points - left:
                    givers.add(old.subscriber_id)
            if times[target.conversion_key] > 1:
                givers.add(target.subscriber_id)
                if held is not None:
                    givers.add(held.target.subscriber_id)
        return givers - {NO_ID}

    def read_for_orders(self, orders: Sequence[Order]) -> None:
        """Fill the state with all that these orders need."""
        t = tables.orders
        for row in self._chosen(t, t.c.order_id.in_, {order.order_id for order in orders}):
            settled = SettledOrder(row.subscriber_id, row.points, Result(row.result))
            self.state.orders[row.order_id] = settled
        members = {order.subscriber_id for order in orders} - {NO_ID}
        self._read_accounts({redeemed_account(order.redemption) for order in orders}, members)
        self._read_lots(tables.lots.c.subscriber_id.in_, members, tables.lots.c.remaining > 0)

    def _chosen(
        self,
        table: Table,
        choose: Callable[[list[Any]], ColumnElement[bool]],
        values: Iterable[Any],
        also: ColumnElement[bool] | None = None,
    ) -> Iterable[AnyRow]:
        wanted = sorted(values)
        for at in range(0, len(wanted), CHUNK):
            query = select(table).where(choose(wanted[at : at + CHUNK]))
            yield from self.connection.execute(query if also is None else query.where(also)).all()

    def _read_accounts(self, names: set[str], members: set[bytes]) -> None:
        t = tables.accounts
        for choose, values in ((t.c.account.in_, names), (t.c.subscriber_id.in_, members)):
            for number, account, commodity, _, balance in self._chosen(t, choose, values):
                self.account_ids[account, commodity] = number
                self.stored.add((account, commodity))
                self.state.balances[account, commodity] = balance

    def _read_lots(
        self,
        choose: Callable[[list[Any]], ColumnElement[bool]],
        values: set[bytes],
        also: ColumnElement[bool] | None = None,
    ) -> None:
        for row in self._chosen(tables.lots, choose, values, also):
            if row[0] not in self.state.lots:
                self.state.put_lot(lot_of(row, self.terms_by_id))
                self.stored.add(row[0])

    def _put_conversion(self, row: AnyRow) -> None:
        conversion = conversion_of(row)
        self.state.conversions[conversion.target.conversion_key] = conversion
        self.stored.add(conversion.target.conversion_key)

    def _put_pending(self, row: AnyRow) -> None:
        item = pending_of(row, self.terms_by_id)
        at = (item.conversion_key, item.generation)
        self.state.pending[at] = item
        self.stored.add(at)

    # Writing

    def write(self, posting: Posting, booking: Booking) -> None:
        """Number, identify and chain what a posting moves."""
        cause = posting.cause
        if cause is None:
            return
        key = self.state.key
        for transfer in posting.transfers:
            self.transfers += 1
            identifier = transfer_id(key, self.state.terms.programme, cause, transfer.step)
            header = Header(
                identifier,
                transfer.subscriber_id,
                cause.id,
                cause.conversion_key,
                transfer.click_id,
                transfer.visit_id,
                cause.rule_version,
                cause.rulebook_hash,
                booking.run_id,
                NO_CONSENT,
                cause.version,
                cause.effective_ns,
                booking.now_ns,
                booking.cut,
                transfer.kind.value,
                booking.period,
                cause.kind,
                cause.partner,
                cause.rule_id,
                cause.contract_version,
                NO_CAMPAIGN,
                booking.actor,
            )
            self.rows[tables.transfers].append((self.transfers, *header))
            self._write_legs(header, transfer.legs)
            self.rows[tables.lot_moves] += [(self.transfers, *move) for move in transfer.moves]

    def _write_legs(self, header: Header, legs: tuple[Leg, ...]) -> None:
        key, rows = self.state.key, self.rows[tables.entries]
        hashed = header_bytes(header)
        for leg, moved in enumerate(legs):
            self.sequence += 1
            self.link = entry_link(key, self.link, hashed, self.sequence, leg, moved)
            rows.append(
                (
                    self.sequence,
                    self.transfers,
                    leg,
                    self._account_id(moved, header.subscriber_id),
                    moved.amount,
                    self.link,
                )
            )

    def _account_id(self, moved: Leg, member: bytes) -> int:
        at = (moved.account, moved.commodity)
        number = self.account_ids.get(at)
        if number is None:
            self.last_account += 1
            number = self.account_ids[at] = self.last_account
            if moved.account.startswith("member:"):
                self.owners[moved.account] = member
        return number

    def write_order(self, order: Order, result: Result, booking: Booking) -> None:
        """Keep an order with its answer."""
        answered = (int(result), booking.now_ns, booking.cut, booking.actor, booking.run_id)
        self.rows[tables.orders].append((*order, *answered))

    def flush(self) -> None:
        """Write everything down, in an order that references allow."""
        state = self.state
        self._put(
            tables.accounts,
            {at: self._account_row(at) for at in sorted(state.changed_balances)},
            ("balance",),
        )
        for table, rows in self.rows.items():
            put_rows(self.connection, table, rows)
        self._put(
            tables.conversions,
            {
                key: conversion_row(state.conversions[key])
                for key in sorted(state.changed_conversions)
            },
            CHANGING_CONVERSION,
        )
        self._put(
            tables.pending_items,
            {at: self._with_terms(state.pending[at]) for at in sorted(state.changed_pending)},
            ("amount", "confirmed", "returned", "resolved"),
        )
        self._put(
            tables.lots,
            {key: self._with_terms(state.lots[key]) for key in sorted(state.changed_lots)},
            (
                "contract_version", "rule_version", "earned_ns", "spendable_from_ns", "expires_ns",
                "amount", "remaining",
            ),
        )  # fmt: skip
        if self.sequence >= self.first_new:
            put_rows(self.connection, tables.outbox, [(self.first_new, self.sequence)])
            head = (1, self.sequence, self.transfers, self.last_account, self.link)
            names = ("sequence", "transfers", "accounts", "link")
            change_rows(self.connection, tables.heads, names, [head])

    def _account_row(self, at: Balance) -> tuple[Any, ...]:
        owner = self.owners.get(at[0], NO_ID)
        return (self.account_ids[at], *at, owner, self.state.balances[at])

    def _put(
        self, table: Table, rows: dict[Any, tuple[Any, ...]], changing: tuple[str, ...]
    ) -> None:
        """Insert the rows that are new and update those that are there."""
        put_rows(self.connection, table, [row for at, row in rows.items() if at not in self.stored])
        known = [row for at, row in rows.items() if at in self.stored]
        change_rows(self.connection, table, changing, known)

    def _with_terms(self, row: Lot | PendingItem) -> tuple[Any, ...]:
        """A lot or pending item as its row: its terms, the fourth value, by their number."""
        number = self.terms_ids.get(row.terms)
        if number is None:
            number = self.terms_ids[row.terms] = put_terms(self.connection, row.terms)
        return (*row[:3], number, *row[4:])


def read_terms(connection: Connection) -> dict[int, Terms]:
    """All terms by their number."""
    return {row[0]: Terms(*row[1:]) for row in connection.execute(select(tables.terms))}


def put_terms(connection: Connection, wanted: Terms) -> int:
    """The number of terms, which are added where they are new."""
    known = read_terms(connection)
    for number, found in known.items():
        if found == wanted:
            return number
    put_rows(connection, tables.terms, [(len(known) + 1, *wanted)])
    return len(known) + 1


def lot_of(row: Sequence[Any], terms: dict[int, Terms]) -> Lot:
    """A lot from its row."""
    return Lot._make((*row[:3], terms[row[3]], *row[4:]))


def pending_of(row: AnyRow, terms: dict[int, Terms]) -> PendingItem:
    """A pending item from its row."""
    return PendingItem._make((*row[:3], terms[row[3]], *row[4:]))


def conversion_of(row: AnyRow) -> Conversion:
    """A conversion from its row."""
    target, rest = Target(*row[:TARGET_COLUMNS]), row[TARGET_COLUMNS:]
    return Conversion(target, rest[0], rest[1], Pin(*rest[2:]))


def conversion_row(conversion: Conversion) -> tuple[Any, ...]:
    """A conversion as its row."""
    return (*conversion.target, conversion.number, conversion.generation, *conversion.pin)
