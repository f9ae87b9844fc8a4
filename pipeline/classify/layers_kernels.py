"""One layer at a time: what a link, an ethertype, PPP, MPLS, IP or a transport header leads to.

What is read, in network order (IEEE 802.3, 802.1Q, 802.1BR, 802.2; RFC 791, 1661, 2516, 3032, 4385,
4448, 8200, 8300, 9293, 768; the link types as libpcap's registry lays them out):

    Ethernet   12 ethertype or 802.3 length, after it tags of 4 bytes, or LLC/SNAP (AA AA 03, OUI 0)
                and tags of ports (802.1BR, 8 bytes; its forerunner, 6) and of Cisco's groups (8)
    PPP         FF 03 or nothing, then a protocol of two bytes, or of one, which is then odd
    PPPoE       0 version and type 0x11, 1 code 0, 2 session, 4 length of what follows
    MPLS        labels of 4 bytes up to the one with the bottom bit; what follows has no type
    NSH         0 version (C000), O bit (2000) and length in words (003F), 3 what follows
    IPv4        0 version and header length in words, 2 total length, 4 identification, 6 flags and
                fragment offset, 9 protocol, 12 source, 16 destination
    IPv6        4 payload length, 6 next header, 8 source, 24 destination, 40 extension headers
    TCP         0 ports, 4 sequence, 8 acknowledgement, 12 header length in words, 13 flags
    UDP         0 ports, 4 length with header

Each function takes a layer's place `at`, where the captured bytes `stop`, and where its bytes end
by what the layers around it announce (`whole`, which may lie beyond `stop` where the capture cut
something off). It gives a verdict and the next layer: (verdict, layer, place, kind, whole), where
kind is an ethertype, an IP version or a protocol. What the capture cut off is never read as whole.

Under MPLS only bytes tell: 4 or 6 in the first half byte is IP if its lengths can be true; else a
control word (0) and Ethernet, or Ethernet alone, if an ethertype that we know stands in its place.
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels.bytes import be16, be32, be64, le32
from pipeline.kernels.compile import primitive, routine
from pipeline.model.faults import Fault, Skip

U64 = np.uint64
I64 = np.int64
MAPPED = U64(0xFFFF_0000_0000)
TAGS_MAX, LABELS_MAX, EXTENSIONS_MAX = 8, 16, 16
PACKET_BYTES_MAX = 65535
TAG = 0x1000  # in a half of `realm`: there is a tag, whatever its number

# Link types, by their numbers in libpcap's registry.
NULL, ETHERNET, PPP, RAW_BSDI, RAW_OPENBSD, PPP_HDLC, PPP_ETHER = 0, 1, 9, 12, 14, 50, 51
RAW, CISCO_HDLC, LOOP, LINUX_SLL, MPLS, IPV4, IPV6 = 101, 104, 108, 113, 219, 228, 229
ARCNET_LINUX, NFLOG, LINUX_SLL2 = 129, 239, 276
NFLOG_PAYLOAD = 9
# What follows ARCNET's header: IP of RFC 1051; IP and IPv6 of RFC 1201, behind a split flag and a
# number; and what resolves addresses in either.
ARC_IP_1051, ARC_IP, ARC_IPV6 = 0xF0, 0xD4, 0xC4
ARC_ARP_1051, ARC_ARP, ARC_RARP = 0xF1, 0xD5, 0xD6

TCP, UDP, FRAGMENT_HEADER, AUTHENTICATION = 6, 17, 44, 51

LINK_TYPE_UNKNOWN, PACKET_TRUNCATED = int(Fault.LINK_TYPE_UNKNOWN), int(Fault.PACKET_TRUNCATED)
ETHERTYPE_UNKNOWN, IP_HEADER_BAD = int(Fault.ETHERTYPE_UNKNOWN), int(Fault.IP_HEADER_BAD)
IP_LENGTH_BAD, TCP_HEADER_BAD = int(Fault.IP_LENGTH_BAD), int(Fault.TCP_HEADER_BAD)
UDP_HEADER_BAD = int(Fault.UDP_HEADER_BAD)
ENCAPSULATION_UNKNOWN = int(Fault.ENCAPSULATION_UNKNOWN)
NESTING_TOO_DEEP = int(Fault.NESTING_TOO_DEEP)
NOT_IP = int(Skip.NOT_IP)

# A verdict is a fault number, a skip number plus SKIPPED, GOOD, or PIECE: a fragment's header.
GOOD, SKIPPED, PIECE = 0, 1000, 2000

# What may come next. AT_EXTENSION is what an IPv6 header, or an authentication header, leads to.
AT_ETHERNET, AT_ETHERTYPE, AT_PPP, AT_MPLS, AT_IP, AT_EXTENSION, AT_PROTOCOL, AT_NSH = range(8)

HEADER = np.dtype(
    [
        ("source_hi", "u8"), ("source_lo", "u8"), ("target_hi", "u8"), ("target_lo", "u8"),
        ("payload_at", "u4"), ("realm", "u4"), ("sequence", "u4"), ("acknowledged", "u4"),
        ("payload_captured", "u4"), ("payload_length", "u4"), ("source_port", "u2"),
        ("target_port", "u2"), ("transport", "u1"), ("tcp_flags", "u1"), ("fault", "u1"),
        ("skip", "u1"),
    ]
)  # fmt: skip
"""One packet: 64 bytes, a cache line.

