"""The book as its first version had it.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

from typing import Any

from alembic import op
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    UniqueConstraint,
)

revision = "0001"
down_revision = None

Number = BigInteger().with_variant(Integer, "sqlite")


def _id(name: str, **more: Any) -> Column:
    return Column(name, LargeBinary(16), nullable=False, **more)


def _int(name: str, **more: Any) -> Column:
    return Column(name, BigInteger, nullable=False, **more)


def _text(name: str, **more: Any) -> Column:
    return Column(name, Text, nullable=False, **more)


def _number(name: str) -> Column:
    return Column(name, Number, primary_key=True, autoincrement=False)


def upgrade() -> None:
    """Make every table."""
    _entries()
    _conversions()
    _lots()
    _register()


def _entries() -> None:
    """What was booked, by whom, and where numbering stands."""
    op.create_table("meta", _text("name", primary_key=True), _text("value"))
    op.create_table(
        "heads",
        _number("head"),
        _int("sequence"),
        _int("transfers"),
        _int("accounts"),
        Column("link", LargeBinary(32), nullable=False),
    )
    op.create_table(
        "accounts",
        _number("account_id"),
        _text("account"),
        _text("commodity"),
        _id("subscriber_id", index=True),
        _int("balance"),
        UniqueConstraint("account", "commodity"),
    )
    op.create_table(
        "transfers",
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
    op.create_table(
        "entries",
        _number("sequence"),
        Column("transfer_number", Number, ForeignKey("transfers.transfer_number"), nullable=False),
        Column("leg", SmallInteger, nullable=False),
        Column("account_id", Number, ForeignKey("accounts.account_id"), nullable=False),
        _int("amount"),
        Column("link", LargeBinary(32), nullable=False),
    )
    op.create_table("outbox", _number("first_sequence"), _int("last_sequence"))


def _conversions() -> None:
    """What each conversion stands for, and the terms of points."""
    op.create_table(
        "terms",
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
    op.create_table(
        "conversions",
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


def _lots() -> None:
    """Points that wait, points that are there, and what was asked of them."""
    op.create_table(
        "pending_items",
        _id("conversion_key", primary_key=True),
        Column("generation", BigInteger, primary_key=True, autoincrement=False),
        _id("subscriber_id"),
        Column("terms_id", Number, ForeignKey("terms.terms_id"), nullable=False),
        _text("contract_version"),
        _id("rule_version"),
        _int("event_ns"),
        _int("amount"),
        _int("confirmed"),
        _int("returned"),
        Column("resolved", Boolean, nullable=False),
    )
    op.create_table(
        "lots",
        _id("lot_id", primary_key=True),
        _id("conversion_key"),
        _id("subscriber_id", index=True),
        Column("terms_id", Number, ForeignKey("terms.terms_id"), nullable=False),
        _text("contract_version"),
        _id("rule_version"),
        _int("earned_ns"),
        _int("spendable_from_ns"),
        _int("expires_ns"),
        _int("amount"),
        _int("remaining"),
    )
    op.create_table(
        "lot_moves",
        Column(
            "transfer_number", Number, ForeignKey("transfers.transfer_number"), primary_key=True
        ),
        _id("lot_id", primary_key=True),
        _int("amount_change"),
        _int("remaining_change"),
    )
    op.create_table(
        "orders",
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


def _register() -> None:
    """Rules, runs, cuts and logins."""
    op.create_table(
        "rulebooks",
        _id("rulebook_hash", primary_key=True),
        _text("text"),
        Column("terms_id", Number, ForeignKey("terms.terms_id"), nullable=False),
    )
    op.create_table(
        "rule_versions",
        _id("version", primary_key=True),
        _text("kind", primary_key=True),
        _text("id", primary_key=True),
        _id("rulebook_hash"),
        _text("file"),
        _int("line"),
        _text("key"),
        _text("text"),
    )
    op.create_table(
        "runs",
        _id("run_id", primary_key=True),
        _text("kind"),
        _text("actor"),
        _id("rulebook_hash"),
        _int("started_ns"),
        _int("ended_ns"),
        _text("outcome"),
        _text("detail"),
    )
    op.create_table(
        "cuts",
        _number("number"),
        _text("name"),
        _int("now_ns"),
        _text("position"),
        _int("repeat_of"),
        _id("run_id"),
    )
    op.create_table(
        "identities",
        _id("subscriber_id", primary_key=True),
        Column("nonce", LargeBinary(12)),
        Column("sealed", LargeBinary),
        _int("put_ns"),
        _int("erased_ns"),
    )
