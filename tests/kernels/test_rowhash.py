from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kernels import rowhash
from pipeline.kernels.hashing import siphash128_words
from pipeline.kernels.rowhash import row_hashes, sealed_hashes, text_words
from pipeline.model.batches import STREAMS, BindingBatch, PurchaseBatch, VisitBatch
from pipeline.model.columns import I64, SEALED, TEXT, U8, U32, U64, Batch, TextColumn, columns_of
from pipeline.model.identifiers import words_of
from tests.naive import rowhash as naive
from tests.store.making import changed, cuts_of, some_rows

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))
STORED = [
    (name, column.name)
    for name, batch_class in STREAMS.items()
    for column in columns_of(batch_class)
    if not column.local
]


@dataclass(frozen=True, slots=True)
class Pair(Batch):
    first: TEXT
    second: TEXT


@dataclass(frozen=True, slots=True)
class Renamed(Batch):
    first: TEXT
    third: TEXT


@dataclass(frozen=True, slots=True)
class HalfSealed(Batch):
    first: TEXT
    second: Annotated[TEXT, SEALED]


@dataclass(frozen=True, slots=True)
class Signed(Batch):
    value: I64


@dataclass(frozen=True, slots=True)
class Unsigned(Batch):
    value: U64


@dataclass(frozen=True, slots=True)
class Narrow(Batch):
    value: U8


@dataclass(frozen=True, slots=True)
class Wide(Batch):
    value: U32


def pair(*rows: tuple[str, str], batch_class=Pair):
    return batch_class(*(TextColumn.of(values) for values in zip(*rows, strict=True)))


def test_the_twin_is_siphash():
    """Vectors of the reference code (vectors.h, vectors_sip128): key 00..0f, input 00.."""
    key = bytes(range(16))
    assert naive.siphash(key, b"").hex() == "a3817f04ba25a8e66df67214c7550293"
    assert naive.siphash(key, b"\0").hex() == "da87c1d86b99af44347659119b22fc45"


@pytest.mark.parametrize("stream", STREAMS)
def test_equals_its_naive_twin(stream):
    batch = some_rows(STREAMS[stream], 5)
    assert row_hashes(batch, KEY).tolist() == naive.row_hashes(batch, KEY)


@given(st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=40)), max_size=6))
def test_text_equals_its_naive_twin(rows):
    batch = Pair(TextColumn.of([a for a, _ in rows]), TextColumn.of([b for _, b in rows]))
    assert row_hashes(batch, KEY).tolist() == naive.row_hashes(batch, KEY)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=8))
def test_numbers_equal_their_naive_twin(values):
    batch = Signed(np.array(values, np.int64))
    assert row_hashes(batch, KEY).tolist() == naive.row_hashes(batch, KEY)


@given(st.integers(0, 40), st.integers(0, 5), st.randoms(use_true_random=False))
def test_lines_of_words_equal_their_naive_twin(width, rows, drawn):
    lines = [[drawn.getrandbits(64) for _ in range(width)] for _ in range(rows)]
    key = bytes(range(16))
    out = np.zeros((rows, 2), np.uint64)
    words = np.array(lines, np.uint64).reshape(rows, width)
    siphash128_words(*words_of(key), words, out)
    assert out.tolist() == naive.siphash128_words(key, lines)


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=8), st.data())
def test_text_words_equal_their_naive_twin(texts, data):
    start = data.draw(st.integers(0, len(texts)))
    column, key = TextColumn.of(texts), bytes(range(16))
    out, bad = np.zeros((len(texts) - start, 3), np.uint64), np.zeros(1, np.int64)
    text_words(words_of(key), column.data, column.offsets, start, 1, out, bad)
    assert out[:, 1].tolist() == naive.text_words(key, texts)[start:]
    assert not out[:, [0, 2]].any()
    assert bad[0] == 0


@pytest.mark.parametrize(("stream", "name"), STORED, ids=lambda value: value)
def test_every_stored_column_counts(stream, name):
    batch = some_rows(STREAMS[stream], 3)
    before = row_hashes(batch, KEY)
    after = row_hashes(changed(batch, name, 1), KEY)
    assert (before != after).tolist() == [False, True, False]


@pytest.mark.parametrize("stream", STREAMS)
def test_local_columns_do_not_count(stream):
    batch = some_rows(STREAMS[stream], 3)
    for column in columns_of(STREAMS[stream]):
        if column.local:
            other = changed(batch, column.name, 1)
            assert (row_hashes(batch, KEY) == row_hashes(other, KEY)).all(), column.name


