"""Fragments: against the naive twin, however they are cut, mixed up, repeated and lied about."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.classify import fragments_kernels
from pipeline.classify.fragments import Fragments
from pipeline.classify.gate_kernels import own_prefixes, pass_gate
from pipeline.classify.headers import walk
from pipeline.classify.stage import Classify, Limits
from pipeline.kernels.circle import Circle
from pipeline.model.faults import Fault, Skip
from pipeline.model.identifiers import words_of
from pipeline.model.stage import END_OF_TIME
from pipeline.model.tally import Tally
from pipeline.model.words import ParseFor
from tests.classify import frames
from tests.classify.test_gate import KEYS, MEMBER, OUTSIDER, REFUSER, a_circle
from tests.classify.test_gate import classify as gated
from tests.classify.test_headers import mapped, rows_of
from tests.classify.wrappings import FRAME, WRAPPINGS, fragments, ip, tagged, udp
from tests.naive.fragments import NaiveFragments
from tests.naive.headers import Fragment, Header, walk_headers

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")  # without JIT
NO_PREFIXES = own_prefixes(())
WHO = {MEMBER: 0, "192.0.2.2": Skip.OUTSIDE, REFUSER: Skip.OUTSIDE}
Timed = tuple[int, bytes]


class Rig:
    """Header walk, gate and fragments, as the stage has them."""

    def __init__(self, sets: int, blocks: int, hold_ns: int, circle: Circle | None) -> None:
        self.fragments = Fragments(sets, blocks, hold_ns, words_of(KEYS.address))
        self.circle = circle
        self.watermark_ns = -(1 << 62)
        self.events = np.zeros(fragments_kernels.EVENTS_MAX, np.int64)

    def push(self, packets: Sequence[Timed]) -> list[tuple[object, int]]:
        batch = frames.batch(packets)
        heads, _ = walk(batch)
        rows = len(batch)
        subscriber, basis = np.full(rows, -1, np.int32), np.zeros(rows, np.uint8)
        gate = (int(ParseFor.CONSENTED), NO_PREFIXES)
        if self.circle:
            near = np.zeros(len(batch), np.int64)
            pass_gate(*self.circle.arrays, *gate, heads, batch.time_ns, near, subscriber, basis)
        self.fragments.join(batch, heads, self.watermark_ns, self.circle, *gate, subscriber, basis)
        self.watermark_ns = max(self.watermark_ns, *(t for t, _ in packets))
        self.fragments.settle(self.events)
        found = rows_of(heads, batch.data, self.fragments.joined)
        whose = zip(found, subscriber.tolist(), strict=True)
        return [(row, who if isinstance(row, Header) else -1) for row, who in whose]


def ask(source: str, _: int) -> int | Skip:
    """The gate of `a_circle`, where nobody said which addresses are subscribers'."""
    return WHO.get(source, Skip.UNBOUND)


def expected_of(twin: NaiveFragments, packets: Sequence[Timed]) -> list[tuple[object, int]]:
    rows: list[tuple[object, int]] = []
    for time_ns, raw in packets:
        found = walk_headers(raw, len(raw), 1)
        if isinstance(found, Header | Fragment):
            row, who = twin.take(time_ns, found)
            rows.append((mapped(row), who))
        else:
            twin.pass_time(time_ns)
            rows.append((found, -1))
    return rows


@st.composite
def wholes(draw) -> bytes:
    """An IP packet worth cutting up, perhaps a tunnel's."""
    source = draw(st.sampled_from([MEMBER, OUTSIDER, "2001:db8::1"]))
    target = "2001:db8::2" if ":" in source else "198.51.100.1"
    size = draw(st.sampled_from([0, 8, 30, 100, 2100, 5000]))
    head = struct.pack(">HHIIBBHHH", 40000, 80, 3, 4, 5 << 4, 24, 5, 0, 0)
    packet = ip(6, head + bytes(n * 7 % 256 for n in range(size)), (source, target))
    for name in draw(st.lists(st.sampled_from(["gre", "gtp", "vxlan", "ip in ip6"]), max_size=2)):
        if draw(st.booleans()):
            packet = draw(st.sampled_from(fragments(packet, [draw(st.integers(0, 99))])))
        takes, _, wrap = WRAPPINGS[name]
        packet = wrap(tagged(packet) if takes == FRAME else packet)
    return packet


@st.composite
def streams(draw) -> list[Timed]:
    """Fragments of a few packets, mixed: some twice, some changed, some missing."""
    pieces: list[bytes] = []
    for packet in draw(st.lists(wholes(), min_size=1, max_size=3)):
        cuts = draw(st.lists(st.integers(0, len(packet)), max_size=4))
        of_one = fragments(packet, cuts, draw(st.integers(1, 2)))
        for other in draw(st.lists(st.integers(0, len(packet)), max_size=1)):
            of_one += fragments(packet, [other], 1)
        pieces += of_one
    if draw(st.booleans()):
        pieces = draw(st.permutations(pieces))
    raws = [bytearray(tagged(p)) for p in pieces]
    for which in draw(st.lists(st.integers(0, len(raws) - 1), max_size=2)):
        raws.append(bytearray(raws[which]))
    for which in draw(st.lists(st.integers(0, len(raws) - 1), max_size=2)):
        last = len(raws[which]) - 1
        at = draw(st.one_of(st.integers(14, min(60, last)), st.integers(14, last)))
        raws[which][at] = draw(st.integers(0, 255))
    time_ns, timed = 100, []
    for raw in raws:
        time_ns += draw(st.sampled_from([0, 0, 0, 1, 1, -1, 30]))
        timed.append((time_ns, bytes(raw)))
    return timed


