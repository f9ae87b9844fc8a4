"""Tunnels in plain Python: each takes the walk it is part of and the bytes behind the outer header."""

from __future__ import annotations

import struct
from collections.abc import Callable

from pipeline.model.faults import Fault, Skip
from tests.naive.headers import TAGS, Bytes, Found, Rejected, Walk, could_be_ip, is_frame

Inside = Callable[[], Found]
KINDS = {b"\x08\0": 4, b"\x86\xdd": 6}  # ethertypes of IP
CARRIED = {1: 0x0800, 2: 0x86DD, 3: 0x6558, 4: 0x894F, 5: 0x8847}  # by NSH and VXLAN-GPE


def gre(walk: Walk, packet: Bytes) -> Found:
    """RFC 2784 and 2890, PPTP's version 1, and EoIP."""
    flags, kind = packet.number(0, 2), packet.number(2, 2)
    checked, routed, keyed, numbered = (flags >> bit & 1 for bit in (15, 14, 13, 12))
    if flags & 7 == 1:
        length = packet.number(4, 2)
        packet.need(8)
        if (flags, kind) == (0x2001, 0x6400):
            if not length:
                raise Rejected(Skip.NOT_IP)
            return walk.ethernet(packet.after(8).cut(length))
        if kind != 0x880B or not keyed or routed:
            raise Rejected(Fault.ENCAPSULATION_UNKNOWN)
        if not numbered:
            raise Rejected(Skip.NOT_IP)
        return walk.ppp(packet.after(16 if flags & 0x80 else 12).cut(length))
    if flags & 7 or routed:
        raise Rejected(Fault.ENCAPSULATION_UNKNOWN)
    inner = packet.after(4 + 4 * (checked + keyed + numbered))
    if kind == 0x88BE and not numbered:
        return walk.ethernet(inner)
    if kind == 0x88BE:
        inner.need(8)
        if inner.number(0, 1) >> 4 != 1:
            raise Rejected(Fault.ENCAPSULATION_UNKNOWN)
        return walk.ethernet(inner.after(8))
    if kind == 0x22EB:
        inner.need(12)
        (last,) = struct.unpack_from(">H", inner.raw, 10)
        if inner.number(0, 1) >> 4 != 2 or last >> 10 & 0x1F:
            raise Rejected(Fault.ENCAPSULATION_UNKNOWN)
        return walk.ethernet(inner.after(20 if last & 1 else 12))
    return walk.ethertype(kind, inner)


def ether_ip(walk: Walk, packet: Bytes) -> Found:
    """RFC 3378."""
    if packet.number(0, 2) >> 12 != 3:
        raise Rejected(Fault.ENCAPSULATION_UNKNOWN)
    return walk.ethernet(packet.after(2))


def l2tp_over_ip(walk: Walk, packet: Bytes) -> Found:
    """RFC 3931, 4.1.1."""
    if packet.number(0, 4) == 0:
        raise Rejected(Skip.NOT_TCP_OR_UDP)
    return behind_cookie(walk, packet.after(4))()


class Untold(Exception):
    """The header says that it is a tunnel, and not where its payload begins."""


def open_datagram(walk: Walk, payload: Bytes, ports: tuple[int, int]) -> Inside | None:
    """What is inside a datagram, if a port and a header say that it is a tunnel."""
    openers = {
        4789: vxlan, 8472: vxlan, 6081: geneve, 2152: gtp, 1701: l2tp, 37008: tzsp, 4790: vxlan_gpe,
        4341: lisp, 3544: teredo, 6635: mpls_in_udp, 4754: gre_in_udp,
    }  # fmt: skip
    untold = None
    for port in reversed(ports):
        if port in openers and len(payload.raw) >= 8:
            try:
                inside = openers[port](walk, payload)
            except (Rejected, IndexError):
                inside = None
            except Untold as failed:
                inside, untold = None, failed
            if inside is not None:
                return inside
    if untold is not None:
        raise Rejected(*untold.args)
    return None


def vxlan(walk: Walk, payload: Bytes) -> Inside | None:
    """RFC 7348: only the bit that says that there is a network counts."""
    return (lambda: walk.ethernet(payload.after(8))) if payload.raw[0] & 8 else None


