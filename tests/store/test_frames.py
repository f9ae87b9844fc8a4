from __future__ import annotations

import os
import struct

import google_crc32c
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.store import frames
from pipeline.store.frames import (
    HEADER_BYTES,
    FrameError,
    FrameKind,
    encode_frame,
    read_frame,
    walk_frames,
    write_all,
)

PARTS = st.lists(st.tuples(st.binary(max_size=60), st.binary(max_size=60)), max_size=5)


@pytest.fixture
def descriptor(tmp_path):
    number = os.open(tmp_path / "frames", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    yield number
    os.close(number)


def encoded(parts) -> bytes:
    """A file of ROWS frames with these plain and sealed parts."""
    found = []
    for number, (plain, sealed) in enumerate(parts):
        buffers = pa.py_buffer(plain), pa.py_buffer(sealed)
        found += encode_frame(FrameKind.ROWS, number, 10 * number, 10, *buffers)
    return b"".join(buffer.to_pybytes() for buffer in found)


def fill(descriptor: int, raw: bytes) -> int:
    os.ftruncate(descriptor, 0)
    write_all(descriptor, [pa.py_buffer(raw)])
    return len(raw)


def crc32c(data: bytes) -> int:
    """Bit by bit, after RFC 3720: polynomial 0x1EDC6F41, reflected."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_the_checksum_is_crc32c():
    assert google_crc32c.value(b"123456789") == crc32c(b"123456789") == 0xE3069283


def test_layout():
    raw = encoded([(b"", b""), (b"plain", b"secret")])[HEADER_BYTES:]
    assert struct.unpack("<I", raw[:4]) == (11,)
    assert raw[8:12] == b"\2\0\0\0"
    assert struct.unpack("<IQII", raw[12:32]) == (1, 10, 10, 5)
    assert raw[32:] == b"plainsecret"
    assert struct.unpack("<I", raw[4:8]) == (crc32c(raw[:4] + raw[8:]),)


@given(parts=PARTS)
def test_what_was_written_is_read(tmp_path_factory, parts):
    path = tmp_path_factory.mktemp("frames") / "file"
    path.write_bytes(encoded(parts))
    descriptor = os.open(path, os.O_RDONLY)
    found = list(walk_frames(descriptor, path.stat().st_size))
    os.close(descriptor)
    assert [(f.plain.to_pybytes(), f.sealed.to_pybytes()) for f in found] == parts
    assert [(f.number, f.first_row, f.rows) for f in found] == [
        (n, 10 * n, 10) for n in range(len(parts))
    ]


def test_only_the_header_is_read_where_no_more_is_asked(descriptor):
    size = fill(descriptor, encoded([(b"plain", b"sealed"), (b"x", b"")]))
    first = read_frame(descriptor, 0, size, body=False)
    assert (first.kind, first.rows, first.plain.size, first.sealed.size) == (
        FrameKind.ROWS,
        10,
        0,
        0,
    )
    assert read_frame(descriptor, first.end, size).plain.to_pybytes() == b"x"


def test_a_cut_anywhere_is_noticed(descriptor):
    raw = encoded([(b"first", b"secret"), (b"second", b"")])
    second = HEADER_BYTES + len(b"firstsecret")
    for size in range(len(raw)):
        fill(descriptor, raw[:size])
        read = []
        if size in (0, second):
            assert len(list(walk_frames(descriptor, size))) == (size == second)
            continue
        with pytest.raises(FrameError) as caught:
            read += walk_frames(descriptor, size)
        assert caught.value.at == (second if size > second else 0)


def test_every_flipped_bit_is_noticed(descriptor):
    raw = bytearray(encoded([(b"first", b"secret"), (b"second", b"")]))
    for at in range(len(raw)):
        for bit in range(8):
            raw[at] ^= 1 << bit
            size = fill(descriptor, bytes(raw))
            with pytest.raises(FrameError):
                list(walk_frames(descriptor, size))
            raw[at] ^= 1 << bit


@given(raw=st.binary(max_size=200))
def test_any_bytes_give_frames_or_an_error(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("frames") / "file"
    path.write_bytes(raw)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        list(walk_frames(descriptor, len(raw)))
    except FrameError as error:
        assert 0 <= error.at <= len(raw)  # noqa: PT017
    finally:
        os.close(descriptor)


def test_zeros_are_not_a_frame(descriptor):
    """A file system may show a write that was lost as zeros."""
    size = fill(descriptor, bytes(200))
    with pytest.raises(FrameError, match="byte 0"):
        list(walk_frames(descriptor, size))


def test_an_intact_frame_of_an_unknown_kind_is_an_error(descriptor):
    raw = encoded([(b"plain", b"")])
    blank = raw[:4] + bytes(4) + b"\x09" + raw[9:32]
    crc = struct.pack("<I", frames.checksum(blank, pa.py_buffer(raw[32:])))
    size = fill(descriptor, blank[:4] + crc + blank[8:] + raw[32:])
    with pytest.raises(FrameError, match="unknown kind 9"):
        list(walk_frames(descriptor, size))


def test_a_plain_part_cannot_be_longer_than_its_frame(descriptor):
    raw = encoded([(b"plain", b"")])
    blank = raw[:4] + bytes(4) + raw[8:28] + struct.pack("<I", 6)
    crc = struct.pack("<I", frames.checksum(blank, pa.py_buffer(raw[32:])))
    size = fill(descriptor, blank[:4] + crc + blank[8:] + raw[32:])
    with pytest.raises(FrameError, match="6 bytes in 5"):
        list(walk_frames(descriptor, size))


def test_a_file_that_shrinks_meanwhile_is_an_error(descriptor):
    size = fill(descriptor, encoded([(b"plain", b"")]))
    os.ftruncate(descriptor, size - 2)
    with pytest.raises(FrameError, match="ended after"):
        read_frame(descriptor, 0, size)


def test_short_writes_are_completed(descriptor, monkeypatch):
    real = os.writev
    monkeypatch.setattr(frames.os, "writev", lambda d, parts: real(d, [bytes(parts[0][:3])]))
    parts = [pa.py_buffer(b"abcdefgh"), pa.py_buffer(b"ij"), pa.py_buffer(b"klmno")]
    write_all(descriptor, parts)
    assert os.pread(descriptor, 100, 0) == b"abcdefghijklmno"


def test_a_part_that_is_too_long_is_refused(monkeypatch):
    monkeypatch.setattr(frames, "PART_BYTES_MAX", 4)
    with pytest.raises(ValueError, match="too long"):
        encoded([(b"12345", b"")])