`realm` holds the two outermost VLAN ids of the packet, whichever link headers they stand in: the
outer one in the upper half, the next in the lower, each with 0x1000 added, so that 0 is no tag.

A fragment has `transport` 44, its identification in `sequence`, its offset in bytes in
`acknowledged`, whose lowest bit says that more follow; the protocol in `source_port`, how deep it
lies in `target_port`, the IP version in `tcp_flags`.
"""


@primitive
def add_tag(realm, tag):
    """A realm with one tag more; beyond two they are not kept."""
    if realm == 0:
        return (TAG | tag & 0x0FFF) << 16
    if realm & 0xFFFF == 0:
        return realm | TAG | tag & 0x0FFF
    return realm


@primitive
def is_tag(ethertype):
    """Does this ethertype announce a VLAN tag?"""
    return ethertype == 0x8100 or ethertype == 0x88A8 or ethertype == 0x9100


@primitive
def _tag_bytes(ethertype):
    """How many bytes the tag that this ethertype announces takes, the next ethertype among them; 0
    if it announces none.
    """
    if is_tag(ethertype):
        return 4
    if ethertype == 0x8926:  # VN-Tag
        return 6
    return 8 if ethertype == 0x893F or ethertype == 0x8909 else 0  # E-TAG; Cisco metadata


@primitive
def _is_passed_over(ethertype):
    """Is this ethertype known, and carries no IP?"""
    return (
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
    )


@routine
def is_known(ethertype):
    """Could a frame with this ethertype be what it seems?"""
    return (
        ethertype == 0x0800
        or ethertype == 0x86DD
        or _tag_bytes(ethertype) > 0
        or ethertype == 0x8847
        or ethertype == 0x8848
        or ethertype == 0x8864
        or ethertype == 0x88E7
        or ethertype == 0x894F
        or _is_passed_over(ethertype)
    )


@routine
def open_link(data, at, stop, whole, link_type):
    """A captured packet's own link header."""
    if link_type == ETHERNET:
        return GOOD, AT_ETHERNET, at, 0, whole
    if link_type == IPV4:
        return GOOD, AT_IP, at, 4, whole
    if link_type == IPV6:
        return GOOD, AT_IP, at, 6, whole
    if link_type == RAW or link_type == RAW_OPENBSD or link_type == RAW_BSDI:
        if at + 1 > stop:
            return PACKET_TRUNCATED, AT_IP, at, 0, whole
        version = I64(data[at]) >> 4
        verdict = GOOD if version == 4 or version == 6 else IP_HEADER_BAD
        return verdict, AT_IP, at, version, whole
    if link_type == LINUX_SLL:
        if at + 16 > stop:
            return PACKET_TRUNCATED, AT_ETHERTYPE, at, 0, whole
        return GOOD, AT_ETHERTYPE, at + 16, be16(data, at + 14), whole
    if link_type == LINUX_SLL2:
        if at + 20 > stop:
            return PACKET_TRUNCATED, AT_ETHERTYPE, at, 0, whole
        return GOOD, AT_ETHERTYPE, at + 20, be16(data, at), whole
    if link_type == NULL or link_type == LOOP:
        return _open_null(data, at, stop, whole)
    if link_type == MPLS:
        return GOOD, AT_MPLS, at, 0, whole
    if link_type == PPP_ETHER:
        return _open_pppoe(data, at, stop, whole)
    if link_type == NFLOG:
        return _open_nflog(data, at, stop, whole)
    if link_type == ARCNET_LINUX:
        return _open_arcnet(data, at, stop, whole)
    if link_type == PPP or link_type == PPP_HDLC or link_type == CISCO_HDLC:
        if at + 4 > stop:
            return PACKET_TRUNCATED, AT_PPP, at, 0, whole
        if link_type != PPP and (data[at] == 0x0F or data[at] == 0x8F):
            return GOOD, AT_ETHERTYPE, at + 4, be16(data, at + 2), whole
        verdict = LINK_TYPE_UNKNOWN if link_type == CISCO_HDLC else GOOD
        return verdict, AT_PPP, at, 0, whole
    return LINK_TYPE_UNKNOWN, AT_IP, at, 0, whole


