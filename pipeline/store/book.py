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
import functools
import gc
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
from sqlalchemy import Connection, delete, insert, select, update

from pipeline.ledger.commands import commands_of
from pipeline.ledger.due import post_due
from pipeline.ledger.lots import Lot, spending_key
from pipeline.ledger.posting import post_target
from pipeline.ledger.state import (
    Balance,
    LedgerState,
    Order,
    Pin,
    rules_of,
)
from pipeline.ledger.targets import Target, targets_of
from pipeline.ledger.terms import next_period, period_of, terms_of
from pipeline.ledger.transfers import FIRST_LINK, Booking, LotMove, postings_of_entry
from pipeline.model.batches import CommandBatch, CutBatch, EntryBatch, TargetBatch
from pipeline.model.identifiers import Keys, digest
from pipeline.model.words import RECORDED_COMMANDS, Result
from pipeline.rulebook.model import Rulebook
from pipeline.store import book_schema as tables
from pipeline.store.book_asof import balance_at
from pipeline.store.book_audit import audit
from pipeline.store.book_commands import places_of, post, put_on_record
from pipeline.store.book_engine import BookError, open_engine, wipe_deleted
from pipeline.store.book_entries import (
    Due,
    MemberPoints,
    Settlement,
    Standing,
    Waiting,
    all_balances,
    entries_after,
    entries_of_postings,
    ledger_hash,
    moves_of,
    posting_ids,
    settlements,
    waiting_requests,
)
from pipeline.store.book_migrate import MigrationError, migrate
from pipeline.store.book_money import Money
from pipeline.store.book_pages import HEAD_COLUMNS, Pages
from pipeline.store.book_reads import (
    CHUNK,
    conversion_of,
    lot_of,
    pending_of,
    read_order,
    read_pins,
    read_targets,
    read_terms,
)
from pipeline.store.book_register import DoneCut, Register, RuleVersion, Run
from pipeline.store.book_rules import Publication, Rerate, publications, rerates
from pipeline.store.book_trail import Deed, Head, deeds, heads, is_at
from pipeline.store.crash import crash_point
from pipeline.store.identity import Identities

TRANSACTION_ROWS = 1000
NO_DOUBTS: Mapping[bytes, str] = {}
# Facts of a programme that every amount of a book was written down under.
FIXED_FACTS = ("points", "points_scale", "currency", "timezone")


