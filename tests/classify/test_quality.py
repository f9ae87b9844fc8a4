"""How good a mirror is: against the twin on anything, and told of captures that were spoilt."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.classify.layers_kernels import HEADER, TCP, UDP
from pipeline.classify.quality import MirrorQuality
from pipeline.classify.stage import Classify, Limits
from pipeline.kernels.compile import records
from pipeline.model.batches import PacketBatch
from pipeline.model.columns import columns_of
from pipeline.model.stage import END_OF_TIME
from pipeline.model.tally import Tally
from pipeline.model.words import ParseFor
from tests.classify import frames
from tests.classify.test_gate import MEMBER, a_circle, classify, visit
from tests.classify.test_track import KEYS, compare, fast
from tests.naive.quality import NaiveQuality

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")  # without JIT
MILLISECOND_NS, SECOND_NS = 1_000_000, 1_000_000_000
# Few and small, so that they meet; and some where the numbers wrap, or are of another stream.
SEQUENCES = st.one_of(st.integers(0, 12), st.integers(2**32 - 6, 2**32 - 1), st.just(1 << 28))
STEPS_NS = st.sampled_from([0, MILLISECOND_NS, 3 * MILLISECOND_NS, -MILLISECOND_NS, 40 * SECOND_NS])
SEGMENTS = st.tuples(
    st.integers(0, 9), st.booleans(), st.sampled_from([0, 0, 0, 2, 16]), SEQUENCES,
    st.integers(0, 4), STEPS_NS, st.sampled_from([0, 0, 0, 0, 1, 2, 3]),
)  # fmt: skip


def fingerprint_of(flow: int) -> int:
    """Spread as a hash is, odd, and below 2**63."""
    return (flow * 0x9E3779B97F4A7C15 % 2**63) | 1


@given(st.lists(SEGMENTS, max_size=80), st.integers(2, 12), st.integers(1, 80))
def test_the_kernels_say_what_the_twin_says(segments, capacity, size):
    twin = NaiveQuality(capacity)
    quality, tally = MirrorQuality(capacity, directed=False), Tally()
    time_ns, rows = 10**18, []
    for flow, side, flags, sequence, length, step_ns, odd in segments:
        time_ns += step_ns
        rows.append((time_ns, flow, side, flags, sequence, length, odd))
        if odd == 0:
            twin.segment(fingerprint_of(flow), side, flags, sequence, length, time_ns)
        twin.packet(60 - (odd == 3), 60)
    for at in range(0, len(rows), size):
        part = rows[at : at + size]
        heads = records(HEADER, len(part))
        for head, (_, _, _, flags, sequence, length, odd) in zip(heads, part, strict=True):
            head["transport"] = UDP if odd == 1 else TCP
            head["fault"] = 7 if odd == 2 else 0
            head["skip"] = 5 if odd == 3 else 0
            head["tcp_flags"], head["sequence"], head["payload_length"] = flags, sequence, length
        batch = frames.batch([(row[0], bytes(60)) for row in part]).with_columns(
            captured_length=np.array([60 - (row[6] == 3) for row in part], np.uint32)
        )
        fingerprint = np.array(
            [0 if row[6] in (2, 3) else fingerprint_of(row[1]) for row in part], np.uint64
        )
        quality.watch(batch, heads, fingerprint, np.array([row[2] for row in part], np.bool_))
        quality.settle(tally)
    assert tally.starting("mirror") == {w: n for w, n in sorted(twin.found.items()) if n}


def told(raws: list[tuple[int, bytes]], wire: int = 0) -> dict[str, int]:
    """What a whole stage counts of packets, of which each had `wire` bytes more."""
    stage = Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS)
    batch, tally = frames.batch(raws), Tally()
    batch = batch.with_columns(wire_length=batch.wire_length + np.uint32(wire))
    stage.push(batch, tally)
    stage.advance(END_OF_TIME, tally)
    return tally.starting("mirror")


def stream(*places: int, step_ns: int = 10 * MILLISECOND_NS) -> list[tuple[int, bytes]]:
    """Segments of a hundred bytes, by their number in the stream."""
    raws = [frames.tcp(bytes(100), seq=1000 + 100 * place) for place in places]
    return [(n * step_ns, raw) for n, raw in enumerate(raws)]


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([0, 1, 2, 3], {}),
        ([0, 1, 3, 4], {"holes": 1}),
        ([0, 2, 1, 3], {"holes": 1, "holes_filled": 1}),
        ([0, 2, 4, 6], {"holes": 3}),
        ([0, 0, 1, 1], {}),  # sent again, ten milliseconds later
        ([0, 2, 4, 6, 1, 3, 5, 7], {"holes": 3, "holes_filled": 3}),
        ([0, 4, 3, 1, 2, 5], {"holes": 1, "holes_filled": 1}),
        ([0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9], {"holes": 5, "holes_filled": 4}),
    ],
)
def test_holes_and_what_fills_them(places, expected):
    counted = told(stream(*places))
    assert counted == expected | {"flows_watched": 1, "segments_watched": len(places)}


def test_what_comes_again_at_once_was_shown_twice():
    raws = stream(*[n // 2 for n in range(20)], step_ns=100_000)
    assert told(raws) == {"flows_watched": 1, "segments_watched": 20, "segments_twice": 10}


def test_flows_shown_both_ways_and_one_way():
    ends = {"server": "203.0.113.5", "server_port": 80}
    both, one = visit("192.0.2.1", "both.example"), visit("192.0.2.2", "one.example")[:2]
    both.append((14, frames.tcp(b"more", seq=500, client="192.0.2.1", **ends)))
    one += [(t, frames.tcp(b"more", seq=t, client="192.0.2.2", **ends)) for t in (500, 600)]
    brief = visit("192.0.2.3", "brief.example")[:2]
    counted = told([*both, *one, *brief])
    assert (counted["flows_watched"], counted["flows_both_ways"]) == (2, 1)


def test_who_never_answers_is_no_flow_that_is_shown_one_way():
    scan = [(n, frames.tcp(seq=7, flags=frames.SYN, port=n % 2 + 1)) for n in range(8)]
    assert told(scan) == {}


def test_one_packet_of_a_far_future_ends_no_sample():
    quality, tally = MirrorQuality(2, directed=False), Tally()
    for number in range(8):
        for step in range(4):
            time_ns = (1 << 62) if (number, step) == (1, 2) else number * 10 + step
            batch = frames.batch([(time_ns, bytes(60))])
            heads = records(HEADER, 1)
            heads["transport"] = TCP
            fingerprint = np.array([1 + (number << 40)], np.uint64)
            quality.watch(batch, heads, fingerprint, np.array([bool(step % 2)]))
    quality.settle(tally)
    assert tally.starting("mirror")["flows_watched"] >= 3


def test_a_snapshot_goes_on_and_whoever_leaves_leaves_nothing():
    raws = stream(0, 1, 3, 4, 6, 7)
    whole = told(raws)
    first = Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS)
    tally = Tally()
    first.push(frames.batch(raws[:3]), tally)
    second = Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS)
    second.restore(first.snapshot())
    second.push(frames.batch(raws[3:], 4), tally)
    assert tally.starting("mirror") == whole
    gated = classify(a_circle())
    gated.push(frames.batch(visit(MEMBER, "m.example")), tally)
    assert np.count_nonzero(gated.snapshot()["mirror.0"])
    assert gated._scratch.heads.view(np.uint8).any()
    gated.forget(np.array([0], np.int32))
    assert not gated._scratch.heads.view(np.uint8).any()
    assert not np.count_nonzero(gated.snapshot()["mirror.0"])


def lost(raws: list[tuple[int, bytes]], cut: int = 0) -> tuple[int, int, int]:
    """Flows whose name was lost to a gap, to the capture, and sessions; `cut` bytes off each."""
    stage, tally = Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS), Tally()
    batch = frames.batch(raws)
    shorter = batch.with_columns(captured_length=batch.captured_length - np.uint32(cut))
    stage.push(shorter, tally)
    stage.advance(END_OF_TIME, tally)
    return tally.of("lost_gap"), tally.of("lost_cut"), tally.of("sessions:http")


def test_a_flow_that_has_a_name_lost_none_however_many_gaps_it_has():
    request = frames.get("named.example")
    size = len(request)
    segments = [(0, request), (size + 700, request), (2 * size + 700, request)]
    raws = [(n, frames.tcp(raw, seq=1 + at)) for n, (at, raw) in enumerate(segments)]
    assert lost(raws) == (0, 0, 1)
    hidden = [(0, frames.tcp(seq=0, flags=frames.SYN)), (1, frames.tcp(request, seq=700))]
    assert lost(hidden) == (0, 0, 1), "a gap in front, and named after it"
    assert lost([hidden[0], (1, frames.tcp(request[:30], seq=1))]) == (1, 0, 0)


def test_a_flow_whose_requests_are_all_cut_off_is_one_without_a_name():
    request = frames.get("cut.example")
    raws = [(n, frames.tcp(request, seq=1 + n * len(request))) for n in range(20)]
    assert lost(raws, cut=12) == (0, 1, 0)


def test_a_name_that_is_found_after_all_is_taken_back_once():
    request = frames.get("named.example")
    packets = [(0, b""), (700, request), (700 + len(request), request)]
    raws = [
        (n, frames.tcp(raw, seq=at, flags=frames.SYN if n == 0 else frames.ACK))
        for n, (at, raw) in enumerate(packets)
    ]
    assert lost(raws) == (0, 0, 1)


def test_bytes_that_the_capture_kept_nothing_of_are_no_gap():
    hello = frames.client_hello("cut.example")
    opening = frames.tcp(seq=0, flags=frames.SYN)
    behind = frames.tcp(hello[100:], seq=101)
    for raws in ([opening, behind, frames.tcp(hello[:100])], [opening, behind]):
        packets = [(n, raw) for n, raw in enumerate(raws)]
        for kept in (0, 30):
            words = fast(packets, Limits(), snaplen=54 + kept)[1]
            assert (words["lost_cut"], words["lost_gap"]) == (1, 0)
            compare(packets, snaplen=54 + kept)


def test_truncated_packets_are_counted_once_however_they_are_cut_into_batches():
    raws = [(n, frames.tcp(b"x" * 60, port=1024 + n)) for n in range(60)]
    for cuts in ((), range(60), range(0, 60, 7)):
        stage = Classify(
            circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS, limits=Limits(watched=4)
        )
        tally = Tally()
        for batch in frames.batches(raws, cuts, 80):
            stage.push(batch, tally)
        stage.take(tally)
        assert tally.starting("mirror")["packets_truncated"] == 60


def test_a_capture_that_cuts_packets_off_is_told_so():
    assert told(stream(0, 1, 2), wire=40)["packets_truncated"] == 3


def test_behind_a_gate_nobody_can_tell_whether_a_flow_is_shown_both_ways():
    stage, tally = classify(a_circle()), Tally()
    stage.push(frames.batch(visit(MEMBER, "m.example")), tally)
    assert tally.starting("mirror") == {"segments_watched": 1}


def test_many_flows_are_watched_as_a_sample_whose_shares_are_those_of_all():
    drawn = np.random.default_rng(1)
    rows, flows = 120_000, 600
    flow = drawn.integers(0, flows, rows)
    place = np.zeros(flows, np.int64)
    heads, sequence = records(HEADER, rows), np.zeros(rows, np.int64)
    lost = drawn.random(rows) < 0.05
    for row, which in enumerate(flow.tolist()):
        place[which] += 100 * lost[row]
        sequence[row] = place[which]
        place[which] += 100
    heads["transport"], heads["sequence"], heads["payload_length"] = TCP, sequence, 100
    columns = {c.name: np.zeros(rows, c.dtype) for c in columns_of(PacketBatch)}
    batch = PacketBatch(
        source="", source_id=0, first_packet=1, data=np.zeros(0, np.uint8), **columns
    )
    quality, tally = MirrorQuality(64, directed=False), Tally()
    fingerprint = drawn.integers(0, 2**63, flows, dtype=np.uint64) | np.uint64(1)
    quality.watch(batch, heads, fingerprint[flow], np.zeros(rows, np.bool_))
    quality.settle(tally)
    counted = tally.starting("mirror")
    assert rows / 50 < counted["segments_watched"] < rows / 5
    assert counted["holes"] / counted["segments_watched"] == pytest.approx(0.05, abs=0.01)
