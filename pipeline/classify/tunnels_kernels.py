"""Tunnels: what IP protocols and UDP ports carry that has headers of its own.

In network order (RFC 2784, 2890, 2637; 3931, 2661; 7348, 8926; 3378; 4380; 7510, 8086; 9300; 3GPP
TS 29.281; VXLAN-GPE as in draft-ietf-nvo3-vxlan-gpe, ERSPAN in draft-foschiano-erspan; EoIP and
TZSP as their makers' and Wireshark's sources have them):

    GRE         0 flags (C 8000, routing 4000, key 2000, S 1000), version in the lowest three bits,
                2 ethertype; then check sum, key and sequence number, 4 bytes each, if flagged
    PPTP        GRE version 1, 0x880B: 4 length, 6 call, then S and A (80) of 4 bytes; PPP
    EoIP        GRE version 1, flags exactly 2001, 0x6400: 4 length, 6 tunnel; Ethernet
    ERSPAN      GRE 0x88BE: without S Ethernet (I), with S 8 bytes first (II); 0x22EB: 12 bytes and,
                if the last bit of them is set, 8 more (III)
    EtherIP     IP protocol 97: 2 bytes, the first half byte 3; Ethernet
    L2TPv2      UDP 1701: flags (T 8000, L 4000, S 0800, O 0200), version 2, length if L, tunnel,
                session, Ns and Nr if S, offset and as many bytes if O; PPP
    L2TPv3      IP 115: 0 session; UDP 1701: flags, version 3, 4 session; then a cookie of 0, 4 or
                8 bytes and perhaps 4 of a sublayer, of which nothing in the packet tells
    VXLAN       UDP 4789 and 8472: 0 flags with bit 08; 8 bytes; Ethernet
    VXLAN-GPE   UDP 4790: 0 flags (version 30, I 08, P 04, O 01), 3 what follows if P; 8 bytes
    Geneve      UDP 6081: 0 version 0 and words of options, 2 ethertype; 8 bytes and options
    GTP-U       UDP 2152: 0 version 1 in 30 to 37, 1 message FF, 2 length behind the first 8 bytes;
                4 bytes more if any of E, S, PN; if E a chain of extensions; IP
    LISP        UDP 4341: 8 bytes; IP
    Teredo      UDP 3544: perhaps 0001, 2 length of a name, 3 of a proof, both, and 9 bytes; perhaps
                0000 and 6 bytes more; IPv6
    in UDP      GRE in 4754, MPLS in 6635
    TZSP        UDP 37008: 0 version 1, 1 kind, 2 protocol 1 (Ethernet), then tags up to one of 1

A tunnel over UDP is known by a port of either side and by its header; one whose header says little
(LISP, Teredo, MPLS) also by the lengths of the IP header behind it. What is behind must hold too,
or the datagram is a plain one: see `descent_kernels`. Where L2TPv3 leaves the place of its payload
open, it is where an IP header, in Ethernet, PPPoE or PPP or bare, fits to the byte what is left (or
Ethernet's least length, or all but a check sum); else where a frame could be that carries another
ethertype that is known, or has a length that fits, or a message that controls a PPP link.
"""

from __future__ import annotations

import numpy as np

from pipeline.classify.layers_kernels import (
    AT_ETHERNET,
    AT_ETHERTYPE,
    AT_IP,
    AT_MPLS,
    AT_PPP,
    AT_PROTOCOL,
    ENCAPSULATION_UNKNOWN,
    EXTENSIONS_MAX,
    GOOD,
    LABELS_MAX,
    NOT_IP,
    PACKET_TRUNCATED,
    SKIPPED,
    carried_by,
    could_be_ip,
    is_known,
    is_tag,
)
from pipeline.kernels.bytes import be16, be32
from pipeline.kernels.compile import primitive, routine
from pipeline.model.faults import Fault, Skip

