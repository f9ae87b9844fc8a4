"""Every container, packed or not: one stream of packets, as they come, and one fault for an end."""

from __future__ import annotations

import gzip
import io
import os
import threading
from collections.abc import Callable

import numpy as np
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.capture.reader import CaptureReader
from pipeline.model.tally import Tally
from tests.capture.reading import read
from tests.capture.test_pcap import capture
from tests.forge.pcapng import interface, packet, section
from tests.naive.unpack import gunzip, unzstd

PACKETS = [bytes([n]) * (n * 7 % 40) for n in range(40)]


def classic(packets: list[bytes]) -> bytes:
    """One packet a second."""
    return capture([(n, 0, 0, raw) for n, raw in enumerate(packets)])


def newer(packets: list[bytes]) -> bytes:
    """The same as pcapng, half of it in another section."""
    raw = b""
    for number, held in enumerate(packets):
        order = "<>"[number >= 20]
        if number in (0, 20):
            raw += section(order) + interface(order, resolution=0)
        raw += packet(order, held, number)
    return raw


def gzipped(raw: bytes) -> bytes:
    """As two members."""
    return gzip.compress(raw[:700], mtime=0) + gzip.compress(raw[700:], mtime=0)


def zstded(raw: bytes) -> bytes:
    """As two frames, of many blocks: of a block that is cut nothing is known."""
    packed = b""
    for part in (raw[:700], raw[700:]):
        packer = zstandard.ZstdCompressor().compressobj()
        for at in range(0, len(part), 100):
            packed += packer.compress(part[at : at + 100])
            packed += packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        packed += packer.flush()
    return packed


def as_it_is(raw: bytes) -> bytes:
    return raw


CONTAINERS = [classic, newer]
PACKERS: list[Callable[[bytes], bytes]] = [as_it_is, gzipped, zstded]
every_kind = pytest.mark.parametrize("contain", CONTAINERS)
every_packing = pytest.mark.parametrize("pack", PACKERS)


@every_kind
@every_packing
@given(rows=st.integers(1, 50), block_bytes=st.integers(1, 3000))
def test_packets_are_the_same_however_they_are_packed_and_cut(contain, pack, rows, block_bytes):
    found = read(pack(contain(PACKETS)), rows, block_bytes)
    assert found.packets == PACKETS
    assert [row.time_ns for row in found.rows] == [n * 10**9 for n in range(40)]
    assert not found.faults
    assert not found.reader.problem
    assert found.reader.is_capture


@every_kind
@every_packing
def test_a_file_cut_anywhere_gives_a_prefix_and_at_most_one_fault(contain, pack):
    raw = pack(contain(PACKETS))
    longest = 0
    for at in range(4, len(raw)):
        found = read(raw[:at])
        assert found.packets == PACKETS[: len(found.packets)]
        assert len(found.packets) >= longest, "fewer packets of more bytes"
        longest = len(found.packets)
        assert found.reader.is_capture
        assert list(found.faults) in ([], ["file_truncated"])
        assert bool(found.reader.problem) == bool(found.faults)
        assert sum(found.faults.values()) <= 1
    assert longest >= len(PACKETS) - 3


@every_kind
@pytest.mark.parametrize(("pack", "unpack"), [(gzipped, gunzip), (zstded, unzstd)])
@given(at=st.integers(0, 4000), byte=st.integers(0, 255))
@example(at=0, byte=0x44)  # of zstd: the size of the content becomes less than a raw block's
def test_a_mistake_in_packed_bytes_takes_back_nothing_before_it(contain, pack, unpack, at, byte):
    raw = bytearray(pack(contain(PACKETS)))
    raw[4 + at % (len(raw) - 4)] = byte
    inside, fault = unpack(bytes(raw))
    found = read(bytes(raw), block_bytes=100)
    if len(inside) < 24:
        assert found.faults == ({fault: 1} if fault else {"file_not_recognised": 1})
        return
    there = read(inside)
    assert found.rows == there.rows
    wrong = [f for f in there.faults if f != "file_truncated"]
    assert set(found.faults) <= {fault, *there.faults}
    assert set(found.faults) >= set(wrong)
    assert wrong or bool(found.faults) == bool(fault or there.faults)


