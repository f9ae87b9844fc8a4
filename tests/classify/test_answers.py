"""DNS answers: read as the twin reads them, kept as long as stated, told for weak names only."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.classify.stage import Classify, Limits
from pipeline.model.stage import END_OF_TIME
from pipeline.model.tally import Tally
from pipeline.model.words import Basis, ParseFor, SessionFlag
from tests.classify import frames
from tests.classify.test_gate import MEMBER, OTHER_MEMBER, OUTSIDER, a_circle, classify
from tests.classify.test_stage import START_NS, named, talk, timed
from tests.classify.test_track import KEYS, compare, fast, rows_of
from tests.forge import quic
from tests.kernels.test_circle import basis_batch
from tests.naive.units import OUTER_NAMES

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")  # without JIT
SECOND_NS = 1_000_000_000
NAMELESS = frames.client_hello(None)
WEAK = SessionFlag.WEAK
GOOD = frames.dns_message(b"told.example", [frames.SERVER])


def told(message: bytes, *more: bytes) -> list[tuple[str, str, SessionFlag]]:
    """What a hello without a name is called after an answer."""
    return named([frames.dns_answer(message), *more, *talk(NAMELESS)])


@pytest.mark.parametrize(
    ("message", "host"),
    [
        (GOOD, "told.example"),
        (frames.dns_message(b"Upper.Example", [frames.SERVER6, frames.SERVER]), "upper.example"),
        (frames.dns_message(b"x" * 63 + b".example", [frames.SERVER]), "x" * 63 + ".example"),
        (frames.dns_message(b"told.example", [frames.SERVER], flags=0x0100), None),  # a question
        (frames.dns_message(b"told.example", [frames.SERVER], flags=0x8183), None),  # no such name
        (frames.dns_message(b"told.example", ["198.51.100.200"]), None),  # of another server
        (frames.dns_message(b"not a host", [frames.SERVER]), None),
        (frames.dns_message(b"told.example", ["0.0.0.0", frames.SERVER]), "told.example"),
        (GOOD[:-1], None),
        (GOOD[:20], None),
        (b"", None),
    ],
)
def test_a_hello_without_a_name_has_the_one_that_led_to_its_server(message, host):
    assert told(message) == ([] if host is None else [("tls", host, WEAK)])


@pytest.mark.parametrize(
    ("protocol", "unit"),
    [
        ("http", b"GET /x HTTP/1.0\r\n\r\n"),
        ("http", b"GET /x HTTP/1.1\r\nHost: not a host\r\n\r\n"),
        ("tls", frames.client_hello(b"not a host")),
        ("tls", frames.records(b"\x01" + frames.vector(3, b"\x03\x03 and no more"))),
        ("tls", frames.client_hello(sizes=[40])[:49] + b"\x17\x03\x03\0\x05hello"),
    ],
)
def test_so_has_a_request_without_a_host_and_a_name_that_is_none(protocol, unit):
    raws = [frames.dns_answer(GOOD), *talk(unit)]
    assert named(raws) == [(protocol, "told.example", WEAK)]
    assert named(raws[1:]) == []


NONE = frames.records(b"\x01" + frames.vector(3, b"\x03\x03 and no more"))


@pytest.mark.parametrize(
    "unit", [NONE, b"GET /x HTTP/1.0\r\n\r\n", b"GET /x HTTP/1.1\r\nHost: not a host\r\n\r\n"]
)
def test_a_flow_with_a_name_of_its_own_gets_no_other(unit):
    raws = [frames.dns_answer(GOOD), *talk(frames.get() + unit)]
    assert named(raws) == [("http", "news.example", SessionFlag.DOCUMENT)]


@pytest.mark.parametrize("over", ["tls", "quic"])
def test_a_hello_that_claims_too_much_has_the_name_that_led_to_its_server(over):
    if over == "tls":
        raws = talk(b"\x16\x03\x01\x40\0\x01\0\xff\xff\x03\x03" + bytes(3000))
    else:
        raws = [frames.udp(quic.initial(quic.crypto(0, b"\1\xff\xff\xff" + bytes(100))))]
    assert named([frames.dns_answer(GOOD), *raws]) == [(over, "told.example", WEAK)]
    assert named(raws) == []


def test_initials_that_no_key_opens_have_the_name_that_led_to_their_server():
    sealed = [bytearray(quic.initial(quic.PING * 40, number=n)) for n in range(30)]
    for raw in sealed:
        raw[-1] ^= 1
    packets = [frames.dns_answer(GOOD), *(frames.udp(bytes(raw)) for raw in sealed)]
    rows, words, _ = fast([(START_NS, raw) for raw in packets], Limits())
    assert [(row.protocol, row.host, row.flags) for row in rows] == [("quic", "told.example", WEAK)]
    assert (words["given_up"], words["fault:quic_sealed"], words["skip:flow_done"]) == (1, 24, 6)
    compare([(START_NS, raw) for raw in packets])


def test_the_last_name_counts_and_only_for_whom_it_was_told():
    later = frames.dns_answer(frames.dns_message(b"later.example", [frames.SERVER]))
    assert told(GOOD, later) == [("tls", "later.example", WEAK)]
    other = frames.dns_answer(frames.dns_message(b"other.example", [frames.SERVER]), "192.0.2.77")
    assert told(GOOD, other) == [("tls", "told.example", WEAK)]


@pytest.mark.parametrize(("seconds", "hosts"), [(599, ["told.example"]), (601, []), (-1, [])])
def test_an_answer_counts_for_ten_minutes_and_not_for_what_was_before(seconds, hosts):
    at = START_NS + seconds * SECOND_NS
    rows = compare([(START_NS, frames.dns_answer(GOOD)), (at, frames.tcp(NAMELESS))])
    assert [row.host for row in rows] == hosts


def test_a_hello_with_a_name_needs_no_other():
    raws = [frames.dns_answer(GOOD), *talk(frames.client_hello("own.example"))]
    assert named(raws) == [("tls", "own.example", SessionFlag(0))]


def test_a_name_behind_which_others_hide_gets_a_weak_one_beside_it():
    outer = sorted(OUTER_NAMES)[0]
    raws = [frames.dns_answer(GOOD), *talk(frames.client_hello(outer))]
    assert named(raws) == [("tls", outer, SessionFlag.HIDDEN), ("tls", "told.example", WEAK)]


def test_a_hello_of_which_a_part_never_came_is_named_by_its_first_packet():
    part = frames.client_hello("own.example", padding=1300)[:600]
    packets = timed([frames.dns_answer(GOOD), frames.tcp(part)])
    packets.append((START_NS + 60 * SECOND_NS, frames.udp(b"x")))
    (row,) = compare(packets)
    assert (row.host, row.number, SessionFlag(row.flags) & WEAK) == ("told.example", 2, WEAK)


def test_a_hello_that_the_capture_cut_off_is_named_by_what_is_there():
    hello = frames.client_hello("own.example", padding=1300)
    for raws in (talk(hello), [frames.tcp(hello)]):
        packets = timed([frames.dns_answer(GOOD), *raws])
        (row,) = compare(packets, snaplen=200)
        assert (row.host, row.number, SessionFlag(row.flags) & WEAK) == (
            "told.example",
            len(packets),
            WEAK,
        )
    request = [frames.dns_answer(GOOD), *talk(frames.get("own.example"))]
    assert compare(timed(request), snaplen=80) == []


def test_a_datagram_that_the_capture_cut_off_is_named_too():
    raw = quic.initial(quic.crypto(0, frames.client_hello("own.example")[5:]), pad_to=1200)
    packets = timed([frames.dns_answer(GOOD), frames.udp(raw), frames.udp(raw)])
    assert [(row.host, row.number) for row in compare(packets, snaplen=200)] == [
        ("told.example", 2)
    ]
    (row,) = compare(packets[1:])
    assert row.host == "own.example"


def test_a_packet_that_has_no_hello_in_it_loses_none():
    raws = [frames.dns_answer(GOOD), frames.udp(quic.other(2, body=bytes(1100)))]
    packets = timed(raws)
    assert compare(packets, snaplen=500) == []
    assert fast(packets, Limits(), snaplen=500)[1]["lost_cut"] == 0


def test_in_a_tunnel_the_name_of_the_proxy_is_nobodys():
    connect = b"CONNECT shop.example:443 HTTP/1.1\r\n\r\n"
    found = named([frames.dns_answer(GOOD), *talk(connect, NAMELESS)])
    assert found == [("http", "shop.example", SessionFlag(0))]


@given(st.binary(max_size=60), st.integers(0, 60), st.integers(0, 255))
def test_no_bytes_make_it_fail_and_the_twin_reads_the_same(tail, at, byte):
    message = bytearray(frames.dns_message(b"told.example", [frames.SERVER6, frames.SERVER]))
    message[at % len(message)] = byte
    raws = [frames.dns_answer(bytes(message) + tail), frames.dns_answer(tail)]
    compare(timed([*raws, frames.tcp(NAMELESS)]))


def gated(circle, *answers: bytes) -> tuple[list[str], dict[str, int], Classify]:
    """Hosts of hellos without a name, behind a gate, and the skips."""
    stage, tally = classify(circle), Tally()
    hellos = [frames.tcp(NAMELESS, client=c) for c in (MEMBER, OUTSIDER)]
    raws = [(10 + n, raw) for n, raw in enumerate([*answers, *hellos])]
    return stage.push(frames.batch(raws), tally).host.to_list(), tally.starting("skip"), stage


def test_behind_a_gate_an_answer_is_read_for_whom_it_is_meant():
    answers = [frames.dns_answer(GOOD, client) for client in (MEMBER, OUTSIDER)]
    hosts, skips, _ = gated(a_circle(), *answers)
    assert hosts == ["told.example"]
    assert skips == {"name_answer": 1, "not_subscriber": 1, "unbound": 1}


def test_what_an_outsider_is_told_is_kept_nowhere():
    message = frames.dns_message(b"secret.example", [frames.SERVER])
    stage = gated(a_circle(), frames.dns_answer(message, OUTSIDER))[2]
    assert b"secret" not in b"".join(values.tobytes() for values in stage.snapshot().values())


def test_whoever_leaves_is_forgotten_with_what_was_told():
    stage = gated(a_circle(), frames.dns_answer(GOOD, MEMBER))[2]
    kept = [values.tobytes() for values in stage.snapshot().values()]
    assert any(b"told.example" in raw for raw in kept)
    stage.forget(np.array([0], np.int32))
    assert not any(b"told.example" in v.tobytes() for v in stage.snapshot().values())


def test_a_longer_name_that_was_there_leaves_nothing_of_it():
    circle = a_circle()
    circle.set_basis(basis_batch([(1, Basis.CONSENTED, 0, 1)]))
    stage = Classify(
        circle=circle, parse_for=ParseFor.CONSENTED, keys=KEYS, limits=Limits(answers=4)
    )
    secret = frames.dns_message(b"a-private-clinic.with-a-long-name.example", [frames.SERVER])
    raws = [(10, frames.dns_answer(secret, MEMBER))]
    for n in range(1, 9):
        short = frames.dns_message(b"x.example", [f"198.51.100.{n}"])
        raws.append((20 + n, frames.dns_answer(short, OTHER_MEMBER)))
    stage.push(frames.batch(raws), Tally())
    assert b"clinic" not in stage.snapshot()["told"].tobytes()
    assert b"x.example" in stage.snapshot()["told"].tobytes()


def test_a_weak_name_takes_nothing_from_the_true_one():
    hello = frames.client_hello("told.example", padding=1300)
    isn, ends = 1000, {"port": 9}
    first = [
        frames.dns_answer(GOOD),
        frames.tcp(seq=isn - 1, flags=frames.SYN, **ends),
        frames.tcp(hello[:600], seq=isn, **ends),
    ]
    again = (START_NS + 60 * SECOND_NS, frames.tcp(hello, seq=isn, **ends))
    rows = compare([*timed(first), again])
    assert [(row.host, SessionFlag(row.flags) & (WEAK | SessionFlag.REPEAT)) for row in rows] == [
        ("told.example", WEAK), ("told.example", SessionFlag(0)),
    ]  # fmt: skip


def test_many_answers_leave_the_last_of_them():
    stage = Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS, limits=Limits(answers=4))
    servers = [f"198.51.100.{n}" for n in range(1, 9)]
    answers = [frames.dns_message(b"h%d.example" % n, [s]) for n, s in enumerate(servers, 1)]
    raws = [frames.dns_answer(message) for message in answers]
    raws += [frames.tcp(NAMELESS, server=server, port=n) for n, server in enumerate(servers, 1)]
    tally = Tally()
    found = rows_of(stage.push(frames.batch(timed(raws)), tally))
    assert [row.host for row in found] == [f"h{n}.example" for n in (5, 6, 7, 8)]
    stage.advance(END_OF_TIME, tally)
    assert tally.of("weak") == 4
    assert tally.of("sessions:tls") == 0
