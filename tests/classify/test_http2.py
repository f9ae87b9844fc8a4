"""HTTP/2 in clear: frames and header blocks against the twin, and what becomes of connections."""

from __future__ import annotations

import itertools
import subprocess
import sys

import hpack
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.classify import http2
from pipeline.classify import http2_kernels as kernels
from pipeline.classify.stage import Classify, Limits
from pipeline.classify.state_kernels import HEAD
from pipeline.classify.tls_kernels import BAD, NOT_YET, TOO_LONG, WHOLE
from pipeline.classify.units_kernels import BLOCK_COST
from pipeline.kernels.compile import kernel, records
from pipeline.model.faults import Fault
from pipeline.model.stage import END_OF_TIME
from pipeline.model.tally import Tally
from pipeline.model.words import Method, ParseFor, SessionFlag
from tests.classify import frames
from tests.classify.frames import END_HEADERS, PADDED, PREFACE, PRIORITY, block, request_block
from tests.classify.test_stage import MILLISECOND_NS, NOTHING, START_NS, named, talk, timed
from tests.classify.test_track import KEYS, SMALL, compare, fast
from tests.naive import http2 as naive
from tests.need import REPOSITORY

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")  # without JIT
OUTCOMES = {NOT_YET: naive.NOT_YET, BAD: naive.BAD, TOO_LONG: naive.TOO_LONG}
KEY = (np.uint64(1), np.uint64(2))
DOCUMENT = SessionFlag.DOCUMENT
BLOCK = request_block("shop.example", "/offer", "GET", ("cookie", "secret=canary"))


@kernel
def read(data, start, stop, longest, head, target):
    outcome = kernels.read_frame(data, start, stop, longest, head[0])
    size = 0
    if outcome == WHOLE and head[0].body_length != kernels.NO_BLOCK:
        size = kernels.copy_block(data, start, head[0], target, 0)
    return outcome, size


@kernel
def starts(data, start, stop):
    return kernels.starts_preface(data, start, stop)


def reading(raw: bytes, longest: int) -> tuple[int, bytes | None] | str:
    """What the kernel reads, in the words of the twin."""
    data = np.frombuffer(b"\xee\xee\xee" + raw + frames.frame(9, 4, 1, b"more"), np.uint8)
    found, target = records(HEAD, 1), np.zeros(len(raw), np.uint8)
    outcome, size = read(data, 3, 3 + len(raw), longest, found, target)
    if outcome != WHOLE:
        return OUTCOMES[outcome]
    length = int(found[0]["body_length"])
    assert size == max(length, 0)
    content = None if length == kernels.NO_BLOCK else target[:size].tobytes()
    return int(found[0]["stop"]) - 3, content


@st.composite
def some_frames(draw) -> bytes:
    """Frames in an order that a client may send, or nearly; then a byte or a length is changed."""
    out = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from([1, 1, 1, 9, 9, 9, 4, 8, 2, 6, 0, 5, 77]))
        flags = draw(st.sampled_from([0, 4, 8, 12, 32, 36, 44, 40, 255]))
        stream = draw(st.sampled_from([1, 1, 1, 1, 3, 0, 2, 1 | 1 << 31]))
        payload = draw(
            st.one_of(
                st.binary(max_size=12),
                st.sampled_from([b"", b"\x02x\0\0", b"\x09" * 6, bytes(300)]),
            )
        )
        out.append(frames.frame(kind, flags, stream, payload))
    raw = bytearray(b"".join(out))
    if draw(st.integers(0, 3)) == 0:
        raw[draw(st.integers(0, 2))] = draw(st.integers(0, 255))
    return bytes(raw[: draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))])  # fmt: skip