I64 = np.int64
PROTOCOL_UNKNOWN = int(Fault.PROTOCOL_UNKNOWN)
NOT_TCP_OR_UDP = int(Skip.NOT_TCP_OR_UDP)
VXLAN, VXLAN_LINUX, GENEVE, GTP_U, L2TP, TZSP = 4789, 8472, 6081, 2152, 1701, 37008
VXLAN_GPE, LISP, TEREDO, GRE_IN_UDP, MPLS_IN_UDP = 4790, 4341, 3544, 4754, 6635
TZSP_TAGS_MAX = 32
PADDED_BYTES_MAX = 46  # of an Ethernet frame's payload: what is shorter is filled up
COOKIES_MAX = 12  # the longest cookie, and a sublayer
CHECK_SUM_BYTES = 4  # of an Ethernet frame
LENGTH_MAX = 1500  # what stands for an ethertype in IEEE 802.3; above 1535 it is one
UNTOLD = -2  # a tunnel whose header says that it is one, and not where its payload begins


@primitive
def could_tunnel(port):
    """Is this the port of a tunnel over UDP?"""
    return (
        port == GTP_U
        or port == VXLAN
        or port == GENEVE
        or port == L2TP
        or port == VXLAN_LINUX
        or port == TZSP
        or port == VXLAN_GPE
        or port == LISP
        or port == TEREDO
        or port == GRE_IN_UDP
        or port == MPLS_IN_UDP
    )


@routine
def open_protocol(data, at, stop, whole, protocol):
    """What an IP protocol carries that is neither TCP nor UDP."""
    if protocol == 4 or protocol == 41:
        return GOOD, AT_IP, at, 4 if protocol == 4 else 6, whole
    if protocol == 47:
        return _open_gre(data, at, stop, whole)
    if protocol == 137:
        return GOOD, AT_MPLS, at, 0, whole
    if protocol == 97:
        if at + 2 > stop:
            return PACKET_TRUNCATED, AT_ETHERNET, at, 0, whole
        verdict = GOOD if I64(data[at]) >> 4 == 3 else ENCAPSULATION_UNKNOWN
        return verdict, AT_ETHERNET, at + 2, 0, whole
    if protocol == 115:
        if at + 4 > stop:
            return PACKET_TRUNCATED, AT_ETHERNET, at, 0, whole
        if be32(data, at) == 0:  # control messages
            return SKIPPED + NOT_TCP_OR_UDP, AT_ETHERNET, at, 0, whole
        layer, inner, kind = _find_behind_cookie(data, at + 4, stop, whole)
        return GOOD if layer >= 0 else untold(stop, whole), layer, inner, kind, whole
    known = _is_known_protocol(protocol)
    return SKIPPED + NOT_TCP_OR_UDP if known else PROTOCOL_UNKNOWN, AT_PROTOCOL, at, 0, whole


@primitive
def _is_known_protocol(protocol):
    """Is this a protocol that carries nothing for us to read, but is no surprise?"""
    return (
        protocol == 1  # ICMP
        or protocol == 2  # IGMP
        or protocol == 33  # DCCP
        or protocol == 46  # RSVP
        or protocol == 50  # ESP: what follows is encrypted
        or protocol == 58  # ICMPv6
        or protocol == 59  # nothing follows
        or protocol == 88  # EIGRP
        or protocol == 89  # OSPF
        or protocol == 103  # PIM
        or protocol == 108  # compressed
        or protocol == 112  # VRRP
        or protocol == 132  # SCTP
        or protocol == 136  # UDP-Lite
    )


@primitive
def untold(stop, whole):
    """The verdict on a tunnel whose payload was not found in what was captured of it."""
    return PACKET_TRUNCATED if stop < whole else ENCAPSULATION_UNKNOWN


