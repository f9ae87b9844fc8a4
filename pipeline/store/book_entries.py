"""What the book is asked for in rows: entries, balances, lot moves, commands that wait.

A transfer is two entries, its debit and its credit; they are made here, for whoever wants them as
rows of a double-entry book. A posting is about one member, so the account of a bucket is named
without a look at members.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import ColumnElement, Connection, Select, func, select

from pipeline.ledger.accounts import BUCKETS, KIND_WORDS, member_accounts
from pipeline.ledger.lots import Lot
from pipeline.ledger.state import Conversion, PendingItem
from pipeline.ledger.transfers import (
    COMMAND,
    CONVERSION,
    LOT,
    ORDER,
    LotMove,
    entry_id,
    posting_id,
    postings_of_transfer,
    transfer_id,
)
from pipeline.model.batches import EntryBatch
from pipeline.model.columns import ID_DTYPE, TextColumn, columns_of, ids
from pipeline.model.identifiers import NO_ID, id_text
from pipeline.model.words import Result
from pipeline.store import book_schema as tables
from pipeline.store.book_reads import lot_of, read_terms
from pipeline.store.book_schema import AnyRow

CHUNK = 500


@dataclass(frozen=True, slots=True)
class MemberPoints:
    """A member's points, each a number of its own: `debt` is what the member owes."""

    pending: int
    available: int
    reserved: int
    debt: int


