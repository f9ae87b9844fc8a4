"""The row hash: 64 keyed bits over everything that is stored of a row.

A row becomes one line of uint64 words: an integer column is one word (signed ones in two's
complement), an id is its two words, a text is the SipHash of its bytes, and all sealed columns
together are one word, the sealed hash. The row hash is SipHash-2-4 of that line. The keys are
digests of the given key and of the names, dtypes and marks of all stored columns, so a renamed or
retyped column changes every hash; text is hashed cell by cell, so a byte that moves to the
neighbouring cell changes two words.

SipHash is a keyed pseudo-random function: who sees row hashes (they stand beside the rows in
ClickHouse) learns nothing of a sealed address from them without the key. The sealed hash is stored
with the row, so that row hashes can still be checked when the sealed columns cannot be read any
more.

Sketch: a visit is 36 words; two rounds a word and eight at the end are about 160 ns on one core,
and laying out the words in blocks that stay in the second-level cache about 40 ns. Measured with
`tests/bench/journal.py`: 3.9 to 4.9 million visits/s, depending on who else used the machine.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from pipeline.kernels.compile import kernel
from pipeline.kernels.hashing import siphash128, siphash128_words
from pipeline.model.columns import Batch, Column, TextColumn, id_words, stored_columns
from pipeline.model.identifiers import digest, words_of

U64 = np.uint64
BLOCK_ROWS = 4096


def row_hashes(batch: Batch, key: bytes, sealed: np.ndarray | None = None) -> np.ndarray:
    """One uint64 per row over all stored columns of `batch`.

    `sealed`: sealed hashes (uint64, one per row) to use in place of the batch's sealed columns,
    where those cannot be read; without it they are computed by `sealed_hashes`.
    """
    columns = stored_columns(type(batch))
    if sealed is None and any(c.sealed for c in columns):
        sealed = sealed_hashes(batch, key)
    plain = tuple(c for c in columns if not c.sealed)
    return _hash_columns(batch, plain, _keys(type(batch), key, "row"), sealed)


def sealed_hashes(batch: Batch, key: bytes) -> np.ndarray:
    """One uint64 per row over the sealed columns alone; a class without any has none to ask for."""
    sealed = tuple(c for c in stored_columns(type(batch)) if c.sealed)
    assert sealed, type(batch)
    return _hash_columns(batch, sealed, _keys(type(batch), key, "sealed"), None)


def _keys(batch_class: type, key: bytes, purpose: str) -> tuple[np.ndarray, np.ndarray]:
    """The SipHash keys for lines and for text cells, bound to the schema of `batch_class`."""
    return _cached_keys(batch_class, key, purpose)


@functools.lru_cache(maxsize=64)
def _cached_keys(batch_class: type, key: bytes, purpose: str) -> tuple[np.ndarray, np.ndarray]:
    schema = "\n".join(
        f"{c.name} {c.dtype.str if c.dtype is not None else 'text'} {'sealed' if c.sealed else ''}"
        for c in stored_columns(batch_class)
    )
    line, text = f"{purpose}-line", f"{purpose}-text"
    return words_of(digest(key, line, schema)), words_of(digest(key, text, schema))


def _hash_columns(
    batch: Batch,
    columns: tuple[Column, ...],
    keys: tuple[np.ndarray, np.ndarray],
    last: np.ndarray | None,
) -> np.ndarray:
    (line0, line1), text_key = keys[0], keys[1]
    rows = len(batch)
    assert last is None or (last.dtype == U64 and len(last) == rows)
    hashes = np.empty(rows, U64)
    width = sum(_words(c) for c in columns) + (last is not None)
    lines = np.empty((min(rows, BLOCK_ROWS), width), U64)
    both = np.empty((len(lines), 2), U64)
    values = [(c, at, _readable(getattr(batch, c.name))) for c, at in _places(columns)]
    for start in range(0, rows, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, rows)
        block = lines[: stop - start]
        for column, at, value in values:
            _lay(block, at, column, value, start, stop, text_key)
        if last is not None:
            block[:, width - 1] = last[start:stop]
        siphash128_words(line0, line1, block, both)
        hashes[start:stop] = both[: stop - start, 0]
    return hashes


def _words(column: Column) -> int:
    return 2 if column.dtype is not None and column.dtype.itemsize == 16 else 1


def _places(columns: tuple[Column, ...]) -> Iterator[tuple[Column, int]]:
    at = 0
    for column in columns:
        yield column, at
        at += _words(column)


def _readable(values: np.ndarray | TextColumn) -> np.ndarray | TextColumn:
    """The same values in contiguous writable arrays: the kernels are compiled for those."""
    if isinstance(values, TextColumn):
        return TextColumn(_plain(values.data), _plain(values.offsets))
    return values


def _plain(array: np.ndarray) -> np.ndarray:
    return np.require(array, requirements=["C", "A", "W"])


def _lay(
    block: np.ndarray,
    at: int,
    column: Column,
    values: np.ndarray | TextColumn,
    start: int,
    stop: int,
    text_key: np.ndarray,
) -> None:
    """Write the words of one column for rows `start` to `stop` into `block` from column `at` on."""
    if isinstance(values, TextColumn):
        bad = np.zeros(1, np.int64)
        text_words(text_key, values.data, values.offsets, start, at, block, bad)
        assert bad[0] == 0, f"{column.name}: offsets outside its data"
    elif _words(column) == 2:
        block[:, at : at + 2] = id_words(values[start:stop])
    else:
        block[:, at] = values[start:stop]


@kernel
def text_words(key, data, offsets, start, at, out, bad):
    """The first word of the SipHash of each text cell from row `start` on into `out[:, at]`.

    Offsets that do not lie within `data`, in rising order, are counted in `bad[0]` and not
    followed.

    Touches 22 bytes a text: 2 % of the memory's bandwidth.
    """
    k0, k1 = key[0], key[1]
    for row in range(out.shape[0]):
        begin, end = offsets[start + row], offsets[start + row + 1]
        if begin < 0 or end < begin or end > len(data):
            bad[0] += 1
            continue
        first, _ = siphash128(k0, k1, data, begin, end - begin)
        out[row, at] = first
