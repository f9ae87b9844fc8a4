"""Byte templates of what clients and servers say first, for the traffic generator.

A client hello is built field by field (RFC 8446, section 4.1.2; extensions as current browsers
send them), with its extensions in a random order, as browsers do. A post-quantum hello offers the
hybrid key share X25519MLKEM768 (group 0x11ec, 1,216 bytes), which makes it about 1.7 kB: two TCP
segments, and the server name may be in either. QUIC's are the same hellos in Initials of 1,200
bytes, sealed beforehand: one, or two with the frames of both in random order. Names are .example and .test only; some are names
of the shipped partners and of a tracker, so that the product's path finds something.
"""

from __future__ import annotations

import itertools
import random
import struct
from dataclasses import dataclass

import numpy as np

from tests.forge import quic

INITIAL_BYTES = 1200
HYBRID, X25519 = 0x11EC, 0x001D
HYBRID_BYTES, X25519_BYTES = 1216, 32
CIPHERS = bytes.fromhex("130113021303c02bc02fc02cc030cca9cca8c013c014009c009d002f0035")
SIGNATURES = bytes.fromhex("0012040308040401050308050501080606010201")
PARTNER_HOSTS = (
    "www.acme.example",
    "m.acme.example",
    "bolt.example",
    "www.books.example",
    "www.delta.example",
    "trk.example",
)
WORDS = ("media", "shop", "mail", "cloud", "news", "static", "video", "game", "bank", "weather")


def host_names(count: int, partner_share: float, rng: random.Random) -> list[str]:
    """`count` names of usual lengths, about `partner_share` of them a partner's or a tracker's."""
    names = []
    for number in range(count):
        if rng.random() < partner_share:
            names.append(rng.choice(PARTNER_HOSTS))
            continue
        labels = [f"{rng.choice(WORDS)}{number}", rng.choice(("example", "test"))]
        if rng.random() < 0.8:
            labels.insert(0, rng.choice(("www", "api", "cdn-eu", "img", "a", "telemetry")))
        if rng.random() < 0.2:
            labels.insert(0, f"edge{rng.randrange(100)}")
        names.append(".".join(labels))
    return names


def vector(width: int, content: bytes) -> bytes:
    """`content` with its length in `width` bytes before it."""
    return len(content).to_bytes(width, "big") + content


def extension(number: int, content: bytes) -> bytes:
    """One extension: its number, its length, its content."""
    return struct.pack(">H", number) + vector(2, content)


def grease(rng: random.Random) -> int:
    """A value that servers must ignore (RFC 8701)."""
    return 0x0A0A + 0x1010 * rng.randrange(16)


def key_share(post_quantum: bool, rng: random.Random) -> bytes:
    """The key_share extension: a reserved value, the hybrid where asked, and X25519."""
    shares = struct.pack(">H", grease(rng)) + vector(2, b"\0")
    if post_quantum:
        shares += struct.pack(">H", HYBRID) + vector(2, rng.randbytes(HYBRID_BYTES))
    shares += struct.pack(">H", X25519) + vector(2, rng.randbytes(X25519_BYTES))
    return extension(0x0033, vector(2, shares))


def encrypted_hello(rng: random.Random) -> bytes:
    """An encrypted_client_hello extension without meaning, as browsers send to everybody."""
    sealed = vector(2, rng.randbytes(32)) + vector(2, rng.randbytes(176))
    return extension(0xFE0D, b"\0\0\x01\0\x01\0" + sealed)


def extensions(host: str, post_quantum: bool, rng: random.Random) -> list[bytes]:
    """A browser's extensions in random order; without server_name where `host` is empty."""
    groups = [grease(rng), *([HYBRID] if post_quantum else []), X25519, 0x0017, 0x0018]
    found = [
        extension(0x0000, vector(2, b"\0" + vector(2, host.encode()))),
        extension(0x0017, b""),
        extension(0xFF01, b"\0"),
        extension(0x000A, vector(2, struct.pack(f">{len(groups)}H", *groups))),
        extension(0x000B, b"\x01\0"),
        extension(0x0023, rng.randbytes(rng.choice((0, 0, 192)))),
        extension(0x0010, vector(2, vector(1, b"h2") + vector(1, b"http/1.1"))),
        extension(0x0005, b"\x01\0\0\0\0"),
        extension(0x000D, SIGNATURES),
        extension(0x0012, b""),
        key_share(post_quantum, rng),
        extension(0x002D, b"\x01\x01"),
        extension(0x002B, vector(1, struct.pack(">3H", grease(rng), 0x0304, 0x0303))),
        extension(0x001B, b"\x02\0\x02"),
        extension(0x44CD, vector(2, vector(1, b"h2"))),
        encrypted_hello(rng),
        extension(grease(rng), b""),
    ]
    if not host:
        del found[0]
    rng.shuffle(found)
    return found


def client_hello(host: str, *, post_quantum: bool, rng: random.Random) -> bytes:
    """A whole TLS record with a client hello for `host`."""
    body = (
        b"\x03\x03"
        + rng.randbytes(32)
        + vector(1, rng.randbytes(32))
        + vector(2, struct.pack(">H", grease(rng)) + CIPHERS)
        + b"\x01\0"
        + vector(2, b"".join(extensions(host, post_quantum, rng)))
    )
    return b"\x16\x03\x01" + vector(2, b"\x01" + vector(3, body))


