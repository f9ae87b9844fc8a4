"""Inputs come in one order, whatever the files and however packets are cut."""

import gzip
import io
import itertools
import struct
from itertools import pairwise

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipeline.capture.recognise import InputKind
from pipeline.engine import Engine
from pipeline.kernels.circle import in_parse_set
from pipeline.model.batches import PacketBatch
from pipeline.model.identifiers import Keys
from pipeline.model.settings import EngineSettings
from pipeline.model.stage import END_OF_TIME
from pipeline.model.tally import Tally
from pipeline.model.words import Basis, ParseFor, outside
from pipeline.rulebook.read import load
from pipeline.run.ingest import ingest
from pipeline.run.inputs import (
    InputError,
    PacketFeed,
    _Lane,
    first_time,
    read_facts,
    sort_files,
)
from pipeline.run.strays import without_strays
from tests.forge.heads import document
from tests.forge.pcapng import interface, packet, section
from tests.forge.wire import Conversation, Wire

KEYS = Keys.from_seed("inputs")
CIRCLE = "# mirrorpoint circle v1\nevent_ns\treceived_ns\tlogin\tstate\tterms\n"
SIGNINS = "# mirrorpoint sign-ins v1\nevent_ns\treceived_ns\tkind\tlogin\taddress\n"
ORDERS = "# mirrorpoint orders v1\nevent_ns\treceived_ns\tlogin\tref\tpoints\n"


T0 = 1_772_323_200_000_000_000


def write(path, head, rows):
    lines = ["\t".join(map(str, (T0 + row[0], T0 + row[1], *row[2:]))) + "\n" for row in rows]
    path.write_text(head + "".join(lines))
    return path


