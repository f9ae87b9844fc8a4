"""Fragments of IP packets, put together within stated bounds (RFC 791, 8200, 5722, 6946).

A packet's fragments share its addresses, its identification, in IPv4 its protocol, and we ask for
the same realm too; they are found by a keyed hash of these. What has come is kept in blocks of
2 KiB, linked in the order of their place in the packet. When every byte is there the packet is
written out whole, its set is released, and the walk goes on in it: so a tunnel whose outer packets
are fragments is read like any other, and fragments inside a tunnel, too.

    IPv4   what came first stays; bytes that disagree are counted (OVERLAP_DISAGREES)
    IPv6   overlapping fragments discard the packet, and all of it that is still to come
           (FRAGMENT_OVERLAP); the very same fragment once more is only that

Bounds: sets, blocks, blocks a set, and packet time from a set's first fragment on. Whatever is to
be kept beyond them has the oldest set evicted (FRAGMENTS_EXHAUSTED); a set whose time is up is a
FRAGMENT fault. All of it follows packet time and order, not how packets are cut into batches.

Behind the gate a fragment is kept only if its source passes. A tunnel's ends are no subscribers: so
the first fragment of a packet also passes if the innermost source in it does, and those that come
after it, into its set, with it. The gate is asked again of what was put together.

Sketch: fragments are rare; one costs a hash, a walk over the blocks of its set (two or three) and a
copy of its bytes in and one out: half a microsecond of 1,500 bytes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.classify.descent_kernels import NESTING_MAX, descend
from pipeline.classify.gate_kernels import ask_gate
from pipeline.classify.layers_kernels import (
    AT_EXTENSION,
    AT_PROTOCOL,
    AUTHENTICATION,
    FRAGMENT_HEADER,
    GOOD,
    HEADER,
    NESTING_TOO_DEEP,
    PACKET_BYTES_MAX,
    PIECE,
    SKIPPED,
)
from pipeline.kernels.bytes import clear_bytes, copy_bytes
from pipeline.kernels.circle import CircleArrays
from pipeline.kernels.compile import kernel, primitive, routine
from pipeline.kernels.hashing import address_hash, mix64
from pipeline.model.faults import Fault, Skip

U64 = np.uint64
I64 = np.int64
BLOCK_BYTES = 2048
BLOCKS_A_SET_MAX = 128
EVENTS_MAX = 64
JOINED = 1 << 31  # in `payload_at`: the payload lies among what was put together
FRAGMENT, FRAGMENT_OVERLAP = int(Fault.FRAGMENT), int(Fault.FRAGMENT_OVERLAP)
FRAGMENTS_EXHAUSTED = int(Fault.FRAGMENTS_EXHAUSTED)
OVERLAP_DISAGREES = int(Fault.OVERLAP_DISAGREES)
FRAGMENT_HELD, PASSED = int(Skip.FRAGMENT_HELD), int(Skip.PASSED)

SET = np.dtype(
    [
        ("source_hi", "u8"), ("source_lo", "u8"), ("target_hi", "u8"), ("target_lo", "u8"),
        ("deadline_ns", "i8"), ("identification", "u4"), ("realm", "u4"), ("subscriber", "i4"),
        ("first", "i4"), ("next", "i4"), ("older", "i4"), ("younger", "i4"), ("blocks", "i4"),
        ("held", "i4"), ("total", "i4"), ("reach", "i4"), ("protocol", "u1"), ("version", "u1"),
        ("discarded", "u1"), ("disagrees", "u1"), ("inside", "u1"),
    ]
)  # fmt: skip
"""A packet of which fragments have come: `held` bytes of `total` (0 while that is not known), none
beyond `reach`. As everywhere, 1 + an index is stored, 0 is none. `inside` says that the gate let it
pass for the address inside its first fragment.
"""

BLOCK = np.dtype([("start", "i4"), ("stop", "i4"), ("next", "i4"), ("opens", "i4")])
"""Bytes `start` up to `stop` of a packet; `opens` says that a fragment began here."""

DESK = np.dtype(
    [
        ("watermark_ns", "i8"), ("key0", "u8"), ("key1", "u8"), ("hold_ns", "i8"),
        ("free_set", "i8"), ("free_block", "i8"), ("blocks_left", "i8"), ("oldest", "i8"),
        ("youngest", "i8"), ("joined", "i8"), ("who", "i8"), ("standing", "i8"),
        ("spare", HEADER), ("events", "i8", (EVENTS_MAX,)),
    ]
)  # fmt: skip
"""All that there is one of; `spare` is a row for looking into a fragment."""


class Fragments(NamedTuple):
    """What is kept of fragments."""

    sets: np.ndarray
    buckets: np.ndarray  # int32, a power of two
    blocks: np.ndarray
    memory: np.ndarray  # uint8, BLOCK_BYTES for each block
    desk: np.ndarray  # an array of one outside kernels, the record inside


class Gate(NamedTuple):
    """Whom the gate lets pass; nobody is asked unless `closed`."""

    circle: CircleArrays
    parse_for: int
    own: np.ndarray  # see `own_prefixes`
    closed: bool


@primitive
def _bucket(fragments, head):
    """Where the sets of a fragment's packet are linked."""
    desk = fragments.desk
    mixed = U64(head.sequence) | U64(head.realm) << U64(32)
    mixed = mix64(address_hash(desk.key0, desk.key1, head.source_hi, head.source_lo) ^ mixed)
    mixed = address_hash(desk.key1 ^ mixed, desk.key0, head.target_hi, head.target_lo)
    return I64(mixed & U64(len(fragments.buckets) - 1))


