"""Classic captures: against the twin and dpkt, in blocks and batches of any size, from any bytes."""

from __future__ import annotations

import io
import os
import struct
import threading
from collections.abc import Sequence

import dpkt
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.capture.pcap import PcapReader
from pipeline.model.tally import Tally
from tests.naive.pcap import frame_pcap

ORDERS = {"<": "little", ">": "big"}
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


def read(
    raw: bytes, rows: int = 4096, block_bytes: int = 1 << 16
) -> tuple[list, list[str], PcapReader]:
    """Packets as (time_ns, wire length, bytes), the faults counted, and the reader."""
    tally = Tally()
    reader = PcapReader(
        io.BytesIO(raw), source="x", source_id=2, tally=tally, rows=rows, block_bytes=block_bytes
    )
    packets = []
    for batch in reader:
        assert 1 <= len(batch) <= rows
        assert (batch.source, batch.source_id) == ("x", 2)
        assert batch.first_packet == len(packets) + 1
        assert (batch.interface == 0).all()
        assert (batch.stripped_vlan == -1).all()
        for i in range(len(batch)):
            at, length = int(batch.offset[i]), int(batch.captured_length[i])
            packet = batch.data[at : at + length].tobytes()
            packets.append((int(batch.time_ns[i]), int(batch.wire_length[i]), packet))
    assert reader.packets == len(packets)
    return packets, list(tally.starting("fault")), reader


RECORDS = st.lists(
    st.tuples(
        st.integers(0, 2**32 - 1),
        st.integers(0, 999_999),
        st.integers(-5, 3),  # on the wire; a file that lies says less than it captured
        st.binary(max_size=30),
    ),
    max_size=12,
)
FILES = st.builds(capture, RECORDS, st.sampled_from("<>"), st.sampled_from([1000, 1, 0]))


@given(FILES, st.integers(1, 9), st.integers(1, 200))
def test_reading_equals_the_twin_however_it_is_cut(raw, rows, block_bytes):
    packets, faults, _ = read(raw, rows, block_bytes)
    expected = frame_pcap(raw)
    assert packets == expected.packets
    assert not expected.fault
    assert not faults


@given(FILES, st.data())
def test_a_file_that_was_changed_or_cut_gives_what_came_before(raw, data):
    changed = bytearray(raw)
    for _ in range(data.draw(st.integers(0, 2))):
        changed[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = bytes(changed[: data.draw(st.integers(0, len(raw)))])
    packets, faults, reader = read(raw, 3, 50)
    expected = frame_pcap(raw)
    assert packets == expected.packets
    assert faults == ([expected.fault] if expected.fault else [])
    assert bool(reader.problem) == bool(expected.fault)


@given(st.binary(max_size=200))
@example(b"\x0a\x0d\x0d\x0a" + bytes(60))
@example(b"\x1f\x8b\x08\x00")
@example(b"")
def test_any_bytes_are_read_to_their_end(raw):
    packets, faults, _ = read(raw)
    expected = frame_pcap(raw)
    assert (packets, faults) == (expected.packets, [expected.fault] if expected.fault else [])


@given(RECORDS)
def test_dpkt_reads_the_same(records):
    raw = capture(records)
    ours = [packet for _, _, packet in read(raw)[0]]
    assert ours == [packet for _, packet in dpkt.pcap.Reader(io.BytesIO(raw))]


def test_times_are_exact():
    raw = capture([(1_700_000_000, 999_999, 0, b"")], tick_ns=1000)
    assert read(raw)[0][0][0] == 1_700_000_000_999_999_000
    raw = capture([(1_700_000_000, 999_999_999, 0, b"")], tick_ns=1)
    assert read(raw)[0][0][0] == 1_700_000_000_999_999_999


def test_a_lying_length_ends_the_file_with_a_count_and_a_sentence():
    raw = capture([(0, 0, 0, b"good")]) + struct.pack("<IIII", 0, 0, 1 << 30, 60) + bytes(100)
    packets, faults, reader = read(raw)
    assert [p for _, _, p in packets] == [b"good"]
    assert faults == ["record_header_bad"]
    assert "packet 2" in reader.problem


def test_a_packet_larger_than_a_block_is_read():
    packets, faults, _ = read(capture([(0, 0, 0, bytes(range(256)) * 1000)]), block_bytes=64)
    assert packets[0][2] == bytes(range(256)) * 1000
    assert not faults


@pytest.mark.parametrize(
    ("raw", "fault", "word", "is_capture"),
    [
        (b"\x0a\x0d\x0d\x0a" + bytes(40), "section_unsupported", "pcapng", True),
        (b"\x1f\x8b\x08" + bytes(40), "section_unsupported", "gunzip", True),
        (b"hello there, this is no capture", "file_not_recognised", "not a capture", False),
        (capture([])[:20], "file_truncated", "header", True),
    ],
)
def test_what_cannot_be_read_is_counted_and_said(raw, fault, word, is_capture):
    packets, faults, reader = read(raw)
    assert (packets, faults) == ([], [fault])
    assert word in reader.problem
    assert reader.is_capture == is_capture


def test_the_length_of_a_check_sequence_is_no_part_of_the_link_type():
    tally = Tally()
    raw = capture([(0, 0, 0, b"x")], link_type=0x3000_0000 | 229)
    (batch,) = PcapReader(io.BytesIO(raw), source="x", source_id=0, tally=tally)
    assert batch.link_type.tolist() == [229]


def test_a_pipe_is_read_as_it_comes():
    raw = capture([(n, 0, 0, bytes([n]) * n) for n in range(100)])
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb", buffering=0) as end:
            for at in range(0, len(raw), 37):
                end.write(raw[at : at + 37])

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(reading, "rb", buffering=0) as file:
        reader = PcapReader(file, source="pipe", source_id=0, tally=Tally())
        lengths = [length for batch in reader for length in batch.captured_length.tolist()]
    thread.join()
    assert lengths == list(range(100))


def test_columns_outlive_the_next_batch_and_the_buffer_does_not():
    raw = capture([(n, 0, 0, b"abc") for n in range(9)])
    reader = PcapReader(io.BytesIO(raw), source="x", source_id=0, tally=Tally(), rows=4)
    batches = list(reader)
    assert [len(b) for b in batches] == [4, 4, 1]
    assert np.concatenate([b.time_ns for b in batches]).tolist() == [n * 10**9 for n in range(9)]
    assert batches[0].data is batches[2].data
