"""The book: the only place where points exist.

It takes absolute targets and orders in transactions of up to a thousand, answers each with a result
code, and books the difference: double entry, lots, pending items, a hash chain, and a note in the
outbox, all in one commit. Posting again what was posted is answered `EXISTS` and changes nothing,
so after a crash the same cut is simply sent once more.

The logic is `pipeline.ledger`, which knows no database; `book_pages` reads and writes for it,
`book_schema` has the tables, `book_audit` checks them. The book knows no clock: `now_ns` is the
cut's. Amounts are integers of a commodity's smallest unit; a positive amount debits, a negative one
credits.

Measured by `tests/bench/book.py` on a machine whose two cores were busy with other work, in targets
per second of processor time: first seen 12,700, confirmed with money 6,200, corrected 6,900, sent
once more 20,900, orders 5,600. That is 0.2 to 0.3 of writing the same rows and nothing else.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, Select, delete, insert, select, update

from pipeline.ledger.accounts import balance_shown, member_accounts
from pipeline.ledger.lots import Lot, spending_key
from pipeline.ledger.orders import post_order
from pipeline.ledger.posting import post_target
from pipeline.ledger.state import Balance, Conversion, LedgerState, PendingItem, Pin
from pipeline.ledger.targets import orders_of, plain_column, targets_of
from pipeline.ledger.terms import period_of, terms_of
from pipeline.ledger.transfers import (
    CONVERSION,
    FIRST_LINK,
    ORDER,
    LotMove,
    entry_id,
    transfers_of_cause,
    transfers_of_entry,
)
from pipeline.model.batches import CommandBatch, CutBatch, EntryBatch, TargetBatch
from pipeline.model.columns import ID_DTYPE, TextColumn, columns_of, ids
from pipeline.model.identifiers import NO_ID, Keys, digest
from pipeline.rulebook.model import Rulebook
from pipeline.store import book_schema as tables
from pipeline.store.book_audit import audit
from pipeline.store.book_engine import BookError, open_engine, wipe_deleted
from pipeline.store.book_migrate import MigrationError, migrate
from pipeline.store.book_pages import (
    CHUNK,
    Booking,
    Pages,
    conversion_of,
    lot_of,
    pending_of,
    read_terms,
)
from pipeline.store.book_register import DoneCut, Register, RuleVersion, Run
from pipeline.store.book_schema import AnyRow
from pipeline.store.crash import crash_point
from pipeline.store.identity import Identities

TRANSACTION_ROWS = 1000
# Facts of a programme that every amount of a book was written down under.
FIXED_FACTS = ("points", "points_scale", "currency", "timezone")


@dataclass(frozen=True, slots=True)
class MemberPoints:
    """A member's points, each a number of its own: `debt` is what the member owes."""

    pending: int
    available: int
    reserved: int
    debt: int


@dataclass(frozen=True, slots=True)
class Standing:
    """All the book knows of a conversion; lots with nothing granted any more are left out."""

    conversion: Conversion
    pending: tuple[PendingItem, ...]
    lots: tuple[Lot, ...]