@routine
def _find_set(fragments, head):
    """The set of a fragment's packet, or -1."""
    s = I64(fragments.buckets[_bucket(fragments, head)]) - 1
    while s >= 0:
        known = fragments.sets[s]
        if (
            known.identification == head.sequence
            and known.source_lo == head.source_lo
            and known.source_hi == head.source_hi
            and known.target_lo == head.target_lo
            and known.target_hi == head.target_hi
            and known.realm == head.realm
            and known.version == head.tcp_flags
            and (known.version == 6 or known.protocol == head.source_port)
        ):
            return s
        s = I64(known.next) - 1
    return s


@routine
def _open_set(fragments, head, who, inside):
    """A new set for a fragment's packet, for which the oldest may have to leave."""
    desk, sets = fragments.desk, fragments.sets
    if desk.free_set == 0:
        _evict_oldest(fragments)
    s = I64(desk.free_set) - 1
    new = sets[s]
    desk.free_set = I64(new.next)
    at = _bucket(fragments, head)
    new.next = fragments.buckets[at]
    fragments.buckets[at] = s + 1
    new.source_hi, new.source_lo = head.source_hi, head.source_lo
    new.target_hi, new.target_lo = head.target_hi, head.target_lo
    new.identification, new.realm = head.sequence, head.realm
    new.version, new.protocol = head.tcp_flags, head.source_port
    new.subscriber, new.inside = who, inside
    new.deadline_ns = desk.watermark_ns + desk.hold_ns
    new.older, new.younger = desk.youngest, 0
    if desk.youngest > 0:
        sets[desk.youngest - 1].younger = s + 1
    else:
        desk.oldest = s + 1
    desk.youngest = s + 1
    return s


@routine
def _release_bytes(fragments, s):
    """Give back the blocks of a set, wiped."""
    desk, blocks, memory = fragments.desk, fragments.blocks, fragments.memory
    b = I64(fragments.sets[s].first)
    while b > 0:
        block = blocks[b - 1]
        place = (b - 1) * BLOCK_BYTES
        clear_bytes(memory, place, place + I64(block.stop) - I64(block.start))
        after = I64(block.next)
        block.start = block.stop = block.opens = 0
        block.next = desk.free_block
        desk.free_block = b
        desk.blocks_left += 1
        b = after
    fragments.sets[s].first = fragments.sets[s].blocks = fragments.sets[s].held = 0


