"""Identifiers: the same cause gives the same id, any other cause another, and nothing slides."""

from __future__ import annotations

import dataclasses
import itertools
import uuid

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.identifiers import NO_ID, Keys, digest, id_text, parse_id, words_of

part = st.one_of(st.text(max_size=8), st.binary(max_size=8), st.integers(-(2**63), 2**64))
KEY = b"k" * 32


@given(st.lists(part, max_size=5))
def test_the_same_cause_gives_the_same_id(parts):
    first = digest(KEY, "visit", *parts)
    assert first == digest(KEY, "visit", *parts)
    assert len(first) == 16
    assert first != digest(b"x" * 32, "visit", *parts)
    assert first != digest(KEY, "click", *parts)


def as_bytes(value):
    if isinstance(value, int):
        return value.to_bytes(16, "little", signed=True)
    return value.encode() if isinstance(value, str) else value


texts = st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=4), max_size=4)


@given(texts, texts)
def test_other_parts_give_another_id(one, other):
    """Also when both spell the same text together: `ab, c` is not `a, bc`."""
    same = [as_bytes(p) for p in one] == [as_bytes(p) for p in other]
    assert (digest(KEY, "visit", *one) == digest(KEY, "visit", *other)) == same


def test_keys_have_one_purpose_each_and_come_back_from_their_seed():
    keys = Keys.from_seed("first-day")
    named = {f.name: getattr(keys, f.name) for f in dataclasses.fields(keys) if f.name != "test"}
    assert len(named) == len(set(named.values()))
    assert {len(k) for k in named.values()} == {32}
    assert keys == Keys.from_seed("first-day")
    assert keys.test
    for a, b in itertools.product(named.values(), dataclasses.astuple(Keys.from_seed("other"))):
        assert a != b


@given(st.binary(min_size=16, max_size=16))
def test_text_of_an_id_reads_back(value):
    if value == NO_ID:
        return
    assert parse_id(id_text(value)) == value
    assert parse_id(f" {value.hex()} ") == value
    assert id_text(np.frombuffer(value, "V16")[0]) == str(uuid.UUID(bytes=value))


def test_no_id_shows_as_nothing():
    assert id_text(NO_ID) == ""


@pytest.mark.parametrize("text", ["", "x", "123", "acme-shop", "0" * 33, "é" * 32])
def test_what_is_no_id_is_none(text):
    assert parse_id(text) is None


def test_a_key_as_words_is_its_first_bytes():
    assert words_of(bytes(range(32))).tobytes() == bytes(range(16))
