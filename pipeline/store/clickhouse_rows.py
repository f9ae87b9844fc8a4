"""Batches as rows of the ClickHouse tables, and answers back as batches.

ClickHouse takes an Arrow stream. What it would not convert by itself is put right here: a closed
list's number goes as int8 (Enum8), `*_ns` as a timestamp, a flag as a boolean, the two words of an
address as its 16 bytes. Nothing of a sealed column is read: the table has no place for it. Answers
that are meant for a batch name its columns and have their types (`UInt8` for a closed list, `Int64`
nanoseconds, UUID for an id), and come back through Arrow as well.
"""

from __future__ import annotations

import re
from typing import TypeVar

import numpy as np
import pyarrow as pa

from pipeline.model.columns import Batch, columns_of
from pipeline.store.arrow import ID_BYTES, from_arrow, to_arrow
from pipeline.store.clickhouse_schema import Table, TableColumn
from pipeline.store.sink import SinkError

B = TypeVar("B", bound=Batch)


def arrow_rows(
    table: Table,
    batch: Batch,
    *,
    offsets: np.ndarray,
    segment: int,
    hashes: np.ndarray,
    run_id: bytes,
) -> pa.RecordBatch:
    """The rows of a table: the batch's columns and what delivery adds. Raises SinkError.

    `offsets`: int64 or uint64, the place of each row in its stream; `hashes`: uint64 row hashes;
    `run_id`: one for all rows, or one after the other. A batch that names its own run keeps it.
    """
    assert isinstance(batch, table.batch), (type(batch), table.batch)
    rows = len(batch)
    assert len(offsets) == len(hashes) == rows
    assert len(run_id) in (ID_BYTES, ID_BYTES * rows)
    added = {
        "run_id": _fixed(run_id * rows if len(run_id) == ID_BYTES else run_id, rows),
        "stream_offset": pa.array(offsets.astype(np.uint64)),
        "segment": pa.array(np.full(rows, segment, np.uint64)),
        "row_hash": pa.array(hashes.astype(np.uint64)),
    }
    plain = to_arrow(batch)
    names = [c.name for c in table.columns]
    arrays = [_array(c, plain) if c.sources else added[c.name] for c in table.columns]
    return pa.RecordBatch.from_arrays(arrays, names=names)


def _array(column: TableColumn, plain: pa.RecordBatch) -> pa.Array:
    values = [plain.column(plain.schema.get_field_index(name)) for name in column.sources]
    if column.type == "IPv6":
        words = np.empty((len(values[0]), 2), ">u8")
        words[:, 0], words[:, 1] = (np.asarray(v) for v in values)
        return _fixed(words.tobytes(), len(words))
    if column.type.startswith("Enum8("):
        # ClickHouse would take any number here, and fail whoever reads it.
        numbers = np.asarray(values[0])
        known = np.zeros(256, bool)
        known[[int(n) for n in re.findall(r"= (\d+)", column.type)]] = True
        if not known[numbers].all():
            raise SinkError(f"{column.name}: {numbers[~known[numbers]][0]} is not in {column.type}")
        return values[0].view(pa.int8())
    if column.type.startswith("DateTime64"):
        return values[0].view(pa.timestamp("ns", "UTC"))
    if column.type == "Bool":
        return pa.array(np.asarray(values[0]) != 0)
    return values[0]


def id_array(column: np.ndarray) -> pa.Array:
    """An ID column as Arrow's binary of 16 bytes."""
    return _fixed(np.ascontiguousarray(column).tobytes(), len(column))


def _fixed(raw: bytes, rows: int) -> pa.Array:
    return pa.Array.from_buffers(pa.binary(ID_BYTES), rows, [None, pa.py_buffer(raw)])


def arrow_stream(rows: pa.RecordBatch) -> bytes:
    """One record batch as an Arrow stream: ClickHouse makes one block, and so one part, of it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_batch(rows)
    found: bytes = sink.getvalue().to_pybytes()
    return found


def batch_of(batch_class: type[B], answer: pa.Table) -> B:
    """A batch of an answer's columns, found by name. Raises ArrowError where one is missing."""
    arrays: dict[str, pa.Array] = {}
    for name in answer.column_names:
        values = answer.column(name).combine_chunks()
        if isinstance(values, pa.ExtensionArray):
            values = values.storage
        arrays[name] = values
    for column in columns_of(batch_class):
        stem = column.name.removesuffix("_hi")
        if stem != column.name and stem in arrays:
            words = np.frombuffer(b"".join(arrays[stem].to_pylist()), ">u8").reshape(-1, 2)
            arrays[f"{stem}_hi"], arrays[f"{stem}_lo"] = (
                pa.array(words[:, i].astype(np.uint64)) for i in (0, 1)
            )
    plain = pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))
    return from_arrow(batch_class, plain)


def select_of(table: Table) -> str:
    """What to select of a table so that `batch_of` makes its batch again."""
    parts = []
    for column in table.columns:
        if not column.sources:
            continue
        if column.type.startswith("Enum8(") or column.type == "Bool":
            parts.append(f"toUInt8({column.name}) AS {column.name}")
        elif column.type.startswith("DateTime64"):
            parts.append(column.sources[0])
        else:
            parts.append(column.name)
    return ", ".join(parts)
