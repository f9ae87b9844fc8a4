"""What the last hello or head of a flow looked like: is it sent again, or does another take its
place?

Who wants to mislead whoever watches a connection sends a hello of its own making first, one that
never gets to the server, and then the true one in its place: with the same sequence numbers, often
in small pieces, and the last of them first. So a flow remembers, in 48 bits, how long its hello was
and two keyed marks: of the client's random, and of the segment that brought its end. A piece that
has neither right is held, and read as a part of another hello; one that has is no news. Of a head
there is room for one mark only, of its first bytes.

    hello       11 random, up to 43 (RFC 8446, 4.1.2, behind two headers)
    head        its first 64 bytes, or all of it where it is shorter
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels.bytes import be64
from pipeline.kernels.compile import primitive, routine
from pipeline.kernels.hashing import mix64

U64 = np.uint64
I64 = np.int64
RANDOM_AT, RANDOM_STOP, HEAD_BYTES = 11, 43, 64
HELLO_BYTES_MAX = 0xFFFF
ODD = np.uint64(0x9E3779B97F4A7C15)
LINE_FEED, CARRIAGE_RETURN = 10, 13

# What a piece of a hello says: nothing new; that it is of another one; nothing for certain.
SAME, DIFFERENT, UNTOLD = 0, 1, 2


@routine
def _mark(limits, data, start, stop):
    """16 keyed bits of `data[start:stop]`, never 0."""
    found, at = limits.key0, start
    while at + 8 <= stop:
        found = (found ^ be64(data, at)) * ODD
        found ^= found >> U64(32)
        at += 8
    rest = U64(stop - start)
    while at < stop:
        rest = (rest << U64(8)) | U64(data[at])
        at += 1
    return max(I64(mix64((found ^ rest) * ODD ^ limits.key1) & U64(0xFFFF)), 1)


@routine
def remember_hello(flow, limits, data, start, stop):
    """Note how a hello looks that was read from `data[start:stop]`, of one segment."""
    flow.mark = flow.next_sequence = 0
    if RANDOM_STOP < stop - start <= HELLO_BYTES_MAX:
        flow.mark = _mark(limits, data, start + RANDOM_AT, start + RANDOM_STOP)
        flow.next_sequence = stop - start


@routine
def remember_tail(flow, limits, data, start, stop):
    """Note that the end of the hello came in a segment of its own, from `data[start:stop]`."""
    if hello_bytes(flow) > 0:
        flow.next_sequence = (_mark(limits, data, start, stop) << 16) | hello_bytes(flow)


@primitive
def hello_bytes(flow):
    """How long the hello was; 0 where nothing is remembered."""
    return I64(flow.next_sequence) & HELLO_BYTES_MAX


@routine
def compare_piece(flow, limits, data, start, stop, offset):
    """What `data[start:stop]` says that came at `offset` of the place of the hello."""
    if offset <= RANDOM_AT and offset + stop - start >= RANDOM_STOP:
        random_at = start + RANDOM_AT - offset
        found = _mark(limits, data, random_at, random_at + RANDOM_STOP - RANDOM_AT)
        return SAME if found == I64(flow.mark) else DIFFERENT
    left = hello_bytes(flow) - offset
    if offset < RANDOM_STOP or stop - start < left:
        return UNTOLD
    tail = I64(flow.next_sequence) >> 16
    return SAME if tail == _mark(limits, data, start, start + left) else DIFFERENT


@routine
def head_mark(limits, data, start, stop):
    """The mark of a head that begins `data[start:stop]`; 0 while too few bytes are there."""
    begins = start
    while begins < stop and (data[begins] == LINE_FEED or data[begins] == CARRIAGE_RETURN):
        begins += 1
    for at in range(begins + 2, min(stop, start + HEAD_BYTES)):
        ends = data[at] == LINE_FEED and (
            data[at - 1] == LINE_FEED
            or (data[at - 1] == CARRIAGE_RETURN and data[at - 2] == LINE_FEED)
        )
        if ends:
            return _mark(limits, data, start, at + 1)
    if stop - start < HEAD_BYTES:
        return I64(0)
    return _mark(limits, data, start, start + HEAD_BYTES)
