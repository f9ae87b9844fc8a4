"""Another hello or head in the place of one that was read, and ports that are used again."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pipeline.classify.repeats_kernels import _mark
from pipeline.classify.stage import Limits
from pipeline.classify.state_kernels import LIMITS
from pipeline.kernels.compile import records
from pipeline.model.words import SessionFlag
from tests.classify import frames
from tests.classify.frames import ACK, FIN, RST, SYN
from tests.classify.test_stage import HELLO, ISN, NOTHING, named, talk, timed
from tests.classify.test_track import fast

DECOYS = [
    frames.client_hello("decoy.example", padding=200, random=bytes(32)),
    frames.client_hello("decoy.example", padding=199),  # made of the true one
]
DECOY = DECOYS[0]
TRUE = frames.client_hello("shop.example", padding=200)
BOTH = [
    ("tls", "decoy.example", NOTHING),
    ("tls", "shop.example", SessionFlag.UNRELIABLE),
]
DOCUMENT, MIDSTREAM = SessionFlag.DOCUMENT, SessionFlag.MIDSTREAM


def pieces(raw: bytes, *cuts: int) -> list[tuple[int, bytes]]:
    """A stream in segments that end at these places."""
    return [(a, raw[a:b]) for a, b in itertools.pairwise([0, *cuts, len(raw)])]


@pytest.mark.parametrize("cuts", [(1,), (2,), (5, 9), (11,), (30,), (43,), (100,), (100, 200)])
@pytest.mark.parametrize("last_first", [False, True])
@pytest.mark.parametrize("syn", [True, False])
@pytest.mark.parametrize("decoy", DECOYS)
@pytest.mark.parametrize("decoy_cuts", [(), (90,)])
def test_a_hello_in_pieces_in_the_place_of_another_is_read(
    cuts, last_first, syn, decoy, decoy_cuts
):
    true = pieces(TRUE, *cuts)
    raws = talk(*pieces(decoy, *decoy_cuts), *(true[::-1] if last_first else true), syn=syn)
    flags = NOTHING if syn else MIDSTREAM
    assert named(raws) == [(protocol, host, f | flags) for protocol, host, f in BOTH]


@pytest.mark.parametrize("length", [60, 1500])
@pytest.mark.parametrize("last_first", [False, True])
def test_so_it_is_when_it_is_longer_or_shorter(length, last_first):
    true = pieces(frames.client_hello("shop.example", padding=length), 100)
    assert named(talk((0, DECOY), *(true[::-1] if last_first else true))) == BOTH


@pytest.mark.parametrize("cuts", [(), (100,), (30,), (9, 60, 200)])
@pytest.mark.parametrize("again", [(), (100,), (30,), (9, 60, 200)])
@pytest.mark.parametrize("retried", [False, True])
def test_the_same_hello_in_pieces_is_nothing_new(cuts, again, retried):
    """Also where it is the second, behind a retry request, with another record before it."""
    raws = talk(HELLO) if retried else []
    at, before = (len(HELLO), b"\x14\x03\x03\x00\x01\x01") if retried else (0, b"")
    for ends in (cuts, again):
        (_, first), *others = pieces(TRUE, *ends)
        segments = [(at + len(before) + place, raw) for place, raw in others]
        raws += talk((at, before + first), *segments, syn=raws == [])
    named_again = [("tls", "shop.example", SessionFlag.REPEAT)] if retried else []
    assert named(raws) == [("tls", "shop.example", NOTHING), *named_again]
    _, words, _ = fast(timed(raws), Limits())
    assert not any(word.startswith("fault:") for word in words)


@pytest.mark.parametrize(
    "piece", [(0, TRUE[:20]), (0, TRUE[:43]), (0, DECOY[:43]), (100, b"x" * 99)]
)
def test_a_piece_that_nothing_follows_leaves_all_as_it_was(piece):
    """What comes behind it is held for a while and dropped, without a fault; another hello counts."""
    behind = [(len(TRUE) + n * 100, b"\x17\x03\x03\x00\x5f" + bytes(95)) for n in range(3)]
    raws = talk((0, TRUE), piece, *behind)
    _, words, _ = fast(timed(raws), Limits())
    assert named(raws) == [("tls", "shop.example", NOTHING)]
    assert not any(word.startswith(("fault:", "lost")) for word in words)
    late = frames.tcp(frames.client_hello("two.example", random=bytes(32)), seq=ISN)
    rows = named([*raws, late], step_ns=5 * 10**9)
    assert [host for _, host, _ in rows] == ["shop.example", "two.example"]


def test_what_stands_in_the_place_of_a_hello_may_be_no_hello():
    assert named(talk((0, DECOY), (0, b"\x16\x03\x01\x00\x05\x02" + bytes(60)))) == BOTH[:1]
    raws = talk((0, DECOY), (0, frames.get("shop.example")))
    assert named(raws)[1] == ("http", "shop.example", DOCUMENT | SessionFlag.UNRELIABLE)
    connect = b"CONNECT shop.example:443 HTTP/1.1\r\n\r\n"
    raws = talk((0, DECOY), (0, connect + b"HTTP/1.1 200 OK\r\n\r\n"), (67, b"200 OK"), (67, b"x"))
    assert named(raws)[1] == ("http", "shop.example", SessionFlag.UNRELIABLE)


def test_a_hello_without_a_name_leaves_the_next_one_in_peace():
    true = pieces(TRUE, 60)
    raws = talk((0, frames.client_hello(None, random=bytes(32))), *true)
    assert named(raws) == [("tls", "shop.example", NOTHING)]


@pytest.mark.parametrize("cuts", [(), (70,)])
def test_a_head_in_the_place_of_another_is_unreliable(cuts):
    true = frames.get("shop.example", "/", "Cookie: " + "x" * 90)
    raws = talk((0, frames.get("decoy.example")), *pieces(true, *cuts), frames.get("shop.example"))
    assert named(raws) == [
        ("http", "decoy.example", DOCUMENT),
        ("http", "shop.example", DOCUMENT | SessionFlag.UNRELIABLE),
        ("http", "shop.example", DOCUMENT | SessionFlag.REPEAT),
    ]


def test_a_head_that_is_sent_again_is_nothing_new():
    head = frames.get("shop.example", "/", "Cookie: " + "x" * 90)
    short = b"\r\n\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
    raws = talk((0, head), (0, head), (0, head[:80]), (0, head[:20]), (len(head), short))
    raws += talk((len(head), short), (len(head), short + head), (len(head), short[:20]), syn=False)
    assert named(raws) == [
        ("http", "shop.example", DOCUMENT),
        ("http", "a.example", DOCUMENT),
        ("http", "shop.example", DOCUMENT | SessionFlag.REPEAT),
    ]


@pytest.mark.parametrize("ending", [FIN | ACK, RST, RST | ACK])
@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("first", [frames.get("one.example"), HELLO, b"SSH-2.0-x\r\n" * 9])
def test_what_speaks_after_the_end_is_another_flow(ending, up, first):
    raws = [
        *talk(first),
        frames.tcp(seq=ISN + len(first), flags=ending, up=up),
        *talk(frames.client_hello("two.example"), isn=ISN + 2**24, syn=False),
    ]
    assert named(raws)[-1] == ("tls", "two.example", MIDSTREAM)
    _, _, sessions = fast(timed(raws), Limits())
    assert len({flow.tobytes() for flow in sessions.flow_id}) == len(sessions)


def test_a_request_that_races_the_end_is_of_the_same_flow():
    head = frames.get("one.example")
    raws = [*talk(head), frames.tcp(flags=FIN | ACK, up=False), *talk((len(head), head), syn=False)]
    raws += talk((0, head), syn=False)  # and one that is sent again
    assert [flags for _, _, flags in named(raws)] == [DOCUMENT, DOCUMENT | SessionFlag.REPEAT]


@pytest.mark.parametrize("first", [frames.get("one.example"), HELLO])
@pytest.mark.parametrize("ended", [True, False])
def test_an_answer_to_a_syn_that_was_not_seen_begins_a_flow(first, ended):
    raws = talk(first, frames.tcp(flags=RST) and b"x")
    raws += [frames.tcp(flags=RST)] if ended else []
    raws.append(frames.tcp(seq=1, ack=ISN - 2**24, flags=SYN | ACK, up=False))
    raws += talk(frames.client_hello("two.example"), isn=ISN - 2**24, syn=False)
    assert named(raws)[-1] == ("tls", "two.example", NOTHING)


def test_an_answer_to_the_syn_that_was_seen_begins_none():
    answer = frames.tcp(seq=1, ack=ISN, flags=SYN | ACK, up=False)
    raws = [*talk(TRUE), answer, *talk((len(TRUE), b"\x17\x03\x03"), syn=False), answer]
    assert named(raws) == [("tls", "shop.example", NOTHING)]
    _, _, sessions = fast(timed([*raws, *talk((0, TRUE), syn=False)]), Limits())
    assert len(sessions) == 1


@pytest.mark.parametrize("segment", [(2, frames.get("a.example") + frames.get("b.example")), None])
def test_a_syn_that_is_shown_twice_is_one_whatever_was_read_meanwhile(segment):
    """With data in it, or before two requests."""
    both = frames.get("a.example") + frames.get("b.example")
    syn = frames.tcp(both if segment else b"", seq=ISN - 1, flags=SYN)
    raws = [syn, syn] if segment else [syn, *talk(both, syn=False), syn, *talk(both, syn=False)]
    assert [host for _, host, _ in named(raws)] == ["a.example", "b.example"]


def test_a_hello_that_is_longer_than_what_is_held_has_nothing_in_its_place():
    record = b"\x16\x03\x01" + (16640).to_bytes(2, "big") + TRUE[5:]
    raws = talk((0, record + bytes(16645 - len(record))), (16390, b"x"), (100, b"x" * 16600))
    assert named(raws) == [("tls", "shop.example", NOTHING)]


@pytest.mark.parametrize(
    "junk", [[(5, b"\x02")], [(7, b"?")], [(100 + 2 * n, b"z") for n in range(16)]]
)
def test_a_whole_hello_is_read_whatever_is_held_in_its_place(junk):
    assert named(talk((0, DECOY), *junk, (0, TRUE))) == BOTH


def test_a_second_hello_is_read_while_a_piece_of_the_first_is_held():
    first = pieces(TRUE, 60, 200)
    second = (len(TRUE), frames.client_hello("other.example"))
    rows = named(talk(*first, first[1], second))
    assert rows == [(*BOTH[1][:2], NOTHING), ("tls", "other.example", SessionFlag.UNRELIABLE)]


def test_a_proxys_header_may_stand_in_the_place_of_a_hello():
    proxy = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"
    assert named(talk((0, DECOY), (0, proxy + TRUE))) == BOTH
    assert named(talk((0, DECOY), (0, proxy), (len(proxy), TRUE))) == BOTH
    after = (len(proxy), b"\1\2garbage")
    rows = named(talk((0, DECOY), (0, proxy), after, (100, TRUE[100:]), (0, TRUE[:100])))
    assert rows == [("tls", "decoy.example", NOTHING)], "junk behind it ends the place"


@pytest.mark.parametrize("piece", [(0, b""), (0, TRUE[:60]), (200, TRUE[200:])])
@pytest.mark.parametrize("before", [b"", b"\x14\x03\x03\0\1\1"])
def test_a_second_hello_behind_another_record_is_read_whatever_is_held(piece, before):
    second = (len(TRUE), before + frames.client_hello("other.example"))
    rows = named(talk((0, TRUE), piece, second))
    assert rows == [(*BOTH[1][:2], NOTHING), ("tls", "other.example", SessionFlag.UNRELIABLE)]


@pytest.mark.parametrize(
    "other", [b"GET /z%s\0\1\r\n\r\n", b"GET /z%s HTTP/1.1\r\nHost: e.example\r\n"]
)
def test_what_comes_to_nothing_in_the_place_of_a_head_casts_no_doubt_on_the_next(other):
    head = frames.get("a.example", "/" + "x" * 80)
    raws = talk((0, head), (0, other % (b"y" * 80)), (len(head), frames.get("b.example")))
    rows = named(raws, step_ns=20_000_000_000)
    assert [(host, flags & SessionFlag.UNRELIABLE) for _, host, flags in rows] == [
        ("a.example", NOTHING), ("b.example", NOTHING),
    ]  # fmt: skip


@pytest.mark.parametrize("before", [0, 1, 7, 200])
def test_what_begins_before_a_hello_too_long_to_be_remembered_is_read(before):
    long = frames.client_hello("big.example", padding=3000, sizes=[1] * 3200)
    assert len(long) > Limits().unit_bytes
    raws = talk((200, long), (200 - before, frames.client_hello("other.example")), syn=False)
    assert [host for _, host, _ in named(raws)] == ["big.example", "other.example"]


FLIPS = [b"\x80" + bytes(7), b"\x80\0\0\0\x80\0\0\0"]  # of words, the first byte the highest


@pytest.mark.parametrize("lane", range(4))
def test_no_change_of_words_leaves_a_mark_as_it_was(lane):
    """What a word changes no other makes good, whatever is known of how marks are made."""
    limits = records(LIMITS, 1)[0]
    limits["key0"], limits["key1"] = 0x0123456789ABCDEF, 0xFEDCBA9876543210
    chance, same, tried = np.random.default_rng(lane), 0, 0
    for _ in range(200):
        raw = chance.integers(0, 256, 96, np.uint8)
        marks = {_mark(limits, raw, 0, len(raw))}
        for first, second in itertools.product(FLIPS, FLIPS):
            other = raw.copy()
            other[8 * lane : 8 * lane + 8] ^= np.frombuffer(first, np.uint8)
            other[32 + 8 * lane : 40 + 8 * lane] ^= np.frombuffer(second, np.uint8)
            tried += 1
            same += _mark(limits, other, 0, len(raw)) in marks
    assert same <= 2, f"{same} of {tried}; by chance it is one in 65,536"


def test_what_follows_a_disputed_head_is_doubted_no_more():
    heads = [frames.get("a.example", f"/{n}" + "x" * 80) for n in range(2)]
    raws = talk((0, heads[0]), (0, heads[1]), frames.get("b.example"), frames.get("c.example"))
    assert [(host, flags & SessionFlag.UNRELIABLE) for _, host, flags in named(raws)] == [
        (host, NOTHING) for host in ["a.example", "a.example", "b.example", "c.example"]
    ]


def test_a_hello_in_the_place_of_a_head_is_unreliable():
    raws = talk((0, frames.get("decoy.example")), (0, TRUE))
    assert named(raws)[1:] == BOTH[1:]


def test_http2_in_the_place_of_a_hello_is_unreliable():
    raws = talk((0, DECOY), (0, frames.prior_knowledge(frames.request_block("shop.example"))))
    assert named(raws)[1][1:] == ("shop.example", DOCUMENT | SessionFlag.UNRELIABLE)
