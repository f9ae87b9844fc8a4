"""What follows a request in its flow: tunnels, and protocols that it asked to go on with."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.classify.stage import Classify, Limits
from pipeline.model.identifiers import Keys
from pipeline.model.tally import Tally
from pipeline.model.words import Method, ParseFor, SessionFlag
from tests.classify import frames
from tests.classify.test_stage import HELLO, MILLISECOND_NS, NOTHING, START_NS, talk, timed
from tests.classify.test_track import compare, fast

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")  # without JIT
DOCUMENT, REPEAT = SessionFlag.DOCUMENT, SessionFlag.REPEAT
UNRELIABLE = SessionFlag.UNRELIABLE
CONNECT = b"CONNECT shop.example:443 HTTP/1.1\r\n\r\n"
FIELDS = (
    b"CONNECT shop.example:443 HTTP/1.1\r\nHost: shop.example:443\r\nUser-Agent: x\r\n"
    b"Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic canary\r\nContent-Length: 9\r\n\r\n"
)
UPGRADE = frames.get(
    "chat.example", "/socket", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
)  # fmt: skip
MASK = b"mask"


def story(raws: list[bytes]) -> tuple[list[tuple[str, str, SessionFlag]], dict[str, int]]:
    """(protocol, host, flags) of what is found, and what packets with bytes were passed over as."""
    rows = compare(timed(raws))
    words = fast(timed(raws), Limits())[1]
    passed = {w: n for w, n in words.items() if w not in ("named", "skip:no_payload") and n}
    return [(r.protocol, r.host, SessionFlag(r.flags)) for r in rows], passed


# Tunnels.


@pytest.mark.parametrize("connect", [CONNECT, FIELDS, CONNECT.replace(b"\r", b"")])
@given(cuts=st.lists(st.integers(1, len(FIELDS + HELLO) - 1), max_size=5), order=st.randoms())
def test_a_tunnel_gives_its_target_and_the_name_inside(connect, cuts, order):
    raw = connect + HELLO
    edges = [0, *sorted({c for c in cuts if c < len(raw)}), len(raw)]
    parts = [(a, raw[a:b]) for a, b in itertools.pairwise(edges)]
    order.shuffle(parts)
    rows, words, _ = fast(timed(talk(*parts)), Limits())
    assert [(r.protocol, r.host, r.flags) for r in rows] == [
        ("http", "shop.example", 0), ("tls", "shop.example", 0)
    ]  # fmt: skip
    assert [(r.method, r.target) for r in rows] == [(Method.CONNECT, b"shop.example:443"), (0, b"")]
    assert not [w for w in words if w.startswith("fault")]


@pytest.mark.parametrize("at", [0, 1, 5, 6, 40, 1400])
def test_another_name_inside_a_tunnel_is_as_reliable_as_any(at):
    connect = CONNECT.replace(b"shop", b"cdn")
    raws = talk(connect, HELLO[:at], HELLO[at:]) if at else talk(connect + HELLO)
    found = [("http", "cdn.example", NOTHING), ("tls", "shop.example", NOTHING)]
    assert story(raws) == (found, {})


@pytest.mark.parametrize("key", range(12))
def test_a_name_inside_a_tunnel_is_no_repeat_of_one_that_begins_otherwise(key):
    """Whatever the secret of the process is."""
    connect = CONNECT.replace(b"shop", b"b.shop")
    hello = frames.client_hello("c.shop.example")
    classify = Classify(
        circle=None, parse_for=ParseFor.EVERYONE, keys=Keys.from_seed(f"tunnel {key}")
    )
    found = classify.push(frames.batch(timed(talk(connect, hello))), Tally())
    assert found.flags.tolist() == [0, 0]


def test_two_hellos_inside_a_tunnel_that_differ_are_told():
    again = frames.client_hello("other.example")
    found, _ = story(talk(CONNECT, HELLO, b"\x14\x03\x03\x00\x01\x01" + again))
    assert found[1:] == [("tls", "shop.example", NOTHING), ("tls", "other.example", UNRELIABLE)]


def test_a_proxy_that_asks_for_a_password_is_asked_again():
    found, passed = story(talk(CONNECT, FIELDS, HELLO))
    assert found == [
        ("http", "shop.example", NOTHING), ("http", "shop.example", REPEAT),
        ("tls", "shop.example", NOTHING),
    ]  # fmt: skip
    assert passed == {}


def test_a_tunnel_may_carry_requests():
    connect = CONNECT.replace(b":443", b":80")
    raws = talk(
        connect, frames.get("shop.example"), frames.get("news.example"), syn=True, server_port=3128
    )
    found, passed = story(raws)
    assert found == [
        ("http", "shop.example", NOTHING), ("http", "shop.example", REPEAT | DOCUMENT),
        ("http", "news.example", DOCUMENT),
    ]  # fmt: skip
    assert passed == {}
    rows = compare(timed(raws))
    assert {row.server[1] for row in rows} == {3128}


def test_a_tunnel_in_a_tunnel():
    outer = CONNECT.replace(b"shop", b"proxy")
    found, _ = story(talk(outer, CONNECT, HELLO))
    assert [(p, h) for p, h, _ in found] == [
        ("http", "proxy.example"), ("http", "shop.example"), ("tls", "shop.example")
    ]  # fmt: skip


def test_what_a_tunnel_carries_may_be_neither():
    found, passed = story(talk(CONNECT, b"SSH-2.0-x\r\n", b"\x00\x00\x01\x14", b"more"))
    assert [h for _, h, _ in found] == ["shop.example"]
    assert passed == {"skip:other_protocol": 3}


def test_an_answer_of_the_proxy_is_no_name_and_in_nobodys_way():
    answer = b"HTTP/1.1 200 Connection established\r\n\r\n"
    up = talk(CONNECT, HELLO[:600], HELLO[600:])
    raws = [*up[:2], frames.tcp(answer, seq=1, up=False), up[2], up[3]]
    found, passed = story(raws)
    assert [p for p, _, _ in found] == ["http", "tls"]
    assert passed == {"skip:not_a_client": 1}


# Upgrades.


def masked(payload: bytes, first: int = 0x82) -> bytes:
    """A client's WebSocket frame (RFC 6455, 5.2)."""
    changed = bytes(b ^ MASK[n % 4] for n, b in enumerate(payload))
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes([first]) + length + MASK + changed


