"""Tables of the book.

One SQLAlchemy Core schema for SQLite and PostgreSQL: ids are 16 bytes, times and amounts 64-bit
integers, everything else text. `book_engine` opens either database.

A change here is a revision in `migrations/versions` too (see `book_migrate`).

Append-only: `transfers`, `entries`, `lot_moves`, `orders`, `terms`, `rulebooks`, `rule_versions`.
The other tables hold the newest standing, which is a fold over those, and `audit` checks that it
is.
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


def _number(name: str) -> Column:
    return Column(name, Number, primary_key=True, autoincrement=False)


meta = Table("meta", metadata, _text("name", primary_key=True), _text("value"))

# One row: where numbering stands, and the newest link of the hash chain.
heads = Table(
    "heads",
    metadata,
    _number("head"),
    _int("sequence"),
    _int("transfers"),
    _int("accounts"),
    Column("link", LargeBinary(32), nullable=False),
)

accounts = Table(
    "accounts",
    metadata,
    _number("account_id"),
    _text("account"),
    _text("commodity"),
    _id("subscriber_id", index=True),
    _int("balance"),
    UniqueConstraint("account", "commodity"),
)

transfers = Table(
    "transfers",
    metadata,
    _number("transfer_number"),
    _id("transfer_id", unique=True),
    _id("subscriber_id"),
    _id("cause_id"),
    _id("conversion_key"),
    _id("click_id"),
    _id("visit_id"),
    _id("rule_version"),
    _id("rulebook_hash"),
    _id("run_id"),
    _id("consent_id"),
    _int("cause_version"),
    _int("effective_ns"),
    _int("booked_ns"),
    _int("cut"),
    _text("kind"),
    _text("period"),
    _text("cause_kind"),
    _text("partner"),
    _text("rule_id"),
    _text("contract_version"),
    _text("campaign"),
    _text("actor"),
)

entries = Table(
    "entries",
    metadata,
    _number("sequence"),
    Column("transfer_number", Number, ForeignKey(transfers.c.transfer_number), nullable=False),
    Column("leg", SmallInteger, nullable=False),
    Column("account_id", Number, ForeignKey(accounts.c.account_id), nullable=False),
    _int("amount"),
    Column("link", LargeBinary(32), nullable=False),
)

# Ranges of entries that are not delivered yet: written with the entries, in one transaction.
outbox = Table("outbox", metadata, _number("first_sequence"), _int("last_sequence"))

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
    _text("explanation"),
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
)

lots = Table(
    "lots",
    metadata,
    _id("lot_id", primary_key=True),
    _id("conversion_key"),
    _id("subscriber_id", index=True),
    Column("terms_id", Number, ForeignKey(terms.c.terms_id), nullable=False),
    _text("contract_version"),
    _id("rule_version"),
    _int("earned_ns"),
    _int("spendable_from_ns"),
    _int("expires_ns"),
    _int("amount"),
    _int("remaining"),
)

lot_moves = Table(
    "lot_moves",
    metadata,
    Column("transfer_number", Number, ForeignKey(transfers.c.transfer_number), primary_key=True),
    _id("lot_id", primary_key=True),
    _int("amount_change"),
    _int("remaining_change"),
)

orders = Table(
    "orders",
    metadata,
    _id("order_id", primary_key=True),
    _text("ref"),
    _id("subscriber_id"),
    _int("points"),
    _int("event_ns"),
    _text("redemption"),
    _text("region"),
    _text("channel"),
    _text("payee"),
    Column("result", SmallInteger, nullable=False),
    _int("booked_ns"),
    _int("cut"),
    _text("actor"),
    _id("run_id"),
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
