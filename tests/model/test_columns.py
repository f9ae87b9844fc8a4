"""Columns and batches against plain Python lists, which are slow and obviously right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.columns import (
    I64,
    ID,
    LOCAL,
    SEALED,
    TEXT,
    U8,
    Batch,
    TextColumn,
    columns_of,
    concat,
    id_words,
    ids,
    no_ids,
    stored_columns,
)

values = st.lists(st.one_of(st.text(max_size=12), st.binary(max_size=12)), max_size=20)


def raw(value: str | bytes) -> bytes:
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


texts = st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=12), max_size=20)


@dataclass(frozen=True, slots=True)
class Example(Batch):
    """A batch with a column of every sort, and something that belongs to the whole."""

    source: str
    key: ID
    count: I64
    name: TEXT
    address: Annotated[U8, SEALED]
    index: Annotated[I64, LOCAL]


def example(names: list[str], source: str = "a") -> Example:
    n = len(names)
    return Example(
        source,
        ids(bytes([i % 256]) * 16 for i in range(n)),
        np.arange(n, dtype=np.int64) * 7,
        TextColumn.of(names),
        (np.arange(n) % 251).astype(np.uint8),
        np.arange(n, dtype=np.int64),
    )


def rows(batch: Example) -> list[tuple[object, ...]]:
    return [
        (bytes(batch.key[i]), int(batch.count[i]), batch.name.text(i), int(batch.address[i]))
        for i in range(len(batch))
    ]


@given(texts)
def test_a_text_column_is_its_values(written):
    column = TextColumn.of(written)
    assert len(column) == len(written)
    assert column.to_list() == written
    assert [column[i] for i in range(len(written))] == [w.encode() for w in written]


@given(st.lists(st.binary(max_size=9), max_size=20), st.data())
def test_taking_text_is_taking_from_a_list(written, data):
    column = TextColumn.of(written)
    some = st.lists(st.integers(0, max(len(written) - 1, 0)), max_size=30 if written else 0)
    chosen = data.draw(some)
    taken = column.take(np.array(chosen, np.int64))
    assert [taken[i] for i in range(len(taken))] == [written[i] for i in chosen]
    mask = np.array([i % 3 == 0 for i in range(len(written))], np.bool_)
    kept = column.take(mask)
    assert [kept[i] for i in range(len(kept))] == written[::3]


@given(st.lists(st.lists(st.binary(max_size=9), max_size=6), max_size=6))
def test_joining_text_is_joining_lists(parts):
    joined = TextColumn.concat([TextColumn.of(p) for p in parts])
    assert [joined[i] for i in range(len(joined))] == [v for part in parts for v in part]


def test_joining_a_part_of_a_column_leaves_its_neighbours_out():
    whole = TextColumn.of(["ab", "cd", "ef"])
    middle = TextColumn(whole.data, whole.offsets[1:3])
    assert TextColumn.concat([middle, middle]).to_list() == ["cd", "cd"]


@pytest.mark.parametrize(("value", "count"), [("", 3), ("x", 0), ("acme.example", 4), (b"\xff", 2)])
def test_repeating_a_text(value, count):
    assert [TextColumn.repeat(value, count)[i] for i in range(count)] == [raw(value)] * count


@pytest.mark.parametrize("row", [-1, 2, 99])
def test_a_row_that_is_not_there_is_an_error(row):
    with pytest.raises(IndexError):
        TextColumn.of(["a", "b"])[row]


def test_bytes_that_are_not_utf8_can_be_shown():
    assert TextColumn.of([b"a\xffb"]).text(0) == "a\ufffdb"


@pytest.mark.parametrize(
    ("data", "offsets"),
    [
        (np.zeros(2, np.int8), np.zeros(1, np.int64)),
        (np.zeros(2, np.uint8), np.zeros(1, np.int32)),
        (np.zeros(2, np.uint8), np.zeros(0, np.int64)),
        (np.zeros((1, 2), np.uint8), np.zeros(1, np.int64)),
    ],
)
def test_a_text_column_of_other_arrays_is_refused(data, offsets):
    with pytest.raises(AssertionError):
        TextColumn(data, offsets)


def test_columns_say_what_may_be_stored():
    found = {c.name: (c.dtype, c.sealed, c.local) for c in columns_of(Example)}
    assert found == {
        "key": (np.dtype("V16"), False, False),
        "count": (np.dtype(np.int64), False, False),
        "name": (None, False, False),
        "address": (np.dtype(np.uint8), True, False),
        "index": (np.dtype(np.int64), False, True),
    }
    assert [c.name for c in stored_columns(Example)] == ["key", "count", "name", "address"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": np.zeros(2, np.int32)},
        {"count": np.zeros(3, np.int64)},
        {"count": np.zeros((2, 1), np.int64)},
        {"name": ["a", "b"]},
        {"name": TextColumn.of(["a"])},
        {"key": np.zeros(2, "V8")},
    ],
)
def test_a_batch_checks_itself(wrong):
    good = example(["a", "b"])
    with pytest.raises(AssertionError):
        good.with_columns(**wrong)


@given(texts, st.integers(-3, 25), st.integers(-3, 25))
def test_a_slice_is_a_slice_of_the_rows(names, start, stop):
    batch = example(names)
    assert rows(batch.slice(start, stop)) == rows(batch)[max(start, 0) : max(stop, 0)]


@given(texts, st.integers(1, 7))
def test_cutting_and_joining_gives_the_same_batch(names, size):
    batch = example(names)
    cut = [batch.slice(i, i + size) for i in range(0, max(len(names), 1), size)]
    assert rows(concat(cut)) == rows(batch)
    assert concat(cut).source == "a"


def test_an_empty_batch_has_every_column_and_its_scalars():
    empty = Example.empty(source="ring")
    assert len(empty) == 0
    assert empty.source == "ring"
    assert rows(concat([empty, example(["a"])])) == rows(example(["a"]))


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=10))
def test_ids_are_sixteen_bytes_and_two_words(written):
    column = ids(written)
    assert [bytes(v) for v in column] == written
    words = id_words(column)
    assert words.shape == (len(written), 2)
    assert words.tobytes() == b"".join(written)


def test_no_id_is_all_zeros():
    assert [bytes(v) for v in no_ids(2)] == [bytes(16), bytes(16)]