@routine
def _open_null(data, at, stop, whole):
    """BSD's four bytes: an address family, in the byte order of whoever captured.

    AF_INET is 2 everywhere; AF_INET6 is 10 on Linux, 23 on Windows, 24, 28 or 30 on the BSDs.
    """
    if at + 4 > stop:
        return PACKET_TRUNCATED, AT_IP, at, 0, whole
    family = min(be32(data, at), le32(data, at))
    if family == 2:
        return GOOD, AT_IP, at + 4, 4, whole
    if family == 10 or family == 23 or family == 24 or family == 28 or family == 30:
        return GOOD, AT_IP, at + 4, 6, whole
    return ETHERTYPE_UNKNOWN, AT_IP, at, 0, whole


@routine
def _open_arcnet(data, at, stop, whole):
    """ARCNET as Linux hands it over: source, target, two bytes of offset, protocol. A packet that
    was cut into several frames is not put together.
    """
    if at + 5 > stop:
        return PACKET_TRUNCATED, AT_IP, at, 0, whole
    protocol = I64(data[at + 4])
    if protocol == ARC_IP_1051:
        return GOOD, AT_IP, at + 5, 4, whole
    if protocol == ARC_ARP_1051 or protocol == ARC_ARP or protocol == ARC_RARP:
        return SKIPPED + NOT_IP, AT_IP, at, 0, whole
    if protocol != ARC_IP and protocol != ARC_IPV6:
        return ETHERTYPE_UNKNOWN, AT_IP, at, 0, whole
    if at + 8 > stop:
        return PACKET_TRUNCATED, AT_IP, at, 0, whole
    if data[at + 5] != 0:
        return ENCAPSULATION_UNKNOWN, AT_IP, at, 0, whole
    return GOOD, AT_IP, at + 8, 4 if protocol == ARC_IP else 6, whole


@routine
def _open_nflog(data, at, stop, whole):
    """Netfilter's log: a family, and fields of length, type and value, padded to words; one of them
    is the packet. Lengths and types are in the byte order of whoever captured, little-endian here.
    """
    if at + 4 > stop:
        return PACKET_TRUNCATED, AT_IP, at, 0, whole
    version = 4 if data[at] == 2 else 6 if data[at] == 10 else 0
    if version == 0:
        return SKIPPED + NOT_IP, AT_IP, at, 0, whole
    at += 4
    while True:
        if at + 4 > stop:
            return PACKET_TRUNCATED, AT_IP, at, 0, whole
        length = I64(data[at]) | I64(data[at + 1]) << 8
        kind = I64(data[at + 2]) | I64(data[at + 3]) << 8
        if length < 4:
            return ENCAPSULATION_UNKNOWN, AT_IP, at, 0, whole
        if kind == NFLOG_PAYLOAD:
            return GOOD, AT_IP, at + 4, version, at + length
        at += (length + 3) & ~3


@routine
def open_ethernet(data, at, stop, whole):
    """A frame's two addresses and its ethertype."""
    if at + 14 > stop:
        return PACKET_TRUNCATED, AT_ETHERTYPE, at, 0, whole
    return GOOD, AT_ETHERTYPE, at + 14, be16(data, at + 12), whole