@pytest.mark.parametrize(
    ("raw", "fault", "word", "is_capture"),
    [
        (b"hello there, this is no capture", "file_not_recognised", "not a capture", False),
        (b"", "file_not_recognised", "not a capture", False),
        (classic([])[:20], "file_truncated", "header", True),
        (gzipped(b"hello there, this is no capture"), "file_not_recognised", "inside", False),
        (zstded(b""), "file_not_recognised", "inside", False),
        (gzipped(gzipped(classic([b"x"]))), "compression_nested", "twice", True),
        (gzipped(zstded(newer([b"x"]))), "compression_nested", "twice", True),
        (zstded(gzipped(b"no capture")), "compression_nested", "twice", True),
        (b"\x1f\x8b\x08" + bytes(40), "compression_bad", "gzip", True),
        (b"\x1f\x8b\x08", "file_truncated", "gzip file was cut short", True),
        (b"\x0a\x0d\x0d\x0a" + bytes(40), "record_header_bad", "after packet 0", True),
        (b"\x0a\x0d\x0d\x0a", "file_truncated", "after packet 0", True),
    ],
)
def test_what_cannot_be_read_is_counted_and_said(raw, fault, word, is_capture):
    found = read(raw)
    assert not found.rows
    assert found.faults == {fault: 1}
    assert word in found.reader.problem
    assert found.reader.is_capture == is_capture


@given(st.binary(max_size=200))
def test_any_bytes_are_read_to_their_end(raw):
    found = read(raw)
    assert bool(found.reader.problem) == bool(
        found.faults.keys() - {"time_bad", "time_missing", "block_bad", "interface_unknown"}
    )


@every_kind
@every_packing
def test_a_long_file_is_read_ahead_and_comes_out_the_same(contain, pack, tmp_path):
    packets = [os.urandom(900) for _ in range(800)]
    path = tmp_path / "long"
    path.write_bytes(pack(contain(packets)))
    for buffering in (0, -1):
        with path.open("rb", buffering=buffering) as file:
            assert read(file, block_bytes=1 << 12).packets == packets
    path.write_bytes(pack(contain(packets))[:-5000])
    with path.open("rb") as file:
        found = read(file, block_bytes=1 << 12)
    assert 750 < len(found.packets) < 800
    assert found.packets == packets[: len(found.packets)]
    assert found.faults == {"file_truncated": 1}


def test_the_thread_that_reads_ahead_unpacks_too(tmp_path):
    path = tmp_path / "long"
    path.write_bytes(gzip.compress(classic([os.urandom(900) for _ in range(800)])))
    with path.open("rb", buffering=0) as file:
        reader = CaptureReader(file, source="x", source_id=0, tally=Tally(), block_bytes=1 << 14)
        batches = iter(reader)
        for _ in range(5):
            next(batches)
        assert [thread.name for thread in threading.enumerate()].count("read-ahead") == 1
        assert file.tell() < 1 << 19  # what the thread reads is read elsewhere
        batches.close()


@every_kind
@every_packing
def test_a_pipe_is_read_as_it_comes(contain, pack):
    raw = pack(contain(PACKETS))
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb", buffering=0) as end:
            for at in range(0, len(raw), 37):
                end.write(raw[at : at + 37])

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(reading, "rb", buffering=0) as file:
        found = read(file)
    thread.join()
    assert found.packets == PACKETS


@every_kind
def test_a_packet_is_given_out_before_the_next_is_sent(contain):
    ends = [len(contain(PACKETS[: n + 1])) for n in range(20)]
    raw = contain(PACKETS[:20])
    reading, writing = os.pipe()
    with (
        os.fdopen(reading, "rb", buffering=0) as file,
        os.fdopen(writing, "wb", buffering=0) as out,
    ):
        reader = CaptureReader(file, source="pipe", source_id=0, tally=Tally())
        alarm = threading.Timer(20, out.close)  # would the reader wait, nobody would write
        alarm.start()
        batches, at = iter(reader), 0
        for n, end in enumerate(ends):
            out.write(raw[at:end])
            at = end
            batch = next(batches)
            assert (batch.first_packet, len(batch)) == (n + 1, 1)
        alarm.cancel()


def test_columns_outlive_the_next_batch_and_the_buffer_does_not():
    reader = CaptureReader(
        io.BytesIO(classic([b"abc"] * 9)), source="x", source_id=0, tally=Tally(), rows=4
    )
    batches = list(reader)
    assert [len(b) for b in batches] == [4, 4, 1]
    assert np.concatenate([b.time_ns for b in batches]).tolist() == [n * 10**9 for n in range(9)]
    assert batches[0].data is batches[2].data
