"""Tables of the book.

One SQLAlchemy Core schema for SQLite and PostgreSQL: ids are 16 bytes, times and amounts 64-bit
integers, everything else text. `book_engine` opens either database.

A change here is a revision in `migrations/versions` too (see `book_migrate`).

Append-only: `postings`, `transfers`, `lot_moves`, `lot_dates`, `freezes`, `origins`, `bookings`,
`periods`, `trail`, `terms`, `rulebooks`, `rule_versions`, `doubts`, and `requests` but for the
answer of one that waits for a second person. The other tables hold the newest standing, which is a
fold over those, and `audit` checks that it is.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
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
)

AnyRow = Row[*tuple[Any, ...]]
Session = Callable[[], AbstractContextManager[Connection]]  # one transaction each

metadata = MetaData()

# SQLite keeps a table by an INTEGER key in that order, without a second index.
Number = BigInteger().with_variant(Integer, "sqlite")


def _id(name: str, **more: Any) -> Column:
    return Column(name, LargeBinary(16), nullable=False, **more)


def _int(name: str, **more: Any) -> Column:
    return Column(name, BigInteger, nullable=False, **more)


def _text(name: str, **more: Any) -> Column:
    return Column(name, Text, nullable=False, **more)


def _link(name: str) -> Column:
    return Column(name, LargeBinary(32), nullable=False)


def _number(name: str) -> Column:
    return Column(name, Number, primary_key=True, autoincrement=False)


meta = Table("meta", metadata, _text("name", primary_key=True), _text("value"))

# One row: where numbering stands, and the newest links of the three hash chains: postings, requests
# with their first answers, and what people did.
heads = Table(
    "heads",
    metadata,
    _number("head"),
    _int("postings"),
    _int("transfers"),
    _int("accounts"),
    _int("members"),
    _int("conversions"),
    _int("requests"),
    _int("trail"),
    _link("link"),
    _link("requests_link"),
    _link("trail_link"),
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
    _int("last_posting"),
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
Index("bookings_of", bookings.c.cut, bookings.c.actor)

# `previous` is the posting before about the same member: who wants a member's postings follows it
# from `members.last_posting`. An index would be written at as many places as there are members.
postings = Table(
    "postings",
    metadata,
    _number("posting_number"),
    _id("posting_id", unique=True),
    _id("cause_id"),
    _int("cause_version"),
    _int("effective_ns"),
    _id("subscriber_id"),
    _int("previous"),
    _id("click_id"),
    _id("visit_id"),
    Column("origin_id", Number, ForeignKey(origins.c.origin_id), nullable=False),
    Column("booking_id", Number, ForeignKey(bookings.c.booking_id), nullable=False),
    _int("first_transfer"),
    Column("transfers", SmallInteger, nullable=False),
    _link("link"),
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
    _number("conversion_number"),
    _id("conversion_key", unique=True),
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
    Column(
        "conversion_number",
        Number,
        ForeignKey(conversions.c.conversion_number),
        primary_key=True,
        autoincrement=False,
    ),
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
    _int("lapsed_ns"),
    _int("lapsed_last"),
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

# Commands and their answers: append-only, but for what awaits a second person. `decided_by` is the
# number of the command by which that person decided, 0 where there is none.
requests = Table(
    "requests",
    metadata,
    _number("request_number"),
    _id("request_id", unique=True),
    _text("kind"),
    _text("ref"),
    _id("subscriber_id"),
    _int("points"),
    _int("event_ns"),
    _text("body"),
    _id("content"),
    Column("result", SmallInteger, nullable=False),
    Column("booking_id", Number, ForeignKey(bookings.c.booking_id), nullable=False),
    _int("decided_by"),
    _link("link"),
)

# What people did, and what was denied: one row for each command of theirs in the journal, `place`
# being its row in the stream. Append-only.
trail = Table(
    "trail",
    metadata,
    _number("trail_number"),
    _int("place"),
    _id("command_id"),
    _text("action"),
    _text("object"),
    _text("before"),
    _text("after"),
    _text("reason"),
    _text("result"),
    _int("asked_ns"),
    Column("booking_id", Number, ForeignKey(bookings.c.booking_id), nullable=False),
    _link("link"),
)
Index("trail_place", trail.c.place)

# Why commands had to wait for a second person that members sent: the fraud codes that held, as
# JSON; append-only.
doubts = Table(
    "doubts",
    metadata,
    Column(
        "request_number",
        Number,
        ForeignKey(requests.c.request_number),
        primary_key=True,
        autoincrement=False,
    ),
    _text("codes"),
)

# Orders that were accepted, as they stand. An order is known by the number of the command that
# asked for it, so that its rows lie where the newest rows do.
orders = Table(
    "orders",
    metadata,
    Column(
        "request_number",
        Number,
        ForeignKey(requests.c.request_number),
        primary_key=True,
        autoincrement=False,
    ),
    _id("order_id"),
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
)
Index("orders_open", orders.c.subscriber_id, sqlite_where=orders.c.is_open,
      postgresql_where=orders.c.is_open)  # fmt: skip

# What an order took of each lot.
order_lots = Table(
    "order_lots",
    metadata,
    Column(
        "request_number",
        Number,
        ForeignKey(orders.c.request_number),
        primary_key=True,
        autoincrement=False,
    ),
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
    _link("link"),
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
