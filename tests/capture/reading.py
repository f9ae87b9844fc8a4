"""Reads bytes by the reader under test, and tells everything of every packet."""

from __future__ import annotations

import io
from typing import BinaryIO, NamedTuple

import numpy as np

from pipeline.capture.reader import CaptureReader
from pipeline.model.tally import Tally


class Row(NamedTuple):
    """A packet."""

    time_ns: int
    wire: int
    raw: bytes
    interface: int
    link_type: int


class Read(NamedTuple):
    """Packets, counted faults and the reader, which knows what was wrong."""

    rows: list[Row]
    faults: dict[str, int]
    reader: CaptureReader

    @property
    def packets(self) -> list[bytes]:
        """The bytes of the packets."""
        return [row.raw for row in self.rows]


def read(raw: bytes | BinaryIO, rows: int = 4096, block_bytes: int = 1 << 16) -> Read:
    """Read a capture to its end; the promises of every batch hold."""
    tally = Tally()
    file = io.BytesIO(raw) if isinstance(raw, bytes) else raw
    reader = CaptureReader(
        file, source="x", source_id=2, tally=tally, rows=rows, block_bytes=block_bytes
    )
    found: list[Row] = []
    for batch in reader:
        assert 1 <= len(batch) <= rows
        assert (batch.source, batch.source_id) == ("x", 2)
        assert batch.first_packet == len(found) + 1
        assert (batch.stripped_vlan == -1).all()
        assert (batch.offset + batch.captured_length.astype(np.int64) <= len(batch.data)).all()
        columns = (batch.time_ns, batch.wire_length, batch.interface, batch.link_type)
        numbers = zip(*(column.tolist() for column in columns), strict=True)
        for i, (time_ns, wire, interface, link_type) in enumerate(numbers):
            at, length = int(batch.offset[i]), int(batch.captured_length[i])
            packet = batch.data[at : at + length].tobytes()
            found.append(Row(time_ns, wire, packet, interface, link_type))
    assert reader.packets == len(found)
    return Read(found, tally.starting("fault"), reader)