def vxlan_gpe(walk: Walk, payload: Bytes) -> Inside | None:
    """draft-ietf-nvo3-vxlan-gpe, 3.1."""
    flags, _, following = struct.unpack(">BHB", payload.raw[:4])
    kind = CARRIED.get(following) if flags & 4 else 0x6558
    if flags & ~6 & 0x3F != 8 or kind is None:
        return None
    return lambda: walk.ethertype(kind, payload.after(8))


def lisp(walk: Walk, payload: Bytes) -> Inside | None:
    """RFC 9300, 5.3."""
    inner, version = payload.after(8), payload.raw[8] >> 4
    holds = version in (4, 6) and could_be_ip(inner)
    return (lambda: walk.network(inner, version)) if holds else None


def teredo(walk: Walk, payload: Bytes) -> Inside | None:
    """RFC 4380, 5.1.1."""
    inner = payload
    if inner.raw[:2] == b"\0\1":
        inner = inner.after(4 + inner.raw[2] + inner.raw[3] + 9)
    if inner.raw[:2] == b"\0\0":
        inner = inner.after(8)
    holds = inner.raw[0] >> 4 == 6 and could_be_ip(inner)
    return (lambda: walk.network(inner, 6)) if holds else None


def mpls_in_udp(walk: Walk, payload: Bytes) -> Inside | None:
    """RFC 7510, of what tells what it is."""
    for at in range(0, 64, 4):
        if payload.raw[at + 2] & 1:
            inner = payload.after(at + 4)
            kind = inner.raw[0] >> 4
            holds = kind in (4, 6) and could_be_ip(inner)
            holds |= kind == 0 and len(inner.raw) >= 18 and is_frame(inner.raw[4:])
            return (lambda: walk.mpls(payload)) if holds else None
    return None


def gre_in_udp(walk: Walk, payload: Bytes) -> Inside | None:
    """RFC 8086."""
    return (lambda: gre(walk, payload)) if payload.raw[1] & 7 == 0 else None


def geneve(walk: Walk, payload: Bytes) -> Inside | None:
    """RFC 8926."""
    first, second, kind, network = struct.unpack(">BBHI", payload.raw[:8])
    if first >> 6 or second & 0x3F or network & 0xFF:
        return None
    inner = payload.after(8 + first % 64 * 4)
    return lambda: walk.ethertype(kind, inner)


def gtp(walk: Walk, payload: Bytes) -> Inside | None:
    """3GPP TS 29.281, 5.1 and 5.2.1."""
    flags, message, length = struct.unpack(">BBH", payload.raw[:4])
    if flags not in range(0x30, 0x38) or message != 255 or 8 + length > payload.length:
        return None
    at = 8
    if flags & 7:
        payload.need(12)
        following, at, chain = payload.raw[11] if flags & 4 else 0, 12, 0
        while following:
            chain += 1
            size = payload.number(at, 1) * 4
            if size == 0 or chain > 16:
                return None
            following, at = payload.number(at + size - 1, 1), at + size
    inner = payload.cut(8 + length).after(at)
    version = inner.number(0, 1) >> 4
    return (lambda: walk.network(inner, version)) if version in (4, 6) else None


def l2tp(walk: Walk, payload: Bytes) -> Inside | None:
    """RFC 2661, 3.1, and RFC 3931, 4.1.2."""
    flags = payload.number(0, 2)
    if flags == 3 and payload.number(2, 2) == 0 and payload.number(4, 4):
        try:
            return behind_cookie(walk, payload.after(8))
        except Rejected as rejected:
            raise Untold(*rejected.args) from rejected
    length_there, numbered, offset_there = flags & 0x4000, flags & 0x0800, flags & 0x0200
    if flags & ~0x0100 != 2 | length_there | numbered | offset_there:
        return None
    message, at = payload, 2
    if length_there:
        if payload.number(2, 2) > payload.length:
            return None
        message, at = payload.cut(payload.number(2, 2)), 4
    at += 8 if numbered else 4
    if offset_there:
        at += 2 + payload.number(at, 2)
    if at >= len(message.raw):
        return None
    return lambda: walk.ppp(message.after(at))


