"""What classify promises, one story each; most are told to the twin as well."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.classify.stage import Classify, Limits
from pipeline.model.batches import PacketBatch
from pipeline.model.columns import concat
from pipeline.model.faults import Fault
from pipeline.model.stage import END_OF_TIME
from pipeline.model.tally import Tally
from pipeline.model.words import Method, ParseFor, SessionFlag
from tests.classify import frames
from tests.classify.frames import ACK, SECOND_NS, SYN
from tests.classify.test_track import KEYS, SMALL, compare, fast, rows_of, slow

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")  # without JIT
START_NS = 1_700_000_000 * SECOND_NS
MILLISECOND_NS = 1_000_000
ISN = 0xFFFF_FC00  # so that every hello of a kilobyte wraps


def talk(
    *segments: bytes | tuple[int, bytes], isn: int = ISN, syn: bool = True, **ends
) -> list[bytes]:
    """Frames of a client: segments one after the other, or at a position of the stream."""
    out = [frames.tcp(seq=isn - 1, flags=SYN, **ends)] if syn else []
    position = 0
    for segment in segments:
        at, raw = segment if isinstance(segment, tuple) else (position, segment)
        out.append(frames.tcp(raw, seq=isn + at, **ends))
        position = at + len(raw)
    return out


def timed(raws: list[bytes], step_ns: int = MILLISECOND_NS) -> list[tuple[int, bytes]]:
    """Frames at equal steps."""
    return [(START_NS + n * step_ns, raw) for n, raw in enumerate(raws)]


def named(raws: list[bytes], limits: Limits = Limits(), step_ns: int = MILLISECOND_NS):  # noqa: B008
    """(protocol, host, flags) of what is found; told to the twin as well."""
    rows = compare(timed(raws, step_ns), limits)
    return [(row.protocol, row.host, SessionFlag(row.flags)) for row in rows]


NOTHING = SessionFlag(0)
HELLO = frames.client_hello("shop.example", padding=1300)


def halves(raw: bytes, at: int) -> list[tuple[int, bytes]]:
    """A stream in two segments."""
    return [(0, raw[:at]), (at, raw[at:])]


@pytest.mark.parametrize("cut", [1, 4, 5, 6, 8, 9, 700, 1400])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_hello_in_two_segments_in_either_order(cut, swapped):
    parts = halves(HELLO, cut)
    raws = talk(*(parts[::-1] if swapped else parts))
    assert named(raws) == [("tls", "shop.example", NOTHING)]
    (row,) = slow(timed(raws), Limits())[0]
    assert row.number == (3 if swapped else 2)  # the packet with the first byte
    assert row.first_ns == START_NS + (row.number - 1) * MILLISECOND_NS
    assert row.watermark_ns == START_NS + 2 * MILLISECOND_NS
    assert row.alpn == b"h2,http/1.1"


@given(st.permutations(range(8)), st.lists(st.integers(1, len(HELLO) - 1), min_size=7, max_size=7))
def test_segments_in_any_order_make_the_same_hello(order, cuts):
    edges = [0, *sorted(cuts), len(HELLO)]
    parts = [(a, HELLO[a:b]) for a, b in itertools.pairwise(edges)]
    rows, _, _ = fast(timed(talk(*(parts[n] for n in order))), Limits())
    assert [(r.protocol, r.host, r.alpn) for r in rows] == [("tls", "shop.example", b"h2,http/1.1")]


@given(st.lists(st.integers(1, 300), max_size=5), st.lists(st.integers(1, 1700), max_size=6))
def test_a_hello_cut_over_records_and_segments(sizes, cuts):
    raw = frames.client_hello("records.example", padding=1300, sizes=sizes)
    edges = [0, *sorted({c for c in cuts if c < len(raw)}), len(raw)]
    parts = [(a, raw[a:b]) for a, b in itertools.pairwise(edges)]
    rows, _, _ = fast(timed(talk(*parts)), Limits())
    assert [(r.protocol, r.host) for r in rows] == [("tls", "records.example")]


def test_of_overlapping_segments_the_first_wins_and_a_difference_is_told():
    true, false = frames.client_hello("true.example"), frames.client_hello("fake.example")
    at = true.index(b"true")
    for first, second in ((true, false), (false, true)):
        raws = talk((0, first[: at + 8]), (at - 5, second[at - 5 :]))
        host = "true.example" if first is true else "fake.example"
        assert named(raws) == [("tls", host, SessionFlag.UNRELIABLE)]
    _, words, _ = fast(timed(talk((5, true[5:]), (0, false[:40]), (0, true))), Limits())
    assert words["fault:overlap_disagrees"] == (true[5:40] != false[5:40])


def test_bytes_sent_again_are_passed_over():
    raws = talk(
        (0, HELLO[:900]), (0, HELLO[:900]), (900, HELLO[900:]), (900, HELLO[900:]), (0, HELLO[:900])
    )
    assert named(raws) == [("tls", "shop.example", NOTHING)]


def test_a_lost_segment_costs_one_hello_and_no_more():
    lost = talk((0, HELLO[:500]), (1000, HELLO[1000:]), port=1)
    later = talk(frames.client_hello("later.example"), port=2)
    packets = timed(lost) + [
        (START_NS + 9 * SECOND_NS + t, raw) for t, raw in [(0, later[0]), (1, later[1])]
    ]
    compare(packets)
    rows, words, _ = fast(packets, Limits())
    assert [r.host for r in rows] == ["later.example"]
    assert words["fault:hello_incomplete"] == 1
    assert words["skip:held"] == 2


def test_a_request_behind_a_lost_segment_is_found_when_the_gap_is_given_up():
    request = frames.get("behind.example")
    packets = timed(talk((700, request)))
    packets.append((START_NS + Limits().hold_ns + SECOND_NS, frames.udp(b"x")))
    rows = compare(packets)
    assert [(r.host, r.number, SessionFlag(r.flags)) for r in rows] == [
        ("behind.example", 2, SessionFlag.MIDSTREAM | SessionFlag.DOCUMENT)
    ]
    assert rows[0].watermark_ns == START_NS + Limits().hold_ns + MILLISECOND_NS


@pytest.mark.parametrize(
    ("segments", "fault"),
    [
        ([(0, b"\x16\x03\x01\x01\x00\x01\x00\x40\x00")], Fault.HELLO_TOO_LONG),
        ([(0, b"GET / HTTP/1.1\r\nA: " + b"a" * 300)], Fault.HEAD_TOO_LONG),
        ([(0, b"GET / HT"), (8, b"TP/1.1\r\nA: " + b"a" * 300)], Fault.HEAD_TOO_LONG),
        ([(20, b"a"), (40, b"b"), (60, b"c"), (80, b"d")], Fault.SEGMENTS_EXHAUSTED),
        ([(9000, b"far away")], Fault.STREAM_GAP),
    ],
)
def test_what_is_held_is_bounded_and_counted(segments, fault):
    packets = timed(talk(*segments))
    compare(packets, SMALL)
    assert fast(packets, SMALL)[1][f"fault:{fault.name.lower()}"] == 1


def test_when_every_holding_is_taken_the_next_is_not_held():
    limits = Limits(flows=8, holdings=2)
    raws = [f for port in range(3) for f in talk((0, HELLO[:700]), port=port)]
    compare(timed(raws), limits)
    assert fast(timed(raws), limits)[1]["fault:segments_exhausted"] == 1


def test_a_cut_payload_is_never_read_as_whole():
    raw = frames.tcp(HELLO, seq=ISN)
    batch = frames.batch([(0, talk()[0]), (1, raw[:-400])])
    batch = batch.with_columns(wire_length=np.array([54, len(raw)], np.uint32))
    tally = Tally()
    classify = Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS)
    assert len(classify.push(batch, tally)) == 0
    assert tally.starting("fault") == {"payload_cut": 1}


def test_ports_used_again_are_another_flow():
    raws = [
        *talk(frames.client_hello("one.example"), isn=100),
        *talk(frames.client_hello("two.example"), isn=9000),
    ]
    assert named(raws) == [("tls", "one.example", NOTHING), ("tls", "two.example", NOTHING)]
    _, _, sessions = fast(timed(raws), Limits())
    assert sessions.flow_id[0] != sessions.flow_id[1]


def test_a_flow_that_was_idle_for_long_is_another_one():
    raws = talk(frames.get("one.example"), frames.get("one.example"))
    assert [f for _, _, f in named(raws, step_ns=200 * SECOND_NS)] == [
        SessionFlag.DOCUMENT,
        SessionFlag.DOCUMENT | SessionFlag.REPEAT,
    ]
    (first, again) = named(raws, step_ns=301 * SECOND_NS)
    assert SessionFlag.REPEAT not in again[2]
    assert first[1] == again[1]


def test_a_hello_after_a_retry_request_is_a_repeat():
    again = b"\x14\x03\x03\x00\x01\x01" + frames.client_hello("shop.example", padding=40)
    assert named(talk(HELLO, again)) == [
        ("tls", "shop.example", NOTHING),
        ("tls", "shop.example", SessionFlag.REPEAT),
    ]


@pytest.mark.parametrize("first", [0, 1])
def test_two_names_at_one_place_of_a_flow_are_unreliable(first):
    hellos = [frames.client_hello("decoy.example"), frames.client_hello("shop.example")]
    raws = talk((0, hellos[first]), (0, hellos[1 - first]), (0, hellos[first]))
    flags = [f for _, _, f in named(raws)]
    assert flags == [NOTHING, SessionFlag.UNRELIABLE]


def test_several_requests_of_a_connection_and_their_bodies():
    forged = frames.get("forged.example")
    post = b"POST / HTTP/1.1\r\nHost: form.example\r\nContent-Length: %d\r\n\r\n" % len(forged)
    stream = (
        post
        + forged
        + frames.get("one.example")
        + frames.get("two.example")
        + frames.get("one.example")
    )
    expected = [
        ("http", "form.example", NOTHING),
        ("http", "one.example", SessionFlag.DOCUMENT),
        ("http", "two.example", SessionFlag.DOCUMENT),
        ("http", "one.example", SessionFlag.DOCUMENT | SessionFlag.REPEAT),
    ]
    for cuts in ([], [len(post)], [10, len(post) + 5], [len(post) + len(forged) + 3]):
        edges = [0, *cuts, len(stream)]
        parts = [(a, stream[a:b]) for a, b in itertools.pairwise(edges)]
        assert named(talk(*parts)) == expected
        assert named(talk(*parts[::-1])) == expected


def test_a_body_is_passed_over_even_where_it_was_not_captured():
    post = b"POST / HTTP/1.1\r\nHost: form.example\r\nContent-Length: 5000\r\n\r\n"
    raws = talk(
        (0, post),
        (len(post) + 1000, frames.get("forged.example")),
        (len(post) + 5000, frames.get("next.example")),
    )
    assert [h for _, h, _ in named(raws)] == ["form.example", "next.example"]


def test_chunks_are_walked_over():
    forged = frames.get("forged.example")
    chunked = b"POST / HTTP/1.1\r\nHost: form.example\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"%x\r\n%s\r\n0\r\nX: y\r\n\r\n" % (len(forged), forged)
    stream = chunked + body + frames.get("next.example")
    for size in (len(stream), 50, 9):
        parts = [stream[n : n + size] for n in range(0, len(stream), size)]
        assert [h for _, h, _ in named(talk(*parts))] == ["form.example", "next.example"]


@pytest.mark.parametrize("length", ["5, 6", "-1", "99999999999", "x"])
def test_after_a_body_of_unknown_length_nothing_is_read(length):
    post = f"POST / HTTP/1.1\r\nHost: form.example\r\nContent-Length: {length}\r\n\r\n".encode()
    raws = talk(post, frames.get("forged.example"))
    assert [h for _, h, _ in named(raws)] == ["form.example"]
    assert fast(timed(raws), Limits())[1]["skip:flow_done"] == 1


def test_what_is_inside_a_tunnel_begins_anew():
    connect = b"CONNECT shop.example:443 HTTP/1.1\r\nHost: shop.example:443\r\n\r\n"
    assert named(talk(connect, HELLO[:800], HELLO[800:])) == [
        ("http", "shop.example", NOTHING),
        ("tls", "shop.example", NOTHING),
    ]


def test_the_host_is_that_of_its_target_else_of_its_header():
    raws = talk(
        b"GET http://user@Absolute.example:8080/x HTTP/1.1\r\n\r\n",
        b"GET http://other.example/ HTTP/1.1\r\nHost: header.example.:80\r\n\r\n",
        b"GET http://a_b!.example/ HTTP/1.1\r\nHost: well.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        server_port=12345,
    )
    assert [(h, SessionFlag.UNRELIABLE in f) for _, h, f in named(raws)] == [
        ("absolute.example", False),
        ("other.example", True),
        ("well.example", True),
        ("2001:db8::1", False),
    ]
    proxied = talk(b"CONNECT 192.0.2.7:443 HTTP/1.1\r\nHost: header.example:443\r\n\r\n")
    assert [(h, SessionFlag.UNRELIABLE in f) for _, h, f in named(proxied)] == [
        ("header.example", True)
    ]
    rows = rows_of(fast(timed(raws), Limits())[2])
    assert rows[0].target == b"http://user@Absolute.example:8080/x"
    assert rows[0].method == Method.GET


def test_any_port_will_do_and_neither_beginning_nor_server_is_needed():
    raws = [
        *talk(frames.client_hello("a.example"), syn=False, port=1, server_port=25),
        *talk(frames.get("b.example"), syn=False, port=2, server_port=6000),
        *talk(
            b"EHLO mail.example\r\n",
            b"STARTTLS\r\n",
            frames.client_hello("c.example"),
            port=3,
            server_port=587,
        ),
        frames.tcp(seq=1, ack=50, flags=SYN | ACK, up=False, port=4),
        *talk((50, frames.client_hello("d.example")), isn=0, syn=False, port=4),
    ]
    midstream = SessionFlag.MIDSTREAM
    assert named(raws) == [
        ("tls", "a.example", midstream),
        ("http", "b.example", midstream | SessionFlag.DOCUMENT),
        ("tls", "c.example", NOTHING),
        ("tls", "d.example", NOTHING),
    ]


def test_a_server_is_no_client():
    raws = [
        frames.tcp(frames.server_hello(), seq=5, up=False),
        frames.tcp(frames.get("forged.example"), seq=99, up=False),
        frames.tcp(frames.client_hello("true.example"), seq=7),
    ]
    assert [h for _, h, _ in named(raws)] == ["true.example"]
    assert fast(timed(raws), Limits())[1]["skip:not_a_client"] == 2


@pytest.mark.parametrize("name", [b"a b", b"a..b", b"\xff.example", b"a" * 300])
def test_a_server_name_that_is_none_is_counted(name):
    raws = talk(frames.client_hello(name))
    assert named(raws) == []
    assert fast(timed(raws), Limits())[1]["fault:sni_bad"] == 1


@pytest.mark.parametrize("name", [b"192.0.2.7", b"2001:db8::1", b"[2001:db8::1]:443"])
def test_an_address_for_a_server_name_is_told_as_it_stands(name):
    host = name.decode().replace("[", "").split("]")[0]
    assert named(talk(frames.client_hello(name))) == [("tls", host, NOTHING)]


def back(payload, seq, port=40000):
    """What the side says that the connection was opened to."""
    ends = {"client": frames.SERVER, "server": frames.CLIENT, "port": 443, "server_port": port}
    return frames.tcp(payload, seq=seq, **ends)


@pytest.mark.parametrize("asked", [frames.get("shop.example"), HELLO])
def test_who_was_called_may_be_the_one_who_asks(asked):
    """A proxy that is called from inside: what it is told to fetch comes against the connection."""
    raws = [*talk(b"\x4e\x5a\x8d"), back(b"\x05\x01\x00", 0), back(asked, 3)]
    (row,) = compare(timed(raws))
    assert (row.host, row.server) == ("shop.example", (frames.CLIENT, 40000))
    assert row.flags & SessionFlag.MIDSTREAM


@pytest.mark.parametrize(
    "greeting",
    [b"220 mail.example ESMTP\r\n", b"NOTICE AUTH :hello\r\n", b"HELLO there HTTP/2.0\r\n",
     b"GET / HTTP/1.1", b"HTTP/1.1 200 OK\r\n\r\n"],
)  # fmt: skip
def test_a_server_that_speaks_first_is_no_client(greeting):
    raws = talk(frames.get("shop.example"))
    rows = compare(timed([raws[0], back(greeting, 0, 1), back(greeting, 0), *raws[1:]]))
    assert [(row.host, row.server) for row in rows] == [("shop.example", (frames.SERVER, 443))]


def test_names_are_cleaned():
    raws = [
        *talk(frames.client_hello(b"Shop.Example."), port=1),
        *talk(frames.client_hello(b"shop_1.example:443"), port=2),
        *talk(b"GET / HTTP/1.1\r\nhOsT:\t NEWS.example:8080 \r\n\r\n", port=3),
    ]
    assert [h for _, h, _ in named(raws)] == ["shop.example", "shop_1.example", "news.example"]


@pytest.mark.parametrize("size", [65_536, 65_556, 200_000, 262_000])
def test_a_packet_of_any_size_writes_no_more_than_there_is_room_for(size):
    request = b"GET a://b HTTP/1.1\n\n"  # the shortest that names a host
    raw = (request * (size // len(request) + 1))[:size]
    classify = Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS)
    tally = Tally()
    packets = timed([*talk(raw), *talk(request, port=2)])
    found = classify.push(frames.batch(packets), tally)
    taken = min(size, 65_536) // len(request)
    assert found.host.to_list() == ["b"] * (taken + 1)
    assert tally.starting("fault").get("payload_cut", 0) == (size > 65_536)
    compare(packets)


def test_a_long_target_is_cut_with_its_packet():
    raw = b"GET /" + b"a" * 250_000 + b" HTTP/1.1\r\nHost: a.example\r\n\r\n"
    found = named([*talk(raw), *talk(frames.client_hello("b.example"), port=2)])
    assert [host for _, host, _ in found] == ["b.example"]


def test_quic_is_counted_apart_and_udp_makes_flows():
    initial = b"\xc3\xff\x00\x00\x10\x08" + bytes(1200)  # of draft 16
    raws = [frames.udp(initial), frames.udp(b"plain"), frames.udp(initial, port=2)]
    compare(timed(raws))
    classify = Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS)
    tally = Tally()
    classify.push(frames.batch(timed(raws)), tally)
    assert tally.starting("skip") == {"quic_unread": 2, "udp": 1}
    assert classify.counts.flows == {"tcp": 0, "udp": 2}


def test_counts_are_of_both_directions():
    raws = [
        *talk(frames.get("a.example"), frames.get("a.example")),
        frames.tcp(b"HTTP/1.1 200 OK\r\n", seq=9, up=False),
    ]
    classify = Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS)
    classify.push(frames.batch(timed(raws)), Tally())
    counts = classify.counts
    assert (counts.packets, counts.bytes) == (4, sum(map(len, raws)))
    assert counts.flows == {"tcp": 1, "udp": 0}
    assert counts.sessions == {"http": 1, "tls": 0, "quic": 0}


def test_the_oldest_flow_leaves_a_full_table_and_whoever_was_seen_since_stays():
    ports = [1, 2, 1, 3]  # 1 is seen again before the third comes
    raws = [frames.tcp(seq=9, flags=SYN, port=port) for port in ports]
    raws += talk(frames.get("stays.example"), syn=False, isn=10, port=1)
    limits = Limits(flows=2)
    (row,) = compare(timed(raws), limits)
    assert row.flags == SessionFlag.DOCUMENT  # its beginning is still known
    assert fast(timed(raws), limits)[1]["fault:flows_exhausted"] == 1


def test_thousands_of_flows_make_the_table_grow_and_none_is_lost():
    raws = [f for n in range(6000) for f in talk(frames.get(f"h{n}.example"), port=n)]
    rows = compare(timed(raws), cuts=[100, 5000])
    assert len(rows) == 6000


def test_more_rows_than_there_is_room_for_are_taken_out_in_between():
    request = frames.get("a.example", "/" + "x" * 40)
    one = b"".join(frames.get(f"{n}.example") for n in range(900))
    rows = compare(timed(talk(*[one] * 5, *[request] * 50)))
    assert len(rows) == 5 * 900 + 50


def test_held_bytes_are_wiped():
    request = frames.get("shop.example", "/", "Cookie: secret=canary")
    classify = Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS)
    raws = talk(request[:50], request[50:])
    classify.push(frames.batch(timed(raws[:2])), Tally())
    assert b"Host" in classify.snapshot()["memory"].tobytes()
    sessions = classify.push(frames.batch(timed(raws)[2:], 3), Tally())
    assert sessions.host.to_list() == ["shop.example"]
    assert b"canary" not in classify.snapshot()["memory"].tobytes()


@given(st.integers(1, 12), st.booleans())
def test_a_snapshot_goes_on_where_it_was_taken(cut, small):
    limits = SMALL if small else Limits()
    raws = [
        *talk((500, HELLO[500:]), (0, HELLO[:500])),
        *talk(frames.get("a.example")[:30], frames.get("a.example")[30:], port=9),
    ]
    raws = [raw for pair in itertools.zip_longest(raws[:4], raws[3:]) for raw in pair if raw]
    packets = timed(raws)
    cut = min(cut, len(packets))
    whole = fast(packets, limits)
    one = Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS, limits=limits)
    other = Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS, limits=limits)
    tally = Tally()
    found = [one.push(frames.batch(packets[:cut]), tally)]
    other.restore(one.snapshot())
    if packets[cut:]:
        found.append(other.push(frames.batch(packets[cut:], cut + 1), tally))
    found.append(other.advance(END_OF_TIME, tally))
    assert rows_of(concat(found)) == whole[0]
    assert other.counts.packets == len(packets)


def test_time_that_passes_without_packets_gives_up_what_is_held():
    classify = Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS)
    tally = Tally()
    classify.push(frames.batch(timed(talk((0, HELLO[:700])))), tally)
    assert classify.held_rows == 1
    classify.advance(START_NS + Limits().hold_ns, tally)
    assert classify.held_rows == 1
    classify.advance(START_NS + Limits().hold_ns + SECOND_NS, tally)
    assert classify.held_rows == 0
    assert tally.of("fault:hello_incomplete") == 1


def test_a_session_tells_its_realm_and_a_flow_is_one_whatever_its_tags():
    hello = frames.client_hello("shop.example")
    packets = [
        (1, frames.tcp(seq=0, flags=SYN, tags=(5, 6))),
        (2, frames.tcp(seq=9, ack=1, flags=SYN | ACK, up=False)),
        (3, frames.tcp(hello[:40], seq=1, tags=(5, 6))),
        (4, frames.tcp(hello[40:], seq=41, tags=(5, 6, 7))),
    ]
    batch = frames.batch(packets)
    stage = Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS)
    (realm,) = stage.push(batch, Tally()).realm.tolist()
    assert realm == 0x1005_1006
    assert stage.counts.flows == {"tcp": 1, "udp": 0}
    stripped = batch.with_columns(stripped_vlan=np.full(len(batch), 9, np.int32))
    stage = Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS)
    assert stage.push(stripped, Tally()).realm.tolist() == [0x1009_1005]


def test_sessions_wait_until_there_are_enough_whatever_their_sources():
    def request(number: int, source_id: int) -> PacketBatch:
        raw = frames.tcp(frames.get(f"h{number}.example"), port=number)
        return frames.batch([(START_NS + number, raw)], number).with_columns(source_id=source_id)

    stage = Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS, at_once=3)
    tally, found = Tally(), []
    for number, source_id in enumerate([7, 8, 7, 7, 8], start=1):
        sessions = stage.push(request(number, source_id), tally)
        found.append((sessions.host.to_list(), sessions.source_id.tolist()))
    hosts = ["h1.example", "h2.example", "h3.example"]
    assert found == [([], []), ([], []), (hosts, [7, 8, 7]), ([], []), ([], [])]
    assert tally.of("packets") == 3, "of those that wait nobody was told"
    sessions = stage.take(tally)
    assert sessions.host.to_list() == ["h4.example", "h5.example"]
    assert sessions.source_id.tolist() == [7, 8]
    assert tally.of("packets") == 5
    assert len(stage.take(tally)) == 0
    stage.push(request(6, 8), tally)
    assert stage.advance(END_OF_TIME, tally).host.to_list() == ["h6.example"]


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("cloudflare-ech.com", SessionFlag.HIDDEN),
        ("Cover.DEFO.ie", SessionFlag.HIDDEN),
        ("tls-ech.dev", SessionFlag.HIDDEN),
        ("cloudflare-ech.co", NOTHING),
        ("cloudflare-ech.comm", NOTHING),
        ("defo.i", NOTHING),
        ("efo.ie", NOTHING),
        ("shop.example", NOTHING),
    ],
)
def test_a_name_behind_which_others_hide_is_marked(name, flag):
    raws = talk(frames.client_hello(name))
    assert named(raws) == [("tls", name.lower(), flag)]
    assert fast(timed(raws), Limits())[1]["named"] == 1


def test_a_host_of_a_request_hides_nobody():
    assert named(talk(frames.get("tls-ech.dev"))) == [("http", "tls-ech.dev", SessionFlag.DOCUMENT)]
