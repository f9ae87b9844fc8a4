"""Encapsulations for the tests of the header walk: each takes a packet or a frame and wraps it.

Written from the standards with struct, field by field. What takes IP is in `AROUND_IP`, what takes
an Ethernet frame in `AROUND_FRAME`; both give an IP packet or a link's frame, as `IP` and `FRAME`
say, so that they can be nested at random.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Sequence
from itertools import pairwise

OUTER = ("203.0.113.1", "203.0.113.2")
OUTER6 = ("2001:db8:3::1", "2001:db8:3::2")
MACS = bytes.fromhex("02000000000102000000000a")


def ip(protocol: int, payload: bytes, ends: tuple[str, str] = OUTER, ident: int = 1) -> bytes:
    """An IP packet between two tunnel ends."""
    a, b = (ipaddress.ip_address(end) for end in ends)
    if a.version == 4:
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), ident, 0, 64, protocol, 0)
    else:
        head = struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64)
    return head + a.packed + b.packed + payload


def udp(port: int, payload: bytes, source_port: int = 50001) -> bytes:
    """A datagram to a tunnel's port, in IP."""
    return ip(17, struct.pack(">HHHH", source_port, port, 8 + len(payload), 0) + payload)


def version(packet: bytes) -> int:
    return packet[0] >> 4


def kind(packet: bytes) -> bytes:
    """The ethertype of an IP packet."""
    return b"\x08\0" if version(packet) == 4 else b"\x86\xdd"


def tagged(packet: bytes, *tags: tuple[int, int]) -> bytes:
    """A frame with tags: (type, id), from the outermost in."""
    between = b"".join(struct.pack(">HH", *tag) for tag in tags)
    return MACS + between + kind(packet) + packet


def ppp(packet: bytes, *, control: bool = True, short: bool = False) -> bytes:
    number = 0x21 if version(packet) == 4 else 0x57
    protocol = bytes([number]) if short else number.to_bytes(2, "big")
    return (b"\xff\x03" if control else b"") + protocol + packet


def pppoe(packet: bytes) -> bytes:
    return struct.pack(">BBHH", 0x11, 0, 7, len(packet)) + packet


def snap(packet: bytes) -> bytes:
    """An 802.3 frame with LLC and SNAP."""
    body = bytes.fromhex("aaaa03000000") + kind(packet) + packet
    return MACS + struct.pack(">H", min(len(body), 1500)) + body


def labels(payload: bytes, count: int = 2) -> bytes:
    return (
        b"".join(
            struct.pack(">I", (1000 + n) << 12 | (n == count - 1) << 8 | 64) for n in range(count)
        )
        + payload
    )


def mpls(payload: bytes, count: int = 2) -> bytes:
    return MACS + b"\x88\x47" + labels(payload, count)


def gre(ethertype: int, payload: bytes, flags: int = 0) -> bytes:
    fields = sum(bool(flags & bit) for bit in (0x8000, 0x2000, 0x1000))
    return ip(47, struct.pack(">HH", flags, ethertype) + bytes(range(4 * fields)) + payload)


def pptp(packet: bytes, acknowledge: bool = False) -> bytes:
    inner = ppp(packet)
    flags = 0x3081 if acknowledge else 0x3001
    head = struct.pack(">HHHHI", flags, 0x880B, len(inner), 9, 5) + bytes(4 * acknowledge)
    return ip(47, head + inner)


def eoip(frame: bytes) -> bytes:
    return ip(47, struct.pack(">HHH", 0x2001, 0x6400, len(frame)) + b"\x07\0" + frame)


def erspan(frame: bytes, kind: int) -> bytes:
    if kind == 1:
        return gre(0x88BE, frame)
    if kind == 2:
        return gre(0x88BE, struct.pack(">HHI", 0x1064, 5, 0) + frame, 0x1000)
    more = bytes(8) if kind == 4 else b""
    head = struct.pack(">HHIHH", 0x2064, 5, 99, 0, 1 if more else 0)
    return gre(0x22EB, head + more + frame, 0x1000)


