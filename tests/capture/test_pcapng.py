"""pcapng: against the twin, in blocks and batches of any size, honest or not, from any bytes."""

from __future__ import annotations

import io
import resource
import struct

import dpkt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.capture.reading import read
from tests.forge.pcapng import (
    COMMENT,
    NAMES,
    STATISTICS,
    TSOFFSET,
    TSRESOL,
    block,
    interface,
    old_packet,
    option,
    packet,
    section,
    simple,
)
from tests.naive.pcapng import frame_pcapng

NOW = 1_700_000_000_123_456_789
SMALL = st.integers(0, 3)
TICKS = st.one_of(
    st.integers(0, 2**64 - 1),
    st.integers(NOW // 1000, NOW // 1000 + 10**9),
    st.sampled_from([0, 2**63 - 1, 2**63, 2**64 - 1, 9_223_372_036 * 10**6, NOW]),
)
RESOLUTIONS = st.one_of(
    st.none(), st.sampled_from([0, 6, 9, 10, 128, 137, 159]), st.integers(0, 255)
)
OFFSETS = st.one_of(
    st.none(),
    st.integers(-(10**10), 10**10),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([-(2**63), 2**63 - 1, 9_223_372_035, 9_223_372_036]),
)
BODIES = st.binary(max_size=20)


def blocks(order: str) -> st.SearchStrategy[bytes]:
    """A block of a section, such as files have."""
    raw, number = st.binary(max_size=30), st.sampled_from([0, 0, 0, 1, 2])
    options = st.one_of(st.just(b""), BODIES.map(lambda text: option(order, COMMENT, text)))
    return st.one_of(
        st.builds(packet, st.just(order), raw, TICKS, st.just(0)),
        st.builds(packet, st.just(order), raw, TICKS, number, options=options),
        st.builds(old_packet, st.just(order), raw, TICKS, number),
        st.builds(simple, st.just(order), raw, st.one_of(st.none(), st.integers(0, 90))),
        st.builds(interface, st.just(order), SMALL, SMALL, RESOLUTIONS, OFFSETS, options),
        st.builds(block, st.just(order), st.sampled_from([NAMES, STATISTICS, 10, 2989]), BODIES),
    )


def strange_blocks(order: str) -> st.SearchStrategy[bytes]:
    """A block that is not as it should be, as a rule."""
    lengths = st.one_of(st.integers(0, 20).map(lambda n: 4 * n), st.integers(0, 2**32 - 1))
    kinds = st.integers(0, 6)
    return st.one_of(
        st.builds(packet, st.just(order), BODIES, TICKS, SMALL, SMALL, st.integers(0, 70)),
        st.builds(interface, st.just(order), SMALL, SMALL, RESOLUTIONS, OFFSETS, BODIES),
        st.builds(block, st.just(order), kinds, BODIES),
        st.builds(block, st.just(order), kinds, BODIES, lengths),
        st.builds(block, st.just(order), kinds, BODIES, st.none(), lengths),
        st.builds(section, st.just(order), st.just(2)),
    )


@st.composite
def sections(draw: st.DrawFn) -> bytes:
    """A section: a header, interfaces, blocks, and now and then something strange among them."""
    order = draw(st.sampled_from("<>"))
    held = draw(st.lists(blocks(order), max_size=9))
    if draw(st.integers(0, 3)) == 0:
        held.insert(draw(st.integers(0, len(held))), draw(strange_blocks(order)))
    described = draw(st.builds(interface, st.just(order), SMALL, SMALL, RESOLUTIONS, OFFSETS))
    return section(order) + described + interface(order, 1) + b"".join(held)


FILES = st.lists(sections(), min_size=1, max_size=3).map(b"".join)


def same_as_twin(raw: bytes, rows: int = 4096, block_bytes: int = 1 << 16) -> None:
    """Does the reader say what the twin says?"""
    found, expected = read(raw, rows, block_bytes), frame_pcapng(raw)
    theirs = [(p.time_ns, p.wire, p.raw, p.interface, p.link_type) for p in expected.packets]
    assert [tuple(row) for row in found.rows] == theirs
    assert found.faults == dict(expected.faults)


@given(FILES, st.integers(1, 9), st.integers(1, 600))
def test_reading_equals_the_twin_however_it_is_cut(raw, rows, block_bytes):
    same_as_twin(raw, rows, block_bytes)


@given(FILES, st.data())
def test_what_was_changed_or_cut_gives_what_came_before(raw, data):
    changed = bytearray(raw)
    for _ in range(data.draw(st.integers(0, 3))):
        changed[data.draw(st.integers(4, len(raw) - 1))] = data.draw(st.integers(0, 255))
    same_as_twin(bytes(changed[: data.draw(st.integers(4, len(raw)))]), 3, 50)


@given(st.binary(max_size=200))
@example(bytes(60))
@example(b"")
def test_any_bytes_are_read_to_their_end(raw):
    same_as_twin(b"\x0a\x0d\x0d\x0a" + raw)


@given(TICKS, st.integers(0, 255), OFFSETS, st.sampled_from("<>"))
@example(2**64 - 1, 128 + 64, None, "<")
@example(2**64 - 1, 128 + 33, None, "<")
@example(2**64 - 1, 128 + 34, None, ">")
@example(2**64 - 1, 28, None, "<")
@example(2**64 - 1, 0, -(2**63), "<")
@example(9_223_372_036, 0, None, "<")
@example(9_223_372_035, 0, None, ">")
@example(9_223_372_036 * 10**9, 9, None, "<")
@example(9_223_372_036 * 10**9 - 1, 9, None, "<")
@example(36, 0, 9_223_372_000, "<")
@example(35, 0, 9_223_372_000, ">")
def test_times_are_exact_for_any_resolution_and_offset(ticks, resolution, offset, order):
    found = read(
        section(order) + interface(order, 1, 0, resolution, offset) + packet(order, b"", ticks)
    )
    power = resolution & 127
    exact = ticks * 10**9 // (2**power if resolution & 128 else 10**power) + (offset or 0) * 10**9
    if 0 <= exact < 9_223_372_036 * 10**9:
        assert (found.rows[0].time_ns, found.faults) == (exact, {})
    else:
        assert (found.rows[0].time_ns, found.faults) == (0, {"time_bad": 1})


def test_a_packet_without_a_time_gets_that_of_the_one_before():
    raw = section("<") + interface("<") + simple("<", b"a") + packet("<", b"b", 7)
    raw += simple("<", b"c") + packet("<", b"d", 2**64 - 1) + packet("<", b"e", 5)
    raw += section(">") + interface(">", 101) + simple(">", b"f")
    found = read(raw)
    assert [row.time_ns for row in found.rows] == [0, 7000, 7000, 7000, 5000, 5000]
    assert found.faults == {"time_missing": 3, "time_bad": 1}


def test_a_simple_packet_is_as_long_as_snap_length_block_and_wire_allow():
    head = section("<") + interface("<", snap=6) + interface("<", snap=2)
    for wire, captured in ((3, 3), (6, 6), (9, 6)):
        found = read(head + simple("<", bytes(8), wire))
        assert [(row.wire, len(row.raw)) for row in found.rows] == [(wire, captured)]
    found = read(section("<") + interface("<") + simple("<", bytes(8), 100))
    assert [(row.wire, len(row.raw)) for row in found.rows] == [(100, 8)]


def test_interfaces_are_those_of_their_section():
    raw = section("<") + interface("<", 1, resolution=9) + interface("<", 113)
    raw += packet("<", b"a", 1, 1) + packet("<", b"b", 1, 0) + packet("<", b"c", 1, 2)
    raw += section(">") + packet(">", b"d", 1) + interface(">", 101) + packet(">", b"e", 1)
    found = read(raw)
    assert found.rows == [(1000, 1, b"a", 1, 113), (1, 1, b"b", 0, 1), (1000, 1, b"e", 0, 101)]
    assert found.faults == {"interface_unknown": 2}


def test_there_is_an_end_to_interfaces():
    head = section("<") + interface("<", 1) * 4095 + interface("<", 7) + interface("<", 8) * 9
    found = read(head + packet("<", b"a", 0, 4095) + packet("<", b"b", 0, 4096))
    assert [(row.raw, row.interface, row.link_type) for row in found.rows] == [(b"a", 4095, 7)]
    assert found.faults == {"interface_unknown": 1}


def test_a_description_that_cannot_be_read_keeps_its_number():
    short = block("<", 1, bytes(4))
    long = block("<", 1, bytes((1 << 18) - 8))
    longest = block("<", 1, struct.pack("<HHI", 8, 0, 0) + bytes((1 << 18) - 20))
    raw = section("<") + short + long + interface("<", 9) + longest
    raw += b"".join(packet("<", bytes([65 + n]), 0, n) for n in range(4))
    found = read(raw)
    assert [(row.raw, row.link_type) for row in found.rows] == [(b"C", 9), (b"D", 8)]
    assert found.faults == {"block_bad": 2, "interface_unknown": 2}


def test_options_that_do_not_hold_are_counted_and_left():
    for wrong in (
        option("<", TSRESOL, b"\x09\x09"),
        option("<", TSOFFSET, b"\x01"),
        struct.pack("<HH", COMMENT, 100),
    ):
        found = read(section("<") + interface("<", 1, options=wrong) + packet("<", b"a", 3))
        assert [row.time_ns for row in found.rows] == [3000]
        assert found.faults == {"block_bad": 1}


def test_options_end_where_they_say_or_where_their_block_does():
    ended = option("<", 0, b"") + option("<", TSRESOL, b"\x00")
    found = read(section("<") + interface("<", 1, options=ended) + packet("<", b"a", 3))
    assert ([row.time_ns for row in found.rows], found.faults) == ([3000], {})
    last = struct.pack("<HHI", 1, 0, 0) + option("<", TSRESOL, b"")
    found = read(section("<") + block("<", 1, last) + packet("<", b"a", 3))
    assert ([row.time_ns for row in found.rows], found.faults) == ([3000], {"block_bad": 1})


def test_a_section_of_another_version_is_passed_over():
    raw = section("<") + interface("<") + packet("<", b"a")
    raw += section(">", 2) + interface(">") + packet(">", b"b") + block(">", 6, b"")
    raw += section("<") + interface("<") + packet("<", b"c")
    for rows, block_bytes in ((4096, 1 << 16), (1, 24)):
        found = read(raw, rows, block_bytes)
        assert found.packets == [b"a", b"c"]
        assert found.faults == {"section_unsupported": 1}


@pytest.mark.parametrize("where", ["length", "trailer", "odd", "order", "section"])
def test_a_length_that_lies_ends_the_file(where):
    bad = {
        "length": block("<", NAMES, bytes(8), length=8),
        "trailer": block("<", NAMES, bytes(8), trailer=24),
        "odd": block("<", NAMES, bytes(8), length=18),
        "section": block("<", 0x0A0D0D0A, struct.pack("<IHHI", 0x1A2B3C4D, 1, 0, 0)),
        "order": b"\x0a\x0d\x0d\x0a" + bytes(24),
    }[where]
    found = read(section("<") + interface("<") + packet("<", b"a") + bad + packet("<", b"b"))
    assert found.packets == [b"a"]
    assert found.faults == {"record_header_bad": 1}
    assert "after packet 1" in found.reader.problem


def test_a_packet_that_does_not_fit_is_passed_over():
    raw = section("<") + interface("<") + packet("<", b"abcd", captured=5)
    raw += packet("<", bytes((1 << 18) + 1)) + block("<", 6, bytes(16)) + packet("<", b"e")
    found = read(raw)
    assert found.packets == [b"e"]
    assert found.faults == {"block_bad": 3}


def test_a_packet_larger_than_a_block_is_read():
    raw = bytes(range(256)) * 1024
    found = read(
        section("<") + interface("<") + packet("<", raw, options=bytes(1000)), block_bytes=64
    )
    assert found.packets == [raw]
    assert not found.faults


class Endless(io.RawIOBase):
    """A head, and then zeros up to a length that nobody holds in memory."""

    def __init__(self, head: bytes, length: int, tail: bytes) -> None:
        self.head, self.left, self.tail = head, length, tail

    def readinto(self, room) -> int:
        if self.head:
            count = min(len(room), len(self.head))
            room[:count], self.head = self.head[:count], self.head[count:]
        elif self.left:
            count = min(len(room), self.left)
            self.left -= count
        else:
            count = min(len(room), len(self.tail))
            room[:count], self.tail = self.tail[:count], self.tail[count:]
        return count


@pytest.mark.parametrize("kind", [NAMES, 2989, 6])
def test_a_block_of_gigabytes_is_passed_over_in_little_memory(kind):
    length = 0xFFFF_FFFC
    head = section("<") + interface("<") + struct.pack("<II", kind, length)
    tail = struct.pack("<I", length) + packet("<", b"behind it")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = read(Endless(head, length - 12, tail), block_bytes=1 << 20)
    assert found.packets[-1] == b"behind it"
    assert found.packets[:-1] == ([b""] if kind == 6 else [])
    assert not found.faults
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


def test_a_file_cut_anywhere_gives_a_prefix_and_says_so():
    raw = section("<") + interface("<", resolution=9) + interface("<", 113)
    raw += packet("<", b"first", 5, options=option("<", COMMENT, b"said")) + simple("<", b"second")
    raw += block("<", STATISTICS, bytes(12)) + section(">") + interface(">")
    raw += packet(">", b"third", 6) + old_packet(">", b"fourth", 7)
    whole = read(raw).rows
    assert [row.raw for row in whole] == [b"first", b"second", b"third", b"fourth"]
    ends = {at for at in range(len(raw) + 1) if "file_truncated" not in read(raw[:at]).faults}
    starts, at = {0}, 0
    while at < len(raw):
        order = "<" if at < raw.rindex(b"\x0a\x0d\x0d\x0a") else ">"
        at += struct.unpack_from(order + "I", raw, at + 4)[0]
        starts.add(at)
    assert ends - {0, 1, 2, 3} == starts - {0}
    for at in range(len(raw)):
        found = read(raw[:at], block_bytes=16).rows
        assert found == whole[: len(found)]


@given(st.lists(st.tuples(st.integers(0, 2**40), st.binary(min_size=1, max_size=30)), max_size=9))
def test_dpkt_reads_the_same(packets):
    raw = section("<") + interface("<") + b"".join(packet("<", p, t) for t, p in packets)
    theirs = [(round(t * 10**6), p) for t, p in dpkt.pcapng.Reader(io.BytesIO(raw))]
    assert [(row.time_ns // 1000, row.raw) for row in read(raw).rows] == theirs