@given(st.text(min_size=1, max_size=12), st.text(max_size=12))
def test_a_byte_may_not_slide_to_the_neighbouring_cell(first, second):
    before = row_hashes(pair((first, second)), KEY)
    assert before != row_hashes(pair((first[:-1], first[-1] + second)), KEY)


def test_a_byte_may_not_slide_to_the_next_row():
    before = row_hashes(pair(("ab", ""), ("c", "")), KEY)
    after = row_hashes(pair(("a", ""), ("bc", "")), KEY)
    assert (before != after).all()


def test_swapped_columns_differ():
    assert row_hashes(pair(("a", "b")), KEY) != row_hashes(pair(("b", "a")), KEY)


def test_names_dtypes_and_marks_count():
    texts = pair(("a", "b"))
    others = [pair(("a", "b"), batch_class=c) for c in (Renamed, HalfSealed)]
    assert len({int(row_hashes(b, KEY)[0]) for b in (texts, *others)}) == 3
    numbers = [
        Signed(np.array([5], np.int64)),
        Unsigned(np.array([5], np.uint64)),
        Narrow(np.array([5], np.uint8)),
        Wide(np.array([5], np.uint32)),
    ]
    assert len({int(row_hashes(b, KEY)[0]) for b in numbers}) == 4


def test_another_key_gives_other_hashes():
    batch = some_rows(BindingBatch, 4)
    assert (row_hashes(batch, KEY) != row_hashes(batch, OTHER_KEY)).all()
    assert (sealed_hashes(batch, KEY) != sealed_hashes(batch, OTHER_KEY)).all()


@pytest.mark.parametrize("batch_class", [BindingBatch, PurchaseBatch])
def test_sealed_columns_may_be_given_by_their_hash(batch_class):
    batch = some_rows(batch_class, 9)
    blank = batch
    for column in columns_of(batch_class):
        if column.sealed and column.dtype is None:
            blank = blank.with_columns(**{column.name: TextColumn.of([""] * 9)})
        elif column.sealed:
            blank = blank.with_columns(**{column.name: np.zeros(9, column.dtype)})
    given_hashes = sealed_hashes(batch, KEY)
    assert (row_hashes(batch, KEY) == row_hashes(blank, KEY, given_hashes)).all()
    assert (row_hashes(batch, KEY) != row_hashes(blank, KEY)).any()


def test_plain_columns_leave_the_sealed_hash_alone():
    batch = some_rows(BindingBatch, 3)
    other = changed(batch, "event_ns", 1)
    assert (sealed_hashes(batch, KEY) == sealed_hashes(other, KEY)).all()


@given(st.lists(st.integers(0, 60), max_size=5))
def test_does_not_depend_on_the_cut(places):
    batch = some_rows(VisitBatch, 60)
    parts = [row_hashes(part, KEY) for part in cuts_of(batch, places)]
    assert (np.concatenate(parts) == row_hashes(batch, KEY)).all()


def test_does_not_depend_on_the_block(monkeypatch):
    batch = some_rows(PurchaseBatch, 50)
    whole = row_hashes(batch, KEY)
    monkeypatch.setattr(rowhash, "BLOCK_ROWS", 7)
    assert (row_hashes(batch, KEY) == whole).all()


def test_does_not_depend_on_how_arrays_lie_in_memory():
    batch = some_rows(Unsigned, 10)
    texts = pair(*[("a" * n, "b" * (9 - n)) for n in range(10)])
    strided = Unsigned(np.repeat(batch.value, 2)[::2])
    assert (row_hashes(strided, KEY) == row_hashes(batch, KEY)).all()
    for column in (texts.first, texts.second):
        column.data.flags.writeable = False
        column.offsets.flags.writeable = False
    shifted = Pair(
        TextColumn(texts.first.data, texts.first.offsets[4:]),
        TextColumn(texts.second.data, texts.second.offsets[4:]),
    )
    assert (row_hashes(shifted, KEY) == row_hashes(texts, KEY)[4:]).all()


@pytest.mark.parametrize("offsets", [[0, 9], [-1, 1], [2, 1]])
def test_offsets_outside_the_data_are_not_followed(offsets):
    column = TextColumn(np.zeros(3, np.uint8), np.array(offsets, np.int64))
    with pytest.raises(AssertionError, match="second"):
        row_hashes(Pair(TextColumn.of(["a"]), column), KEY)


def test_no_rows_have_no_hashes():
    found = row_hashes(BindingBatch.empty(), KEY)
    assert found.dtype == np.uint64
    assert len(found) == 0


def test_nothing_is_sealed_in_visits():
    with pytest.raises(AssertionError):
        sealed_hashes(some_rows(VisitBatch, 1), KEY)