def l2tp(packet: bytes, flags: int = 0x4000) -> bytes:
    inner = ppp(packet)
    rest = struct.pack(">HH", 3, 4)
    rest += bytes(4) if flags & 0x0800 else b""
    rest += b"\0\x02\0\0" if flags & 0x0200 else b""
    size = len(rest) + len(inner) + 4
    length = struct.pack(">H", size) if flags & 0x4000 else b""
    return udp(1701, struct.pack(">H", flags | 2) + length + rest + inner)


def l2tp3(inner: bytes, cookie: int, over_udp: bool) -> bytes:
    behind = struct.pack(">I", 77) + bytes(range(1, cookie + 1)) + inner
    return udp(1701, b"\0\x03\0\0" + behind) if over_udp else ip(115, behind)


def vxlan(frame: bytes, port: int = 4789) -> bytes:
    return udp(port, b"\x08\0\0\0\0\x12\x34\0" + frame)


def vxlan_gpe(inner: bytes, following: int = 3) -> bytes:
    return udp(4790, bytes([12, 0, 0, following]) + b"\0\x12\x34\0" + inner)


def nsh(inner: bytes, following: int = 3, metadata: bytes = bytes(16)) -> bytes:
    """The header of a service chain, of fixed (1) or no (2) metadata."""
    words = 2 + len(metadata) // 4
    head = struct.pack(
        ">HBBI", 63 << 6 | words, 1 if len(metadata) == 16 else 2, following, 77 << 8
    )
    return head + metadata + inner


def following(packet: bytes) -> int:
    return 1 if version(packet) == 4 else 2


def teredo(packet: bytes, *, proof: bool = False, origin: bool = False) -> bytes:
    """IPv6 to or from a Teredo server (an IPv4 packet is put into IPv6 first)."""
    packet = packet if version(packet) == 6 else ip(4, packet, OUTER6)
    first = b"\0\1\x04\x06nameproofs" + bytes(8) + b"\0" if proof else b""
    return udp(3544, first + (b"\0\0" + bytes(6) if origin else b"") + packet)


def geneve(ethertype: int, inner: bytes, options: int = 0) -> bytes:
    return udp(
        6081, struct.pack(">BBHI", options, 0, ethertype, 5 << 8) + bytes(4 * options) + inner
    )


def gtp(packet: bytes, flags: int = 0, extensions: int = 0) -> bytes:
    more = b""
    if flags & 7:
        more = b"\0\x01\0" + (b"\x85" if flags & 4 and extensions else b"\0")
        for n in range(extensions if flags & 4 else 0):
            more += b"\x01\x10\x09" + (b"\x85" if n < extensions - 1 else b"\0")
    return udp(
        2152, struct.pack(">BBHI", 0x30 | flags, 255, len(more) + len(packet), 9) + more + packet
    )


def tzsp(frame: bytes, tags: bytes = b"\x0a\x01\x05\0\x01") -> bytes:
    return udp(37008, b"\x01\0\0\x01" + tags + frame)


