"""Tables of the book, and the engine that opens them.

One SQLAlchemy Core schema for SQLite and PostgreSQL: ids are 16 bytes, times and amounts 64-bit
integers, everything else text. `open_engine` opens either so that the book sees no difference:

    one writer        a write transaction locks out all others from its beginning: SQLite's
                      BEGIN IMMEDIATE; an advisory lock of PostgreSQL, taken before anything is read
    readers           see one moment for as long as they read: write-ahead log; REPEATABLE READ
    a commit          is on the disk when it returns: `synchronous=FULL`; `synchronous_commit=on`
    an erased login   is overwritten: `secure_delete`; PostgreSQL's table is written anew

What only one of them understands stands there and in `wipe_deleted`, and nowhere else.

A change here is a revision in `migrations/versions` too (see `book_migrate`).

Append-only: `postings`, `transfers`, `lot_moves`, `lot_dates`, `freezes`, `origins`, `bookings`,
`periods`, `terms`, `rulebooks`, `rule_versions`, and `requests` but for the answer of one that waits
for a second person. The other tables hold the newest standing, which is a fold over those, and
`audit` checks that it is.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import (
    URL,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.pool import StaticPool

AnyRow = Row[*tuple[Any, ...]]
Session = Callable[[], AbstractContextManager[Connection]]  # one transaction each

WRITERS_LOCK = 0x4D50_424F_4F4B  # "MPBOOK": who holds it may write the book of a database
metadata = MetaData()

# SQLite keeps a table by an INTEGER key in that order, without a second index.
Number = BigInteger().with_variant(Integer, "sqlite")


def _id(name: str, **more: Any) -> Column:
    return Column(name, LargeBinary(16), nullable=False, **more)


def _int(name: str, **more: Any) -> Column:
    return Column(name, BigInteger, nullable=False, **more)


def _text(name: str, **more: Any) -> Column:
    return Column(name, Text, nullable=False, **more)


def _number(name: str) -> Column:
    return Column(name, Number, primary_key=True, autoincrement=False)


meta = Table("meta", metadata, _text("name", primary_key=True), _text("value"))

# One row: where numbering stands, and the newest link of the hash chain.
heads = Table(
    "heads",
    metadata,
    _number("head"),
    _int("postings"),
    _int("transfers"),
    _int("accounts"),
    _int("members"),
    Column("link", LargeBinary(32), nullable=False),
)

# Accounts that are not a member's. An account of these is known by its number below zero.
accounts = Table(
    "accounts",
    metadata,
    _number("account_id"),
    _text("account"),
    _text("commodity"),
    _int("balance"),
    UniqueConstraint("account", "commodity"),
)

# Members, with the balances of their four accounts, debits positive; `flags` say what else there is
# of a member that is seldom there (freezes).
members = Table(
    "members",
    metadata,
    _number("member_number"),
    _id("subscriber_id", unique=True),
    _int("pending"),
    _int("available"),
    _int("reserved"),
    _int("debt"),
    _int("since_ns"),
    _int("active_ns"),
    Column("flags", SmallInteger, nullable=False),
)

# Spending of a member stops, and goes on, from a time: append-only.
freezes = Table(
    "freezes",
    metadata,
    _id("request_id", primary_key=True),
    _id("subscriber_id", index=True),
    _int("from_ns"),
    Column("frozen", Boolean, nullable=False),
)

# What many postings share: how they came to be, and how they were booked.
origins = Table(
    "origins",
    metadata,
    _number("origin_id"),
    _text("cause_kind"),
    _text("partner"),
    _text("rule_id"),
    _id("rule_version"),
    _text("contract_version"),
    _id("rulebook_hash"),
    _text("campaign"),
    _id("consent_id"),
)
bookings = Table(
    "bookings",
    metadata,
    _number("booking_id"),
    _int("cut"),
    _int("booked_ns"),
    _text("period"),
    _id("run_id"),
    _text("actor"),
    _text("role"),
    _text("scope"),
)

postings = Table(
    "postings",
    metadata,
    _number("posting_number"),
    _id("posting_id", unique=True),
    _id("cause_id"),
    _int("cause_version"),
    _int("effective_ns"),
    _id("subscriber_id", index=True),
    _id("click_id"),
    _id("visit_id"),
    Column("origin_id", Number, ForeignKey(origins.c.origin_id), nullable=False),
    Column("booking_id", Number, ForeignKey(bookings.c.booking_id), nullable=False),
    _int("first_transfer"),
    Column("transfers", SmallInteger, nullable=False),
    Column("link", LargeBinary(32), nullable=False),
)

# `debit` and `credit` are numbers of accounts (see `ledger/accounts.py`), `kind` an EntryKind.
transfers = Table(
    "transfers",
    metadata,
    _number("transfer_number"),
    Column("posting_number", Number, ForeignKey(postings.c.posting_number), nullable=False),
    Column("kind", SmallInteger, nullable=False),
    _int("debit"),
    _int("credit"),
    _int("amount"),
)

# Ranges of transfers that are not delivered yet: written with them, in one transaction.
outbox = Table("outbox", metadata, _number("first_transfer"), _int("last_transfer"))

conversions = Table(
    "conversions",
    metadata,
    _id("conversion_key", primary_key=True),
    _int("fold"),
    _int("facts"),
    _int("facts_hash"),
    _id("subscriber_id"),
    _text("partner"),
    _text("conversion_id"),
    Column("state", SmallInteger, nullable=False),
    Column("reason", SmallInteger, nullable=False),
    _int("points"),
    _int("receivable_minor"),
    _int("cost_minor"),
    _int("margin_minor"),
    _text("currency"),
    _id("click_id"),
    _id("visit_id"),
    _int("event_ns"),
    _int("release_ns"),
    _text("rule_id"),
    _id("rule_version"),
    _text("contract_version"),
    _id("rulebook_hash"),
    _id("terms_hash"),
    _int("number"),
    _int("generation"),
    _text("pinned_rule_id"),
    _id("pinned_rule_version"),
    _text("pinned_contract_version"),
    _id("pinned_rulebook_hash"),
    _id("pinned_terms_hash"),
    sqlite_with_rowid=False,
)

# What many lots and pending items have in common; prices are fractions of money per point.
terms = Table(
    "terms",
    metadata,
    _number("terms_id"),
    _text("programme"),
    _text("commodity"),
    _text("source"),
    _text("campaign"),
    _text("region"),
    _text("funder"),
    _text("issue_price"),
    _text("settlement_price"),
    _text("expiry_policy"),
)

pending_items = Table(
    "pending_items",
    metadata,
    _id("conversion_key", primary_key=True),
    Column("generation", BigInteger, primary_key=True, autoincrement=False),
    _id("subscriber_id"),
    Column("terms_id", Number, ForeignKey(terms.c.terms_id), nullable=False),
    _text("contract_version"),
    _id("rule_version"),
    _int("event_ns"),
    _int("amount"),
    _int("confirmed"),
    _int("returned"),
    Column("resolved", Boolean, nullable=False),
    sqlite_with_rowid=False,
)

lots = Table(
    "lots",
    metadata,
    _id("lot_id", primary_key=True),
    _text("cause_kind"),
    _id("cause_id"),
    _id("conversion_key"),
    _id("parent_lot_id"),
    _id("subscriber_id", index=True),
    Column("terms_id", Number, ForeignKey(terms.c.terms_id), nullable=False),
    _text("contract_version"),
    _id("rule_version"),
    _int("earned_ns"),
    _int("spendable_from_ns"),
    _int("expires_ns"),
    _int("amount"),
    _int("remaining"),
    _int("held"),
    _int("lapsed"),
    _int("changes"),
    sqlite_with_rowid=False,
)
# What may lapse, by its date.
Index("lots_due", lots.c.expires_ns, sqlite_where=lots.c.remaining > 0,
      postgresql_where=lots.c.remaining > 0)  # fmt: skip

# The dates a lot had until others were booked; append-only.
lot_dates = Table(
    "lot_dates",
    metadata,
    _id("lot_id", primary_key=True),
    Column("until_ns", BigInteger, primary_key=True, autoincrement=False),
    _int("earned_ns"),
    _int("spendable_from_ns"),
    _int("expires_ns"),
    sqlite_with_rowid=False,
)

lot_moves = Table(
    "lot_moves",
    metadata,
    Column("transfer_number", Number, ForeignKey(transfers.c.transfer_number), primary_key=True),
    _id("lot_id", primary_key=True),
    _int("amount_change"),
    _int("remaining_change"),
    _int("held_change"),
    _int("lapsed_change"),
    sqlite_with_rowid=False,
)

# Commands and their answers: append-only, but for what awaits a second person.
requests = Table(
    "requests",
    metadata,
    _id("request_id", primary_key=True),
    _text("kind"),
    _text("ref"),
    _id("subscriber_id"),
    _int("points"),
    _int("event_ns"),
    _text("body"),
    _id("content"),
    Column("result", SmallInteger, nullable=False),
    Column("booking_id", Number, ForeignKey(bookings.c.booking_id), nullable=False),
    sqlite_with_rowid=False,
)

# Orders that were accepted, as they stand.
orders = Table(
    "orders",
    metadata,
    _id("order_id", primary_key=True),
    _id("subscriber_id"),
    _int("points"),
    _int("committed"),
    _int("refunded"),
    Column("is_open", Boolean, nullable=False),
    _int("hold_until_ns"),
    _int("number"),
    _text("redemption"),
    _text("item"),
    _int("quantity"),
    _text("region"),
    _text("channel"),
    _text("payee"),
    sqlite_with_rowid=False,
)
Index("orders_open", orders.c.subscriber_id, sqlite_where=orders.c.is_open,
      postgresql_where=orders.c.is_open)  # fmt: skip

# What an order took of each lot.
order_lots = Table(
    "order_lots",
    metadata,
    _id("order_id", primary_key=True),
    _id("lot_id", primary_key=True),
    _int("held"),
    _int("committed"),
    _int("refunded"),
    sqlite_with_rowid=False,
)

# Accounting periods that are closed, with where the book stood.
periods = Table(
    "periods",
    metadata,
    Column("period", Text, primary_key=True),
    _id("request_id"),
    _int("closed_ns"),
    _int("postings"),
    Column("link", LargeBinary(32), nullable=False),
)

# Points are issued on the terms of the rulebook that rated them.
rulebooks = Table(
    "rulebooks",
    metadata,
    _id("rulebook_hash", primary_key=True),
    _text("text"),
    Column("terms_id", Number, ForeignKey(terms.c.terms_id), nullable=False),
)

rule_versions = Table(
    "rule_versions",
    metadata,
    _id("version", primary_key=True),
    _text("kind", primary_key=True),
    _text("id", primary_key=True),
    _id("rulebook_hash"),
    _text("file"),
    _int("line"),
    _text("key"),
    _text("text"),
)

runs = Table(
    "runs",
    metadata,
    _id("run_id", primary_key=True),
    _text("kind"),
    _text("actor"),
    _id("rulebook_hash"),
    _int("started_ns"),
    _int("ended_ns"),
    _text("outcome"),
    _text("detail"),
)

# Cuts whose job was done: the book's answer to "how far are we".
cuts = Table(
    "cuts",
    metadata,
    _number("number"),
    _text("name"),
    _int("now_ns"),
    _text("position"),
    _int("repeat_of"),
    _id("run_id"),
)

# The only table that knows a login, sealed; an erased row keeps its id so that it stays erased.
identities = Table(
    "identities",
    metadata,
    _id("subscriber_id", primary_key=True),
    Column("nonce", LargeBinary(12)),
    Column("sealed", LargeBinary),
    _int("put_ns"),
    _int("erased_ns"),
)


def open_engine(url: str, *, wait_seconds: float = 30.0) -> Engine:
    """An engine for the book's URL; `sqlite://` is a book in memory, on one connection.

    `wait_seconds` is how long SQLite waits for another process that writes.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        return _open_postgresql(parsed)
    in_memory = parsed.database in (None, "", ":memory:")
    engine = (
        create_engine(parsed, poolclass=StaticPool, connect_args={"check_same_thread": False})
        if in_memory
        else create_engine(parsed, connect_args={"timeout": wait_seconds})
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we begin transactions ourselves, below
        for pragma in (
            "journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "foreign_keys=OFF",
            "cache_size=-65536", "temp_store=MEMORY", "wal_autocheckpoint=8192",
        ):  # fmt: skip
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _open_postgresql(url: URL) -> Engine:
    """An engine for PostgreSQL, by psycopg unless the URL names another driver."""
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    engine = create_engine(url, isolation_level="REPEATABLE READ", pool_pre_ping=True)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get("writes", False):
            # What waits for a lock under REPEATABLE READ has its view of before, and would fail.
            for statement in (
                "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
                "SET LOCAL synchronous_commit = on",
                f"SELECT pg_advisory_xact_lock({WRITERS_LOCK})",
            ):
                connection.exec_driver_sql(statement)

    return engine


def wipe_deleted(engine: Engine) -> bool:
    """Remove what was deleted from the files; False where somebody still reads it.

    SQLite's write-ahead log is emptied. PostgreSQL's table of identities is written anew; its
    archived log, if it keeps one, is for whoever keeps it.
    """
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(f"VACUUM (FULL) {identities.name}")
        return True
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (busy, *_), *_ = cursor.fetchall()
        cursor.close()
        return bool(busy == 0)
    finally:
        raw.close()
