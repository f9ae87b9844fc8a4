"""Every column of every table goes to ClickHouse and comes back as it was."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import pyarrow as pa
import pytest

from pipeline.model.columns import stored_columns
from pipeline.store.arrow import ArrowError
from pipeline.store.clickhouse_rows import arrow_rows, arrow_stream, batch_of, select_of
from pipeline.store.clickhouse_schema import FLAGS, TABLES, WORDS
from tests.store.making import same_rows, some_rows

ROWS = 300
WITH_SEALED = [
    name for name, table in TABLES.items() if any(c.sealed for c in stored_columns(table.batch))
]


def storable_rows(name: str, rows: int = ROWS, seed: int = 1):
    """Rows with any values at all, but words that exist and flags that are flags."""
    batch = some_rows(TABLES[name].batch, rows, seed)
    for column, words in WORDS.get(name, {}).items():
        batch = batch.with_columns(**{column: a_word(getattr(batch, column), words)})
    for table, column in FLAGS:
        if table == name:
            batch = batch.with_columns(**{column: getattr(batch, column) % np.uint8(2)})
    return batch


def a_word(drawn: np.ndarray, words: type[IntEnum]) -> np.ndarray:
    numbers = np.array(sorted({0, *map(int, words)}), np.uint8)
    return numbers[drawn % len(numbers)]


def delivered(store, name: str, batch, segment: int = 0) -> None:
    table = TABLES[name]
    rows = arrow_rows(
        table,
        batch,
        offsets=np.arange(segment, segment + len(batch)),
        segment=segment,
        hashes=np.arange(len(batch), dtype=np.uint64) + np.uint64(2**64 - len(batch)),
        run_id=b"r" * 16,
    )
    store.insert(table, rows, f"{name}:{segment}", f"segment = {segment}")


@pytest.fixture(scope="module")
def filled(new_store):
    store = new_store()
    for name in TABLES:
        delivered(store, name, storable_rows(name))
    return store


@pytest.mark.parametrize("name", TABLES)
def test_every_column_comes_back(filled, name):
    table, batch = TABLES[name], storable_rows(name)
    found = filled.query(f"SELECT {select_of(table)} FROM {table.log} ORDER BY stream_offset")
    plain = tuple(c.name for c in stored_columns(table.batch) if not c.sealed)
    assert same_rows(batch_of(table.batch, found), batch, plain)


@pytest.mark.parametrize("name", TABLES)
def test_what_delivery_adds_is_there(filled, name):
    found = filled.query(
        f"SELECT segment, row_hash, stream_offset FROM {TABLES[name].log} ORDER BY stream_offset"
    )
    assert found.column("segment").to_pylist() == [0] * ROWS
    assert found.column("stream_offset").to_pylist() == list(range(ROWS))
    assert found.column("row_hash").to_pylist()[-1] == 2**64 - 1


def test_a_batch_that_names_its_run_keeps_it(filled):
    """Rows of streams are of the run that made them, entries of the run that booked them."""
    ((visits,),) = filled.rows("SELECT uniqExact(run_id) FROM visits_log")
    ((entries,),) = filled.rows("SELECT uniqExact(run_id) FROM entries_log")
    assert (visits, entries) == (1, ROWS)


@pytest.mark.parametrize("name", WITH_SEALED)
def test_a_sealed_column_has_no_place(filled, name):
    sealed = {c.name for c in stored_columns(TABLES[name].batch) if c.sealed}
    assert sealed
    columns = {c for (c,) in filled.rows(
        f"SELECT name FROM system.columns WHERE table = '{TABLES[name].log}'"
        f" AND database = '{filled.database}'"
    )}  # fmt: skip
    assert not sealed & columns
    rows = arrow_rows(
        TABLES[name],
        storable_rows(name, 1),
        offsets=np.zeros(1, np.int64),
        segment=0,
        hashes=np.zeros(1, np.uint64),
        run_id=bytes(16),
    )
    assert not sealed & set(rows.schema.names)


def test_no_rows_are_a_batch_too(filled):
    found = filled.query(f"SELECT {select_of(TABLES['visits'])} FROM visits_log WHERE 0")
    assert len(batch_of(TABLES["visits"].batch, found)) == 0


def test_an_answer_without_a_column_is_refused(filled):
    with pytest.raises(ArrowError, match="version"):
        batch_of(TABLES["visits"].batch, filled.query("SELECT visit_id FROM visits_log LIMIT 1"))


def test_a_stream_is_one_block():
    """More blocks could be more parts, and a killed insert could leave half of them."""
    rows = pa.RecordBatch.from_pydict({"x": list(range(100_000))})
    assert len(list(pa.ipc.open_stream(arrow_stream(rows)))) == 1
