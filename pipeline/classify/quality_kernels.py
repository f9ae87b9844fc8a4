"""What the mirror port leaves out, and what it shows twice: TCP's own numbers tell.

A sample of the flows is watched in both directions. The sample is drawn by the flow's keyed
fingerprint, all flows while they fit, then every second, every fourth, and so on, so that a small
capture is judged whole and a busy line costs little. Shares are told of what was watched.

Of each direction the next sequence number is known (RFC 9293, 3.4). A segment beyond it leaves a
hole; segments that come later fill it from either end. A hole that is never filled is bytes that
the mirror, or the network before it, lost. The last four holes of a direction are remembered, so
that of more at once the older count as lost although something may fill them. A segment that is the
same as one of the last four, sequence number and length, within two milliseconds is shown twice: no
sender sends again so soon. A flow is counted once it has three packets without SYN (a scan has
none), and as both ways once each side has sent one.

Sketch: most packets are no part of the sample and cost a bit of their fingerprint: 2 ns.
"""

from __future__ import annotations

import numpy as np

from pipeline.classify.held_kernels import sequence_difference
from pipeline.classify.layers_kernels import TCP
from pipeline.kernels.compile import kernel, primitive, routine

U64 = np.uint64
I64 = np.int64
SYN = 2
RECENT = 4
TWICE_NS = 2_000_000
FAR = 1 << 26  # bytes: not the same stream any more
IDLE_NS = 60_000_000_000
COUNTED_FROM = 3  # packets of a flow
BOTH = 3  # in `sides`
PLACE_SHIFT = U64(24)  # bits of a fingerprint that say where it stands; lower ones draw the sample

WATCHED = np.dtype([("fingerprint", "u8"), ("seen_ns", "i8"), ("packets", "u4"), ("sides", "u4")])
"""A flow of the sample. `fingerprint` 0: empty; `sides`: a bit for each that has sent."""

HALF = np.dtype([("next", "u4"), ("begun", "u1"), ("turn", "u1"), ("hole", "u1"), ("pad", "u1")])
"""One direction of it, rows 2n and 2n + 1 for flow n; where its next segment and hole go."""

SHOWN = np.dtype(
    [("time_ns", "i8"), ("sequence", "u4"), ("length", "u4"), ("start", "u4"), ("stop", "u4")]
)
"""A segment of late, and a hole, four of each for each direction. `length` 0: none; `start` and
`stop` the same: none."""

SUMS = np.dtype(
    [
        ("flows", "i8"), ("rate", "i8"), ("truncated", "i8"),
        ("counted", "i8"), ("both_ways", "i8"), ("segments", "i8"), ("twice", "i8"),
        ("holes", "i8"), ("filled", "i8"),
    ]
)  # fmt: skip
"""`flows` are watched now, one in two to the power of `rate`; the rest is what was found."""


@primitive
def _is_drawn(fingerprint, rate):
    """Is a flow part of the sample, when one in two to the power of `rate` is?"""
    return (fingerprint >> U64(1)) & ((U64(1) << U64(rate)) - U64(1)) == U64(0)


@primitive
def _find(flows, fingerprint):
    """The place of a flow, or the empty one where it would go."""
    mask = U64(len(flows) - 1)
    at = (fingerprint >> PLACE_SHIFT) & mask
    while flows[at].fingerprint != U64(0) and flows[at].fingerprint != fingerprint:
        at = (at + U64(1)) & mask
    return I64(at)


@routine
def _begin_half(half, shown, first, sequence):
    """A direction begins with this sequence number."""
    half.next = sequence & 0xFFFFFFFF
    half.begun = 1
    for k in range(first, first + RECENT):
        shown[k].length = 0
        shown[k].start = shown[k].stop = 0


@routine
def _was_shown(half, shown, first, sequence, length, time_ns):
    """Was the same segment shown just now? Else it is noted."""
    for k in range(first, first + RECENT):
        one = shown[k]
        if one.length == length and one.sequence == sequence:
            if abs(time_ns - one.time_ns) <= TWICE_NS:
                return True
    one = shown[first + I64(half.turn)]
    half.turn = (I64(half.turn) + 1) % RECENT
    one.time_ns, one.sequence, one.length = time_ns, sequence, length
    return False


@routine
def _take(half, shown, first, sums, sequence, length, time_ns):
    """Take a segment with payload of a direction that has begun."""
    sums.segments += 1
    if _was_shown(half, shown, first, sequence, length, time_ns):
        sums.twice += 1
        return
    stop = (sequence + length) & 0xFFFFFFFF
    ahead = sequence_difference(sequence, I64(half.next))
    if ahead > FAR or ahead < -FAR:
        _begin_half(half, shown, first, stop)
    elif ahead > 0:
        hole = shown[first + I64(half.hole)]
        half.hole = (I64(half.hole) + 1) % RECENT
        hole.start, hole.stop = half.next, sequence
        half.next = stop
        sums.holes += 1
    else:
        for k in range(first, first + RECENT):
            if shown[k].start != shown[k].stop:
                _fill(shown[k], sums, sequence, stop)
        if ahead + length > 0:
            half.next = stop


