"""What every batch of the journal promises about privacy and about being stored."""

from __future__ import annotations

import pytest

from pipeline.model import batches
from pipeline.model.batches import STREAMS
from pipeline.model.columns import Batch, columns_of, stored_columns

EVERY = [
    value
    for value in vars(batches).values()
    if isinstance(value, type) and issubclass(value, Batch) and value is not Batch
]

# Columns whose name says that they tell who or where somebody is.
TELLING = ("login", "address_hi", "address_lo", "client_hi", "client_lo", "raw")


@pytest.mark.parametrize("batch", EVERY, ids=lambda batch: batch.__name__)
def test_every_batch_can_be_made_without_rows(batch):
    scalars = {"source": "x", "source_id": 0, "first_packet": 1, "data": None}
    names = set(batch.__dataclass_fields__) - {c.name for c in columns_of(batch)}
    assert len(batch.empty(**{n: scalars[n] for n in names})) == 0


@pytest.mark.parametrize("name", STREAMS)
def test_what_tells_who_somebody_is_is_sealed(name):
    bare = [c.name for c in stored_columns(STREAMS[name]) if c.name in TELLING and not c.sealed]
    assert not bare


@pytest.mark.parametrize("name", STREAMS)
def test_no_stream_has_a_host_or_a_target(name):
    """A visit knows its partner; the name that was looked up is gone by then."""
    columns = {c.name for c in columns_of(STREAMS[name])}
    assert not columns & {"host", "target", "referer", "alpn", "cookie", "user_agent"}


@pytest.mark.parametrize("name", STREAMS)
def test_every_row_of_a_stream_has_an_id_and_batch_wide_values_are_none(name):
    first = columns_of(STREAMS[name])[0]
    assert first.dtype is not None
    assert first.dtype.kind == "V"
    fields = set(STREAMS[name].__dataclass_fields__)
    assert fields == {c.name for c in columns_of(STREAMS[name])}


def test_sessions_are_no_stream():
    assert "SessionBatch" not in {b.__name__ for b in STREAMS.values()}
    assert "EntryBatch" not in {b.__name__ for b in STREAMS.values()}


@pytest.mark.parametrize("batch", EVERY, ids=lambda batch: batch.__name__)
def test_times_are_int64_nanoseconds(batch):
    times = [c for c in columns_of(batch) if c.name.endswith("_ns") or c.name == "time_ns"]
    assert all(str(c.dtype) == "int64" for c in times)
    assert not [c.name for c in columns_of(batch) if c.name.endswith(("_ms", "_us", "_time"))]