def tzsp(walk: Walk, payload: Bytes) -> Inside | None:
    """TaZmen's sniffer protocol, of mirrored Ethernet."""
    if payload.raw[0] != 1 or payload.raw[1] > 1 or payload.raw[2:4] != b"\0\1":
        return None
    at = 4
    for _ in range(32):
        tag, at = payload.raw[at], at + 1
        if tag == 1:
            inner = payload.after(at)
            return lambda: walk.ethernet(inner)
        if tag:
            at += 1 + payload.raw[at]
    return None


def behind_cookie(walk: Walk, rest: Bytes) -> Inside:
    """The first of four places at which a header stands that fits what is left, or else a frame."""
    places = [rest.after(skipped) for skipped in (0, 4, 8, 12) if skipped <= len(rest.raw)]
    for inner in places:
        if frame_fits(inner):
            return lambda: walk.ethernet(inner)
        if ppp_fits(inner):
            return lambda: walk.ppp(inner)
        for version in (4, 6):
            if fits(inner, version):
                return lambda: walk.network(inner, version)
    for inner in places:
        if is_frame(inner.raw) and inner.raw[12:14] not in KINDS:
            return lambda: walk.ethernet(inner)
        kind, left = int.from_bytes(inner.raw[12:14], "big"), inner.length - 14
        if len(inner.raw) >= 14 and kind <= 1500 and (fills(kind, left) or kind == left - 4):
            return lambda: walk.ethernet(inner)
        if is_control(inner):
            return lambda: walk.ppp(inner)
    raise Rejected(Fault.PACKET_TRUNCATED if rest.is_cut else Fault.ENCAPSULATION_UNKNOWN)


def frame_fits(frame: Bytes) -> bool:
    """Is this a frame, with or without its check sum, whose IP or PPPoE fills it?"""
    packet = Bytes(frame.raw[12:], frame.length - 12)
    for _ in range(3):
        if int.from_bytes(packet.raw[:2], "big") in TAGS:
            packet = Bytes(packet.raw[4:], packet.length - 4)
    kind, packet = packet.raw[:2], Bytes(packet.raw[2:], packet.length - 2)
    checked = Bytes(packet.raw, packet.length - 4)
    if kind in KINDS:
        return fits(packet, KINDS[kind]) or fits(checked, KINDS[kind])
    if kind != b"\x88\x64" or packet.raw[:2] != b"\x11\0" or len(packet.raw) < 6:
        return False
    total = 6 + int.from_bytes(packet.raw[4:6], "big")
    return fills(total, packet.length) or fills(total, checked.length)


def ppp_fits(link: Bytes) -> bool:
    """Is this PPP, with or without what may be left out of its header, whose IP fills it?"""
    for control in (b"\xff\x03", b""):
        for zero in (b"\0", b""):
            for number, version in ((b"\x21", 4), (b"\x57", 6)):
                head = control + zero + number
                if link.raw.startswith(head):
                    size = len(head)
                    return fits(Bytes(link.raw[size:], link.length - size), version)
    return False


def is_control(link: Bytes) -> bool:
    """Is this a message of LCP, IPCP, IPV6CP, PAP or CHAP that fills what is left?"""
    start = 2 if link.raw[:2] == b"\xff\x03" else 0
    known = link.raw[start : start + 2].hex() in ("c021", "8021", "8057", "c023", "c223")
    length = int.from_bytes(link.raw[start + 4 : start + 6], "big")
    return known and len(link.raw) >= start + 6 and length == link.length - start - 2


def fits(packet: Bytes, version: int) -> bool:
    """Is this an IP header whose packet fills what is left, or a short one in a padded frame?"""
    if len(packet.raw) < (20 if version == 4 else 40) or packet.raw[0] >> 4 != version:
        return False
    if version == 6:
        return fills(40 + int.from_bytes(packet.raw[4:6], "big"), packet.length)
    total = int.from_bytes(packet.raw[2:4], "big")
    return packet.raw[0] & 15 >= 5 and total >= 20 and fills(total, packet.length)


def fills(total: int, left: int) -> bool:
    """Is that all that is left, or all of a frame but what fills it up?"""
    return total == left or total < left <= 46
