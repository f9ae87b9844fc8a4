"""The flow table: open addressing over slots of 64 bytes, one cache line each, keyed by a secret.

A flow is found by a keyed 64-bit fingerprint of its addresses, ports and transport; its low bits
say where to look first, the next free slot is found by steps of one, and a slot taken out is closed
up by moving later ones back, so that no stones remain. In inspect both directions make one
fingerprint (a sum of two hashes); behind the gate only the client's direction is looked at, and
makes its own. The realm is no part of it: a mirror may tag the two directions differently.

At most half of the slots are taken: the table doubles, up to a stated number of flows, so that few
flows stay in the cache and a million have room. New flows queue up by turn. Before one more enters,
the two at the head of the queue are looked at: who was idle is taken out, who was seen since it
queued goes to the end. Where the table is still full, the oldest is evicted and counted. Idle is by
packet time: `seen_ns` is the largest packet time of the source when the flow was last seen.

Names that a flow has given are hashes: the first in its slot, more in a pool, linked.
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels.compile import kernel, primitive, routine
from pipeline.kernels.hashing import address_hash, mix64

U64 = np.uint64
I64 = np.int64
NAMES_A_FLOW_MAX = 32
LOOKED_AT_MAX = 2
TURN_MASK = 0xFFFFFFFF

# What `give_name` says.
ADDED, KNOWN, NO_ROOM_FOR_IT = 0, 1, 2


@primitive
def end_hash(key0, key1, hi, lo, port, transport):
    """A keyed hash of one end of a flow."""
    return mix64(address_hash(key0, key1, hi, lo) + U64(port) + (U64(transport) << U64(16)))


@primitive
def join_ends(source, target, directed):
    """The fingerprint of a flow from the hashes of its ends, never 0; of both directions the same,
    unless `directed`."""
    if directed:
        return mix64(source + target * U64(3)) | U64(1)
    return mix64(source + target) | U64(1)


@primitive
def home_of(slots, fingerprint):
    """The slot where a flow is looked for first. The lowest bit, always set, says nothing."""
    return (fingerprint >> U64(1)) & U64(len(slots) - 1)


@primitive
def find_flow(slots, fingerprint):
    """The slot of a flow, or the empty one where it would go."""
    mask = U64(len(slots) - 1)
    at = home_of(slots, fingerprint)
    # A step that every third flow or so needs cannot be foreseen: added, and not branched to.
    first = slots[at].fingerprint
    at = (at + U64((first != U64(0)) & (first != fingerprint))) & mask
    while slots[at].fingerprint != U64(0) and slots[at].fingerprint != fingerprint:
        at = (at + U64(1)) & mask
    return I64(at)


@routine
def clear_flow(names, counts, flow):
    """Empty a slot whose held bytes are released, but for its fingerprint and its turn."""
    more = I64(flow.more_names)
    while more > 0:  # give its names back to the pool
        after = I64(names[more - 1].next)
        names[more - 1].name = U64(0)
        names[more - 1].next = counts.free_name
        counts.free_name = more
        more = after
    flow.seen_ns = flow.first_ns = 0
    flow.name = U64(0)
    flow.next_sequence = flow.first_sequence = 0
    flow.held = flow.more_names = 0
    flow.subscriber = -1
    flow.state = flow.bits = flow.tries = flow.names = flow.transport = flow.mark = 0


@routine
def remove_flow(slots, names, counts, at):
    """Take out a slot whose held bytes are released, and close the gap."""
    clear_flow(names, counts, slots[at])
    mask = I64(len(slots) - 1)
    hole = I64(at)
    step = hole
    while True:
        step = (step + 1) & mask
        if slots[step].fingerprint == U64(0):
            break
        home = I64(home_of(slots, slots[step].fingerprint))
        if ((step - home) & mask) >= ((step - hole) & mask):
            slots[hole] = slots[step]
            hole = step
    clear_slot = slots[hole]
    clear_slot.fingerprint = U64(0)
    clear_slot.more_names = clear_slot.held = 0
    clear_flow(names, counts, clear_slot)
    clear_slot.turn = 0
    counts.flows -= 1


@primitive
def is_idle(counts, flow, idle_ns):
    """Has nothing been seen of this flow for so long that its ports may be somebody else's?"""
    return counts.watermark_ns - flow.seen_ns > idle_ns


