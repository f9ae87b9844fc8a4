"""All of classify against its twin: streams cut, swapped, lost, doubled and mixed, in any batches."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.classify.stage import Classify, Limits
from pipeline.model.batches import SessionBatch
from pipeline.model.columns import concat
from pipeline.model.faults import Fault, Skip
from pipeline.model.identifiers import Keys
from pipeline.model.stage import END_OF_TIME
from pipeline.model.tally import Tally
from pipeline.model.words import ParseFor, Protocol
from tests.classify import frames
from tests.classify.frames import ACK, FIN, RST, SYN, Packet
from tests.naive.flows import NaiveClassify
from tests.naive.headers import walk_headers
from tests.naive.streams import Row

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")  # without JIT
KEYS = Keys.from_seed("track")
SMALL = Limits(
    flows=2, idle_ns=10**9, holdings=2, unit_bytes=256, pieces=3, hold_ns=10**8, tries=3, repeats=2, names=4,
    block_bytes=60,
)  # fmt: skip

LIMITS = Limits()
WORDS = ("fault", "skip", "named", "lost", "given_up")


def end(hi: int, lo: int, port: int) -> tuple[str, int]:
    """An address and a port as the twin has them."""
    if hi == 0 and lo >> 32 == 0xFFFF:
        return str(ipaddress.IPv4Address(lo & 0xFFFFFFFF)), port
    return str(ipaddress.IPv6Address(hi << 64 | lo)), port


def rows_of(sessions: SessionBatch) -> list[Row]:
    """Sessions in the words of the twin."""
    return [
        Row(
            first_ns=int(sessions.first_ns[i]),
            number=int(sessions.packet_number[i]),
            watermark_ns=int(sessions.watermark_ns[i]),
            protocol=Protocol(sessions.protocol[i]).name.lower(),
            host=sessions.host.text(i),
            client=end(int(sessions.client_hi[i]), int(sessions.client_lo[i]), int(sessions.client_port[i])),
            server=end(int(sessions.server_hi[i]), int(sessions.server_lo[i]), int(sessions.server_port[i])),
            flags=int(sessions.flags[i]),
            realm=tuple(h & 0xFFF for h in divmod(int(sessions.realm[i]), 1 << 16) if h),
            method=int(sessions.method[i]),
            target=sessions.target[i],
            referer=sessions.referer[i],
            alpn=sessions.alpn[i],
        )
        for i in range(len(sessions))
    ]  # fmt: skip


def fast(
    packets: Sequence[Packet],
    limits: Limits,
    cuts: Sequence[int] = (),
    at_once: int = 1,
    snaplen: int = frames.SNAPLEN_MAX,
) -> tuple[list[Row], Counter[str], SessionBatch]:
    """What the kernels make of packets that are cut into batches."""
    classify = Classify(
        circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS, limits=limits, at_once=at_once
    )
    tally = Tally()
    found = [classify.push(b, tally) for b in frames.batches(packets, cuts, snaplen)]
    assert classify.held_rows >= 0
    found.append(classify.advance(END_OF_TIME, tally))
    assert classify.held_rows == 0
    words = Counter({w: n for (_, w), n in tally.counts.items() if w.startswith(WORDS)})
    sessions = concat(found)
    return rows_of(sessions), words, sessions


def slow(
    packets: Sequence[Packet], limits: Limits, snaplen: int = frames.SNAPLEN_MAX
) -> tuple[list[Row], Counter[str]]:
    """What the twin makes of them."""
    twin = NaiveClassify(limits)
    twin.push(
        (t, i + 1, walk_headers(raw[:snaplen], len(raw), 1)) for i, (t, raw) in enumerate(packets)
    )
    twin.finish()
    assert twin.held == 0
    words = Counter({f"fault:{Fault(f).name.lower()}": n for f, n in twin.faults.items() if n})
    words += Counter({f"lost_{why}": n for why, n in twin.lost.items() if why and n})
    words += Counter({f"skip:{Skip(s).name.lower()}": n for s, n in twin.skips.items() if n})
    return twin.rows, words + Counter(named=twin.named, given_up=twin.given_up)


def compare(
    packets: Sequence[Packet],
    limits: Limits = LIMITS,
    cuts: Sequence[int] = (),
    snaplen: int = frames.SNAPLEN_MAX,
) -> list[Row]:
    """Both, which must be equal; the rows."""
    found, words, _ = fast(packets, limits, cuts, snaplen=snaplen)
    expected, expected_words = slow(packets, limits, snaplen)
    assert found == expected
    assert words == expected_words
    return found


UNITS = st.one_of(
    st.builds(
        frames.client_hello,
        st.sampled_from(["shop.example", "news.example", None, "192.0.2.1", b"a b"]),
        padding=st.sampled_from([0, 0, 60, 97, 99, 101, 400]),
        sizes=st.lists(st.integers(1, 90), max_size=3),
        random=st.sampled_from([frames.RANDOM, frames.RANDOM[::-1]]),
    ),
    st.builds(frames.get, st.sampled_from(["shop.example", "News.Example:80", "", "a b"]), st.sampled_from(["/", "/x.js"])),
    st.builds(
        lambda body, more: b"POST /form HTTP/1.1\r\nHost: form.example\r\nContent-Length: %d\r\n\r\n" % (len(body) + more) + body,
        st.sampled_from([b"", b"a=b", frames.get("forged.example")]),
        st.sampled_from([0, 0, 0, 3, 2**31]),
    ),
    st.lists(st.sampled_from([b"chunk", frames.get("forged.example"), b"GET / HTTP/1.1\r\n"]), max_size=3).map(
        lambda chunks: b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: c.example\r\n\r\n"
        + b"".join(b"%x;x\r\n%s\r\n" % (len(c), c) for c in chunks)
        + b"0\r\nTrailer: x\r\n\r\n"
    ),
    st.builds(frames.get, st.just("chat.example"), st.just("/"), st.sampled_from(["Upgrade: websocket", "Upgrade: h2c"])),
    st.builds(
        frames.prior_knowledge,
        st.sampled_from([None, frames.request_block("shop.example", "/x.js"), frames.request_block(""), frames.request_block("a b"), b"\xff", b""]),
        st.sampled_from([1, 1, 3, 2]),
    ),
    st.sampled_from([frames.PREFACE, frames.PREFACE + frames.frame(0, 0, 1, b"x"), frames.PREFACE + frames.frame(1, 0, 1, frames.request_block()[:9])]),
    st.sampled_from([b"\x82\x85mask\0\0\0\0\0", b"A\xfe", b"\x41\x83mask\0\0\0"]),
    st.sampled_from([b"CONNECT shop.example:443 HTTP/1.1\r\n\r\n", b"CONNECT h2.example:80 HTTP/1.1\r\n\r\n"]),
    st.just(b"CONNECT shop.example:443 HTTP/1.1\r\nHost: proxy.example\r\n\r\n"),
    st.just(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"),
    st.sampled_from([b"\x14\x03\x03\x00\x01\x01", b"\r\n", b"EHLO mail.example\r\n", frames.server_hello(), b"HTTP/1.1 200 OK\r\n\r\n"]),
    st.binary(max_size=20),
)  # fmt: skip


@st.composite
def segments(draw) -> list[tuple[int, bytes]]:
    """A client's stream in segments (position, bytes): cut, overlapping, some changed, some lost."""
    stream = b"".join(draw(st.lists(UNITS, min_size=1, max_size=4)))
    edges = sorted({0, len(stream), *draw(st.lists(st.integers(0, len(stream)), max_size=6))})
    pieces = []
    for a, b in zip(edges, edges[1:], strict=False):
        back, ahead = draw(st.sampled_from([(0, 0), (0, 0), (5, 0), (0, 7), (300, 300)]))
        first, stop = max(a - back, 0), min(b + ahead, len(stream))
        raw = bytearray(stream[first:stop])
        if draw(st.integers(0, 15)) == 0 and raw:
            raw[draw(st.integers(0, len(raw) - 1))] ^= 1
        pieces.append((first, bytes(raw)))
    pieces += draw(st.lists(st.sampled_from(pieces), max_size=2)) if pieces else []
    kept = [p for p in pieces if draw(st.integers(0, 9))]
    return draw(st.permutations(kept)) if draw(st.booleans()) else kept


