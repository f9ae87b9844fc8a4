"""The schema is one for SQLite and PostgreSQL, and says everything a row of money must say."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Integer, LargeBinary, create_engine
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from pipeline.ledger.lots import Lot
from pipeline.ledger.state import PendingItem, Pin
from pipeline.ledger.targets import Order, Target
from pipeline.ledger.terms import Terms
from pipeline.ledger.transfers import Header
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
        if column.name.endswith(("_ns", "points", "amount", "_minor", "balance", "sequence")):
            assert f"{column.name} BIGINT" in made


def test_only_the_engine_knows_one_database_from_the_other() -> None:
    folder = Path(tables.__file__).parent
    others = {*folder.glob("book*.py"), folder / "identity.py"} - {folder / "book_engine.py"}
    for path in sorted(others):
        body = path.read_text()
        for word in ("PRAGMA", "sqlite3", "INSERT OR", "rowid", "sqlite_", "psycopg", "pg_"):
            assert word not in body, (path.name, word)


@pytest.mark.parametrize(
    ("table", "row", "extra"),
    [
        (tables.conversions, Target, 2 + len(Pin._fields)),
        (tables.terms, Terms, 1),
        (tables.orders, Order, 5),
        (tables.transfers, Header, 1),
    ],
)
def test_rows_and_tables_have_the_same_order(table, row, extra: int) -> None:  # type: ignore[no-untyped-def]
    """Rows go to the driver as tuples: a column out of place would be a silent disaster."""
    names = [column.name for column in table.columns]
    assert len(names) == len(row._fields) + extra
    at = names.index(row._fields[0])
    assert tuple(names[at : at + len(row._fields)]) == row._fields


@pytest.mark.parametrize(
    ("table", "row"), [(tables.lots, Lot), (tables.pending_items, PendingItem)]
)
def test_lots_and_items_have_their_terms_in_fourth_place(table, row) -> None:  # type: ignore[no-untyped-def]
    names = [column.name.replace("terms_id", "terms") for column in table.columns]
    assert tuple(names) == row._fields
    assert names[3] == "terms"


def test_what_every_money_row_carries() -> None:
    born = {c.name for c in tables.terms.columns}
    assert born >= {
        "programme", "commodity", "source", "campaign", "region", "funder", "issue_price",
        "settlement_price", "expiry_policy",
    }  # fmt: skip
    for table in (tables.lots, tables.pending_items):
        assert {"terms_id", "contract_version"} <= {c.name for c in table.columns}
    assert "spendable_from_ns" in tables.lots.columns
    assert {"region", "channel", "payee"} <= {c.name for c in tables.orders.columns}
    entry = {c.name for t in (tables.entries, tables.transfers, tables.accounts) for c in t.columns}
    assert {c.name for c in columns_of(EntryBatch)} - {"entry_id"} <= entry


def test_ids_are_bytes_and_numbers_are_whole() -> None:
    engine = create_engine("sqlite://")
    assert isinstance(tables.lots.c.lot_id.type, LargeBinary)
    number = tables.entries.c.sequence.type.dialect_impl(engine.dialect)
    assert isinstance(number, Integer)
