"""Small captures made with scapy for a second opinion: each shows one way to say a name on the
wire.

A capture is a list of packets in wire order. Streams are cut, swapped, repeated and wrapped here;
what the name is, and whether there is one, the readers have to tell. Addresses are of the
documentation ranges.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

from tests.bench.hellos import client_hello, server_hello, vector
from tests.forge import pcapng, quic

CLIENT4, SERVER4 = "198.51.100.7", "203.0.113.9"
CLIENT6, SERVER6 = "2001:db8:1::7", "2001:db8:2::9"
GET = "GET {target} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n\r\n"


@dataclass(frozen=True)
class Way:
    """How a conversation travels: IP version, tags, ports, and where its sequence numbers begin."""

    port: int
    sport: int = 40000
    v6: bool = False
    tags: int = 0
    isn: int = 1000

    def wrap(self, up: bool, transport: Packet) -> Packet:
        """Link and network layers around a transport header."""
        ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        if self.tags == 2:
            ether = ether / Dot1AD(vlan=200)
        if self.tags:
            ether = ether / Dot1Q(vlan=100)
        client, server = (CLIENT6, SERVER6) if self.v6 else (CLIENT4, SERVER4)
        source, target = (client, server) if up else (server, client)
        network = IPv6 if self.v6 else IP
        return ether / network(src=source, dst=target) / transport

    def tcp(self, up: bool, flags: str, sequence: int, ack: int, payload: bytes = b"") -> Packet:
        """One segment; `sequence` counts from the side's first payload byte."""
        own, other = (self.isn, 7_000_000) if up else (7_000_000, self.isn)
        ports = (self.sport, self.port) if up else (self.port, self.sport)
        header = TCP(
            sport=ports[0],
            dport=ports[1],
            flags=flags,
            seq=(own + sequence) % 2**32,
            ack=(other + ack) % 2**32,
        )
        return self.wrap(up, header / Raw(payload) if payload else header)


def conversation(way: Way, said: bytes, cuts: list[int], order: list[int], answer: bytes) -> list:
    """A handshake, what the client says in pieces cut at `cuts` and sent in `order`, an answer."""
    edges = [0, *cuts, len(said)]
    pieces = [(a, said[a:b]) for a, b in pairwise(edges)]
    packets = [way.tcp(True, "S", -1, 0), way.tcp(False, "SA", -1, 0), way.tcp(True, "A", 0, 0)]
    packets += [way.tcp(True, "PA", pieces[i][0], 0, pieces[i][1]) for i in order]
    packets.append(way.tcp(False, "PA", 0, len(said), answer))
    packets.append(way.tcp(True, "A", len(said), len(answer)))
    return packets


def whole(way: Way, said: bytes, answer: bytes = b"\x15\x03\x03\0\x02\x02\x28") -> list:
    """The same in one piece."""
    return conversation(way, said, [], [0], answer)


def datagrams(way: Way, *payloads: bytes) -> list:
    """Datagrams of the client, one after the other."""
    ports = {"sport": way.sport, "dport": way.port}
    return [way.wrap(True, UDP(**ports) / Raw(payload)) for payload in payloads]


def initials(host: str, version: int = quic.V1, post_quantum: bool = False, **more) -> list[bytes]:
    """A hello in as many Initials as it needs."""
    said = hello(host, 9, post_quantum)[5:]
    parts = [(at, said[at : at + 1100]) for at in range(0, len(said), 1100)]
    return [
        quic.initial(quic.crypto(at, part), version=version, number=n, pad_to=1200, **more)
        for n, (at, part) in enumerate(parts)
    ]


def join(between: bytes, payloads: list[bytes]) -> list[bytes]:
    """Datagrams with another one behind each."""
    return [raw for payload in payloads for raw in (payload, between)]


def records(hello: bytes, at: int) -> bytes:
    """A hello cut into two TLS records."""
    body = hello[5:]
    return b"".join(b"\x16\x03\x01" + vector(2, part) for part in (body[:at], body[at:]))


def hello(host: str, seed: int = 1, post_quantum: bool = False) -> bytes:
    """A client hello."""
    return client_hello(host, post_quantum=post_quantum, rng=random.Random(seed))


