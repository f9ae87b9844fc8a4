"""pcapng files, one block at a time, by the text of draft-ietf-opsawg-pcapng.

A whole file at once, with exceptions for what is wrong and Python's integers for times.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field

LONGEST = 1 << 18
INTERFACES = 4096
MAGICS = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}
END_OF_TIMES = 9_223_372_036 * 10**9


@dataclass
class Packet:
    """What a row of a batch says."""

    time_ns: int
    wire: int
    raw: bytes
    interface: int
    link_type: int


@dataclass
class Interface:
    """What an interface description says, or that it could not be made out."""

    link_type: int
    snap: int
    resolution: int = 6
    offset: int = 0
    known: bool = True

    def time_ns(self, ticks: int) -> int | None:
        """Nanoseconds since 1970, None if there are no such."""
        power = self.resolution & 0x7F
        ticks_a_second = 2**power if self.resolution & 0x80 else 10**power
        found = ticks * 10**9 // ticks_a_second + self.offset * 10**9
        return found if 0 <= found < END_OF_TIMES else None


@dataclass
class Reading:
    """What is in a file."""

    packets: list[Packet] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)


class Ended(Exception):
    """No more can be read, for the reason given."""


class _File:
    def __init__(self, raw: bytes, reading: Reading) -> None:
        self.raw, self.reading = raw, reading
        self.order = "<"
        self.interfaces: list[Interface] = []
        self.last_ns = 0
        self.foreign = False

    def words(self, form: str, at: int) -> tuple[int, ...]:
        """Numbers that must be there."""
        if at + struct.calcsize(self.order + form) > len(self.raw):
            raise Ended("file_truncated")
        return struct.unpack_from(self.order + form, self.raw, at)

    def block(self, at: int) -> int:
        """Read the block at a place; the place of the next."""
        if len(self.raw) < at + 12:
            raise Ended("file_truncated")
        section = self.raw[at : at + 4] == b"\x0a\x0d\x0d\x0a"
        if section:
            self.words("II", at + 8)
            if self.raw[at + 8 : at + 12] not in MAGICS:
                raise Ended("record_header_bad")
            self.order = MAGICS[self.raw[at + 8 : at + 12]]
        kind, length = self.words("II", at)
        if length < 12 or length % 4 or (section and length < 28):
            raise Ended("record_header_bad")
        if section:
            self.foreign = self.words("H", at + 12) != (1,)
            self.reading.faults["section_unsupported"] += self.foreign
            self.interfaces = []
        elif self.foreign:
            pass
        elif kind == 1:
            self.interface(at, length)
        elif kind in (2, 3, 6):
            self.packet(kind, at, length)
        if self.words("I", at + length - 4) != (length,):
            raise Ended("record_header_bad")
        return at + length

    def interface(self, at: int, length: int) -> None:
        whole = 20 <= length <= LONGEST
        if whole and at + length > len(self.raw):
            raise Ended("file_truncated")
        if len(self.interfaces) == INTERFACES:
            return
        if not whole:
            self.interfaces.append(Interface(0, 0, known=False))
            self.reading.faults["block_bad"] += 1
            return
        link_type, _, snap = self.words("HHI", at + 8)
        found = Interface(link_type, snap)
        self.interfaces.append(found)
        options = self.raw[at + 16 : at + length - 4]
        bad = False
        while len(options) >= 4:
            code, size = struct.unpack_from(self.order + "HH", options)
            value, options = options[4 : 4 + size], options[4 + (size + 3) // 4 * 4 :]
            if code == 0:
                break
            if len(value) < size:
                bad = True
                break
            if code == 9 and size == 1:
                found.resolution = value[0]
            elif code == 14 and size == 8:
                found.offset = struct.unpack(self.order + "q", value)[0]
            elif code in (9, 14):
                bad = True
        self.reading.faults["block_bad"] += bad

    def packet(self, kind: int, at: int, length: int) -> None:
        head = 12 if kind == 3 else 28
        if length < head + 4:
            self.reading.faults["block_bad"] += 1
            return
        number, ticks = 0, None
        if kind == 3:
            (wire,) = self.words("I", at + 8)
        elif kind == 2:
            number, _, high, low, captured, wire = self.words("HHIIII", at + 8)
            ticks = high << 32 | low
        else:
            number, high, low, captured, wire = self.words("IIIII", at + 8)
            ticks = high << 32 | low
        if number >= len(self.interfaces) or not self.interfaces[number].known:
            self.reading.faults["interface_unknown"] += 1
            return
        interface = self.interfaces[number]
        if kind == 3:
            captured = min(wire, interface.snap or wire, length - 16)
        if captured > length - head - 4 or captured > LONGEST:
            self.reading.faults["block_bad"] += 1
            return
        raw = self.raw[at + head : at + head + captured]
        if len(raw) < captured:
            raise Ended("file_truncated")
        if ticks is None:
            self.reading.faults["time_missing"] += 1
        elif (time_ns := interface.time_ns(ticks)) is None:
            self.reading.faults["time_bad"] += 1
        else:
            self.last_ns = time_ns
        packet = Packet(self.last_ns, wire, raw, number, interface.link_type)
        self.reading.packets.append(packet)


def frame_pcapng(raw: bytes) -> Reading:
    """Read a whole file that begins like one."""
    reading = Reading()
    file, at = _File(raw, reading), 0
    try:
        while at < len(raw):
            at = file.block(at)
    except Ended as why:
        reading.faults[str(why)] += 1
    reading.faults = +reading.faults
    return reading