@given(streams(), st.integers(1, 3), st.integers(1, 9), st.booleans(), st.sets(st.integers(1, 20)))
def test_fragments_equal_the_twin_however_they_are_cut_into_batches(
    packets, sets, blocks, closed, cuts
):
    twin = NaiveFragments(sets, blocks, 20, ask if closed else None)
    expected = expected_of(twin, packets)
    twin.expire(1 << 62)
    for edges in ([], sorted(cuts), range(len(packets))):
        rig = Rig(sets, blocks, 20, a_circle() if closed else None)
        edges = [0, *(e for e in edges if 0 < e < len(packets)), len(packets)]
        found = [
            row for a, b in zip(edges, edges[1:], strict=False) for row in rig.push(packets[a:b])
        ]
        assert found == expected
        rig.fragments.advance(END_OF_TIME)
        rig.fragments.settle(rig.events)
        events = {Fault(n): int(rig.events[n]) for n in np.flatnonzero(rig.events)}
        assert events == {fault: n for fault, n in twin.faults.items() if n}
        saved = rig.fragments.snapshot()
        assert not saved["fragments_memory"].any()
        assert not rig.fragments.busy


@given(streams(), st.integers(0, 20), st.sets(st.integers(-1, 2)))
def test_forgetting_drops_the_fragments_of_those_and_no_other(packets, at, gone):
    twin, rig = NaiveFragments(9, 99, 20, ask), Rig(9, 99, 20, a_circle())
    expected = expected_of(twin, packets[:at])
    found = rig.push(packets[:at]) if packets[:at] else []
    mask = np.array([n in gone for n in range(3)], np.uint8)
    rig.fragments.forget(mask)
    twin.forget(gone)
    expected += expected_of(twin, packets[at:])
    found += rig.push(packets[at:]) if packets[at:] else []
    assert found == expected


HELLO = frames.client_hello("pieces.example", padding=1200)
REQUEST = frames.get("pieces.example", "/", f"Accept: {'x' * 200}")


def tcp(payload: bytes, client: str = MEMBER, server: str = "198.51.100.1") -> bytes:
    """A segment in an IP packet."""
    head = struct.pack(">HHIIBBHHH", 40000, 80, 1, 4, 5 << 4, 24, 5, 0, 0)
    return ip(6, head + payload, (client, server))


def sessions_of(
    stage: Classify, packets: Sequence[Timed], cut: int = 99
) -> tuple[list[str], Tally]:
    """Hosts that a stage finds, and its counts."""
    tally, hosts = Tally(), []
    for start in range(0, len(packets), cut):
        found = stage.push(frames.batch(packets[start : start + cut], start + 1), tally)
        hosts += found.host.to_list()
    hosts += stage.advance(END_OF_TIME, tally).host.to_list()
    return hosts, tally


def everybody(**limits: int) -> Classify:
    """A stage without a gate."""
    return Classify(
        circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS, limits=Limits(flows=64, **limits)
    )


@pytest.mark.parametrize("payload", [HELLO, REQUEST])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("ends", [(MEMBER, "198.51.100.1"), ("2001:db8::1", "2001:db8::2")])
@pytest.mark.parametrize("cut", [1, 2, 99])
def test_a_name_in_fragments_is_found(payload, backwards, ends, cut):
    pieces = fragments(tcp(payload, *ends), range(0, 1500, 104))
    packets = [(n, tagged(p)) for n, p in enumerate(pieces[::-1] if backwards else pieces)]
    hosts, tally = sessions_of(everybody(), packets, cut)
    assert hosts == ["pieces.example"]
    assert tally.starting("skip") == {"fragment_held": len(packets) - 1}
    assert tally.starting("fault") == {}


@pytest.mark.parametrize("name", ["gtp", "vxlan", "l2tp", "gre", "eoip", "l2tp 3"])
def test_a_tunnel_in_fragments_is_read_also_behind_the_gate(name):
    takes, _, wrap = WRAPPINGS[name]
    inner = tcp(HELLO)
    outer = wrap(tagged(inner) if takes == FRAME else inner)
    packets = [(5, tagged(p)) for p in fragments(outer, [600, 1200])]
    for cut in (1, 99):
        assert sessions_of(everybody(), packets, cut)[0] == ["pieces.example"]
    if name != "l2tp 3":  # where its payload begins cannot be told of the first piece
        hosts, tally = sessions_of(gated(a_circle()), packets)
        assert hosts == ["pieces.example"]
        assert tally.starting("skip") == {"fragment_held": 2}
    stranger = [
        (5, raw.replace(bytes([192, 0, 2, 1]), bytes([192, 0, 2, 9]))) for _, raw in packets
    ]
    stage = gated(a_circle())
    hosts, tally = sessions_of(stage, stranger)
    assert hosts == []
    assert "fragment_held" not in tally.starting("skip")
    assert not stage.snapshot()["fragments_memory"].any()