@primitive
def _head_of_queue(slots, queue, counts):
    """The slot of the flow at the head of the queue; -1 where it was taken out meanwhile."""
    first = queue[counts.queue_head]
    at = find_flow(slots, first.fingerprint)
    if slots[at].fingerprint == U64(0) or slots[at].turn != first.turn:
        return I64(-1)
    return at


@primitive
def _leave_queue(queue, counts):
    counts.queue_head = (counts.queue_head + 1) % len(queue)
    counts.queued -= 1


@primitive
def _join_queue(queue, counts, flow):
    last = queue[(counts.queue_head + counts.queued) % len(queue)]
    counts.queued += 1
    counts.turn = (counts.turn + 1) & TURN_MASK
    flow.turn = last.turn = counts.turn
    last.fingerprint = flow.fingerprint
    last.queued_ns = counts.watermark_ns


@routine
def next_to_leave(slots, queue, counts, limits, looked):
    """One step of making room: (the slot to take out or -1, was it evicted, how many were looked
    at).

    To be called with 0, and again with what it gave last after each slot that it named and that was
    taken out. When it names none, one flow more may enter.
    """
    while counts.queued > 0 and looked < LOOKED_AT_MAX:
        looked += 1
        at = _head_of_queue(slots, queue, counts)
        if at < 0:
            _leave_queue(queue, counts)
        elif is_idle(counts, slots[at], limits.idle_ns):
            _leave_queue(queue, counts)
            return at, False, looked
        elif slots[at].seen_ns > queue[counts.queue_head].queued_ns:
            _leave_queue(queue, counts)
            _join_queue(queue, counts, slots[at])
        else:
            break
    while counts.flows >= limits.flows or counts.queued == len(queue):
        at = _head_of_queue(slots, queue, counts)
        _leave_queue(queue, counts)
        if at >= 0:
            return at, True, LOOKED_AT_MAX
    return I64(-1), False, LOOKED_AT_MAX


@routine
def enter_flow(slots, queue, counts, fingerprint):
    """Put a new flow in, after `next_to_leave` named none; its slot."""
    at = find_flow(slots, fingerprint)
    flow = slots[at]
    flow.fingerprint = fingerprint
    flow.subscriber = -1
    counts.flows += 1
    _join_queue(queue, counts, flow)
    return at


@routine
def give_name(names, counts, flow, name):
    """Note that a flow gave this name (a hash): ADDED, KNOWN where it had given it before.

    Beyond 32 names of one flow, or when the pool is empty, a further name is not remembered, and
    whenever it comes it is as good as new: NO_ROOM_FOR_IT.
    """
    if flow.names == 0:
        flow.name = name
        flow.names = 1
        return ADDED
    if flow.name == name:
        return KNOWN
    more = I64(flow.more_names)
    while more > 0:
        if names[more - 1].name == name:
            return KNOWN
        more = I64(names[more - 1].next)
    free = counts.free_name
    if free == 0 or flow.names == NAMES_A_FLOW_MAX:
        return NO_ROOM_FOR_IT
    counts.free_name = I64(names[free - 1].next)
    names[free - 1].name = name
    names[free - 1].next = flow.more_names
    flow.more_names = free
    flow.names += 1
    return ADDED


@kernel
def copy_flows(slots, queue, desk, wider_slots, wider_queue):
    """Enter all flows, and the queue from its head on, into larger tables. `desk` is an array of
    one.

    Touches 152 bytes a slot: 27 % of the memory's bandwidth.
    """
    counts = desk[0].counts
    for at in range(len(slots)):
        if slots[at].fingerprint != U64(0):
            wider_slots[find_flow(wider_slots, slots[at].fingerprint)] = slots[at]
    for k in range(counts.queued):
        wider_queue[k] = queue[(counts.queue_head + k) % len(queue)]
    counts.queue_head = 0
