"""Targets over the whole of classify: segments and datagrams of a few flows, against its twin.

Little is kept under the limits here, so that flows, holdings, pieces and tries run out. Initials
are sealed after the bytes were drawn: the fuzzer changes frames, and still gets past the seal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tests.classify import frames
from tests.classify.frames import ACK, FIN, SYN, Packet
from tests.classify.test_datagrams import VERSIONS, hello
from tests.classify.test_track import SMALL, fast, slow
from tests.forge import quic
from tests.fuzz.target import Tape, Target, same
from tests.naive.headers import Fragment, walk_headers

LIMITS = replace(SMALL, flows=4, unit_bytes=512, pieces=4)
START_NS = 1_700_000_000_000_000_000
STEPS_NS = (0, 10**6, 10**6, -(10**6), 6 * 10**7, 2 * 10**8, 2 * 10**9, 4 * 10**11)
FLAGS = (ACK, ACK, ACK | FIN, SYN)
SEALED = (*VERSIONS, quic.Q050, quic.T051)
CLEAR = (b"Q025", b"Q033", b"Q039", b"Q043", b"Q046", b"Q048")
PACKETS_MAX = 16


def compare(packets: Sequence[Packet], batch: int) -> None:
    """Sessions and counts as the twin has them, however many packets come at once."""
    cuts = range(batch, len(packets), batch)
    found, words, _ = fast(packets, LIMITS, cuts)
    expected, expected_words = slow(packets, LIMITS)
    same(words, expected_words)
    same(found, expected)


def check_stage(raw: bytes) -> None:
    """A small capture, each packet by five bytes and what it carries."""
    tape = Tape(raw)
    batch, now = 1 + tape.byte() % 7, START_NS
    packets: list[Packet] = []
    while tape and len(packets) < PACKETS_MAX:
        kind, how, place, size = tape.byte(), tape.byte(), tape.number(2), tape.byte()
        now += STEPS_NS[kind >> 5]
        said = tape.take(size)
        ends = {"port": 50_000 + (how >> 4 & 3), "server_port": 443}
        if how & 0x80:
            ends |= {"client": frames.CLIENT6, "server": frames.SERVER6}
        sequence = place - 0x100  # about zero, where sequence numbers wrap
        match kind & 7:
            case 6:
                frame = frames.udp(said, port=ends["port"])
            case 7:
                frame = said  # the twin here puts no fragments together: they have their target
                if isinstance(walk_headers(said, len(said), 1), Fragment):
                    continue
            case 5:
                frame = frames.tcp(
                    said, seq=7, ack=sequence, flags=ACK | SYN * (how & 1), up=False, **ends
                )
            case _:
                frame = frames.tcp(said, seq=sequence, flags=FLAGS[how & 3], **ends)
        packets.append((now, frame))
    compare(packets, batch)


def step(said: bytes, place: int = 0x100, *, kind: int = 0, how: int = 0, wait: int = 1) -> bytes:
    """A packet in the code of `check_stage`, or several where one cannot carry it."""
    out = b""
    while said or not out:
        one, said = said[:255], said[255:]
        out += bytes([wait << 5 | kind, how]) + place.to_bytes(2, "big") + bytes([len(one)]) + one
        place = (place + len(one)) & 0xFFFF
    return out


PROXY_LINE, PROXY_SIGNED = b"PROXY TCP4 1 2 3 4\r\n", bytes.fromhex("0d0a0d0a000d0a515549540a")


def stage_seeds() -> list[bytes]:
    """Hellos and heads, whole, halved, swapped, overlapping, behind a gap, in several flows."""
    secure, plain = frames.client_hello("shop.example"), frames.get("news.example")
    post = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc"
    chunks = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX: y\r\n\r\n"
    began = step(b"", 0xFF, how=3)
    datagram = quic.google(b"Q043", quic.stream(quic.chlo(pad=20)))
    return [
        b"\0" + began + step(secure),
        b"\1" + began + step(secure[:50]) + step(secure[50:], 0x100 + 50),
        b"\2" + step(secure[50:], 0x100 + 50) + step(secure[:50]) + step(secure[40:], 0x100 + 40),
        b"\3" + began + step(plain + post + plain),
        b"\4" + began + step(chunks) + step(plain, 0x100 + len(chunks)) + step(b"", kind=5, how=1),
        b"\5" + began + step(plain, 0x500, wait=2) + step(b"", 0x600, wait=6),
        b"\6" + b"".join(step(plain[:20], how=flow << 4) for flow in range(4)) * 2,
        b"\1" + step(datagram, kind=6) + step(frames.tcp(plain), kind=7) + step(b"220 hi", kind=5),
        b"\0" + step(b"HTTP/1.1 200 OK\r\n", kind=5) + step(frames.server_hello()) + step(plain),
        b"\2" + began + step(PROXY_LINE + secure[:9]) + step(secure[9:], 0x100 + len(PROXY_LINE) + 9),
        b"\1" + step(PROXY_SIGNED + b"\x21\x11\0\2ab" + plain),
    ]  # fmt: skip


def timed(payloads: Sequence[bytes]) -> list[Packet]:
    """Datagrams of one flow."""
    return [(START_NS + n * 10**6, frames.udp(raw)) for n, raw in enumerate(payloads)]


def check_datagrams(raw: bytes) -> None:
    """Datagrams as they are, each by two bytes of length."""
    tape = Tape(raw)
    batch, payloads = 1 + tape.byte() % 3, []
    while tape and len(payloads) < PACKETS_MAX:
        payloads.append(tape.take(tape.number(2) % 2000))
    compare(timed(payloads), batch)


def datagram(*payloads: bytes) -> bytes:
    """Datagrams in that code."""
    return b"\1" + b"".join(frames.vector(2, raw) for raw in payloads)


def datagram_seeds() -> list[bytes]:
    """Initials of every version, several in a datagram, other packets, and negotiations."""
    said = hello()
    sealed = [quic.initial(quic.crypto(0, said), version=version) for version in VERSIONS]
    halves = [
        quic.initial(quic.crypto(at, said[at : at + 60]), number=n, token=b"token" * n)
        for n, at in enumerate(range(0, len(said), 60))
    ]
    others = [quic.other(kind) for kind in (quic.ZERO_RTT, quic.HANDSHAKE, quic.RETRY)]
    return [
        *(datagram(raw) for raw in sealed),
        datagram(*halves),
        datagram(b"".join(halves)),
        datagram(others[0] + halves[0], others[1] + halves[1], others[2]),
        datagram(quic.negotiation(), quic.initial(quic.crypto(0, said), dcid=b"", scid=bytes(20))),
        datagram(quic.initial(quic.crypto(0, said), length=60)),
    ]


def check_frames(raw: bytes) -> None:
    """Initials around frames: version, size of the number, how many bytes go into each, frames."""
    tape = Tape(raw)
    version, how, cut = SEALED[tape.byte() % len(SEALED)], tape.byte(), 1 + tape.byte()
    packets = []
    while tape and len(packets) < 5:
        number = len(packets) * (how & 7)
        packets.append(
            quic.initial(
                tape.take(4 * cut),
                version=version,
                number=number,
                number_size=1 + (how >> 3 & 3),
                dcid=b"\x0b" * (how >> 5),
                first_id=None if not how & 4 or not packets else b"\x0b" * (how >> 5),
            )
        )
    compare(timed(packets if how & 0x20 else [b"".join(packets)]), 2)


def frame_seeds() -> list[bytes]:
    """Hellos in one frame and in many, shuffled, with all that may stand between them."""
    said, google = hello(), quic.chlo(pad=20)
    parts = [(at, said[at : at + 25]) for at in range(0, len(said), 25)]
    mixed = b"".join(quic.crypto(*part) + quic.PING for part in parts[1::2] + parts[::2])
    between = quic.ack(9, [(1, 2), (300, 70_000)]) + quic.ack(counts=True) + quic.close() + bytes(3)
    bodies = [
        quic.crypto(0, said),
        between + quic.crypto(0, said[:40]) + quic.crypto(30, said[30:]),
        mixed,
        quic.close(b"", True) + quic.crypto(0, b"\1\0\2\0") + quic.crypto(1 << 30, b"x"),
        b"\x40\x06" + quic.varint(0, 8) + quic.varint(5, 4) + said[:5],
    ]
    heads = (b"\0\x39\xff", b"\1\x19\x1f", b"\6\xf9\x0b", b"\x0a\x20\x30")
    found = [head + body for head in heads for body in bodies]
    last = len(SEALED)
    found += [bytes([last - 2, 0x39, 255]) + quic.crypto(0, google, kind=8)]
    return [*found, bytes([last - 1, 0x39, 255]) + quic.crypto(0, said, kind=8)]


def check_google(raw: bytes) -> None:
    """Packets of Google's QUIC: a version, then frames."""
    tape = Tape(raw)
    which = tape.byte() % (len(CLEAR) + 1)
    payload = tape.rest()
    if which < len(CLEAR):
        payload = quic.google(CLEAR[which], payload)
    compare(timed([payload, payload[: len(payload) // 2], payload]), 1)


def google_seeds() -> list[bytes]:
    """Hellos with and without a name, whole and cut, behind other frames."""
    messages = (quic.chlo(pad=20), quic.chlo(None, 20), quic.chlo(b"a b", 5), quic.chlo()[:60])
    found = [
        bytes([version]) + quic.stream(message)
        for version in range(len(CLEAR))
        for message in messages
    ]
    found += [b"\3" + quic.stream(messages[0], offset=3), b"\3\7\0" + quic.stream(messages[0])]
    return [*found, bytes([len(CLEAR)]) + quic.google(b"Q043", quic.stream(messages[0]))]


STREAM_WORDS = (
    b"\x16\3\1", b"GET / HTTP/1.1\r\n", b"Host: a.example\r\n\r\n", b"\x14\3\3\0\1\1", PROXY_LINE,
    PROXY_SIGNED, b"Content-Length: 3, 3\r\n",
)  # fmt: skip
STREAMS = (
    Target("stage", check_stage, stage_seeds, 1200, STREAM_WORDS, 400),
    Target(
        "quic-datagrams", check_datagrams, datagram_seeds, 2500, (b"\0\0\0\1", b"\xc3\0\0\0\1"), 400
    ),
    Target("quic-frames", check_frames, frame_seeds, words=(b"\6\0", b"\2\0", b"\x1c\0"), runs=250),
    Target(
        "quic-google", check_google, google_seeds, 400, (b"CHLO", b"SNI\0", b"Q043", b"\xa0\1"), 700
    ),
)
