"""Who held which address, and who may be looked at: two tables of facts, asked per packet.

Every fact has two times: `event_ns`, from when it holds, and `received_ns`, since when we know it.
A question names the packet's time t and is answered from facts with event <= t that were known at t
(received <= t), so it does not matter how far ahead of the packets the facts were loaded. Among
those the latest event wins, then the latest received, then the later row.

Addresses are prefixes of 128 bits in an open-addressing table keyed by a secret; the longest prefix
that is bound at t wins. Each prefix has a chain of facts, newest event first; a holder of -1 ends
whatever was before. Each subscriber has such a chain of basis facts.

Nearly every question is answered by the newest fact, so that one stands in the table itself, with
the time since which it is both true and known; and most addresses of servers are told apart by one
bit, of 64 ki that stay in the first-level cache. Sketch: a member's packet reads a bit, a prefix of
40 bytes and a standing of 16, a server's mostly the bit; chains only where something changed
lately. Measured in the gate: 26 ns a packet with 20,000 members. Capacity doubles when a table is
half full.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.kernels.compile import fetch, kernel, primitive, records
from pipeline.kernels.hashing import address_hash
from pipeline.model.batches import BasisBatch, BindingBatch
from pipeline.model.words import Basis, BindingKind

U64 = np.uint64
I64 = np.int64
NOBODY = -1
CONSENTED, LISTED = int(Basis.CONSENTED), int(Basis.LISTED)
EVERYONE = 3
NEAR_BYTES = 1 << 13
NEAR_LENGTH4, NEAR_LENGTH6, NEAR_BITS = 120, 56, 16  # a bit for each /24 and /56, by its last bits

# Where an index may be none, 1 + the index is stored and 0 is none: zeroed memory is empty memory.
PREFIX = np.dtype(
    [
        ("hi", "u8"), ("lo", "u8"), ("since_ns", "i8"), ("newest", "i4"), ("holder", "i4"),
        ("bits", "u4"), ("pad", "u4"),
    ]
)  # fmt: skip
"""`newest`: its newest fact (0: an empty slot), `holder` by it, `since_ns` true and known."""

FACT = np.dtype([("event_ns", "i8"), ("received_ns", "i8"), ("holder", "i4"), ("older", "i4")])
"""Who held a prefix from `event_ns` on; `older` is the fact that it took the place of."""

STANDING = np.dtype([("since_ns", "i8"), ("newest", "i4"), ("state", "u1"), ("pad", "u1", (3,))])
"""A subscriber's newest basis, as a PREFIX has its newest holder."""

BASIS_FACT = np.dtype([("event_ns", "i8"), ("received_ns", "i8"), ("state", "i4"), ("older", "i4")])
"""What a subscriber's basis was from `event_ns` on."""


class CircleArrays(NamedTuple):
    """The tables as kernels see them."""

    key: np.ndarray  # uint64 (2,)
    lengths4: np.ndarray  # int64: prefix lengths in use for IPv4, longest first
    lengths6: np.ndarray
    near: np.ndarray  # uint8: a bit for each /24, then each /56, that may hold a prefix: `_near`
    prefixes: np.ndarray  # PREFIX, a power of two
    facts: np.ndarray  # FACT
    standings: np.ndarray  # STANDING, by subscriber
    basis_facts: np.ndarray  # BASIS_FACT


@primitive
def mask_high(length):
    """The mask of the upper word of a prefix of `length` bits."""
    if length >= 64:
        return U64(0xFFFFFFFFFFFFFFFF)
    if length <= 0:
        return U64(0)
    return U64(0xFFFFFFFFFFFFFFFF) << U64(64 - length)


@primitive
def mask_low(length):
    """The mask of the lower word of a prefix of `length` bits."""
    return mask_high(length - 64)


@primitive
def _near(hi, lo, v4):
    """The bit of an address: by the last 16 bits of its /24, or of its /56 behind those."""
    bits = lo >> U64(8) if v4 else hi >> U64(8)
    return (bits & U64(0xFFFF)) + (U64(0) if v4 else U64(8 * NEAR_BYTES))


@primitive
def _mark_near(near, hi, lo, length):
    """A prefix is there: in one /24 or /56, or in as many as it is wide."""
    v4 = _is_v4(hi, lo)
    wider = (NEAR_LENGTH4 if v4 else NEAR_LENGTH6) - length
    first = I64(_near(hi, lo, v4))
    for bit in range(first, first + (1 << min(max(wider, 0), NEAR_BITS))):
        near[bit >> 3] = I64(near[bit >> 3]) | (1 << (bit & 7))


@primitive
def _is_v4(hi, lo):
    return (hi | ((lo >> U64(32)) ^ U64(0xFFFF))) == U64(0)


