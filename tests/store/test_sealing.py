from __future__ import annotations

import stat
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.store.sealing import KEY_BYTES, Place, SealingError, SegmentKey, SegmentKeys
from tests.store.making import KEYS

PLACE = Place("bindings", 3, 7, 100, 20)
SECRET = b"203.0.113.9 ann@mail.example"


@pytest.fixture
def keys(tmp_path):
    return SegmentKeys(tmp_path, KEYS.seal)


@given(secret=st.binary(max_size=100))
def test_what_was_sealed_opens(secret):
    key = SegmentKey(bytes(KEY_BYTES))
    sealed = key.seal(pa.py_buffer(secret), PLACE)
    assert len(sealed) == 12 + len(secret) + 16
    assert key.unseal(pa.py_buffer(sealed), PLACE) == secret


def test_nothing_of_it_can_be_read():
    sealed = SegmentKey(bytes(KEY_BYTES)).seal(pa.py_buffer(SECRET), PLACE)
    assert not any(SECRET[i : i + 4] in sealed for i in range(len(SECRET) - 4))


def test_the_same_twice_looks_different():
    """Also in the same place: a torn frame and the one written after it share their number."""
    key = SegmentKey(bytes(KEY_BYTES))
    sealed = [key.seal(pa.py_buffer(SECRET), PLACE) for _ in range(200)]
    assert len({s[:12] for s in sealed}) == 200
    assert len({s[12:] for s in sealed}) == 200


@pytest.mark.parametrize(
    "change",
    [{"stream": "basis"}, {"segment": 4}, {"frame": 8}, {"first_row": 101}, {"rows": 21}],
)
def test_opens_nowhere_else(change):
    key = SegmentKey(bytes(KEY_BYTES))
    sealed = pa.py_buffer(key.seal(pa.py_buffer(SECRET), PLACE))
    with pytest.raises(SealingError, match="does not open"):
        key.unseal(sealed, replace(PLACE, **change))


def test_every_changed_bit_is_noticed():
    key = SegmentKey(bytes(KEY_BYTES))
    sealed = bytearray(key.seal(pa.py_buffer(SECRET), PLACE))
    for at in range(len(sealed) * 8):
        sealed[at // 8] ^= 1 << at % 8
        with pytest.raises(SealingError):
            key.unseal(pa.py_buffer(bytes(sealed)), PLACE)
        sealed[at // 8] ^= 1 << at % 8


@pytest.mark.parametrize("length", [0, 5, 12, 27])
def test_a_stump_is_an_error(length):
    key = SegmentKey(bytes(KEY_BYTES))
    sealed = key.seal(pa.py_buffer(b""), PLACE)[:length]
    with pytest.raises(SealingError):
        key.unseal(pa.py_buffer(sealed), PLACE)


def test_another_key_opens_nothing():
    sealed = SegmentKey(bytes(KEY_BYTES)).seal(pa.py_buffer(SECRET), PLACE)
    with pytest.raises(SealingError):
        SegmentKey(b"\1" * KEY_BYTES).unseal(pa.py_buffer(sealed), PLACE)


def test_a_key_is_found_again(keys):
    sealed = pa.py_buffer(keys.create("bindings", 3).seal(pa.py_buffer(SECRET), PLACE))
    assert keys.load("bindings", 3).unseal(sealed, PLACE) == SECRET


def test_each_segment_has_its_own_key(keys):
    sealed = keys.create("bindings", 3).seal(pa.py_buffer(SECRET), PLACE)
    with pytest.raises(SealingError):
        keys.create("bindings", 4).unseal(pa.py_buffer(sealed), PLACE)


def test_a_key_file_is_for_its_owner_alone(keys):
    keys.create("bindings", 0)
    assert stat.S_IMODE(keys.path("bindings", 0).stat().st_mode) == 0o600
    assert keys.path("bindings", 0).stat().st_size == 52


def test_a_key_file_does_not_hold_the_key(keys, tmp_path):
    """Only the seal key unwraps it, and only as the key of its own segment."""
    keys.create("bindings", 0)
    with pytest.raises(SealingError, match="seal key"):
        SegmentKeys(tmp_path, bytes(32)).load("bindings", 0)
    for stream, segment in (("basis", 0), ("bindings", 1)):
        keys.path(stream, segment).write_bytes(keys.path("bindings", 0).read_bytes())
        with pytest.raises(SealingError, match="seal key"):
            keys.load(stream, segment)


def test_a_destroyed_key_is_gone_and_says_so(keys):
    keys.create("bindings", 0)
    wrapped = keys.path("bindings", 0).read_bytes()[8:48]
    keys.destroy("bindings", 0)
    assert keys.load("bindings", 0) is None
    left = keys.path("bindings", 0).read_bytes()
    assert not any(wrapped[i : i + 4] in left for i in range(36))
    keys.destroy("bindings", 0)
    assert keys.load("bindings", 0) is None


def test_a_lost_key_is_an_error(keys):
    with pytest.raises(SealingError, match="missing"):
        keys.load("bindings", 0)
    with pytest.raises(SealingError, match="missing"):
        keys.destroy("bindings", 0)


@pytest.mark.parametrize("destroyed", [False, True])
def test_every_changed_byte_of_a_key_file_is_noticed(keys, destroyed):
    keys.create("bindings", 0)
    if destroyed:
        keys.destroy("bindings", 0)
    path = keys.path("bindings", 0)
    raw = path.read_bytes()
    for at in range(len(raw)):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        with pytest.raises(SealingError):
            keys.load("bindings", 0)
    for wrong in (raw[:-1], raw + b"\0", b""):
        path.write_bytes(wrong)
        with pytest.raises(SealingError):
            keys.load("bindings", 0)


def test_a_key_that_nothing_was_sealed_with_is_replaced(keys):
    """A crash between a key and its segment leaves such a file behind."""
    old = keys.create("bindings", 0).seal(pa.py_buffer(SECRET), PLACE)
    keys.path("bindings", 0).write_bytes(keys.path("bindings", 0).read_bytes() + b"more")
    new = keys.create("bindings", 0)
    assert keys.load("bindings", 0).unseal(
        pa.py_buffer(new.seal(pa.py_buffer(SECRET), PLACE)), PLACE
    )
    with pytest.raises(SealingError):
        new.unseal(pa.py_buffer(old), PLACE)
