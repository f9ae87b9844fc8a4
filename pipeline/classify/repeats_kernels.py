"""What the last hello or head of a flow looked like: is it sent again, or does another take its
place?

Who wants to mislead whoever watches a connection sends a hello of its own making first, one that
never gets to the server, and then the true one in its place: with the same sequence numbers, often
in small pieces, and the last of them first. So a flow remembers, in 48 bits, how long its hello was
and keyed marks of the segments that brought its front and its end, where it came in several. A
piece that is neither is held, and read as a part of another hello; one that is, is no news. Of a
head there is room for one mark only: of its first 64 bytes, or of all where it is shorter.
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels.bytes import be64
from pipeline.kernels.compile import primitive, routine
from pipeline.kernels.hashing import mix64

U64 = np.uint64
I64 = np.int64
HEAD_BYTES, HELLO_BYTES_MAX = 64, 0xFFFF
ODD, LOW = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xFFFFFFFF)
LINE_FEED, CARRIAGE_RETURN = 10, 13


@primitive
def _step(found, word):
    """A word more in a mark: of what nobody without the key knows both halves, multiplied, so that
    nobody can tell what another word would have to make good.
    """
    found ^= word
    return (found & LOW) * (found >> U64(32)) + (found >> U64(32) | found << U64(32)) + ODD


@routine
def _mark(limits, data, start, stop):
    """16 keyed bits of `data[start:stop]`, never 0.

    Four words at a time, so that no step waits for the one before it, and from a place that cannot
    be negative, so that a word is one load: 108 ns for 1400 bytes.
    """
    found = mix64(limits.key0 ^ limits.key1 * ODD)
    second, third, fourth = mix64(found + ODD), mix64(found ^ limits.key1), mix64(~found)
    at = max(start, 0)
    while at + 32 <= stop:
        found = _step(found, be64(data, at))
        second = _step(second, be64(data, at + 8))
        third = _step(third, be64(data, at + 16))
        fourth = _step(fourth, be64(data, at + 24))
        at += 32
    found = _step(_step(_step(found, second), third), fourth)
    while at + 8 <= stop:
        found = _step(found, be64(data, at))
        at += 8
    rest = U64(stop - start)
    while at < stop:
        rest = (rest << U64(8)) | U64(data[at])
        at += 1
    return max(I64(mix64(_step(found, rest) ^ limits.key1) & U64(0xFFFF)), 1)


@primitive
def remember_hello(flow, limits, length):
    """Note how long a hello is that was read, as yet of one segment; where it is longer than what
    is held, another in its place could not be.
    """
    flow.mark = 0
    flow.next_sequence = length if length <= min(limits.unit_bytes, HELLO_BYTES_MAX) else 0


@routine
def remember_front(flow, limits, data, start, stop):
    """Note that the front of the hello came in a segment of its own, from `data[start:stop]`."""
    flow.mark = _mark(limits, data, start, stop)


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
def is_same_piece(flow, limits, data, start, stop, offset):
    """Is `data[start:stop]`, at `offset` of the hello's place, the segment that brought its front,
    or its end?
    """
    left = hello_bytes(flow) - offset
    if offset == 0:
        return stop - start < left and _mark(limits, data, start, stop) == I64(flow.mark)
    if stop - start < left:
        return False
    return _mark(limits, data, start, start + left) == I64(flow.next_sequence) >> 16


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