@pytest.mark.parametrize("first", [0x81, 0x82, 0x01, 0x89, 0x41, 0xC1])
@pytest.mark.parametrize("size", [0, 5, 900])
def test_what_follows_an_upgrade_is_neither_read_nor_a_fault(first, size):
    raws = talk(UPGRADE, masked(bytes(size), first), masked(b"more"), frames.get("forged.example"))
    found, passed = story(raws)
    assert found == [("http", "chat.example", DOCUMENT)]
    assert passed == {"skip:passed": 1, "skip:flow_done": 2}


def test_frames_in_the_segment_of_the_upgrade_and_cut_ones_are_passed_over():
    forged = frames.get("forged.example")
    found, passed = story(talk(UPGRADE + masked(b"x"), forged))
    assert (found, passed) == ([("http", "chat.example", DOCUMENT)], {"skip:flow_done": 1})
    text = masked(b"text", 0x41)  # its first byte alone could begin a method
    found, passed = story(talk(UPGRADE, text[:1], text[1:], forged))
    assert found == [("http", "chat.example", DOCUMENT)]
    assert passed == {"skip:held": 1, "skip:passed": 1, "skip:flow_done": 1}


@given(st.lists(st.integers(1, 400), max_size=6), st.randoms())
def test_an_upgrade_in_any_order_of_segments_names_one_host(cuts, order):
    raw = UPGRADE + masked(bytes(150)) + masked(b"end")
    edges = [0, *sorted({c for c in cuts if c < len(raw)}), len(raw)]
    parts = [(a, raw[a:b]) for a, b in itertools.pairwise(edges)]
    order.shuffle(parts)
    rows, words, _ = fast(timed(talk(*parts)), Limits())
    assert [r.host for r in rows] == ["chat.example"]
    assert not [w for w in words if w.startswith("fault")]