@routine
def _open_gre(data, at, stop, whole):
    """GRE of either version, and what stands behind it."""
    if at + 4 > stop:
        return PACKET_TRUNCATED, AT_ETHERTYPE, at, 0, whole
    flags, kind = be16(data, at), be16(data, at + 2)
    if flags & 7 == 1:
        return _open_gre1(data, at, stop, whole, flags, kind)
    if flags & 7 != 0 or flags & 0x4000 != 0:  # nobody knows that version; routes were given up
        return ENCAPSULATION_UNKNOWN, AT_ETHERTYPE, at, 0, whole
    at += 4 + 4 * ((flags >> 15) + (flags >> 13 & 1) + (flags >> 12 & 1))
    if at > stop:
        return PACKET_TRUNCATED, AT_ETHERTYPE, at, 0, whole
    if kind == 0x88BE and flags & 0x1000 == 0:
        return GOOD, AT_ETHERNET, at, 0, whole
    if kind == 0x88BE:
        if at + 8 > stop:
            return PACKET_TRUNCATED, AT_ETHERNET, at, 0, whole
        verdict = GOOD if I64(data[at]) >> 4 == 1 else ENCAPSULATION_UNKNOWN
        return verdict, AT_ETHERNET, at + 8, 0, whole
    if kind == 0x22EB:
        if at + 12 > stop:
            return PACKET_TRUNCATED, AT_ETHERNET, at, 0, whole
        ethernet = I64(data[at]) >> 4 == 2 and I64(data[at + 10]) >> 2 & 31 == 0
        more = 8 * (I64(data[at + 11]) & 1)
        return GOOD if ethernet else ENCAPSULATION_UNKNOWN, AT_ETHERNET, at + 12 + more, 0, whole
    return GOOD, AT_ETHERTYPE, at, kind, whole


@routine
def _open_gre1(data, at, stop, whole, flags, kind):
    """PPTP's variant of GRE, and MikroTik's."""
    if at + 8 > stop:
        return PACKET_TRUNCATED, AT_PPP, at, 0, whole
    length = be16(data, at + 4)
    if kind == 0x6400 and flags == 0x2001:
        if length == 0:  # only to say that the tunnel is there
            return SKIPPED + NOT_IP, AT_ETHERNET, at, 0, whole
        return GOOD, AT_ETHERNET, at + 8, 0, at + 8 + length
    if kind != 0x880B or flags & 0x2000 == 0 or flags & 0x4000 != 0:
        return ENCAPSULATION_UNKNOWN, AT_PPP, at, 0, whole
    if flags & 0x1000 == 0:  # an acknowledgement alone
        return SKIPPED + NOT_IP, AT_PPP, at, 0, whole
    at += 12 + 4 * (flags >> 7 & 1)
    if at > stop:
        return PACKET_TRUNCATED, AT_PPP, at, 0, whole
    return GOOD, AT_PPP, at, 0, at + length


@routine
def open_datagram(data, at, stop, whole, source_port, target_port):
    """A datagram's payload as a tunnel: (layer, -1 or UNTOLD, place, kind, whole)."""
    by_target, inner, kind, end = _open_tunnel(data, at, stop, whole, target_port)
    if by_target >= 0:
        return by_target, inner, kind, end
    layer, inner, kind, end = _open_tunnel(data, at, stop, whole, source_port)
    return layer if layer >= 0 else min(layer, by_target), inner, kind, end


@routine
def _open_tunnel(data, at, stop, whole, port):
    """The same, by the port of one side."""
    if at + 8 > stop:
        return -1, at, 0, whole
    first = I64(data[at])
    if port == VXLAN or port == VXLAN_LINUX:
        return AT_ETHERNET if first & 8 != 0 else -1, at + 8, 0, whole
    if port == GENEVE:
        kind, inner = be16(data, at + 2), at + 8 + (first & 63) * 4
        holds = first < 64 and data[at + 1] & 0x3F == 0 and data[at + 7] == 0 and inner <= stop
        return AT_ETHERTYPE if holds else -1, inner, kind, whole
    if port == GTP_U:
        return _open_gtp(data, at, stop, whole)
    if port == L2TP:
        return _open_l2tp(data, at, stop, whole)
    if port == VXLAN_GPE:
        kind = I64(0x6558) if first & 4 == 0 else I64(carried_by(I64(data[at + 3])))
        return AT_ETHERTYPE if first & 0x39 == 8 and kind > 0 else -1, at + 8, kind, whole
    if port == LISP:
        return _open_ip_behind(data, at + 8, stop, whole)
    if port == TEREDO:
        return _open_teredo(data, at, stop, whole)
    if port == MPLS_IN_UDP:
        return AT_MPLS if _are_labels(data, at, stop, whole) else -1, at, 0, whole
    if port == GRE_IN_UDP and be16(data, at) & 7 == 0:
        verdict, layer, inner, kind, end = _open_gre(data, at, stop, whole)
        if verdict == PACKET_TRUNCATED:  # which a frame at the end is too
            return AT_ETHERNET, stop, 0, whole
        return layer if verdict == GOOD else -1, inner, kind, end
    if port == TZSP and first == 1 and data[at + 1] <= 1 and be16(data, at + 2) == 1:
        return _open_tzsp(data, at + 4, stop, whole)
    return -1, at, 0, whole


