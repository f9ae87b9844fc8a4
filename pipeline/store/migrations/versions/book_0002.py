"""Postings of transfers, members, lots that lapse, commands and orders.

A transfer has two accounts and one amount, and postings are chained, where transfers had legs and
every leg was chained. What the first revision booked cannot be read so: its chain was made of other
rows. A book is a projection of its journal, so one that has entries is made again from there.

Revision ID: 0002
Revises: 0001
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
    text,
)

revision = "0002"
down_revision = "0001"

Number = BigInteger().with_variant(Integer, "sqlite")
FORMER = (
    "lot_moves", "lots", "pending_items", "conversions", "orders", "outbox", "entries",
    "transfers", "accounts", "heads",
)  # fmt: skip
AGAIN = (
    "this book was made before postings: its journal makes it again,"
    " `mirrorpoint replay STATE --state NEW`"
)


def _id(name: str, **more: Any) -> Column:
    return Column(name, LargeBinary(16), nullable=False, **more)


def _int(name: str, **more: Any) -> Column:
    return Column(name, BigInteger, nullable=False, **more)


def _text(name: str, **more: Any) -> Column:
    return Column(name, Text, nullable=False, **more)


def _number(name: str) -> Column:
    return Column(name, Number, primary_key=True, autoincrement=False)


def _link(name: str) -> Column:
    return Column(name, LargeBinary(32), nullable=False)


def upgrade() -> None:
    """Make the tables anew. Raises RuntimeError for a book that has entries."""
    connection = op.get_bind()
    if connection.execute(text("SELECT sequence FROM entries LIMIT 1")).first() is not None:
        raise RuntimeError(AGAIN)
    head = connection.execute(text("SELECT link FROM heads")).scalar()
    for name in FORMER:
        op.drop_table(name)
    connection.execute(text("DELETE FROM meta WHERE name = 'schema_version'"))
    _heads()
    _postings()
    _conversions()
    _lots()
    _asked()
    if head is not None:
        heads = text("INSERT INTO heads VALUES (1, 0, 0, 0, 0, 0, 0, 0, :link, :link, :link)")
        connection.execute(heads, {"link": head})


def _heads() -> None:
    """Where numbering stands, accounts and members."""
    op.create_table(
        "heads",
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
    op.create_table(
        "accounts",
        _number("account_id"),
        _text("account"),
        _text("commodity"),
        _int("balance"),
        UniqueConstraint("account", "commodity"),
    )
    op.create_table(
        "members",
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
    op.create_table(
        "freezes",
        _id("request_id", primary_key=True),
        _id("subscriber_id", index=True),
        _int("from_ns"),
        Column("frozen", Boolean, nullable=False),
    )


def _postings() -> None:
    """What was booked, by whom, and how it came to be."""
    op.create_table(
        "origins",
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
    op.create_table(
        "bookings",
        _number("booking_id"),
        _int("cut"),
        _int("booked_ns"),
        _text("period"),
        _id("run_id"),
        _text("actor"),
        _text("role"),
        _text("scope"),
    )
    op.create_index("bookings_of", "bookings", ["cut", "actor"])
    op.create_table(
        "postings",
        _number("posting_number"),
        _id("posting_id", unique=True),
        _id("cause_id"),
        _int("cause_version"),
        _int("effective_ns"),
        _id("subscriber_id"),
        _int("previous"),
        _id("click_id"),
        _id("visit_id"),
        Column("origin_id", Number, ForeignKey("origins.origin_id"), nullable=False),
        Column("booking_id", Number, ForeignKey("bookings.booking_id"), nullable=False),
        _int("first_transfer"),
        Column("transfers", SmallInteger, nullable=False),
        _link("link"),
    )
    op.create_table(
        "transfers",
        _number("transfer_number"),
        Column("posting_number", Number, ForeignKey("postings.posting_number"), nullable=False),
        Column("kind", SmallInteger, nullable=False),
        _int("debit"),
        _int("credit"),
        _int("amount"),
    )
    op.create_table(
        "outbox",
        _number("first_transfer"),
        _int("last_transfer"),
    )


def _conversions() -> None:
    """What each conversion stands for."""
    op.create_table(
        "conversions",
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
    op.create_table(
        "pending_items",
        Column(
            "conversion_number",
            Number,
            ForeignKey("conversions.conversion_number"),
            primary_key=True,
            autoincrement=False,
        ),
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
        sqlite_with_rowid=False,
    )


def _lots() -> None:
    """Where points are."""
    op.create_table(
        "lots",
        _id("lot_id", primary_key=True),
        _text("cause_kind"),
        _id("cause_id"),
        _id("conversion_key"),
        _id("parent_lot_id"),
        _id("subscriber_id", index=True),
        Column("terms_id", Number, ForeignKey("terms.terms_id"), nullable=False),
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
    op.create_table(
        "lot_dates",
        _id("lot_id", primary_key=True),
        Column("until_ns", BigInteger, primary_key=True, autoincrement=False),
        _int("earned_ns"),
        _int("spendable_from_ns"),
        _int("expires_ns"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "lot_moves",
        Column(
            "transfer_number", Number, ForeignKey("transfers.transfer_number"), primary_key=True
        ),
        _id("lot_id", primary_key=True),
        _int("amount_change"),
        _int("remaining_change"),
        _int("held_change"),
        _int("lapsed_change"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "lots_due",
        "lots",
        ["expires_ns"],
        sqlite_where=text("remaining > 0"),
        postgresql_where=text("remaining > 0"),
    )


def _asked() -> None:
    """What was asked, and what came of it."""
    op.create_table(
        "requests",
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
        Column("booking_id", Number, ForeignKey("bookings.booking_id"), nullable=False),
        _int("decided_by"),
        _link("link"),
    )
    op.create_table(
        "trail",
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
        Column("booking_id", Number, ForeignKey("bookings.booking_id"), nullable=False),
        _link("link"),
    )
    op.create_index("trail_place", "trail", ["place"])
    _orders()


def _orders() -> None:
    """Orders, what they took of lots, and closed periods."""
    op.create_table(
        "doubts",
        Column(
            "request_number",
            Number,
            ForeignKey("requests.request_number"),
            primary_key=True,
            autoincrement=False,
        ),
        _text("codes"),
    )
    op.create_table(
        "orders",
        Column(
            "request_number",
            Number,
            ForeignKey("requests.request_number"),
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
    op.create_table(
        "order_lots",
        Column(
            "request_number",
            Number,
            ForeignKey("orders.request_number"),
            primary_key=True,
            autoincrement=False,
        ),
        _id("lot_id", primary_key=True),
        _int("held"),
        _int("committed"),
        _int("refunded"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "periods",
        Column("period", Text, primary_key=True),
        _id("request_id"),
        _int("closed_ns"),
        _int("postings"),
        _link("link"),
    )
    op.create_index(
        "orders_open",
        "orders",
        ["subscriber_id"],
        sqlite_where=text("is_open"),
        postgresql_where=text("is_open"),
    )