class Book:
    """Opens, or makes, the book at an SQLAlchemy URL. Raises BookError where it is another's."""

    def __init__(self, url: str, keys: Keys, rulebook: Rulebook) -> None:
        self._keys, self._key = keys, keys.audit
        self._engine = open_engine(url)
        self._lock = threading.RLock()
        self._one_connection = self._engine.pool.__class__.__name__ == "StaticPool"
        self.use(rulebook)
        try:
            with self._write() as connection:
                self._migrate(connection)
                self._open_meta(connection)
        except BaseException:
            self._engine.dispose()
            raise
        self.register = Register(self._read, self._write)
        self.money = Money(self._read, lambda: self._programme)
        self._identities = Identities(self._read, lambda: self._write(wipes=True), keys.identity)

    def close(self) -> None:
        """Give back the connections."""
        self._engine.dispose()

    def _migrate(self, connection: Connection) -> None:
        try:
            migrate(connection)
        except MigrationError as error:
            raise BookError(str(error)) from error

    def use(self, rulebook: Rulebook) -> None:
        """Take commands, and targets whose rulebook is unknown, by this rulebook from now on."""
        programme = rulebook.programme
        self._programme, self._terms = programme, terms_of(programme)
        self._rulebook_hash = rulebook.hash

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
            begun = {name: FIRST_LINK if name.endswith("link") else 0 for name in HEAD_COLUMNS}
            connection.execute(insert(tables.heads), {"head": 1, **begun})
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
    def _write(self, wipes: bool = False) -> Iterator[Connection]:
        with (
            self._lock,
            self._engine.connect().execution_options(writes=True, wipes=wipes) as connection,
            connection.begin(),
        ):
            yield connection

    # Posting

    def post_targets(
        self,
        targets: TargetBatch,
        *,
        cut: int,
        now_ns: int,
        run_id: bytes,
        actor: str,
        role: str = "",
        scope: str = "",
        re_rates: bool = False,
    ) -> np.ndarray:
        """Book the differences to these targets, in their order; one `Result` (uint8) each.

        `re_rates`: they are an approved re-rating, which may break pins; who approved it is its
        actor, with role and scope. Raises ValueError, before
        anything is booked, for targets that are a mistake of the caller.
        """
        rows = targets_of(targets)
        results = np.zeros(len(rows), np.uint8)
        for start in range(0, len(rows), TRANSACTION_ROWS):
            chunk = rows[start : start + TRANSACTION_ROWS]
            with self._pages(now_ns) as pages:
                booking = self._booking(pages, cut, now_ns, run_id, actor, role, scope)
                pages.read_for_targets(chunk)
                for number, target in enumerate(chunk, start):
                    answer = post_target(pages.state, target, re_rates)
                    results[number] = answer.result
                    pages.write(answer.postings, booking)
        return results

    def post_commands(
        self,
        commands: CommandBatch,
        *,
        cut: int,
        now_ns: int,
        run_id: bytes,
        actor: str,
        places: np.ndarray | None = None,
        doubts: Mapping[bytes, str] = NO_DOUBTS,
    ) -> np.ndarray:
        """Post commands (`ledger/commands.py`) in their order; one `Result` (uint8) each.

        The actor of a command is its own, with role and scope; `actor` stands in where it names
        none. `places` are their rows of the stream `commands` (int64): what people do has one row
        in the trail for each. `doubts`: by command id, why spending has to wait for a person
        (`store/doubts.py`). Raises ValueError for a kind of command that the book does not know.
        """
        rows, where = commands_of(commands), places_of(places, len(commands))
        results = np.zeros(len(rows), np.uint8)
        for start in range(0, len(rows), TRANSACTION_ROWS):
            stop = start + TRANSACTION_ROWS
            with self._pages(now_ns) as pages:
                pages.read_for_commands(rows[start:stop])
                asked = self._asker(pages, cut, now_ns, run_id, actor)
                each = post(pages, rows[start:stop], where[start:stop], asked, doubts)
                results[start:stop] = each
        return results

    def put_on_record(
        self,
        commands: CommandBatch,
        places: np.ndarray,
        *,
        cut: int,
        now_ns: int,
        run_id: bytes,
        actor: str,
    ) -> None:
        """Keep in the trail what people did that moves nothing here (`RECORDED_COMMANDS`)."""
        rows, where = commands_of(commands, RECORDED_COMMANDS), places_of(places, len(commands))
        for start in range(0, len(rows), TRANSACTION_ROWS):
            stop = start + TRANSACTION_ROWS
            with self._pages(now_ns) as pages:
                asked = self._asker(pages, cut, now_ns, run_id, actor)
                put_on_record(pages, rows[start:stop], where[start:stop], asked)

    def post_due(self, *, cut: int, now_ns: int, run_id: bytes, actor: str) -> Due:
        """Release reservations and let lots lapse whose time is over at `now_ns`."""
        released = lapsed = 0
        for start in itertools.count():
            with self._pages(now_ns) as pages:
                members = pages.due_members(now_ns, TRANSACTION_ROWS)
                if not members:
                    break
                booking = self._booking(pages, cut, now_ns, run_id, actor)
                pages.read_for_due(members)
                postings, releases = post_due(pages.state, members, now_ns)
                assert postings or not start, "what is due has to be booked"
                pages.write(postings, booking)
                released, lapsed = released + releases, lapsed + len(postings) - releases
                if not postings:
                    break
        return Due(released, lapsed)

    def _booking(
        self,
        pages: Pages,
        cut: int,
        now_ns: int,
        run_id: bytes,
        actor: str,
        role: str = "",
        scope: str = "",
    ) -> Booking:
        """How something is booked now: in the period of `now_ns`, or the next that is open."""
        period = period_of(now_ns, self._programme.timezone)
        while pages.is_closed(period):
            period = next_period(period)
        pages.state.booked_period = period
        words = (text.replace("\0", "\ufffd") for text in (actor, role, scope))
        return Booking(cut, now_ns, period, bytes(run_id), *words)

    def _asker(
        self, pages: Pages, cut: int, now_ns: int, run_id: bytes, actor: str
    ) -> Callable[[str, str, str], Booking]:
        """How what somebody asked is booked; `actor` stands in where nobody is named."""

        @functools.cache
        def booking_of(who: str, role: str, scope: str) -> Booking:
            return self._booking(pages, cut, now_ns, run_id, who or actor, role, scope)

        return booking_of

    @contextlib.contextmanager
    def _pages(self, now_ns: int) -> Iterator[Pages]:
        """One transaction: what is read and written between its beginning and its commit."""
        state = LedgerState(self._key, rules_of(self._programme, self._rulebook_hash))
        with _collector_paused(), self._write() as connection:
            pages = Pages(connection, state)
            yield pages
            pages.flush(now_ns)
            crash_point("book.before_commit")
        crash_point("book.after_commit")

    # Delivery

    def entries(self, after_sequence: int, limit: int = 1 << 16) -> EntryBatch:
        """Entries with a larger sequence number, in booking order: up to `limit`, whole transfers.

        A transfer has two, the debit and the credit, numbered one after the other.
        """
        with self._read() as connection:
            return entries_after(connection, after_sequence, max(limit, 2))

    def undelivered(self) -> tuple[int, int] | None:
        """First and last sequence number of the entries in the outbox; None where it is empty."""
        outbox = tables.outbox
        query = select(outbox).order_by(outbox.c.first_transfer)
        with self._read() as connection:
            rows = connection.execute(query).all()
        if not rows:
            return None
        return 2 * rows[0].first_transfer - 1, 2 * rows[-1].last_transfer

    def mark_delivered(self, sequence: int) -> None:
        """Take entries up to and including `sequence` out of the outbox, by whole transfers."""
        outbox, last = tables.outbox, sequence // 2
        with self._write() as connection:
            connection.execute(delete(outbox).where(outbox.c.last_transfer <= last))
            begun = outbox.c.first_transfer <= last
            rest = update(outbox).where(begun).values(first_transfer=last + 1)
            connection.execute(rest)

    # Asking

    def balances(self) -> dict[Balance, int]:
        """Balances that are not zero by (account, commodity); debits positive."""
        with self._read() as connection:
            return all_balances(connection, self._terms.commodity)

    def member(self, subscriber_id: bytes) -> MemberPoints:
        """A member's points."""
        t = tables.members
        query = select(t.c.pending, t.c.available, t.c.reserved, t.c.debt)
        with self._read() as connection:
            row = connection.execute(query.where(t.c.subscriber_id == bytes(subscriber_id))).first()
        if row is None:
            return MemberPoints(0, 0, 0, 0)
        return MemberPoints(-row.pending, -row.available, -row.reserved, row.debt)

    def knows(self, subscriber_id: bytes) -> bool:
        """Has somebody an account here? Whoever had points, or was frozen, has."""
        t = tables.members
        query = select(t.c.subscriber_id).where(t.c.subscriber_id == bytes(subscriber_id))
        with self._read() as connection:
            return connection.execute(query).first() is not None

    def lots(self, subscriber_id: bytes) -> list[Lot]:
        """A member's lots that hold points, free or reserved, in spending order of their dates."""
        lots = tables.lots
        there = (lots.c.remaining > 0) | (lots.c.held > 0)
        with self._read() as connection:
            terms = read_terms(connection)
            rows = connection.execute(
                select(lots).where(lots.c.subscriber_id == bytes(subscriber_id), there)
            ).all()
        return sorted((lot_of(row, terms) for row in rows), key=spending_key)

    def order(self, order_id: bytes) -> Order | None:
        """An order that was accepted, as it stands, with what it took of each lot."""
        with self._read() as connection:
            return read_order(connection, bytes(order_id))

    def request(self, request_id: bytes) -> Result | None:
        """What a command was answered; None where it was never asked."""
        t = tables.requests
        query = select(t.c.result).where(t.c.request_id == bytes(request_id))
        with self._read() as connection:
            found = connection.execute(query).scalar()
        return None if found is None else Result(found)

    def settled(self, request_ids: Iterable[bytes]) -> dict[bytes, Settlement]:
        """What the book keeps of these commands; those it was never asked are left out."""
        wanted = sorted({bytes(identifier) for identifier in request_ids})
        query = settlements()
        found = {}
        with self._read() as connection:
            for at in range(0, len(wanted), CHUNK):
                chosen = query.where(tables.requests.c.request_id.in_(wanted[at : at + CHUNK]))
                for row in connection.execute(chosen):
                    found[row[0]] = Settlement(row[1], Result(row[2]), row[3], row[4] or "")
        return found

    def awaiting(self) -> list[Waiting]:
        """Commands that wait for a second person, in the order of their times."""
        with self._read() as connection:
            return waiting_requests(connection)

    def balance_at(self, subscriber_id: bytes, at_ns: int, known_ns: int) -> MemberPoints:
        """A member's points at a time, by what was known at another; also of a time to come."""
        with self._read() as connection:
            found = balance_at(connection, self._programme, bytes(subscriber_id), at_ns, known_ns)
        return MemberPoints(*found)

    def liability_at(self, at_ns: int, known_ns: int) -> MemberPoints:
        """What is pending, available, reserved and owed of all members, as `balance_at`."""
        with self._read() as connection:
            return MemberPoints(*balance_at(connection, self._programme, None, at_ns, known_ns))

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
                select(items)
                .where(items.c.conversion_number == row.conversion_number)
                .order_by(items.c.generation)
            ).all()
            granted = connection.execute(
                select(lots).where(lots.c.cause_id == key, lots.c.amount > 0)
            ).all()
        return Standing(
            conversion_of(row),
            tuple(pending_of(item, key, terms) for item in pending),
            tuple(lot_of(lot, terms) for lot in granted),
        )

    def pinned(self, conversion_keys: np.ndarray | Iterable[bytes]) -> dict[bytes, Pin]:
        """The rule each conversion was first rated under; those never rated are left out."""
        with self._read() as connection:
            return read_pins(connection, {bytes(key) for key in conversion_keys})

    def targets(self, conversion_keys: np.ndarray | Iterable[bytes]) -> dict[bytes, Target]:
        """The newest target the book took of each of these conversions; unknown ones are left
        out.
        """
        with self._read() as connection:
            return read_targets(connection, {bytes(key) for key in conversion_keys})

    def entry(self, entry_id: bytes) -> EntryBatch:
        """The entry of this id: one row, or none."""
        wanted = bytes(entry_id)
        with self._read() as connection:
            found = entries_of_postings(connection, postings_of_entry(wanted))
        return found.take(np.array([bytes(v) == wanted for v in found.entry_id], np.bool_))

    def entries_of(self, cause_id: bytes) -> EntryBatch:
        """All entries of a cause (a conversion, an order, a command, a lot), in booking order."""
        with self._read() as connection:
            wanted = posting_ids(connection, self._key, self._terms.programme, bytes(cause_id))
            return entries_of_postings(connection, wanted)

    def moves(self, transfer_id: bytes) -> list[tuple[Lot, LotMove]]:
        """The lots, as they are now, that a transfer put points into or took them from; and how."""
        with self._read() as connection:
            found = moves_of(connection, bytes(transfer_id))
        return sorted(found, key=lambda pair: spending_key(pair[0]))

    def ledger_hash(self) -> str:
        """A hash of balances and of lots that hold points, without run ids and booking times.

        Equal for any order in which the same messages arrived, if nothing was spent between.
        """
        with self._read() as connection:
            return ledger_hash(connection, self._terms.programme, self._terms.commodity)

    def heads(self) -> list[Head]:
        """Where the hash chains stand (postings, requests, trail): to be kept elsewhere."""
        with self._read() as connection:
            return heads(connection)

    def is_at(self, head: Head) -> bool:
        """Does the chain still run through what was kept of it?"""
        with self._read() as connection:
            return is_at(connection, head)

    def trail(self, after: int = 0, limit: int = 1 << 16) -> list[Deed]:
        """What people did, and what was denied: rows with a larger number, in their order."""
        with self._read() as connection:
            return deeds(connection, after, limit)

    def audit(self) -> list[str]:
        """Every broken invariant as a sentence; empty for a sound book."""
        with self._read() as connection:
            found = audit(connection, self._key, self._programme)
        return found + self._identities.problems()

    # Rules, runs, cuts, identities

    def import_rulebook(self, rulebook: Rulebook) -> None:
        """Keep a rulebook's versions with their text; it is in force until the next import.

        Targets are booked on the terms of the rulebook that rated them, whichever is in force.
        Raises BookError as `know_rulebook` does.
        """
        self.know_rulebook(rulebook)
        self.use(rulebook)

    def know_rulebook(self, rulebook: Rulebook) -> None:
        """Keep a rulebook's versions with their text; what is in force does not change.

        Raises BookError for another programme, or another value of one of FIXED_FACTS.
        """
        for name in ("id", *FIXED_FACTS):
            ours, theirs = (getattr(p, name) for p in (self._programme, rulebook.programme))
            if ours != theirs:
                raise BookError(
                    f"this book is of a programme with {name} {ours!r}, the rulebook has {theirs!r}"
                )
        self.register.import_rulebook(rulebook)

    def publications(self) -> list[Publication]:
        """Rulebooks that somebody asked to be published, in the order of their asking."""
        with self._read() as connection:
            return publications(connection)

    def rerates(self, request_ids: Iterable[bytes]) -> list[Rerate]:
        """Those among these requests that are re-ratings and were approved."""
        with self._read() as connection:
            return rerates(connection, request_ids)

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
