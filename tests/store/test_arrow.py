from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.batches import STREAMS, BindingBatch, RulebookBatch, VisitBatch
from pipeline.model.columns import TextColumn, columns_of, ids
from pipeline.store.arrow import ArrowError, arrow_schema, from_arrow, numbers, to_arrow
from tests.store.making import WORDS, same_rows, some_rows


def plain_names(batch_class) -> tuple[str, ...]:
    return tuple(c.name for c in columns_of(batch_class) if not c.local and not c.sealed)


def stored_names(batch_class) -> tuple[str, ...]:
    return tuple(c.name for c in columns_of(batch_class) if not c.local)


def through_ipc(batch: pa.RecordBatch) -> pa.RecordBatch:
    return pa.ipc.read_record_batch(batch.serialize(), batch.schema)


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("rows", [0, 1, 50])
def test_there_and_back(stream, rows):
    kind = STREAMS[stream]
    batch = some_rows(kind, rows)
    plain = through_ipc(to_arrow(batch))
    plain.validate(full=True)
    secret = len(arrow_schema(kind, sealed=True)) > 0
    sealed = through_ipc(to_arrow(batch, sealed=True)) if secret else None
    assert same_rows(from_arrow(kind, plain, sealed), batch, stored_names(kind))
    assert same_rows(from_arrow(kind, plain), batch, plain_names(kind))


@pytest.mark.parametrize("stream", STREAMS)
def test_no_plain_column_is_sealed_or_local(stream):
    names = {c.name for c in columns_of(STREAMS[stream]) if c.sealed or c.local}
    assert not names & set(arrow_schema(STREAMS[stream]).names)
    sealed = {c.name for c in columns_of(STREAMS[stream]) if c.sealed}
    assert set(arrow_schema(STREAMS[stream], sealed=True).names) == sealed


def test_types():
    schema = arrow_schema(VisitBatch)
    assert schema.field("visit_id").type == pa.binary(16)
    assert schema.field("partner").type == pa.large_binary()
    assert schema.field("server_hi").type == pa.uint64()
    assert schema.field("source_id").type == pa.uint16()
    assert schema.field("opened_ns").type == pa.int64()


def test_sealed_columns_come_back_empty_and_local_ones_unknown():
    found = from_arrow(BindingBatch, to_arrow(some_rows(BindingBatch, 3)))
    assert found.subscriber.tolist() == [-1, -1, -1]
    assert found.address_hi.tolist() == found.address_lo.tolist() == [0, 0, 0]
    assert found.login.to_list() == ["", "", ""]


def test_nothing_is_copied_on_the_way_out():
    batch = some_rows(VisitBatch, 100)
    arrow = to_arrow(batch)
    assert arrow.column("opened_ns").buffers()[1].address == batch.opened_ns.ctypes.data
    assert arrow.column("visit_id").buffers()[1].address == batch.visit_id.ctypes.data
    assert arrow.column("partner").buffers()[1].address == batch.partner.offsets.ctypes.data
    assert arrow.column("partner").buffers()[2].address == batch.partner.data.ctypes.data


def test_what_comes_in_is_writable_and_aligned():
    """Another kind of array would be another signature, and compile every kernel once more."""
    raw = b"\0" + to_arrow(some_rows(VisitBatch, 9)).serialize().to_pybytes()
    unaligned = pa.ipc.read_record_batch(pa.py_buffer(raw).slice(1), arrow_schema(VisitBatch))
    found = from_arrow(VisitBatch, unaligned)
    for column in columns_of(VisitBatch):
        values = getattr(found, column.name)
        arrays = [values.data, values.offsets] if isinstance(values, TextColumn) else [values]
        assert all(a.flags.writeable and a.flags.aligned for a in arrays), column.name


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=9), st.data())
def test_text_that_does_not_begin_at_zero(values, data):
    start = data.draw(st.integers(0, len(values) - 1))
    column = TextColumn.of(values)
    shifted = TextColumn(column.data, column.offsets[start:])
    rows = len(values) - start
    batch = RulebookBatch(
        ids([bytes(16)] * rows), np.zeros(rows, np.uint8), shifted, np.zeros(rows, np.int64)
    )
    for arrow in (to_arrow(batch), through_ipc(to_arrow(batch))):
        found = from_arrow(RulebookBatch, arrow)
        assert found.text.to_list() == values[start:]
        assert found.text.offsets[0] == 0
        assert len(found.text.data) == found.text.offsets[-1]


