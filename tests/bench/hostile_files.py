"""Files that are made as they are read: lengths that lie, floods of what is empty, and bombs.

A file that is a thing repeated needs no disk and no memory, however long it is.
"""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Callable

import zstandard

from tests.forge import pcapng

PCAP_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)


class Repeated(io.RawIOBase):
    """`head`, then `one` so many times, as a stream."""

    def __init__(self, head: bytes, one: bytes, times: int) -> None:
        self._head, self._one, self._left = head, one, times
        self._block = one * max((1 << 18) // max(len(one), 1), 1)
        self._at = 0  # of the things repeated, in bytes

    def readable(self) -> bool:
        """It can be read."""
        return True

    def readinto(self, room) -> int:  # type: ignore[no-untyped-def]
        """Fill `room`, as a pipe does: with what is at hand."""
        if self._head:
            count = min(len(room), len(self._head))
            room[:count], self._head = self._head[:count], self._head[count:]
            return count
        place = self._at % len(self._one)
        left = self._left * len(self._one) - self._at
        count = min(len(room), left, len(self._block) - place)
        room[:count] = self._block[place : place + count]
        self._at += count
        return count


def record(captured: int, wire: int, raw: bytes = b"") -> bytes:
    """A record of a classic capture, whose lengths may lie."""
    return struct.pack("<IIII", 1_700_000_000, 0, captured, wire) + raw


def section(*blocks: bytes) -> bytes:
    """A section of pcapng that begins with an interface."""
    return pcapng.section("<") + pcapng.interface("<", 1) + b"".join(blocks)


def repeated(head: bytes, one: bytes) -> Callable[[int], Repeated]:
    """A file of so many of these."""
    return lambda size: Repeated(head, one, size)


EMPTY_MEMBER, EMPTY_FRAME = gzip.compress(b"", mtime=0), zstandard.ZstdCompressor().compress(b"")
SKIPPED = b"\x53\x2a\x4d\x18\0\0\0\0"
ZEROS = bytes(1 << 20)
PACKED = gzip.compress(PCAP_HEADER, mtime=0), zstandard.compress(PCAP_HEADER)
# A section may describe 4096 interfaces; of what comes beyond, packets are of no known one.
DESCRIBED = pcapng.interface("<") + pcapng.packet("<", b"x" * 8, number=4999)
CUT = pcapng.packet("<", b"x" * 8, captured=1 << 17)

# Name, words, file, and how many by hand.
FILES: tuple[tuple[str, tuple[str, ...], Callable[[int], Repeated], int], ...] = (
    ("pcap of empty records", ("fault:packet_truncated",), repeated(PCAP_HEADER, record(0, 1 << 31)), 4_000_000),
    ("pcap of a large lie", ("fault:record_header_bad",), repeated(PCAP_HEADER, record(1 << 31, 60)), 4_000_000),
    ("pcap of small lies", ("fault:packet_truncated",), repeated(PCAP_HEADER, record(4, 60, b"abcd")), 4_000_000),
    ("pcapng of empty blocks", (), repeated(section(), pcapng.block("<", 10, b"")), 4_000_000),
    ("pcapng of interfaces", ("fault:interface_unknown",), repeated(section(), DESCRIBED), 1_000_000),
    ("pcapng of sections", (), repeated(b"", section()), 1_000_000),
    ("pcapng of large lies", ("fault:block_bad",), repeated(section(), CUT), 1_000_000),
    ("gzip of nothing", (), repeated(PACKED[0], EMPTY_MEMBER), 1_000_000),
    ("gzip of zeros", ("fault:packet_truncated",), repeated(PACKED[0], gzip.compress(ZEROS, 9, mtime=0)), 1_000),
    ("zstd of nothing", (), repeated(PACKED[1], EMPTY_FRAME), 1_000_000),
    ("zstd of skipped frames", (), repeated(PACKED[1], SKIPPED), 1_000_000),
    ("zstd of zeros", ("fault:packet_truncated",), repeated(PACKED[1], zstandard.compress(ZEROS)), 1_000),
)  # fmt: skip