@routine
def open_ethertype(data, at, stop, whole, ethertype, head):
    """What an ethertype announces, after any tags, which are added to the row's realm."""
    tags = 0
    while _tag_bytes(ethertype) > 0:
        size = _tag_bytes(ethertype)
        if tags == TAGS_MAX:
            return NESTING_TOO_DEEP, AT_IP, at, 0, whole
        if at + size > stop:
            return PACKET_TRUNCATED, AT_IP, at, 0, whole
        if size == 4:
            head.realm = add_tag(I64(head.realm), be16(data, at))
        at += size
        ethertype = be16(data, at - 2)
        tags += 1
    if ethertype < 0x0600:  # a length: IEEE 802.2
        if at + 8 > stop or be32(data, at) != 0xAAAA0300 or be16(data, at + 4) != 0:
            return SKIPPED + NOT_IP, AT_IP, at, 0, whole
        ethertype = be16(data, at + 6)
        at += 8
    if ethertype == 0x0800:
        return GOOD, AT_IP, at, 4, whole
    if ethertype == 0x86DD:
        return GOOD, AT_IP, at, 6, whole
    if ethertype == 0x8847 or ethertype == 0x8848:
        return GOOD, AT_MPLS, at, 0, whole
    if ethertype == 0x8864:
        return _open_pppoe(data, at, stop, whole)
    if ethertype == 0x6558:  # transparent Ethernet bridging
        return GOOD, AT_ETHERNET, at, 0, whole
    if ethertype == 0x880B:
        return GOOD, AT_PPP, at, 0, whole
    if ethertype == 0x894F:
        return GOOD, AT_NSH, at, 0, whole
    if ethertype == 0x88E7:  # a customer's frame behind a provider's (802.1ah): flags and a number
        return GOOD, AT_ETHERNET, at + 4, 0, whole
    passed_over = ethertype < 0x0600 or _is_passed_over(ethertype)
    return SKIPPED + NOT_IP if passed_over else ETHERTYPE_UNKNOWN, AT_IP, at, 0, whole


@routine
def open_nsh(data, at, stop, whole):
    """The header of a chain of services (RFC 8300)."""
    if at + 8 > stop:
        return PACKET_TRUNCATED, AT_ETHERTYPE, at, 0, whole
    first, kind = be16(data, at), carried_by(I64(data[at + 3]))
    length = (first & 63) * 4
    if first & 0xC000 != 0 or length < 8 or kind == 0:
        return ENCAPSULATION_UNKNOWN, AT_ETHERTYPE, at, 0, whole
    if first & 0x2000 != 0:  # the network's own messages
        return SKIPPED + NOT_IP, AT_ETHERTYPE, at, 0, whole
    return GOOD, AT_ETHERTYPE, at + length, kind, whole


@primitive
def carried_by(number):
    """What follows NSH and VXLAN-GPE, by the number in them, as an ethertype; 0 if nobody knows."""
    if number == 1:
        return 0x0800
    if number == 2:
        return 0x86DD
    if number == 3:
        return 0x6558
    if number == 4:
        return 0x894F
    return 0x8847 if number == 5 else 0


@routine
def _open_pppoe(data, at, stop, whole):
    """A PPPoE session's header."""
    if at + 6 > stop:
        return PACKET_TRUNCATED, AT_PPP, at, 0, whole
    if data[at] != 0x11 or data[at + 1] != 0:
        return ENCAPSULATION_UNKNOWN, AT_PPP, at, 0, whole
    return GOOD, AT_PPP, at + 6, 0, at + 6 + be16(data, at + 4)