def test_slices_of_arrow_data():
    batch = some_rows(VisitBatch, 20)
    found = from_arrow(VisitBatch, to_arrow(batch).slice(5, 7))
    assert same_rows(found, batch.slice(5, 12))


@pytest.mark.parametrize("text_type", [pa.binary(), pa.string(), pa.large_string()])
def test_text_of_other_widths(text_type):
    texts = pa.array(list(WORDS), pa.string()).cast(text_type)
    arrow = pa.table(
        {
            "received_ns": pa.array(range(len(WORDS)), pa.int64()),
            "text": pa.chunked_array([texts.slice(0, 3), texts.slice(3)]),
            "rulebook_hash": pa.array([bytes(16)] * len(WORDS), pa.binary(16)),
            "proposed": pa.array([0] * len(WORDS), pa.uint8()),
            "not_ours": pa.array([None] * len(WORDS), pa.int8()),
        }
    )
    found = from_arrow(RulebookBatch, arrow)
    assert found.text.to_list() == list(WORDS)
    assert found.received_ns.tolist() == list(range(len(WORDS)))


def wrong(**columns):
    given_columns = {
        "rulebook_hash": pa.array([bytes(16)], pa.binary(16)),
        "proposed": pa.array([0], pa.uint8()),
        "text": pa.array([b"x"], pa.large_binary()),
        "received_ns": pa.array([1], pa.int64()),
    } | columns
    return pa.RecordBatch.from_pydict({k: v for k, v in given_columns.items() if v is not None})


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"text": None}, "no column text"),
        ({"text": pa.array([1], pa.int64())}, "column text: int64 where text belongs"),
        ({"text": pa.array([None], pa.large_binary())}, "column text: 1 nulls"),
        ({"received_ns": pa.array([1], pa.int32())}, "column received_ns: int32"),
        ({"received_ns": pa.array([None], pa.int64())}, "column received_ns: int64 with 1 nulls"),
        ({"rulebook_hash": pa.array([b"abc"], pa.binary(3))}, "column rulebook_hash"),
    ],
)
def test_other_data_is_refused(columns, words):
    with pytest.raises(ArrowError, match=words):
        from_arrow(RulebookBatch, wrong(**columns))


@pytest.mark.parametrize("offsets", [[0, 2, 9], [-1, 1, 3], [0, 2, 1], [3, 2, 0], [0, 4, 3]])
def test_offsets_that_lie_are_refused(offsets):
    memory = np.array([0, 1, 3], np.int64)
    buffers = [None, pa.py_buffer(memory), pa.py_buffer(b"abc")]
    columns = wrong(
        text=pa.Array.from_buffers(pa.large_binary(), 2, buffers),
        rulebook_hash=pa.array([bytes(16)] * 2, pa.binary(16)),
        proposed=pa.array([0, 0], pa.uint8()),
        received_ns=pa.array([1, 2], pa.int64()),
    )
    assert from_arrow(RulebookBatch, columns).text.to_list() == ["a", "bc"]
    memory[:] = offsets  # Arrow itself looks only when the array is made
    with pytest.raises(ArrowError, match="column text: text offsets"):
        from_arrow(RulebookBatch, columns)


def test_sealed_rows_must_be_as_many():
    batch = some_rows(BindingBatch, 3)
    with pytest.raises(ArrowError, match="2 sealed rows beside 3"):
        from_arrow(BindingBatch, to_arrow(batch), to_arrow(batch.slice(0, 2), sealed=True))


def test_numbers_are_copies():
    source = np.arange(5, dtype=np.uint64)
    found = numbers(pa.array(source).slice(2), np.dtype(np.uint64))
    found[0] = 77
    assert source.tolist() == [0, 1, 2, 3, 4]
    assert found.tolist() == [77, 3, 4]
