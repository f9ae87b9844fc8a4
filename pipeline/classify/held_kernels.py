"""Held bytes: a window of each client's stream that begins with a hello or a head not yet whole.

Each holding is a window of fixed size from the sequence number of its first byte, and a sorted list
of the pieces that came. Bytes that are there already are never overwritten: the first of two
overlapping segments wins, and a difference is noted. Each piece knows time and number of its
packet. Holdings are few and stated; they are released when their unit is whole or their time is up
(first in, first out by watermark), and wiped, for a head has cookies in it.
"""

from __future__ import annotations

import numpy as np

from pipeline.classify.state_kernels import SEAL_BYTES, seal_start, window_start
from pipeline.kernels.bytes import clear_bytes, copy_bytes
from pipeline.kernels.compile import primitive, routine

U64 = np.uint64
I64 = np.int64

# Outcomes of `hold`.
STORED, NOTHING_NEW, NO_ROOM = 0, 1, 2


@primitive
def sequence_difference(a, b):
    """a - b of two 32-bit sequence numbers: how far ahead a is, negative for behind (RFC 9293,
    3.4).
    """
    return ((a - b + 0x80000000) & 0xFFFFFFFF) - 0x80000000


@primitive
def _unlink(holdings, counts, h):
    older, younger = I64(holdings[h].older), I64(holdings[h].younger)
    if older > 0:
        holdings[older - 1].younger = younger
    else:
        counts.oldest = younger
    if younger > 0:
        holdings[younger - 1].older = older
    else:
        counts.youngest = older


@primitive
def _link_last(holdings, counts, h):
    holdings[h].older = counts.youngest
    holdings[h].younger = 0
    if counts.youngest > 0:
        holdings[counts.youngest - 1].younger = h + 1
    else:
        counts.oldest = h + 1
    counts.youngest = h + 1


@routine
def take_holding(holdings, counts, fingerprint, base, deadline_ns):
    """An empty holding for a flow, last in the queue; -1 when all are taken."""
    h = counts.free_holding - 1
    if h < 0:
        return h
    holding = holdings[h]
    counts.free_holding = I64(holding.younger)
    holding.fingerprint = fingerprint
    holding.origin = base
    holding.deadline_ns = deadline_ns
    holding.rows = holding.pieces = 0
    holding.disagrees = holding.named = 0
    _link_last(holdings, counts, h)
    return h


@routine
def release_holding(holdings, pieces, memory, desk, h):
    """Give a holding back, wiped; returns how many packets it held."""
    holding, counts = holdings[h], desk.counts
    if holding.pieces > 0:
        last = pieces[h * desk.limits.pieces + I64(holding.pieces) - 1]
        window = window_start(desk.limits, h)
        clear_bytes(memory, window, window + I64(last.stop))
    seal = seal_start(desk.limits, h)
    clear_bytes(memory, seal, seal + SEAL_BYTES)
    rows = I64(holding.rows)
    counts.held_rows -= rows
    _unlink(holdings, counts, h)
    holding.fingerprint = U64(0)
    holding.client_hi = holding.client_lo = U64(0)
    holding.server_hi = holding.server_lo = U64(0)
    holding.client_port = holding.server_port = 0
    holding.rows = holding.pieces = holding.older = 0
    holding.younger = counts.free_holding
    counts.free_holding = h + 1
    return rows


@routine
def renew_holding(holdings, counts, h, deadline_ns):
    """What is held now begins something new: it gets time of its own."""
    holdings[h].deadline_ns = deadline_ns
    _unlink(holdings, counts, h)
    _link_last(holdings, counts, h)


@routine
def hold(
    holding, pieces, first, memory, window, limits, data, at, length, position, time_ns, number
):
    """Put `data[at : at + length]` at `position` of a window; what is beyond the window is left
    out.

    The window begins at `memory[window]`, its pieces at `pieces[first]`. STORED, NOTHING_NEW, or
    NO_ROOM for a piece more.
    """
    cursor = max(position, 0)
    stop = min(position + length, limits.unit_bytes)
    new = False
    k = first
    while cursor < stop:
        count = first + I64(holding.pieces)
        while k < count and pieces[k].stop <= cursor:
            k += 1
        if k < count and pieces[k].start <= cursor:
            until = min(stop, pieces[k].stop)
            for i in range(cursor, until):
                if memory[window + i] != data[at + i - position]:
                    holding.disagrees = 1
            cursor = until
            continue
        until = stop
        if k < count:
            until = min(stop, pieces[k].start)
        if count == first + limits.pieces:
            return NO_ROOM
        for i in range(count, k, -1):
            pieces[i] = pieces[i - 1]
        pieces[k].start = cursor
        pieces[k].stop = until
        pieces[k].time_ns = time_ns
        pieces[k].number = number
        holding.pieces += 1
        copy_bytes(data, at + cursor - position, at + until - position, memory, window + cursor)
        new = True
        cursor = until
    return STORED if new else NOTHING_NEW


@routine
def whole_from(pieces, first, count, start):
    """Where the bytes end that are there without a gap from `start` on; `start` for none."""
    stop = start
    for k in range(first, first + count):
        if pieces[k].start > stop:
            break
        stop = max(stop, pieces[k].stop)
    return stop


@routine
def whole_until(pieces, first, count):
    """How many bytes from the window's start are there without a gap."""
    return whole_from(pieces, first, count, I64(0))


@routine
def join_pieces(holding, pieces, first):
    """Make one of pieces without a gap between them; it keeps the packet of the first."""
    count = first + I64(holding.pieces)
    kept = first
    for k in range(first + 1, count):
        if pieces[k].start == pieces[kept].stop:
            pieces[kept].stop = pieces[k].stop
        else:
            kept += 1
            pieces[kept] = pieces[k]
    holding.pieces = min(kept + 1, count) - first


@routine
def drop_front(holding, pieces, first, memory, window, length):
    """Let the window begin `length` bytes later; True when nothing is left in it."""
    count = first + I64(holding.pieces)
    last = pieces[count - 1].stop if count > first else I64(0)
    holding.origin = (I64(holding.origin) + length) & 0xFFFFFFFF
    kept = first
    for k in range(first, count):
        if pieces[k].stop > length:
            pieces[kept] = pieces[k]
            pieces[kept].start = max(pieces[k].start - length, 0)
            pieces[kept].stop = pieces[k].stop - length
            kept += 1
    holding.pieces = kept - first
    copy_bytes(memory, window + min(length, last), window + last, memory, window)
    clear_bytes(memory, window + max(last - length, I64(0)), window + last)
    return kept == first