@routine
def _release_set(fragments, s):
    """Take a set out, with its bytes."""
    _release_bytes(fragments, s)
    desk, sets, buckets = fragments.desk, fragments.sets, fragments.buckets
    gone, spare = sets[s], desk.spare
    spare.source_hi, spare.source_lo = gone.source_hi, gone.source_lo
    spare.target_hi, spare.target_lo = gone.target_hi, gone.target_lo
    spare.sequence, spare.realm = gone.identification, gone.realm
    at = _bucket(fragments, spare)
    if buckets[at] == s + 1:
        buckets[at] = gone.next
    else:
        before = I64(buckets[at]) - 1
        while sets[before].next != s + 1:
            before = I64(sets[before].next) - 1
        sets[before].next = gone.next
    if gone.older > 0:
        sets[gone.older - 1].younger = gone.younger
    else:
        desk.oldest = gone.younger
    if gone.younger > 0:
        sets[gone.younger - 1].older = gone.older
    else:
        desk.youngest = gone.older
    gone.source_hi = gone.source_lo = gone.target_hi = gone.target_lo = U64(0)
    gone.deadline_ns = 0
    gone.identification = gone.realm = 0
    gone.total = gone.reach = gone.older = gone.younger = 0
    gone.protocol = gone.version = gone.discarded = gone.disagrees = gone.inside = 0
    gone.subscriber = -1
    gone.next = desk.free_set
    desk.free_set = s + 1


@routine
def _evict_oldest(fragments):
    """Make room."""
    desk = fragments.desk
    desk.events[FRAGMENTS_EXHAUSTED] += 1
    _release_set(fragments, I64(desk.oldest) - 1)


@routine
def expire_sets(fragments, watermark_ns):
    """Give up the sets whose time is up at `watermark_ns`."""
    desk = fragments.desk
    while desk.oldest > 0 and fragments.sets[desk.oldest - 1].deadline_ns < watermark_ns:
        if fragments.sets[desk.oldest - 1].discarded == 0:
            desk.events[FRAGMENT] += 1
        _release_set(fragments, I64(desk.oldest) - 1)


@routine
def _survey(fragments, s, data, at, start, stop):
    """What of a fragment is there already: (blocks that it needs, bytes there, do they disagree,
    is it the very same fragment)."""
    blocks, memory = fragments.blocks, fragments.memory
    needed = there = opened = I64(0)
    reached, first_start, last_stop = start, I64(-1), I64(-1)
    disagrees = False
    b = I64(fragments.sets[s].first)
    while b > 0:
        known_start, known_stop = I64(blocks[b - 1].start), I64(blocks[b - 1].stop)
        if known_start > reached and reached < stop:
            needed += (min(known_start, stop) - reached + BLOCK_BYTES - 1) // BLOCK_BYTES
        low, high = max(start, known_start), min(stop, known_stop)
        if low < high:
            there += high - low
            opened += I64(blocks[b - 1].opens)
            first_start = known_start if first_start < 0 else first_start
            last_stop = known_stop
            place = (b - 1) * BLOCK_BYTES - known_start
            for k in range(low, high):
                if memory[place + k] != data[at - start + k]:
                    disagrees = True
        reached = max(reached, known_stop)
        b = I64(blocks[b - 1].next)
    if reached < stop:
        needed += (stop - reached + BLOCK_BYTES - 1) // BLOCK_BYTES
    same = first_start == start and last_stop == stop and opened == 1 and there == stop - start
    return needed, there, disagrees, same and not disagrees


@routine
def _store(fragments, s, data, at, start, stop):
    """Put what is new of a fragment into blocks of its set; there are enough."""
    desk, blocks, memory, known = (
        fragments.desk,
        fragments.blocks,
        fragments.memory,
        fragments.sets[s],
    )
    before, after = I64(0), I64(known.first)
    reached = start
    while reached < stop:
        while after > 0 and blocks[after - 1].stop <= reached:
            before = after
            after = I64(blocks[after - 1].next)
        if after > 0 and blocks[after - 1].start <= reached:
            reached = I64(blocks[after - 1].stop)
            continue
        end = min(stop, reached + BLOCK_BYTES)
        if after > 0:
            end = min(end, I64(blocks[after - 1].start))
        b = I64(desk.free_block)
        block = blocks[b - 1]
        desk.free_block = I64(block.next)
        desk.blocks_left -= 1
        block.start, block.stop, block.next = reached, end, after
        block.opens = 1 if reached == start else 0
        copy_bytes(data, at + reached - start, at + end - start, memory, (b - 1) * BLOCK_BYTES)
        if before > 0:
            blocks[before - 1].next = b
        else:
            known.first = b
        known.blocks += 1
        known.held += end - reached
        before, reached = b, end


