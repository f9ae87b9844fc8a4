"""Fragments put together in plain Python: a packet is a dict of its bytes by place.

`ask` says who an address belongs to, or why nobody may look (a Skip); without it nobody is asked.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.model.faults import Fault, Skip
from tests.naive.headers import Bytes, Fragment, Header, Rejected, Walk

BLOCK_BYTES, BLOCKS_A_SET_MAX = 2048, 128
Ask = Callable[[str, int], "int | Skip"]
Key = tuple[object, ...]


@dataclass
class Kept:
    """A packet of which fragments have come."""

    subscriber: int
    inside: bool
    deadline_ns: int
    bytes: dict[int, int] = field(default_factory=dict)
    blocks: list[tuple[int, int]] = field(default_factory=list)
    pieces: set[tuple[int, int]] = field(default_factory=set)
    total: int | None = None
    protocol: int = 0
    disagrees: bool = False
    discarded: bool = False


class NaiveFragments:
    """What `Fragments` does, one fragment at a time."""

    def __init__(self, sets: int, blocks: int, hold_ns: int, ask: Ask | None = None) -> None:
        self.room, self.blocks, self.hold_ns, self.ask = sets, blocks, hold_ns, ask
        self.kept: dict[Key, Kept] = {}  # in the order in which they came
        self.watermark_ns = -(1 << 62)
        self.faults: Counter[Fault] = Counter()

    def pass_time(self, time_ns: int) -> None:
        """Packets whose time is up are given up."""
        self.watermark_ns = max(self.watermark_ns, time_ns)
        self.expire(self.watermark_ns)

    def expire(self, time_ns: int) -> None:
        for key in [k for k, kept in self.kept.items() if kept.deadline_ns < time_ns]:
            self.faults[Fault.FRAGMENT] += not self.kept.pop(key).discarded

    def forget(self, subscribers: set[int]) -> None:
        """Drop what is kept for these."""
        self.kept = {k: v for k, v in self.kept.items() if v.subscriber not in subscribers}

    def take(self, time_ns: int, found: Fragment | Header) -> tuple[Header | Fault | Skip, int]:
        """What becomes of a packet, and whose it is."""
        self.pass_time(time_ns)
        while True:
            who = self.ask(found.source, time_ns) if self.ask else -1
            if isinstance(found, Header):
                return (who, -1) if isinstance(who, Skip) else (found, who)
            key = self._place(found, who, time_ns)
            if isinstance(key, Skip):
                return key, -1
            outcome = self._add(key, found)
            if outcome is not None:
                return outcome, -1
            inner = self._go_on(self.kept.pop(key), found)
            if isinstance(inner, Fault | Skip):
                return inner, -1
            found = inner

    def _place(self, found: Fragment, who: int | Skip, time_ns: int) -> Key | Skip:
        protocol = found.protocol if found.version == 4 else None
        key = (found.source, found.target, found.version, protocol, found.identification, found.realm)  # fmt: skip
        kept, inside = self.kept.get(key), False
        if isinstance(who, Skip):
            if kept:
                return key if kept.inside else who
            looked = self._look_inside(found, time_ns)
            if looked is None:
                return who
            who, inside = looked, True
        if kept and kept.subscriber != who:
            del self.kept[key]
            self.faults[Fault.FRAGMENT] += 1
            kept = None
        if not kept:
            if len(self.kept) == self.room:
                self._evict()
            self.kept[key] = Kept(
                who, inside, self.watermark_ns + self.hold_ns, protocol=found.protocol
            )
        return key

    def _look_inside(self, found: Fragment, time_ns: int) -> int | None:
        if found.offset:
            return None
        walk = Walk(list(found.realm), found.depth, source=found.source)
        with contextlib.suppress(Rejected):
            _descend(walk, found, found.protocol, Bytes(found.payload, 65535))
        if walk.source == found.source:
            return None
        assert self.ask
        who = self.ask(walk.source, time_ns)
        return None if isinstance(who, Skip) else who

    def _evict(self) -> None:
        del self.kept[next(iter(self.kept))]
        self.faults[Fault.FRAGMENTS_EXHAUSTED] += 1

    def _add(self, key: Key, found: Fragment) -> Fault | Skip | None:
        """Why a packet is not whole yet; None where it is."""
        kept = self.kept[key]
        start, stop = found.offset, found.offset + len(found.payload)
        if kept.discarded:
            return Fault.FRAGMENT_OVERLAP
        there = [at for at in range(start, stop) if at in kept.bytes]
        differs = any(kept.bytes[at] != found.payload[at - start] for at in there)
        reach = max(kept.bytes, default=-1) + 1
        beyond = kept.total is not None and (
            stop > kept.total or (not found.more and stop < kept.total)
        )
        if beyond or (not found.more and stop < reach):
            return self._contradict(kept, found)
        again = (start, stop) in kept.pieces and not differs
        if found.version == 6 and there and not again:
            return self._contradict(kept, found)
        if differs and not kept.disagrees:
            kept.disagrees = True
            self.faults[Fault.OVERLAP_DISAGREES] += 1
        needed = self._blocks_of(at for at in range(start, stop) if at not in kept.bytes)
        if needed:
            while self._left() < len(needed) and next(iter(self.kept)) != key:
                self._evict()
            if self._left() < len(needed) or len(kept.blocks) + len(needed) > BLOCKS_A_SET_MAX:
                del self.kept[key]
                return Fault.FRAGMENTS_EXHAUSTED
            kept.blocks += needed
            kept.pieces.add((start, stop))
            for at in range(start, stop):
                kept.bytes.setdefault(at, found.payload[at - start])
        if not found.more:
            kept.total = stop
        if start == 0:
            kept.protocol = found.protocol
        if kept.total is not None and len(kept.bytes) == kept.total:
            return None
        return Skip.PASSED if len(there) == stop - start else Skip.FRAGMENT_HELD

    def _contradict(self, kept: Kept, found: Fragment) -> Fault:
        if found.version == 6:
            kept.bytes, kept.blocks, kept.discarded = {}, [], True
        return Fault.FRAGMENT_OVERLAP

    def _left(self) -> int:
        return self.blocks - sum(len(kept.blocks) for kept in self.kept.values())

    def _blocks_of(self, places: object) -> list[tuple[int, int]]:
        blocks: list[tuple[int, int]] = []
        for at in places:  # type: ignore[attr-defined]
            if blocks and blocks[-1][1] == at and at - blocks[-1][0] < BLOCK_BYTES:
                blocks[-1] = (blocks[-1][0], at + 1)
            else:
                blocks.append((at, at + 1))
        return blocks

    def _go_on(self, kept: Kept, found: Fragment) -> Fragment | Header | Fault | Skip:
        whole = bytes(kept.bytes[at] for at in range(len(kept.bytes)))
        walk = Walk(list(found.realm), found.depth)
        try:
            return _descend(walk, found, kept.protocol, Bytes(whole, len(whole)))
        except Rejected as rejected:
            return rejected.args[0]


def _descend(walk: Walk, found: Fragment, protocol: int, payload: Bytes) -> Fragment | Header:
    ends = [found.source, found.target]
    if found.version == 6 or protocol == 51:
        return walk.extensions(protocol, payload, ends)
    return walk.protocol(protocol, payload, ends)