def test_fragments_inside_fragmented_tunnels_are_read():
    pieces = fragments(tcp(HELLO), [400, 1000])
    outer = [f for n, p in enumerate(pieces) for f in fragments(udp(2152, gtp(p)), [200], n)]
    hosts, tally = sessions_of(everybody(), [(1, tagged(p)) for p in outer])
    assert hosts == ["pieces.example"]
    assert tally.starting("skip") == {"fragment_held": len(outer) - 1}


def gtp(packet: bytes) -> bytes:
    return struct.pack(">BBHI", 0x30, 255, len(packet), 9) + packet


def test_nothing_is_kept_of_a_fragment_that_the_gate_stops():
    for client, word in ((REFUSER, "outside"), (OUTSIDER, "unbound")):
        stage = gated(a_circle())
        packets = [(5, tagged(p)) for p in fragments(tcp(REQUEST, client), [24])]
        hosts, tally = sessions_of(stage, packets)
        assert hosts == []
        assert tally.starting("skip") == {word: 2}
        assert not stage.snapshot()["fragments_memory"].any()


def test_a_withdrawal_drops_fragments():
    stage, tally = gated(a_circle()), Tally()
    first, last = ((5, tagged(p)) for p in fragments(tcp(REQUEST), [24]))
    stage.push(frames.batch([first]), tally)
    assert b"GET" in stage.snapshot()["fragments_memory"].tobytes()
    stage.forget(np.array([0], np.int32))
    assert not stage.snapshot()["fragments_memory"].any()
    assert len(stage.push(frames.batch([last], 2), tally)) == 0


def test_what_was_put_together_outlives_a_snapshot():
    first, last = ((5, tagged(p)) for p in fragments(tcp(REQUEST), [24]))
    stage, other = everybody(), everybody()
    stage.push(frames.batch([first]), Tally())
    other.restore(stage.snapshot())
    assert other.push(frames.batch([last], 2), Tally()).host.to_list() == ["pieces.example"]


def test_bytes_that_came_first_stay_and_disagreement_is_counted():
    packet = tcp(REQUEST)
    other = packet.replace(b"pieces", b"forged")
    pieces = [*fragments(packet, [24, 64])[:2], *fragments(other, [24, 64])[1:]]
    hosts, tally = sessions_of(everybody(), [(1, tagged(p)) for p in pieces])
    assert hosts == ["pieces.example"]
    assert tally.starting("fault") == {"overlap_disagrees": 1}


def test_overlapping_fragments_discard_an_ipv6_packet():
    packet = tcp(REQUEST, "2001:db8::1", "2001:db8::2")
    whole, shifted = fragments(packet, [24, 48]), fragments(packet, [32])
    packets = [(1, tagged(p)) for p in [whole[0], whole[0], shifted[0], *whole]]
    hosts, tally = sessions_of(everybody(), packets)
    assert hosts == []
    assert tally.starting("skip") == {"fragment_held": 1, "passed": 1}
    assert tally.starting("fault") == {"fragment_overlap": 4}


def test_what_never_becomes_whole_is_counted_once_its_time_is_up():
    first = (0, tagged(fragments(tcp(REQUEST), [24])[0]))
    plain = (30_000_000_001, frames.tcp(b""))
    stage, tally = everybody(), Tally()
    stage.push(frames.batch([first]), tally)
    stage.push(frames.batch([(30_000_000_000, frames.tcp(b""))], 2), tally)
    assert tally.starting("fault") == {}
    stage.push(frames.batch([plain], 3), tally)
    assert tally.starting("fault") == {"fragment": 1}
    assert not stage.snapshot()["fragments_memory"].any()


def test_floods_of_fragments_are_bounded_and_named():
    half_open = [(n, tagged(fragments(tcp(REQUEST), [24], n)[0])) for n in range(200)]
    stage = everybody(fragment_sets=16, fragment_blocks=64)
    _, tally = sessions_of(stage, half_open)
    assert tally.starting("fault") == {"fragment": 16, "fragments_exhausted": 184}
    crumbs = [(1, tagged(p)) for p in fragments(tcp(bytes(4000)), range(0, 4000, 8))]
    stage = everybody()
    _, tally = sessions_of(stage, crumbs)
    assert tally.starting("fault")["fragments_exhausted"] == 3
    large = [(1, tagged(p)) for p in fragments(tcp(bytes(60_000)), range(0, 60_000, 1480))]
    stage = everybody(fragment_blocks=8)
    _, tally = sessions_of(stage, large)
    assert tally.starting("fault")["fragments_exhausted"] > 0
