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
    Update,
    bindparam,
    insert,
    select,
    update,
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
    entry_id,
    entry_link,
    header_bytes,
    transfer_id,
)
from pipeline.model.identifiers import NO_ID
from pipeline.model.words import Result, TargetState
from pipeline.store import book_schema as tables
from pipeline.store.book_schema import AnyRow

CHUNK = 500  # values in one IN list
TARGET_COLUMNS = len(Target._fields)


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
        self.terms_ids: dict[Terms, int] = {}
        self.terms_by_id: dict[int, Terms] = {}
        self.stored: set[Any] = set()  # keys of rows that are there already
        self.rows: dict[Table, list[dict[str, Any]]] = {
            tables.transfers: [],
            tables.entries: [],
            tables.lot_moves: [],
            tables.orders: [],
        }
        for row in connection.execute(select(tables.terms)):
            self._know_terms(Terms(*row[1:]), row[0])

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
            tables.pending_items.c.resolved == 0,
        ):
            self._put_pending(row)
        available = [x for x in sides if x.standing == TargetState.AVAILABLE]
        own = {state.own_lot_id(x.conversion_key, x.subscriber_id) for x in available}
        self._read_lots(tables.lots.c.lot_id.in_, own)
        givers = self._givers(targets)
        self._read_lots(tables.lots.c.subscriber_id.in_, givers, tables.lots.c.remaining > 0)

    def _givers(self, targets: Sequence[Target]) -> set[bytes]:
        """Members who may lose points: what their own lot lacks comes from their other lots."""
        givers = set()
        times = Counter(target.conversion_key for target in targets)
        for target in targets:
            held = self.state.conversions.get(target.conversion_key)
            if held is not None and held.target.standing == TargetState.AVAILABLE:
                old = held.target
                stays = old.subscriber_id == target.subscriber_id
                if not (stays and target.standing == old.standing and target.points >= old.points):
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
                booking.actor,
            )
            self.rows[tables.transfers].append(
                {"transfer_number": self.transfers, **header._asdict()}
            )
            self._write_legs(header, transfer.legs)
            self.rows[tables.lot_moves] += [
                {"transfer_number": self.transfers, **move._asdict()} for move in transfer.moves
            ]

    def _write_legs(self, header: Header, legs: tuple[Leg, ...]) -> None:
        key, rows = self.state.key, self.rows[tables.entries]
        hashed = header_bytes(header)
        for leg, moved in enumerate(legs):
            self.sequence += 1
            self.link = entry_link(key, self.link, hashed, self.sequence, leg, moved)
            rows.append(
                {
                    "sequence": self.sequence,
                    "entry_id": entry_id(key, header.transfer_id, leg),
                    "transfer_number": self.transfers,
                    "leg": leg,
                    "account_id": self._account_id(moved, header.subscriber_id),
                    "amount": moved.amount,
                    "link": self.link,
                }
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
        self.rows[tables.orders].append(
            {
                **order._asdict(),
                "result": int(result),
                "booked_ns": booking.now_ns,
                "cut": booking.cut,
                "actor": booking.actor,
                "run_id": booking.run_id,
            }
        )

    def flush(self) -> None:
        """Write everything down, in an order that references allow."""
        state = self.state
        self._flush_accounts()
        for table, rows in self.rows.items():
            if rows:
                self.connection.execute(insert(table), rows)
        self._put(
            tables.conversions,
            [
                (key, conversion_row(state.conversions[key]))
                for key in sorted(state.changed_conversions)
            ],
            ("conversion_key",),
        )
        self._put(
            tables.pending_items,
            [(at, self._with_terms(state.pending[at])) for at in sorted(state.changed_pending)],
            ("conversion_key", "generation"),
        )
        self._put(
            tables.lots,
            [(key, self._with_terms(state.lots[key])) for key in sorted(state.changed_lots)],
            ("lot_id",),
        )
        if self.sequence >= self.first_new:
            span = {"first_sequence": self.first_new, "last_sequence": self.sequence}
            self.connection.execute(insert(tables.outbox), span)
        head = {
            "sequence": self.sequence,
            "transfers": self.transfers,
            "accounts": self.last_account,
            "link": self.link,
        }
        self.connection.execute(update(tables.heads), head)

    def _flush_accounts(self) -> None:
        changed = [
            (
                at,
                {
                    "account_id": self.account_ids[at],
                    "account": at[0],
                    "commodity": at[1],
                    "subscriber_id": self.owners.get(at[0], NO_ID),
                    "balance": self.state.balances[at],
                },
            )
            for at in sorted(self.state.changed_balances, key=self.account_ids.__getitem__)
        ]
        fresh = [row for at, row in changed if at not in self.stored]
        if fresh:
            self.connection.execute(insert(tables.accounts), fresh)
        known = [
            {"at_account_id": row["account_id"], "balance": row["balance"]}
            for at, row in changed
            if at in self.stored
        ]
        if known:
            self.connection.execute(_update(tables.accounts, ("account_id",), ("balance",)), known)

    def _put(
        self, table: Table, rows: list[tuple[Any, dict[str, Any]]], key: tuple[str, ...]
    ) -> None:
        """Insert the rows that are new and update those that are there."""
        fresh = [row for at, row in rows if at not in self.stored]
        if fresh:
            self.connection.execute(insert(table), fresh)
        known = [row for at, row in rows if at in self.stored]
        if known:
            for row in known:
                for name in key:
                    row[f"at_{name}"] = row.pop(name)
            names = tuple(name for name in known[0] if not name.startswith("at_"))
            self.connection.execute(_update(table, key, names), known)

    def _with_terms(self, row: Lot | PendingItem) -> dict[str, Any]:
        values = row._asdict()
        found = values.pop("terms")
        if found not in self.terms_ids:
            number = len(self.terms_ids) + 1
            self._know_terms(found, number)
            self.connection.execute(insert(tables.terms), {"terms_id": number, **found._asdict()})
        values["terms_id"] = self.terms_ids[found]
        return values

    def _know_terms(self, found: Terms, number: int) -> None:
        self.terms_ids[found] = number
        self.terms_by_id[number] = found


def _update(table: Table, key: tuple[str, ...], names: Sequence[str]) -> Update:
    """An update by key; the key's values are bound as `at_<column>`."""
    chosen = [table.c[name] == bindparam(f"at_{name}") for name in key]
    return update(table).where(*chosen).values({name: bindparam(name) for name in names})


def lot_of(row: AnyRow, terms: dict[int, Terms]) -> Lot:
    """A lot from its row."""
    return Lot._make((*row[:3], terms[row[3]], *row[4:]))


def pending_of(row: AnyRow, terms: dict[int, Terms]) -> PendingItem:
    """A pending item from its row."""
    return PendingItem._make((*row[:3], terms[row[3]], *row[4:10], bool(row[10])))


def conversion_of(row: AnyRow) -> Conversion:
    """A conversion from its row."""
    target, rest = Target(*row[:TARGET_COLUMNS]), row[TARGET_COLUMNS:]
    return Conversion(target, rest[0], rest[1], Pin(*rest[2:]))


def conversion_row(conversion: Conversion) -> dict[str, Any]:
    """A conversion as its row."""
    values = conversion.target._asdict()
    values["number"], values["generation"] = conversion.number, conversion.generation
    for name, value in conversion.pin._asdict().items():
        values[f"pinned_{name}"] = value
    return values