def get(host: str, target: str = "/") -> bytes:
    """A request head."""
    return GET.format(host=host, target=target).encode()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
WEB, TLS = Way(80), Way(443)
EARLY = quic.other(quic.ZERO_RTT, dcid=b"first id")

CAPTURES: dict[str, Callable[[], list]] = {
    "request": lambda: whole(WEB, get("shop.example"), OK),
    "request over IPv6": lambda: whole(Way(80, v6=True), get("six.example"), OK),
    "request behind a tag": lambda: whole(Way(80, tags=1), get("tag.example"), OK),
    "request behind two tags": lambda: whole(Way(80, tags=2), get("tags.example"), OK),
    "host in capitals with a port": lambda: whole(Way(8080), get("Shop.EXAMPLE:8080"), OK),
    "absolute target": lambda: whole(WEB, get("proxy.example", "http://proxy.example/a?b=1"), OK),
    "head in two segments": lambda: conversation(WEB, get("two.example"), [20], [0, 1], OK),
    "head in many segments": lambda: conversation(
        WEB, get("many.example"), list(range(7, 60, 7)), list(range(9)), OK
    ),
    "two requests in a segment": lambda: whole(WEB, get("a.example") + get("b.example"), OK),
    "post with a body": lambda: whole(
        WEB,
        b"POST /order HTTP/1.1\r\nHost: post.example\r\nContent-Length: 4\r\n\r\nname",
        OK,
    ),
    "response only": lambda: [WEB.tcp(False, "PA", 0, 0, OK)],
    "hello": lambda: whole(TLS, hello("tls.example"), server_hello(random.Random(1))),
    "hello over IPv6": lambda: whole(Way(443, v6=True), hello("tls6.example")),
    "hello behind two tags": lambda: whole(Way(443, tags=2), hello("tls-tags.example")),
    "hello on another port": lambda: whole(Way(8443), hello("port.example")),
    "post-quantum hello in order": lambda: conversation(
        TLS, hello("pq.example", 2, True), [1400], [0, 1], b""
    ),
    "post-quantum hello out of order": lambda: conversation(
        TLS, hello("pq-swapped.example", 3, True), [1400], [1, 0], b""
    ),
    "hello in many segments, backwards": lambda: conversation(
        TLS, hello("backwards.example", 4), [100, 200, 300, 400], [4, 3, 2, 1, 0], b""
    ),
    "first segment twice": lambda: conversation(
        TLS, hello("twice.example", 5, True), [1400], [0, 0, 1], b""
    ),
    "hello in two records": lambda: whole(TLS, records(hello("records.example", 6), 60)),
    "sequence numbers that wrap": lambda: conversation(
        Way(443, isn=2**32 - 700), hello("wrap.example", 7, True), [1400], [0, 1], b""
    ),
    "hello without a name": lambda: whole(TLS, hello("", 8)),
    "Initial": lambda: datagrams(TLS, *initials("quic.example")),
    "Initial over IPv6 on another port": lambda: datagrams(
        Way(8443, v6=True), *initials("quic6.example", dcid=bytes(20), scid=b"scid")
    ),
    "Initial of version two": lambda: datagrams(TLS, *initials("v2.example", quic.V2)),
    "Initial of draft 29": lambda: datagrams(TLS, *initials("draft.example", quic.DRAFT_29)),
    "Initial of mvfst": lambda: datagrams(TLS, *initials("mvfst.example", quic.MVFST)),
    "Initial with a token": lambda: datagrams(TLS, *initials("token.example", token=bytes(90))),
    "hello in two Initials": lambda: datagrams(TLS, *initials("long.example", post_quantum=True)),
    "two Initials in a datagram": lambda: datagrams(
        TLS, b"".join(initials("both.example", post_quantum=True))
    ),
    "early data between two Initials": lambda: datagrams(
        TLS, *join(EARLY, initials("early.example", post_quantum=True, dcid=b"first id"))
    ),
    "hello of Google's QUIC": lambda: datagrams(
        TLS, quic.google(b"Q043", quic.stream(quic.chlo(b"google.example", 1000)))
    ),
    "datagrams only": lambda: [
        WEB.wrap(True, UDP(sport=40000, dport=5000) / Raw(b"GET / HTTP/1.1\r\nHost: udp.example"))
    ],
}