@routine
def open_ppp(data, at, stop, whole):
    """PPP, with or without address and control bytes, the protocol in one byte or two."""
    if at + 2 <= stop and be16(data, at) == 0xFF03:
        at += 2
    if at + 1 > stop:
        return PACKET_TRUNCATED, AT_IP, at, 0, whole
    protocol = I64(data[at])
    at += 1
    if protocol & 1 == 0:
        if at + 1 > stop:
            return PACKET_TRUNCATED, AT_IP, at, 0, whole
        protocol = protocol << 8 | I64(data[at])
        at += 1
    if protocol == 0x0021:
        return GOOD, AT_IP, at, 4, whole
    if protocol == 0x0057:
        return GOOD, AT_IP, at, 6, whole
    if protocol == 0x0281 or protocol == 0x0283:
        return GOOD, AT_MPLS, at, 0, whole
    if protocol == 0x003D:  # multilink: whole packets are read, pieces are not (RFC 1990)
        if at + 4 > stop:
            return PACKET_TRUNCATED, AT_IP, at, 0, whole
        verdict = GOOD if data[at] & 0xC0 == 0xC0 else ENCAPSULATION_UNKNOWN
        return verdict, AT_PPP, at + 4, 0, whole
    if protocol >= 0x8000:  # control of the link and of what it carries
        return SKIPPED + NOT_IP, AT_IP, at, 0, whole
    if protocol == 0xFB or protocol == 0xFD or protocol == 0x53:  # compressed or encrypted
        return ENCAPSULATION_UNKNOWN, AT_IP, at, 0, whole
    return ETHERTYPE_UNKNOWN, AT_IP, at, 0, whole


@routine
def open_mpls(data, at, stop, whole):
    """A stack of labels, and what its bytes seem to be."""
    labels = 0
    while True:
        if labels == LABELS_MAX:
            return NESTING_TOO_DEEP, AT_IP, at, 0, whole
        if at + 4 > stop:
            return PACKET_TRUNCATED, AT_IP, at, 0, whole
        labels += 1
        at += 4
        if data[at - 2] & 1:
            break
    if at + 1 > stop:
        return PACKET_TRUNCATED, AT_IP, at, 0, whole
    nibble = I64(data[at]) >> 4
    if (nibble == 4 or nibble == 6) and could_be_ip(data, at, stop, whole):
        return GOOD, AT_IP, at, nibble, whole
    if nibble == 0 and at + 18 <= stop and is_known(be16(data, at + 16)):
        return GOOD, AT_ETHERNET, at + 4, 0, whole
    if at + 14 <= stop and is_known(be16(data, at + 12)):
        return GOOD, AT_ETHERNET, at, 0, whole
    if nibble == 4 or nibble == 6:
        return GOOD, AT_IP, at, nibble, whole  # it will say what is wrong with it
    if nibble == 1:  # an associated channel: measurements and the like (RFC 4385)
        return SKIPPED + NOT_IP, AT_IP, at, 0, whole
    verdict = PACKET_TRUNCATED if at + 18 > stop else ENCAPSULATION_UNKNOWN
    return verdict, AT_IP, at, 0, whole


@routine
def could_be_ip(data, at, stop, whole):
    """Do the lengths of what begins like an IP header agree with what is around it?"""
    if I64(data[at]) >> 4 == 4:
        if at + 4 > stop:
            return False
        header, total = (I64(data[at]) & 15) * 4, be16(data, at + 2)
        return header >= 20 and (total == 0 or header <= total <= whole - at)
    return at + 6 <= stop and be16(data, at + 4) + 40 <= whole - at


@primitive
def read_addresses(data, at, version, head):
    """The addresses of an IP header that is all there."""
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


@routine
def open_ip(data, at, stop, whole, version, head):
    """An IP header; the row gets its addresses once it holds."""
    if at + (20 if version == 4 else 40) > stop:
        return PACKET_TRUNCATED, AT_PROTOCOL, at, 0, whole
    if I64(data[at]) >> 4 != version:
        return IP_HEADER_BAD, AT_PROTOCOL, at, 0, whole
    if version == 6:
        read_addresses(data, at, 6, head)
        announced = be16(data, at + 4)
        if announced > 0:  # else a jumbogram, or a segment that the card was still to cut
            whole = at + 40 + announced
        return GOOD, AT_EXTENSION, at + 40, I64(data[at + 6]), whole
    length, total = (I64(data[at]) & 15) * 4, be16(data, at + 2)
    if length < 20:
        return IP_HEADER_BAD, AT_PROTOCOL, at, 0, whole
    pieces = be16(data, at + 6)
    if total == 0 and pieces & 0x3FFF == 0:
        total = whole - at
    if total < length:
        return IP_LENGTH_BAD, AT_PROTOCOL, at, 0, whole
    if at + length > stop:
        return PACKET_TRUNCATED, AT_PROTOCOL, at, 0, whole
    protocol = I64(data[at + 9])
    if pieces & 0x3FFF != 0:
        offset, more = (pieces & 0x1FFF) * 8, pieces >> 13 & 1
        verdict = note_piece(
            at + length, stop, at + total, 4, protocol, be16(data, at + 4), offset, more, head
        )
        if verdict == PIECE:
            read_addresses(data, at, 4, head)
        return verdict, AT_PROTOCOL, at, protocol, at + total
    read_addresses(data, at, 4, head)
    layer = AT_EXTENSION if protocol == AUTHENTICATION else AT_PROTOCOL
    return GOOD, layer, at + length, protocol, at + total