@routine
def _open_gtp(data, at, stop, whole):
    """A packet of a subscriber in GTP-U (8 bytes are there)."""
    flags, end = I64(data[at]), at + 8 + be16(data, at + 2)
    if flags >> 3 != 6 or data[at + 1] != 0xFF or end > whole:
        return -1, at, 0, whole
    inner = at + 8
    if flags & 7 != 0:
        inner += 4
        if inner > stop:
            return -1, at, 0, whole
        following = I64(data[inner - 1]) if flags & 4 != 0 else I64(0)
        extensions = 0
        while following != 0:
            if inner + 1 > stop or extensions == EXTENSIONS_MAX:
                return -1, at, 0, whole
            length = I64(data[inner]) * 4
            if length == 0 or inner + length > stop:
                return -1, at, 0, whole
            inner += length
            following = I64(data[inner - 1])
            extensions += 1
    if inner + 1 > min(stop, end):
        return -1, at, 0, whole
    version = I64(data[inner]) >> 4
    return AT_IP if version == 4 or version == 6 else -1, inner, version, end


@routine
def _open_l2tp(data, at, stop, whole):
    """A data message of L2TP, version 2 or 3 (8 bytes are there)."""
    flags = be16(data, at)
    if flags == 3 and be16(data, at + 2) == 0 and be32(data, at + 4) != 0:
        layer, inner, kind = _find_behind_cookie(data, at + 8, stop, whole)
        return layer, inner, kind, whole
    if flags & 0xB4FF != 2:  # a control message, bits that must be 0, or another version
        return -1, at, 0, whole
    end, inner = whole, at + 2
    if flags & 0x4000:
        end = at + be16(data, inner)
        inner += 2
    inner += 4 + (4 if flags & 0x0800 else 0)
    if flags & 0x0200:
        if inner + 2 > stop:
            return -1, at, 0, whole
        inner += 2 + be16(data, inner)
    holds = inner < min(stop, end) and end <= whole
    return AT_PPP if holds else -1, inner, 0, end


@routine
def _are_labels(data, at, stop, whole):
    """Does a stack of labels stand here, and behind it IP or a control word and a frame?"""
    for _ in range(LABELS_MAX):
        at += 4
        if at + 1 > stop:
            return False
        if data[at - 2] & 1:
            version = I64(data[at]) >> 4
            if version == 0:
                return at + 18 <= stop and is_known(be16(data, at + 16))
            return (version == 4 or version == 6) and could_be_ip(data, at, stop, whole)
    return False


@routine
def _open_ip_behind(data, at, stop, whole):
    """An IP header, by its first half byte and its lengths."""
    version = I64(data[at]) >> 4 if at + 1 <= stop else I64(0)
    holds = (version == 4 or version == 6) and could_be_ip(data, at, stop, whole)
    return AT_IP if holds else -1, at, version, whole


@routine
def _open_teredo(data, at, stop, whole):
    """IPv6 behind what a Teredo server and its clients tell each other (8 bytes are there)."""
    if be16(data, at) == 1:
        at += 13 + I64(data[at + 2]) + I64(data[at + 3])
    if at + 2 <= stop and be16(data, at) == 0:
        at += 8
    holds = at + 1 <= stop and I64(data[at]) >> 4 == 6 and could_be_ip(data, at, stop, whole)
    return AT_IP if holds else -1, at, 6, whole


