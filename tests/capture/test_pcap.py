"""Classic captures: against the twin and dpkt, in blocks and batches of any size, from any bytes."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.capture.reading import read
from tests.naive.pcap import frame_pcap

MAGICS = {1000: 0xA1B2C3D4, 1: 0xA1B23C4D, 0: 0xA1B2CD34}  # 0: Kuznetzov's
Record = tuple[
    int, int, int, bytes
]  # seconds, fraction, wire length beyond what is captured, bytes


def capture(
    records: Sequence[Record], order: str = "<", tick_ns: int = 1000, link_type: int = 1
) -> bytes:
    """A file."""
    raw = struct.pack(order + "IHHiIII", MAGICS[tick_ns], 2, 4, 0, 0, 65535, link_type)
    for seconds, fraction, more, packet in records:
        length = len(packet)
        raw += struct.pack(order + "IIII", seconds, fraction, length, max(0, length + more))
        raw += (bytes(8) if tick_ns == 0 else b"") + packet
    return raw


RECORDS = st.lists(
    st.tuples(
        st.integers(0, 2**32 - 1),
        st.one_of(st.integers(0, 999_999), st.integers(0, 2**32 - 1)),
        st.integers(-5, 3),  # on the wire; a file that lies says less than it captured
        st.binary(max_size=30),
    ),
    max_size=12,
)
FILES = st.builds(capture, RECORDS, st.sampled_from("<>"), st.sampled_from([1000, 1, 0]))


def same_as_twin(raw: bytes, rows: int = 4096, block_bytes: int = 1 << 16) -> None:
    """Does the reader say what the twin says?"""
    found, expected = read(raw, rows, block_bytes), frame_pcap(raw)
    assert [row[:3] for row in found.rows] == expected.packets
    assert {row.link_type for row in found.rows} <= {expected.link_type}
    assert {row.interface for row in found.rows} <= {0}
    strange = {"time_bad": expected.strange} if expected.strange else {}
    assert found.faults == strange | ({expected.fault: 1} if expected.fault else {})
    assert bool(found.reader.problem) == bool(expected.fault)


@given(FILES, st.integers(1, 9), st.integers(1, 200))
def test_reading_equals_the_twin_however_it_is_cut(raw, rows, block_bytes):
    same_as_twin(raw, rows, block_bytes)
    assert not frame_pcap(raw).fault


@given(FILES, st.data())
def test_a_file_that_was_changed_or_cut_gives_what_came_before(raw, data):
    changed = bytearray(raw)
    for _ in range(data.draw(st.integers(0, 2))):
        changed[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = bytes(changed[: data.draw(st.integers(0, len(raw)))])
    # A compressed or newer file is another test's.
    if raw[:2] != b"\x1f\x8b" and raw[:4] != b"\x0a\x0d\x0d\x0a":
        same_as_twin(raw, 3, 50)


@given(RECORDS)
def test_dpkt_reads_the_same(records):
    raw = capture(records)
    theirs = [packet for _, packet in dpkt.pcap.Reader(io.BytesIO(raw))]
    assert read(raw).packets == theirs


def test_times_are_exact():
    raw = capture([(1_700_000_000, 999_999, 0, b"")], tick_ns=1000)
    assert read(raw).rows[0].time_ns == 1_700_000_000_999_999_000
    raw = capture([(1_700_000_000, 999_999_999, 0, b"")], tick_ns=1)
    assert read(raw).rows[0].time_ns == 1_700_000_000_999_999_999


@pytest.mark.parametrize(("tick_ns", "most"), [(1000, 999_999), (1, 999_999_999)])
def test_no_fraction_takes_a_packet_out_of_its_second(tick_ns, most):
    records = [(7, most, 0, b""), (7, most + 1, 0, b""), (2**32 - 1, 2**32 - 1, 0, b"")]
    found = read(capture(records, tick_ns=tick_ns))
    last = 2**32 * 10**9 - 1
    assert [row.time_ns for row in found.rows] == [7 * 10**9 + most * tick_ns, 8 * 10**9 - 1, last]
    assert found.faults == {"time_bad": 2}


def test_a_lying_length_ends_the_file_with_a_count_and_a_sentence():
    raw = capture([(0, 0, 0, b"good")]) + struct.pack("<IIII", 0, 0, 1 << 30, 60) + bytes(100)
    found = read(raw)
    assert found.packets == [b"good"]
    assert found.faults == {"record_header_bad": 1}
    assert "packet 2" in found.reader.problem


def test_a_packet_larger_than_a_block_is_read():
    found = read(capture([(0, 0, 0, bytes(range(256)) * 1000)]), block_bytes=64)
    assert found.packets == [bytes(range(256)) * 1000]
    assert not found.faults


@pytest.mark.parametrize("upper", [0x3000_0000, 0x2400_0000, 0xF7FF_0000])
def test_the_length_of_a_check_sequence_is_no_part_of_the_link_type(upper):
    found = read(capture([(0, 0, 0, b"x")], link_type=upper | 229))
    assert [row.link_type for row in found.rows] == [229]
