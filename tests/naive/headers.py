"""The header walk in plain Python: each layer is a slice of bytes, too short a slice an exception.

Layers call each other as they are nested. A datagram to a tunnel's port tries what is inside and,
when that raises a contradiction before an IP header held, is a plain datagram after all.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.model.faults import Fault, Skip

TAGS = {0x8100, 0x88A8, 0x9100}
PORT_TAGS = {0x8926: 6, 0x893F: 8, 0x8909: 8}  # VN-Tag, 802.1BR, Cisco's metadata
PASSED_OVER = {
    0x0806, 0x8035, 0x0842, 0x8137, 0x809B, 0x80F3, 0x8808, 0x8809, 0x8863, 0x888E, 0x88CC, 0x88F7,
    0x8902, 0x9000,
}  # fmt: skip
CARRIERS = {0x0800, 0x86DD, 0x8847, 0x8848, 0x8864, 0x88E7, 0x894F, *PORT_TAGS}
EXTENSIONS = {0, 43, 44, 51, 60, 135, 139, 140}
KNOWN_PROTOCOLS = {1, 2, 33, 46, 50, 58, 59, 88, 89, 103, 108, 112, 132, 136}
NESTING_MAX = 16


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
    realm: tuple[int, ...] = ()


@dataclass(frozen=True)
class Fragment:
    """A piece of a packet: `payload` from byte `offset` on; `depth` headers lie around it."""

    source: str
    target: str
    version: int
    protocol: int
    identification: int
    offset: int
    more: bool
    payload: bytes
    depth: int
    realm: tuple[int, ...] = ()


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

    @property
    def is_cut(self) -> bool:
        return len(self.raw) < self.length


Found = Header | Fragment


def walk_headers(
    raw: bytes, wire_length: int, link_type: int, stripped_vlan: int = -1
) -> Found | Fault | Skip:
    """The header of a packet, a fragment, or why there is neither."""
    walk = Walk([stripped_vlan & 0xFFF] if stripped_vlan >= 0 else [])
    try:
        return walk.link(Bytes(raw, max(wire_length, len(raw))), link_type)
    except Rejected as rejected:
        return rejected.args[0]


@dataclass
class Walk:
    """One way inwards: the tags met, the headers around, and whether an IP header held lately."""

    tags: list[int] = field(default_factory=list)
    depth: int = 0
    held: bool = False
    source: str = ""  # of the innermost IP header that held

    # Links.

    def link(self, frame: Bytes, link_type: int) -> Found:
        if link_type == 1:
            return self.ethernet(frame)
        if link_type in (228, 229):
            return self.network(frame, 4 if link_type == 228 else 6)
        if link_type in (12, 14, 101):
            version = frame.number(0, 1) >> 4
            if version not in (4, 6):
                raise Rejected(Fault.IP_HEADER_BAD)
            return self.network(frame, version)
        if link_type == 113:
            return self.ethertype(frame.number(14, 2), frame.after(16))
        if link_type == 276:
            frame.need(20)
            return self.ethertype(frame.number(0, 2), frame.after(20))
        if link_type in (0, 108):
            family = frame.number(0, 4)
            family = min(family, int.from_bytes(frame.raw[:4], "little"))
            if family not in (2, 10, 23, 24, 28, 30):
                raise Rejected(Fault.ETHERTYPE_UNKNOWN)
            return self.network(frame.after(4), 4 if family == 2 else 6)
        if link_type == 219:
            return self.mpls(frame)
        if link_type == 51:
            return self.pppoe(frame)
        if link_type == 239:
            return self.nflog(frame)
        if link_type == 129:
            return self.arcnet(frame)
        if link_type in (9, 50, 104):
            frame.need(4)
            if link_type != 9 and frame.raw[0] in (0x0F, 0x8F):
                return self.ethertype(frame.number(2, 2), frame.after(4))
            if link_type != 104:
                return self.ppp(frame)
        raise Rejected(Fault.LINK_TYPE_UNKNOWN)

    def arcnet(self, frame: Bytes) -> Found:
        frame.need(5)
        protocol = frame.raw[4]
        if protocol == 0xF0:
            return self.network(frame.after(5), 4)
        if protocol in (0xF1, 0xD5, 0xD6):
            raise Rejected(Skip.NOT_IP)
        version = {0xD4: 4, 0xC4: 6}.get(protocol)
        if version is None:
            raise Rejected(Fault.ETHERTYPE_UNKNOWN)
        frame.need(8)
        if frame.raw[5]:
            raise Rejected(Fault.ENCAPSULATION_UNKNOWN)
        return self.network(frame.after(8), version)

    def nflog(self, frame: Bytes) -> Found:
        frame.need(4)
        version = {2: 4, 10: 6}.get(frame.raw[0])
        if version is None:
            raise Rejected(Skip.NOT_IP)
        frame = frame.after(4)
        while True:
            frame.need(4)
            length = int.from_bytes(frame.raw[0:2], "little")
            if length < 4:
                raise Rejected(Fault.ENCAPSULATION_UNKNOWN)
            if int.from_bytes(frame.raw[2:4], "little") == 9:
                return self.network(frame.cut(length).after(4), version)
            frame = frame.after(-(-length // 4) * 4)

    def enter(self) -> None:
        self.depth += 1
        if self.depth > NESTING_MAX:
            raise Rejected(Fault.NESTING_TOO_DEEP)

    def ethernet(self, frame: Bytes) -> Found:
        self.enter()
        return self.ethertype(frame.number(12, 2), frame.after(14))

    def ethertype(self, ethertype: int, frame: Bytes) -> Found:
        tags = 0
        while ethertype in TAGS or ethertype in PORT_TAGS:
            tags += 1
            if tags > 8:
                raise Rejected(Fault.NESTING_TOO_DEEP)
            size = PORT_TAGS.get(ethertype, 4)
            frame.need(size)
            if ethertype in TAGS:
                self.tags.append(frame.number(0, 2) & 0xFFF)
            ethertype, frame = frame.number(size - 2, 2), frame.after(size)
        if ethertype < 0x600:
            if frame.raw[:6] != b"\xaa\xaa\x03\0\0\0" or len(frame.raw) < 8:
                raise Rejected(Skip.NOT_IP)
            ethertype, frame = frame.number(6, 2), frame.after(8)
        carried: dict[int, Callable[[Bytes], Found]] = {
            0x0800: lambda inner: self.network(inner, 4),
            0x86DD: lambda inner: self.network(inner, 6),
            0x8847: self.mpls,
            0x8848: self.mpls,
            0x8864: self.pppoe,
            0x6558: self.ethernet,
            0x880B: self.ppp,
            0x88E7: self.backbone,
            0x894F: self.nsh,
        }
        if ethertype in carried:
            return carried[ethertype](frame)
        if ethertype < 0x600 or ethertype in PASSED_OVER:
            raise Rejected(Skip.NOT_IP)
        raise Rejected(Fault.ETHERTYPE_UNKNOWN)

    def backbone(self, frame: Bytes) -> Found:
        # The number may end beyond what was captured; the frame behind it notices.
        return self.ethernet(Bytes(frame.raw[4:], frame.length - 4))

    def nsh(self, frame: Bytes) -> Found:
        from tests.naive.tunnels import CARRIED

        self.enter()
        frame.need(8)
        first, following = frame.number(0, 2), frame.number(3, 1)
        version, size = first >> 14, first % 64 * 4
        if version or size < 8 or following not in CARRIED:
            raise Rejected(Fault.ENCAPSULATION_UNKNOWN)
        if first >> 13 & 1:
            raise Rejected(Skip.NOT_IP)
        # The header may end beyond what was captured; what is behind it notices.
        inner = Bytes(frame.raw[size:], frame.length - size)
        return self.ethertype(CARRIED[following], inner)

    def pppoe(self, frame: Bytes) -> Found:
        frame.need(6)
        if frame.number(0, 2) != 0x1100:
            raise Rejected(Fault.ENCAPSULATION_UNKNOWN)
        return self.ppp(frame.after(6).cut(frame.number(4, 2)))

    def ppp(self, frame: Bytes) -> Found:
        self.enter()
        if frame.raw[:2] == b"\xff\x03":
            frame = frame.after(2)
        size = 1 if frame.number(0, 1) % 2 else 2
        protocol, frame = frame.number(0, size), frame.after(size)
        if protocol in (0x21, 0x57):
            return self.network(frame, 4 if protocol == 0x21 else 6)
        if protocol in (0x281, 0x283):
            return self.mpls(frame)
        if protocol == 0x3D:
            if frame.number(0, 4) >> 30 != 3:
                raise Rejected(Fault.ENCAPSULATION_UNKNOWN)
            return self.ppp(frame.after(4))
        if protocol >= 0x8000:
            raise Rejected(Skip.NOT_IP)
        closed = protocol in (0xFB, 0xFD, 0x53)
        raise Rejected(Fault.ENCAPSULATION_UNKNOWN if closed else Fault.ETHERTYPE_UNKNOWN)

    def mpls(self, frame: Bytes) -> Found:
        for _ in range(16):
            bottom, frame = frame.number(0, 4) >> 8 & 1, frame.after(4)
            if bottom:
                break
        else:
            raise Rejected(Fault.NESTING_TOO_DEEP)
        nibble = frame.number(0, 1) >> 4
        if nibble in (4, 6) and could_be_ip(frame):
            return self.network(frame, nibble)
        if nibble == 0 and is_frame(frame.raw[4:]):
            return self.ethernet(frame.after(4))
        if is_frame(frame.raw):
            return self.ethernet(frame)
        if nibble in (4, 6):
            return self.network(frame, nibble)
        if nibble == 1:
            raise Rejected(Skip.NOT_IP)
        frame.need(18)
        raise Rejected(Fault.ENCAPSULATION_UNKNOWN)

    # IP and above.

    def network(self, packet: Bytes, version: int) -> Found:
        self.enter()
        packet.need(20 if version == 4 else 40)
        if packet.number(0, 1) >> 4 != version:
            raise Rejected(Fault.IP_HEADER_BAD)
        width, at = (4, 12) if version == 4 else (16, 8)
        ends = [str(ipaddress.ip_address(packet.raw[i : i + width])) for i in (at, at + width)]
        if version == 6:
            self.held, self.source = True, ends[0]
            inner = packet.after(40).cut(packet.number(4, 2) or packet.length - 40)
            return self.extensions(packet.number(6, 1), inner, ends)
        length = (packet.number(0, 1) & 15) * 4
        if length < 20:
            raise Rejected(Fault.IP_HEADER_BAD)
        total, pieces = packet.number(2, 2), packet.number(6, 2)
        fragmented = pieces & 0x2000 or pieces & 0x1FFF
        if not total and not fragmented:
            total = packet.length
        if total < length:
            raise Rejected(Fault.IP_LENGTH_BAD)
        packet.need(length)
        protocol, inner = packet.number(9, 1), packet.cut(total).after(length)
        if fragmented:
            more, offset = pieces & 0x2000, (pieces & 0x1FFF) * 8
            return self.fragment(inner, ends, 4, protocol, packet.number(4, 2), offset, more)
        self.held, self.source = True, ends[0]
        if protocol == 51:
            return self.extensions(protocol, inner, ends)
        return self.protocol(protocol, inner, ends)

    def extensions(self, protocol: int, inner: Bytes, ends: list[str]) -> Found:
        for _ in range(16):
            if protocol not in EXTENSIONS:
                return self.protocol(protocol, inner, ends)
            inner.need(8)
            following, size = inner.number(0, 1), inner.number(1, 1)
            if protocol == 44:
                pieces = inner.number(2, 2)
                if pieces & 0xFFF8 or pieces & 1:
                    offset, more, number = pieces & 0xFFF8, pieces & 1, inner.number(4, 4)
                    return self.fragment(inner.after(8), ends, 6, following, number, offset, more)
                length = 8
            else:
                length = (size + 2) * 4 if protocol == 51 else (size + 1) * 8
            protocol = following
            # A header may end beyond what was captured; whoever reads there will notice.
            inner = Bytes(inner.raw[length:], inner.length - length)
        raise Rejected(Fault.NESTING_TOO_DEEP)

    def fragment(
        self, inner: Bytes, ends: list[str], version: int, protocol: int, number: int, offset: int, more: int
    ) -> Fragment:  # fmt: skip
        if inner.length <= 0 or offset + inner.length > 65535 or (more and inner.length % 8):
            raise Rejected(Fault.IP_LENGTH_BAD)
        inner.need(inner.length)
        self.source = ends[0]
        realm = tuple(self.tags[:2])
        return Fragment(*ends, version, protocol, number, offset, bool(more), inner.raw, self.depth, realm)  # fmt: skip

    def protocol(self, protocol: int, inner: Bytes, ends: list[str]) -> Found:
        from tests.naive import tunnels

        if protocol == 17:
            return self.datagram(inner, ends)
        if protocol == 6:
            return self.segment(inner, ends)
        if protocol in (4, 41):
            return self.network(inner, 4 if protocol == 4 else 6)
        if protocol == 137:
            return self.mpls(inner)
        if protocol in (47, 97, 115):
            how = {47: tunnels.gre, 97: tunnels.ether_ip, 115: tunnels.l2tp_over_ip}[protocol]
            return how(self, inner)
        known = protocol in KNOWN_PROTOCOLS
        raise Rejected(Skip.NOT_TCP_OR_UDP if known else Fault.PROTOCOL_UNKNOWN)

    def segment(self, segment: Bytes, ends: list[str]) -> Header:
        if segment.length < 20:
            raise Rejected(Fault.TCP_HEADER_BAD)
        segment.need(20)
        length = (segment.number(12, 1) >> 4) * 4
        if length < 20 or length > segment.length:
            raise Rejected(Fault.TCP_HEADER_BAD)
        payload = segment.after(length)
        return Header(
            *ends, "tcp", segment.number(0, 2), segment.number(2, 2), payload.raw, payload.length,
            segment.number(13, 1), segment.number(4, 4), segment.number(8, 4), tuple(self.tags[:2]),
        )  # fmt: skip

    def datagram(self, datagram: Bytes, ends: list[str]) -> Found:
        from tests.naive import tunnels

        if datagram.length < 8:
            raise Rejected(Fault.UDP_HEADER_BAD)
        datagram.need(8)
        total = datagram.number(4, 2) or datagram.length
        if total < 8 or total > datagram.length:
            raise Rejected(Fault.UDP_HEADER_BAD)
        payload = datagram.cut(total).after(8)
        ports = datagram.number(0, 2), datagram.number(2, 2)
        plain = Header(
            *ends, "udp", *ports, payload.raw, payload.length, realm=tuple(self.tags[:2])
        )
        inside = tunnels.open_datagram(self, payload, ports)
        if inside is None:
            return plain
        self.held = False
        try:
            return inside()
        except Rejected as rejected:
            (word,) = rejected.args
            excused = word == Fault.PACKET_TRUNCATED and datagram.is_cut
            if self.held or isinstance(word, Skip) or word == Fault.NESTING_TOO_DEEP or excused:
                self.held = True  # for a tunnel around this one: its IP header was good
                raise
            return plain


def could_be_ip(frame: Bytes) -> bool:
    """Do the lengths of what begins like an IP header agree with what is around it?"""
    if frame.raw[0] >> 4 == 4:
        total = int.from_bytes(frame.raw[2:4], "big")
        header = (frame.raw[0] & 15) * 4
        fits = not total or header <= total <= frame.length
        return len(frame.raw) >= 4 and header >= 20 and fits
    return len(frame.raw) >= 6 and int.from_bytes(frame.raw[4:6], "big") + 40 <= frame.length


def is_frame(raw: bytes) -> bool:
    """Does an ethertype that we know stand where a frame has one?"""
    kind = int.from_bytes(raw[12:14], "big")
    return len(raw) >= 14 and kind in TAGS | CARRIERS | PASSED_OVER
