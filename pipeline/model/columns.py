"""Columns: what every batch is made of.

A batch is a frozen dataclass of equal-length one-dimensional numpy arrays. The annotation of a
field says its dtype, the constructor asserts it. Text is a `TextColumn`: one buffer of bytes and
the offsets into it, as in Arrow, so a thousand host names are two arrays and no Python objects.

An identifier is 16 bytes (`ID`, numpy `V16`): it compares, sorts bytewise and shows as a UUID.

Two marks say what may leave the process. `SEALED` columns (addresses, logins, raw messages) are
encrypted wherever they are stored; `LOCAL` columns (dense indexes, watermarks) mean nothing outside
the process that made them and are never stored.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Self, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

SEALED = "sealed"
LOCAL = "local"

ID_DTYPE = np.dtype("V16")

U8 = Annotated[np.ndarray, np.dtype(np.uint8)]
U16 = Annotated[np.ndarray, np.dtype(np.uint16)]
U32 = Annotated[np.ndarray, np.dtype(np.uint32)]
U64 = Annotated[np.ndarray, np.dtype(np.uint64)]
I32 = Annotated[np.ndarray, np.dtype(np.int32)]
I64 = Annotated[np.ndarray, np.dtype(np.int64)]
ID = Annotated[np.ndarray, ID_DTYPE]


@dataclass(frozen=True, slots=True)
class TextColumn:
    """`data`: uint8 bytes of all values in order; `offsets`: int64, one more than values."""

    data: np.ndarray
    offsets: np.ndarray

    def __post_init__(self) -> None:
        assert self.data.dtype == np.uint8
        assert self.offsets.dtype == np.int64
        assert self.data.ndim == 1
        assert self.offsets.ndim == 1
        assert len(self.offsets) >= 1

    @classmethod
    def of(cls, values: Iterable[str | bytes]) -> TextColumn:
        """Build a column from strings (UTF-8) or bytes."""
        parts = [v.encode() if isinstance(v, str) else bytes(v) for v in values]
        offsets = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(p) for p in parts], out=offsets[1:])
        return cls(np.frombuffer(b"".join(parts), np.uint8).copy(), offsets)

    @classmethod
    def of_ascii(cls, values: Sequence[str]) -> TextColumn:
        """The same from ASCII strings, in half the time. Raises UnicodeEncodeError for others."""
        offsets = np.zeros(len(values) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, values), np.int64, len(values)), out=offsets[1:])
        return cls(np.frombuffer("".join(values).encode("ascii"), np.uint8), offsets)

    @classmethod
    def repeat(cls, value: str | bytes, count: int) -> TextColumn:
        """The same value `count` times."""
        raw = np.frombuffer(value.encode() if isinstance(value, str) else bytes(value), np.uint8)
        return cls(np.tile(raw, count), np.arange(count + 1, dtype=np.int64) * len(raw))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> bytes:
        if not 0 <= row < len(self):
            raise IndexError(row)
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes()

    def text(self, row: int) -> str:
        """One value as a string; bytes that are not UTF-8 show as replacement characters."""
        return self[row].decode("utf-8", "replace")

    def to_list(self) -> list[str]:
        """All values as strings."""
        raw = self.data.tobytes()
        ends = itertools.pairwise(self.offsets.tolist())
        return [raw[a:b].decode("utf-8", "replace") for a, b in ends]

    def numbered(self) -> tuple[list[str], np.ndarray]:
        """The different values, in the order in which they first come, and which of them each row
        has (int64). For columns that hold few.
        """
        import pyarrow as pa  # loads in a third of a second, which `--help` does without

        buffers = [None, pa.py_buffer(self.offsets), pa.py_buffer(self.data)]
        column = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(self), buffers)
        found = column.dictionary_encode()
        values = [raw.decode("utf-8", "replace") for raw in found.dictionary.to_pylist()]
        return values, np.asarray(found.indices).astype(np.int64)

    def take(self, rows: np.ndarray) -> TextColumn:
        """The values at these row numbers (an integer array or a boolean mask), in that order."""
        rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        index = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        return TextColumn(self.data[index], offsets)

    @classmethod
    def concat(cls, columns: Sequence[TextColumn]) -> TextColumn:
        """One column after the other."""
        if not columns:
            return cls.of([])
        lengths = np.concatenate([np.diff(c.offsets) for c in columns])
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        data = [c.data[c.offsets[0] : c.offsets[-1]] for c in columns]
        return cls(np.concatenate(data), offsets)


TEXT = TextColumn


@dataclass(frozen=True, slots=True)
class Column:
    """What a batch class says about one of its columns; `dtype` is None for text."""

    name: str
    dtype: np.dtype | None
    sealed: bool
    local: bool


def columns_of(batch_class: type) -> tuple[Column, ...]:
    """The columns of a batch class, in their order."""
    return _columns_of(batch_class)


def stored_columns(batch_class: type) -> tuple[Column, ...]:
    """The columns that may be stored: all but the local ones."""
    return _stored_columns(batch_class)


# The caches stand apart because the type checker does not take a class for something hashable.
@functools.cache
def _columns_of(batch_class: type) -> tuple[Column, ...]:
    hints = get_type_hints(batch_class, include_extras=True)
    found = []
    for field in fields(batch_class):
        hint = hints[field.name]
        marks: tuple[Any, ...] = ()
        while get_origin(hint) is Annotated:
            marks += tuple(hint.__metadata__)
            hint = get_args(hint)[0]
        dtype = next((m for m in marks if isinstance(m, np.dtype)), None)
        if dtype is None and hint is not TextColumn:
            continue  # a scalar that belongs to the whole batch
        found.append(Column(field.name, dtype, SEALED in marks, LOCAL in marks))
    return tuple(found)


@functools.cache
def _stored_columns(batch_class: type) -> tuple[Column, ...]:
    return tuple(c for c in columns_of(batch_class) if not c.local)


B = TypeVar("B", bound="Batch")


class Batch:
    """Base of every batch: checks itself, and can be cut, chosen from and joined."""

    __slots__ = ()

    def __post_init__(self) -> None:
        length = None
        for column in columns_of(type(self)):
            values = getattr(self, column.name)
            if column.dtype is None:
                assert isinstance(values, TextColumn), column.name
            else:
                assert values.dtype == column.dtype, (column.name, values.dtype)
                assert values.ndim == 1, column.name
            length = len(values) if length is None else length
            assert len(values) == length, (column.name, len(values), length)

    def __len__(self) -> int:
        return len(getattr(self, columns_of(type(self))[0].name))

    def take(self, rows: np.ndarray) -> Self:
        """The rows at these numbers (an integer array or a boolean mask), in that order."""
        changed: dict[str, Any] = {}
        for column in columns_of(type(self)):
            values = getattr(self, column.name)
            changed[column.name] = values[rows] if column.dtype is not None else values.take(rows)
        return _replace(self, changed)

    def slice(self, start: int, stop: int) -> Self:
        """Rows `start` up to, not including, `stop`."""
        return self.take(np.arange(max(start, 0), min(stop, len(self)), dtype=np.int64))

    def with_columns(self, **changed: Any) -> Self:
        """The same batch with some columns exchanged."""
        return _replace(self, changed)

    @classmethod
    def empty(cls, **scalars: Any) -> Self:
        """A batch without rows; batch-wide scalars, where a class has them, are given by name."""
        columns: dict[str, Any] = dict(scalars)
        for column in columns_of(cls):
            columns[column.name] = (
                TextColumn.of([]) if column.dtype is None else np.zeros(0, column.dtype)
            )
        return cls(**columns)


def _replace(batch: B, changed: dict[str, Any]) -> B:
    named: Any = batch  # every batch is a dataclass, which its base class cannot say
    values = {f.name: changed.get(f.name, getattr(batch, f.name)) for f in fields(named)}
    return type(batch)(**values)


def concat(batches: Sequence[B]) -> B:
    """Join batches of one class, at least one; scalars are those of the first."""
    assert batches, "nothing to join"
    first = batches[0]
    if len(batches) == 1:
        return first
    changed: dict[str, Any] = {}
    for column in columns_of(type(first)):
        parts = [getattr(b, column.name) for b in batches]
        changed[column.name] = (
            TextColumn.concat(parts) if column.dtype is None else np.concatenate(parts)
        )
    return _replace(first, changed)


def ids(values: Iterable[bytes]) -> np.ndarray:
    """An ID column from 16-byte strings."""
    raw = b"".join(values)
    assert len(raw) % 16 == 0
    return np.frombuffer(raw, ID_DTYPE).copy()


def no_ids(count: int) -> np.ndarray:
    """An ID column of zeros: the id that means none."""
    return np.zeros(count, ID_DTYPE)


def id_words(column: np.ndarray) -> np.ndarray:
    """An ID column as a (rows, 2) array of uint64 for kernels: the same bytes, no copy."""
    assert column.dtype == ID_DTYPE
    return np.ascontiguousarray(column).view(np.uint64).reshape(-1, 2)
