"""Rows of any stream, drawn from a seed, and what plain Python reads in a journal's files.

The naive reader is wrapped here so that only `test_journal_twin.py` counts as comparing twins:
those are run again without JIT, where a journal of ordinary size takes minutes.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from pipeline.model.columns import Batch, TextColumn, columns_of
from pipeline.model.identifiers import Keys
from tests.naive import journal as naive

KEYS = Keys.from_seed("journal tests")
WORDS = ("", "acme-shop", "bolt-mobile", "ab", "c", "café", "member@mail.example")


def some_rows(batch_class: type[Batch], rows: int, seed: int = 1) -> Any:
    """A batch of `rows` rows in which every column has values of every sort."""
    drawn = np.random.default_rng([seed, rows])
    values: dict[str, Any] = {}
    for column in columns_of(batch_class):
        if column.dtype is None:
            picks = drawn.integers(0, len(WORDS), rows).tolist()
            values[column.name] = TextColumn.of([WORDS[n] for n in picks])
        else:
            raw = drawn.bytes(rows * column.dtype.itemsize)
            values[column.name] = np.frombuffer(raw, column.dtype).copy()
    return batch_class(**values)


def cuts_of(batch: Any, places: list[int]) -> list[Any]:
    """A batch cut at these places (in any order, empty pieces left in)."""
    bounds = [0, *sorted(min(p, len(batch)) for p in places), len(batch)]
    return [batch.slice(a, b) for a, b in itertools.pairwise(bounds)]


def changed(batch: Any, name: str, row: int) -> Any:
    """The batch with one value changed by its lowest bit, or with one more byte of text."""
    values = getattr(batch, name)
    if isinstance(values, TextColumn):
        texts = [values[i] for i in range(len(values))]
        texts[row] += b"x"
        return batch.with_columns(**{name: TextColumn.of(texts)})
    fresh = values.copy()
    fresh.view(np.uint8).reshape(len(fresh), -1)[row, 0] ^= 1
    return batch.with_columns(**{name: fresh})


def same_rows(one: Batch, other: Batch, names: tuple[str, ...] | None = None) -> bool:
    """Are all (or these) columns equal, byte by byte?"""
    wanted = names or tuple(c.name for c in columns_of(type(one)))
    return len(one) == len(other) and all(
        _bytes(getattr(one, name)) == _bytes(getattr(other, name)) for name in wanted
    )


def frames_of(raw: bytes) -> list[dict[str, Any]]:
    """The frames of a segment file."""
    return naive.frames_of(raw)


def digest_of(hashes: np.ndarray) -> tuple[int, int, int]:
    """Count, xor and sum of row hashes."""
    return naive.digest_of(hashes.tolist())


def journal_hash(streams: dict[str, Any]) -> str:
    """The journal hash of these rows."""
    return naive.journal_hash(streams, KEYS.audit)


def _bytes(values: np.ndarray | TextColumn) -> bytes:
    if isinstance(values, TextColumn):
        offsets = values.offsets - values.offsets[0]
        data = values.data[values.offsets[0] : values.offsets[-1]]
        return offsets.tobytes() + data.tobytes()
    return values.tobytes()
