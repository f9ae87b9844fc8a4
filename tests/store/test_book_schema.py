"""The schema is one for SQLite and PostgreSQL, and says everything a row of money must say."""

from __future__ import annotations

from inspect import signature
from pathlib import Path

import pytest
from sqlalchemy import Integer, LargeBinary, create_engine
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from pipeline.ledger.accounts import Bucket
from pipeline.ledger.lots import Lot, LotDates
from pipeline.ledger.state import Hold, Order, PendingItem, Pin
from pipeline.ledger.targets import Target
from pipeline.ledger.terms import Terms
from pipeline.ledger.transfers import Booking, LotMove, Origin, Transfer
from pipeline.model.batches import EntryBatch
from pipeline.model.columns import columns_of
from pipeline.store import book_schema as tables
from pipeline.store.book_schema import metadata

ALL = sorted(metadata.tables)


@pytest.mark.parametrize("name", ALL)
def test_postgresql_takes_every_table(name: str) -> None:
    made = str(CreateTable(metadata.tables[name]).compile(dialect=postgresql.dialect()))
    assert "BLOB" not in made
    assert "SERIAL" not in made, "numbers are given by the book, not by the database"
    for column in metadata.tables[name].columns:
        if column.name.endswith(("_ns", "points", "amount", "_minor", "balance", "_change")):
            assert f"{column.name} BIGINT" in made


def test_only_the_engine_knows_one_database_from_the_other() -> None:
    folder = Path(tables.__file__).parent
    others = {*folder.glob("book*.py"), folder / "identity.py"} - {folder / "book_engine.py"}
    for path in sorted(others):
        body = path.read_text()
        if path.name == "book_schema.py":  # options of tables that other databases do not look at
            body = body.replace("sqlite_with_rowid=False", "").replace("sqlite_where=", "")
        for word in ("PRAGMA", "sqlite3", "INSERT OR", "rowid", "sqlite_", "psycopg", "pg_"):
            assert word not in body, (path.name, word)


@pytest.mark.parametrize(
    ("table", "row", "before", "after"),
    [
        (tables.conversions, Target, 1, 1 + len(Pin._fields)),  # without the explanation
        (tables.terms, Terms, 1, 0),
        (tables.origins, Origin, 1, 0),
        (tables.bookings, Booking, 1, 0),
        (tables.transfers, Transfer, 2, 0),
    ],
)
def test_rows_and_tables_have_the_same_order(table, row, before: int, after: int) -> None:  # type: ignore[no-untyped-def]
    """Rows go to the driver as tuples: a column out of place would be a silent disaster."""
    names = [column.name for column in table.columns]
    fields = tuple(name for name in row._fields if name != "explanation")
    assert tuple(names[before : before + len(fields)]) == fields
    assert len(names) == before + len(fields) + after + (row is Target)


def test_lots_items_orders_and_members_are_made_of_their_rows_in_order() -> None:
    """They are called with the columns of a row; what is told by a number is in its place."""
    renamed = {"terms_id": "terms", "conversion_number": "conversion_key"}
    lot, order, hold = (list(signature(kind).parameters) for kind in (Lot, Order, Hold))
    for table, before, named in (
        (tables.lots, 0, lot[: lot.index("stored")]),
        (tables.pending_items, 0, list(PendingItem._fields)),
        (tables.orders, 1, order[: order.index("words")]),
        (tables.order_lots, 2, hold[: hold.index("stored")]),
    ):
        names = [renamed.get(column.name, column.name) for column in table.columns]
        assert names[before : before + len(named)] == named
    assert [c.name for c in tables.orders.columns][-3:] == ["region", "channel", "payee"]
    assert [c.name for c in tables.members.columns][2:6] == [b.name.lower() for b in Bucket]
    changes = [c.name.removesuffix("_change") for c in tables.lot_moves.columns][1:]
    assert changes == list(LotMove._fields[1:])
    assert [c.name for c in tables.lot_dates.columns][2:] == list(LotDates._fields)


def test_what_every_money_row_carries() -> None:
    born = {c.name for c in tables.terms.columns}
    assert born >= {
        "programme", "commodity", "source", "campaign", "region", "funder", "issue_price",
        "settlement_price", "expiry_policy",
    }  # fmt: skip
    for table in (tables.lots, tables.pending_items):
        assert {"terms_id", "contract_version", "rule_version"} <= {c.name for c in table.columns}
    assert "spendable_from_ns" in tables.lots.columns
    assert {"region", "channel", "payee"} <= {c.name for c in tables.orders.columns}
    assert {"role", "scope", "actor"} <= {c.name for c in tables.bookings.columns}
    written = (tables.postings, tables.transfers, tables.accounts, tables.origins, tables.bookings)
    entry = {c.name for t in written for c in t.columns}
    # An entry's own id, its place, its transfer's id, conversion and lots are made of others.
    made = {"entry_id", "transfer_id", "sequence", "leg", "conversion_key", "lots"}
    assert {c.name for c in columns_of(EntryBatch)} - made <= entry


def test_ids_are_bytes_and_numbers_are_whole() -> None:
    engine = create_engine("sqlite://")
    assert isinstance(tables.lots.c.lot_id.type, LargeBinary)
    number = tables.transfers.c.transfer_number.type.dialect_impl(engine.dialect)
    assert isinstance(number, Integer)