def piece(packet: bytes, start: int, stop: int, more: bool, ident: int) -> bytes:
    """Bytes `start` up to `stop` of an IP packet's payload, as a fragment (options of 20 bytes: none)."""
    if version(packet) == 4:
        body = packet[20:][start:stop]
        place = struct.pack(">HHH", 20 + len(body), ident & 0xFFFF, more << 13 | start // 8)
        return packet[:2] + place + packet[8:20] + body
    body = packet[40:][start:stop]
    head = struct.pack(">BBHI", packet[6], 0, start // 8 * 8 | more, ident)
    return packet[:4] + struct.pack(">HB", 8 + len(body), 44) + packet[7:40] + head + body


def fragments(packet: bytes, cuts: Sequence[int], ident: int = 9) -> list[bytes]:
    """An IP packet without options as fragments, cut before each of `cuts` (rounded down to 8)."""
    size = len(packet) - (20 if version(packet) == 4 else 40)
    edges = sorted({0, size} | {cut // 8 * 8 for cut in cuts if 8 <= cut < size})
    return [piece(packet, a, b, b < size, ident) for a, b in pairwise(edges)]


Wrap = Callable[[bytes], bytes]

# name: (what it takes, what it gives, how).
IP, FRAME = "ip", "frame"
WRAPPINGS: dict[str, tuple[str, str, Wrap]] = {
    "frame": (IP, FRAME, lambda p: tagged(p)),
    "tag": (IP, FRAME, lambda p: tagged(p, (0x8100, 0x2005))),
    "q in q": (IP, FRAME, lambda p: tagged(p, (0x88A8, 7), (0x8100, 8))),
    "legacy q in q": (IP, FRAME, lambda p: tagged(p, (0x9100, 9), (0x9100, 10), (0x8100, 11))),
    "port tag": (IP, FRAME, lambda p: MACS + b"\x89\x3f" + bytes(6) + tagged(p, (0x8100, 5))[12:]),
    "vn-tag": (IP, FRAME, lambda p: MACS + b"\x89\x26" + bytes(4) + tagged(p)[12:]),
    "metadata tag": (IP, FRAME, lambda p: MACS + b"\x89\x09\1\1\0\1\0\7" + tagged(p)[12:]),
    "snap": (IP, FRAME, snap),
    "pppoe": (IP, FRAME, lambda p: MACS + b"\x88\x64" + pppoe(ppp(p, control=False))),
    "pppoe short": (IP, FRAME, lambda p: MACS + b"\x88\x64" + pppoe(ppp(p, control=False, short=True))),
    "mpls": (IP, FRAME, mpls),
    "backbone": (FRAME, FRAME, lambda f: MACS + b"\x88\xe7\0\x01\x02\x03" + f),
    "pseudo-wire": (FRAME, FRAME, lambda f: mpls(f, 1)),
    "control word": (FRAME, FRAME, lambda f: mpls(bytes(4) + f, 3)),
    "ip in ip": (IP, IP, lambda p: ip(4 if version(p) == 4 else 41, p)),
    "ip in ip6": (IP, IP, lambda p: ip(4 if version(p) == 4 else 41, p, OUTER6)),
    "mpls in ip": (IP, IP, lambda p: ip(137, labels(p))),
    "ether ip": (FRAME, IP, lambda f: ip(97, b"\x30\0" + f)),
    "gre": (IP, IP, lambda p: gre(int.from_bytes(kind(p), "big"), p)),
    "gre with all": (IP, IP, lambda p: gre(int.from_bytes(kind(p), "big"), p, 0xB000)),
    "gre mpls": (IP, IP, lambda p: gre(0x8847, labels(p), 0x8000)),
    "teb": (FRAME, IP, lambda f: gre(0x6558, f)),
    "nvgre": (FRAME, IP, lambda f: gre(0x6558, f, 0x2000)),
    "pptp": (IP, IP, pptp),
    "pptp ack": (IP, IP, lambda p: pptp(p, acknowledge=True)),
    "eoip": (FRAME, IP, eoip),
    "erspan 1": (FRAME, IP, lambda f: erspan(f, 1)),
    "erspan 2": (FRAME, IP, lambda f: erspan(f, 2)),
    "erspan 3": (FRAME, IP, lambda f: erspan(f, 3)),
    "erspan 3 long": (FRAME, IP, lambda f: erspan(f, 4)),
    "l2tp": (IP, IP, l2tp),
    "l2tp bare": (IP, IP, lambda p: l2tp(p, 0)),
    "l2tp with all": (IP, IP, lambda p: l2tp(p, 0x4B00)),
    "l2tp 3": (FRAME, IP, lambda f: l2tp3(f, 0, over_udp=False)),
    "l2tp 3 cookie": (FRAME, IP, lambda f: l2tp3(f, 4, over_udp=False)),
    "l2tp 3 long cookie": (FRAME, IP, lambda f: l2tp3(f, 8, over_udp=True)),
    "l2tp 3 sublayer": (FRAME, IP, lambda f: l2tp3(f, 12, over_udp=True)),
    "l2tp 3 ppp": (IP, IP, lambda p: l2tp3(ppp(p), 4, over_udp=False)),
    "l2tp 3 ip": (IP, IP, lambda p: l2tp3(p, 8, over_udp=False)),
    "l2tp 3 pppoe": (IP, IP, lambda p: l2tp3(MACS + b"\x88\x64" + pppoe(ppp(p, control=False)), 8, over_udp=True)),
    "l2tp 3 mpls": (IP, IP, lambda p: l2tp3(mpls(p), 4, over_udp=True)),
    "l2tp 3 short ppp": (IP, IP, lambda p: l2tp3(ppp(p, control=False, short=True), 8, over_udp=True)),
    "vxlan": (FRAME, IP, vxlan),
    "vxlan of linux": (FRAME, IP, lambda f: vxlan(f, 8472)),
    "vxlan gpe": (FRAME, IP, vxlan_gpe),
    "vxlan gpe ip": (IP, IP, lambda p: vxlan_gpe(p, following(p))),
    "vxlan gpe nsh": (FRAME, IP, lambda f: vxlan_gpe(nsh(f), 4)),
    "nsh": (IP, FRAME, lambda p: MACS + b"\x89\x4f" + nsh(p, following(p), b"")),
    "nsh twice": (FRAME, FRAME, lambda f: MACS + b"\x89\x4f" + nsh(nsh(f), 4, bytes(8))),
    "lisp": (IP, IP, lambda p: udp(4341, b"\xc0" + bytes(7) + p)),
    "teredo": (IP, IP, teredo),
    "teredo proof": (IP, IP, lambda p: teredo(p, proof=True)),
    "teredo origin": (IP, IP, lambda p: teredo(p, proof=True, origin=True)),
    "gre in udp": (IP, IP, lambda p: udp(4754, gre(int.from_bytes(kind(p), "big"), p, 0x2000)[20:])),
    "mpls in udp": (IP, IP, lambda p: udp(6635, labels(p))),
    "geneve": (FRAME, IP, lambda f: geneve(0x6558, f)),
    "geneve options": (IP, IP, lambda p: geneve(int.from_bytes(kind(p), "big"), p, 3)),
    "gtp": (IP, IP, gtp),
    "gtp sequence": (IP, IP, lambda p: gtp(p, 2)),
    "gtp extensions": (IP, IP, lambda p: gtp(p, 7, 2)),
    "tzsp": (FRAME, IP, tzsp),
}  # fmt: skip


def pad(body: bytes, size: int) -> bytes:
    return body + bytes(max(size - len(body), 0))


# link type: (what it takes, how).
LINKS: dict[int, tuple[str, Wrap]] = {
    1: (FRAME, lambda f: f),
    101: (IP, lambda p: p),
    12: (IP, lambda p: p),
    14: (IP, lambda p: p),
    113: (IP, lambda p: struct.pack(">HHH", 0, 1, 6) + bytes(8) + kind(p) + p),
    276: (IP, lambda p: kind(p) + bytes(18) + p),
    0: (IP, lambda p: struct.pack("<I", 2 if version(p) == 4 else 30) + p),
    108: (IP, lambda p: struct.pack(">I", 2 if version(p) == 4 else 24) + p),
    9: (IP, ppp),
    50: (IP, lambda p: b"\x0f\0" + kind(p) + p),
    51: (IP, lambda p: pppoe(ppp(p, control=False))),
    104: (IP, lambda p: b"\x8f\0" + kind(p) + p),
    129: (IP, lambda p: b"\xbe\x50\0\0" + (b"\xd4" if version(p) == 4 else b"\xc4") + b"\0\1\2" + p),
    219: (IP, labels),
    239: (IP, lambda p: bytes([2 if version(p) == 4 else 10, 0, 0, 0]) + struct.pack("<HHBBBB", 5, 10, 97, 0, 0, 0) + struct.pack("<HH", 4 + len(p), 9) + p),
}  # fmt: skip