@st.composite
def conversations(draw) -> list[tuple[int, bytes]]:
    """Frames of one flow, with a time step before each."""
    ends = {
        "port": draw(st.sampled_from([50000, 50001, 50002])),
        "server_port": draw(st.sampled_from([443, 80])),
    }
    if draw(st.booleans()):
        ends |= {"client": frames.CLIENT6, "server": frames.SERVER6}
    isn = draw(st.sampled_from([0, 1000, 0xFFFFFFF0]))
    out: list[bytes] = []
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        name = draw(st.sampled_from([b"told.example", b"Other.Example", b"bad host"]))
        addresses = draw(st.lists(st.sampled_from([frames.SERVER, frames.SERVER6]), max_size=3))
        message = frames.dns_message(name, addresses)
        resolver = "2001:db8::53" if ":" in ends.get("client", "") else "203.0.113.53"
        out.append(frames.dns_answer(message, ends.get("client", frames.CLIENT), resolver))
    begin = draw(st.sampled_from(["syn", "syn", "syn", "syn-ack", "ack", "nothing"]))
    if begin == "syn":
        out.append(frames.tcp(seq=isn - 1, flags=SYN, **ends))
    if begin.startswith("syn"):
        out.append(frames.tcp(seq=7, ack=isn, flags=SYN | ACK, up=False, **ends))
    if begin == "ack":
        out.append(frames.tcp(seq=isn, ack=8, flags=ACK, up=draw(st.booleans()), **ends))
    stream = draw(segments())
    if draw(st.integers(0, 2)) == 0:  # another in its place
        stream = [*draw(segments()), *stream]
    for position, raw in stream:
        tags = draw(st.sampled_from([(), (), (7,), (7, 8)]))  # no part of what tells flows apart
        out.append(frames.tcp(raw, seq=isn + position, tags=tags, **ends))
        if draw(st.integers(0, 4)) == 0:
            answer = draw(
                st.sampled_from(
                    [
                        b"",
                        frames.server_hello(),
                        b"HTTP/1.1 200 OK\r\n\r\n",
                        frames.get("x.example"),
                    ]
                )
            )
            out.append(frames.tcp(answer, seq=8, ack=isn, up=False, **ends))
        if draw(st.integers(0, 9)) == 0:  # the ports are used again
            out.append(frames.tcp(flags=draw(st.sampled_from([FIN | ACK, RST])), **ends))
            isn = draw(st.sampled_from([isn, isn + 5000, isn + 2**21, isn - 2**30])) & 0xFFFFFFFF
            if draw(st.integers(0, 2)) == 0:
                out.append(frames.tcp(seq=7, ack=isn, flags=SYN | ACK, up=False, **ends))
    if draw(st.integers(0, 9)) == 0:
        out.append(frames.udp(draw(st.sampled_from([b"x", b"\xc0\0\0\0\1" + bytes(9)]))))
    steps = st.sampled_from(
        [0, 10**6, 10**6, 6 * 10**7, 2 * 10**8, 2 * 10**9, -(10**6), 6 * 10**9, 4 * 10**11]
    )
    return [(draw(steps), raw) for raw in out]  # fmt: skip