@routine
def _add(fragments, s, head, data):
    """Add a fragment to its set: is the packet whole? What becomes of the row is written there."""
    desk, known = fragments.desk, fragments.sets[s]
    at, length = I64(head.payload_at), I64(head.payload_length)
    start, last = I64(head.acknowledged) & ~1, I64(head.acknowledged) & 1 == 0
    stop = start + length
    head.skip = 0
    if known.discarded:
        head.fault = FRAGMENT_OVERLAP
        return False
    needed, there, disagrees, same = _survey(fragments, s, data, at, start, stop)
    total = I64(known.total)
    other_end = (total > 0 and (stop > total or (last and stop != total))) or (
        last and stop < known.reach
    )
    if other_end or (known.version == 6 and there > 0 and not same):
        head.fault = FRAGMENT_OVERLAP
        if known.version == 6:
            _release_bytes(fragments, s)
            known.discarded = 1
        return False
    if disagrees and known.disagrees == 0:
        known.disagrees = 1
        desk.events[OVERLAP_DISAGREES] += 1
    head.skip = FRAGMENT_HELD if there < length else PASSED
    if needed > 0:
        while desk.blocks_left < needed and desk.oldest != s + 1:
            _evict_oldest(fragments)
        if desk.blocks_left < needed or known.blocks + needed > BLOCKS_A_SET_MAX:
            _release_set(fragments, s)
            head.fault, head.skip = FRAGMENTS_EXHAUSTED, 0
            return False
        _store(fragments, s, data, at, start, stop)
    if last:
        known.total = stop
    if start == 0:
        known.protocol = head.source_port
    known.reach = max(I64(known.reach), stop)
    return known.total > 0 and known.held == known.total


@routine
def _write_out(fragments, s, joined, place):
    """A whole packet's bytes into `joined`; how many."""
    b, length = I64(fragments.sets[s].first), I64(0)
    while b > 0:
        size = I64(fragments.blocks[b - 1].stop) - I64(fragments.blocks[b - 1].start)
        held = (b - 1) * BLOCK_BYTES
        copy_bytes(fragments.memory, held, held + size, joined, place + length)
        length += size
        b = I64(fragments.blocks[b - 1].next)
    return length


@primitive
def _layer_of(version, protocol):
    return AT_EXTENSION if version == 6 or protocol == AUTHENTICATION else AT_PROTOCOL


@routine
def _ask(fragments, gate, head, time_ns):
    """Ask the gate for a row's source: the skip, 0 where it passes; who it is stays on the desk."""
    desk = fragments.desk
    if not gate.closed:
        desk.who, desk.standing = -1, 0
        return 0
    who, standing, skip = ask_gate(
        gate.circle, gate.parse_for, gate.own, head.source_hi, head.source_lo, time_ns
    )
    desk.who, desk.standing = who, standing
    return skip


@routine
def _passes_inside(fragments, gate, head, data, time_ns):
    """Does the gate let a first fragment pass for the innermost source that can be seen in it?"""
    if I64(head.acknowledged) & ~1 != 0:
        return False
    spare = fragments.desk.spare
    spare.source_hi, spare.source_lo = head.source_hi, head.source_lo
    spare.realm = head.realm
    at, protocol = I64(head.payload_at), I64(head.source_port)
    stop = at + I64(head.payload_length)
    layer = _layer_of(I64(head.tcp_flags), protocol)
    descend(data, at, stop, at + PACKET_BYTES_MAX, layer, protocol, I64(head.target_port), spare)
    if spare.source_hi == head.source_hi and spare.source_lo == head.source_lo:
        return False
    return _ask(fragments, gate, spare, time_ns) == 0


@routine
def _find_or_open(fragments, gate, head, data, time_ns):
    """The set that a fragment may go to, the gate being asked before; -1 where it may not."""
    s = _find_set(fragments, head)
    if head.skip == 0:
        who = fragments.desk.who
        if s >= 0 and fragments.sets[s].subscriber != who:  # its address has another holder now
            fragments.desk.events[FRAGMENT] += 1
            _release_set(fragments, s)
            s = I64(-1)
        return s if s >= 0 else _open_set(fragments, head, who, 0)
    if s >= 0:
        return s if fragments.sets[s].inside else I64(-1)
    if _passes_inside(fragments, gate, head, data, time_ns):
        return _open_set(fragments, head, fragments.desk.who, 1)
    return s


