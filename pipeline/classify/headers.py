"""Packets to headers: who sent how much payload to whom, and where in the buffer it lies."""

from __future__ import annotations

import numpy as np

from pipeline.classify.headers_kernels import walk_headers
from pipeline.classify.layers_kernels import HEADER
from pipeline.kernels.compile import records
from pipeline.model.batches import PacketBatch

BUFFER_BYTES_MAX = 1 << 31


def walk(packets: PacketBatch, heads: np.ndarray | None = None) -> tuple[np.ndarray, int]:
    """Walk all headers of a batch: HEADER records, one a packet, and how many are fragments.

    Of `heads`, of any content, the first are written, where they are given.

    A row with a `fault` or a `skip` has nothing else to tell, and a fragment is for
    `fragments.py`. `payload_at` indexes the packets'
    buffer; `payload_length` is by the IP header, `payload_captured` how much of it is there.
    Addresses and ports are of the innermost headers, the realm of the outermost tags.
    """
    assert len(packets.data) < BUFFER_BYTES_MAX
    heads = records(HEADER, len(packets)) if heads is None else heads[: len(packets)]
    fragments = walk_headers(
        packets.data,
        packets.offset,
        packets.captured_length,
        packets.wire_length,
        packets.link_type,
        packets.stripped_vlan,
        heads,
    )
    return heads, int(fragments)
