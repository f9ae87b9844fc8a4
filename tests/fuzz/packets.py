"""Targets over packets and what is in them, each against its twin of `tests/naive`."""

from __future__ import annotations

import struct

from pipeline.classify.tls_kernels import WHOLE
from pipeline.kernels.compile import records
from tests.classify import frames, test_fragments, test_http, test_tls
from tests.classify.test_headers import LINK_TYPES, mapped, walked
from tests.classify.wrappings import FRAME, LINKS, WRAPPINGS, fragments, ip, piece, tagged
from tests.fuzz.target import Tape, Target, same
from tests.naive import http as naive_http
from tests.naive import tls as naive_tls
from tests.naive.fragments import NaiveFragments
from tests.naive.headers import walk_headers

SEGMENT = frames.tcp(frames.get("shop.example"))[14:]
SEGMENT6 = frames.tcp(b"hello", client=frames.CLIENT6, server=frames.SERVER6)[14:]


def check_headers(raw: bytes) -> None:
    """A link type by its place, how much longer the packet was on the wire, its outer tag."""
    tape = Tape(raw)
    link_type = LINK_TYPES[tape.byte() % len(LINK_TYPES)]
    more, stripped = tape.byte(), tape.byte()
    packet = tape.rest()
    wire = max(len(packet) + more - 64, 0) if more else len(packet)
    stripped = stripped if stripped else -1
    expected = walk_headers(packet, wire, link_type, stripped)
    same(walked([packet], [wire], link_type, [stripped]), [mapped(expected)])


def header_seeds() -> list[bytes]:
    """A packet in every link and every tunnel, in some two of them, with extension headers."""
    found, inner = [], SEGMENT[:60]
    for takes, gives, wrap in WRAPPINGS.values():
        for packet in (inner, SEGMENT6[:66]):
            wrapped = wrap(tagged(packet) if takes == FRAME else packet)
            found.append(b"\0\0\0" + (wrapped if gives == FRAME else tagged(wrapped)))
        twice = WRAPPINGS["gre"][2](wrapped[14:] if gives == FRAME else wrapped)
        found.append(b"\0\0\0" + tagged(WRAPPINGS["vxlan"][2](tagged(twice))))
    for number, (takes, link) in enumerate(LINKS.values()):
        found.append(bytes([number, 0, 0]) + link(tagged(inner) if takes == FRAME else inner))
    for kinds in ((0, 43, 60), (44, 51, 135), (139, 140)):
        body, protocol = SEGMENT6[40:], 6
        for kind in kinds:
            body, protocol = bytes([protocol, 0]) + bytes(6) + body, kind
        ends = (frames.CLIENT6, frames.SERVER6)
        found.append(b"\0\0\5" + tagged(ip(protocol, body, ends)))
    return list(dict.fromkeys(found))


WHOLES = (
    SEGMENT, SEGMENT6, ip(6, SEGMENT[20:] + bytes(range(256)) * 9),
    WRAPPINGS["gre"][2](SEGMENT), WRAPPINGS["vxlan"][2](tagged(piece(SEGMENT, 0, 40, True, 3))),
)  # fmt: skip


def check_fragments(raw: bytes) -> None:
    """Pieces of a few packets, each by six bytes: which, where, how long, when, what is changed."""
    tape = Tape(raw)
    sets, blocks, cut = 1 + tape.byte() % 3, 1 + tape.byte() % 9, 1 + tape.byte() % 4
    timed: list[tuple[int, bytes]] = []
    now = 100
    while tape and len(timed) < 24:
        which, start, length, how, step, change = tape.take(6).ljust(6, b"\0")
        whole = WHOLES[which % len(WHOLES)]
        packet = piece(whole, 8 * start, 8 * start + length, bool(how & 1), how >> 1 & 3)
        now += (0, 0, 1, -1, 5, 30)[step % 6]
        frame = bytearray(tagged(packet))
        if change:
            frame[14 + change % (len(frame) - 14)] ^= 1 + (how >> 3)
        timed.append((now, bytes(frame)))
    if not timed:
        return
    twin = NaiveFragments(sets, blocks, 20)
    expected = test_fragments.expected_of(twin, timed)
    rig = test_fragments.Rig(sets, blocks, 20, None)
    found = []
    for at in range(0, len(timed), cut):
        found += rig.push(timed[at : at + cut])
    same(found, expected)


def fragment_seeds() -> list[bytes]:
    """Packets cut in two and three, in order and not, twice, overlapping."""
    found = [b"\2\x08\3" + b"".join(bytes([which, *rest]) for rest in pieces)
             for which in range(len(WHOLES))
             for pieces in (
                 [(0, 24, 1, 0, 0), (3, 255, 0, 0, 0)],
                 [(3, 255, 0, 0, 0), (0, 24, 1, 2, 0)],
                 [(0, 16, 1, 0, 0), (2, 8, 1, 0, 0), (2, 16, 1, 0, 0), (4, 255, 0, 0, 0)],
                 [(0, 16, 1, 0, 0), (0, 16, 3, 0, 9), (0, 24, 1, 5, 0)],
             )]  # fmt: skip
    assert fragments(SEGMENT, [24])  # what `piece` makes is what a sender would
    return found


