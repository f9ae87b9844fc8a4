"""Packets to headers: who sent how much payload to whom, and where in the buffer it lies."""

from __future__ import annotations

import numpy as np

from pipeline.classify.headers_kernels import HEADER, walk_headers
from pipeline.kernels.compile import records
from pipeline.model.batches import PacketBatch


def walk(packets: PacketBatch) -> np.ndarray:
    """Walk all headers of a batch: HEADER records, one a packet.

    A row with a `fault` or a `skip` has nothing else to tell. `payload_at` indexes the packets'
    buffer; `payload_length` is by the IP header, `payload_captured` how much of it is there.
    Addresses and ports are of the innermost headers.
    """
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
