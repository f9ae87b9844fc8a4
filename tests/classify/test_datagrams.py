"""QUIC's client hello from datagrams, against the twin: frames, packets and datagrams in any order."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.classify.stage import Classify, Limits
from pipeline.model.columns import concat
from pipeline.model.stage import END_OF_TIME
from pipeline.model.tally import Tally
from pipeline.model.words import ParseFor, SessionFlag
from tests.classify import frames
from tests.classify.frames import SECOND_NS, Packet
from tests.classify.test_gate import MEMBER, OUTSIDER, REFUSER, a_circle, run
from tests.classify.test_gate import classify as gated
from tests.classify.test_track import CUTS, KEYS, SMALL, WORDS, compare, fast, rows_of
from tests.forge import quic
from tests.naive.quic import client_keys

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")  # without JIT
START_NS = 1_700_000_000 * SECOND_NS
MILLISECOND_NS = 1_000_000
FIRST, SECOND, THIRD = b"\x83\x94\xc8\xf0\x3e\x51\x57\x08", b"server's", b"\x07" * 20
NOTHING = SessionFlag(0)
VERSIONS = (
    quic.V1, quic.V2, quic.DRAFT_22, quic.DRAFT_23, quic.DRAFT_27, quic.DRAFT_29, quic.DRAFT_34, quic.MVFST, quic.MVFST_V1,
    quic.MVFST_OLD, quic.GREASE,
)  # fmt: skip


def hello(name: str | bytes | None = "shop.example", padding: int = 0) -> bytes:
    """A client hello without records."""
    extensions = [frames.extension(51, bytes(padding)), frames.alpn(b"h3")]
    if name is not None:
        extensions.append(frames.server_name(name.encode() if isinstance(name, str) else name))
    return b"\x01" + frames.vector(3, frames.hello_body(extensions, session=b""))


LONG = hello("big.example", padding=1300)


def timed(payloads: Sequence[bytes], step_ns: int = MILLISECOND_NS) -> list[Packet]:
    """Datagrams of the client at equal steps."""
    return [(START_NS + n * step_ns, frames.udp(raw)) for n, raw in enumerate(payloads)]


def named(payloads: Sequence[bytes], limits: Limits = Limits()) -> list[tuple[str, str, int]]:  # noqa: B008
    """(host, flags, packet number) of what is found; told to the twin as well."""
    rows = compare(timed(payloads), limits)
    assert all(row.protocol == "quic" for row in rows)
    return [(row.host, SessionFlag(row.flags), row.number) for row in rows]


def words(payloads: Sequence[bytes], limits: Limits = Limits()) -> dict[str, int]:  # noqa: B008
    """What was counted, without the packets that led to a name."""
    compare(timed(payloads), limits)
    return dict(fast(timed(payloads), limits)[1] - fast([], limits)[1])


def halves(at: int = 1000, **more) -> list[bytes]:
    """A long hello in two Initials."""
    return [
        quic.initial(quic.crypto(0, LONG[:at]), number=0, pad_to=1200, **more),
        quic.initial(quic.crypto(at, LONG[at:]), number=1, pad_to=1200, **more),
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_initial_of_every_version(version):
    raw = quic.initial(quic.crypto(0, hello()), version=version, pad_to=1200)
    (row,) = compare(timed([raw]))
    assert (row.protocol, row.host, row.alpn, row.flags) == ("quic", "shop.example", b"h3", 0)
    assert (row.first_ns, row.number) == (START_NS, 1)


@pytest.mark.parametrize("port", [443, 8443, 53])
def test_any_port_will_do(port):
    raw = frames.udp(quic.initial(quic.crypto(0, hello())), port=port)
    assert [row.host for row in compare([(START_NS, raw)])] == ["shop.example"]


@pytest.mark.parametrize("swapped", [False, True])
def test_a_hello_over_two_datagrams_in_either_order(swapped):
    raws = halves()
    assert named(raws[::-1] if swapped else raws) == [("big.example", NOTHING, 2 if swapped else 1)]


def test_a_hello_over_two_packets_of_one_datagram():
    assert named([b"".join(halves())]) == [("big.example", NOTHING, 1)]


def test_shuffled_frames_between_pings_and_padding():
    edges = [*range(0, len(LONG), 97), len(LONG)]
    parts = [(a, LONG[a:b]) for a, b in itertools.pairwise(edges)]
    mixed = b"".join(
        quic.crypto(a, raw) + quic.PING + bytes(n % 4)
        for n, (a, raw) in enumerate(parts[1::2] + parts[::2])
    )
    assert named([quic.initial(mixed)], Limits(pieces=16)) == [("big.example", NOTHING, 1)]


def test_frames_of_acknowledgement_and_close_are_passed_over():
    before = (
        quic.ack(9, [(1, 2), (300, 70_000)])
        + quic.ack(counts=True)
        + quic.close()
        + quic.close(b"", True)
    )
    assert named([quic.initial(before + quic.crypto(0, hello()))]) == [("shop.example", NOTHING, 1)]


@pytest.mark.parametrize("size", range(21))
def test_connection_ids_of_any_length(size):
    raw = quic.initial(quic.crypto(0, hello()), dcid=bytes(range(size)), scid=bytes(20 - size))
    assert named([raw]) == [("shop.example", NOTHING, 1)]


@pytest.mark.parametrize(
    ("number", "size"), [(0, 1), (1, 1), (255, 1), (256, 2), (70_000, 3), (1 << 31, 4)]
)
def test_packet_numbers_of_any_size(number, size):
    raw = quic.initial(quic.crypto(0, hello()), number=number, number_size=size)
    assert named([raw]) == [("shop.example", NOTHING, 1)]


def test_a_number_is_completed_from_those_before():
    first = quic.initial(quic.crypto(0, LONG[:1000]), number=300, number_size=2)
    later = quic.initial(quic.crypto(1000, LONG[1000:]), number=513, number_size=1)
    assert named([first, quic.initial(quic.PING, number=500, number_size=2), later]) == [
        ("big.example", NOTHING, 1)
    ]


def test_keys_stay_when_the_client_takes_the_servers_id():
    first, _ = halves()
    later = quic.initial(quic.crypto(1000, LONG[1000:]), number=1, dcid=SECOND, first_id=FIRST)
    assert named([first, later]) == [("big.example", NOTHING, 1)]


def test_after_a_retry_it_begins_again_with_new_keys():
    first, _ = halves()
    again = [
        quic.initial(quic.crypto(0, LONG[:1000]), number=1, dcid=SECOND, token=b"token" * 20),
        quic.initial(quic.crypto(1000, LONG[1000:]), number=2, dcid=SECOND, token=b"token" * 20),
    ]
    assert named([first, *again]) == [("big.example", NOTHING, 2)]
    assert words([first, *again])["skip:held"] == 1


def test_what_the_server_says_is_passed_over():
    answer = quic.initial(
        quic.ack() + quic.crypto(0, b"\x02\0\0\x02\3\3"), dcid=b"", first_id=FIRST, server=True
    )
    first, later = halves()
    up, down = frames.udp, lambda raw: frames.ethernet(
        frames.ip(frames.SERVER, frames.CLIENT, 17, b"\x01\xbb\xc3\x50" + (8 + len(raw)).to_bytes(2, "big") + b"\0\0" + raw)
    )  # fmt: skip
    handshake = answer + quic.other(quic.HANDSHAKE)
    raws = [up(first), down(handshake), down(b"\x40" + bytes(40)), up(later)]
    packets = [(START_NS + n, raw) for n, raw in enumerate(raws)]
    assert [row.host for row in compare(packets)] == ["big.example"]
    assert fast(packets, Limits())[1]["skip:not_a_client"] == 2
    packets = [(START_NS + n, raw) for n, raw in enumerate([raws[1], raws[0], raws[3]])]
    assert [row.host for row in compare(packets)] == ["big.example"]
    assert fast(packets, Limits())[1]["fault:quic_sealed"] == 1


def test_zero_rtt_and_handshake_around_an_initial():
    early = quic.other(quic.ZERO_RTT, dcid=FIRST)
    first, later = halves()
    assert named([early, early + first, early, later + quic.other(quic.HANDSHAKE)]) == [
        ("big.example", NOTHING, 2)
    ]
    assert words([early, quic.other(quic.RETRY), quic.other(quic.RETRY, version=quic.V2)]) == {
        "skip:quic_unread": 3
    }


def test_version_two_numbers_its_types_anew():
    raws = [
        quic.other(kind, version=quic.V2, dcid=FIRST) + halves(version=quic.V2)[n]
        for n, kind in enumerate((1, 2))
    ]
    assert named(raws) == [("big.example", NOTHING, 1)]


def test_of_two_frames_the_first_wins_and_a_difference_is_told():
    true, false = hello("true.example"), hello("fake.example")
    for one, two, host in ((true, false, "true.example"), (false, true, "fake.example")):
        at = one.index(b".example")
        raws = [
            quic.initial(quic.crypto(0, one[:at])),
            quic.initial(quic.crypto(at - 9, two[at - 9 :]), number=1),
        ]
        assert named(raws) == [(host, SessionFlag.UNRELIABLE, 1)]
    assert named([quic.initial(quic.crypto(5, true[5:])), quic.initial(quic.crypto(0, true))]) == [
        ("true.example", NOTHING, 2)
    ]


def test_datagrams_sent_again_are_passed_over_and_so_is_all_after_the_hello():
    first, later = halves()
    counted = words([first, first, later, later, first, b"\x40" + bytes(50)])
    assert counted == {"named": 2, "skip:passed": 1, "skip:flow_done": 3}


def another(name: str = "other.example", dcid: bytes = SECOND) -> bytes:
    """The Initial of a further connection."""
    return quic.initial(quic.crypto(0, hello(name)), dcid=dcid, pad_to=1200)


def test_a_datagram_lost_costs_one_hello():
    first, _ = halves()
    late = (
        START_NS + 6 * SECOND_NS,
        frames.udp(quic.initial(quic.crypto(0, hello()), dcid=THIRD), port=2),
    )
    packets = [*timed([first]), late]
    assert [row.host for row in compare(packets)] == ["shop.example"]
    counted = fast(packets, Limits())[1]
    assert (counted["fault:hello_incomplete"], counted["skip:held"]) == (1, 1)


def test_names_that_are_none():
    assert words([quic.initial(quic.crypto(0, hello(None)))]) == {"skip:no_name": 1}
    assert words([quic.initial(quic.crypto(0, hello("a..b")))]) == {"fault:sni_bad": 1}
    assert words([quic.initial(quic.crypto(0, b"\x02\0\0\1\0"))]) == {"fault:hello_bad": 1}
    assert words([quic.initial(quic.crypto(0, b"\x01\0\0\1\0"))]) == {"fault:hello_bad": 1}


@pytest.mark.parametrize("offset", [1 << 14, 1 << 20, (1 << 62) - 1])
def test_an_offset_beyond_all_bounds_ends_the_flow(offset):
    raws = [quic.initial(quic.crypto(offset, b"x")), *halves()]
    assert words(raws) == {"fault:hello_too_long": 1, "lost_room": 1, "skip:flow_done": 2}


def test_a_hello_that_claims_too_much_ends_the_flow():
    raws = [quic.initial(quic.crypto(0, b"\x01\xff\xff\xff")), *halves()]
    assert words(raws) == {"fault:hello_too_long": 1, "lost_room": 1, "skip:flow_done": 2}


def test_frames_without_data_for_ever_use_up_the_tries():
    empty = quic.crypto(0, b"") * 200
    raws = [quic.initial(empty + quic.PING, number=n) for n in range(30)]
    assert words(raws) == {"skip:passed": 24, "skip:flow_done": 6, "given_up": 1}


def test_a_hello_that_never_ends_uses_up_the_tries():
    raws = [
        quic.initial(quic.crypto(100 * n, LONG[100 * n : 100 * n + 50]), number=n) for n in range(5)
    ]
    counted = words(raws, Limits(tries=3))
    assert counted == {
        "skip:held": 2,
        "skip:passed": 1,
        "fault:hello_incomplete": 1,
        "lost_room": 1,
        "skip:flow_done": 2,
    }


def test_thousands_of_connection_ids_on_one_flow_use_up_the_tries():
    raws = [quic.initial(quic.crypto(1, b"x"), dcid=n.to_bytes(8, "big")) for n in range(60)]
    counted = words(raws)
    assert counted["skip:flow_done"] > 40
    assert counted["fault:hello_incomplete"] == 1


def test_more_pieces_than_there_is_room_for():
    scattered = b"".join(quic.crypto(10 * n, b"x") for n in range(1, 30))
    assert words([quic.initial(scattered)])["fault:segments_exhausted"] == 1
    assert named([quic.initial(scattered), *halves(dcid=SECOND)]) == [("big.example", NOTHING, 2)]


def test_more_hellos_at_once_than_there_is_room_for():
    packets = [(START_NS, frames.udp(halves()[0], port=port)) for port in range(1, 5)]
    compare(packets, Limits(holdings=2))
    assert fast(packets, Limits(holdings=2))[1]["fault:segments_exhausted"] == 2


@pytest.mark.parametrize("flip", [0, 1, 5, 6, 20, 40, 700, 1199])
def test_a_changed_bit_opens_nothing(flip):
    raw = bytearray(quic.initial(quic.crypto(0, hello()), pad_to=1200))
    raw[flip] ^= 0x10 if flip == 0 else 1
    assert named([bytes(raw)]) == []


def test_lengths_that_lie():
    frame = quic.crypto(0, hello())
    assert words([quic.initial(frame, length=16_000)]) == {"fault:quic_bad": 1}
    assert words([quic.initial(frame, length=19)]) == {"fault:quic_bad": 1}
    assert words([quic.initial(frame, length=60)]) == {"fault:quic_sealed": 1}
    assert words([quic.initial(quic.varint(6) + b"\0\x44" + hello())])["fault:quic_bad"] == 1
    assert (
        words([quic.initial(b"\x02\x01\x01\xff\xff\xff\xff\xff\xff\xff\xff\0")])["fault:quic_bad"]
        == 1
    )
    assert words([quic.initial(quic.PING * 20, dcid=bytes(21))]) == {"fault:quic_bad": 1}
    assert words([quic.initial(quic.PING * 20, scid=bytes(21))]) == {"fault:quic_bad": 1}


@pytest.mark.parametrize("kept", [15, 30, 200, 1199])
def test_a_packet_that_was_cut_off_is_never_read_as_whole(kept):
    raw = frames.udp(quic.initial(quic.crypto(0, hello()), pad_to=1200))
    cut = frames.batch([(START_NS, raw[: 42 + kept])])
    cut.wire_length[0] = len(raw)
    classify, tally = Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS), Tally()
    assert len(classify.push(cut, tally)) == 0
    assert tally.starting("fault") == {"payload_cut": 1}


# Google's.


@pytest.mark.parametrize("version", [b"Q024", b"Q034", b"Q039", b"Q043", b"Q044", b"Q046"])
def test_the_names_of_googles_packets(version):
    raw = quic.google(version, quic.stream(quic.chlo()) + bytes(100))
    assert named([raw]) == [("shop.example", NOTHING, 1)]


def test_googles_sealed_packets():
    raw = quic.initial(quic.crypto(0, quic.chlo(), kind=8), version=quic.Q050, pad_to=1200)
    assert named([raw]) == [("shop.example", NOTHING, 1)]
    message = quic.chlo(pad=900)
    parts = [
        quic.initial(
            b"\7" + quic.crypto(a, message[a : a + 500], kind=8), version=quic.Q050, number=a
        )
        for a in (500, 0)
    ]
    assert named(parts) == [("shop.example", NOTHING, 2)]
    raw = quic.initial(quic.crypto(0, hello(), kind=8), version=quic.T051)
    assert named([raw]) == [("shop.example", NOTHING, 1)]


def test_googles_packets_without_a_hello_and_hellos_without_a_name():
    assert words([quic.google(b"Q043", b"\xa0\x01\0\4REJ\0")]) == {"skip:quic_unread": 1}
    assert words([quic.google(b"Q043", b"\x40" + bytes(20))]) == {"skip:quic_unread": 1}
    assert words([quic.google(b"Q043", quic.stream(quic.chlo(None)))]) == {"skip:no_name": 1}
    assert words([quic.google(b"Q043", quic.stream(quic.chlo()[:60]))]) == {"fault:hello_bad": 1}


def test_versions_that_nobody_knows_and_their_negotiation():
    unknown = quic.other(quic.INITIAL, version=0xFF000015, dcid=FIRST)
    assert words([unknown, quic.negotiation(), quic.negotiation(VERSIONS)]) == {
        "skip:quic_unread": 3
    }
    strange = quic.other(quic.INITIAL, version=0x12345678, dcid=FIRST)
    assert words([strange, quic.negotiation() + b"x", quic.negotiation(())]) == {"skip:udp": 3}


# With a gate, and what stays behind.


def test_behind_the_gate_only_who_is_in_the_parse_set_is_opened():
    first, later = halves()
    packets = [
        (n, frames.udp(raw, client=client))
        for n, (client, raw) in enumerate(
            (client, raw) for raw in (first, later) for client in (MEMBER, REFUSER, OUTSIDER)
        )
    ]
    stage = gated(a_circle())
    found, skips = run(stage, packets)
    assert found == [("big.example", 0, 2)]
    assert skips == {"outside": 2, "unbound": 2}
    assert stage.counts.flows == {"tcp": 0, "udp": 1}
    assert stage.counts.sessions == {"http": 0, "tls": 0, "quic": 1}


def test_a_withdrawal_drops_what_is_held_and_what_was_opened_last():
    first, later = halves()
    stage = gated(a_circle())
    run(stage, [(1, frames.udp(first, client=MEMBER))])
    assert stage.held_rows == 1
    stage.forget(np.array([0]))
    assert stage.held_rows == 0
    assert not stage.snapshot()["memory"].any()
    assert not stage._track.plain.any()
    assert run(stage, [(2, frames.udp(later, client=MEMBER))])[0] == []


def test_keys_and_bytes_are_wiped_once_the_name_is_known():
    stage, tally = Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS), Tally()
    packets = timed(halves())
    stage.push(frames.batch(packets[:1]), tally)
    held = stage.snapshot()["memory"]
    assert b"".join(client_keys("v1", FIRST)) in held.tobytes()
    assert stage.push(frames.batch(packets[1:], 2), tally).host.to_list() == ["big.example"]
    left = stage.snapshot()["memory"].tobytes()
    assert b"".join(client_keys("v1", FIRST)) not in left
    assert LONG[:50] not in left


@given(traffic_cut=st.integers(0, 12), swapped=st.booleans())
def test_a_snapshot_goes_on_where_it_was_taken(traffic_cut, swapped):
    raws = halves() + halves(version=quic.V2, dcid=THIRD)
    packets = [
        (START_NS + n, frames.udp(raw, port=1 + n // 2))
        for n, raw in enumerate(raws[::-1] if swapped else raws)
    ]
    cut = min(traffic_cut, len(packets))
    whole = fast(packets, Limits())[0]
    one, other = (
        Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS, native=native)
        for native in (True, False)
    )
    tally = Tally()
    found = [one.push(b, tally) for b in frames.batches(packets[:cut], []) if cut]
    other.restore(one.snapshot())
    found += [other.push(frames.batch(packets[cut:], cut + 1), tally)] if packets[cut:] else []
    found.append(other.advance(END_OF_TIME, tally))
    assert rows_of(concat(found)) == whole
    assert [row.host for row in whole] == ["big.example"] * 2


# Anything at all.


@st.composite
def hellos(draw) -> bytes:
    name = draw(st.sampled_from(["shop.example", "news.example", None, "a b"]))
    return hello(name, draw(st.sampled_from([0, 300, 1500])))


@st.composite
def conversations(draw) -> list[bytes]:
    """Datagrams of one client: a hello cut, shuffled, doubled, lost, changed, with packets between."""
    version = draw(st.sampled_from([*VERSIONS, quic.Q050]))
    google = version == quic.Q050
    message = quic.chlo(pad=draw(st.sampled_from([10, 900]))) if google else draw(hellos())
    edges = sorted({0, len(message), *draw(st.lists(st.integers(0, len(message)), max_size=9))})
    parts = []
    for a, b in itertools.pairwise(edges):
        back = min(draw(st.sampled_from([0, 0, 0, 7, 200])), a)
        raw = bytearray(message[a - back : b])
        if draw(st.integers(0, 15)) == 0:
            raw[draw(st.integers(0, len(raw) - 1))] ^= 1
        parts.append(quic.crypto(a - back, bytes(raw), 8 if google else 6))
    noise = st.sampled_from(
        [b"", bytes(3)] if google else [b"", b"", quic.PING, bytes(5), quic.ack(), quic.ack(7, [(1, 1)], counts=True),
         quic.close(), quic.crypto(3, b""), b"\x40\x06", quic.crypto(1 << 40, b"x"), b"\x06\x41"]
    )  # fmt: skip
    parts = [part + draw(noise) for part in parts]
    if draw(st.booleans()):
        parts = draw(st.permutations(parts))
    dcid = draw(st.binary(max_size=20))
    number, packets = draw(st.sampled_from([0, 1, 250])), []
    while parts:
        size = draw(st.integers(1, len(parts)))
        taken, parts = b"".join(parts[:size]), parts[size:]
        length = draw(st.sampled_from([None] * 9 + [0, 25, 16_000]))
        packets.append(
            quic.initial(taken, version=version, dcid=dcid if number < 2 else draw(st.sampled_from([dcid, SECOND])),
                         first_id=dcid, number=number, number_size=draw(st.sampled_from([2, 4])),
                         token=draw(st.sampled_from([b"", b"t" * 70])), length=length)
        )  # fmt: skip
        number += draw(st.sampled_from([1, 1, 2, 40_000]))
    if draw(st.booleans()):  # a Retry
        packets += [
            quic.initial(
                quic.crypto(0, message, 8 if google else 6),
                version=version,
                dcid=THIRD,
                number=number,
            )
        ]
    packets += draw(st.lists(st.sampled_from(packets), max_size=2))
    packets = [p for p in packets if draw(st.integers(0, 9))]
    other = st.one_of(
        st.builds(quic.other, st.sampled_from([1, 2, 3]), version=st.just(version if not google else quic.V1), dcid=st.just(dcid)),
        st.sampled_from([quic.negotiation(), quic.initial(quic.PING, server=True), another(), another("shop.example", THIRD), b"\x40" + bytes(30), quic.google(b"Q043", quic.stream(quic.chlo()))]),
        st.binary(max_size=40), st.binary(max_size=30).map(lambda raw: b"\xc1\0\0\0\1" + raw),
        st.binary(max_size=60).map(lambda raw: b"\x0dabcdefghQ043" + raw),
        st.binary(max_size=60).map(lambda raw: quic.google(b"Q046", b"\xa0\x01\0\x09CHLO" + raw)),
    )  # fmt: skip
    out: list[bytes] = []
    for packet in packets:
        if draw(st.integers(0, 3)) == 0:
            packet = draw(other) + packet if draw(st.booleans()) else packet + draw(other)
        if draw(st.integers(0, 3)) == 0:
            out.append(draw(other))
        if draw(st.integers(0, 15)) == 0:
            packet = packet[: draw(st.integers(0, len(packet)))]
        if out and draw(st.integers(0, 3)) == 0:
            out[-1] += packet
        else:
            out.append(packet)
    return out


@st.composite
def traffic(draw) -> list[Packet]:
    """Conversations, one after the other or mixed, in either direction."""
    packets, now = [], START_NS
    for port in range(draw(st.integers(1, 3))):
        for raw in draw(conversations()):
            now += draw(st.sampled_from([0, 10**6, 6 * 10**7, 2 * 10**8, 6 * 10**9]))
            down = draw(st.integers(0, 9)) == 0
            ends = (
                (frames.SERVER, frames.CLIENT, 443, port)
                if down
                else (frames.CLIENT, frames.SERVER, port, 443)
            )
            head = b"".join(n.to_bytes(2, "big") for n in (ends[2], ends[3], 8 + len(raw), 0))
            packets.append((now, frames.ethernet(frames.ip(ends[0], ends[1], 17, head + raw))))
    if draw(st.booleans()):
        order = draw(st.permutations(range(len(packets))))
        packets = [(packets[n][0], packets[m][1]) for n, m in enumerate(order)]
    return packets


FRAMES = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.builds(quic.crypto, st.integers(0, 2000), st.binary(max_size=60)),
        st.builds(quic.crypto, st.integers(0, 80), hellos().map(lambda raw: raw[:70])),
        st.builds(quic.ack, st.integers(0, 70_000), st.lists(st.tuples(st.integers(0, 99), st.integers(0, 2**40)), max_size=3)),
        st.builds(quic.varint, st.integers(0, 2**62 - 1)),
        st.sampled_from([b"\6", b"\x08", b"\0" * 30, b"CHLO", b"\1\0\2\3", quic.chlo()[:90]]),
    ),
    max_size=6,
).map(b"".join)  # fmt: skip


@given(
    st.lists(
        st.tuples(st.sampled_from([quic.V1, quic.Q050, quic.T051]), FRAMES), min_size=1, max_size=6
    )
)
def test_any_bytes_under_a_good_seal(sealed):
    payloads = [
        quic.initial(raw, version=version, number=n) for n, (version, raw) in enumerate(sealed)
    ]
    for limits in (Limits(), SMALL):
        compare(timed(payloads, 10**7), limits)


CHLOS = st.tuples(
    st.sampled_from([0, 1, 2, 3, 200]),
    st.lists(st.tuples(st.sampled_from([b"SNI\0", b"PAD\0"]), st.sampled_from([0, 3, 12, 12, 40, 2**31, 2**32 - 1])), max_size=4),
    st.sampled_from([b"", b"shop.examplenews.example"]),
).map(
    lambda parts: b"CHLO" + parts[0].to_bytes(2, "little") + b"\0\0"
    + b"".join(tag + end.to_bytes(4, "little") for tag, end in parts[1]) + parts[2]
)  # fmt: skip


@given(
    CHLOS,
    st.integers(0, 90),
    st.sampled_from([b"Q024", b"Q033", b"Q034", b"Q043", b"Q044", b"Q045", b"Q046", b"Q0x1"]),
)
def test_any_tags_in_googles_hello(message, kept, version):
    raw = quic.google(version, quic.stream(message))
    compare(timed([raw, raw[:kept], quic.google(version, quic.stream(message, offset=5))]))
    compare(timed([quic.initial(quic.crypto(0, message, kind=8), version=quic.Q050)]))


@given(traffic(), CUTS)
def test_kernels_say_what_the_twin_says(packets, cuts):
    compare(packets, cuts=cuts)


@given(traffic(), CUTS)
def test_so_they_do_when_everything_is_scarce(packets, cuts):
    compare(packets, SMALL, cuts)


@settings(max_examples=20)
@given(traffic(), CUTS)
def test_cryptography_says_what_the_library_says(packets, cuts):
    rows, tally = [], Tally()
    stage = Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=KEYS, native=False)
    for batch in frames.batches(packets, cuts):
        rows.append(stage.push(batch, tally))
    rows.append(stage.advance(END_OF_TIME, tally))
    expected, expected_words, sessions = fast(packets, Limits(), cuts)
    assert rows_of(concat(rows)) == expected
    assert (concat(rows).flow_id == sessions.flow_id).all()
    found = {w: n for (_, w), n in tally.counts.items() if w.startswith(WORDS)}
    assert found == expected_words


@settings(max_examples=20)
@given(traffic())
def test_one_packet_at_a_time_is_the_same_as_all_at_once(packets):
    whole = fast(packets, SMALL)
    for cuts in (range(len(packets)), range(0, len(packets), 7)):
        again = fast(packets, SMALL, cuts)
        assert again[:2] == whole[:2]
        assert (again[2].flow_id == whole[2].flow_id).all()
