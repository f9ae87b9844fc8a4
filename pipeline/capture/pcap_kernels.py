"""The framer of classic capture files: record headers become columns, packets stay where they are.

A record header (libpcap, pcap-savefile(5)) is, in the byte order of the file's magic number:

     0  seconds since 1970, uint32          8  captured length, uint32
     4  micro- or nanoseconds, uint32      12  wire length, uint32

and eight more bytes, of no use to us, in files with Kuznetzov's magic. Sketch: 16 bytes read and 24
written a packet, about 5 ns; the payload is not touched.
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels.bytes import be32, le32
from pipeline.kernels.compile import kernel

# How a call ended.
FULL, STARVED, LYING = 0, 1, 2
SECOND_NS = 1_000_000_000


@kernel
def frame_pcap(
    data, start, stop, big, header_length, tick_ns, longest, offset, captured, wire, time_ns, ended
):
    """Frame whole packets of `data[start:stop]` into the columns, as many as these hold.

    `big` says big-endian, `tick_ns` is 1 or 1000, `longest` the captured length above which a
    record is a lie. A fraction that is no fraction becomes the last nanosecond of its second, so
    that no packet leaves it. `ended` (int64, 4) gets how it ended, the number of rows, where the
    next record starts, and how many fractions were none.

    Touches 40 bytes a packet: 8 % of the memory's bandwidth.
    """
    at = np.int64(start)
    rows = np.int64(0)
    strange = np.int64(0)
    how = FULL
    while rows < len(offset):
        if at + header_length > stop:
            how = STARVED
            break
        if big:
            seconds, fraction = be32(data, at), be32(data, at + 4)
            length, on_wire = be32(data, at + 8), be32(data, at + 12)
        else:
            seconds, fraction = le32(data, at), le32(data, at + 4)
            length, on_wire = le32(data, at + 8), le32(data, at + 12)
        if length > longest:
            how = LYING
            break
        if at + header_length + length > stop:
            how = STARVED
            break
        within = fraction * tick_ns
        if within >= SECOND_NS:
            within = SECOND_NS - 1
            strange += 1
        offset[rows] = at + header_length
        captured[rows] = length
        wire[rows] = on_wire
        time_ns[rows] = seconds * SECOND_NS + within
        at += header_length + length
        rows += 1
    ended[0] = how
    ended[1] = rows
    ended[2] = at
    ended[3] = strange