def pcap(times_ns):
    head = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)
    body = bytes(60)
    packets = [struct.pack("<IIII", t // 10**9, t % 10**9, 60, 60) + body for t in times_ns]
    return head + b"".join(packets)


@pytest.fixture
def facts(tmp_path):
    circle = write(
        tmp_path / "circle.tsv",
        CIRCLE,
        [(5, 10, "a", "listed", "1"), (5, 30, "a", "left", "1"), (6, 40, "b", "listed", "1")],
    )
    signins = write(
        tmp_path / "signins.tsv",
        SIGNINS,
        [(9, 10, "start", "a", "192.0.2.1"), (20, 20, "start", "b", "192.0.2.2"),
         (31, 31, "stop", "a", "192.0.2.1")],
    )  # fmt: skip
    orders = write(
        tmp_path / "orders.tsv", ORDERS, [(30, 30, "a", "o1", 5), (35, 35, "b", "o2", 6)]
    )
    files = sort_files([signins, orders, circle])
    assert not files.captures
    return read_facts(files.texts, Tally())


def test_merged_by_received_kind_and_row(facts):
    assert (facts.received_ns - T0).tolist() == [10, 10, 20, 30, 30, 31, 35, 40]
    assert facts.rank.tolist() == [0, 1, 1, 0, 4, 1, 4, 0]
    for parse_for in (ParseFor.CONSENTED, ParseFor.LISTED):
        assert facts.withdrawals(parse_for, lambda _: False).tolist() == [3]


def test_nothing_moves_across_a_change_of_the_circle(facts):
    runs = [(kind, batch.row.tolist()) for kind, batch in facts.runs(0, len(facts))]
    assert runs == [
        (InputKind.CIRCLE, [1]),
        (InputKind.SIGNINS, [1, 2]),
        (InputKind.CIRCLE, [2]),
        (InputKind.SIGNINS, [3]),
        (InputKind.ORDERS, [1, 2]),
        (InputKind.CIRCLE, [3]),
    ]


@given(st.data())
def test_runs_of_parts_are_the_runs_of_the_whole(facts_of_many, data):
    facts = facts_of_many
    stops = sorted(data.draw(st.lists(st.integers(0, len(facts)), max_size=5)))
    edges = [0, *stops, len(facts)]
    seen = {kind: [] for kind in InputKind}
    for a, b in pairwise(edges):
        for kind, batch in facts.runs(a, b):
            seen[kind] += batch.received_ns.tolist()
    for kind, batch in facts.runs(0, len(facts)):
        assert batch.received_ns.tolist() == seen[kind][: len(batch)]
        del seen[kind][: len(batch)]
    assert not any(seen.values())


@pytest.fixture(scope="module")
def facts_of_many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("facts")
    random = np.random.default_rng(3)
    circle = [
        (t, t, f"m{t % 7}", "listed", "1") for t in sorted(random.integers(0, 99, 9).tolist())
    ]
    signins = [
        (t, t, "start", "a", "192.0.2.1") for t in sorted(random.integers(0, 99, 30).tolist())
    ]
    orders = [
        (t, t, "a", f"o{n}", 1) for n, t in enumerate(sorted(random.integers(0, 99, 9).tolist()))
    ]
    paths = [
        write(folder / "c.tsv", CIRCLE, circle),
        write(folder / "s.tsv", SIGNINS, signins),
        write(folder / "o.tsv", ORDERS, orders),
    ]
    return read_facts(sort_files(paths).texts, Tally())


def test_whoever_leaves_the_parse_set_is_a_withdrawal(tmp_path):
    rows = [
        (0, 0, "wren", "consented", "1"),
        (1, 1, "robin", "listed", "1"),
        (2, 2, "robin", "consented", "1"),
        (3, 3, "wren", "listed", "1"),
        (4, 4, "wren", "listed", "1"),
        (5, 5, "robin", "listed", "1"),
        (6, 6, "known", "listed", "1"),
        (7, 7, "known", "left", "1"),
    ]
    facts = read_facts(sort_files([write(tmp_path / "c.tsv", CIRCLE, rows)]).texts, Tally())
    known = {"known"}.__contains__
    assert facts.withdrawals(ParseFor.CONSENTED, known).tolist() == [3, 4, 5, 6, 7]
    assert facts.withdrawals(ParseFor.CONSENTED, lambda _: False).tolist() == [3, 4, 5, 7]
    assert facts.withdrawals(ParseFor.LISTED, known).tolist() == [7]


def test_a_withdrawal_is_one_whatever_came_late_before_it(tmp_path):
    """The second row is older than the first: who was let in by that is so until the third."""
    rows = [(10, 11, "wren", "consented", "1"), (5, 12, "wren", "listed", "1")]
    rows += [(20, 21, "wren", "listed", "1")]
    facts = read_facts(sort_files([write(tmp_path / "c.tsv", CIRCLE, rows)]).texts, Tally())
    assert facts.withdrawals(ParseFor.CONSENTED, lambda _: False).tolist() == [1, 2]


def test_the_parse_set_is_the_one_that_the_gate_knows():
    for parse_for in ParseFor:
        inside = {int(b) for b in Basis} - set(outside(parse_for))
        if parse_for is not ParseFor.EVERYONE:  # of whom no gate is asked
            assert inside == {int(b) for b in Basis if in_parse_set(int(b), int(parse_for))}


def visits_of(folder, state):
    """Visits of a member whose standing is `state` for a while in the middle of a request."""
    folder.mkdir()
    second = 1_000_000_000
    changes = ((0, "consented"), (2 * second, state), (2 * second + 1, "consented"))
    rows = [(at, at, "wren", standing, "1") for at, standing in changes]
    texts = [
        write(folder / "c.tsv", CIRCLE, rows),
        write(folder / "s.tsv", SIGNINS, [(0, 0, "start", "wren", "198.51.100.77")]),
    ]
    wire, head = Wire("two segments"), document("acme.example")
    talk = Conversation(wire, T0 + second, "198.51.100.77", "203.0.113.10", 80, ())
    talk.say(head, cuts=(len(head) - 2,), wait_ns=2 * second)
    wire.write(folder / "a.pcap")
    engine = Engine(load(None), KEYS, b"x", EngineSettings(ParseFor.CONSENTED, ()))
    streams = []
    feed = PacketFeed([folder / "a.pcap"], Tally())
    facts = read_facts(sort_files(texts).texts, Tally())
    ingest(engine, facts, feed, streams.extend, lambda _: None)
    feed.close()
    return sum(len(batch) for stream, batch in streams if stream == "visits")


def test_held_bytes_go_when_consent_becomes_a_mere_listing(tmp_path):
    assert visits_of(tmp_path / "a", "listed") == visits_of(tmp_path / "b", "left") == 0
    assert visits_of(tmp_path / "c", "consented") == 2, "opened and closed"


def test_a_row_of_a_file_is_found(facts, tmp_path):
    assert facts.index_after(tmp_path / "circle.tsv", 2) == 4
    assert facts.index_after(tmp_path / "orders.tsv", 2) == 7
    assert facts.index_after(tmp_path / "orders.tsv", 3) is None
    assert facts.index_after(tmp_path / "else.tsv", 1) is None


def drain(feed, limits):
    taken = []
    for limit in [*limits, END_OF_TIME]:
        while (got := feed.take_before(limit)) is not None:
            batch, key = got
            assert key < limit
            taken += [
                (batch.source, batch.first_packet + i, int(batch.time_ns[i]))
                for i in range(len(batch))
            ]
    return taken


def feed_of(files, rows):
    feed = PacketFeed([], Tally())
    feed._lanes = [
        _Lane(io.BytesIO(pcap(times)), f"f{n}", n, Tally(), rows) for n, times in enumerate(files)
    ]
    return feed


DAY = 24 * 3600 * 10**9


def times_kept(times, rows):
    """Packet numbers that come out, and how many were left out for their time."""
    tally = Tally()
    feed = PacketFeed([], tally)
    feed._lanes = [_Lane(io.BytesIO(pcap(times)), "f", 0, tally, rows)]
    kept = [number for _, number, _ in drain(feed, [])]
    return kept, tally.counts["capture", "fault:time_bad"]


def stray_packets(times):
    """The same, told slowly: look ahead from each packet as far as it takes."""
    kept, opening = [], sorted(times[:8])
    highest = opening[(len(opening) - 1) // 2] if times else 0
    at = 0
    while at < len(times):
        ahead = list(itertools.takewhile(lambda t: t > highest + DAY, times[at : at + 8]))  # noqa: B023
        fell_back = len(ahead) < 8 and at + len(ahead) < len(times)
        if ahead and fell_back:
            at += len(ahead)
            continue
        step = max(len(ahead), 1)
        kept += range(at + 1, at + 1 + step)
        highest = ahead[-1] if ahead else max(highest, times[at])
        at += step
    return kept, len(times) - len(kept)


@given(
    st.lists(st.sampled_from([0, 1, DAY, DAY + 1, DAY + 2, 2 * DAY + 5, 9 * DAY]), max_size=40),
    st.integers(1, 50),
)
def test_packets_from_the_future_are_left_out_however_they_are_cut(times, rows):
    assert times_kept(times, rows) == stray_packets(times)


def test_a_clock_that_has_really_moved_on_is_believed():
    kept, left_out = times_kept([0, 5, 9 * DAY, 6, *[3 * DAY] * 10, 7], 4)
    assert kept == [1, 2, *range(4, 16)]
    assert left_out == 1


@pytest.mark.parametrize("rows", [1, 3, 4096])
@pytest.mark.parametrize(
    ("times", "strays"),
    [
        ([*range(20), *range(2 * DAY, 2 * DAY + 20)], []),  # a quiet day
        ([*range(20), *range(2 * DAY, 2 * DAY + 5)], []),  # and few packets after it
        ([0, *range(9 * DAY, 9 * DAY + 20)], []),  # a clock that was not set yet
        ([90 * DAY, *range(20)], [1]),  # the first one is the stray
        ([90 * DAY, 0], [1]),
        ([0, 1, 90 * DAY, 91 * DAY, 2, 95 * DAY, 3], [3, 4, 6]),
        ([0, 90 * DAY], []),
    ],
)
def test_no_good_packet_is_left_out_for_its_time(times, strays, rows):
    kept, left_out = times_kept(times, rows)
    assert sorted({*range(1, len(times) + 1)} - {*kept}) == strays
    assert left_out == len(strays)


def test_packets_that_wait_keep_their_bytes():
    """The framer's one buffer is written over while they wait."""

    def batches():
        buffer = np.zeros(8, np.uint8)
        for number, time_ns in enumerate([0, 0, 0, 0, 0, 0, 0, 0, 5 * DAY, 5 * DAY]):
            buffer[:] = number
            zeros = (np.zeros(1, np.uint16), np.ones(1, np.uint16), np.zeros(1, np.int32))
            lengths = np.full(1, 4, np.uint32)
            times = np.array([time_ns])
            yield PacketBatch(
                "f", 0, number + 1, buffer, np.array([2]), lengths, lengths, times, *zeros
            )

    found = [
        (batch.first_packet, batch.data[batch.offset[0]], batch.data[batch.offset[0] + 3])
        for batch in without_strays(batches(), Tally())
    ]
    assert found[-2:] == [(9, 8, 8), (10, 9, 9)]
    assert [first for first, *_ in found] == list(range(1, 11))


def test_packets_before_any_that_has_a_time_are_no_measure_of_the_rest():
    assert times_kept([0, 0, T0, T0 + 5], 1) == ([1, 2, 3, 4], 0)
    assert times_kept([0, 0, T0, T0 + 5, T0 + 2 * DAY, T0 + 6], 3) == ([1, 2, 3, 4, 6], 1)


@given(
    st.lists(st.lists(st.integers(0, 50), max_size=12), min_size=1, max_size=3),
    st.integers(1, 5),
    st.lists(st.integers(0, 60), max_size=4),
)
def test_packets_of_several_captures_come_in_one_order(files, rows, limits):
    whole = drain(feed_of(files, 4096), [])
    assert drain(feed_of(files, rows), sorted(limits)) == whole
    assert len(whole) == sum(map(len, files))
    for n, times in enumerate(files):
        assert [t for source, _, t in whole if source == f"f{n}"] == times
    highest = [(np.maximum.accumulate(times).tolist() if times else []) for times in files]
    keys = [highest[int(source[1:])][number - 1] for source, number, _ in whole]
    assert keys == sorted(keys)


@pytest.mark.parametrize("rows", [1, 7, 4096])
def test_the_container_makes_no_difference_to_a_feed(rows, tmp_path):
    times = [T0 + n * 10 for n in range(50)]
    times[20], times[30] = T0 + 3, T0 + 2 * DAY  # one late, one from the future
    newer = section(">") + interface(">", resolution=9)
    newer += b"".join(packet(">", bytes(60), time_ns) for time_ns in times)
    other = pcap([time_ns + 5 for time_ns in times])
    limits = [T0 + 100, T0 + 333]

    def fed(content):
        paths = [tmp_path / "some", tmp_path / "other"]
        for path, raw in zip(paths, (content, other), strict=True):
            path.write_bytes(raw)
        tally = Tally()
        feed = PacketFeed(paths, tally, rows)
        taken = drain(feed, limits)
        feed.close()
        return taken, tally.counts

    expected = fed(pcap(times))
    assert len(expected[0]) == 2 * 49
    assert expected[1]["capture", "fault:time_bad"] == 2
    for content in (newer, gzip.compress(newer), zstandard.compress(pcap(times))):
        assert fed(content) == expected


def test_captures_are_told_from_texts_whatever_they_are_packed_in(tmp_path):
    raw = pcap([T0, T0 + 5])
    contents = {
        "plain": raw,
        "gz": gzip.compress(raw),
        "zst": zstandard.compress(raw),
        "cut": gzip.compress(raw)[:5],
        "newer": section("<") + interface("<", resolution=9) + packet("<", b"", T0),
        "empty": pcap([]),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "text").write_bytes(gzip.compress(SIGNINS.encode()))
    paths = [tmp_path / name for name in contents]
    assert sort_files(paths).captures == tuple(paths)
    times = [T0, T0, T0, END_OF_TIME, T0, END_OF_TIME]
    assert [first_time(path) for path in paths] == times
    with pytest.raises(InputError) as caught:
        sort_files([tmp_path / "text", *paths])
    assert len(caught.value.problems) == 1
    assert "compressed, and not a capture" in caught.value.problems[0]


def test_unknown_files_are_all_named(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "b.bin").write_bytes(b"\0" * 9)
    with pytest.raises(InputError) as raised:
        sort_files([tmp_path / "a.txt", tmp_path / "b.bin", tmp_path / "none.pcap"])
    assert len(raised.value.problems) == 3