def check_tls(raw: bytes) -> None:
    """A hello in records, and the body of one."""
    same(test_tls.gathered(raw), naive_tls.gather_hello(raw, test_tls.LONGEST))
    starts = test_tls.starts(test_tls.array(raw), 3, 3 + len(raw))
    same(bool(starts), bool(raw) and naive_tls.starts_hello(raw))
    same(test_tls.reading(raw), naive_tls.read_hello(raw))
    found = naive_tls.gather_hello(raw, test_tls.LONGEST)
    if isinstance(found, tuple):
        same(test_tls.reading(found[0]), naive_tls.read_hello(found[0]))


def tls_seeds() -> list[bytes]:
    """Hellos in one record and several, without names, with odd ones, and bodies."""
    body = frames.hello_body([frames.server_name(b"shop.example"), frames.alpn(b"h2")])
    return [
        frames.client_hello(),
        frames.client_hello("shop.example", sizes=[1, 3, 40]),
        frames.client_hello(None, protocols=[]),
        frames.client_hello(b"\0", padding=30),
        frames.server_hello(),
        body,
        frames.hello_body(None),
        frames.hello_body([frames.extension(0xFE0D, bytes(9)), frames.server_name(b"")]),
    ]


def check_http(raw: bytes) -> None:
    """A request head, and the lines of chunks."""
    if not test_http.same(test_http.reading(raw), naive_http.read_head(raw)):
        same(test_http.reading(raw), naive_http.read_head(raw))
    data, found = test_http.array(raw), records(test_http.HEAD, 1)
    same(bool(test_http.starts(data, 3, 3 + len(raw))), naive_http.starts_head(raw))
    outcome = test_http.chunk(data, 3, 3 + len(raw), found)
    line = naive_http.read_chunk_line(raw)
    if outcome == WHOLE:
        same((int(found[0]["stop"]) - 3, int(found[0]["body_length"])), line)
    else:
        same(test_http.OUTCOMES[outcome], line)
    test_http.trailer(data, 3, 3 + len(raw), found)


def http_seeds() -> list[bytes]:
    """Heads of all methods, with lengths, chunks, foldings and what a browser sends."""
    fields = (
        "Content-Length: 5", "Transfer-Encoding: gzip, chunked", "Accept: text/html,*/*",
        "Referer: http://news.example/a", "Sec-Fetch-Dest: document", "Host: other.example",
        "X-Requested-With: x", "Sec-Purpose: prefetch", "Content-Length: 6",
    )  # fmt: skip
    return [
        frames.get("shop.example"),
        frames.get("shop.example:80", "http://a.example/x.js?a=b", *fields),
        b"CONNECT shop.example:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.0\nHost:\n\tshop.example\n\nbody",
        b"\r\n\r\nM-SEARCH * HTTP/1.1\r\n\r\n",
        b"1f;name=value\r\n",
        b"0\r\n\r\n",
        *(field.encode() + b"\r\n" for field in fields[:2]),
    ]


def check_host(raw: bytes) -> None:
    """Whatever stands where a host name should."""
    data = test_http.array(raw)
    kind, start, stop = test_http.clean(data, 3, 3 + len(raw))
    found = data[start:stop].tobytes().lower() if kind != test_http.names.HOST_NONE else b""
    same((test_http.HOSTS[kind], found), naive_http.clean_host(raw))


def host_seeds() -> list[bytes]:
    """Names, addresses, ports, dots and brackets."""
    return [
        b"shop.example", b"Shop.Example.:8080", b" a_b.example\t", b"192.0.2.7:80", b"[2001:db8::1]",
        b"[::ffff:192.0.2.1]:443", b"2001:db8::1", b"a." * 126 + b"a", b"a" * 63 + b".example", b"a..b",
        b"xn--e1afmkfd.example", b"0x7f.1", b"*.example", b"user@shop.example", b"shop.example:",
    ]  # fmt: skip


KINDS = (0x8100, 0x88A8, 0x893F, 0x8847, 0x8864, 0x6558, 0x22EB, 0x894F)
TAGS = tuple(struct.pack(">H", kind) for kind in KINDS)
HTTP_WORDS = (
    b"GET ", b" HTTP/1.1\r\n", b"\r\n\r\n", b"Host: ", b"Content-Length: ", b"Transfer-Encoding: chunked",
    b"Accept: text/html", b"Referer: ", b"Sec-Fetch-Dest: ", b"X-Moz: prefetch", b"http://", b"CONNECT ", b"\n ",
)  # fmt: skip
PACKETS = (
    Target("headers", check_headers, header_seeds, words=TAGS, runs=10_000),
    Target("fragments", check_fragments, fragment_seeds, 160, runs=2500),
    Target(
        "tls",
        check_tls,
        tls_seeds,
        words=(b"\x16\3\1", b"\1\0", b"\0\x10", b"\xfe\x0d"),
        runs=30_000,
    ),
    Target("http", check_http, http_seeds, words=HTTP_WORDS),
    Target(
        "host",
        check_host,
        host_seeds,
        300,
        words=(b":80", b"[", b"]", b"..", b"::", b"192.0."),
        runs=20_000,
    ),
)