def test_a_server_that_does_not_upgrade_gets_the_next_request():
    found, passed = story(talk(UPGRADE, frames.get("chat.example"), frames.get("news.example")))
    assert [h for _, h, _ in found] == ["chat.example", "chat.example", "news.example"]
    assert passed == {}


def test_only_the_last_request_counts():
    strange = [b"\x00\x01binary", frames.get("later.example")]
    found, passed = story(talk(UPGRADE, frames.get("chat.example"), *strange))
    assert [h for _, h, _ in found] == ["chat.example", "chat.example", "later.example"]
    assert passed == {"skip:other_protocol": 1}


def test_an_upgrade_to_tls_leads_to_its_hello():
    found, passed = story(talk(frames.get("ipp.example", "/", "Upgrade: TLS/1.2"), HELLO))
    assert [(p, h) for p, h, _ in found] == [("http", "ipp.example"), ("tls", "shop.example")]
    assert passed == {}


def test_a_body_before_the_upgrade_is_still_a_body():
    head = b"POST /s HTTP/1.1\r\nHost: chat.example\r\nUpgrade: x/1\r\n"
    body = frames.get("forged.example")
    for framed in (
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body),
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body),
    ):
        found, passed = story(talk(head + framed, masked(b"x"), body))
        assert [h for _, h, _ in found] == ["chat.example"]
        assert passed == {"skip:passed": 1, "skip:flow_done": 1}


# Behind a gap that stays.

POST = b"POST /c HTTP/1.1\r\nHost: c.example\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
FORGED = frames.get("forged.example")


def behind_a_gap(*parts: tuple[int, bytes]) -> list[str]:
    """Hosts of a stream whose first hundred bytes are missing, after the time for them is up."""
    raws = talk(*((100 + at, raw) for at, raw in parts))
    later = START_NS + Limits().hold_ns + 10 * MILLISECOND_NS
    return [row.host for row in compare([*timed(raws), (later, frames.udp(b"x"))])]


@pytest.mark.parametrize(
    ("opening", "host"),
    [
        (POST + b"Content-Length: 100000\r\n\r\n", "c.example"),
        (frames.prior_knowledge(), "h2.example"),
        (HELLO, "shop.example"),
    ],
)
def test_what_was_found_behind_a_gap_still_holds_after_a_wide_jump(opening, host):
    raws = talk((100, opening), (60_000, FORGED), (60_000 + len(FORGED), FORGED))
    assert [row.host for row in compare(timed(raws))] == [host]


def test_chunks_behind_a_gap_are_followed():
    body = b"5\r\nhello\r\n0\r\nTrailer: x\r\n\r\n"
    after = frames.get("a.example")
    assert behind_a_gap((0, CHUNKED + body + after)) == ["c.example", "a.example"]
    cut = len(CHUNKED) + 9
    assert behind_a_gap((0, (CHUNKED + body)[:cut]), (cut, (body + after)[9:])) == [
        "c.example", "a.example"
    ]  # fmt: skip
    first = CHUNKED + b"fff\r\n" + bytes(100)
    raws = talk((100, first))
    later = START_NS + Limits().hold_ns + 10 * MILLISECOND_NS
    packets = [*timed(raws), (later, frames.udp(b"x"))]
    forged = talk((100 + len(first), FORGED))[1]
    assert [row.host for row in compare([*packets, (later + 1, forged)])] == ["c.example"]


def test_a_tunnel_behind_a_gap_is_followed():
    assert behind_a_gap((0, CONNECT), (len(CONNECT), HELLO)) == ["shop.example"] * 2
    asked = frames.get("a.example")
    whole = asked + CONNECT + HELLO
    assert behind_a_gap((0, whole)) == ["a.example", "shop.example", "shop.example"]