@primitive
def is_near(circle, hi, lo):
    """May a prefix around this address be there?"""
    bit = _near(hi, lo, _is_v4(hi, lo))
    return (I64(circle.near[I64(bit >> U64(3))]) >> I64(bit & U64(7))) & 1 == 1


@primitive
def fetch_prefix(circle, hi, lo):
    """Ask for the slot at which a near address will be looked for first."""
    lengths = circle.lengths4 if _is_v4(hi, lo) else circle.lengths6
    if len(lengths) > 0:
        high, low = hi & mask_high(lengths[0]), lo & mask_low(lengths[0])
        fetch(circle.prefixes, _first_slot(circle, high, low, lengths[0]))


@primitive
def _first_slot(circle, hi, lo, length):
    """The slot at which a prefix is looked for first."""
    key, mask = circle.key, U64(len(circle.prefixes) - 1)
    return address_hash(key[0], key[1], hi, lo + U64(length)) & mask


@primitive
def find_prefix(circle, hi, lo, length):
    """The slot of a prefix, or the empty slot where it would go."""
    prefixes, mask = circle.prefixes, U64(len(circle.prefixes) - 1)
    at = _first_slot(circle, hi, lo, length)
    while prefixes[at].newest > 0 and not (
        prefixes[at].hi == hi and prefixes[at].lo == lo and prefixes[at].bits == length
    ):
        at = (at + U64(1)) & mask
    return I64(at)


@primitive
def fact_at(facts, newest, t, known_ns):
    """Of a chain, the fact that ruled at event time `t` by what was known at `known_ns`; or -1."""
    at = I64(newest) - 1
    while at >= 0 and (facts[at].event_ns > t or facts[at].received_ns > known_ns):
        at = I64(facts[at].older) - 1
    return at


@primitive
def holder_at(circle, hi, lo, t, known_ns):
    """Who held the address at event time `t`, by facts known at `known_ns`; -1 for nobody."""
    prefixes, facts = circle.prefixes, circle.facts
    lengths4, lengths6 = circle.lengths4, circle.lengths6
    found = I64(-1)
    if not is_near(circle, hi, lo):
        return found  # most addresses of servers
    v4 = _is_v4(hi, lo)
    i, count = 0, len(lengths4) if v4 else len(lengths6)
    while found < 0 and i < count:
        length = lengths4[i] if v4 else lengths6[i]
        at = find_prefix(circle, hi & mask_high(length), lo & mask_low(length), length)
        prefix = prefixes[at]
        if prefix.newest > 0:
            if prefix.since_ns <= t and prefix.since_ns <= known_ns:
                found = I64(prefix.holder)
            else:
                fact = fact_at(facts, prefix.newest, t, known_ns)
                if fact >= 0:
                    found = I64(facts[fact].holder)
        i += 1
    return found


@primitive
def basis_at(circle, subscriber, t, known_ns):
    """The basis of a subscriber at event time `t`, by facts known at `known_ns`."""
    standing, facts = circle.standings[subscriber], circle.basis_facts
    if standing.newest > 0 and standing.since_ns <= t and standing.since_ns <= known_ns:
        return I64(standing.state)
    fact = fact_at(facts, standing.newest, t, known_ns)
    return I64(facts[fact].state) if fact >= 0 else I64(0)


@primitive
def in_parse_set(basis, parse_for):
    """May payload of a subscriber with this basis be read?"""
    return basis == CONSENTED or (parse_for >= 2 and basis == LISTED)


@primitive
def _chain(facts, newest, fact):
    """Put `fact` into the chain that starts at `newest`, newest event first; the new start."""
    newer, at = I64(-1), I64(newest) - 1
    while at >= 0 and (
        facts[at].event_ns > facts[fact].event_ns
        or (
            facts[at].event_ns == facts[fact].event_ns
            and facts[at].received_ns > facts[fact].received_ns
        )
    ):
        newer = at
        at = I64(facts[at].older) - 1
    facts[fact].older = at + 1
    if newer < 0:
        return I64(fact) + 1
    facts[newer].older = fact + 1
    return I64(newest)


@kernel
def add_bindings(circle, first_fact, hi, lo, length, holder, event_ns, received_ns):
    """Add rows as facts `first_fact...`; returns how many new slots were taken.

    Touches 101 bytes a row: 7 % of the memory's bandwidth.
    """
    prefixes, facts = circle.prefixes, circle.facts
    taken = 0
    for i in range(len(hi)):
        fact = first_fact + i
        facts[fact].event_ns = event_ns[i]
        facts[fact].received_ns = received_ns[i]
        facts[fact].holder = holder[i]
        bits = I64(length[i])
        high, low = hi[i] & mask_high(bits), lo[i] & mask_low(bits)
        prefix = prefixes[find_prefix(circle, high, low, bits)]
        if prefix.newest == 0:
            prefix.hi, prefix.lo, prefix.bits = high, low, bits
            taken += 1
            _mark_near(circle.near, high, low, bits)
        prefix.newest = _chain(facts, prefix.newest, fact)
        newest = facts[prefix.newest - 1]
        prefix.since_ns = max(newest.event_ns, newest.received_ns)
        prefix.holder = newest.holder
    return taken