@given(st.one_of(some_frames(), st.binary(max_size=30)), st.sampled_from([5, 64, 1 << 14]))
@example(frames.frame(1, END_HEADERS | PADDED, 1, b""), 64)
@example(frames.frame(1, END_HEADERS | PADDED, 1, b"\x01"), 64)
@example(frames.frame(1, END_HEADERS | PADDED | PRIORITY, 1, b"\x01" + bytes(6)), 64)
@example(frames.frame(1, END_HEADERS | PRIORITY, 1, bytes(4)), 64)
@example(frames.frame(1, END_HEADERS, 1, bytes(16384)), 1 << 14)
@example(frames.frame(4, 0, 0, bytes(16385)), 1 << 14)
def test_frames_equal_the_twin(raw, longest):
    assert reading(raw, longest) == naive.read_frame(raw, longest)


@given(some_frames(), st.data())
def test_a_part_of_a_frame_with_a_block_is_not_read(raw, data):
    whole = naive.read_frame(raw, 1 << 14)
    if isinstance(whole, tuple) and whole[1] is not None:
        part = raw[: data.draw(st.integers(0, whole[0] - 1))]
        assert reading(part, 1 << 14) == naive.NOT_YET


@given(st.integers(0, 30), st.one_of(st.none(), st.integers(0, 23)))
def test_a_preface_is_one_to_its_last_byte(size, changed):
    raw = bytearray(PREFACE + b"more..")[:size]
    if changed is not None and changed < size:
        raw[changed] ^= 1
    data = np.frombuffer(b"P" + raw + PREFACE, np.uint8)
    right = size > 0 and (changed is None or changed >= size)
    assert starts(data, 1, 1 + size) == right


# Header blocks.

NAMES = st.sampled_from([
    ":method", ":method", ":path", ":path", ":authority", ":authority", ":scheme", ":protocol", ":status", "host", "Host",
    "accept", "referer", "sec-fetch-dest", "x-requested-with", "purpose", "sec-purpose", "x-moz", "cookie", "",
])  # fmt: skip
VALUES = st.sampled_from([
    "GET", "POST", "CONNECT", "get", "G", "/", "*", "/a.js?x", "/a b", "a b", "shop.example", "Shop.Example:8080", "", ".",
    "[2001:db8::1]:80", "192.0.2.1", "text/html", "*/*", "document", "empty", "prefetch", " x", "x\t", "x\ny", "x\0", "x\r\nHost: y",
    "http://other.example/", "/ä", "user@shop.example", "a" * 300,
])  # fmt: skip
WELL = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "shop.example")]


@st.composite
def blocks(draw) -> bytes:
    """Header blocks, many of them of requests, some broken."""
    fields = [f for f in WELL if draw(st.integers(0, 9))]
    fields += draw(st.lists(st.tuples(NAMES, VALUES), max_size=4))
    raw = bytearray(
        hpack.Encoder().encode(draw(st.permutations(fields)), huffman=draw(st.booleans()))
    )
    if draw(st.integers(0, 3)) == 0 and raw:
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    return bytes(raw[: draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))])


def opened(raw: bytes) -> naive.Request | Fault:
    """What is found in a block, in the words of the twin."""
    found = http2.open_block(raw, KEY)
    if isinstance(found, Fault):
        return found
    return naive.Request(
        host=found.host.decode(),
        target=found.target,
        method=found.method,
        referer=found.referer,
        hosts_differ=bool(found.flags & SessionFlag.UNRELIABLE),
        document=bool(found.flags & DOCUMENT),
    )


