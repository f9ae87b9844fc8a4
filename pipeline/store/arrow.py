"""Batches as Arrow, and back.

An integer column is the Arrow integer of its width, an id is `binary(16)`, text is `large_binary`
(its offsets are int64, as a TextColumn's are). Going out nothing is copied: Arrow reads the batch's
own buffers. Coming in every column is copied once, into arrays that are aligned and writable:
kernels are compiled for those, and another kind of array would compile them again.

Sealed columns go apart from the others, in a record batch of their own, or not at all. Local
columns never go; they come back as -1 where they are int32 (a dense index that nobody has given
yet) and as 0 otherwise. Sealed columns that could not be read come back as zeros and empty texts.
"""

from __future__ import annotations

import functools
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from pipeline.model.columns import Batch, Column, TextColumn, columns_of, stored_columns

B = TypeVar("B", bound=Batch)
ID_BYTES = 16


class ArrowError(ValueError):
    """Arrow data that is not what the batch class says."""


def arrow_schema(batch_class: type, *, sealed: bool = False) -> pa.Schema:
    """The schema of the plain (or of the sealed) stored columns of a batch class."""
    return _schema(batch_class, sealed)


@functools.cache
def _schema(batch_class: type, sealed: bool) -> pa.Schema:
    return pa.schema([(c.name, arrow_type(c)) for c in _side(batch_class, sealed)])


def arrow_type(column: Column) -> pa.DataType:
    """The Arrow type of a column."""
    if column.dtype is None:
        return pa.large_binary()
    if column.dtype.kind == "V":
        return pa.binary(ID_BYTES)
    return pa.from_numpy_dtype(column.dtype)


def to_arrow(batch: Batch, *, sealed: bool = False) -> pa.RecordBatch:
    """The plain (or the sealed) stored columns of a batch, on the batch's own buffers."""
    schema = arrow_schema(type(batch), sealed=sealed)
    arrays = [_array(getattr(batch, c.name), c) for c in _side(type(batch), sealed)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def from_arrow(
    batch_class: type[B], plain: pa.RecordBatch, sealed: pa.RecordBatch | None = None
) -> B:
    """A batch of these columns, found by name; columns the class does not have are left alone.

    Text may come as any binary or string type, without nulls. Raises ArrowError.
    """
    rows = plain.num_rows
    if sealed is not None and sealed.num_rows != rows:
        raise ArrowError(f"{sealed.num_rows} sealed rows beside {rows} plain ones")
    values: dict[str, Any] = {}
    for column in columns_of(batch_class):
        source = sealed if column.sealed else plain
        if column.local or source is None:
            values[column.name] = _absent(column, rows)
            continue
        at = source.schema.get_field_index(column.name)
        if at < 0:
            raise ArrowError(f"no column {column.name}")
        values[column.name] = _values(source.column(at), column)
    return batch_class(**values)


def numbers(array: pa.Array, dtype: np.dtype) -> np.ndarray:
    """A copy of a fixed-width column as numpy values. Raises ArrowError for another type."""
    width = dtype.itemsize
    kind = pa.binary(ID_BYTES) if dtype.kind == "V" else pa.from_numpy_dtype(dtype)
    if array.type != kind or array.null_count:
        raise ArrowError(f"{array.type} with {array.null_count} nulls where {kind} belongs")
    if len(array) == 0:
        return np.zeros(0, dtype)
    raw = array.buffers()[1]
    return np.frombuffer(raw, np.uint8, len(array) * width, array.offset * width).copy().view(dtype)


def _side(batch_class: type, sealed: bool) -> list[Column]:
    return [c for c in stored_columns(batch_class) if c.sealed == sealed]


def _array(values: np.ndarray | TextColumn, column: Column) -> pa.Array:
    if isinstance(values, TextColumn):
        offsets, data = np.ascontiguousarray(values.offsets), np.ascontiguousarray(values.data)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    else:
        # The byte view is for the ids, whose own type has no buffer format.
        buffers = [None, pa.py_buffer(np.ascontiguousarray(values).view(np.uint8))]
    return pa.Array.from_buffers(arrow_type(column), len(values), buffers)


def _values(array: pa.Array | pa.ChunkedArray, column: Column) -> np.ndarray | TextColumn:
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    try:
        return _text(array) if column.dtype is None else numbers(array, column.dtype)
    except ArrowError as error:
        raise ArrowError(f"column {column.name}: {error}") from None


def _text(array: pa.Array) -> TextColumn:
    wide = pa.types.is_large_binary(array.type) or pa.types.is_large_string(array.type)
    if not wide and not (pa.types.is_binary(array.type) or pa.types.is_string(array.type)):
        raise ArrowError(f"{array.type} where text belongs")
    if array.null_count:
        raise ArrowError(f"{array.null_count} nulls")
    if len(array) == 0:
        return TextColumn.of([])
    _, raw_offsets, raw = array.buffers()
    dtype = np.dtype(np.int64 if wide else np.int32)
    at = array.offset * dtype.itemsize
    offsets = np.frombuffer(raw_offsets, dtype, len(array) + 1, at).astype(np.int64)
    first, last = int(offsets[0]), int(offsets[-1])
    size = raw.size if raw is not None else 0
    if first < 0 or last > size or (np.diff(offsets) < 0).any():
        raise ArrowError("text offsets outside the data")
    data = np.frombuffer(raw, np.uint8, last - first, first).copy() if last > first else _NOTHING
    return TextColumn(data, offsets - first)


_NOTHING = np.zeros(0, np.uint8)


def _absent(column: Column, rows: int) -> np.ndarray | TextColumn:
    if column.dtype is None:
        return TextColumn(_NOTHING, np.zeros(rows + 1, np.int64))
    if column.local and column.dtype == np.int32:
        return np.full(rows, -1, np.int32)
    return np.zeros(rows, column.dtype)
