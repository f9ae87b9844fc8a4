"""The gate: whose payload is read, and what is kept of everybody else's, which is a count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.classify.stage import Classify, Prefix
from pipeline.kernels.circle import Circle
from pipeline.model.identifiers import words_of
from pipeline.model.stage import END_OF_TIME
from pipeline.model.tally import Tally
from pipeline.model.words import Basis, ParseFor
from tests.classify import frames
from tests.classify.frames import SYN, Packet
from tests.classify.test_track import KEYS, Limits
from tests.kernels.test_circle import basis_batch, binding_batch
from tests.naive import flows
from tests.naive.circle import NaiveCircle

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")  # without JIT
MEMBER, OTHER_MEMBER, REFUSER, OUTSIDER = "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.9"
SERVER = "203.0.113.5"
V4 = 0xFFFF_C000_0200
HOLDERS = {MEMBER: 0, OTHER_MEMBER: 1, REFUSER: 2}
BASES = {0: Basis.CONSENTED, 1: Basis.LISTED, 2: Basis.REFUSED}
SUBSCRIBERS: tuple[Prefix, ...] = ((0, V4, 120),)


def words(address: str) -> tuple[int, int]:
    """192.0.2.x as two words."""
    return 0, V4 + int(address.rpartition(".")[2])


def a_circle() -> Circle:
    """A member who consented, one listed, one who refused; all since time 0."""
    circle = Circle(words_of(KEYS.address))
    circle.bind(binding_batch([((*words(a), 128), who, 0, 0) for a, who in HOLDERS.items()]))
    circle.set_basis(basis_batch([(who, state, 0, 0) for who, state in BASES.items()]))
    return circle


def classify(
    circle: Circle,
    parse_for: ParseFor = ParseFor.CONSENTED,
    prefixes: tuple[Prefix, ...] = SUBSCRIBERS,
) -> Classify:
    """A stage with a gate."""
    return Classify(
        circle=circle,
        parse_for=parse_for,
        keys=KEYS,
        limits=Limits(flows=64),
        subscriber_prefixes=prefixes,
    )


def run(
    stage: Classify, packets: Sequence[Packet]
) -> tuple[list[tuple[str, int, int]], dict[str, int]]:
    """(host, subscriber, basis) of each session, and the skips."""
    tally = Tally()
    sessions = stage.push(frames.batch(packets), tally)
    rows = zip(
        sessions.host.to_list(), sessions.subscriber.tolist(), sessions.basis.tolist(), strict=True
    )
    return list(rows), tally.starting("skip")


def visit(client: str, host: str, at: int = 10, port: int = 50000) -> list[Packet]:
    """A request of a client, and an answer."""
    ends = {"client": client, "server": SERVER, "port": port, "server_port": 80}
    return [
        (at, frames.tcp(seq=0, flags=SYN, **ends)),
        (at + 1, frames.tcp(frames.get(host), seq=1, **ends)),
        (at + 2, frames.tcp(b"HTTP/1.1 200 OK\r\n\r\n", seq=1, up=False, **ends)),
    ]


EVERYBODY = [*visit(MEMBER, "m.example"), *visit(OTHER_MEMBER, "l.example"), *visit(REFUSER, "r.example"), *visit(OUTSIDER, "o.example")]  # fmt: skip


@pytest.mark.parametrize(
    ("parse_for", "hosts"),
    [
        (ParseFor.CONSENTED, [("m.example", 0, Basis.CONSENTED)]),
        (ParseFor.LISTED, [("m.example", 0, Basis.CONSENTED), ("l.example", 1, Basis.LISTED)]),
        (ParseFor.EVERYONE, [(f"{n}.example", -1, 0) for n in "mlro"]),
    ],
)
def test_only_who_is_in_the_parse_set_is_read(parse_for, hosts):
    found, skips = run(classify(a_circle(), parse_for), EVERYBODY)
    assert found == hosts
    if parse_for is ParseFor.CONSENTED:
        assert skips == {"no_payload": 1, "outside": 4, "unbound": 2, "not_subscriber": 4}


def test_outside_the_parse_set_there_is_no_flow_entry():
    stage = classify(a_circle())
    run(stage, EVERYBODY)
    saved = stage.snapshot()
    assert len(saved["taken"]) == 1
    assert stage.counts.flows == {"tcp": 1, "udp": 0}


def test_without_prefixes_nobody_can_tell_whose_side_it_is():
    _, skips = run(classify(a_circle(), prefixes=()), visit(OUTSIDER, "o.example"))
    assert skips == {"unbound": 3}


@pytest.mark.parametrize(
    ("address", "skip"),
    [("2001:db8:1::7", "unbound"), ("2001:db8:2::7", "not_subscriber")],
)
def test_prefixes_of_ipv6_tell_whose_side_it_is(address, skip):
    prefix = (0x2001_0DB8_0001_0000, 0, 48)
    packets = [(1, frames.tcp(b"x", client=address, server=frames.SERVER6))]
    assert run(classify(a_circle(), prefixes=(prefix,)), packets)[1] == {skip: 1}


def test_two_members_who_talk_to_each_other_are_both_clients():
    there = frames.tcp(
        frames.get("a.example"), seq=1, client=MEMBER, server=OTHER_MEMBER, port=1, server_port=2
    )
    back = frames.tcp(
        frames.get("b.example"), seq=1, client=OTHER_MEMBER, server=MEMBER, port=2, server_port=1
    )
    found, _ = run(classify(a_circle(), ParseFor.LISTED), [(1, there), (2, back), (3, there)])
    assert [(host, who) for host, who, _ in found] == [("a.example", 0), ("b.example", 1)]


def test_the_address_counts_as_it_was_held_when_the_packet_passed():
    circle = a_circle()
    # At 50 the address passes to an outsider (known at 55), at 100 back to another member.
    circle.bind(
        binding_batch([((*words(MEMBER), 128), -1, 50, 55), ((*words(MEMBER), 128), 1, 100, 100)])
    )
    circle.set_basis(basis_batch([(1, Basis.CONSENTED, 90, 90)]))
    packets = [p for at in (10, 52, 60, 110) for p in visit(MEMBER, f"h{at}.example", at, port=at)]
    found, _ = run(classify(circle), packets)
    assert [(host, who) for host, who, _ in found] == [
        ("h10.example", 0),
        ("h52.example", 0),
        ("h110.example", 1),
    ]


def test_a_flow_that_passes_to_another_member_is_another_flow():
    circle = a_circle()
    circle.set_basis(basis_batch([(1, Basis.CONSENTED, 0, 1)]))
    circle.bind(binding_batch([((*words(MEMBER), 128), 1, 50, 50)]))
    hello = frames.client_hello("shop.example")
    ends = {"client": MEMBER, "server": SERVER}
    packets = [
        (1, frames.tcp(seq=0, flags=SYN, **ends)),
        (2, frames.tcp(hello[:50], seq=1, **ends)),
        (60, frames.tcp(hello[50:], seq=51, **ends)),
    ]
    found, _ = run(classify(circle), packets)
    assert found == []


def halves(client: str = MEMBER) -> list[Packet]:
    """A hello in two segments."""
    hello = frames.client_hello("shop.example")
    ends = {"client": client, "server": SERVER}
    return [
        (1, frames.tcp(seq=0, flags=SYN, **ends)),
        (2, frames.tcp(hello[:50], seq=1, **ends)),
        (60, frames.tcp(hello[50:], seq=51, **ends)),
    ]


def test_who_withdraws_is_forgotten_with_what_was_held():
    circle, tally = a_circle(), Tally()
    stage = classify(circle)
    stage.push(frames.batch(halves()[:2]), tally)
    assert stage.held_rows == 1
    circle.set_basis(basis_batch([(0, Basis.REFUSED, 30, 30)]))
    stage.forget(np.array([0, 2], np.int32))
    assert stage.held_rows == 0
    saved = stage.snapshot()
    assert len(saved["taken"]) == 0
    assert b"\x16\x03\x01" not in saved["memory"].tobytes()
    assert len(stage.push(frames.batch(halves()[2:], 3), tally)) == 0
    assert tally.starting("skip") == {"no_payload": 1, "held": 1, "outside": 1}


def test_forgetting_one_leaves_the_others():
    stage = classify(a_circle(), ParseFor.LISTED)
    tally = Tally()
    for client in (MEMBER, OTHER_MEMBER):
        stage.push(frames.batch(halves(client)[:2]), tally)
    stage.forget(np.array([0], np.int32))
    sessions = stage.push(frames.batch(halves(OTHER_MEMBER)[2:], 3), tally)
    assert sessions.subscriber.tolist() == [1]


@given(
    st.lists(st.integers(0, 5), max_size=60), st.lists(st.integers(0, 5), max_size=4, unique=True)
)
@example([n % 3 for n in range(60)], [0, 2])  # a table nearly full: flows stand side by side
@example([0] * 64, [0])
def test_forgetting_takes_out_all_flows_of_those_and_no_other(owners, gone):
    circle = Circle(words_of(KEYS.address))
    circle.bind(binding_batch([((0, V4 + 10 + n, 128), n, 0, 0) for n in range(6)]))
    circle.set_basis(basis_batch([(n, Basis.CONSENTED, 0, 0) for n in range(6)]))
    stage = classify(circle)
    ends = [
        {"client": f"192.0.2.{10 + n}", "server": SERVER, "port": k} for k, n in enumerate(owners)
    ]
    hello = frames.client_hello("shop.example")
    packets = [(1, frames.tcp(seq=0, flags=SYN, **e)) for e in ends]
    stage.push(frames.batch(packets), Tally())
    stage.forget(np.array(gone, np.int32))
    saved = stage.snapshot()
    stay = flows.forget(owners, set(gone))
    assert len(saved["taken"]) == len(stay)
    # Whoever stays is still found, at the beginning of its stream.
    sessions = stage.push(frames.batch([(2, frames.tcp(hello, seq=1, **e)) for e in ends]), Tally())
    midstream = [bool(f & 8) for f in sessions.flags.tolist()]
    assert midstream == [flow not in stay for flow in range(len(owners))]


FACTS = st.lists(
    st.tuples(st.sampled_from(["bind", "basis"]), st.integers(0, 2), st.integers(-1, 2), st.integers(1, 4), st.integers(0, 9), st.integers(0, 9)),
    max_size=12,
)  # fmt: skip


FAR = 4  # an address with no prefix anywhere near


@given(
    FACTS,
    st.lists(st.tuples(st.integers(0, FAR), st.integers(0, 9)), max_size=12),
    st.sampled_from([ParseFor.CONSENTED, ParseFor.LISTED]),
    st.integers(1, 12),
)
def test_the_gate_equals_the_twin(facts, packets, parse_for, size):
    circle, twin = Circle(words_of(KEYS.address)), NaiveCircle()
    circle.set_basis(basis_batch([(n, 0, 0, 0) for n in range(3)]))
    for kind, place, who, state, event_ns, received_ns in facts:
        if kind == "bind":
            circle.bind(binding_batch([((0, V4 + place, 128), who, event_ns, received_ns)]))
            twin.bind(0, V4 + place, 128, who, event_ns, received_ns)
        elif who >= 0:
            circle.set_basis(basis_batch([(who, state, event_ns, received_ns)]))
            twin.set_basis(who, state, event_ns, received_ns)
    allowed = {Basis.CONSENTED} | ({Basis.LISTED} if parse_for is ParseFor.LISTED else set())
    stage = classify(circle, parse_for, ((0, V4, 127),))  # addresses 0 and 1
    tally, found, expected, skips, sent = Tally(), [], [], [], []
    for number, (place, at) in enumerate(packets):
        client = "198.51.100.7" if place == FAR else f"192.0.2.{place}"
        host = f"h{number}.example"
        sent.append((at, frames.tcp(frames.get(host), client=client, server=SERVER, port=number)))
        who = -1 if place == FAR else twin.holders(0, V4 + place, at, at)
        basis = twin.bases(who, at, at)
        if who >= 0 and basis in allowed:
            expected.append((host, who, basis))
        else:
            skips.append("outside" if who >= 0 else "unbound" if place < 2 else "not_subscriber")
    for at in range(0, len(sent), size):
        sessions = stage.push(frames.batch(sent[at : at + size], at + 1), tally)
        columns = sessions.host.to_list(), sessions.subscriber.tolist(), sessions.basis.tolist()
        found += list(zip(*columns, strict=True))
    assert found == expected
    stage.advance(END_OF_TIME, tally)
    assert tally.starting("skip") == {word: skips.count(word) for word in sorted(set(skips))}