@given(st.one_of(blocks(), st.binary(max_size=60)))
@example(block(*WELL, ("host", "")))
@example(block(*WELL, ("host", "SHOP.example")))
@example(block(*WELL, ("host", "shop.example:80")))
@example(block(*WELL[:3], ("host", "shop.example")))
@example(block(*WELL[:3], (":authority", ""), ("host", ""), ("host", "shop.example")))
@example(block((":method", "CONNECT"), (":authority", "shop.example:443")))
@example(
    block(
        (":method", "CONNECT"),
        (":authority", "a.example"),
        (":path", "/"),
        (":protocol", "websocket"),
    )
)
@example(block((":method", "CONNECT"), ("host", "shop.example")))
def test_header_blocks_equal_the_twin(raw):
    assert opened(raw) == naive.read_request(raw)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (WELL, ("shop.example", False, True)),
        ([*WELL[:3], ("host", "Shop.example.")], ("shop.example", False, True)),
        ([*WELL, ("host", "other.example")], ("shop.example", True, True)),
        ([*WELL, ("accept", "image/avif")], ("shop.example", False, False)),
        ([*WELL, ("sec-fetch-dest", "script")], ("shop.example", False, False)),
        (WELL[:3], Fault.HEAD_BAD),  # RFC 9113, 8.3.1: it must name its authority
        ([*WELL, (":authority", "other.example")], Fault.HEAD_BAD),
        ([*WELL, (":status", "200")], Fault.HEAD_BAD),
        ([*WELL, ("referer", "x\r\nHost: forged.example")], Fault.HEAD_BAD),
        ([(":path", "http://forged.example/"), *WELL[:2], WELL[3]], Fault.HEAD_BAD),
        ([*WELL[:3], (":authority", "a b")], Fault.HOST_BAD),
    ],
)  # fmt: skip
def test_what_a_request_says(fields, expected):
    found = opened(block(*fields))
    if isinstance(found, naive.Request):
        found = (found.host, found.hosts_differ, found.document)
    assert found == expected


def test_a_start_does_not_wait_for_the_library():
    code = "import sys, pipeline.run.inspect, pipeline.run.replay; sys.exit('hpack' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def bomb(entries: int) -> bytes:
    """A block that becomes large: one long field, then references to it."""
    return block(*WELL, ("cookie-x", "a" * 3900)) + b"\xbe" * entries


def test_a_block_that_becomes_large_is_bad():
    assert isinstance(opened(bomb(7)), naive.Request)
    assert opened(bomb(8)) == Fault.HEAD_BAD
    assert opened(bomb(16000)) == Fault.HEAD_BAD
    raised = b"\x3f\xe1\xff\x03"  # a table of 64 KiB, as a server may have allowed
    assert isinstance(opened(raised + block(*WELL)), naive.Request)
    assert opened(b"\x3f\xe2\xff\x03" + block(*WELL)) == Fault.HEAD_BAD


# Connections.


def story(raws: list[bytes], limits: Limits = Limits()):  # noqa: B008
    """(host, target, flags) of what is found, and the faults; told to the twin as well."""
    rows = compare(timed(raws), limits)
    words = fast(timed(raws), limits)[1]
    faults = {word[6:]: n for word, n in words.items() if word.startswith("fault")}
    return [(r.host, r.target.decode(), SessionFlag(r.flags)) for r in rows], faults


FOUND = ([("shop.example", "/offer", DOCUMENT)], {})


def test_a_connection_with_prior_knowledge_is_named_by_its_first_request():
    more = frames.frame(1, END_HEADERS, 3, request_block("second.example"))
    fields = [("referer", "http://from.example/"), ("accept", "text/html")]
    raws = talk(
        frames.prior_knowledge(request_block("shop.example", "/x", "POST", *fields)) + more, more
    )
    (row,) = compare(timed(raws))
    assert (row.protocol, row.host, row.target) == ("http", "shop.example", b"/x")
    assert (row.method, row.referer, row.flags) == (Method.POST, b"http://from.example/", 0)
    words = fast(timed(raws), Limits())[1]
    assert (words["named"], words["skip:flow_done"], words["skip:no_payload"]) == (1, 1, 1)