@primitive
def _fill(hole, sums, sequence, stop):
    """Take bytes `sequence` up to `stop` out of a hole, from its start or up to its stop."""
    start, end = I64(hole.start), I64(hole.stop)
    if sequence_difference(sequence, start) <= 0:
        if sequence_difference(stop, start) > 0:
            hole.start = stop if sequence_difference(stop, end) < 0 else end
    elif sequence_difference(sequence, end) < 0 and sequence_difference(stop, end) >= 0:
        hole.stop = sequence
    if hole.start == hole.stop:
        sums.filled += 1


@kernel
def watch_packets(
    flows, halves, shown, sums, capacity, heads, captured, wire, time_ns, fingerprint, side, start
):  # fmt: skip
    """Watch packets `start...` of a batch; returns the one to go on with once `thin_out` has made
    room.

    `flows` are WATCHED, a power of two and more than `capacity`, `halves` HALFs, `shown` SHOWNs,
    `sums` one SUMS. `heads` are HEADERs; those with a fault or skip, whose fingerprint is 0, are
    only counted where the capture cut them off. `fingerprint` (uint64) and `side` (bool) are those
    of the flow table, the other columns the packets' own.

    Touches 24 bytes a packet: 10 % of the memory's bandwidth.
    """
    sums = sums[0]
    truncated = I64(0)
    for i in range(len(time_ns)):  # from 0: then no index can be negative, and none is checked
        if i < start:
            continue
        cut = I64(captured[i] < wire[i])
        truncated += cut
        if fingerprint[i] == U64(0) or not _is_drawn(fingerprint[i], sums.rate):
            continue
        head = heads[i]
        if head.transport == TCP:
            at = _find(flows, fingerprint[i])
            flow = flows[at]
            if flow.fingerprint == U64(0):
                if sums.flows >= capacity:
                    sums.truncated += truncated - cut
                    return i
                sums.flows += 1
                flow.fingerprint = fingerprint[i]
                flow.packets = flow.sides = 0
                halves[2 * at].begun = halves[2 * at + 1].begun = 0
            _watch(flow, halves, shown, sums, at, head, time_ns[i], side[i])
    sums.truncated += truncated
    return len(time_ns)


@routine
def _watch(flow, halves, shown, sums, at, head, time_ns, side):
    """Take a packet of a flow of the sample."""
    counted, both = flow.packets == COUNTED_FROM, flow.sides == BOTH
    flow.seen_ns = time_ns
    flow.sides = I64(flow.sides) | (2 if side else 1)
    if head.tcp_flags & SYN == 0:
        flow.packets = min(I64(flow.packets) + 1, COUNTED_FROM)
    if flow.packets == COUNTED_FROM:
        sums.counted += 0 if counted else 1
        if flow.sides == BOTH:
            sums.both_ways += 0 if counted and both else 1
    row = 2 * at + (1 if side else 0)
    half, first = halves[row], row * RECENT
    sequence, length = I64(head.sequence), I64(head.payload_length)
    if head.tcp_flags & SYN:
        sequence = (sequence + 1) & 0xFFFFFFFF
        _begin_half(half, shown, first, sequence)
    if length > 0:
        if half.begun == 0:
            _begin_half(half, shown, first, sequence)
        _take(half, shown, first, sums, sequence, length, time_ns)


@primitive
def _stays(flow, now_ns, rate):
    """Is this a flow of the sample that is not idle?"""
    return (
        flow.fingerprint != U64(0)
        and abs(now_ns - flow.seen_ns) <= IDLE_NS
        and _is_drawn(flow.fingerprint, rate)
    )


@kernel
def thin_out(flows, halves, shown, sums, capacity, now_ns, other_flows, other_halves, other_shown):
    """Move what stays into other, empty tables of the same size: flows not idle at `now_ns`, drawn
    at a rate at which they are half of `capacity` at most; the rate falls again where few are left.

    Touches 24 bytes a slot: 3 % of the memory's bandwidth.
    """
    sums = sums[0]
    rate = max(sums.rate - 1, 0)
    staying = capacity
    while staying * 2 > capacity:
        staying = 0
        for at in range(len(flows)):
            staying += 1 if _stays(flows[at], now_ns, rate) else 0
        rate += 1
    sums.rate = rate - 1
    sums.flows = staying
    for at in range(len(flows)):
        if _stays(flows[at], now_ns, sums.rate):
            to = _find(other_flows, flows[at].fingerprint)
            other_flows[to] = flows[at]
            for k in range(2):
                other_halves[2 * to + k] = halves[2 * at + k]
            for k in range(2 * RECENT):
                other_shown[2 * RECENT * to + k] = shown[2 * RECENT * at + k]
