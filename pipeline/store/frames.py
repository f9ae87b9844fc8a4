"""Frames: how bytes stand in a segment file, and how a torn end is told from damage.

A segment file is frames, one after the other, little-endian:

     0  u32  length of what follows this header
     4  u32  CRC32C of the header without this field, and of everything that follows
     8  u8   kind, then three zero bytes
    12  u32  number of the frame in its file, from 0
    16  u64  offset in the stream of the frame's first row
    24  u32  rows
    28  u32  length of the plain part; the rest is the sealed part
    32  plain part, sealed part

CRC32C (RFC 3720, appendix B.4) finds every flipped byte; it keeps out accidents, not people. A
frame that is not whole and intact is a `FrameError` with its place. What that means is not decided
here: behind the last durable byte it is the torn end of a write that nobody was promised, before it
it is damage.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import google_crc32c
import pyarrow as pa

HEADER = struct.Struct("<IIB3xIQII")
HEADER_BYTES = HEADER.size
PART_BYTES_MAX = (1 << 31) - 1


class FrameKind(IntEnum):
    """What a frame carries. Append-only."""

    HEAD = 1  # first of a file: the schema and whose segment it is
    ROWS = 2
    SEAL = 3  # last of a sealed segment: its bounds and digest


class FrameError(ValueError):
    """The bytes at `at` are not a whole, intact frame."""

    def __init__(self, at: int, why: str) -> None:
        super().__init__(f"byte {at}: {why}")
        self.at, self.why = at, why


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame's header and its two parts; `at` and `end` are places in the file."""

    kind: FrameKind
    number: int
    first_row: int
    rows: int
    at: int
    end: int
    plain: pa.Buffer
    sealed: pa.Buffer


def encode_frame(
    kind: FrameKind, number: int, first_row: int, rows: int, plain: pa.Buffer, sealed: pa.Buffer
) -> list[pa.Buffer]:
    """The buffers of a frame in the order in which they are written. The parts are not copied."""
    for part in (plain, sealed):
        if part.size > PART_BYTES_MAX:
            raise ValueError(f"a frame's part of {part.size} bytes is too long")
    length = plain.size + sealed.size
    blank = HEADER.pack(length, 0, kind, number, first_row, rows, plain.size)
    crc = checksum(blank, plain, sealed)
    header = HEADER.pack(length, crc, kind, number, first_row, rows, plain.size)
    return [part for part in (pa.py_buffer(header), plain, sealed) if part.size]


def checksum(header: bytes, *parts: pa.Buffer) -> int:
    """CRC32C of a header, leaving out its checksum field, and of what follows it."""
    crc: int = google_crc32c.value(header[:4] + header[8:])
    for part in parts:
        crc = google_crc32c.extend(crc, part)
    return crc


def write_all(descriptor: int, parts: list[pa.Buffer]) -> None:
    """Write all parts, however often the system takes only some. Raises OSError."""
    left = [memoryview(part).cast("B") for part in parts]
    while left:
        written = os.writev(descriptor, left)
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if left:
            left[0] = left[0][written:]


def read_frame(descriptor: int, at: int, size: int, *, body: bool = True) -> Frame:
    """The frame at byte `at` of a file of `size` bytes. Raises FrameError.

    Without `body` only the header is read, nothing is checked but the bounds, and the parts are
    empty.
    """
    if size - at < HEADER_BYTES:
        raise FrameError(at, f"{size - at} bytes are less than a frame's header")
    header = read_bytes(descriptor, HEADER_BYTES, at)
    length, crc, kind, number, first_row, rows, plain_length = HEADER.unpack(header)
    if length > size - at - HEADER_BYTES:
        raise FrameError(at, f"{length} bytes announced, {size - at - HEADER_BYTES} are there")
    end = at + HEADER_BYTES + length
    plain = sealed = pa.py_buffer(b"")
    if body:
        whole = pa.py_buffer(read_bytes(descriptor, length, at + HEADER_BYTES))
        if checksum(header, whole) != crc:
            raise FrameError(at, "the checksum does not fit the bytes")
        if plain_length > length:
            raise FrameError(at, f"a plain part of {plain_length} bytes in {length}")
        plain, sealed = whole.slice(0, plain_length), whole.slice(plain_length)
    if kind not in FrameKind._value2member_map_:
        raise FrameError(at, f"unknown kind {kind}")
    return Frame(FrameKind(kind), number, first_row, rows, at, end, plain, sealed)


def read_bytes(descriptor: int, count: int, at: int) -> bytes:
    """Exactly `count` bytes from byte `at`. Raises FrameError where the file ends before."""
    parts: list[bytes] = []
    got = 0
    while got < count:
        part = os.pread(descriptor, count - got, at + got)
        if not part:
            raise FrameError(at, f"the file ended after {got} of {count} bytes")
        parts.append(part)
        got += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def walk_frames(descriptor: int, size: int, at: int = 0) -> Iterator[Frame]:
    """The whole, intact frames from byte `at` on. Raises FrameError at the first that is not."""
    while at < size:
        frame = read_frame(descriptor, at, size)
        yield frame
        at = frame.end