def forge(name: str, folder: Path) -> Path:
    """Write one of the captures; returns its path."""
    path = folder / f"{name.replace(' ', '_').replace(',', '')}.pcap"
    wrpcap(str(path), CAPTURES[name]())
    return path


def mixed(seed: int) -> list[Packet]:
    """Many conversations, cut at random, neighbours in a stream swapped, all mixed."""
    rng = random.Random(seed)
    streams = []
    for number in range(24):
        secure = rng.random() < 0.6
        host = f"{'tls' if secure else 'www'}{number}-{seed}.example"
        way = Way(
            rng.choice((443, 8443)) if secure else rng.choice((80, 8080)),
            sport=20_000 + number,
            v6=rng.random() < 0.4,
            tags=rng.randrange(3),
            isn=rng.randrange(2**32),
        )
        said = hello(host, rng.randrange(10**6), rng.random() < 0.6) if secure else get(host)
        cuts = sorted(rng.sample(range(1, len(said)), rng.randrange(4))) if secure else []
        if len(said) > 1400 and not cuts:
            cuts = [1400]
        order = list(range(len(cuts) + 1))
        if len(order) > 1 and rng.random() < 0.4:
            rng.shuffle(order)
        streams.append(conversation(way, said, cuts, order, b"" if secure else OK))
    packets = []
    while streams:
        stream = rng.choice(streams)
        packets.append(stream.pop(0))
        if not stream:
            streams.remove(stream)
    return packets


def forge_mixed(seed: int, folder: Path) -> Path:
    """A capture of many conversations."""
    packets = mixed(seed)
    path = folder / f"mixed-{seed}.pcap"
    for number, packet in enumerate(packets):
        packet.time = 1_767_261_600 + number * 0.001
    wrpcap(str(path), packets)
    return path


# A pcapng file's sections: byte order, and resolution and offset of each interface's times. Beyond
# 10**-10 and 2**-34 of a second Wireshark 4.0 multiplies past 64 bits and tells another time.
SECTIONS: tuple[tuple[str, tuple[tuple[int | None, int | None], ...]], ...] = (
    ("<", ((None, None), (9, None))),
    (">", ((128 + 20, None), (3, -1_000_000), (9, 3600))),
    ("<", ((10, 1_767_000_000), (128 + 34, 1_767_000_000))),
)


def forge_pcapng(seed: int, folder: Path) -> Path:
    """Conversations as a pcapng file of several sections and interfaces, with blocks of no packets
    between, and packets of every kind of block.
    """
    rng = random.Random(seed)
    raws = [bytes(packet) for packet in mixed(seed)]
    raw, now_ns = b"", 1_767_261_600_000_000_000
    share = len(raws) // len(SECTIONS) + 1
    for number, (order, interfaces) in enumerate(SECTIONS):
        raw += pcapng.section(order)
        for resolution, offset in interfaces:
            raw += pcapng.interface(order, 1, 65535, resolution, offset)
        for packet in raws[number * share : (number + 1) * share]:
            now_ns += rng.randrange(2_000_000)
            which = rng.randrange(len(interfaces))
            resolution, offset = (value or 0 for value in interfaces[which])
            resolution = resolution if interfaces[which][0] is not None else 6
            power = resolution & 127
            second = 2**power if resolution & 128 else 10**power
            ticks = (now_ns - offset * 10**9) * second // 10**9
            kind = rng.random()
            if kind < 0.8:
                comment = pcapng.option(order, pcapng.COMMENT, b"said") if kind < 0.2 else b""
                raw += pcapng.packet(order, packet, ticks, which, options=comment)
            elif kind < 0.9:
                raw += pcapng.old_packet(order, packet, ticks, which)
            else:
                raw += pcapng.simple(order, packet)
            if rng.random() < 0.2:
                kinds = (pcapng.STATISTICS, pcapng.NAMES, 0x7FFF)
                raw += pcapng.block(order, rng.choice(kinds), bytes(rng.randrange(20, 300)))
    path = folder / f"mixed-{seed}.pcapng"
    path.write_bytes(raw)
    return path