@st.composite
def traffic(draw) -> list[Packet]:
    """Conversations, mixed."""
    talks = draw(st.lists(conversations(), min_size=1, max_size=4))
    order = draw(st.permutations([n for n, talk in enumerate(talks) for _ in talk]))
    if draw(st.booleans()):
        order = sorted(order)
    streams = [iter(talk) for talk in talks]
    now, packets = 1_700_000_000_000_000_000, []
    for number in order:
        step, raw = next(streams[number])
        now += step
        packets.append((now, raw))
    return packets


CUTS = st.lists(st.integers(0, 60), max_size=8)
SNAPLENS = st.sampled_from([*[frames.SNAPLEN_MAX] * 4, 54, 62, 90, 150, 400])


@given(traffic(), CUTS, SNAPLENS)
def test_kernels_say_what_the_twin_says(packets, cuts, snaplen):
    compare(packets, cuts=cuts, snaplen=snaplen)


@given(traffic(), CUTS, SNAPLENS)
def test_so_they_do_when_everything_is_scarce(packets, cuts, snaplen):
    compare(packets, SMALL, cuts, snaplen)


@settings(max_examples=20)
@given(traffic())
def test_one_packet_at_a_time_is_the_same_as_all_at_once(packets):
    whole = fast(packets, SMALL)
    singly = range(len(packets))
    for cuts, at_once in ((singly, 1), (range(0, len(packets), 7), 1), (singly, 3), ((), 1000)):
        again = fast(packets, SMALL, cuts, at_once)
        assert again[:2] == whole[:2]
        assert (again[2].flow_id == whole[2].flow_id).all()