def test_sessions_are_counted_when_their_block_is_open():
    raws = [
        *talk(frames.prior_knowledge(), port=1),
        *talk(frames.prior_knowledge(b"\xff"), port=2),
        *talk(frames.get("a.example"), port=3),
    ]
    stage, tally = Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS), Tally()
    found = stage.push(frames.batch(timed(raws)), tally)
    assert found.host.to_list() == ["h2.example", "a.example"]
    assert found.source_id.tolist() == [3, 3]
    assert stage.counts.sessions["http"] == len(found) == tally.of("sessions:http")
    assert tally.starting("fault") == {"head_bad": 1}


@pytest.mark.parametrize("seen", [True, False])
@given(cuts=st.lists(st.integers(1, 250), max_size=6), order=st.randoms())
def test_segments_in_any_order_name_the_same(seen, cuts, order):
    raw = frames.prior_knowledge(BLOCK, 1, (2, 0, 3, bytes(5)), (99, 0, 0, bytes(40)))
    edges = [0, *sorted({c for c in cuts if c < len(raw)}), len(raw)]
    parts = [(a, raw[a:b]) for a, b in itertools.pairwise(edges)]
    if seen:
        order.shuffle(parts)
    elif len(parts[0][1]) < 6:
        return  # too few to tell where the beginning was not seen
    rows, words, _ = fast(timed(talk(*parts, syn=seen)), Limits())
    assert [(r.host, r.target) for r in rows] == [("shop.example", b"/offer")]
    assert not [w for w in words if w.startswith("fault")]


@pytest.mark.parametrize(
    "parts",
    [
        [(1, 0, 1, BLOCK[:5]), (9, 0, 1, b""), (9, 0, 1, BLOCK[5:9]), (9, END_HEADERS, 1, BLOCK[9:])],
        [(1, END_HEADERS | PADDED, 1, b"\x07" + BLOCK + bytes(7))],
        [(1, END_HEADERS | PRIORITY, 1, bytes(5) + BLOCK)],
        [(1, PADDED | PRIORITY, 9, b"\x02" + bytes(5) + BLOCK[:7] + bytes(2)), (9, END_HEADERS, 9, BLOCK[7:])],
        [(4, 1, 0, b""), (6, 0, 0, bytes(8)), (1, END_HEADERS, 5, BLOCK)],
    ],
)  # fmt: skip
def test_a_block_may_lie_in_several_frames_with_padding_and_priority(parts):
    raw = PREFACE + b"".join(frames.frame(*part) for part in parts)
    assert story(talk(raw)) == FOUND
    assert story(talk(*(raw[i : i + 40] for i in range(0, len(raw), 40)))) == FOUND


@pytest.mark.parametrize(
    "parts",
    [
        [(1, 0, 1, BLOCK[:5]), (9, END_HEADERS, 3, BLOCK[5:])],  # of another stream
        [(1, 0, 1, BLOCK[:5]), (4, 0, 0, b""), (9, END_HEADERS, 1, BLOCK[5:])],
        [(9, END_HEADERS, 1, BLOCK)],
        [(1, END_HEADERS | PADDED, 1, b"\xff" + BLOCK)],  # more padding than frame
        [(1, END_HEADERS | PADDED, 1, b"")],
        [(1, END_HEADERS | PRIORITY, 1, bytes(4))],
        [(1, END_HEADERS, 2, BLOCK)],  # a server's stream
        [(1, END_HEADERS, 0, BLOCK)],
        [(0, 0, 1, b"GET / HTTP/1.1\r\nHost: forged.example\r\n\r\n")],
        [(5, END_HEADERS, 1, BLOCK)],
        [(4, 0, 0, bytes(16390))],
    ],
)
def test_frames_that_break_the_grammar_end_the_flow(parts):
    raw = PREFACE + b"".join(frames.frame(*part) for part in parts)
    forged = frames.get("forged.example")
    assert story(talk(raw, forged)) == ([], {"head_bad": 1})


def test_what_a_frame_passes_over_is_not_read():
    forged = frames.frame(1, END_HEADERS, 1, request_block("forged.example"))
    raws = talk(PREFACE + frames.frame(99, 0, 0, forged)[:20], forged[11:], BLOCK_FRAME)
    assert story(raws) == FOUND


