"""Forged packets: whole conversations, made by scapy, in the order a mirror port shows them.

Everything random comes from one seeded generator, so the same script gives the same bytes.
Addresses come from documentation ranges; so do the hardware addresses (RFC 7042, section 2.1.1).
"""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Sequence
from pathlib import Path

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.forge.heads import answer, server_hello

LINE_MAC, NET_MAC = "00:00:5e:00:53:01", "00:00:5e:00:53:02"
MILLISECOND_NS = 1_000_000
SEGMENT_BYTES = 1400
PCAP_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)


class Wire:
    """Collects packets; `write` sorts them by time."""

    def __init__(self, seed: str) -> None:
        self.rng = random.Random(seed)
        self.packets: list[tuple[int, int, bytes]] = []

    def add(self, at_ns: int, packet: Packet, tags: Sequence[int] = (), up: bool = True) -> None:
        """One IP packet in an Ethernet frame, with outer to inner VLAN tags."""
        source, target = (LINE_MAC, NET_MAC) if up else (NET_MAC, LINE_MAC)
        frame: Packet = Ether(src=source, dst=target)
        for number, tag in enumerate(tags):
            outer = number + 1 < len(tags)
            frame = frame / (Dot1AD(vlan=tag) if outer else Dot1Q(vlan=tag))
        self.packets.append((at_ns, len(self.packets), bytes(frame / packet)))

    def http(
        self, at_ns: int, client: str, server: str, *requests: bytes, tags: Sequence[int] = ()
    ) -> None:
        """A connection to port 80 with these requests, each answered."""
        talk = Conversation(self, at_ns, client, server, 80, tags)
        for request in requests:
            talk.say(request)
            talk.hear(answer())
        talk.close()

    def tls(
        self,
        at_ns: int,
        client: str,
        server: str,
        hello: bytes,
        *,
        cuts: Sequence[int] = (),
        swapped: bool = False,
        wait_ns: int = 3 * MILLISECOND_NS,
        tags: Sequence[int] = (),
    ) -> None:
        """A connection to port 443: a hello cut at `cuts`, its segments swapped or in order."""
        talk = Conversation(self, at_ns, client, server, 443, tags)
        talk.say(hello, cuts, swapped, wait_ns)
        talk.hear(server_hello(self.rng))
        talk.say(b"\x17\x03\x03\x00\x40" + self.rng.randbytes(64))
        talk.close()

    def datagram(
        self, at_ns: int, client: str, server: str, port: int, payload: bytes, answer: bytes = b""
    ) -> None:
        """A UDP datagram and what came back."""
        source = self.rng.randrange(32768, 61000)
        there, back = header(client, server), header(server, client)
        self.add(at_ns, there / UDP(sport=source, dport=port) / Raw(payload))
        if answer:
            reply = back / UDP(sport=port, dport=source) / Raw(answer)
            self.add(at_ns + 9 * MILLISECOND_NS, reply, up=False)

    def noise(self, at_ns: int, client: str, server: str) -> None:
        """An ARP question, and a ping with its answer."""
        self.add(at_ns, ARP(op=1, hwsrc=LINE_MAC, psrc=client, pdst=server))
        ping, pong = ICMP(type=8, id=7, seq=1), ICMP(type=0, id=7, seq=1)
        self.add(at_ns + MILLISECOND_NS, header(client, server) / ping / Raw(b"ping"))
        self.add(at_ns + 5 * MILLISECOND_NS, header(server, client) / pong / Raw(b"ping"), up=False)

    def write(self, path: Path) -> None:
        """A classic capture: little-endian, microseconds, Ethernet."""
        with open(path, "wb") as file:
            file.write(PCAP_HEADER)
            for at_ns, _, frame in sorted(self.packets):
                seconds, rest = divmod(at_ns // 1000, 1_000_000)
                file.write(struct.pack("<IIII", seconds, rest, len(frame), len(frame)) + frame)


class Conversation:
    """One TCP connection, from the handshake on; time passes with each packet."""

    def __init__(
        self,
        wire: Wire,
        at_ns: int,
        client: str,
        server: str,
        port: int,
        tags: Sequence[int],
    ) -> None:
        self.wire, self.now_ns, self.tags = wire, at_ns, tags
        self.there, self.back = header(client, server), header(server, client)
        self.ports = wire.rng.randrange(32768, 61000), port
        self.mine, self.theirs = wire.rng.randrange(1 << 32), wire.rng.randrange(1 << 32)
        options = [("MSS", 1460), ("SAckOK", b""), ("WScale", 7)]
        self.packet("S", options=options)
        self.mine = (self.mine + 1) & 0xFFFFFFFF
        self.packet("SA", up=False, options=options)
        self.theirs = (self.theirs + 1) & 0xFFFFFFFF
        self.packet("A")

    def packet(
        self,
        flags: str,
        payload: bytes = b"",
        *,
        up: bool = True,
        offset: int = 0,
        options: Sequence[tuple[str, object]] = (),
        after_ns: int = 2 * MILLISECOND_NS,
    ) -> None:
        """One segment; `offset` is where it lies behind the side's next byte."""
        ports = self.ports if up else self.ports[::-1]
        mine, theirs = (self.mine, self.theirs) if up else (self.theirs, self.mine)
        segment = TCP(
            sport=ports[0],
            dport=ports[1],
            seq=(mine + offset) & 0xFFFFFFFF,
            ack=0 if flags == "S" else theirs,
            flags=flags,
            window=502,
            options=list(options),
        )
        head = self.there if up else self.back
        packet = head / segment / Raw(payload) if payload else head / segment
        self.wire.add(self.now_ns, packet, self.tags, up)
        self.now_ns += after_ns

    def say(
        self,
        data: bytes,
        cuts: Sequence[int] = (),
        swapped: bool = False,
        wait_ns: int = 3 * MILLISECOND_NS,
    ) -> None:
        """The client sends `data`, cut at `cuts` or where a segment is full."""
        edges = [0, *(cuts or range(SEGMENT_BYTES, len(data), SEGMENT_BYTES)), len(data)]
        parts = [(a, data[a:b]) for a, b in itertools.pairwise(edges)]
        for offset, part in reversed(parts) if swapped else parts:
            self.packet("PA", part, offset=offset, after_ns=wait_ns)
        self.mine = (self.mine + len(data)) & 0xFFFFFFFF
        self.packet("A", up=False)

    def hear(self, data: bytes) -> None:
        """The server sends `data`."""
        self.packet("PA", data, up=False, after_ns=20 * MILLISECOND_NS)
        self.theirs = (self.theirs + len(data)) & 0xFFFFFFFF
        self.packet("A")

    def close(self) -> None:
        """Both sides say good-bye."""
        self.packet("FA")
        self.mine = (self.mine + 1) & 0xFFFFFFFF
        self.packet("FA", up=False)
        self.theirs = (self.theirs + 1) & 0xFFFFFFFF
        self.packet("A")


def header(source: str, target: str) -> Packet:
    """The network header between two addresses."""
    if ":" in source:
        return IPv6(src=source, dst=target, hlim=63)
    return IP(src=source, dst=target, ttl=63, id=1, flags="DF")
