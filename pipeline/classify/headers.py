"""Packets to headers: who sent how much payload to whom, and where in the buffer it lies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.classify.headers_kernels import HEADER, walk_headers
from pipeline.kernels.compile import records
from pipeline.model.batches import PacketBatch
from pipeline.model.columns import I64, U8, U16, U32, U64, Batch, columns_of


@dataclass(frozen=True, slots=True)
class HeaderBatch(Batch):
    """One row per packet of a PacketBatch. A row with a `fault` or a `skip` has nothing else to
    tell.

    `payload_at` indexes the packets' buffer; `payload_length` is by the IP header,
    `payload_captured` how much of it is there. Addresses and ports are of the innermost headers.
    """

    fault: U8
    skip: U8
    transport: U8
    tcp_flags: U8
    source_port: U16
    target_port: U16
    source_hi: U64
    source_lo: U64
    target_hi: U64
    target_lo: U64
    sequence: U32
    acknowledged: U32
    payload_at: I64
    payload_captured: U32
    payload_length: U32


def walk(packets: PacketBatch) -> np.ndarray:
    """Walk all headers of a batch: HEADER records, one a packet. Faults stand in their rows."""
    heads = records(HEADER, len(packets))
    walk_headers(
        packets.data,
        packets.offset,
        packets.captured_length,
        packets.wire_length,
        packets.link_type,
        heads,
    )
    return heads


def headers(packets: PacketBatch) -> HeaderBatch:
    """The same as columns."""
    heads = np.asarray(walk(packets))
    return HeaderBatch(**{column.name: heads[column.name] for column in columns_of(HeaderBatch)})