BLOCK_FRAME = frames.frame(1, END_HEADERS, 1, BLOCK)


def test_a_client_may_wait_with_its_first_request():
    opening = talk(PREFACE + frames.frame(*frames.SETTINGS))
    late = talk((len(opening[1]) - 54, BLOCK_FRAME), syn=False)
    packets = [*timed(opening), (START_NS + 20 * Limits().hold_ns, late[0])]
    rows = compare(packets)
    assert [(r.host, r.number) for r in rows] == [("shop.example", 3)]


def test_a_block_that_never_ends_is_given_up():
    raw = PREFACE + frames.frame(1, 0, 1, BLOCK)
    later = (START_NS + Limits().hold_ns + 10 * MILLISECOND_NS, frames.udp(b"x"))
    rows, words, _ = fast([*timed(talk(raw)), later], Limits())
    assert rows == []
    assert words["fault:head_incomplete"] == 1
    compare([*timed(talk(raw)), later])
    flood = frames.frame(9, 0, 1, b"") * 2000
    assert story(talk(raw, flood)) == ([], {"head_too_long": 1})
    whole = (
        PREFACE + frames.frame(1, 0, 1, bytes(16000)) + frames.frame(9, END_HEADERS, 1, bytes(999))
    )
    assert story(talk(whole)) == ([], {"head_too_long": 1})


def test_what_is_held_is_bounded_here_too():
    raw = PREFACE + frames.frame(1, 0, 1, bytes(200))
    assert story(talk(raw, bytes(60)), SMALL) == ([], {"head_bad": 1})
    assert story(talk(raw, frames.frame(9, 0, 1, bytes(100))), SMALL) == ([], {"head_too_long": 1})


def test_a_tunnel_may_carry_it_and_a_host_named_before_is_a_repeat():
    connect = b"CONNECT %s:80 HTTP/1.1\r\n\r\n"
    raws = talk(connect % b"shop.example", frames.prior_knowledge(BLOCK))
    repeat = SessionFlag.REPEAT | DOCUMENT
    assert named(raws) == [("http", "shop.example", NOTHING), ("http", "shop.example", repeat)]
    raws = talk(connect % b"proxy.example" + frames.prior_knowledge(BLOCK))
    assert named(raws) == [("http", "proxy.example", NOTHING), ("http", "shop.example", DOCUMENT)]


