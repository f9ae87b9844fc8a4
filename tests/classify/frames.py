"""Frames and hellos for the tests of classify, field by field, and batches of them."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence

import hpack
import numpy as np

from pipeline.model.batches import PacketBatch

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
CLIENT, SERVER = "192.0.2.10", "198.51.100.20"
CLIENT6, SERVER6 = "2001:db8:1::10", "2001:db8:2::20"
SECOND_NS = 1_000_000_000
Packet = tuple[int, bytes]  # time_ns, frame


def ip(source: str, target: str, protocol: int, payload: bytes) -> bytes:
    """An IPv4 or IPv6 packet."""
    a, b = ipaddress.ip_address(source), ipaddress.ip_address(target)
    if a.version == 4:
        total = 20 + len(payload) if len(payload) < 65516 else 0  # 0: a card was to cut it
        head = struct.pack(">BBHHHBBH", 0x45, 0, total, 1, 0x4000, 64, protocol, 0)
    else:
        head = struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64)
    return head + a.packed + b.packed + payload


def ethernet(packet: bytes, tags: Sequence[int] = ()) -> bytes:
    """A frame around an IP packet, with tags from the outermost in."""
    kind = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    tagged = b"".join(struct.pack(">HH", 0x8100, tag) for tag in tags)
    return bytes.fromhex("02000000000102000000000a") + tagged + struct.pack(">H", kind) + packet


def tcp(
    payload: bytes = b"",
    *,
    seq: int = 0,
    ack: int = 0,
    flags: int = ACK,
    client: str = CLIENT,
    server: str = SERVER,
    port: int = 50000,
    server_port: int = 443,
    up: bool = True,
    tags: Sequence[int] = (),
) -> bytes:
    """A frame with a TCP segment, from the client or (not `up`) from the server."""
    ends = (client, port, server, server_port) if up else (server, server_port, client, port)
    head = struct.pack(
        ">HHIIBBHHH", ends[1], ends[3], seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, 0x50, flags, 8192, 0, 0
    )
    return ethernet(ip(ends[0], ends[2], 6, head + payload), tags)


def udp(payload: bytes, *, client: str = CLIENT, server: str = SERVER, port: int = 50000) -> bytes:
    """A frame with a datagram from the client to port 443."""
    return ethernet(
        ip(client, server, 17, struct.pack(">HHHH", port, 443, 8 + len(payload), 0) + payload)
    )


def dns_message(name: bytes, addresses: Sequence[str], *, flags: int = 0x8180) -> bytes:
    """A DNS answer to one question; every other record names what was asked for by a pointer."""
    asked = b"".join(bytes([len(label)]) + label for label in name.split(b".")) + b"\0"
    raw = struct.pack(">HHHHHH", 7, flags, 1, len(addresses), 0, 0) + asked + b"\0\1\0\1"
    for number, text in enumerate(addresses):
        data = ipaddress.ip_address(text).packed
        raw += (asked, b"\xc0\x0c")[number % 2]
        raw += struct.pack(">HHIH", 1 if len(data) == 4 else 28, 1, 60, len(data)) + data
    return raw


def dns_answer(message: bytes, client: str = CLIENT, resolver: str = "203.0.113.53") -> bytes:
    """A frame with a DNS message for the client."""
    head = struct.pack(">HHHH", 53, 40000, 8 + len(message), 0)
    return ethernet(ip(resolver, client, 17, head + message))


SNAPLEN_MAX = 1 << 18


def batch(
    packets: Sequence[Packet],
    first_packet: int = 1,
    link_type: int = 1,
    snaplen: int = SNAPLEN_MAX,
) -> PacketBatch:
    """Packets as one batch, of each of which so many bytes were captured at most."""
    wire_lengths = [len(raw) for _, raw in packets]
    packets = [(t, raw[:snaplen]) for t, raw in packets]
    lengths = [len(raw) for _, raw in packets]
    size = len(packets)
    return PacketBatch(
        source="test.pcap",
        source_id=3,
        first_packet=first_packet,
        data=np.frombuffer(b"".join(raw for _, raw in packets), np.uint8).copy(),
        offset=np.cumsum([0, *lengths], dtype=np.int64)[:-1].copy(),
        captured_length=np.array(lengths, np.uint32),
        wire_length=np.array(wire_lengths, np.uint32),
        time_ns=np.array([t for t, _ in packets], np.int64),
        interface=np.zeros(size, np.uint16),
        link_type=np.full(size, link_type, np.uint16),
        stripped_vlan=np.full(size, -1, np.int32),
    )


def batches(
    packets: Sequence[Packet], cuts: Sequence[int], snaplen: int = SNAPLEN_MAX
) -> list[PacketBatch]:
    """The same packets, cut at these places."""
    edges = [0, *sorted(c for c in set(cuts) if 0 < c < len(packets)), len(packets)]
    return [
        batch(packets[a:b], a + 1, snaplen=snaplen) for a, b in zip(edges, edges[1:], strict=False)
    ]


def vector(width: int, content: bytes) -> bytes:
    """`content` with its length in `width` bytes before it."""
    return len(content).to_bytes(width, "big") + content


def extension(kind: int, content: bytes) -> bytes:
    """One extension of a hello."""
    return kind.to_bytes(2, "big") + vector(2, content)


def server_name(name: bytes) -> bytes:
    """The server name extension."""
    return extension(0, vector(2, b"\0" + vector(2, name)))


def alpn(*names: bytes) -> bytes:
    """The protocol list extension."""
    return extension(16, vector(2, b"".join(vector(1, n) for n in names)))


RANDOM = bytes(range(32))


def hello_body(
    extensions: Sequence[bytes] | None, session: bytes = bytes(32), random: bytes = RANDOM
) -> bytes:
    """The body of a client hello; no extensions at all where None."""
    body = b"\x03\x03" + random + vector(1, session)
    body += vector(2, bytes.fromhex("1a1a130113021303")) + vector(1, b"\0")
    return body if extensions is None else body + vector(2, b"".join(extensions))


def records(handshake: bytes, sizes: Sequence[int] = ()) -> bytes:
    """A handshake in records of these sizes, the rest in a last one."""
    out = b""
    for size in [*sizes, len(handshake)]:
        piece, handshake = handshake[:size], handshake[size:]
        if piece:
            out += b"\x16\x03\x01" + vector(2, piece)
    return out


def client_hello(
    name: str | bytes | None = "shop.example",
    *,
    protocols: Sequence[bytes] = (b"h2", b"http/1.1"),
    padding: int = 0,
    sizes: Sequence[int] = (),
    random: bytes = RANDOM,
) -> bytes:
    """A client hello in TLS records."""
    extensions = [extension(0x2A2A, b""), extension(51, bytes(padding))]
    if name is not None:
        extensions.append(server_name(name.encode() if isinstance(name, str) else name))
    if protocols:
        extensions.append(alpn(*protocols))
    return records(b"\x01" + vector(3, hello_body(extensions, random=random)), sizes)


def server_hello() -> bytes:
    """The beginning of a server's answer."""
    return records(b"\x02" + vector(3, b"\x03\x03" + bytes(70)))


def get(host: str = "news.example", target: str = "/", *fields: str) -> bytes:
    """A GET request head."""
    lines = [f"GET {target} HTTP/1.1", f"Host: {host}", *fields, "", ""]
    return "\r\n".join(lines).encode()


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, WINDOW = (4, 0, 0, bytes.fromhex("000300000064")), (8, 0, 0, bytes.fromhex("00ff0000"))
END_STREAM, END_HEADERS, PADDED, PRIORITY = 1, 4, 8, 32


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def block(*fields: tuple[str | bytes, str | bytes]) -> bytes:
    """A header block of these fields."""
    return hpack.Encoder().encode(fields)


def request_block(host: str = "h2.example", path: str = "/", method: str = "GET", *more) -> bytes:
    """The header block of a request."""
    first = [(":method", method), (":scheme", "http"), (":authority", host), (":path", path)]
    return block(*first, *more)


def prior_knowledge(content: bytes | None = None, stream: int = 1, *before) -> bytes:
    """A client's stream from the preface to a whole header block."""
    content = request_block() if content is None else content
    frames = [SETTINGS, WINDOW, *before, (1, END_HEADERS | END_STREAM, stream, content)]
    return PREFACE + b"".join(frame(*f) for f in frames)
