"""Captures of every kind as batches of packets, block by block into buffers used again and again.

What a file is, its first bytes say: a classic capture, pcapng, or one of both inside gzip or zstd.
The promise: no bytes make it fail or hang, memory is bounded whatever they claim, every packet that
came before a mistake is given out, and a mistake is a count. What can be wrong with each kind
stands in pcap.py, pcapng.py and unpack.py; besides:

    FILE_NOT_RECOGNISED  it is no capture, and none is inside
    COMPRESSION_NESTED   something compressed is inside something compressed

Blocks of 2 MiB cost least: of smaller ones there are more, each with calls of its own, and larger
ones leave the caches. Once a file turns out to be long, its bytes are read and cut into packets by
a thread (`ahead.py`), and what stands in `_data` is that thread's from then on.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np

from pipeline.capture.ahead import Ahead, has_another_core
from pipeline.capture.blocks import Blocks, FileBytes, Source
from pipeline.capture.pcap import (
    CAPTURED_LENGTH_MAX,
    FILE_HEADER_BYTES,
    RECORD_HEADER_BYTES_MAX,
    Columns,
    PcapFramer,
)
from pipeline.capture.pcap_kernels import LYING, STARVED
from pipeline.capture.pcapng import PcapngFramer
from pipeline.capture.pcapng_kernels import PACKET_HEAD_BYTES
from pipeline.capture.recognise import CAPTURES, COMPRESSED, InputKind, recognise_bytes
from pipeline.capture.unpack import Unpacked
from pipeline.model.batches import PacketBatch
from pipeline.model.faults import Fault
from pipeline.model.tally import Tally

STAGE = "capture"
BLOCK_BYTES = 1 << 21
HEAD_BYTES = 1 << 12  # read first, to see what it is: a page, so that blocks begin where pages do
ROOM_BYTES = CAPTURED_LENGTH_MAX + max(RECORD_HEADER_BYTES_MAX, PACKET_HEAD_BYTES)


class Framer(Protocol):
    """Cuts bytes into packets; how, each container's module tells."""

    def columns(self, rows: int) -> Columns:
        """Room for so many packets."""
        ...

    def frame(
        self, data: np.ndarray, start: int, stop: int, columns: Columns
    ) -> tuple[int, int, int]:
        """How it ended, how many rows there are, and where the next call starts."""
        ...

    def faults(self) -> dict[Fault, int]:
        """What was wrong with packets of the last call."""
        ...

    def inside(self) -> bool:
        """Is something begun of which no byte is left?"""
        ...

    def place(self, packets: int) -> str:
        """What comes after so many packets, in words."""
        ...


class Framed(NamedTuple):
    """What one call of a framer came to; the problem is one of the file as a whole."""

    packets: PacketBatch | None
    faults: dict[Fault, int]
    problem: str