def initials(host: str, *, post_quantum: bool, rng: random.Random) -> bytes:
    """The datagrams of a QUIC client hello, each of INITIAL_BYTES; post-quantum ones have their
    CRYPTO frames shuffled over both, with pings between, as browsers do.
    """
    hello = client_hello(host, post_quantum=post_quantum, rng=rng)[5:]
    dcid, scid = rng.randbytes(8), rng.randbytes(rng.choice((0, 8)))
    if not post_quantum:
        sealed = quic.initial(quic.crypto(0, hello), dcid=dcid, scid=scid, pad_to=INITIAL_BYTES)
        assert len(sealed) == INITIAL_BYTES
        return sealed
    edges = [0, *sorted(rng.sample(range(1, len(hello)), 7)), len(hello)]
    pieces = list(itertools.pairwise(edges))
    if rng.random() < 0.5:
        rng.shuffle(pieces)
    packets: list[bytes] = []
    frames, left = b"", INITIAL_BYTES - 80
    for first, last in pieces:
        while first < last:
            stop = min(last, first + left)
            frames += quic.crypto(first, hello[first:stop]) + quic.PING
            left -= stop - first + 8
            first = stop
            if left <= 8:
                packets.append(frames)
                frames, left = b"", INITIAL_BYTES - 80
    sealed = b"".join(
        quic.initial(f, dcid=dcid, scid=scid, number=n, pad_to=INITIAL_BYTES)
        for n, f in enumerate([*packets, frames])
    )
    assert len(sealed) == 2 * INITIAL_BYTES
    return sealed


def server_hello(rng: random.Random) -> bytes:
    """The start of a server's first flight: hello, change of cipher, encrypted data."""
    body = b"\x03\x03" + rng.randbytes(32) + vector(1, rng.randbytes(32)) + b"\x13\x01\0"
    body += vector(
        2,
        extension(0x002B, b"\x03\x04")
        + extension(0x0033, struct.pack(">H", X25519) + vector(2, rng.randbytes(32))),
    )
    record = b"\x16\x03\x03" + vector(2, b"\x02" + vector(3, body))
    return record + b"\x14\x03\x03\0\x01\x01" + b"\x17\x03\x03\x08\0"


def request_head(host: str, rng: random.Random) -> bytes:
    """A browser's GET of a page."""
    path = f"/catalogue/{rng.choice(WORDS)}/{rng.randrange(10**6)}?page={rng.randrange(50)}"
    return (
        f"GET {path} HTTP/1.1\r\n"
        f"Host: {host}\r\n"
        "Connection: keep-alive\r\n"
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)\r\n"
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
        "Accept-Encoding: gzip, deflate\r\n"
        "Accept-Language: en-GB,en;q=0.7\r\n"
        f"Cookie: visitor={rng.randbytes(8).hex()}; basket={rng.randrange(10**9)}\r\n\r\n"
    ).encode()


def response_head(rng: random.Random) -> bytes:
    """The start of a server's answer to a GET."""
    return (
        "HTTP/1.1 200 OK\r\nServer: shop\r\nContent-Type: text/html; charset=utf-8\r\n"
        f"Content-Length: {rng.randrange(10_000, 200_000)}\r\n\r\n"
    ).encode()


@dataclass(frozen=True, slots=True)
class Templates:
    """All templates in one buffer: `pool` of each kind in turn, TLS classic and post-quantum, GET,
    QUIC classic and post-quantum.

    Template t is `data[start[t] : start[t] + length[t]]` and names `host[t]`; `server` and
    `answer` are one template each of what the other side says first.
    """

    data: np.ndarray
    start: np.ndarray
    length: np.ndarray
    host: list[str]
    pool: int
    server: np.ndarray
    answer: np.ndarray


def build(seed: int, pool: int, partner_share: float) -> Templates:
    """The templates of a seed; `pool` of each kind."""
    rng = random.Random(seed)
    hosts = host_names(5 * pool, partner_share, rng)
    parts = [client_hello(h, post_quantum=False, rng=rng) for h in hosts[:pool]]
    parts += [client_hello(h, post_quantum=True, rng=rng) for h in hosts[pool : 2 * pool]]
    parts += [request_head(h, rng) for h in hosts[2 * pool : 3 * pool]]
    parts += [initials(h, post_quantum=False, rng=rng) for h in hosts[3 * pool : 4 * pool]]
    parts += [initials(h, post_quantum=True, rng=rng) for h in hosts[4 * pool :]]
    length = np.array([len(p) for p in parts], np.int64)
    return Templates(
        data=np.frombuffer(b"".join(parts), np.uint8).copy(),
        start=np.cumsum(length) - length,
        length=length,
        host=hosts,
        pool=pool,
        server=np.frombuffer(server_hello(rng), np.uint8).copy(),
        answer=np.frombuffer(response_head(rng), np.uint8).copy(),
    )
