"""Writes pcapng (draft-ietf-opsawg-pcapng) piece by piece, honest or not: what is not given is as it
should be.

Every function takes the byte order of its section first, `<` or `>`.
"""

from __future__ import annotations

import struct

SECTION, INTERFACE, OLD_PACKET, SIMPLE, NAMES, STATISTICS, PACKET = 0x0A0D0D0A, 1, 2, 3, 4, 5, 6
COMMENT, TSRESOL, TSOFFSET = 1, 9, 14


def padded(raw: bytes) -> bytes:
    """With zeros up to a multiple of four."""
    return raw + bytes(-len(raw) % 4)


def block(
    order: str, kind: int, body: bytes, length: int | None = None, trailer: int | None = None
) -> bytes:
    """Any block; `length` and `trailer` where they are to lie."""
    body = padded(body)
    length = len(body) + 12 if length is None else length
    trailer = length if trailer is None else trailer
    return struct.pack(order + "II", kind, length) + body + struct.pack(order + "I", trailer)


def option(order: str, code: int, value: bytes) -> bytes:
    """One option."""
    return struct.pack(order + "HH", code, len(value)) + padded(value)


def section(order: str, major: int = 1, options: bytes = b"") -> bytes:
    """A section header."""
    return block(order, SECTION, struct.pack(order + "IHHq", 0x1A2B3C4D, major, 0, -1) + options)


def interface(
    order: str,
    link_type: int = 1,
    snap: int = 0,
    resolution: int | None = None,
    offset: int | None = None,
    options: bytes = b"",
) -> bytes:
    """A description of an interface."""
    said = option(order, TSRESOL, bytes([resolution])) if resolution is not None else b""
    said += option(order, TSOFFSET, struct.pack(order + "q", offset)) if offset is not None else b""
    end = option(order, 0, b"") if said or options else b""
    head = struct.pack(order + "HHI", link_type, 0, snap)
    return block(order, INTERFACE, head + options + said + end)


def packet(
    order: str,
    raw: bytes,
    ticks: int = 0,
    number: int = 0,
    wire: int | None = None,
    captured: int | None = None,
    options: bytes = b"",
) -> bytes:
    """An enhanced packet block."""
    captured = len(raw) if captured is None else captured
    wire = len(raw) if wire is None else wire
    head = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, captured, wire)
    return block(order, PACKET, head + padded(raw) + options)


def old_packet(order: str, raw: bytes, ticks: int = 0, number: int = 0) -> bytes:
    """An obsolete packet block, of which three had been dropped before."""
    words = (number, 3, ticks >> 32, ticks & 0xFFFFFFFF, len(raw), len(raw))
    return block(order, OLD_PACKET, struct.pack(order + "HHIIII", *words) + raw)


def simple(order: str, raw: bytes, wire: int | None = None) -> bytes:
    """A simple packet block."""
    wire = len(raw) if wire is None else wire
    return block(order, SIMPLE, struct.pack(order + "I", wire) + raw)
