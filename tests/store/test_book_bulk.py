"""Rows as tuples reach the columns they are meant for, in whatever form the dialect takes them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Column, MetaData, Table, Text, create_engine, select
from sqlalchemy.dialects import postgresql, sqlite

from pipeline.store.book_bulk import change_rows, put_rows

metadata = MetaData()
things = Table(
    "things",
    metadata,
    Column("colour", Text),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Text, primary_key=True),
    Column("amount", BigInteger),
    Column("note", Text, server_default="none"),
)


class Recorder:
    """A connection that keeps what the driver would get."""

    def __init__(self, dialect: Any) -> None:
        self.dialect = dialect
        self.calls: list[tuple[str, Any]] = []

    def exec_driver_sql(self, statement: str, rows: Any) -> None:
        self.calls.append((statement, rows))


ROWS = [("red", 1, "a", 10, "x"), ("blue", 2, "a", 20, "y"), ("red", 1, "b", 30, "z")]


def test_rows_are_put_and_changed() -> None:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        metadata.create_all(connection)
        put_rows(connection, things, ROWS)
        change_rows(connection, things, ("amount", "colour"), [("green", 1, "a", 11, "ignored")])
        found = connection.execute(select(things).order_by(things.c.amount)).all()
    assert [tuple(row) for row in found] == [("green", 1, "a", 11, "x"), *ROWS[1:]]


def test_the_last_columns_may_be_missing() -> None:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        metadata.create_all(connection)
        put_rows(connection, things, [row[:4] for row in ROWS])
        assert {row.note for row in connection.execute(select(things))} == {"none"}


@pytest.mark.parametrize("dialect", [sqlite.dialect(), postgresql.dialect()])
def test_nothing_is_sent_for_nothing(dialect: Any) -> None:
    recorder = Recorder(dialect)
    put_rows(recorder, things, [])  # type: ignore[arg-type]
    change_rows(recorder, things, ("amount",), [])  # type: ignore[arg-type]
    assert recorder.calls == []


def test_named_parameters_get_names() -> None:
    recorder = Recorder(postgresql.dialect())
    put_rows(recorder, things, ROWS[:1])  # type: ignore[arg-type]
    change_rows(recorder, things, ("amount",), ROWS[:1])  # type: ignore[arg-type]
    (insertion, inserted), (change, changed) = recorder.calls
    assert inserted == [dict(zip(things.columns.keys(), ROWS[0], strict=True))]
    assert "%(colour)s" in insertion
    assert changed == [{"at_number": 1, "at_kind": "a", "to_amount": 10}]
    assert "SET amount=%(to_amount)s" in change
    assert "number = %(at_number)s" in change


@given(
    st.lists(
        st.tuples(st.text(max_size=3), st.integers(0, 5), st.sampled_from("ab"),
                  st.integers(-(2**63), 2**63 - 1), st.text(max_size=3)),
        unique_by=lambda row: row[1:3],
        min_size=1,
    ),
    st.sets(st.sampled_from(("colour", "amount", "note")), min_size=1),
)  # fmt: skip
def test_changed_columns_change_and_others_stay(rows: list[tuple], columns: set[str]) -> None:
    engine = create_engine("sqlite://")
    names = tuple(things.columns.keys())
    with engine.begin() as connection:
        metadata.create_all(connection)
        put_rows(connection, things, [("c", row[1], row[2], 0, "n") for row in rows])
        change_rows(connection, things, tuple(sorted(columns)), rows)
        found = {(row.number, row.kind): tuple(row) for row in connection.execute(select(things))}
    for row in rows:
        stored = found[row[1], row[2]]
        for name, before, wanted, got in zip(
            names, ("c", *row[1:3], 0, "n"), row, stored, strict=True
        ):
            assert got == (wanted if name in columns else before), name
