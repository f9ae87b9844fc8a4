"""A DNS answer, read field by field: the name that was asked for, and the addresses it has."""

from __future__ import annotations

import ipaddress
import re
import struct

HOST = re.compile(rb"[a-z0-9_-]{1,63}")


class _Bad(Exception):
    """Not all there, or not what it should be."""


class _Cursor:
    def __init__(self, raw: bytes, at: int) -> None:
        self.raw, self.at = raw, at

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.raw):
            raise _Bad
        self.at += count
        return self.raw[self.at - count : self.at]

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")

    def skip_name(self) -> None:
        while size := self.number(1):
            if size >= 0xC0:
                self.take(1)
                return
            if size > 63:
                raise _Bad
            self.take(size)


def _question(cursor: _Cursor) -> str | None:
    labels = []
    while size := cursor.number(1):
        if size > 63:
            return None
        label = cursor.take(size).lower()
        if not HOST.fullmatch(label):
            return None
        labels.append(label)
        if sum(len(label) + 1 for label in labels) > 254:
            return None
    return b".".join(labels).decode() or None


def read_answer(raw: bytes) -> tuple[str, list[str]] | None:
    """(name asked for, addresses as text), or None where it is no answer to one question."""
    if len(raw) < 12:
        return None
    _, flags, questions, count = struct.unpack(">HHHH", raw[:8])
    if flags & 0xF80F != 0x8000 or questions != 1:
        return None
    cursor, addresses = _Cursor(raw, 12), []
    try:
        name = _question(cursor)
        cursor.take(2)
        if name is None or cursor.number(2) != 1:
            return None
    except _Bad:
        return None
    try:
        for _ in range(min(count, 32)):
            cursor.skip_name()
            kind, family = cursor.number(2), cursor.number(2)
            cursor.take(4)
            data = cursor.take(cursor.number(2))
            if family == 1 and (kind, len(data)) in ((1, 4), (28, 16)) and any(data):
                address = ipaddress.ip_address(data)
                mapped = getattr(address, "ipv4_mapped", None)
                addresses.append(str(mapped or address))
    except _Bad:
        pass
    return name, addresses
