"""Who held which address, and who may be looked at: two tables of facts, asked per packet.

Every fact has two times: `event_ns`, from when it holds, and `received_ns`, since when we know it.
A question names the packet's time t and is answered from facts with event <= t that were known at t
(received <= t), so it does not matter how far ahead of the packets the facts were loaded. Among
those the latest event wins, then the latest received, then the later row.

Addresses are prefixes of 128 bits in an open-addressing table keyed by a secret; the longest prefix
that is bound at t wins. Each prefix has a chain of facts, newest event first; a subscriber of -1
ends whatever was before. Each subscriber has such a chain of basis facts. Sketch: 24 bytes a slot
and one chain step of 28 bytes, so a member's packet costs three to five cache lines and an
outsider's mostly one. Capacity doubles when a table is half full.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.kernels.compile import kernel, primitive
from pipeline.kernels.hashing import address_hash
from pipeline.model.batches import BasisBatch, BindingBatch
from pipeline.model.stage import Snapshot
from pipeline.model.words import Basis, BindingKind

U64 = np.uint64
NOBODY = -1
CONSENTED, LISTED = int(Basis.CONSENTED), int(Basis.LISTED)
EVERYONE = 3


class CircleArrays(NamedTuple):
    """The tables as kernels see them. A slot with `head` -1 is empty."""

    key: np.ndarray  # uint64 (2,)
    lengths4: np.ndarray  # int64: prefix lengths in use for IPv4, longest first
    lengths6: np.ndarray
    slot_hi: np.ndarray  # uint64
    slot_lo: np.ndarray
    slot_length: np.ndarray  # uint8
    head: np.ndarray  # int32, first fact of the slot
    event_ns: np.ndarray  # int64
    received_ns: np.ndarray
    subscriber: np.ndarray  # int32
    next_fact: np.ndarray  # int32
    basis_head: np.ndarray  # int32, by subscriber
    basis_event_ns: np.ndarray
    basis_received_ns: np.ndarray
    basis_state: np.ndarray  # uint8
    basis_next: np.ndarray


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
def find_slot(circle, hi, lo, length):
    """The slot of a prefix, or the empty slot where it would go."""
    # The arrays are taken out of the tuple once: inside a loop each mention of `circle.name` counts
    # a reference up and down, and the lookup takes 190 ns instead of 8.
    key, head, slot_hi = circle.key, circle.head, circle.slot_hi
    slot_lo, slot_length = circle.slot_lo, circle.slot_length
    mask = U64(len(head) - 1)
    at = address_hash(key[0], key[1], hi, lo + U64(length)) & mask
    while head[at] >= 0 and not (
        slot_hi[at] == hi and slot_lo[at] == lo and slot_length[at] == length
    ):
        at = (at + U64(1)) & mask
    return np.int64(at)


@primitive
def holder_at(circle, hi, lo, t, known_ns):
    """Who held the address at event time `t`, by facts known at `known_ns`; -1 for nobody."""
    head, next_fact, subscriber = circle.head, circle.next_fact, circle.subscriber
    event_ns, received_ns = circle.event_ns, circle.received_ns
    lengths4, lengths6 = circle.lengths4, circle.lengths6
    v4 = hi == U64(0) and (lo >> U64(32)) == U64(0xFFFF)
    found = np.int32(-1)
    i, count = 0, len(lengths4) if v4 else len(lengths6)
    while found < 0 and i < count:
        length = lengths4[i] if v4 else lengths6[i]
        fact = head[find_slot(circle, hi & mask_high(length), lo & mask_low(length), length)]
        while fact >= 0 and (event_ns[fact] > t or received_ns[fact] > known_ns):
            fact = next_fact[fact]
        if fact >= 0:
            found = subscriber[fact]
        i += 1
    return found


@primitive
def basis_at(circle, subscriber, t, known_ns):
    """The basis of a subscriber at event time `t`, by facts known at `known_ns`."""
    event_ns, received_ns = circle.basis_event_ns, circle.basis_received_ns
    state, next_fact = circle.basis_state, circle.basis_next
    fact = circle.basis_head[subscriber]
    while fact >= 0 and (event_ns[fact] > t or received_ns[fact] > known_ns):
        fact = next_fact[fact]
    return state[fact] if fact >= 0 else np.uint8(0)


@primitive
def in_parse_set(basis, parse_for):
    """May payload of a subscriber with this basis be read?"""
    return basis == CONSENTED or (parse_for >= 2 and basis == LISTED)


@primitive
def _chain(head, event_ns, received_ns, next_fact, fact):
    """Put `fact` into the chain that starts at `head`, newest event first; returns the new head."""
    before = np.int32(-1)
    at = head
    while at >= 0 and (
        event_ns[at] > event_ns[fact]
        or (event_ns[at] == event_ns[fact] and received_ns[at] > received_ns[fact])
    ):
        before = at
        at = next_fact[at]
    next_fact[fact] = at
    if before < 0:
        return np.int32(fact)
    next_fact[before] = fact
    return head


@kernel
def add_bindings(circle, first_fact, hi, lo, length, subscriber, event_ns, received_ns):
    """Add rows as facts `first_fact...`; returns how many new slots were taken."""
    taken = 0
    for i in range(len(hi)):
        fact = np.int32(first_fact + i)
        circle.event_ns[fact] = event_ns[i]
        circle.received_ns[fact] = received_ns[i]
        circle.subscriber[fact] = subscriber[i]
        high = hi[i] & mask_high(np.int64(length[i]))
        low = lo[i] & mask_low(np.int64(length[i]))
        at = find_slot(circle, high, low, np.int64(length[i]))
        if circle.head[at] < 0:
            circle.slot_hi[at] = high
            circle.slot_lo[at] = low
            circle.slot_length[at] = length[i]
            circle.next_fact[fact] = -1
            circle.head[at] = fact
            taken += 1
        else:
            circle.head[at] = _chain(
                circle.head[at], circle.event_ns, circle.received_ns, circle.next_fact, fact
            )
    return taken


@kernel
def add_basis(circle, first_fact, subscriber, state, event_ns, received_ns):
    """Add basis rows as facts `first_fact...`."""
    for i in range(len(subscriber)):
        fact = np.int32(first_fact + i)
        circle.basis_event_ns[fact] = event_ns[i]
        circle.basis_received_ns[fact] = received_ns[i]
        circle.basis_state[fact] = state[i]
        circle.basis_head[subscriber[i]] = _chain(
            circle.basis_head[subscriber[i]],
            circle.basis_event_ns,
            circle.basis_received_ns,
            circle.basis_next,
            fact,
        )


@kernel
def rehash(circle, old_hi, old_lo, old_length, old_head):
    """Enter the slots of a smaller table into this one."""
    for i in range(len(old_head)):
        if old_head[i] >= 0:
            at = find_slot(circle, old_hi[i], old_lo[i], np.int64(old_length[i]))
            circle.slot_hi[at] = old_hi[i]
            circle.slot_lo[at] = old_lo[i]
            circle.slot_length[at] = old_length[i]
            circle.head[at] = old_head[i]


@kernel
def bases(circle, subscriber, t, known_ns, out):
    """`basis_at` for each row, into `out` (uint8); rows without a subscriber get 0."""
    for i in range(len(subscriber)):
        out[i] = 0
        if subscriber[i] >= 0:
            out[i] = basis_at(circle, subscriber[i], t[i], known_ns[i])


class Circle:
    """Owns the tables and grows them. One writer; kernels read `arrays`."""

    def __init__(self, key: np.ndarray, capacity: int = 1 << 12) -> None:
        self.facts = self.basis_facts = self.slots = 0
        self.arrays = CircleArrays(
            key,
            np.zeros(0, np.int64),
            np.zeros(0, np.int64),
            *(*_slots(capacity), *_facts(capacity), *_basis(capacity)),
        )

    def bind(self, rows: BindingBatch) -> None:
        """Take BIND and END rows, in the order of the journal."""
        self._room(len(rows), 0, 0)
        who = np.where(rows.kind == BindingKind.BIND, rows.subscriber, NOBODY).astype(np.int32)
        for v4 in (True, False):
            side = ((rows.address_hi == 0) & ((rows.address_lo >> U64(32)) == 0xFFFF)) == v4
            known = self.arrays.lengths4 if v4 else self.arrays.lengths6
            lengths = np.union1d(known, rows.prefix_length[side].astype(np.int64))[::-1].copy()
            name = "lengths4" if v4 else "lengths6"
            self.arrays = self.arrays._replace(**{name: lengths})
        self.slots += add_bindings(
            self.arrays,
            self.facts,
            rows.address_hi,
            rows.address_lo,
            rows.prefix_length,
            who,
            rows.event_ns,
            rows.received_ns,
        )
        self.facts += len(rows)

    def set_basis(self, rows: BasisBatch) -> None:
        """Take basis rows, in the order of the journal."""
        highest = int(rows.subscriber.max()) + 1 if len(rows) else 0
        self._room(0, len(rows), highest)
        add_basis(
            self.arrays,
            self.basis_facts,
            rows.subscriber,
            rows.state,
            rows.event_ns,
            rows.received_ns,
        )
        self.basis_facts += len(rows)

    def _room(self, facts: int, basis_facts: int, subscribers: int) -> None:
        a = self.arrays
        if (self.slots + facts) * 2 > len(a.head):
            capacity = len(a.head)
            while (self.slots + facts) * 2 > capacity:
                capacity *= 2
            names = ("slot_hi", "slot_lo", "slot_length", "head")
            grown = a._replace(**dict(zip(names, _slots(capacity), strict=True)))
            rehash(grown, a.slot_hi, a.slot_lo, a.slot_length, a.head)
            self.arrays = grown
        self._grow(("event_ns", "received_ns", "subscriber", "next_fact"), self.facts + facts)
        self._grow(
            ("basis_event_ns", "basis_received_ns", "basis_state", "basis_next"),
            self.basis_facts + basis_facts,
        )
        self._grow(("basis_head",), subscribers)

    def _grow(self, names: tuple[str, ...], needed: int) -> None:
        capacity = len(getattr(self.arrays, names[0]))
        if needed <= capacity:
            return
        while capacity < needed:
            capacity *= 2
        for name in names:
            old = getattr(self.arrays, name)
            new = np.full(capacity, -1 if old.dtype == np.int32 else 0, old.dtype)
            new[: len(old)] = old
            self.arrays = self.arrays._replace(**{name: new})

    def snapshot(self) -> dict[str, np.ndarray]:
        """All tables as arrays (the key is not among them)."""
        state = {n: getattr(self.arrays, n).copy() for n in CircleArrays._fields if n != "key"}
        state["counts"] = np.array([self.facts, self.basis_facts, self.slots], np.int64)
        return state

    def restore(self, snapshot: Snapshot) -> None:
        """Take the tables of a snapshot made with the same key."""
        named = {n: snapshot[n].copy() for n in CircleArrays._fields if n != "key"}
        self.arrays = CircleArrays(key=self.arrays.key, **named)
        self.facts, self.basis_facts, self.slots = (int(n) for n in snapshot["counts"])


def _slots(capacity: int) -> tuple[np.ndarray, ...]:
    assert capacity & (capacity - 1) == 0, "capacity is a power of two"
    return (
        np.zeros(capacity, np.uint64),
        np.zeros(capacity, np.uint64),
        np.zeros(capacity, np.uint8),
        np.full(capacity, -1, np.int32),
    )


def _facts(capacity: int) -> tuple[np.ndarray, ...]:
    return (
        np.zeros(capacity, np.int64),
        np.zeros(capacity, np.int64),
        np.full(capacity, -1, np.int32),
        np.full(capacity, -1, np.int32),
    )


def _basis(capacity: int) -> tuple[np.ndarray, ...]:
    return (
        np.full(capacity, -1, np.int32),
        np.zeros(capacity, np.int64),
        np.zeros(capacity, np.int64),
        np.zeros(capacity, np.uint8),
        np.full(capacity, -1, np.int32),
    )
