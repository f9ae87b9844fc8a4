"""Records of a capture, told apart by who talks with whom."""

from __future__ import annotations

import numpy as np

from pipeline.kernels.compile import kernel
from pipeline.kernels.hashing import mix64

U64 = np.uint64


@kernel
def copy_half(data, offset, captured, header_bytes, heads, half, out):
    """Copy the records, headers included, whose pair of addresses falls into `half` (0 or 1) to
    `out`; how many bytes. The pair is the same in both directions; what has none is in 0.
    """
    stop = 0
    for i in range(len(offset)):
        head = heads[i]
        ends = (head.source_hi ^ head.target_hi) ^ mix64(head.source_lo ^ head.target_lo)
        drawn = mix64(ends) & U64(1) if head.fault == 0 and head.skip == 0 else U64(0)
        if drawn == U64(half):
            for at in range(offset[i] - header_bytes, offset[i] + captured[i]):
                out[stop] = data[at]
                stop += 1
    return stop