def test_after_a_request_that_asked_for_it_that_request_was_the_first():
    asking = frames.get("shop.example", "/", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    raws = talk(asking, PREFACE + frames.frame(*frames.SETTINGS), BLOCK_FRAME)
    assert story(raws) == ([("shop.example", "/", DOCUMENT)], {})
    refused = talk(asking, frames.get("shop.example", "/next"))
    assert [target for _, target, _ in story(refused)[0]] == ["/", "/next"]


def test_a_connection_whose_beginning_was_lost_in_part_is_read_behind_the_gap():
    raw = frames.prior_knowledge(BLOCK)
    late = (START_NS + Limits().hold_ns + 10 * MILLISECOND_NS, frames.udp(b"x"))
    for cuts in ([], [24], [24, 40], [30, len(raw) - 3]):
        edges = [0, *cuts, len(raw)]
        parts = [(500 + a, raw[a:b]) for a, b in itertools.pairwise(edges)]
        for order in (parts, parts[::-1]):
            (row,) = compare([*timed(talk(*order)), late])
            flags = DOCUMENT | SessionFlag.MIDSTREAM
            assert (row.host, row.flags) == ("shop.example", flags)
    opened = talk((500, raw[:40]), (545, raw[45:]))
    assert compare([*timed(opened), late]) == [], "a part of a frame is missing"
    more = talk((500 + len(raw), frames.get("forged.example")))[1:]
    (row,) = compare([*timed([*talk((500, raw)), *more]), late])
    assert row.host == "shop.example"


def test_what_is_left_of_a_connection_goes_on_after_its_beginning():
    opening = PREFACE + frames.frame(*frames.SETTINGS)
    first = timed(talk((500, opening)))
    pause = START_NS + Limits().hold_ns + 10 * MILLISECOND_NS
    later = talk((500 + len(opening), BLOCK_FRAME))[1]
    (row,) = compare([*first, (pause, frames.udp(b"x")), (pause + 1, later)])
    assert (row.host, row.number) == ("shop.example", 4)


def test_no_more_is_opened_than_the_packets_pay_for():
    raws = [frames.tcp(frames.prior_knowledge(BLOCK), port=port) for port in range(1, 101)]
    cost = len(BLOCK) + BLOCK_COST
    for paid, count in ((0, 0), (cost, 1), (4 * cost, 4), (1 << 20, 100)):
        limits = Limits(block_bytes=paid)
        rows = compare(timed(raws), limits)
        earned = len(rows) - count
        assert 0 <= earned <= 100 // cost + 1
        words = fast(timed(raws), limits)[1]
        assert (words["fault:heads_exhausted"], words["lost_room"]) == (100 - len(rows),) * 2
    idle = [frames.udp(b"x")] * 5 * cost
    rows = compare(timed([raws[0], *idle, raws[1], raws[2]]), Limits(block_bytes=cost))
    assert [row.number for row in rows] == [1, 2 + len(idle)]


def test_a_block_without_a_byte_is_bad():
    assert story(talk(frames.prior_knowledge(b""))) == ([], {"head_bad": 1})


def test_a_frame_header_that_begins_like_a_hello_is_none():
    raws = [frames.dns_answer(frames.dns_message(b"told.example", [frames.SERVER]))]
    raws += talk(PREFACE + frames.frame(*frames.SETTINGS) + b"\x16\0\0")
    later = (START_NS + Limits().hold_ns + 10 * MILLISECOND_NS, frames.udp(b"x"))
    packets = [*timed(raws), later]
    assert compare(packets) == []
    assert fast(packets, Limits())[1]["fault:head_incomplete"] == 1


def test_overlapping_frames_that_disagree_are_told():
    raw = frames.prior_knowledge(BLOCK)
    other = frames.prior_knowledge(BLOCK.replace(BLOCK[4:10], bytes(6)))
    raws = talk((0, raw[:-10]), (len(raw) - 60, other[-60:]))
    assert story(raws)[0] == [("shop.example", "/offer", DOCUMENT | SessionFlag.UNRELIABLE)]


def test_cookies_neither_wait_nor_stay():
    stage = Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS, at_once=100)
    plain = b"\x00\x06cookie\x06canary"  # as a literal, so that it can be looked for
    raw = frames.prior_knowledge(request_block("shop.example") + plain)
    raws = talk(raw[:-3], raw[-3:])
    tally = Tally()
    assert len(stage.push(frames.batch(timed(raws[:2])), tally)) == 0
    found = stage.push(frames.batch(timed(raws)[2:], 3), tally)
    assert found.host.to_list() == ["shop.example"]
    assert b"canar" not in stage.snapshot()["memory"].tobytes()


@given(st.integers(1, 5))
def test_a_snapshot_goes_on_where_it_was_taken(cut):
    raw = frames.prior_knowledge(BLOCK)
    packets = timed(talk(raw[:20], raw[20:50], raw[50:80], raw[80:]))
    one, other = (Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS) for _ in range(2))
    tally = Tally()
    one.push(frames.batch(packets[:cut]), tally)
    other.restore(one.snapshot())
    found = [
        other.push(frames.batch(packets[cut:], cut + 1), tally) if packets[cut:] else None,
        other.advance(END_OF_TIME, tally),
    ]
    hosts = [h for sessions in found if sessions is not None for h in sessions.host.to_list()]
    assert hosts == (["shop.example"] if cut < 5 else [])