@routine
def _go_on(fragments, s, head, joined):
    """Write a whole packet out, release its set, and walk on in it; the verdict."""
    desk, known = fragments.desk, fragments.sets[s]
    protocol, layer = I64(known.protocol), _layer_of(I64(known.version), I64(known.protocol))
    depth, place = I64(head.target_port), I64(desk.joined)
    length = _write_out(fragments, s, joined, place)
    _release_set(fragments, s)
    head.transport = head.tcp_flags = 0
    head.sequence = head.acknowledged = 0
    head.skip = 0
    return descend(joined, place, place + length, place + length, layer, protocol, depth, head)


@routine
def _take_fragment(fragments, gate, head, data, time_ns, joined):
    """Keep a fragment; where it completes its packet, the row becomes that packet's."""
    desk = fragments.desk
    verdict, source = I64(PIECE), data
    for _ in range(NESTING_MAX):
        s = _find_or_open(fragments, gate, head, source, time_ns)
        if s < 0 or not _add(fragments, s, head, source):
            return
        verdict = _go_on(fragments, s, head, joined)
        if verdict != GOOD and verdict != PIECE:
            head.fault = verdict if verdict < SKIPPED else 0
            head.skip = verdict - SKIPPED if verdict > SKIPPED else 0
            return
        head.skip = _ask(fragments, gate, head, time_ns)
        if verdict == GOOD:
            desk.joined = I64(head.payload_at) + I64(head.payload_captured)
            head.payload_at = I64(head.payload_at) | JOINED
            return
        source = joined  # the packet was a tunnel's, and what it carries is a fragment again
    head.fault, head.skip = NESTING_TOO_DEEP, 0


@kernel
def join_fragments(
    sets, buckets, blocks, memory, desk,
    key, lengths4, lengths6, near, prefixes, facts, standings, basis_facts,
    parse_for, own, closed,
    heads, data, time_ns, subscriber, basis, joined, start,
):  # fmt: skip
    """Put the fragments of rows `start...` together; returns the row to go on with once `joined`
    (uint8) has more room.

    The first line of arguments is that of Fragments, the second CircleArrays, the third the rest of
    Gate; it was asked before for all rows of `heads` (HEADERs), as `subscriber` (int32) and `basis`
    (uint8) say. A row whose packet is whole becomes that packet's; others get a skip or a fault.

    Touches 1,277 bytes a fragment of 600 bytes: 12 % of the memory's bandwidth.
    """
    fragments = Fragments(sets, buckets, blocks, memory, desk[0])
    circle = CircleArrays(key, lengths4, lengths6, near, prefixes, facts, standings, basis_facts)
    gate = Gate(circle, parse_for, own, closed)
    desk1 = fragments.desk
    for i in range(start, len(time_ns)):
        if time_ns[i] > desk1.watermark_ns:
            desk1.watermark_ns = time_ns[i]
            expire_sets(fragments, time_ns[i])
        head = heads[i]
        if head.transport != FRAGMENT_HEADER or head.fault != 0:
            continue
        if desk1.joined + PACKET_BYTES_MAX > len(joined):
            return i
        desk1.who, desk1.standing = I64(subscriber[i]), I64(basis[i])
        _take_fragment(fragments, gate, head, data, time_ns[i], joined)
        if head.skip == 0 and head.fault == 0:
            subscriber[i], basis[i] = desk1.who, desk1.standing
    return len(time_ns)


@kernel
def give_up_fragments(sets, buckets, blocks, memory, desk, watermark_ns):
    """Give up the sets whose time is up at `watermark_ns`.

    Touches 89 bytes a set: 53 % of the memory's bandwidth.
    """
    expire_sets(Fragments(sets, buckets, blocks, memory, desk[0]), watermark_ns)


@kernel
def forget_fragments(sets, buckets, blocks, memory, desk, gone):
    """Drop every set of the subscribers whose place in `gone` (uint8) is set.

    Touches 89 bytes a set: 19 % of the memory's bandwidth.
    """
    fragments = Fragments(sets, buckets, blocks, memory, desk[0])
    s = I64(fragments.desk.oldest) - 1
    while s >= 0:
        younger, who = I64(sets[s].younger) - 1, sets[s].subscriber
        if 0 <= who < len(gone) and gone[who]:
            _release_set(fragments, s)
        s = younger
