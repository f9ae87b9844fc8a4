"""The header walk: link layer, tags, IP and transport header of each packet, down to its payload.

What is read, in network order (IEEE 802.3, 802.1Q, RFC 791, 8200, 9293, 768):

    Ethernet   12 ethertype, after it any number of 4-byte tags (0x8100, 0x88A8, 0x9100)
    IPv4        0 version and header length in words, 2 total length, 6 flags and fragment offset,
                9 protocol, 12 source, 16 destination
    IPv6        4 payload length, 6 next header, 8 source, 24 destination, 40 extension headers
    TCP         0 ports, 4 sequence, 8 acknowledgement, 12 header length in words, 13 flags
    UDP         0 ports, 4 length with header

How much payload there is, IP says and not the frame: Ethernet pads, and check sums may trail. A
total length of 0 is a segment that the sender's card was still to cut (TSO): there the frame is
believed. What the capture cut off is known by the two lengths, and never read as whole. IPv4 or
IPv6 inside IP is walked on, up to eight deep; the innermost addresses count. Fragments are counted,
not put together.

Sketch: some 20 dependent byte loads from one or two cache lines and 60 bytes written a packet: 20
ns.
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels.bytes import be16, be32, be64
from pipeline.kernels.compile import kernel, primitive
from pipeline.model.faults import Fault, Skip

U64 = np.uint64
I64 = np.int64
MAPPED = U64(0xFFFF_0000_0000)
TAGS_MAX = 8
EXTENSIONS_MAX = 16
NESTING_MAX = 8

ETHERNET, RAW, RAW_OPENBSD, RAW_BSDI, IPV4, IPV6 = 1, 101, 14, 12, 228, 229
TCP, UDP = 6, 17

LINK_TYPE_UNKNOWN, PACKET_TRUNCATED = int(Fault.LINK_TYPE_UNKNOWN), int(Fault.PACKET_TRUNCATED)
ETHERTYPE_UNKNOWN, IP_HEADER_BAD = int(Fault.ETHERTYPE_UNKNOWN), int(Fault.IP_HEADER_BAD)
IP_LENGTH_BAD, TCP_HEADER_BAD = int(Fault.IP_LENGTH_BAD), int(Fault.TCP_HEADER_BAD)
UDP_HEADER_BAD, FRAGMENT = int(Fault.UDP_HEADER_BAD), int(Fault.FRAGMENT)
ENCAPSULATION_UNKNOWN = int(Fault.ENCAPSULATION_UNKNOWN)
NESTING_TOO_DEEP = int(Fault.NESTING_TOO_DEEP)
NOT_IP, NOT_TCP_OR_UDP = int(Skip.NOT_IP), int(Skip.NOT_TCP_OR_UDP)

# A verdict is a fault number, a skip number plus SKIPPED, or GOOD.
GOOD, SKIPPED = 0, 1000


HEADER = np.dtype(
    [
        ("source_hi", "u8"), ("source_lo", "u8"), ("target_hi", "u8"), ("target_lo", "u8"),
        ("payload_at", "i8"), ("sequence", "u4"), ("acknowledged", "u4"),
        ("payload_captured", "u4"),
        ("payload_length", "u4"), ("source_port", "u2"), ("target_port", "u2"), ("transport", "u1"),
        ("tcp_flags", "u1"), ("fault", "u1"), ("skip", "u1"),
    ]
)  # fmt: skip
"""One packet: 64 bytes."""


@primitive
def _other_ethertype(ethertype):
    """The verdict on an ethertype that is not IP: known and passed over, an encapsulation, or
    unknown.
    """
    if ethertype < 0x0600:  # a length: IEEE 802.2, spanning tree and the like
        return SKIPPED + NOT_IP
    if (
        ethertype == 0x0806  # ARP
        or ethertype == 0x8035  # RARP
        or ethertype == 0x0842  # wake on LAN
        or ethertype == 0x8137  # IPX
        or ethertype == 0x809B  # AppleTalk
        or ethertype == 0x80F3
        or ethertype == 0x8808  # pause
        or ethertype == 0x8809  # LACP
        or ethertype == 0x8863  # PPPoE discovery
        or ethertype == 0x888E  # EAPOL
        or ethertype == 0x88CC  # LLDP
        or ethertype == 0x88F7  # PTP
        or ethertype == 0x8902  # CFM
        or ethertype == 0x9000  # loopback test
    ):
        return SKIPPED + NOT_IP
    if ethertype == 0x8847 or ethertype == 0x8848 or ethertype == 0x8864:  # MPLS, PPPoE
        return ENCAPSULATION_UNKNOWN
    return ETHERTYPE_UNKNOWN


@primitive
def _other_protocol(protocol):
    """The verdict on an IP protocol that is neither TCP nor UDP nor IP."""
    if protocol == 47 or protocol == 115 or protocol == 137:  # GRE, L2TPv3, MPLS
        return ENCAPSULATION_UNKNOWN
    return SKIPPED + NOT_TCP_OR_UDP


@primitive
def _walk_link(data, at, stop, link_type):
    """To the IP header: (verdict, where it is, its version)."""
    if link_type == ETHERNET:
        if at + 14 > stop:
            return PACKET_TRUNCATED, at, 0
        ethertype = be16(data, at + 12)
        at += 14
        tags = 0
        while ethertype == 0x8100 or ethertype == 0x88A8 or ethertype == 0x9100:
            if tags == TAGS_MAX:
                return NESTING_TOO_DEEP, at, 0
            if at + 4 > stop:
                return PACKET_TRUNCATED, at, 0
            ethertype = be16(data, at + 2)
            at += 4
            tags += 1
        if ethertype == 0x0800:
            return GOOD, at, 4
        if ethertype == 0x86DD:
            return GOOD, at, 6
        return _other_ethertype(ethertype), at, 0
    if link_type == IPV4:
        return GOOD, at, 4
    if link_type == IPV6:
        return GOOD, at, 6
    if link_type in (RAW, RAW_OPENBSD, RAW_BSDI):
        if at + 1 > stop:
            return PACKET_TRUNCATED, at, 0
        version = I64(data[at]) >> 4
        if version == 4 or version == 6:
            return GOOD, at, version
        return IP_HEADER_BAD, at, 0
    return LINK_TYPE_UNKNOWN, at, 0


@primitive
def _walk_ipv4(data, at, stop, frame_stop):
    """Past an IPv4 header: (verdict, where its payload is, its protocol, where it ends by IP)."""
    if at + 20 > stop:
        return PACKET_TRUNCATED, at, 0, stop
    if I64(data[at]) >> 4 != 4:
        return IP_HEADER_BAD, at, 0, stop
    length = (I64(data[at]) & 15) * 4
    total = be16(data, at + 2)
    if length < 20:
        return IP_HEADER_BAD, at, 0, stop
    if total == 0:
        total = frame_stop - at
    if total < length:
        return IP_LENGTH_BAD, at, 0, stop
    if be16(data, at + 6) & 0x3FFF != 0:
        return FRAGMENT, at, 0, stop
    if at + length > stop:
        return PACKET_TRUNCATED, at, 0, stop
    return GOOD, at + length, I64(data[at + 9]), at + total


@primitive
def _walk_ipv6(data, at, stop, frame_stop):
    """Past a fixed IPv6 header: as for IPv4; the protocol may be an extension header."""
    if at + 40 > stop:
        return PACKET_TRUNCATED, at, 0, stop
    if I64(data[at]) >> 4 != 6:
        return IP_HEADER_BAD, at, 0, stop
    total = be16(data, at + 4)
    if total == 0:
        total = frame_stop - at - 40
    return GOOD, at + 40, I64(data[at + 6]), at + 40 + total


@primitive
def _walk_extensions(data, at, stop, protocol):
    """Past extension headers (and the IPv4 authentication header): (verdict, where, protocol)."""
    for _ in range(EXTENSIONS_MAX):
        if (
            protocol != 0
            and protocol != 43
            and protocol != 60
            and protocol != 44
            and protocol != 51
            and protocol != 135
            and protocol != 139
            and protocol != 140
        ):
            return GOOD, at, protocol
        if at + 8 > stop:
            return PACKET_TRUNCATED, at, protocol
        if protocol == 44:
            if be16(data, at + 2) & 0xFFF9 != 0:
                return FRAGMENT, at, protocol
            length = 8
        elif protocol == 51:
            length = (I64(data[at + 1]) + 2) * 4
        else:
            length = (I64(data[at + 1]) + 1) * 8
        protocol = I64(data[at])
        at += length
    return NESTING_TOO_DEEP, at, protocol


@primitive
def _walk_transport(data, at, stop, ip_stop, protocol, head):
    """Ports, sequence numbers and payload into `head`; the verdict."""
    if protocol == TCP:
        if ip_stop - at < 20:
            return TCP_HEADER_BAD
        if at + 20 > stop:
            return PACKET_TRUNCATED
        length = (I64(data[at + 12]) >> 4) * 4
        if length < 20 or at + length > ip_stop:
            return TCP_HEADER_BAD
        head.sequence = be32(data, at + 4)
        head.acknowledged = be32(data, at + 8)
        head.tcp_flags = data[at + 13]
    elif protocol == UDP:
        if ip_stop - at < 8:
            return UDP_HEADER_BAD
        if at + 8 > stop:
            return PACKET_TRUNCATED
        total = be16(data, at + 4)
        if total == 0:  # a jumbogram or an uncut super-segment
            total = ip_stop - at
        if total < 8 or at + total > ip_stop:
            return UDP_HEADER_BAD
        ip_stop = at + total
        length = I64(8)
    else:
        return _other_protocol(protocol)
    if at + length > stop:
        return PACKET_TRUNCATED
    head.source_port = be16(data, at)
    head.target_port = be16(data, at + 2)
    head.payload_at = at + length
    head.payload_length = ip_stop - at - length
    head.payload_captured = min(stop, ip_stop) - at - length
    return GOOD


@primitive
def _walk_network(data, at, stop, frame_stop, version, head):
    """From an IP header to the innermost payload; the verdict."""
    for _ in range(NESTING_MAX):
        if version == 4:
            verdict, inner, protocol, ip_stop = _walk_ipv4(data, at, stop, frame_stop)
        else:
            verdict, inner, protocol, ip_stop = _walk_ipv6(data, at, stop, frame_stop)
        if verdict != GOOD:
            return verdict
        if version == 4:
            head.source_hi = U64(0)
            head.source_lo = MAPPED | U64(be32(data, at + 12))
            head.target_hi = U64(0)
            head.target_lo = MAPPED | U64(be32(data, at + 16))
        else:
            head.source_hi = be64(data, at + 8)
            head.source_lo = be64(data, at + 16)
            head.target_hi = be64(data, at + 24)
            head.target_lo = be64(data, at + 32)
        stop = min(stop, ip_stop)
        frame_stop = ip_stop
        if version == 6 or protocol == 51:
            verdict, inner, protocol = _walk_extensions(data, inner, stop, protocol)
            if verdict != GOOD:
                return verdict
        head.transport = protocol
        if protocol == 4:
            version = 4
        elif protocol == 41:
            version = 6
        else:
            return _walk_transport(data, inner, stop, ip_stop, protocol, head)
        at = inner
    return NESTING_TOO_DEEP


@kernel
def walk_headers(data, offset, captured, wire, link_type, heads):
    """Walk every packet of a batch; each row gets a fault, a skip, or a payload's place and length.

    `offset`, `captured`, `wire` and `link_type` are columns of a PacketBatch; `heads` are HEADERs.
    """
    for i in range(len(offset)):
        head = heads[i]
        at = offset[i]
        stop = at + I64(captured[i])
        frame_stop = at + max(I64(wire[i]), I64(captured[i]))
        verdict, at, version = _walk_link(data, at, stop, I64(link_type[i]))
        head.transport = 0
        if verdict == GOOD:
            verdict = _walk_network(data, at, stop, frame_stop, version, head)
        head.fault = verdict if verdict < SKIPPED else 0
        head.skip = verdict - SKIPPED if verdict > SKIPPED else 0
