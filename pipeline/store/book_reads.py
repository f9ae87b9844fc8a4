"""The part of the book that one transaction works on, read into the state of its postings.

A handful of set-based queries per batch, whatever its size: the conversions named, their open
pending items and own lots, the orders and requests that commands speak of, the members and partners
concerned, and the lots of those members who may have to give points, or get some back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, select

from pipeline.ledger.accounts import (
    FORFEITED,
    ISSUED,
    LAPSED,
    OTHER_REDEMPTION,
    REDEMPTIONS,
    TRANSIT,
    exchange_accounts,
    money_accounts,
    redeemed_account,
    stock_accounts,
)
from pipeline.ledger.commands import OF_ORDERS, OF_REQUESTS, Command, made
from pipeline.ledger.lots import Lot
from pipeline.ledger.state import (
    Conversion,
    Hold,
    LedgerState,
    Member,
    Order,
    PendingItem,
    Pin,
    Settled,
)
from pipeline.ledger.targets import Target
from pipeline.ledger.terms import INACTIVITY, Terms, idle_since
from pipeline.model.identifiers import NO_ID
from pipeline.model.stage import END_OF_TIME
from pipeline.model.words import Result, TargetState
from pipeline.store import book_schema as tables
from pipeline.store.book_schema import AnyRow

CHUNK = 500  # values in one IN list
FREEZES = 1  # a bit of a member's flags
TARGET_COLUMNS = len(Target._fields) - 1  # without the explanation, which only the store keeps
OF_PROGRAMME = (
    ISSUED, LAPSED, FORFEITED, TRANSIT,
    *(redeemed_account(kind) for kind in (*REDEMPTIONS, OTHER_REDEMPTION)),
)  # fmt: skip


class Reads:
    """Fills a state; `stored` has the keys of rows that are there already."""

    def __init__(self, connection: Connection, state: LedgerState) -> None:
        self.connection, self.state = connection, state
        self.stored: set[Any] = set()
        self.terms_by_id = read_terms(connection)
        books = tables.rulebooks
        state.terms_by_rulebook = {
            rulebook: self.terms_by_id[number]
            for rulebook, number in connection.execute(
                select(books.c.rulebook_hash, books.c.terms_id)
            )
        }

    def read_for_targets(self, targets: Sequence[Target]) -> None:
        """Fill the state with all that these targets need."""
        state, t = self.state, tables.conversions
        for row in self._chosen(t, t.c.conversion_key.in_, {x.conversion_key for x in targets}):
            self._put_conversion(row)
        held = [c.target for c in state.conversions.values()]
        sides = [*targets, *held]
        members = {x.subscriber_id for x in sides} - {NO_ID}
        names = set(OF_PROGRAMME).union(*(money_accounts(p) for p in {x.partner for x in sides}))
        self._read_accounts(names)
        self._read_members(members)
        waiting = {
            c.row: c.target.conversion_key
            for c in state.conversions.values()
            if c.target.points and c.target.state == TargetState.PENDING
        }
        for row in self._chosen(
            tables.pending_items,
            tables.pending_items.c.conversion_number.in_,
            waiting,
            tables.pending_items.c.resolved.is_(False),
        ):
            self._put_pending(row, waiting[row.conversion_number])
        available = [x for x in sides if x.points and x.state == TargetState.AVAILABLE]
        own = {state.own_lot_id(x.conversion_key, x.subscriber_id) for x in available}
        self._read_lots(tables.lots.c.lot_id.in_, own)
        givers = self._givers(targets)  # after own lots, which tell who lacks points
        self._read_lots(tables.lots.c.subscriber_id.in_, givers, tables.lots.c.remaining > 0)
        if self._has_idle_terms():
            there = (tables.lots.c.remaining > 0) | (tables.lots.c.lapsed > 0)
            self._read_lots(tables.lots.c.subscriber_id.in_, members, there)

    def _givers(self, targets: Sequence[Target]) -> set[bytes]:
        """Members who may lose more points than their own lot has: others of their lots give them.

        A conversion that comes twice in a batch may do so in between, so its members always count.
        """
        givers = set()
        times = Counter(target.conversion_key for target in targets)
        for target in targets:
            held = self.state.conversions.get(target.conversion_key)
            old = held.target if held is not None else None
            if old is not None and old.points and old.state == TargetState.AVAILABLE:
                own = self.state.lots[self.state.own_lot_id(old.conversion_key, old.subscriber_id)]
                stays = old.subscriber_id == target.subscriber_id and target.state == old.state
                left = target.points if stays else 0
                if own.remaining + own.lapsed < old.points - left:
                    givers.add(old.subscriber_id)
            if times[target.conversion_key] > 1:
                givers.add(target.subscriber_id)
                if old is not None:
                    givers.add(old.subscriber_id)
        return givers - {NO_ID}

    def read_for_commands(self, commands: Sequence[Command]) -> None:
        """Fill the state with all that these commands need."""
        state = self.state
        asked = {c.command_id for c in commands}
        awaited = {c.id("request") for c in commands if c.kind in OF_REQUESTS} - {NO_ID}
        self._read_requests(asked | awaited, awaited)
        commands = [*commands, *state.awaiting.values()]  # which these may approve
        members = {c.subscriber_id for c in commands} | {c.id("to") for c in commands}
        named = {c.id("order") for c in commands if c.kind in OF_ORDERS} - {NO_ID}
        self._read_orders(tables.orders.c.request_number.in_, self._numbers_of(named))
        whole = {order.subscriber_id for order in state.orders.values()}
        members = (members | whole) - {NO_ID}
        self._read_members(members)
        self._read_open_orders(members)
        self._read_accounts(self._names(commands))  # open orders name gifts, too
        whole |= {m.subscriber_id for m in state.members.values() if m.holds}
        # What comes back may need a lot that has nothing any more.
        some = members if named & (asked | awaited) or self._reserves(commands) else members - whole
        whole = members if some is members else whole
        self._read_lots(tables.lots.c.subscriber_id.in_, whole)
        usable = tables.lots.c.remaining > 0
        if self._has_idle_terms():
            usable |= tables.lots.c.lapsed > 0
        self._read_lots(tables.lots.c.subscriber_id.in_, some - whole, usable)
        self._read_order_lots()
        if any(c.kind == "close_period" for c in commands):
            self._read_periods()

    @staticmethod
    def _reserves(commands: Sequence[Command]) -> bool:
        """May one of these commands end what another of them began?"""
        kinds = {c.kind for c in commands}
        return bool(kinds & {"reserve", "order"}) and bool(kinds & OF_ORDERS | kinds & {"reserve"})

    def read_for_due(self, members: Iterable[bytes]) -> None:
        """Fill the state with all that ends for these members by itself."""
        wanted = set(members)
        self._read_members(wanted)
        self._read_open_orders(wanted)
        items = {order.item for order in self.state.orders.values() if order.item}
        names = set(OF_PROGRAMME)
        self._read_accounts(names.union(*(stock_accounts(item)[:4] for item in items)))
        self._read_lots(tables.lots.c.subscriber_id.in_, wanted)
        self._read_order_lots()

    def due_members(self, now_ns: int, limit: int) -> list[bytes]:
        """Members of whom something ends by `now_ns`: at most so many, in no order that matters."""
        orders, lots, members = tables.orders, tables.lots, tables.members
        due = [
            select(orders.c.subscriber_id).where(
                orders.c.is_open, orders.c.hold_until_ns <= now_ns
            ),
            select(lots.c.subscriber_id).where(lots.c.remaining > 0, lots.c.expires_ns <= now_ns),
        ]
        for number, terms in self.terms_by_id.items():
            if not terms.expiry_policy.startswith(INACTIVITY):
                continue
            since_ns = idle_since(terms.expiry_policy, now_ns, self.state.rules.timezone)
            due.append(
                select(lots.c.subscriber_id)
                .join(members, members.c.subscriber_id == lots.c.subscriber_id)
                .where(
                    lots.c.terms_id == number, lots.c.remaining > 0,
                    lots.c.expires_ns == END_OF_TIME,
                    members.c.active_ns <= since_ns, lots.c.earned_ns <= since_ns,
                )
            )  # fmt: skip
        found: set[bytes] = set()
        for query in due:
            rows = self.connection.execute(query.distinct().limit(limit))
            found.update(row[0] for row in rows)
        return sorted(found)[:limit]

    def is_closed(self, period: str) -> bool:
        """Is an accounting period closed?"""
        t = tables.periods
        found = self.connection.execute(select(t.c.period).where(t.c.period == period)).first()
        return found is not None

    def _names(self, commands: Sequence[Command]) -> set[str]:
        names = set(OF_PROGRAMME)
        items = {c.text("item").strip() for c in commands if "item" in c.said}
        items |= {order.item for order in self.state.orders.values()}
        for item in items - {""}:
            names.update(stock_accounts(item)[:4])
        for command in commands:
            if "programme" in command.said:
                names.update(exchange_accounts(command.text("programme")))
        return names

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

    def _read_accounts(self, names: set[str]) -> None:
        t, state = tables.accounts, self.state
        for number, account, commodity, balance in self._chosen(t, t.c.account.in_, names):
            state.put_account(number, account, commodity, balance)
            self.stored.add(number)

    def _read_members(self, wanted: set[bytes]) -> None:
        t, state = tables.members, self.state
        frozen = set()
        wanted = {who for who in wanted if who not in state.members}
        for row in self._chosen(t, t.c.subscriber_id.in_, wanted):
            number, who, flags = row[0], row[1], row[8]
            values: list[Any] = [number, who, *row[6:10], True]
            state.put_member(Member(*values), row[2:6])
            if flags & FREEZES:
                frozen.add(who)
        t = tables.freezes
        query = self._chosen(t, t.c.subscriber_id.in_, frozen)
        for _, who, from_ns, is_frozen in sorted(query, key=lambda row: row.from_ns):
            state.members[who].freezes.append((from_ns, is_frozen))

    def _read_requests(self, identifiers: set[bytes], awaited: set[bytes]) -> None:
        t, state = tables.requests, self.state
        for row in self._chosen(t, t.c.request_id.in_, identifiers):
            state.requests[row.request_id] = Settled(row.content, Result(row.result))
            waited = row.result == Result.AWAITING_APPROVAL or row.decided_by
            if waited and row.request_id in awaited:
                state.awaiting[row.request_id] = self._asked(row)

    def _asked(self, row: AnyRow) -> Command:
        """A command that somebody else may be about to approve."""
        t = tables.bookings
        who = self.connection.execute(
            select(t.c.actor, t.c.role, t.c.scope).where(t.c.booking_id == row.booking_id)
        ).one()
        return made(
            row.request_id, row.kind, row.ref, row.subscriber_id, row.points, row.event_ns,
            row.body, *who,
        )  # fmt: skip

    def _numbers_of(self, identifiers: set[bytes]) -> set[int]:
        """The numbers of commands."""
        found: set[int] = set()
        t, wanted = tables.requests, sorted(identifiers)
        for at in range(0, len(wanted), CHUNK):
            chosen = t.c.request_id.in_(wanted[at : at + CHUNK])
            rows = self.connection.execute(select(t.c.request_number).where(chosen))
            found.update(row[0] for row in rows)
        return found

    def _read_open_orders(self, members: set[bytes]) -> None:
        t = tables.orders
        self._read_orders(t.c.subscriber_id.in_, members, t.c.is_open)

    def _read_orders(
        self,
        choose: Callable[[list[Any]], ColumnElement[bool]],
        values: Iterable[Any],
        also: ColumnElement[bool] | None = None,
    ) -> None:
        state = self.state
        for row in self._chosen(tables.orders, choose, values, also):
            order = state.orders.get(row.order_id)
            if order is None:
                order = state.orders[row.order_id] = order_of(row)
            member = state.members.get(order.subscriber_id)
            if order.is_open and member is not None:
                member.holds[order.order_id] = order

    def _read_order_lots(self) -> None:
        t, state = tables.order_lots, self.state
        stored = {order.row: order for order in state.orders.values() if order.stored}
        for number, lot_id, held, committed, refunded in self._chosen(
            t, t.c.request_number.in_, stored
        ):
            stored[number].lots[lot_id] = Hold(held, committed, refunded, True)
        for order in state.orders.values():
            if order.is_open:
                state.members[order.subscriber_id].holds[order.order_id] = order

    def _read_periods(self) -> None:
        rows = self.connection.execute(select(tables.periods.c.period, tables.periods.c.request_id))
        self.state.periods = {row[0]: row[1] for row in rows}

    def _read_lots(
        self,
        choose: Callable[[list[Any]], ColumnElement[bool]],
        values: set[bytes],
        also: ColumnElement[bool] | None = None,
    ) -> None:
        known = self.state.lots
        for row in self._chosen(tables.lots, choose, values, also):
            if row[0] not in known:
                self.state.put_lot(lot_of(row, self.terms_by_id))

    def _has_idle_terms(self) -> bool:
        return any(t.expiry_policy.startswith("inactivity(") for t in self.terms_by_id.values())

    def _put_conversion(self, row: AnyRow) -> None:
        conversion = conversion_of(row)
        self.state.conversions[conversion.target.conversion_key] = conversion
        self.stored.add(conversion.target.conversion_key)

    def _put_pending(self, row: AnyRow, conversion_key: bytes) -> None:
        item = pending_of(row, conversion_key, self.terms_by_id)
        at = (item.conversion_key, item.generation)
        self.state.pending[at] = item
        self.stored.add(at)


def read_terms(connection: Connection) -> dict[int, Terms]:
    """All terms by their number."""
    return {row[0]: Terms(*row[1:]) for row in connection.execute(select(tables.terms))}


def read_order(connection: Connection, order_id: bytes) -> Order | None:
    """An order that was accepted, with what it took of each lot."""
    orders, taken, requests = tables.orders, tables.order_lots, tables.requests
    number = select(requests.c.request_number).where(requests.c.request_id == order_id)
    placed = select(orders).where(orders.c.request_number == number.scalar_subquery())
    row = connection.execute(placed).first()
    if row is None:
        return None
    lots = connection.execute(select(taken).where(taken.c.request_number == row[0]))
    order = order_of(row)
    order.lots = {lot[1]: Hold(lot[2], lot[3], lot[4], True) for lot in lots}
    return order


def read_pins(connection: Connection, conversion_keys: Iterable[bytes]) -> dict[bytes, Pin]:
    """The rule each of these conversions was first rated under; those never rated are left out."""
    t, wanted = tables.conversions, sorted(conversion_keys)
    query = select(
        t.c.conversion_key, t.c.pinned_rule_id, t.c.pinned_rule_version,
        t.c.pinned_contract_version, t.c.pinned_rulebook_hash, t.c.pinned_terms_hash,
    ).where(t.c.pinned_rule_version != NO_ID)  # fmt: skip
    found = {}
    for at in range(0, len(wanted), CHUNK):
        chosen = query.where(t.c.conversion_key.in_(wanted[at : at + CHUNK]))
        found.update({row[0]: Pin(*row[1:]) for row in connection.execute(chosen)})
    return found


def read_targets(connection: Connection, conversion_keys: Iterable[bytes]) -> dict[bytes, Target]:
    """The newest target of each of these conversions; unknown ones are left out."""
    t, wanted = tables.conversions, sorted(conversion_keys)
    found = {}
    for at in range(0, len(wanted), CHUNK):
        chosen = select(t).where(t.c.conversion_key.in_(wanted[at : at + CHUNK]))
        for row in connection.execute(chosen):
            found[row.conversion_key] = conversion_of(row).target
    return found


def lot_of(row: Sequence[Any], terms: dict[int, Terms]) -> Lot:
    """A lot from its row."""
    values = [*row[:6], terms[row[6]], *row[7:], True]
    return Lot(*values)


def pending_of(row: AnyRow, conversion_key: bytes, terms: dict[int, Terms]) -> PendingItem:
    """A pending item of a conversion from its row."""
    return PendingItem._make((conversion_key, *row[1:3], terms[row[3]], *row[4:]))


def order_of(row: Sequence[Any]) -> Order:
    """An order from its row."""
    values: list[Any] = [*row[1:12], (row[12], row[13], row[14]), row[0], True]
    return Order(*values)


def conversion_of(row: Sequence[Any]) -> Conversion:
    """A conversion from its row; what explains its target only the store keeps."""
    target, rest = Target._make((*row[1 : TARGET_COLUMNS + 1], "")), row[TARGET_COLUMNS + 1 :]
    return Conversion(target, rest[0], rest[1], Pin(*rest[2:]), row[0])