@kernel
def add_basis(circle, first_fact, subscriber, state, event_ns, received_ns):
    """Add basis rows as facts `first_fact...`.

    Touches 61 bytes a row: 45 % of the memory's bandwidth.
    """
    standings, facts = circle.standings, circle.basis_facts
    for i in range(len(subscriber)):
        fact = first_fact + i
        facts[fact].event_ns = event_ns[i]
        facts[fact].received_ns = received_ns[i]
        facts[fact].state = state[i]
        standing = standings[subscriber[i]]
        standing.newest = _chain(facts, standing.newest, fact)
        newest = facts[standing.newest - 1]
        standing.since_ns = max(newest.event_ns, newest.received_ns)
        standing.state = newest.state


@kernel
def rehash(circle, smaller):
    """Enter the prefixes of a smaller table into this one.

    Touches 80 bytes a slot: 25 % of the memory's bandwidth.
    """
    for i in range(len(smaller)):
        prefix = smaller[i]
        if prefix.newest > 0:
            at = find_prefix(circle, prefix.hi, prefix.lo, I64(prefix.bits))
            circle.prefixes[at] = prefix


@kernel
def bases(circle, subscriber, t, known_ns, out):
    """`basis_at` for each row, into `out` (uint8); rows without a subscriber get 0.

    Touches 37 bytes a row: less than 1 % of the memory's bandwidth.
    """
    for i in range(len(subscriber)):
        out[i] = 0
        if subscriber[i] >= 0:
            out[i] = basis_at(circle, subscriber[i], t[i], known_ns[i])


class Circle:
    """Owns the tables and grows them. One writer; kernels read `arrays`."""

    def __init__(self, key: np.ndarray, capacity: int = 1 << 12) -> None:
        assert capacity & (capacity - 1) == 0, "capacity is a power of two"
        self.facts = self.basis_facts = self.prefixes = 0
        self.arrays = CircleArrays(
            key,
            np.zeros(0, np.int64),
            np.zeros(0, np.int64),
            np.zeros(2 * NEAR_BYTES, np.uint8),
            records(PREFIX, capacity),
            records(FACT, capacity),
            records(STANDING, capacity),
            records(BASIS_FACT, capacity),
        )

    def bind(self, rows: BindingBatch) -> None:
        """Take BIND and END rows, in the order of the journal."""
        self._make_room(len(rows))
        holder = np.where(rows.kind == BindingKind.BIND, rows.subscriber, NOBODY).astype(np.int32)
        for v4 in (True, False):
            side = ((rows.address_hi == 0) & ((rows.address_lo >> U64(32)) == 0xFFFF)) == v4
            known = self.arrays.lengths4 if v4 else self.arrays.lengths6
            lengths = np.union1d(known, rows.prefix_length[side].astype(np.int64))[::-1].copy()
            name = "lengths4" if v4 else "lengths6"
            self.arrays = self.arrays._replace(**{name: lengths})
        self.prefixes += add_bindings(
            self.arrays,
            self.facts,
            rows.address_hi,
            rows.address_lo,
            rows.prefix_length,
            holder,
            rows.event_ns,
            rows.received_ns,
        )
        self.facts += len(rows)

    def set_basis(self, rows: BasisBatch) -> None:
        """Take basis rows, in the order of the journal."""
        self._grow("basis_facts", self.basis_facts + len(rows))
        self._grow("standings", int(rows.subscriber.max(initial=-1)) + 1)
        add_basis(
            self.arrays,
            self.basis_facts,
            rows.subscriber,
            rows.state,
            rows.event_ns,
            rows.received_ns,
        )
        self.basis_facts += len(rows)

    def _make_room(self, facts: int) -> None:
        """Room for so many facts more, each perhaps of a prefix of its own."""
        self._grow("facts", self.facts + facts)
        smaller = self.arrays.prefixes
        capacity = len(smaller)
        while (self.prefixes + facts) * 2 > capacity:
            capacity *= 2
        if capacity > len(smaller):
            self.arrays = self.arrays._replace(prefixes=records(PREFIX, capacity))
            rehash(self.arrays, smaller)

    def _grow(self, name: str, needed: int) -> None:
        old = getattr(self.arrays, name)
        capacity = len(old)
        while capacity < needed:
            capacity *= 2
        if capacity > len(old):
            new = records(old.dtype, capacity)
            new[: len(old)] = old
            self.arrays = self.arrays._replace(**{name: new})
