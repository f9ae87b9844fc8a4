"""The header walk in plain Python: each layer is a slice of bytes, too short a slice an exception."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from pipeline.model.faults import Fault, Skip

TAGS = {0x8100, 0x88A8, 0x9100}
PASSED_OVER = {
    0x0806, 0x8035, 0x0842, 0x8137, 0x809B, 0x80F3, 0x8808, 0x8809, 0x8863, 0x888E, 0x88CC, 0x88F7,
    0x8902, 0x9000,
}  # fmt: skip
TUNNELS = {0x8847, 0x8848, 0x8864}
EXTENSIONS = {0, 43, 44, 51, 60, 135, 139, 140}


@dataclass(frozen=True)
class Header:
    """What is in a packet, if it is TCP or UDP; `payload` is what was captured of `payload_length`."""

    source: str
    target: str
    transport: str
    source_port: int
    target_port: int
    payload: bytes
    payload_length: int
    tcp_flags: int = 0
    sequence: int = 0
    acknowledged: int = 0


class Rejected(Exception):
    """A packet with a fault, or one that is skipped; the word is the only argument."""


class Bytes:
    """Captured bytes of which `length` were on the wire; reading beyond what was captured rejects."""

    def __init__(self, raw: bytes, length: int) -> None:
        self.raw, self.length = raw, length

    def need(self, count: int) -> None:
        if len(self.raw) < count:
            raise Rejected(Fault.PACKET_TRUNCATED)

    def number(self, at: int, width: int) -> int:
        self.need(at + width)
        return int.from_bytes(self.raw[at : at + width], "big")

    def after(self, count: int) -> Bytes:
        self.need(count)
        return Bytes(self.raw[count:], self.length - count)

    def cut(self, length: int) -> Bytes:
        return Bytes(self.raw[: max(length, 0)], length)


def walk_headers(raw: bytes, wire_length: int, link_type: int) -> Header | Fault | Skip:
    """The header of a packet, or why there is none."""
    frame = Bytes(raw, max(wire_length, len(raw)))
    try:
        version, packet = _link(frame, link_type)
        return _network(packet, version)
    except Rejected as rejected:
        return rejected.args[0]


def _link(frame: Bytes, link_type: int) -> tuple[int, Bytes]:
    if link_type in (228, 229):
        return (4 if link_type == 228 else 6), frame
    if link_type in (12, 14, 101):
        version = frame.number(0, 1) >> 4
        if version not in (4, 6):
            raise Rejected(Fault.IP_HEADER_BAD)
        return version, frame
    if link_type != 1:
        raise Rejected(Fault.LINK_TYPE_UNKNOWN)
    frame.need(14)
    ethertype, frame = frame.number(12, 2), frame.after(14)
    tags = 0
    while ethertype in TAGS:
        tags += 1
        if tags > 8:
            raise Rejected(Fault.NESTING_TOO_DEEP)
        frame.need(4)
        ethertype, frame = frame.number(2, 2), frame.after(4)
    if ethertype in (0x0800, 0x86DD):
        return (4 if ethertype == 0x0800 else 6), frame
    if ethertype < 0x600 or ethertype in PASSED_OVER:
        raise Rejected(Skip.NOT_IP)
    raise Rejected(Fault.ENCAPSULATION_UNKNOWN if ethertype in TUNNELS else Fault.ETHERTYPE_UNKNOWN)


def _network(packet: Bytes, version: int) -> Header:
    for _ in range(8):
        packet.need(20 if version == 4 else 40)
        if packet.number(0, 1) >> 4 != version:
            raise Rejected(Fault.IP_HEADER_BAD)
        protocol, inner = _ipv4(packet) if version == 4 else _ipv6(packet)
        width, at = (4, 12) if version == 4 else (16, 8)
        source, target = (
            str(ipaddress.ip_address(packet.raw[i : i + width])) for i in (at, at + width)
        )
        if version == 6 or protocol == 51:
            protocol, inner = _extensions(protocol, inner)
        if protocol not in (4, 41):
            return _transport(protocol, inner, source, target)
        packet, version = inner, 4 if protocol == 4 else 6
    raise Rejected(Fault.NESTING_TOO_DEEP)


def _ipv4(packet: Bytes) -> tuple[int, Bytes]:
    length = (packet.number(0, 1) & 15) * 4
    if length < 20:
        raise Rejected(Fault.IP_HEADER_BAD)
    total = packet.number(2, 2) or packet.length
    if total < length:
        raise Rejected(Fault.IP_LENGTH_BAD)
    more_fragments, offset = packet.number(6, 2) & 0x2000, packet.number(6, 2) & 0x1FFF
    if more_fragments or offset:
        raise Rejected(Fault.FRAGMENT)
    packet.need(length)
    return packet.number(9, 1), packet.cut(total).after(length)


def _ipv6(packet: Bytes) -> tuple[int, Bytes]:
    payload = packet.number(4, 2) or packet.length - 40
    return packet.number(6, 1), packet.after(40).cut(payload)


def _extensions(protocol: int, inner: Bytes) -> tuple[int, Bytes]:
    for _ in range(16):
        if protocol not in EXTENSIONS:
            return protocol, inner
        inner.need(8)
        following, size = inner.number(0, 1), inner.number(1, 1)
        if protocol == 44:
            if inner.number(2, 2) & 0xFFF8 or inner.number(2, 2) & 1:
                raise Rejected(Fault.FRAGMENT)
            length = 8
        else:
            length = (size + 2) * 4 if protocol == 51 else (size + 1) * 8
        protocol = following
        # A header may end beyond what was captured; whoever reads there will notice.
        inner = Bytes(inner.raw[length:], inner.length - length)
    raise Rejected(Fault.NESTING_TOO_DEEP)


def _transport(protocol: int, segment: Bytes, source: str, target: str) -> Header:
    if protocol == 6:
        if segment.length < 20:
            raise Rejected(Fault.TCP_HEADER_BAD)
        segment.need(20)
        length = (segment.number(12, 1) >> 4) * 4
        if length < 20 or length > segment.length:
            raise Rejected(Fault.TCP_HEADER_BAD)
        name, flags, sequence, ack = (
            "tcp",
            segment.number(13, 1),
            segment.number(4, 4),
            segment.number(8, 4),
        )
    elif protocol == 17:
        if segment.length < 8:
            raise Rejected(Fault.UDP_HEADER_BAD)
        segment.need(8)
        total = segment.number(4, 2) or segment.length
        if total < 8 or total > segment.length:
            raise Rejected(Fault.UDP_HEADER_BAD)
        segment, length = segment.cut(total), 8
        name, flags, sequence, ack = "udp", 0, 0, 0
    elif protocol in (47, 115, 137):
        raise Rejected(Fault.ENCAPSULATION_UNKNOWN)
    else:
        raise Rejected(Skip.NOT_TCP_OR_UDP)
    source_port, target_port = segment.number(0, 2), segment.number(2, 2)
    payload = segment.after(length)
    return Header(
        source,
        target,
        name,
        source_port,
        target_port,
        payload.raw,
        payload.length,
        flags,
        sequence,
        ack,
    )