@dataclass(frozen=True, slots=True)
class Due:
    """What ended by itself: reservations released, lots lapsed."""

    released: int
    lapsed: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a command was answered, a digest of what it said, the cut it was posted at, and why it
    had to wait, where it did.
    """

    content: bytes
    result: Result
    cut: int
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """All the book knows of a conversion; lots with nothing granted any more are left out."""

    conversion: Conversion
    pending: tuple[PendingItem, ...]
    lots: tuple[Lot, ...]


class Waiting(NamedTuple):
    """A command that waits for a second person; `doubt` are the fraud codes why, as JSON."""

    request_id: bytes
    kind: str
    ref: str
    subscriber_id: bytes
    points: int
    event_ns: int
    body: str
    actor: str
    role: str
    scope: str
    doubt: str


def all_balances(connection: Connection, commodity: str) -> dict[tuple[str, str], int]:
    """Balances that are not zero by (account, commodity); debits positive."""
    accounts, members = tables.accounts, tables.members
    query = select(accounts.c.account, accounts.c.commodity, accounts.c.balance)
    found = {
        (row.account, row.commodity): row.balance
        for row in connection.execute(query.where(accounts.c.balance != 0))
    }
    buckets = (members.c.pending, members.c.available, members.c.reserved, members.c.debt)
    for who, *balances in connection.execute(select(members.c.subscriber_id, *buckets)):
        for name, balance in zip(member_accounts(who), balances, strict=True):
            if balance:
                found[name, commodity] = balance
    return dict(sorted(found.items()))


def entries_after(connection: Connection, after_sequence: int, limit: int) -> EntryBatch:
    """Up to `limit` entries behind a sequence number."""
    t, first = tables.transfers, after_sequence // 2
    chosen = t.c.transfer_number.between(first + 1, first + limit // 2)
    return _batch(connection, _rows(connection, chosen))


def entries_of_postings(connection: Connection, wanted: Sequence[bytes]) -> EntryBatch:
    """All entries of postings with these ids, in booking order."""
    rows: list[AnyRow] = []
    for at in range(0, len(wanted), CHUNK):
        p = tables.postings
        query = select(p.c.posting_number, p.c.first_transfer, p.c.transfers)
        chosen = query.where(p.c.posting_id.in_(wanted[at : at + CHUNK]))
        for _, first, count in connection.execute(chosen).all():
            of_one = tables.transfers.c.transfer_number.between(first, first + count - 1)
            rows += _rows(connection, of_one)
    return _batch(connection, sorted(rows, key=lambda row: row.transfer_number))


def posting_ids(connection: Connection, key: bytes, programme: str, cause: bytes) -> list[bytes]:
    """The ids that postings about something can have: a conversion, order, command or lot."""
    numbers = {COMMAND: 2}
    conversions, lots = tables.conversions, tables.lots
    orders, requests = tables.orders, tables.requests
    asked = select(requests.c.request_number).where(requests.c.request_id == cause)
    for kind, query in (
        (CONVERSION, select(conversions.c.number).where(conversions.c.conversion_key == cause)),
        (ORDER, select(orders.c.number).where(orders.c.request_number == asked.scalar_subquery())),
        (LOT, select(lots.c.changes).where(lots.c.lot_id == cause)),
    ):
        numbers[kind] = connection.execute(query).scalar() or 0
    return [
        posting_id(key, programme, kind, cause, version)
        for kind, last in numbers.items()
        for version in range(1, last + 1)
    ]


def _rows(connection: Connection, chosen: ColumnElement[bool]) -> list[AnyRow]:
    """Transfers with their postings, in booking order."""
    t, p = tables.transfers, tables.postings
    query = (
        select(t, *(column for column in p.columns if column.name not in ("transfers", "link")))
        .join(p, p.c.posting_number == t.c.posting_number)
        .where(chosen)
        .order_by(t.c.transfer_number)
    )
    return list(connection.execute(query).all())


def _batch(connection: Connection, rows: Sequence[AnyRow]) -> EntryBatch:
    """The entries of transfers: a debit and a credit each."""
    if not rows:
        return EntryBatch.empty()
    transfers = dict(zip(rows[0]._fields, zip(*rows, strict=True), strict=True))
    columns: dict[str, Any] = {
        name: transfers[name]
        for name in ("cause_id", "cause_version", "subscriber_id", "click_id", "visit_id",
                     "effective_ns", "amount")
    }  # fmt: skip
    columns |= _shared(connection, transfers)
    columns["kind"] = [KIND_WORDS[kind] for kind in transfers["kind"]]
    columns["lots"], origins = _lots(connection, transfers["transfer_number"])
    columns["conversion_key"] = [
        cause if kind == CONVERSION else origins.get(cause, NO_ID)
        for cause, kind in zip(columns["cause_id"], columns["cause_kind"], strict=True)
    ]
    steps = (
        (posting, number - first)
        for posting, number, first in zip(
            transfers["posting_id"], transfers["transfer_number"], transfers["first_transfer"],
            strict=True,
        )
    )  # fmt: skip
    columns["transfer_id"] = [transfer_id(*step) for step in steps]
    return _doubled(connection, columns, transfers)


def _doubled(
    connection: Connection, columns: dict[str, Any], transfers: dict[str, Any]
) -> EntryBatch:
    """Every row twice: what is debited, then what is credited."""
    names = _account_names(connection)
    count = len(columns["amount"])
    sides: list[tuple[str, str]] = []
    for debit, credit, member in zip(
        transfers["debit"], transfers["credit"], transfers["subscriber_id"], strict=True
    ):
        one, other = names(debit, member), names(credit, member)
        commodity = one[1] or other[1]
        sides += ((one[0], commodity), (other[0], commodity))
    made: dict[str, Any] = {}
    legs = np.tile(np.array([0, 1], np.uint16), count)
    for column in columns_of(EntryBatch):
        if column.name in columns:
            values = [value for value in columns[column.name] for _ in (0, 1)]
        elif column.name == "leg":
            made["leg"] = legs
            continue
        elif column.name == "sequence":
            numbers = np.repeat(np.array(transfers["transfer_number"], np.int64), 2)
            made["sequence"] = numbers * 2 - 1 + legs
            continue
        elif column.name == "entry_id":
            values = [entry_id(t, leg) for t in columns["transfer_id"] for leg in (0, 1)]
        elif column.name == "account":
            values = [account for account, _ in sides]
        else:
            assert column.name == "commodity", column.name
            values = [commodity for _, commodity in sides]
        if column.dtype is None:
            made[column.name] = TextColumn.of(values)
        elif column.dtype == ID_DTYPE:
            made[column.name] = ids(values)
        else:
            made[column.name] = np.array(values, column.dtype)
    made["amount"] = np.where(legs == 0, made["amount"], -made["amount"])
    return EntryBatch(**made)


def _lots(connection: Connection, numbers: Sequence[int]) -> tuple[list[str], dict[bytes, bytes]]:
    """What each transfer did to lots, as JSON; and the conversion behind each of these lots."""
    m, lots = tables.lot_moves, tables.lots
    query = (
        select(m.c.transfer_number, m.c.lot_id, lots.c.conversion_key, lots.c.cause_id,
               m.c.amount_change, m.c.remaining_change, m.c.held_change, m.c.lapsed_change)
        .join(lots, lots.c.lot_id == m.c.lot_id)
        .order_by(m.c.transfer_number, m.c.lot_id)
    )  # fmt: skip
    moved: dict[int, list[list[Any]]] = {}
    origins: dict[bytes, bytes] = {}
    for at in range(0, len(numbers), CHUNK):
        some = numbers[at : at + CHUNK]
        number = m.c.transfer_number
        # Those of one cause may lie far from each other.
        in_a_row = some[-1] - some[0] < len(some)
        chosen = number.between(some[0], some[-1]) if in_a_row else number.in_(some)
        for transfer, lot, conversion, cause, granted, *changes in connection.execute(
            query.where(chosen)
        ):
            origins[lot] = conversion
            source = conversion if conversion != NO_ID else cause
            points = max(map(abs, changes)) or abs(granted)
            moved.setdefault(transfer, []).append([id_text(lot), id_text(source), points])
    told = (json.dumps(moved[n], separators=(",", ":")) if n in moved else "" for n in numbers)
    return list(told), origins


def _shared(connection: Connection, transfers: dict[str, Any]) -> dict[str, list[Any]]:
    """The columns of origins and bookings, row by row."""
    found: dict[str, list[Any]] = {}
    for table in (tables.origins, tables.bookings):
        key, *columns = table.columns
        wanted = sorted(set(transfers[key.name]))
        rows: dict[int, AnyRow] = {}
        for at in range(0, len(wanted), CHUNK):
            query = select(table).where(key.in_(wanted[at : at + CHUNK]))
            rows |= {row[0]: row for row in connection.execute(query)}
        chosen = [rows[number] for number in transfers[key.name]]
        for at, column in enumerate(columns, 1):
            found[column.name] = [row[at] for row in chosen]
    return found


def _account_names(connection: Connection) -> Any:
    """What gives an account's name and commodity; that of a member's account is the other side's,
    or the programme's.
    """
    query = select(tables.meta.c.value).where(tables.meta.c.name == "points")
    points = connection.execute(query).scalar() or ""
    accounts = {row[0]: (row[1], row[2]) for row in connection.execute(select(tables.accounts))}

    def name(number: int, member: bytes) -> tuple[str, str]:
        if number < 0:
            return accounts[number]
        return member_accounts(member)[number % BUCKETS], points

    return name


def moves_of(connection: Connection, transfer: bytes) -> list[tuple[Lot, LotMove]]:
    """The lots, as they are now, that a transfer changed, with how it did."""
    p, m, lots = tables.postings, tables.lot_moves, tables.lots
    wanted = postings_of_transfer(transfer)
    rows = connection.execute(
        select(p.c.posting_id, p.c.first_transfer).where(p.c.posting_id.in_(wanted))
    ).all()
    terms, found = read_terms(connection), []
    for identifier, first in rows:
        step = wanted.index(identifier)
        query = (
            select(m.c.lot_id, m.c.amount_change, m.c.remaining_change, m.c.held_change,
                   m.c.lapsed_change, lots)
            .join(lots, lots.c.lot_id == m.c.lot_id)
            .where(m.c.transfer_number == first + step)
        )  # fmt: skip
        for row in connection.execute(query):
            found.append((lot_of(row[5:], terms), LotMove(step, *row[:5])))
    return found


def ledger_hash(connection: Connection, programme: str, commodity: str) -> str:
    """A hash of balances that are not zero and of lots that hold points."""
    h = hashlib.blake2b(programme.encode(), digest_size=16)
    lots = tables.lots
    columns = (
        lots.c.conversion_key, lots.c.subscriber_id, lots.c.contract_version,
        lots.c.rule_version, lots.c.earned_ns, lots.c.spendable_from_ns, lots.c.expires_ns,
        lots.c.amount, lots.c.remaining, lots.c.held, lots.c.lapsed,
    )  # fmt: skip
    query = select(*columns).where((lots.c.remaining > 0) | (lots.c.held > 0))
    balances = all_balances(connection, commodity)
    held = [tuple(row) for row in connection.execute(query)]
    rows = sorted((*at, balance) for at, balance in balances.items())
    for row in (*rows, *sorted(held)):
        words = (v.hex() if isinstance(v, bytes) else str(v) for v in row)
        h.update("\t".join(words).encode() + b"\n")
    return h.hexdigest()


def waiting_requests(connection: Connection) -> list[Waiting]:
    """Commands that wait for a second person, in the order of their times."""
    r, b, d = tables.requests, tables.bookings, tables.doubts
    query = (
        select(r.c.request_id, r.c.kind, r.c.ref, r.c.subscriber_id, r.c.points, r.c.event_ns,
               r.c.body, b.c.actor, b.c.role, b.c.scope, func.coalesce(d.c.codes, ""))
        .join(b, b.c.booking_id == r.c.booking_id)
        .outerjoin(d, d.c.request_number == r.c.request_number)
        .where(r.c.result == int(Result.AWAITING_APPROVAL))
        .order_by(r.c.event_ns, r.c.request_id)
    )  # fmt: skip
    return [Waiting._make(row) for row in connection.execute(query)]


def settlements() -> Select[Any]:
    """Commands: id, content, answer, the cut they were posted at, and why they had to wait."""
    r, b, d = tables.requests, tables.bookings, tables.doubts
    return (
        select(r.c.request_id, r.c.content, r.c.result, b.c.cut, d.c.codes)
        .join(b, b.c.booking_id == r.c.booking_id)
        .outerjoin(d, d.c.request_number == r.c.request_number)
    )
