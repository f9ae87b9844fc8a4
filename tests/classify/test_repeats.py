"""Another hello or head in the place of one that was read, and ports that are used again."""

from __future__ import annotations

import itertools

import pytest

from pipeline.classify.stage import Limits
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


@pytest.mark.parametrize("first", [HELLO, frames.get("shop.example", "/", "Cookie: " + "x" * 90)])
@pytest.mark.parametrize("cut", [1, 2, 5, 20, 80])
@pytest.mark.parametrize("swapped", [True, False])
def test_an_acknowledgement_tells_the_place_of_halves_that_are_swapped(first, cut, swapped):
    """The last packet of the handshake is the first that is seen."""
    halves = pieces(first, cut)[:: -1 if swapped else 1]
    handshake = frames.tcp(seq=ISN, ack=8, flags=ACK)
    (row,) = named([handshake, *talk(*halves, syn=False)])
    assert row[1] == "shop.example"
    assert swapped <= (MIDSTREAM not in row[2])


@pytest.mark.parametrize("up", [True, False])
def test_an_acknowledgement_in_the_middle_tells_nothing(up):
    """What follows it begins by itself, or is of the other end."""
    handshake = frames.tcp(seq=ISN, ack=8, flags=ACK, up=up)
    raws = [handshake, *talk((50, frames.get("shop.example")), syn=False)]
    assert named(raws) == [("http", "shop.example", DOCUMENT | MIDSTREAM)]
    raws = [handshake, *talk((50, b"\x17\x03\x03"), (5000, frames.get("shop.example")), syn=False)]
    assert [host for _, host, _ in named(raws)] == ["shop.example"]