class CaptureReader:
    """Iterates over a capture as PacketBatches of at most `rows` rows.

    `file` is any binary file with `readinto`, a pipe too: of one that is not buffered, packets come
    as they are sent. The buffer of a batch is valid until the next one is asked for; its columns
    stay. `problem` is a sentence for people once something was wrong with the file as a whole;
    `is_capture` says that it is one, of whatever kind.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        source: str,
        source_id: int,
        tally: Tally,
        rows: int = 4096,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        assert rows >= 1
        assert block_bytes >= 1
        self.problem = ""
        self.is_capture = False
        self.packets = 0
        self._file: Source = FileBytes(file)
        self._block_bytes = block_bytes
        self._unpacked: Unpacked | None = None
        self._source, self._source_id, self._tally = source, source_id, tally
        self._rows = rows
        self._data = np.zeros(0, np.uint8)
        self._start = self._stop = 0

    def __iter__(self) -> Generator[PacketBatch, None, None]:
        framer = self._open()
        if framer is None:
            return
        blocks = Blocks(self._unpacked or self._file, self._block_bytes, ROOM_BYTES)
        here = self._framed(framer, blocks)
        framed: Iterator[Framed] = here
        in_use, wanted = self._data, has_another_core()
        try:
            while (found := next(framed, None)) is not None:
                if wanted and blocks.long:
                    wanted = False
                    blocks.read_apart()
                    with suppress(RuntimeError):  # no thread can be had: all is done in turn
                        framed = Ahead(here, blocks.end)
                for fault, count in found.faults.items():
                    self._tally.add(STAGE, f"fault:{fault.name.lower()}", count)
                self.problem = found.problem
                if found.packets is not None:
                    if found.packets.data is not in_use:
                        blocks.give_back(in_use)
                        in_use = found.packets.data
                    yield found.packets
                    self.packets += len(found.packets)
        finally:
            blocks.give_up()
            if framed is here:
                blocks.end()

    def _open(self) -> Framer | None:
        """See what it is and begin to read it; None where it cannot be read."""
        head = self._read_head(self._file)
        kind = recognise_bytes(head)
        if kind in COMPRESSED:
            self._unpacked = Unpacked(self._file, kind, self._data[: self._stop].tobytes())
            head = self._read_head(self._unpacked)
            inner = recognise_bytes(head)
            unfinished = self._unpacked.fault is not Fault.NONE and len(head) < FILE_HEADER_BYTES
            self.is_capture = unfinished or inner in COMPRESSED  # who knows what is in there
            if unfinished:
                self._give_up(self._unpacked.fault, self._unpacked.problem)
                return None
            if inner in COMPRESSED:
                self._give_up(Fault.COMPRESSION_NESTED, "compressed twice; unpack it once")
                return None
            kind = inner
        if kind not in CAPTURES:
            inside = "no capture is inside" if self._unpacked else "not a capture"
            self._give_up(Fault.FILE_NOT_RECOGNISED, inside)
            return None
        self.is_capture = True
        if kind is InputKind.PCAPNG:
            return PcapngFramer()
        if len(head) < FILE_HEADER_BYTES:
            self._give_up(Fault.FILE_TRUNCATED, "ends inside its header")
            return None
        self._start = FILE_HEADER_BYTES
        return PcapFramer(head, self._rows)

    def _read_head(self, source: Source) -> bytes:
        """Hold the first bytes, and give as many of them as tell what it is."""
        self._data = np.zeros(max(min(HEAD_BYTES, self._block_bytes), FILE_HEADER_BYTES), np.uint8)
        self._stop = 0
        while self._stop < FILE_HEADER_BYTES:
            count = source.readinto(self._data[self._stop :].data)
            if not count:
                break
            self._stop += count
        return self._data[: min(self._stop, FILE_HEADER_BYTES)].tobytes()

    def _framed(self, framer: Framer, blocks: Blocks) -> Iterator[Framed]:
        """Cut block after block into packets. What is wrong with the file as a whole comes last."""
        size = self._rows
        stripped = np.full(size, -1, np.int32)
        before = 0  # packets
        handed_out = False
        while True:
            columns = framer.columns(size)
            how, rows, self._start = framer.frame(self._data, self._start, self._stop, columns)
            packets = None
            if rows:
                offset, captured, wire, time_ns, interface, link_type = columns
                packets = PacketBatch(
                    self._source,
                    self._source_id,
                    before + 1,
                    self._data,
                    offset[:rows],
                    captured[:rows],
                    wire[:rows],
                    time_ns[:rows],
                    interface[:rows],
                    link_type[:rows],
                    stripped[:rows],
                )
                before += rows
                handed_out = True
            yield Framed(packets, framer.faults(), "")
            if how == LYING:
                what = f"{framer.place(before)} has an impossible length"
                lying = f"{what}; the rest was not read"
                yield Framed(None, {Fault.RECORD_HEADER_BAD: 1}, lying)
                return
            if how == STARVED:
                left = self._data[self._start : self._stop]
                self._data, self._start, self._stop = blocks.next(left, handed_out)
                handed_out = False
                if self._stop - self._start == len(left):
                    yield self._end(framer, before)
                    return

    def _end(self, framer: Framer, packets: int) -> Framed:
        """Say what is wrong with an end: one thing, that of the compressed bytes first."""
        if self._unpacked is not None and self._unpacked.fault is not Fault.NONE:
            after = f"{self._unpacked.problem}, after packet {packets}"
            return Framed(None, {self._unpacked.fault: 1}, after)
        if self._start < self._stop or framer.inside():
            return Framed(None, {Fault.FILE_TRUNCATED: 1}, f"ends inside {framer.place(packets)}")
        return Framed(None, {}, "")

    def _give_up(self, fault: Fault, problem: str) -> None:
        self._tally.add(STAGE, f"fault:{fault.name.lower()}")
        self.problem = problem
