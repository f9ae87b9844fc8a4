"""Keyed hashes against plain integers, and SipHash against its authors' vector too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kernels.compile import kernel
from pipeline.kernels.hashing import address_hash, mix64, siphash128, siphash128_words
from tests.naive import hashing as naive
from tests.naive import rowhash

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")
U64 = np.uint64
WORD = st.integers(0, 2**64 - 1)


@kernel
def mixed(x):
    return mix64(x)


@kernel
def hashed(k0, k1, hi, lo):
    return address_hash(k0, k1, hi, lo)


@kernel
def sip(k0, k1, data, start, length):
    return siphash128(k0, k1, data, start, length)


@given(WORD)
def test_mixing_equals_the_twin(x):
    assert int(mixed(U64(x))) == naive.mix64(x)


@given(WORD, WORD, WORD, WORD)
def test_hashing_addresses_equals_the_twin(k0, k1, hi, lo):
    assert int(hashed(U64(k0), U64(k1), U64(hi), U64(lo))) == naive.address_hash(k0, k1, hi, lo)


@given(WORD)
def test_mixing_can_be_undone_so_no_two_words_meet(x):
    inverses = [pow(m, -1, 2**64) for m in (0x94D049BB133111EB, 0xBF58476D1CE4E5B9)]

    def unshift(y: int, bits: int) -> int:
        found = y
        for _ in range(64 // bits):
            found = y ^ (found >> bits)
        return found

    y = unshift(naive.mix64(x), 31)
    y = unshift(y * inverses[0] % 2**64, 27)
    y = unshift(y * inverses[1] % 2**64, 30)
    assert y == x


@given(WORD, WORD, st.binary(max_size=70))
def test_siphash_equals_the_twin(k0, k1, raw):
    data = np.frombuffer(b"xy" + raw + b"z", np.uint8)
    first, second = sip(U64(k0), U64(k1), data, 2, len(raw))
    key = k0.to_bytes(8, "little") + k1.to_bytes(8, "little")
    expected = rowhash.siphash(key, raw)
    assert int(first).to_bytes(8, "little") + int(second).to_bytes(8, "little") == expected


@given(WORD, WORD, st.lists(st.lists(WORD, min_size=3, max_size=3), max_size=4))
def test_siphash_of_words_is_that_of_their_bytes(k0, k1, rows):
    out = np.zeros((len(rows), 2), U64)
    siphash128_words(U64(k0), U64(k1), np.array(rows, U64).reshape(-1, 3), out)
    key = k0.to_bytes(8, "little") + k1.to_bytes(8, "little")
    assert out.tolist() == rowhash.siphash128_words(key, rows)


def test_siphash_gives_what_its_authors_print():
    """The vector of the reference for 15 bytes: key 00..0f, message 00..0e, 128 bits out."""
    key = np.frombuffer(bytes(range(16)), U64)
    first, second = sip(key[0], key[1], np.arange(15, dtype=np.uint8), 0, 15)
    raw = int(first).to_bytes(8, "little") + int(second).to_bytes(8, "little")
    assert raw.hex() == "5493e99933b0a8117e08ec0f97cfc3d9"