@routine
def _open_tzsp(data, at, stop, whole):
    """The tags of a mirrored frame."""
    for _ in range(TZSP_TAGS_MAX):
        if at + 1 > stop:
            return -1, at, 0, whole
        tag = data[at]
        at += 1
        if tag == 1:
            return AT_ETHERNET, at, 0, whole
        if tag != 0:
            if at + 1 > stop:
                return -1, at, 0, whole
            at += 1 + I64(data[at])
    return -1, at, 0, whole


@routine
def _find_behind_cookie(data, at, stop, whole):
    """Where L2TPv3's payload begins: (layer or UNTOLD, place, kind)."""
    for place in range(at, at + COOKIES_MAX + 4, 4):
        if _frame_fits(data, place, stop, whole):
            return AT_ETHERNET, place, 0
        if _ppp_fits(data, place, stop, whole):
            return AT_PPP, place, 0
        if _fits(data, place, stop, whole, 4):
            return AT_IP, place, 4
        if _fits(data, place, stop, whole, 6):
            return AT_IP, place, 6
    for place in range(at, at + COOKIES_MAX + 4, 4):
        if place + 14 <= stop:
            kind, left = be16(data, place + 12), whole - place - 14
            if is_known(kind) and kind != 0x0800 and kind != 0x86DD:
                return AT_ETHERNET, place, 0
            if kind <= LENGTH_MAX and (_fills(kind, left) or kind == left - CHECK_SUM_BYTES):
                return AT_ETHERNET, place, 0
        if _is_control(data, place, stop, whole):
            return AT_PPP, place, 0
    return UNTOLD, at, 0


@routine
def _is_control(data, at, stop, whole):
    """Does a message stand here that controls a PPP link (RFC 1661, 5), and fill what is left?"""
    if at + 2 <= stop and be16(data, at) == 0xFF03:
        at += 2
    if at + 6 > stop:
        return False
    kind = be16(data, at)
    known = kind == 0xC021 or kind == 0x8021 or kind == 0x8057 or kind == 0xC023 or kind == 0xC223
    return known and be16(data, at + 4) == whole - at - 2


@routine
def _frame_fits(data, at, stop, whole):
    """Does a frame stand here, with or without its check sum, whose IP or PPPoE fills it?"""
    inner = at + 14
    while inner <= stop and inner - at <= 22 and is_tag(be16(data, inner - 2)):
        inner += 4
    if inner > stop:
        return False
    kind = be16(data, inner - 2)
    version = 4 if kind == 0x0800 else 6 if kind == 0x86DD else 0
    if version > 0:
        return _fits(data, inner, stop, whole, version) or _fits(
            data, inner, stop, whole - CHECK_SUM_BYTES, version
        )
    if kind != 0x8864 or inner + 6 > stop or be16(data, inner) != 0x1100:
        return False
    total = be16(data, inner + 4) + 6
    return _fills(total, whole - inner) or _fills(total, whole - inner - CHECK_SUM_BYTES)


@routine
def _ppp_fits(data, at, stop, whole):
    """Does PPP stand here, compressed or not, and behind it IP that fills what is left?"""
    if at + 2 <= stop and be16(data, at) == 0xFF03:
        at += 2
    if at + 1 <= stop and data[at] == 0:
        at += 1
    if at + 1 > stop:
        return False
    if data[at] == 0x21:
        return _fits(data, at + 1, stop, whole, 4)
    return data[at] == 0x57 and _fits(data, at + 1, stop, whole, 6)


@primitive
def _fills(total, left):
    """Does so much fill what is left, or what was left for it in a frame that is filled up?"""
    return total == left or (total < left and left <= PADDED_BYTES_MAX)


@routine
def _fits(data, at, stop, whole, version):
    """Does an IP header stand here whose packet fills what is left?"""
    if at + (20 if version == 4 else 40) > stop or I64(data[at]) >> 4 != version:
        return False
    if version == 6:
        return _fills(be16(data, at + 4) + 40, whole - at)
    total = be16(data, at + 2)
    return I64(data[at]) & 15 >= 5 and total >= 20 and _fills(total, whole - at)