def test_an_upgrade_behind_a_gap_is_the_last_that_is_read():
    assert behind_a_gap((0, UPGRADE + frames.prior_knowledge())) == ["chat.example"]
    assert behind_a_gap((0, UPGRADE), (len(UPGRADE), masked(b"x"))) == ["chat.example"]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("raw", "size"),
    [(HELLO[:200] + HELLO[200:], 1400), (frames.client_hello("tiny.example"), 1),
     (frames.client_hello("tiny.example"), 7),
     (frames.get("long.example", "/", "Cookie: " + "a" * 9000), 536),
     (frames.get("long.example", "/", "Cookie: " + "a" * 15_000), 256)],
)  # fmt: skip
def test_a_unit_may_come_in_any_number_of_segments(raw, size, reverse):
    parts = [(at, raw[at : at + size]) for at in range(0, len(raw), size)]
    raws = talk(*(parts[::-1] if reverse else parts))
    (row,) = compare(timed(raws))
    assert row.host.endswith(".example")


def test_a_trailer_that_begins_like_a_hello_is_none():
    raws = [frames.dns_answer(frames.dns_message(b"told.example", [frames.SERVER]))]
    raws += talk(CHUNKED + b"0\r\n", b"\x16" + b"x" * 50)
    later = (START_NS + Limits().hold_ns + 10 * MILLISECOND_NS, frames.udp(b"x"))
    for snaplen in (90, frames.SNAPLEN_MAX):
        rows = compare([*timed(raws), later], snaplen=snaplen)
        assert {row.protocol for row in rows} <= {"http"}


# What a proxy says first.

LINE = b"PROXY TCP4 192.0.2.7 203.0.113.9 40000 443\r\n"
SIGNED = bytes.fromhex("0d0a0d0a000d0a515549540a2111000c") + bytes(range(12))
PROXIES = (LINE, b"PROXY UNKNOWN\r\n", SIGNED, SIGNED[:14] + b"\0\0")
NOT_PROXIES = (LINE[:-2] + b"\n", b"PROXY TCP5 1\r\n", SIGNED[:12] + b"\x11" + SIGNED[13:])


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("said", [HELLO, frames.get("shop.example", "/")])
@given(cuts=st.lists(st.integers(1, 60), max_size=4), order=st.randoms())
def test_what_stands_behind_a_proxys_header_is_found(proxy, said, cuts, order):
    raw = proxy + said
    edges = [0, *sorted({c for c in cuts if c < len(raw)}), len(raw)]
    parts = [(a, raw[a:b]) for a, b in itertools.pairwise(edges)]
    order.shuffle(parts)
    rows, _ = story(talk(*parts))
    assert [host for _, host, _ in rows] == ["shop.example"]


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_proxys_header_tells_also_where_the_beginning_was_not_seen(proxy):
    rows, _ = story(talk(proxy + HELLO, syn=False))
    assert [host for _, host, _ in rows] == ["shop.example"]


@pytest.mark.parametrize("other", NOT_PROXIES)
def test_what_is_no_proxys_header_is_no_beginning(other):
    assert story(talk(other + HELLO))[0] == []


@pytest.mark.parametrize("lengths", [b"3, 3", b"3,3", b"3 ,\t3 , 3"])
def test_the_same_length_twice_is_one(lengths):
    post = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: %s\r\n\r\nabc" % lengths
    rows, passed = story(talk(post + frames.get("b.example", "/")))
    assert [host for _, host, _ in rows] == ["a.example", "b.example"]
    assert not [word for word in passed if word.startswith("fault")]


@pytest.mark.parametrize("lengths", [b"3, 4", b"3,", b",3", b"3 3", b""])
def test_lengths_that_differ_or_are_none_end_a_flow(lengths):
    post = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: %s\r\n\r\nabc" % lengths
    rows, _ = story(talk(post + frames.get("b.example", "/")))
    assert [host for _, host, _ in rows] == ["a.example"]


@pytest.mark.parametrize(("limit", "room"), [(Limits(), 32), (Limits(names=4), 5)])
def test_of_more_names_than_are_remembered_each_is_told_and_counted(limit, room):
    hosts = [f"h{n}.example" for n in range(room + 3)]
    raws = talk(*(frames.get(host) for host in hosts * 2))
    rows = compare(timed(raws), limit)
    assert [row.host for row in rows] == hosts * 2
    repeats = [row.host for row in rows if SessionFlag(row.flags) & REPEAT]
    assert repeats == hosts[:room]
    _, words, _ = fast(timed(raws), limit)
    assert words["fault:names_exhausted"] == 6