class Book:
    """Opens, or makes, the book at an SQLAlchemy URL. Raises BookError where it is another's."""

    def __init__(self, url: str, keys: Keys, rulebook: Rulebook) -> None:
        self._keys, self._key = keys, keys.audit
        self._engine = open_engine(url)
        self._lock = threading.RLock()
        self._one_connection = self._engine.pool.__class__.__name__ == "StaticPool"
        self._use(rulebook)
        with self._write() as connection:
            self._migrate(connection)
            self._open_meta(connection)
        self.register = Register(self._read, self._write)
        self._identities = Identities(self._read, self._write, keys.identity)

    def close(self) -> None:
        """Give back the connections."""
        self._engine.dispose()

    def _migrate(self, connection: Connection) -> None:
        try:
            migrate(connection)
        except MigrationError as error:
            raise BookError(str(error)) from error

    def _use(self, rulebook: Rulebook) -> None:
        programme = rulebook.programme
        self._programme, self._terms = programme, terms_of(programme)

    def _open_meta(self, connection: Connection) -> None:
        expected = {
            "programme": self._programme.id,
            **{name: str(getattr(self._programme, name)) for name in FIXED_FACTS},
            "test": "yes" if self._keys.test else "no",
            "keys": digest(self._key, "book keys").hex(),
        }
        found = {row.name: row.value for row in connection.execute(select(tables.meta))}
        if not found:
            rows = [{"name": name, "value": value} for name, value in expected.items()]
            connection.execute(insert(tables.meta), rows)
            head = {"head": 1, "sequence": 0, "transfers": 0, "accounts": 0, "link": FIRST_LINK}
            connection.execute(insert(tables.heads), head)
            return
        for name, value in expected.items():
            if found.get(name) != value:
                shown = "" if name == "keys" else f": it has {found.get(name)!r}, not {value!r}"
                raise BookError(f"this book was made with another {name.replace('_', ' ')}{shown}")

    @property
    def test(self) -> bool:
        """Is this a book of test keys?"""
        return self._keys.test

    @contextlib.contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._lock if self._one_connection else contextlib.nullcontext():  # noqa: SIM117
            with self._engine.connect() as connection:
                yield connection

    @contextlib.contextmanager
    def _write(self) -> Iterator[Connection]:
        with (
            self._lock,
            self._engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
        ):
            yield connection

    # Posting

    def post_targets(
        self, targets: TargetBatch, *, cut: int, now_ns: int, run_id: bytes, actor: str
    ) -> np.ndarray:
        """Book the differences to these targets, in their order; one `Result` (uint8) each.

        Raises ValueError, before anything is booked, for targets that are a mistake of the caller.
        """
        rows = targets_of(targets)
        booking = self._booking(cut, now_ns, run_id, actor)
        results = np.zeros(len(rows), np.uint8)
        for start in range(0, len(rows), TRANSACTION_ROWS):
            chunk = rows[start : start + TRANSACTION_ROWS]
            with self._pages() as pages:
                pages.read_for_targets(chunk)
                for number, target in enumerate(chunk, start):
                    posting = post_target(pages.state, target)
                    results[number] = posting.result
                    pages.write(posting, booking)
        return results

    def post_orders(
        self, orders: CommandBatch, *, cut: int, now_ns: int, run_id: bytes, actor: str
    ) -> np.ndarray:
        """Spend points by `order` commands, in their order; one `Result` (uint8) each.

        The actor of an order is the command's own; `actor` stands in where it names none.
        """
        rows = orders_of(orders)
        actors = plain_column(orders.actor)
        results = np.zeros(len(rows), np.uint8)
        for start in range(0, len(rows), TRANSACTION_ROWS):
            chunk = rows[start : start + TRANSACTION_ROWS]
            with self._pages() as pages:
                pages.read_for_orders(chunk)
                for number, order in enumerate(chunk, start):
                    booking = self._booking(cut, now_ns, run_id, actors[number] or actor)
                    known = order.order_id in pages.state.orders
                    posting = post_order(pages.state, order)
                    results[number] = posting.result
                    if not known:
                        pages.write_order(order, posting.result, booking)
                    pages.write(posting, booking)
        return results

    def _booking(self, cut: int, now_ns: int, run_id: bytes, actor: str) -> Booking:
        period = period_of(now_ns, self._programme.timezone)
        return Booking(cut, now_ns, period, bytes(run_id), actor.replace("\0", "\ufffd"))

    @contextlib.contextmanager
    def _pages(self) -> Iterator[Pages]:
        """One transaction: what is read and written between its beginning and its commit."""
        programme = self._programme
        state = LedgerState(self._key, self._terms, programme.timezone, programme.version)
        with _collector_paused(), self._write() as connection:
            pages = Pages(connection, state)
            yield pages
            pages.flush()
            crash_point("book.before_commit")
        crash_point("book.after_commit")

    # Delivery

    def entries(self, after_sequence: int, limit: int = 1 << 16) -> EntryBatch:
        """Up to `limit` entries with a larger sequence number, in booking order."""
        entries = tables.entries
        query = _entry_query().where(entries.c.sequence > after_sequence)
        with self._read() as connection:
            rows = connection.execute(query.order_by(entries.c.sequence).limit(limit)).all()
        return entry_batch(rows)

    def undelivered(self) -> tuple[int, int] | None:
        """First and last sequence number of the entries in the outbox; None where it is empty."""
        outbox = tables.outbox
        query = select(outbox).order_by(outbox.c.first_sequence)
        with self._read() as connection:
            rows = connection.execute(query).all()
        return (rows[0].first_sequence, rows[-1].last_sequence) if rows else None

    def mark_delivered(self, sequence: int) -> None:
        """Take entries up to and including `sequence` out of the outbox."""
        outbox = tables.outbox
        with self._write() as connection:
            connection.execute(delete(outbox).where(outbox.c.last_sequence <= sequence))
            begun = outbox.c.first_sequence <= sequence
            rest = update(outbox).where(begun).values(first_sequence=sequence + 1)
            connection.execute(rest)

    # Asking

    def balances(self) -> dict[Balance, int]:
        """Balances that are not zero by (account, commodity); debits positive."""
        accounts = tables.accounts
        query = select(accounts.c.account, accounts.c.commodity, accounts.c.balance)
        with self._read() as connection:
            rows = connection.execute(query.where(accounts.c.balance != 0)).all()
        return {(row.account, row.commodity): row.balance for row in sorted(rows)}

    def member(self, subscriber_id: bytes) -> MemberPoints:
        """A member's points."""
        accounts = tables.accounts
        names = member_accounts(bytes(subscriber_id))
        query = select(accounts.c.account, accounts.c.balance).where(
            accounts.c.account.in_(names), accounts.c.commodity == self._terms.commodity
        )
        with self._read() as connection:
            found = {row.account: row.balance for row in connection.execute(query)}
        return MemberPoints(*(balance_shown(name, found.get(name, 0)) for name in names))

    def lots(self, subscriber_id: bytes) -> list[Lot]:
        """A member's lots that hold points, in spending order."""
        lots = tables.lots
        chosen = (lots.c.subscriber_id == bytes(subscriber_id), lots.c.remaining > 0)
        with self._read() as connection:
            terms = read_terms(connection)
            rows = connection.execute(select(lots).where(*chosen)).all()
        return sorted((lot_of(row, terms) for row in rows), key=spending_key)

    def conversion(self, conversion_key: bytes) -> Standing | None:
        """What the book knows of a conversion; None where no target of it was ever accepted."""
        key = bytes(conversion_key)
        conversions, items, lots = tables.conversions, tables.pending_items, tables.lots
        with self._read() as connection:
            row = connection.execute(
                select(conversions).where(conversions.c.conversion_key == key)
            ).first()
            if row is None:
                return None
            terms = read_terms(connection)
            pending = connection.execute(
                select(items).where(items.c.conversion_key == key).order_by(items.c.generation)
            ).all()
            granted = connection.execute(
                select(lots).where(lots.c.conversion_key == key, lots.c.amount > 0)
            ).all()
        return Standing(
            conversion_of(row),
            tuple(pending_of(item, terms) for item in pending),
            tuple(lot_of(lot, terms) for lot in granted),
        )

    def pinned(self, conversion_keys: np.ndarray | Iterable[bytes]) -> dict[bytes, Pin]:
        """The rule each conversion was first rated under; those never rated are left out."""
        wanted = sorted({bytes(key) for key in conversion_keys})
        t = tables.conversions
        query = select(
            t.c.conversion_key, t.c.pinned_rule_id, t.c.pinned_rule_version,
            t.c.pinned_contract_version, t.c.pinned_rulebook_hash, t.c.pinned_terms_hash,
        ).where(t.c.pinned_rule_version != NO_ID)  # fmt: skip
        found = {}
        with self._read() as connection:
            for at in range(0, len(wanted), CHUNK):
                chosen = query.where(t.c.conversion_key.in_(wanted[at : at + CHUNK]))
                found.update({row[0]: Pin(*row[1:]) for row in connection.execute(chosen)})
        return found

    def entry(self, entry_id: bytes) -> EntryBatch:
        """The entry of this id: one row, or none."""
        wanted = bytes(entry_id)
        chosen = tables.transfers.c.transfer_id.in_(transfers_of_entry(wanted))
        found = self._entries_where(chosen)
        return found.take(np.array([bytes(v) == wanted for v in found.entry_id], np.bool_))

    def entries_of(self, cause_id: bytes) -> EntryBatch:
        """All entries of a cause (a conversion's key, an order's id), in booking order."""
        cause, t = bytes(cause_id), tables.conversions
        with self._read() as connection:
            number = connection.execute(
                select(t.c.number).where(t.c.conversion_key == cause)
            ).scalar()
        kind = CONVERSION if number else ORDER
        wanted = transfers_of_cause(self._key, self._terms.programme, kind, cause, number or 1)
        return self._entries_where(tables.transfers.c.transfer_id.in_(wanted))

    def _entries_where(self, chosen: object) -> EntryBatch:
        query = _entry_query().where(chosen)  # type: ignore[arg-type]
        with self._read() as connection:
            rows = connection.execute(query.order_by(tables.entries.c.sequence)).all()
        return entry_batch(rows)

    def moves(self, transfer_id: bytes) -> list[tuple[Lot, LotMove]]:
        """The lots, as they are now, that a transfer put points into or took them from; and how."""
        transfers, moves, lots = tables.transfers, tables.lot_moves, tables.lots
        query = (
            select(moves.c.lot_id, moves.c.amount_change, moves.c.remaining_change, lots)
            .join(transfers, transfers.c.transfer_number == moves.c.transfer_number)
            .join(lots, lots.c.lot_id == moves.c.lot_id)
            .where(transfers.c.transfer_id == bytes(transfer_id))
        )
        with self._read() as connection:
            terms = read_terms(connection)
            rows = connection.execute(query).all()
        found = [(lot_of(row[3:], terms), LotMove._make(row[:3])) for row in rows]
        return sorted(found, key=lambda pair: spending_key(pair[0]))

    def ledger_hash(self) -> str:
        """A hash of balances and of lots that hold points, without run ids and booking times.

        Equal for any order in which the same messages arrived, if nothing was spent between.
        """
        h = hashlib.blake2b(self._terms.programme.encode(), digest_size=16)
        lots, accounts = tables.lots, tables.accounts
        columns = (
            lots.c.conversion_key, lots.c.subscriber_id, lots.c.contract_version,
            lots.c.rule_version, lots.c.earned_ns, lots.c.spendable_from_ns, lots.c.expires_ns,
            lots.c.amount, lots.c.remaining,
        )  # fmt: skip
        balances = select(accounts.c.account, accounts.c.commodity, accounts.c.balance)
        with self._read() as connection:
            rows = [tuple(r) for r in connection.execute(balances.where(accounts.c.balance != 0))]
            held = [
                tuple(r) for r in connection.execute(select(*columns).where(lots.c.remaining > 0))
            ]
        for row in (*sorted(rows), *sorted(held)):
            words = (v.hex() if isinstance(v, bytes) else str(v) for v in row)
            h.update("\t".join(words).encode() + b"\n")
        return h.hexdigest()

    def audit(self) -> list[str]:
        """Every broken invariant as a sentence; empty for a sound book."""
        with self._read() as connection:
            found = audit(connection, self._key, self._programme)
        return found + self._identities.problems()

    # Rules, runs, cuts, identities

    def import_rulebook(self, rulebook: Rulebook) -> None:
        """Keep a rulebook's versions with their text; it is in force until the next import.

        Targets are booked on the terms of the rulebook that rated them, whichever is in force.
        Raises BookError for another programme, or another value of one of FIXED_FACTS.
        """
        for name in ("id", *FIXED_FACTS):
            ours, theirs = (getattr(p, name) for p in (self._programme, rulebook.programme))
            if ours != theirs:
                raise BookError(
                    f"this book is of a programme with {name} {ours!r}, the rulebook has {theirs!r}"
                )
        self.register.import_rulebook(rulebook)
        self._use(rulebook)

    def rulebook_text(self, rulebook_hash: bytes) -> str | None:
        """The full text of a rulebook (JSON: file name to text), None where it is unknown."""
        return self.register.rulebook_text(bytes(rulebook_hash))

    def rule_version(self, version: bytes) -> RuleVersion | None:
        """What a rule version is and where it was written, None where it is unknown."""
        return self.register.rule_version(bytes(version))

    def put_run(self, run: Run) -> None:
        """Write down a run, or its end."""
        self.register.put_run(run)

    def runs(self) -> list[Run]:
        """All runs, by their beginning."""
        return self.register.runs()

    def finish_cut(self, cut: CutBatch, run_id: bytes) -> None:
        """Note that the job of this cut (one row) is done. Doing so again changes nothing."""
        self.register.finish_cut(cut, bytes(run_id))

    def cut_done(self, number: int) -> bool:
        """Is the job of this cut done?"""
        return self.register.cut_done(number)

    def last_cut(self) -> DoneCut | None:
        """The cut with the largest number whose job is done."""
        return self.register.last_cut()

    def put_identity(self, subscriber_id: bytes, login: str, now_ns: int = 0) -> None:
        """Keep the login of a subscriber, sealed."""
        self.put_identities({bytes(subscriber_id): login}, now_ns)

    def put_identities(self, logins: dict[bytes, str], now_ns: int = 0) -> int:
        """Keep logins by subscriber id, sealed, in one transaction; how many were written."""
        return self._identities.put(logins, now_ns)

    def identity(self, subscriber_id: bytes) -> str | None:
        """The login of a subscriber; None where it is unknown or erased."""
        return self._identities.login(bytes(subscriber_id))

    def erase(self, subscriber_id: bytes, now_ns: int = 0) -> bool:
        """Destroy the login of a subscriber for good; was there one?

        When it returns, no byte of it is left in the book's files. Raises BookError where readers
        kept it there; then ask again. PostgreSQL's log, standbys and backups keep it, sealed, until
        they are recycled (see `book_engine`).
        """
        there = self._identities.erase([bytes(subscriber_id)], now_ns) > 0
        if not wipe_deleted(self._engine):
            raise BookError(
                "the login is erased, but its sealed bytes stay in the files while somebody still"
                " reads as before; erase once more"
            )
        return there


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """No garbage collection for one transaction.

    Postings make thousands of tuples and no cycles; walking them again and again took a quarter of
    the time.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _entry_query() -> Select:
    """Entries with the columns of an `EntryBatch`; entry ids are made of transfer ids after."""
    found = {c.name: c for t in (tables.accounts, tables.transfers, tables.entries) for c in t.c}
    found["subscriber_id"] = tables.transfers.c.subscriber_id
    found["entry_id"] = tables.transfers.c.transfer_id
    return (
        select(*(found[column.name].label(column.name) for column in columns_of(EntryBatch)))
        .select_from(tables.entries)
        .join(tables.transfers)
        .join(tables.accounts)
    )


def entry_batch(rows: Sequence[AnyRow]) -> EntryBatch:
    """Rows of the entry query as a batch."""
    if not rows:
        return EntryBatch.empty()
    columns = dict(zip(rows[0]._fields, zip(*rows, strict=True), strict=True))
    columns["entry_id"] = tuple(map(entry_id, columns["transfer_id"], columns["leg"]))
    made: dict[str, Any] = {}
    for column in columns_of(EntryBatch):
        values = columns[column.name]
        if column.dtype is None:
            made[column.name] = TextColumn.of(values)
        elif column.dtype == ID_DTYPE:
            made[column.name] = ids(values)
        else:
            made[column.name] = np.array(values, column.dtype)
    return EntryBatch(**made)