@routine
def open_extensions(data, at, stop, whole, protocol, head):
    """Past extension headers (and the authentication header of either version)."""
    for _ in range(EXTENSIONS_MAX):
        if (
            protocol != 0
            and protocol != 43
            and protocol != 60
            and protocol != FRAGMENT_HEADER
            and protocol != AUTHENTICATION
            and protocol != 135
            and protocol != 139
            and protocol != 140
        ):
            return GOOD, AT_PROTOCOL, at, protocol, whole
        if at + 8 > stop:
            return PACKET_TRUNCATED, AT_PROTOCOL, at, protocol, whole
        following = I64(data[at])
        if protocol == FRAGMENT_HEADER:
            pieces = be16(data, at + 2)
            if pieces & 0xFFF9 != 0:  # else it is all there is of its packet (RFC 6946)
                verdict = note_piece(
                    at + 8, stop, whole, 6, following, be32(data, at + 4),
                    pieces & 0xFFF8, pieces & 1, head,
                )  # fmt: skip
                return verdict, AT_PROTOCOL, at, protocol, whole
            length = I64(8)
        elif protocol == AUTHENTICATION:
            length = (I64(data[at + 1]) + 2) * 4
        else:
            length = (I64(data[at + 1]) + 1) * 8
        protocol = following
        at += length
    return NESTING_TOO_DEEP, AT_PROTOCOL, at, protocol, whole


@routine
def note_piece(at, stop, whole, version, protocol, identification, offset, more, head):
    """A fragment into its row: PIECE where all of it is there and can be part of a packet."""
    length = whole - at
    if length <= 0 or offset + length > PACKET_BYTES_MAX or (more and length & 7 != 0):
        return IP_LENGTH_BAD
    if whole > stop:
        return PACKET_TRUNCATED
    head.payload_at = at
    head.payload_captured = head.payload_length = length
    head.sequence = identification
    head.acknowledged = offset | more
    head.source_port = protocol
    head.tcp_flags = version
    head.transport = FRAGMENT_HEADER
    return PIECE


@primitive
def read_transport(data, at, stop, whole, protocol, head):
    """Ports, sequence numbers and payload of TCP or UDP into the row; the verdict."""
    length = I64(8)
    if protocol == TCP:
        if whole - at < 20:
            return TCP_HEADER_BAD
        if at + 20 > stop:
            return PACKET_TRUNCATED
        length = (I64(data[at + 12]) >> 4) * 4
        if length < 20 or at + length > whole:
            return TCP_HEADER_BAD
        head.sequence = be32(data, at + 4)
        head.acknowledged = be32(data, at + 8)
        head.tcp_flags = data[at + 13]
    else:
        if whole - at < 8:
            return UDP_HEADER_BAD
        if at + 8 > stop:
            return PACKET_TRUNCATED
        total = be16(data, at + 4)
        if total == 0:  # a jumbogram or an uncut super-segment
            total = whole - at
        if total < 8 or at + total > whole:
            return UDP_HEADER_BAD
        whole = at + total
    if at + length > stop:
        return PACKET_TRUNCATED
    head.transport = protocol
    head.source_port = be16(data, at)
    head.target_port = be16(data, at + 2)
    head.payload_at = at + length
    head.payload_length = whole - at - length
    head.payload_captured = min(stop, whole) - at - length
    return GOOD
